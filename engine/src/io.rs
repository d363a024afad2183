//! The whole boundary between the core and the world: inputs are past facts, outputs are imperatives.

use std::time::Duration;

use comity_crdts::{Frontier, Hlc, LaneId, Nonce, ObjectAddress, ReplicaId, SpaceId};

use crate::audit::AuditEvent;
use crate::bootstrap::{SnapshotAnswer, SnapshotTask};
use crate::documents::Settled;
use crate::lag::LagEvent;
use crate::op::Role;
use crate::status::{Freeze, Standing, Status};
use crate::store::{Position, StoreError};
use crate::throttle::Throttled;
use crate::token::Token;
use crate::version::VersionRefusal;

/// One connection to a peer, numbered by the driver; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// One question to the core, numbered by the driver; the reply carries it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Everything the core learns of the moment at which something happens.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Time since some fixed moment; never goes back. Deadlines use it.
    pub monotonic: Duration,
    /// The wall clock, milliseconds since the Unix epoch; may jump. Stamps use it.
    pub wall_ms: u64,
    /// 128 bits drawn from the operating system for this very call. Incarnations, spaces and secrets made
    /// during the call use them; drawing ahead of time would let a cloned machine draw the same.
    pub fresh: Nonce,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The application or the operator asks for something.
    Command {
        /// Carried back by the reply.
        request: RequestId,
        /// What is asked.
        command: Command,
    },
    /// A mutually authenticated connection was established.
    SessionOpened {
        /// Its number.
        session: SessionId,
        /// Who is at the other end, as proved by the handshake.
        peer: ReplicaId,
    },
    /// Who asked does not wait for the answer any more; none, or a late one, will come. What was asked for may
    /// have happened.
    Cancelled {
        /// The question.
        request: RequestId,
    },
    /// A connection ended, for whatever reason.
    SessionClosed {
        /// Its number.
        session: SessionId,
    },
    /// A whole frame arrived.
    FrameReceived {
        /// On which connection.
        session: SessionId,
        /// Its bytes, within the frame limit.
        frame: Vec<u8>,
    },
    /// The sync asked for by [`Output::RequestSync`] ended.
    Synced {
        /// The position it covers, or why it failed.
        result: Result<Position, StoreError>,
    },
    /// A reader found that a document holds changes which the document library refuses.
    Unsettled {
        /// The space.
        space: SpaceId,
        /// The document.
        object: ObjectAddress,
    },
    /// The settling asked for by [`Output::Settle`] ended.
    Settled {
        /// What [`settle`](crate::settle) returned.
        result: Result<Box<Settled>, StoreError>,
    },
    /// What [`Output::Snapshot`] asked for is done.
    Snapshot {
        /// What [`SnapshotSource::handle`](crate::SnapshotSource::handle) returned.
        answer: SnapshotAnswer,
    },
    /// The moment named by `Engine::next_deadline` has come.
    DeadlineReached,
}

