//! Stores for the core: [`EmbeddedStore`] on disk and [`MemoryStore`] for tests and simulation.
//!
//! A committed batch is visible to the core's handle at once and to nobody else; a sync makes everything
//! committed before it durable and then shows it to readers. The bytes on disk are described in
//! `docs/storage.md`.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod backlog;
mod backup;
mod compact;
mod copy;
mod data_file;
mod directory;
mod durable;
mod embedded;
mod error;
mod format;
mod generation;
mod health;
mod instance;
mod layer;
mod log;
mod memory;
mod merge;
mod overlay;
mod recovery;
mod snapshot;
mod syncer;
mod tables;

#[cfg(any(test, feature = "faults"))]
pub mod faults;

pub use backup::{BackupError, BackupProgress, BackupReport, Pinned, restore};
pub use compact::{CompactError, CompactReport};
pub use embedded::{EmbeddedStore, Opened, StoreOptions};
pub use error::OpenError;
pub use instance::InstanceToken;
pub use memory::{MemoryReader, MemorySnapshot, MemoryStore};
pub use recovery::Damage;
pub use snapshot::{KeptSnapshot, Reader, Snapshot};
pub use syncer::Syncer;
