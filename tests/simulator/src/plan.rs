//! A run, written down before it happens: who there is, what clients do, and what goes wrong when.

use serde::{Deserialize, Serialize};

use crate::builds::Builds;
use crate::topology::{Topology, are_connected};

/// Everything that happens in a run apart from what follows from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Keys every later decision: latencies, what a crash leaves, fresh bits.
    pub(crate) seed: u64,
    /// Replicas that are there from the start.
    pub(crate) nodes: usize,
    /// Who takes part in each space; the first founds it.
    pub(crate) spaces: Vec<Vec<usize>>,
    /// The shape of the network.
    #[serde(default)]
    pub(crate) topology: Topology,
    /// Whether there are no other links once everybody is let in; founders keep those to all they let in otherwise.
    #[serde(default)]
    pub(crate) bare: bool,
    /// How many entries others may lack of what a replica writes, if its writers wait for them at all.
    #[serde(default)]
    pub(crate) throttle: Option<u64>,
    /// Writes made when all is over and nothing goes wrong any more.
    #[serde(default)]
    pub(crate) calm: u32,
    /// Who dials whom.
    pub(crate) links: Vec<(usize, usize)>,
    /// How long a frame is under way at least, microseconds, and how much longer at most.
    pub(crate) latency_us: (u64, u64),
    /// How long a sync takes at least and at most, microseconds.
    pub(crate) sync_us: (u64, u64),
    /// Each replica's wall clock.
    pub(crate) clocks: Vec<WallClock>,
    /// Whether every frame is decoded and checked by an observer, which costs about as much as all replicas.
    pub(crate) observed: bool,
    /// Whether replicas keep their data in the real embedded store on simulated sectors.
    pub(crate) sectors: bool,
    /// Whether signatures are real. Without the feature `stand-in-signatures` they always are.
    pub(crate) signed: bool,
    /// How long logs are kept; for good where nothing is said.
    #[serde(default)]
    pub(crate) keeping: Option<Keeping>,
    /// What each replica runs; the newest build, which knows nothing of later versions, where nothing is said.
    #[serde(default)]
    pub(crate) builds: Option<Builds>,
    /// How often replicas compare their states, if they do.
    #[serde(default)]
    pub(crate) auditing: Option<Auditing>,
    /// Up to how many spaces two replicas open at once when they connect.
    #[serde(default = "open_at_once")]
    pub(crate) open_at_once: usize,
    /// Entries in a segment of a lane.
    #[serde(default = "segment_entries")]
    pub(crate) segment_entries: u64,
    /// When the unrest ends, microseconds.
    pub(crate) chaos_us: u64,
    /// What happens until then, in order of time.
    pub(crate) events: Vec<Planned>,
}

/// As usual.
pub(crate) fn segment_entries() -> u64 {
    4_096
}

/// As usual.
pub(crate) fn open_at_once() -> usize {
    4
}

/// How long replicas keep their logs, and who takes over a state instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Keeping {
    /// Milliseconds.
    pub(crate) age_ms: u64,
    /// Of a space.
    pub(crate) bytes_max: u64,
    /// Milliseconds until it is announced what was applied.
    pub(crate) announce_ms: u64,
    /// Entries from which on a new replica takes over a state.
    pub(crate) entries_min: u64,
}

/// How often replicas compare their states, and how often there is something to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Auditing {
    /// Milliseconds between two passes over a space.
    pub(crate) every_ms: u64,
    /// Rows of the state that change by themselves once all is calm, one after the other.
    pub(crate) rots: u32,
}

/// How a replica's clocks run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WallClock {
    /// How far the wall clock is off, milliseconds.
    pub(crate) offset_ms: i64,
    /// How much faster than true time both clocks run, parts per million.
    pub(crate) drift_ppm: i64,
}

/// Something that happens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Planned {
    /// Names it for good: what is written carries the id of the event that wrote it.
    pub(crate) id: u32,
    /// When, microseconds from the end of the preparations.
    pub(crate) at_us: u64,
    /// What.
    pub(crate) event: Event,
}

/// What happens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// A client runs a transaction.
    Write(Write),
    /// A client reads.
    Read(Read),
    /// Something goes wrong.
    Fault(Fault),
}

/// A transaction of a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Write {
    /// Which client; its token is presented first, if it has one.
    pub(crate) session: Option<u16>,
    /// At which replica.
    pub(crate) node: usize,
    /// In which space.
    pub(crate) space: usize,
    /// How many other replicas must hold it before it is acknowledged.
    pub(crate) remote: u32,
    /// Whether a majority of the members must hold it instead.
    #[serde(default)]
    pub(crate) quorum: bool,
    /// Under which operation id it is made, if under any. An event that names an earlier one repeats it.
    #[serde(default)]
    pub(crate) operation: Option<u32>,
    /// What it does, in order.
    pub(crate) effects: Vec<Effect>,
}