/// What the application or the operator can ask for, apart from transactions.
#[derive(Clone, Debug)]
pub enum Command {
    /// Found a space.
    CreateSpace {
        /// What people call it.
        name: String,
    },
    /// Take part in a space that `inviter` holds; writing is possible at once.
    JoinSpace {
        /// The space.
        space: SpaceId,
        /// Who is trusted to let this replica in.
        inviter: ReplicaId,
        /// The invitation's secret; none when this replica is a member already.
        secret: Option<[u8; 16]>,
    },
    /// As [`Command::JoinSpace`] for an invitation as a follower: nothing is written here unless the member list comes
    /// to say that this replica may.
    FollowSpace {
        /// The space.
        space: SpaceId,
        /// Who is trusted to let this replica in.
        inviter: ReplicaId,
        /// The invitation's secret; none when this replica is a member already.
        secret: Option<[u8; 16]>,
    },
    /// Make a replica a member, or give a member another role. Only admins can.
    Grant {
        /// The space.
        space: SpaceId,
        /// The replica.
        replica: ReplicaId,
        /// What it may do from then on.
        role: Role,
    },
    /// Remove a member. Only admins can, or the member itself. Its sessions lose the space as soon as the removal is
    /// applied, at every replica that applies it.
    Revoke {
        /// The space.
        space: SpaceId,
        /// The member.
        replica: ReplicaId,
    },
    /// Take no part in a space any more: a writer says so to the others, by removing itself, and everybody forgets what
    /// invitations it has. What is held here stays until the space is deleted.
    LeaveSpace {
        /// The space.
        space: SpaceId,
    },
    /// Delete what is held of a space here, in steps that go on after a crash. It is unknown here at once; nobody else
    /// is told. Joining again is possible when it is done, under a fresh incarnation.
    DeleteSpace {
        /// The space.
        space: SpaceId,
    },
    /// Make an invitation that one replica can redeem once.
    Invite {
        /// The space.
        space: SpaceId,
        /// What the invited replica may do.
        role: Role,
        /// How long the invitation is good for.
        valid_for: Duration,
    },
    /// Remember where a peer can be reached.
    RememberPeer {
        /// The peer.
        replica: ReplicaId,
        /// Its address, as the driver understands it.
        address: String,
    },
    /// Wait until everything the token names is applied and durable here.
    AwaitToken {
        /// The token.
        token: Token,
        /// How long to wait at most.
        within: Duration,
    },
    /// Wait until everything is durable here that other writers had made durable at a moment that is not long
    /// past. Asks those of which that is not known yet; what they have and this replica lacks is pulled.
    AwaitFresh {
        /// The space.
        space: SpaceId,
        /// What of the others is enough.
        whom: Whom,
        /// How long before this command that moment may be.
        max_age: Duration,
        /// How long to wait at most.
        within: Duration,
    },
    /// Wait until another writer of the space is known to have heard of this incarnation, which removals from
    /// remove-wins sets, disable-wins flags and resets of counters need after joining and after a restore.
    AwaitConfirmation {
        /// The space.
        space: SpaceId,
        /// How long to wait at most.
        within: Duration,
    },
    /// Ask peers for rights to a bounded counter until this replica can lower it by `amount`.
    AcquireRights {
        /// The space.
        space: SpaceId,
        /// The counter's collection.
        collection: String,
        /// The counter's key.
        key: String,
        /// By how much it is to be lowered.
        amount: u64,
        /// How long to ask at most.
        within: Duration,
    },
    /// Wait until local writes in a space are not held up by a [`Throttle`](crate::Throttle).
    AwaitRoom {
        /// The space.
        space: SpaceId,
        /// How long to wait at most.
        within: Duration,
    },
    /// Report on every space and peer.
    Status,
    /// Wait until everything committed so far is durable.
    Flush,
}

/// The answer to a command or a transaction.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The space was founded, durably.
    SpaceCreated(SpaceId),
    /// The space is known and will be synchronised, durably noted.
    Joined(SpaceId),
    /// The invitation's secret; the invitation is durable.
    Invited([u8; 16]),
    /// What was said about a member is durable here, and holds here; nothing is written when it held before.
    MembersChanged,
    /// This replica takes no part in the space any more, durably.
    Left,
    /// The space is unknown here, durably; its rows are being removed.
    Deleted(SpaceId),
    /// The peer's address is remembered, durably.
    Remembered,
    /// The write reached its durability.
    Acknowledged(Acknowledgement),
    /// Everything the token names is here, or everything that a fresh read has to show.
    Reached,
    /// The incarnation is confirmed.
    Confirmed,
    /// Writes are not held up, unless others were made in between.
    Room,
    /// This replica holds as many rights as it asked for, unless it uses them for something else first.
    RightsHeld(u64),
    /// The report.
    Status(Box<Status>),
    /// Everything committed before the question is durable.
    Flushed,
}

