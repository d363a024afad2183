//! The audit: replicas compare their states object by object, all the time and at low priority, while they are written to.
//!
//! Two replicas have the same state of an object whenever they have applied the same operations on it. Which operations
//! those are follows from the frontiers, because lanes are chains of hashes: what is *touched* by entries that one
//! replica has and the other lacks cannot be compared yet, and all else must be equal. So nothing is stored for the audit and no
//! write pays for it: the digests are computed when they are needed, over a view of what is durable and outside the
//! core.
//!
//! A *pass* walks the objects of a space in the order of their keys, a *stretch* at a time. Each object is checked against itself
//! ([`inspect`]), and the digests of sixteen ranges are shown to one peer, with the frontier they are of. The peer answers
//! once it has applied as much: for ranges that differ with its objects, each with the digest of its state and the digest of the
//! operations on it that the asker lacks. Where that is none and the states differ, they have *diverged*.
//!
//! Who is wrong is found out by each of the two for itself, from the log of record ([`rebuild`]), whose entries their authors signed.
//! Where it is shortened, a replica that contradicts the digest it keeps of its own state has the rows sent by peers, and takes those that this
//! digest proves, or that a majority of the members that write sends ([`check`]). What one peer says is never a reason to change
//! anything, but to look.
//!
//! The list of [`members`] is audited as one more object.

mod check;
mod compare;
mod fetch;
mod inspect;
mod members;
mod pass;
mod rebuild;
mod repair;
mod reports;
mod serve;
mod staged;
mod stretch;

use std::fmt;
use std::time::Duration;

use comity_crdts::{ObjectAddress, ReplicaId, SpaceId};
use serde::{Deserialize, Serialize};

use crate::bootstrap::is_installing;
use crate::extension::Extensions;
use crate::held::is_any_held;
use crate::status::StateDigest;
use crate::store::{LogRead, StoreError};

pub(crate) use check::{Lent, Unproved};
pub use compare::AuditItem;
pub(crate) use compare::{Comparison, RangeItems};
pub(crate) use pass::Audits;
pub(crate) use rebuild::Rebuilt;
pub use rebuild::{ObjectDigest, object_digest, object_rows};
pub use reports::{Repair, repairs};
pub(crate) use serve::SessionAudit;
pub use stretch::RangeDigest;
pub(crate) use stretch::Stretch;

/// How often the state is compared with that of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditLimits {
    /// From the end of one pass over a space to the start of the next one; `None` for never. Who is asked is answered
    /// all the same, and what others find is looked into.
    pub every: Option<Duration>,
    /// Between two stretches of a pass, of up to 1,024 objects each.
    pub pause: Duration,
}

impl AuditLimits {
    /// No passes.
    pub const OFF: Self = Self { every: None, pause: Duration::from_secs(1) };
    /// Once a day, a stretch per second.
    pub const DAILY: Self = Self { every: Some(Duration::from_secs(24 * 60 * 60)), ..Self::OFF };
}

impl Default for AuditLimits {
    fn default() -> Self {
        Self::DAILY
    }
}

/// What the audits of a space have come to since this replica was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditStatus {
    /// Passes that were completed.
    pub passes: u64,
    /// When the last one was, by the wall clock, milliseconds since the Unix epoch.
    pub last_pass_ms: Option<u64>,
    /// Objects that were checked against themselves, over all passes.
    pub inspected: u64,
    /// Objects whose state was compared with a peer's, over all passes.
    pub compared: u64,
    /// Objects that could not be compared, because one side had applied operations that the other had not. They are
    /// looked at again in the next pass.
    pub touched: u64,
    /// Stretches that nobody compared: there was no peer, or it did not answer in time.
    pub unanswered: u64,
    /// Objects whose rows contradicted themselves or could not be read.
    pub damaged: u64,
    /// Objects that differed from a peer's although both had applied the same operations.
    pub diverged: u64,
    /// Of those of either sort, objects that were right here by the log of record.
    pub upheld: u64,
    /// Objects that were wrong here and were made again.
    pub repaired: u64,
    /// Objects that may be wrong here and could not be made again.
    pub unresolved: u64,
}

/// Something that an audit found or did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuditEvent {
    /// The rows of an object here contradict themselves, or cannot be read. It is about to be made again.
    Damaged {
        /// The space.
        space: SpaceId,
        /// The object.
        object: ObjectAddress,
        /// What is wrong with it.
        detail: String,
    },
    /// Two replicas have different states of an object although they have applied the same operations on it. Both are about
    /// to find out which of them is wrong.
    Diverged {
        /// The space.
        space: SpaceId,
        /// The object.
        object: ObjectAddress,
        /// The other replica.
        peer: ReplicaId,
        /// The digest of the state here; zero where there is none.
        own: StateDigest,
        /// The digest of the state there, as it says.
        theirs: StateDigest,
    },
    /// An object here is what the log of record makes of it, whatever a peer says.
    Upheld {
        /// The space.
        space: SpaceId,
        /// The object.
        object: ObjectAddress,
    },
    /// An object here was wrong. It was made again, durably: views show it. [`repairs`] has what was there before.
    Repaired {
        /// The space.
        space: SpaceId,
        /// The object.
        object: ObjectAddress,
        /// The digest of what was there, as far as it could be read.
        was: StateDigest,
        /// The digest of what is there now.
        is: StateDigest,
    },
    /// An object here may be wrong, and could not be made again.
    Unresolved {
        /// The space.
        space: SpaceId,
        /// The object.
        object: ObjectAddress,
        /// Why not.
        why: Unresolved,
    },
}

