//! The embedded store on a simulated disk of sectors: what a power cut leaves is decided sector by sector.

use std::io;
use std::time::Duration;

use comity_engine::{LogRead, Position, StoreError};
use comity_store::faults::{self, Disk, Image, Rot, Tear};
use comity_store::{EmbeddedStore, OpenError, Reader, StoreOptions, Syncer};

use crate::random::Dice;

/// The real store, and the disk under it.
pub(crate) struct Sectors {
    disk: Disk,
    pub(crate) store: EmbeddedStore,
    syncer: Syncer,
    reader: Reader,
    /// The last position since the store was opened that a sync covered.
    pub(crate) synced: Position,
    /// Whether the last opening reported that durable data was lost.
    pub(crate) damaged: bool,
}

/// Small files and frequent checkpoints, so that a short life has many of both.
fn options() -> StoreOptions {
    StoreOptions {
        log_file_bytes: 32 * 1024,
        checkpoint_bytes_max: 100_000,
        cache_bytes: 1024 * 1024,
        // Readers are measured in virtual time only.
        view_age_max: Duration::from_secs(86_400),
        ..StoreOptions::default()
    }
}

impl Sectors {
    pub(crate) fn open(image: Image) -> Result<Self, OpenError> {
        let disk = Disk::new(image);
        let opened = faults::open(&disk, &options())?;
        let (store, syncer, reader) = (opened.store, opened.syncer, opened.reader);
        Ok(Self { disk, store, syncer, reader, synced: Position(0), damaged: opened.damage.is_some() })
    }

    /// Makes everything committed durable; with `full`, no file can grow meanwhile.
    pub(crate) fn sync(&mut self, full: bool) -> Result<Position, StoreError> {
        self.disk.heal();
        if full {
            self.disk.fill_up();
        }
        self.synced = self.syncer.sync()?;
        // As a storage thread does that now and then has nothing else to do.
        let rests = self.synced.0.is_multiple_of(3);
        let kept_up = self.syncer.maintain().and_then(|()| if rests { self.syncer.follow() } else { Ok(()) });
        match kept_up {
            // It is tried again after the next sync.
            Ok(()) | Err(StoreError::NoSpace) => Ok(self.synced),
            Err(error) => Err(error),
        }
    }

    /// A sync during which the disk fails.
    pub(crate) fn sync_failing(&mut self) -> StoreError {
        self.disk.fail_after(0, io::ErrorKind::Other);
        let result = self.syncer.sync();
        result.err().unwrap_or(StoreError::Failed { detail: "there was nothing to sync".to_owned() })
    }

    /// What a power cut now leaves.
    pub(crate) fn cut(&self, dice: &mut Dice) -> Image {
        let tear = [Tear::Nothing, Tear::All, Tear::Operations, Tear::Sectors][dice.index(4)];
        self.disk.crash_image(tear, &mut || dice.roll())
    }

    /// As [`Sectors::cut`], and bytes of the log change that were durable. Returns how many bits did.
    pub(crate) fn rot(&self, dice: &mut Dice) -> (Image, usize) {
        let damaged = Disk::new(self.cut(dice));
        let flipped = damaged.flip_bits(Rot::OneFile, &mut || dice.roll());
        (damaged.image(), flipped)
    }

    /// How often the store gave its directory another identity.
    pub(crate) fn renewals(&self) -> u64 {
        self.disk.renewals()
    }

    pub(crate) fn view(&self) -> Result<Box<dyn LogRead>, StoreError> {
        Ok(Box::new(self.reader.snapshot()?))
    }
}

impl std::fmt::Debug for Sectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sectors").finish_non_exhaustive()
    }
}