/// How durable a write must be before it is acknowledged.
///
/// Everything beyond the local disk is known from what connected peers say they hold, which they say anyway: no
/// message is sent for a single write. Of a replica that is not connected to this one nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Synced on the local disk. No network is involved.
    #[default]
    Local,
    /// Synced here and at this many other replicas.
    Remote(u32),
    /// Synced at a majority of the members that write, of which this replica is one. Who is a member is what this
    /// replica knows when it answers.
    Quorum,
    /// Synced at every member that writes.
    All,
    /// Synced at one replica at least in each of these regions; this replica counts for its own. Where a replica is,
    /// others know from its first write in the space.
    Regions(Vec<String>),
}

/// Of whom a fresh read shows everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Whom {
    /// Of every member that writes.
    All,
    /// Of a majority of the members that write, of which this replica is one.
    Majority,
}

/// What is known of a write's durability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// What a client presents elsewhere to find its write there.
    pub token: Token,
    /// How many other replicas reported the write durable so far.
    pub remote: u32,
    /// Which these are, ascending.
    pub replicas: Vec<ReplicaId>,
    /// The regions in which a durable copy is known to be, this replica's included, ascending.
    pub regions: Vec<String>,
    /// Of those that the durability is about, how many have the write: this replica for `Local`, others for
    /// `Remote`, members for `Quorum` and `All`, regions for `Regions`.
    pub counted: u32,
    /// How many of these there must be.
    pub needed: u32,
    /// The write was made before under the same operation id, here or elsewhere, and is not made again; all else is
    /// about that write.
    pub deduplicated: bool,
    /// Whether the durability asked for was reached. When not, the write is durable here, stays, and goes on
    /// spreading: the outcome is indeterminate, not a failure.
    pub reached: bool,
}