/// A read of a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Read {
    /// Which client; its token is presented first, if it has one.
    pub(crate) session: Option<u16>,
    /// At which replica.
    pub(crate) node: usize,
    /// In which space.
    pub(crate) space: usize,
    /// What it reads.
    pub(crate) objects: Vec<Object>,
    /// Whether it has to show what others have; no token is presented then.
    #[serde(default)]
    pub(crate) fresh: Option<Freshness>,
}

/// Of whom a read shows everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Freshness {
    /// Of every member.
    All,
    /// Of a majority.
    Majority,
}

/// One operation of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Effect {
    /// Adds to a counter.
    Add { counter: u16, delta: i32 },
    /// Adds an element to a set.
    Insert { set: u16, element: u16 },
    /// Removes an element from a set.
    Remove { set: u16, element: u16 },
    /// Writes a register over every value visible.
    Assign { register: u16 },
    /// Writes a register over the values that readers see, which may be older than what is visible to the
    /// transaction.
    Resolve { register: u16 },
    /// Empties a register.
    Clear { register: u16 },
    /// Puts a key of its own, and one that all writers share, into a document.
    Edit { document: u16 },
    /// Removes a document.
    Discard { document: u16 },
    /// Resets a counter.
    Reset { counter: u16 },
    /// Removes every element of a set.
    Empty { set: u16 },
    /// Enables an enable-wins flag.
    Enable { flag: u16 },
    /// Disables it.
    Disable { flag: u16 },
    /// Enables a disable-wins flag.
    Permit { flag: u16 },
    /// Disables it.
    Forbid { flag: u16 },
    /// Adds an element to a remove-wins set.
    Admit { set: u16, element: u16 },
    /// Removes one.
    Ban { set: u16, element: u16 },
    /// Adds to a counter in a map.
    AddWithin { map: u16, key: u16, delta: i32 },
    /// Writes a register in a map within a map.
    AssignWithin { map: u16, key: u16 },
    /// Adds an element to a set in a map.
    InsertWithin { map: u16, key: u16, element: u16 },
    /// Removes one.
    RemoveWithin { map: u16, key: u16, element: u16 },
    /// Removes what a map holds under a key, whatever it is.
    Drop { map: u16, key: u16 },
    /// Raises a bounded counter.
    Raise { bounded: u16, amount: u16 },
    /// Lowers it, as far as the replica may; asks for rights otherwise.
    Lower { bounded: u16, amount: u16 },
    /// Sets the policy of the collection that holds everything.
    Rule { policy: u16 },
}

/// Something that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Object {
    /// A counter.
    Counter(u16),
    /// A set and one element it may hold.
    Element(u16, u16),
    /// A register.
    Register(u16),
    /// A document.
    Document(u16),
    /// An enable-wins flag.
    Flag(u16),
    /// A disable-wins flag.
    DwFlag(u16),
    /// A remove-wins set and one element it may hold.
    RwElement(u16, u16),
    /// A key of a map.
    Key(u16, u16),
    /// A bounded counter.
    Bounded(u16),
    /// The policy.
    Policy,
}

impl Effect {
    /// What it touches.
    pub(crate) fn object(self) -> Object {
        match self {
            Self::Add { counter, .. } => Object::Counter(counter),
            Self::Insert { set, element } | Self::Remove { set, element } => Object::Element(set, element),
            Self::Assign { register } | Self::Resolve { register } | Self::Clear { register } => {
                Object::Register(register)
            }
            Self::Edit { document } | Self::Discard { document } => Object::Document(document),
            Self::Reset { counter } => Object::Counter(counter),
            // Of a set that is emptied any element may be looked at.
            Self::Empty { set } => Object::Element(set, 0),
            Self::Enable { flag } | Self::Disable { flag } => Object::Flag(flag),
            Self::Permit { flag } | Self::Forbid { flag } => Object::DwFlag(flag),
            Self::Admit { set, element } | Self::Ban { set, element } => Object::RwElement(set, element),
            Self::AddWithin { map, key, .. }
            | Self::AssignWithin { map, key }
            | Self::InsertWithin { map, key, .. }
            | Self::RemoveWithin { map, key, .. }
            | Self::Drop { map, key } => Object::Key(map, key),
            Self::Raise { bounded, .. } | Self::Lower { bounded, .. } => Object::Bounded(bounded),
            Self::Rule { .. } => Object::Policy,
        }
    }
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fault {
    /// A connection is reset: what is on its way is lost, and each end learns of it at its own time.
    Reset { link: usize },
    /// One direction of a connection delivers nothing for a while.
    Stall { link: usize, reverse: bool, ms: u64 },
    /// Nothing gets from one replica to the other for a while, however often it is sent.
    Cut { from: usize, to: usize, ms: u64 },
    /// A process is killed and started again: what is not synced is lost, or is not. Peers may learn of it
    /// at once, or only when they hear nothing for long.
    Crash { node: usize, down_ms: u64, noticed: bool },
    /// A process stands still.
    Pause { node: usize, ms: u64 },
    /// The next sync fails.
    FailSync { node: usize },
    /// The next commit fails.
    FailCommit { node: usize },
    /// Syncs answer that the disk is full.
    Full { node: usize, ms: u64 },
    /// A copy of a replica's data is made.
    Backup { node: usize },
    /// The last copy is put back, in a directory that is known to be another one, or is not.
    Restore { node: usize, down_ms: u64, unnoticed: bool },
    /// A copy of a replica's data starts beside it as another process with the same key.
    Clone { node: usize },
    /// A replica loses its data for good and joins again under another name.
    Wipe { node: usize, down_ms: u64 },
    /// A wall clock jumps.
    Step { node: usize, delta_ms: i64 },
    /// One end of a connection does wrong with what it sends, for a while.
    Tamper { link: usize, reverse: bool, how: Tampering, ms: u64 },
    /// Bytes of a replica's log rot while it is down.
    Rot { node: usize, down_ms: u64 },
    /// The founder of a space removes a member.
    Remove { space: usize, node: usize },
    /// The founder lets a replica in that was removed, or gives it back the right to write.
    Reinstate { space: usize, node: usize },
    /// The founder takes a member's right to write.
    Demote { space: usize, node: usize },
    /// A member leaves for good.
    Leave { space: usize, node: usize },
}

/// What a hostile peer does to one frame in four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Tampering {
    /// Withholds it.
    Drop,
    /// Sends it twice.
    Repeat,
    /// Sends an earlier one again, also of an earlier connection.
    Replay,
    /// Changes a bit of it.
    Flip,
    /// Cuts it short.
    Truncate,
}

