//! What happens when the disk fails, fills up, loses power at any moment, or changes what it holds.
//!
//! The real code runs on a simulated disk that records what is done to it, the database and the log alike.

mod crash;
mod damage;
mod disk;
mod failure;
mod workload;

use redb::Builder;

use crate::embedded::{EmbeddedStore, Parts, StoreOptions};
use crate::error::OpenError;
use crate::format;
use crate::recovery::Damage;
use crate::snapshot::Reader;
use crate::syncer::{RoomProbe, Syncer};
use disk::{Disk, Operation};

/// An open store on a simulated disk.
struct Opened {
    store: EmbeddedStore,
    syncer: Syncer,
    reader: Reader,
    damage: Option<Damage>,
}

/// Small files and frequent checkpoints, so that a short life has many of both.
fn options() -> StoreOptions {
    StoreOptions {
        log_file_bytes: 6 * 1024,
        checkpoint_bytes_max: 15_000,
        cache_bytes: 1024 * 1024,
        ..StoreOptions::default()
    }
}

fn create(disk: &Disk) {
    let database = Builder::new().set_cache_size(1024 * 1024).create_with_backend(disk.clone()).unwrap();
    format::initialise(&database).unwrap();
}

fn open(disk: &Disk) -> Result<Opened, OpenError> {
    open_with(disk, &options(), Box::new(|| None))
}

fn open_with(disk: &Disk, options: &StoreOptions, room: RoomProbe) -> Result<Opened, OpenError> {
    let database = Builder::new()
        .set_cache_size(options.cache_bytes)
        .create_with_backend(disk.clone())
        .map_err(|error| OpenError::database("disk".as_ref(), error.into()))?;
    format::check("disk".as_ref(), &database)?;
    let parts = Parts { database, log: Box::new(disk.clone()), lock: None, room };
    let renew =
        || disk.change(Operation::Renew).map_err(|error| OpenError::io("renewing", "disk".as_ref(), error));
    let (store, syncer, reader, damage) = parts.assemble(options, renew)?;
    Ok(Opened { store, syncer, reader, damage })
}