/// Why a command failed; nothing was changed unless the variant says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The caller named a space this replica does not hold.
    #[error("there is no space {0} at this replica")]
    UnknownSpace(SpaceId),
    /// This replica does not write in the space.
    #[error("this replica does not write to space {space}: it {standing}")]
    NotWriter {
        /// The space.
        space: SpaceId,
        /// How it takes part.
        standing: Standing,
    },
    /// This replica takes no part in the space any more, so it cannot learn what others have.
    #[error("this replica {standing} in space {space}, and hears no more of it")]
    NotFollowing {
        /// The space.
        space: SpaceId,
        /// How it took part.
        standing: Standing,
    },
    /// The replica that was to be removed is no member.
    #[error("{replica} is no member of space {space}")]
    NotMember {
        /// The space.
        space: SpaceId,
        /// The replica.
        replica: ReplicaId,
    },
    /// No admin would be left. Make another member one first.
    #[error("{replica} is the last admin of space {space}")]
    LastAdmin {
        /// The space.
        space: SpaceId,
        /// The admin.
        replica: ReplicaId,
    },
    /// The space has as many members, with those that were, as it can have.
    #[error("the space has {members_max} members, which is the limit")]
    TooManyMembers {
        /// The limit.
        members_max: usize,
    },
    /// As much was said about one member as can be.
    #[error("{statements_max} grants and removals of {replica} were made, which is the limit")]
    TooManyStatements {
        /// The member.
        replica: ReplicaId,
        /// The limit.
        statements_max: usize,
    },
    /// What was to be said would start one lane too many for the space.
    #[error("the space has {lanes} lanes; the limit is {lanes_max}")]
    TooManyLanes {
        /// How many there are.
        lanes: usize,
        /// The limit.
        lanes_max: usize,
    },
    /// What this replica held of the space is still being deleted. Try again when that is done.
    #[error("space {0} is still being deleted at this replica")]
    Deleting(SpaceId),
    /// The space was deleted here while this was under way.
    #[error("space {0} was deleted at this replica")]
    SpaceDeleted(SpaceId),
    /// Only admins may invite, grant and remove others.
    #[error("only an admin of space {0} may do this")]
    NotAdmin(SpaceId),
    /// The space's name is empty or too long.
    #[error("the space name {name:?} has {bytes} bytes; 1 to {bytes_max} are allowed")]
    SpaceName {
        /// The name's first characters.
        name: String,
        /// Its length in bytes.
        bytes: usize,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// The replica has not caught up with the token in the time allowed. Wait longer or ask elsewhere.
    #[error("this replica lacks {missing} change sets that the token names")]
    Stale {
        /// How many lane entries are missing.
        missing: u64,
    },
    /// The token is of another space. The caller's fault.
    #[error("the token is of space {token}, not of space {space}")]
    OtherSpace {
        /// The token's space.
        token: SpaceId,
        /// The space that was asked for.
        space: SpaceId,
    },
    /// Members could not be asked in the time allowed, or what they have has not arrived. Wait longer, or connect
    /// to them.
    #[error("{}", not_fresh(*by_ms, behind))]
    NotFresh {
        /// How long ago the moment is up to which everything of everybody is here; `None` when it is not known of
        /// some member since this replica was opened.
        by_ms: Option<u64>,
        /// The members of whom it is not known that what they had is here.
        behind: Vec<ReplicaId>,
    },
    /// Too few members answered in the time allowed, or what they have has not arrived.
    #[error("{reached} of {needed} members that a quorum needs were read")]
    NoQuorum {
        /// Members of whom everything is here, this replica included.
        reached: u32,
        /// How many there must be.
        needed: u32,
    },
    /// No other writer has confirmed this incarnation in the time allowed. Connect to one, and wait longer.
    #[error("no other replica has confirmed this incarnation in space {0} yet")]
    Unconfirmed(SpaceId),
    /// Peers did not hand over enough rights to a bounded counter in the time allowed.
    #[error("this replica holds {held} rights to the counter and needs {needed}; its value is {value}")]
    Rights {
        /// Rights held here now.
        held: u64,
        /// Rights asked for.
        needed: u64,
        /// The counter's value: the rights of everybody together.
        value: i128,
    },
    /// Something was done to the object that this build does not know: what it holds is known only in part. Ask at a
    /// replica of a newer build, or again after an upgrade.
    #[error("{object}: an operation on it is of a version that this build does not know")]
    Held {
        /// The object.
        object: ObjectAddress,
    },
    /// Too few others followed what is written here in the time allowed.
    #[error("too few others follow what is written here: {} of {} are within the bound", .0.within, .0.needed)]
    Throttled(Throttled),
    /// The caller's address is not one.
    #[error(transparent)]
    Address(#[from] comity_crdts::AddressError),
    /// The state of the space is being replaced by that of another replica. Try again; `Status` tells how far that is.
    #[error("the state of space {0} is being installed")]
    Installing(SpaceId),
    /// Storage failed. What was not yet acknowledged is indeterminate.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn not_fresh(by_ms: Option<u64>, behind: &[ReplicaId]) -> String {
    let members = behind.len();
    match by_ms {
        Some(by_ms) => format!("this replica may be {by_ms} ms behind {members} members"),
        None => format!("it is not known how far this replica is behind {members} members"),
    }
}

/// The stream a frame belongs on. Frames of one class stay in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Small and urgent.
    Control,
    /// Changes as they happen.
    Live,
    /// What was missed.
    CatchUp,
}

/// Why the core ends a session. The number is the close code on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
#[non_exhaustive]
pub enum CloseReason {
    /// A frame does not decode.
    Malformed = 0x100,
    /// A message came that the state of the session does not allow.
    Unexpected = 0x101,
    /// No protocol version is spoken by both sides.
    Version = 0x102,
    /// A run of lane entries is not signed by the lane's owner, or belongs to another lane or space.
    Signature = 0x103,
    /// A run does not follow what was sent before: a gap or a repetition.
    LaneOrder = 0x104,
    /// The peer sends more than it was allowed to have unacknowledged.
    Window = 0x105,
    /// The peer names more lanes or spaces than are allowed.
    TooMany = 0x106,
    /// Storage failed here; nothing more can be accepted.
    Storage = 0x107,
    /// The peer is no longer a member of any space that it shared with this replica.
    NotMember = 0x108,
}