/// The kinds of faults that a run has or has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FaultClass {
    Reset,
    Stall,
    Cut,
    Crash,
    Pause,
    Storage,
    Full,
    Restore,
    Rollback,
    Clone,
    Wipe,
    Clock,
    Tamper,
    Rot,
    Members,
}

impl FaultClass {
    /// All of them.
    pub(crate) const ALL: [Self; 15] = [
        Self::Reset,
        Self::Stall,
        Self::Cut,
        Self::Crash,
        Self::Pause,
        Self::Storage,
        Self::Full,
        Self::Restore,
        Self::Rollback,
        Self::Clone,
        Self::Wipe,
        Self::Clock,
        Self::Tamper,
        Self::Rot,
        Self::Members,
    ];
}

impl Fault {
    /// Its class.
    pub(crate) fn class(self) -> FaultClass {
        match self {
            Self::Reset { .. } => FaultClass::Reset,
            Self::Stall { .. } => FaultClass::Stall,
            Self::Cut { .. } => FaultClass::Cut,
            Self::Crash { .. } => FaultClass::Crash,
            Self::Pause { .. } => FaultClass::Pause,
            Self::FailSync { .. } | Self::FailCommit { .. } => FaultClass::Storage,
            Self::Full { .. } => FaultClass::Full,
            Self::Backup { .. } | Self::Restore { unnoticed: false, .. } => FaultClass::Restore,
            Self::Restore { unnoticed: true, .. } => FaultClass::Rollback,
            Self::Clone { .. } => FaultClass::Clone,
            Self::Wipe { .. } => FaultClass::Wipe,
            Self::Step { .. } => FaultClass::Clock,
            Self::Tamper { .. } => FaultClass::Tamper,
            Self::Rot { .. } => FaultClass::Rot,
            Self::Remove { .. } | Self::Reinstate { .. } | Self::Demote { .. } | Self::Leave { .. } => {
                FaultClass::Members
            }
        }
    }
}

impl Plan {
    /// Whether a class of faults is among the events.
    pub(crate) fn has(&self, class: FaultClass) -> bool {
        self.events.iter().any(|planned| matches!(planned.event, Event::Fault(f) if f.class() == class))
    }

    /// Whether disks are copied, put back or lost.
    pub(crate) fn is_copied(&self) -> bool {
        use FaultClass::{Clone, Restore, Rollback, Rot, Wipe};
        [Clone, Restore, Rollback, Rot, Wipe].into_iter().any(|class| self.has(class))
    }

    /// Whether there are no links but those of the topology.
    pub(crate) fn is_bare(&self) -> bool {
        self.bare && self.spaces.iter().all(|members| are_connected(members, &self.links))
    }

    /// The link of a ring without which everybody is connected still.
    pub(crate) fn breakable(&self) -> Option<(usize, usize)> {
        let (first, others) = self.links.split_first()?;
        let is_ring = self.topology == Topology::Ring && self.is_bare();
        (is_ring && self.spaces.iter().all(|members| are_connected(members, others))).then_some(*first)
    }

    /// Replicas that are there from the start.
    pub fn replicas(&self) -> usize {
        self.nodes
    }

    /// Everything that clients ask for and everything that goes wrong.
    pub fn events(&self) -> usize {
        self.events.len()
    }

    /// How many operations clients ask for.
    pub fn operations(&self) -> usize {
        self.events.iter().filter(|planned| !matches!(planned.event, Event::Fault(_))).count()
    }
}
