//! What the core is opened with, what a write asks for, and which rows this build reads.

use std::time::Duration;

use crate::audit::AuditLimits;
use crate::extension::Extensions;
use crate::io::{Durability, RequestId};
use crate::journal::JournalLimits;
use crate::keys;
use crate::lag::LagLimits;
use crate::limits::{OPEN_AT_ONCE_SPACES, SEGMENT_ENTRIES};
use crate::operations::OperationId;
use crate::retention::Retention;
use crate::space::InstanceToken;
use crate::store::{StateRead, StoreError};
use crate::throttle::Throttle;
use crate::version::VersionRange;

/// What the core is opened with.
pub struct EngineOptions {
    /// The secret half of the replica's key, used when the store holds none yet.
    pub fresh_key: [u8; 32],
    /// The instance token of the data directory.
    pub instance: InstanceToken,
    /// Where this replica is, as others are told with its first write; `None` to say nothing.
    pub region: Option<String>,
    /// How much the journal of each space may hold.
    pub journal: JournalLimits,
    /// When documents are settled.
    pub tail: TailLimits,
    /// Which lag is told of.
    pub lag: LagLimits,
    /// When local writes are slowed down, if ever.
    pub throttle: Option<Throttle>,
    /// How long entries of the log are kept.
    pub retention: Retention,
    /// When and how large snapshots are taken over.
    pub bootstrap: BootstrapLimits,
    /// Which protocol versions are spoken.
    pub versions: VersionRange,
    /// Which operations and kinds of later versions are known.
    pub extensions: Extensions,
    /// How often the state is compared with that of others.
    pub audit: AuditLimits,
    /// With a peer with which no more spaces than this are shared, all are opened as soon as it connects. With others only
    /// those are in which the two stand differently, which takes some round trips to find out.
    pub open_at_once: usize,
    /// Entries in the segments into which lanes are divided for who catches up: what is encoded once for all, and what is asked of
    /// one peer at a time.
    pub segment_entries: u64,
}

/// When a replica takes over the state of another one, and how much it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootstrapLimits {
    /// Who holds nothing of a space takes it over when there are so many entries. It is also taken over by whoever lacks
    /// entries that nobody who is connected keeps.
    pub entries_min: u64,
    /// Of the rows of a space, before they are packed.
    pub bytes_max: u64,
}

impl BootstrapLimits {
    /// From 50,000 entries on, however large it is.
    pub const USUAL: Self = Self { entries_min: 50_000, bytes_max: u64::MAX };
}

/// When the tail of a document, the changes that are not in its snapshot, has become long: it goes into a new
/// snapshot then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailLimits {
    /// Changes, when that is also more than an eighth of those in the snapshot.
    pub changes: u64,
    /// Raw bytes, when that is also more than an eighth of those of the changes in the snapshot.
    pub bytes: u64,
}

impl TailLimits {
    /// 512 changes, 64 KiB.
    pub const USUAL: Self = Self { changes: 512, bytes: 64 * 1024 };
}

impl EngineOptions {
    /// Of no region, with the usual journal, without limits on lag; the log is kept, and nothing is audited.
    pub const fn new(fresh_key: [u8; 32], instance: InstanceToken) -> Self {
        Self {
            fresh_key,
            instance,
            region: None,
            journal: JournalLimits::USUAL,
            tail: TailLimits::USUAL,
            lag: LagLimits::NONE,
            throttle: None,
            retention: Retention::OFF,
            bootstrap: BootstrapLimits::USUAL,
            versions: VersionRange::ALL,
            extensions: Extensions::NONE,
            audit: AuditLimits::OFF,
            open_at_once: OPEN_AT_ONCE_SPACES,
            segment_entries: SEGMENT_ENTRIES,
        }
    }
}

impl Default for BootstrapLimits {
    fn default() -> Self {
        Self::USUAL
    }
}

/// What a write asks for.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Carried back by the reply.
    pub request: RequestId,
    /// How durable it must be.
    pub durability: Durability,
    /// How long to wait for other replicas.
    pub within: Duration,
    /// Under which id it is made, so that it can be repeated without counting twice.
    pub operation: Option<OperationId>,
}

impl WriteOptions {
    /// Durable here, without an operation id.
    pub const fn new(request: RequestId) -> Self {
        Self { request, durability: Durability::Local, within: Duration::ZERO, operation: None }
    }
}

/// The version of the core's rows and of the entries in the log, `docs/storage.md`,
pub(crate) const ROWS_VERSION: u8 = 4;
/// and that from the first entry on that has something of a later version. A directory is of the lowest version that says
/// all that is in it, so that a build from before it opens it again as long as it can.
pub(crate) const ROWS_VERSION_EXTENDED: u8 = 5;

/// Refuses rows of another version.
pub(crate) fn check_version(read: &dyn StateRead) -> Result<(), StoreError> {
    let found = match read.get(keys::ROWS_VERSION)?.as_deref() {
        Some([version]) => *version,
        Some(_) => {
            return Err(StoreError::Corrupt { detail: "the rows' version has not one byte".to_owned() });
        }
        None => 1,
    };
    let supported = ROWS_VERSION_EXTENDED;
    if (ROWS_VERSION..=supported).contains(&found) {
        Ok(())
    } else {
        Err(StoreError::Version { found, supported })
    }
}