impl CloseReason {
    /// The close code on the wire.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// A sentence for the peer's log.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Malformed => "a frame does not decode",
            Self::Unexpected => "a message came out of turn",
            Self::Version => "no common protocol version",
            Self::Signature => "a run of entries is not signed by its lane's owner",
            Self::LaneOrder => "a run of entries leaves a gap or repeats",
            Self::Window => "more was sent than the window allows",
            Self::TooMany => "more lanes or spaces were named than are allowed",
            Self::Storage => "storage failed",
            Self::NotMember => "no longer a member of any shared space",
        }
    }
}

/// What the driver is to do.
#[derive(Debug)]
pub enum Output {
    /// Answer a command or a transaction.
    Reply {
        /// The question.
        request: RequestId,
        /// The answer.
        reply: Result<Reply, CommandError>,
    },
    /// Send a frame.
    SendFrame {
        /// On which connection.
        session: SessionId,
        /// On which stream.
        class: Class,
        /// The bytes.
        frame: Vec<u8>,
    },
    /// End a connection; no `SessionClosed` is expected, but one does no harm.
    CloseSession {
        /// Which.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// Run the storage barrier and report with [`Input::Synced`]. At most one is outstanding.
    RequestSync,
    /// Run [`settle`](crate::settle) on a document over a view, which may take long, and report with
    /// [`Input::Settled`]. At most one is outstanding.
    Settle {
        /// The space.
        space: SpaceId,
        /// The document.
        object: ObjectAddress,
    },
    /// Have [`SnapshotSource::handle`](crate::SnapshotSource::handle) do something, which may take long, and report its
    /// answer, if there is one, with [`Input::Snapshot`]. Tasks are to be done in order.
    Snapshot(SnapshotTask),
    /// Tell whoever watches.
    Notify(Notice),
}

/// Something became visible to readers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// A change set is durable and visible.
    Applied(Applied),
    /// Members, pins or invitations changed: ask `Engine::trust` again.
    TrustChanged,
    /// A peer will not serve a space: this replica is no member there, or its invitation is not good.
    Denied {
        /// The space.
        space: SpaceId,
        /// The peer.
        peer: ReplicaId,
    },
    /// A peer says that this replica is no longer a member of a space. What it holds stays.
    Removed {
        /// The space.
        space: SpaceId,
        /// The peer.
        peer: ReplicaId,
    },
    /// The state of a space was replaced by that of another replica, and what is held here besides applied again. Change
    /// sets that became visible by it are not told of one by one.
    Installed {
        /// The space.
        space: SpaceId,
    },
    /// A lane is not followed any further.
    Frozen {
        /// The space.
        space: SpaceId,
        /// The lane.
        lane: LaneId,
        /// Why.
        why: Freeze,
    },
    /// What a peer sent as a part of a lane does not go on from what is held here: the owner signed two contents, of which one
    /// is here and the other there, or the peer spoils it. It is not asked for parts of that lane again on this connection.
    PartUnfit {
        /// The space.
        space: SpaceId,
        /// The lane.
        lane: LaneId,
        /// The peer.
        peer: ReplicaId,
    },
    /// A peer came with which no protocol version is shared; the connection is about to be closed.
    VersionRefused(VersionRefusal),
    /// What was held of objects has been carried out, as this build knows it: they can be read and written. What changed them
    /// was told of when it came.
    Released {
        /// The space.
        space: SpaceId,
        /// The objects.
        objects: Vec<ObjectAddress>,
    },
    /// A replica has fallen behind, or is not behind any more; see [`EngineOptions::lag`](crate::EngineOptions::lag).
    Lag(LagEvent),
    /// An audit found or did something; see [`EngineOptions::audit`](crate::EngineOptions::audit).
    Audit(AuditEvent),
}

/// A change set that became visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The space.
    pub space: SpaceId,
    /// The replica that made it.
    pub author: ReplicaId,
    /// When it was made.
    pub hlc: Hlc,
    /// The objects it touches.
    pub objects: Vec<ObjectAddress>,
    /// Everything visible from this change set on; resumes a watch.
    pub frontier: Frontier,
}
