//! Protocol versions: which are spoken here, which one a session has, and who speaks none of them.

use std::fmt;

use comity_crdts::{ReplicaId, canary};
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Timer};
use crate::extension::Extensions;
use crate::io::{Class, CloseReason, Notice, Now, Output, SessionId};
use crate::limits::{REFUSALS_MAX, VERSION_CLOSE_AFTER};
use crate::message::{Hello, Knows, Message};
use crate::receive::Refusal;
use crate::store::Store;

/// The newest version spoken. Both sides name the range they speak and use the highest common one.
pub const PROTOCOL_VERSION: u16 = 6;

/// The oldest version spoken.
pub const PROTOCOL_VERSION_MIN: u16 = 4;

/// From this version on entries may have operations and kinds of later versions of the format, and replicas tell which of
/// them they know.
pub(crate) const WITH_EXTENSIONS: u16 = 5;

/// From this version on more may be under way at once.
pub(crate) const WITH_WIDE_WINDOWS: u16 = 5;

/// From this version on spaces are compared by digests.
pub(crate) const WITH_DIGESTS: u16 = 5;

/// From this version on lanes can be asked for in parts.
pub(crate) const WITH_RANGES: u16 = 6;

/// The protocol versions that a replica speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VersionRange {
    /// The lowest.
    pub min: u16,
    /// The highest.
    pub max: u16,
}

impl VersionRange {
    /// All that this build speaks.
    pub const ALL: Self = Self { min: PROTOCOL_VERSION_MIN, max: PROTOCOL_VERSION };

    /// What this build speaks of a range; `None` when it speaks nothing of it.
    pub fn new(min: u16, max: u16) -> Option<Self> {
        let range = Self { min, max }.within(Self::ALL);
        (range.min <= range.max).then_some(range)
    }

    fn within(self, other: Self) -> Self {
        Self { min: self.min.max(other.min), max: self.max.min(other.max) }
    }

    /// The highest version in both ranges.
    pub fn common(self, other: Self) -> Option<u16> {
        let both = self.within(other);
        (both.min <= both.max).then_some(both.max)
    }
}

impl Default for VersionRange {
    fn default() -> Self {
        Self::ALL
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.min)
        } else {
            write!(f, "{} to {}", self.min, self.max)
        }
    }
}

/// A peer with which no protocol version is shared. It is dialed again, with waits that grow: one of the two may be
/// upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRefusal {
    /// The peer.
    pub peer: ReplicaId,
    /// What is spoken here.
    pub ours: VersionRange,
    /// What the peer speaks.
    pub theirs: VersionRange,
}

impl fmt::Display for VersionRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, ours, theirs } = self;
        write!(f, "{peer} speaks protocol {theirs}, and this replica {ours}")
    }
}

impl Engine {
    pub(crate) fn hello(&self, now: &Now) -> Hello {
        let VersionRange { min, max } = self.versions;
        Hello { version_min: min, version_max: max, wall_ms: now.wall_ms }
    }

    /// A peer greets: the session has the highest version that both speak. Where there is none both sides learn of it by
    /// each other's greeting, and the connection is left open long enough for that.
    pub(crate) fn on_hello(
        &mut self,
        now: &Now,
        session_id: SessionId,
        hello: &Hello,
        store: &dyn Store,
    ) -> Result<(), Refusal> {
        let (ours, extensions) = (self.versions, self.extensions);
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        let theirs = VersionRange { min: hello.version_min, max: hello.version_max };
        let peer = session.peer;
        let Some(version) = ours.common(theirs) else {
            session.is_refused = true;
            if self.refusals.len() >= REFUSALS_MAX && !self.refusals.contains_key(&peer) {
                self.refusals.pop_first();
            }
            self.refusals.insert(peer, theirs);
            self.timers.insert((now.monotonic + VERSION_CLOSE_AFTER, Timer::Part(session_id)));
            self.push(Output::Notify(Notice::VersionRefused(VersionRefusal { peer, ours, theirs })));
            return Ok(());
        };
        let version = if canary!(OwnVersionTaken) { ours.max } else { version };
        (session.greeted, session.negotiated) = (true, Some(version));
        self.refusals.remove(&peer);
        if version >= WITH_EXTENSIONS && !extensions.are_none() {
            self.send(session_id, Class::Control, &Message::Knows(Knows::of(extensions)));
        }
        if version < WITH_DIGESTS {
            self.open_shared(now, session_id, store)?;
        }
        Ok(())
    }

    /// A peer tells what it knows of later versions.
    pub(crate) fn on_knows(&mut self, session_id: SessionId, knows: &Knows) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        if session.version() < WITH_EXTENSIONS || session.knows.is_some() {
            return Err(CloseReason::Unexpected.into());
        }
        session.knows = Some(knows.clone());
        Ok(())
    }

    /// Peers with which no version is shared, by the last time they came.
    pub(crate) fn version_refusals(&self) -> Vec<VersionRefusal> {
        let ours = self.versions;
        self.refusals
            .iter()
            .map(|(peer, theirs)| VersionRefusal { peer: *peer, ours, theirs: *theirs })
            .collect()
    }
}

impl Knows {
    /// What extensions are known, as it is told.
    pub(crate) fn of(extensions: Extensions) -> Self {
        let (operations, kinds) = extensions.tags();
        Self { operations, kinds }
    }
}