impl AuditEvent {
    /// The space that it is about.
    pub fn space(&self) -> SpaceId {
        match self {
            Self::Damaged { space, .. }
            | Self::Diverged { space, .. }
            | Self::Upheld { space, .. }
            | Self::Repaired { space, .. }
            | Self::Unresolved { space, .. } => *space,
        }
    }

    /// The object that it is about.
    pub fn object(&self) -> &ObjectAddress {
        match self {
            Self::Damaged { object, .. }
            | Self::Diverged { object, .. }
            | Self::Upheld { object, .. }
            | Self::Repaired { object, .. }
            | Self::Unresolved { object, .. } => object,
        }
    }
}

/// Why it could not be found out whether an object is right, or it could not be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Unresolved {
    /// The entries from which it could be made are not all kept here any more, and nobody showed rows that are proved by what is.
    NotKept,
    /// It has more rows, or longer ones, than are held in memory for this.
    TooLarge,
    /// Its entries cannot be read: the log of record is damaged too.
    LogDamaged,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotKept => "the entries that make it up are not all kept any more",
            Self::TooLarge => "it has more rows than can be made again at once",
            Self::LogDamaged => "entries that make it up cannot be read",
        })
    }
}

/// What the core wants done for audits, over a view of what is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditTask {
    /// Digest the next stretch of a space.
    Read {
        /// The space.
        space: SpaceId,
        /// After the object with this key; empty for the start.
        after: Vec<u8>,
    },
    /// Compare what a peer showed with what is here.
    Compare {
        /// Whom to answer.
        session: crate::SessionId,
        /// What it showed.
        ask: Box<crate::message::AuditAsk>,
    },
    /// Make objects again from the log of record, and compare them with what is there.
    Rebuild {
        /// The space.
        space: SpaceId,
        /// The objects.
        objects: Vec<ObjectAddress>,
        /// What is known of later versions.
        extensions: Extensions,
    },
    /// Read the rows of an object for a peer.
    Lend {
        /// Whom to answer.
        session: crate::SessionId,
        /// What it asks for.
        fetch: Box<crate::message::AuditFetch>,
    },
    /// Check rows that peers sent.
    Check(Box<Unproved>),
}

/// What became of a task.
#[derive(Debug)]
pub enum AuditAnswer {
    /// A stretch was digested.
    Read {
        /// The space.
        space: SpaceId,
        /// The stretch; `None` while there is nothing to be compared.
        result: Result<Option<Box<Stretch>>, StoreError>,
    },
    /// What a peer showed was compared.
    Compared {
        /// Whom to answer.
        session: crate::SessionId,
        /// The number of its question.
        number: u32,
        /// What was found; `None` when it cannot be compared now.
        result: Result<Option<Box<Comparison>>, StoreError>,
    },
    /// Objects were made again.
    Rebuilt {
        /// The space.
        space: SpaceId,
        /// The objects.
        objects: Vec<ObjectAddress>,
        /// What they come to; `None` when that cannot be told now.
        result: Result<Option<Box<Rebuilt>>, StoreError>,
    },
    /// The rows of an object were read.
    Lent {
        /// Whom to answer.
        session: crate::SessionId,
        /// The number of its question.
        number: u32,
        /// The rows; `None` when they cannot be had.
        result: Result<Option<Box<Lent>>, StoreError>,
    },
    /// What peers sent was checked.
    Checked(Result<Option<Box<Rebuilt>>, StoreError>),
}

/// Whether the state is not one to be compared: it is being replaced, or something of it is held, which others may have
/// carried out.
fn is_apart(view: &dyn LogRead, space: &SpaceId) -> Result<bool, StoreError> {
    Ok(is_installing(view, space)? || is_any_held(view, space)?)
}

impl AuditTask {
    /// The answer of who cannot do it now.
    pub(crate) fn refused(self) -> AuditAnswer {
        self.run(|| Err::<crate::work::Work<'_>, _>(StoreError::Overloaded))
    }

    /// Does it. `open` opens a view of what is durable. O(rows of a stretch) to read and to compare; O(log) to rebuild.
    pub(crate) fn run<V: LogRead>(self, open: impl FnOnce() -> Result<V, StoreError>) -> AuditAnswer {
        match self {
            Self::Read { space, after } => {
                let result = open().and_then(|view| stretch::read(&view, &space, &after));
                AuditAnswer::Read { space, result: result.map(|stretch| stretch.map(Box::new)) }
            }
            Self::Compare { session, ask } => {
                let result = open().and_then(|view| compare::compare(&view, &ask));
                let result = result.map(|comparison| comparison.map(Box::new));
                AuditAnswer::Compared { session, number: ask.number, result }
            }
            Self::Rebuild { space, objects, extensions } => {
                let rebuilt = |view| rebuild::rebuild(&view, &space, &objects, extensions);
                let result = open().and_then(rebuilt);
                AuditAnswer::Rebuilt { space, objects, result: result.map(|rebuilt| rebuilt.map(Box::new)) }
            }
            Self::Lend { session, fetch } => {
                let result = open().and_then(|view| check::lend(&view, &fetch));
                let result = result.map(|lent| lent.map(Box::new));
                AuditAnswer::Lent { session, number: fetch.number, result }
            }
            Self::Check(unproved) => {
                let result = open().and_then(|view| check::check(&view, &unproved));
                AuditAnswer::Checked(result.map(|rebuilt| rebuilt.map(Box::new)))
            }
        }
    }
}
