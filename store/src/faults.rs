//! What happens when the disk fails, fills up, loses power at any moment, or changes what it holds.
//!
//! The real code runs on a simulated disk, the database and the log alike. The disk keeps apart what is
//! durable, so [`Disk::crash_image`] gives what a power cut may leave, and it can be told to fail.
//!
//! For tests only: other crates get it with the feature `faults`.

mod cache;
mod content;
mod disk;
mod image;
mod rot;

#[cfg(test)]
mod compacting;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod failure;
#[cfg(test)]
mod full;
#[cfg(test)]
mod handles;
#[cfg(test)]
mod workload;

use redb::Builder;

use crate::data_file::DataFile;
use crate::embedded::{Opened, Parts, StoreOptions};
use crate::error::OpenError;
use crate::format::{self, guarded};
use crate::generation::Generation;
use crate::instance::InstanceToken;
use crate::syncer::RoomProbe;
use image::{DATABASE, Operation};

#[cfg(feature = "faults")]
pub use crate::log::{Forged, forge};
pub use cache::Tear;
pub use disk::{Disk, Full, Lie};
pub use image::Image;
pub use rot::Rot;

/// Memory for pages of the database while it is created.
const CREATION_CACHE_BYTES: usize = 1024 * 1024;

/// Opens the store on a disk as [`EmbeddedStore::open`](crate::EmbeddedStore::open) opens one in a directory,
/// and creates it where the disk is empty; a power cut leaves it created whole or not at all. The instance
/// token follows from [`Disk::renewals`] alone: that of another disk may be the same.
///
/// Nothing keeps two stores off one disk: drop every handle of one before opening the next.
///
/// # Errors
/// [`OpenError`], as the real one, with the path `disk`.
pub fn open(disk: &Disk, options: &StoreOptions) -> Result<Opened, OpenError> {
    let image = disk.image();
    if !image.has_database() && !image.is_empty() {
        return Err(OpenError::DataMissing { path: "disk".into() });
    }
    let created = image.is_empty();
    if created {
        create(disk)?;
    }
    let probed = disk.clone();
    let opened = open_with(disk, options, Box::new(move || probed.room()))?;
    Ok(Opened { created, ..opened })
}

fn create(disk: &Disk) -> Result<(), OpenError> {
    let path = "disk".as_ref();
    let made = Disk::new(Image::default());
    let backend = made.database();
    let database = guarded(path, || {
        Ok(Builder::new().set_cache_size(CREATION_CACHE_BYTES).create_with_backend(backend)?)
    })?;
    format::initialise(&database).map_err(|error| OpenError::database(path, error))?;
    drop(database);
    let database = made.image().file(DATABASE).clone();
    disk.change(Operation::Install { database })
        .map_err(|error| OpenError::io("creating the data file", path, error))
}

fn open_with(disk: &Disk, options: &StoreOptions, room: RoomProbe) -> Result<Opened, OpenError> {
    let path = "disk".as_ref();
    let data_file = DataFile::over(disk.database());
    let database = format::open(path, data_file.clone(), options.cache_bytes)?;
    let generation = Generation::new(database, data_file);
    let (dir, log) = (Box::new(disk.clone()), Box::new(disk.clone()));
    let parts = Parts { generation, dir, log, lock: None, room };
    let renew = || disk.change(Operation::Renew).map_err(|error| OpenError::io("renewing", path, error));
    let (store, syncer, reader, damage) = parts.assemble(options, renew)?;
    let renewals = disk.renewals().to_be_bytes();
    let instance = InstanceToken(*blake3::hash(&renewals).as_bytes());
    Ok(Opened { store, syncer, reader, instance, created: false, damage })
}
