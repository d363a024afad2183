//! The messages two replicas exchange, and their frames. `docs/wire.md` has the tables.

use std::collections::BTreeSet;

use comity_crdts::{
    DecodeError, ExtensionTag, Frontier, LaneId, Nonce, OriginId, Reader, ReplicaId, SpaceId, Writer,
};
use serde::{Deserialize, Serialize};

use crate::audit::{RangeDigest, RangeItems};
use crate::bootstrap::{Offer, SnapshotEnd};
use crate::hash::Hash;
use crate::limits::KNOWN_TAGS_MAX;
use crate::proof::Proof;
use crate::quiet::{Branches, Leaves, Shared};

/// First on every session, in both directions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The lowest protocol version the sender speaks.
    pub version_min: u16,
    /// The highest protocol version the sender speaks.
    pub version_max: u16,
    /// The sender's wall clock, milliseconds since the Unix epoch; for display only.
    pub wall_ms: u64,
}

/// What the sender knows of operations and kinds that the session's version leaves to later ones; sent after the greetings
/// by who knows any. Who gets a state must know its kinds.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Knows {
    /// Numbers of operations.
    pub operations: BTreeSet<ExtensionTag>,
    /// Numbers of kinds.
    pub kinds: BTreeSet<ExtensionTag>,
}

/// Redeems an invitation: the sender asks to become a member.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The space.
    pub space: SpaceId,
    /// The invitation's secret.
    pub secret: [u8; 16],
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Join({})", self.space)
    }
}

/// Where the sender stands in one lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenLane {
    /// The lane.
    pub lane: LaneId,
    /// The prefix that is durable at the sender.
    pub lsn: u64,
    /// The first bytes of the lane's chain hash there.
    pub hash: [u8; 8],
    /// When present, the sender subscribes to the lane from `lsn + 1` on under this number.
    pub subscription: Option<u32>,
}

/// Opens a space on a session: the sender's fresh frontier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The number by which the sender will name the space on this session.
    pub space_ref: u32,
    /// The space.
    pub space: SpaceId,
    /// The sender does not know who founded the space yet.
    pub needs_genesis: bool,
    /// Every lane the sender holds.
    pub lanes: Vec<OpenLane>,
}

/// Who founded a space; checked against the space's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// The space.
    pub space: SpaceId,
    /// The founder.
    pub creator: ReplicaId,
    /// What the founder drew for the space.
    pub nonce: Nonce,
    /// What people call the space.
    pub name: String,
}

/// The sender will not serve a space to this peer. Unknown and forbidden look the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// The space.
    pub space: SpaceId,
}

/// The receiver was a member of a space and is no longer, as far as the sender knows; only former members are told.
/// The sender does not serve it any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The space.
    pub space: SpaceId,
}

/// Asks for a lane from a position on, for as long as the session lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribe {
    /// The space.
    pub space: SpaceId,
    /// The number under which the data will come; unique on the session.
    pub subscription: u32,
    /// The lane.
    pub lane: LaneId,
    /// The first entry wanted.
    pub from: u64,
    /// The first bytes of the receiver's chain hash before `from`.
    pub hash: [u8; 8],
}

/// Asks for a part of a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The space.
    pub space: SpaceId,
    /// The number under which the data will come; unique on the session.
    pub subscription: u32,
    /// The lane.
    pub lane: LaneId,
    /// The first entry wanted,
    pub from: u64,
    /// and the last, which the receiver has said that it has.
    pub until: u64,
}

/// Asks the receiver to end a subscription that it serves, once it has sent an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The subscription.
    pub subscription: u32,
    /// The entry.
    pub until: u64,
}

/// Where a subscription ends: what was asked for, or further on if more was sent already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limited {
    /// The subscription.
    pub subscription: u32,
    /// The last entry that is sent on it.
    pub last: u64,
}

/// Ends a subscription, from either side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsubscribe {
    /// The subscription.
    pub subscription: u32,
    /// Whether the sender of this message is the one who sends the data, and cannot.
    pub refused: bool,
}

/// The sender does not keep what a subscription needs any more. It ends, as one that is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// The subscription.
    pub subscription: u32,
    /// Up to this entry the sender does not keep the lane.
    pub floor: u64,
}

/// Asks for a snapshot of a space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotAsk {
    /// The space, opened by both sides.
    pub space: SpaceId,
    /// The receiver's number for it; unique on the session.
    pub number: u32,
}

/// Offers a snapshot: a view is kept for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotOffer {
    /// The receiver's number for it.
    pub number: u32,
    /// What it is.
    pub offer: Offer,
}

/// Asks for rows of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRead {
    /// The receiver's number for it.
    pub number: u32,
    /// After this walk key; empty for the start.
    pub from: Vec<u8>,
    /// Up to this one, or as far as the pieces allowed reach.
    pub until: Option<Vec<u8>>,
    /// The hash of what the receiver holds of the range.
    pub hash: Option<Hash>,
    /// How many pieces, where no end is named.
    pub pieces: u8,
}

/// The receiver holds the same rows of a range that it asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotSame {
    /// The receiver's number for the snapshot.
    pub number: u32,
    /// The end of the range.
    pub until: Vec<u8>,
    /// Over the rows and the snapshot that was offered.
    pub check: Hash,
}

/// Ends a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotStop {
    /// The receiver's number for it.
    pub number: u32,
    /// Why.
    pub why: SnapshotEnd,
}

/// A part of a piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPiece<'a> {
    /// The receiver's number for the snapshot.
    pub number: u32,
    /// The piece goes on in the next frame.
    pub more: bool,
    /// The part.
    pub bytes: &'a [u8],
}

/// Shows digests of a part of a state, to be compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditAsk {
    /// The space, opened by both sides.
    pub space: SpaceId,
    /// Carried back by the answer; unique on the session.
    pub number: u32,
    /// What the sender had applied.
    pub frontier: Frontier,
    /// Over the chain hashes of the lanes there.
    pub root: [u8; 16],
    /// The ranges begin after the object with this key; empty for the start.
    pub from: Vec<u8>,
    /// Ranges, one after the other.
    pub ranges: Vec<RangeDigest>,
}

/// What comparing came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReply {
    /// Of the question.
    pub number: u32,
    /// How many of its ranges were compared, from the first on; 0 when that cannot be done now.
    pub compared: u8,
    /// Of these the ones that differ.
    pub differ: Vec<RangeItems>,
}

/// Names objects of which the sender has another state, although both sides have applied the same on them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditSuspect {
    /// The space, opened by both sides.
    pub space: SpaceId,
    /// Their keys.
    pub objects: Vec<Vec<u8>>,
}

/// Asks for the rows of an object, to take the place of rows that are wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditFetch {
    /// The space, opened by both sides.
    pub space: SpaceId,
    /// Carried back by the answer; unique on the session.
    pub number: u32,
    /// The object's key.
    pub object: Vec<u8>,
    /// What the sender had applied; the rows are to be of that and perhaps more.
    pub frontier: Frontier,
    /// Over the chain hashes of the lanes there.
    pub root: [u8; 16],
}

/// Rows of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRows {
    /// Of the question.
    pub number: u32,
    /// Some of them, with their keys in the store, which are the same everywhere.
    pub rows: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether there are more.
    pub end: RowsEnd,
}

/// How the rows of an object end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RowsEnd {
    /// There are more of them.
    More,
    /// These are all.
    Complete {
        /// What was applied to them.
        frontier: Frontier,
        /// What may be forgotten in them.
        forgotten: Frontier,
    },
    /// They cannot be had now.
    Unavailable,
}

/// A lane as `Have` names it: by its place among the lanes the sender has named on this session for the
/// space, in `Open` first, or by its id when it is named for the first time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LaneRef {
    /// The n-th lane named.
    Known(u32),
    /// A lane not named before.
    New(LaneId),
}

/// What the sender holds durably, as far as it moved: acknowledgement, lag report and announcement at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// The sender's number for the space.
    pub space_ref: u32,
    /// Each lane with the prefix held.
    pub lanes: Vec<(LaneRef, u64)>,
}

/// Evidence: the proof of a lane up to one of its entries. Sent when the receiver seems to hold
/// something else in the lane; only an owner's signature that contradicts what is held proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The space.
    pub space: SpaceId,
    /// The lane.
    pub lane: LaneId,
    /// The entry.
    pub lsn: u64,
    /// The chain hash after it.
    pub hash: Hash,
    /// What proves it.
    pub proof: Proof,
}

/// Asks where the receiver stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontierRequest {
    /// The space.
    pub space: SpaceId,
    /// Carried back by the answer.
    pub number: u32,
}

/// Where the sender stands: what was durable there when it got the question, all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontierAnswer {
    /// The question.
    pub number: u32,
    /// The sender's number for the space.
    pub space_ref: u32,
    /// Each lane with the prefix held.
    pub lanes: Vec<(LaneRef, u64)>,
}

/// Asks the receiver to hand over rights to a bounded counter. It does so by a change set like any other, as
/// far as it has rights, or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RightsRequest {
    /// The space.
    pub space: SpaceId,
    /// The counter's collection.
    pub collection: String,
    /// The counter's key.
    pub key: String,
    /// Who is to get them: an origin of the sender.
    pub to: OriginId,
    /// How many.
    pub amount: u64,
}

/// A piece of a run of lane entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data<'a> {
    /// The subscription it belongs to.
    pub subscription: u32,
    /// The run goes on in the next frame of this subscription.
    pub more: bool,
    /// The sender has a write waiting for the receiver's acknowledgement.
    pub awaited: bool,
    /// The subscription ends with this run.
    pub ends: bool,
    /// The first entry of the run.
    pub first: u64,
    /// The piece of the run.
    pub bytes: &'a [u8],
}

/// Everything a frame can carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The greeting.
    Hello(Hello),
    /// What is known of later versions.
    Knows(Knows),
    /// What is shared, as a digest.
    Shared(Shared),
    /// What is shared was heard: tells the other side how far away this one is.
    Heard,
    /// Nodes of the tree that the digest is the root of.
    Branches(Branches),
    /// Spaces under such nodes.
    Leaves(Leaves),
    /// An invitation to redeem.
    Join(Join),
    /// A space is opened.
    Open(Open),
    /// Who founded a space.
    Genesis(Genesis),
    /// A space is refused.
    Denied(Denied),
    /// A member is told that it is none any more.
    Removed(Removed),
    /// A lane is asked for.
    Subscribe(Subscribe),
    /// A lane is sent without being asked for.
    Offer(Subscribe),
    /// A part of a lane is asked for.
    Range(Range),
    /// A subscription is to end somewhere.
    Limit(Limit),
    /// Where it ends.
    Limited(Limited),
    /// A subscription ends.
    Unsubscribe(Unsubscribe),
    /// What a subscription needs is not kept.
    Gone(Gone),
    /// Lane entries.
    Data(Data<'a>),
    /// What is held.
    Have(Have),
    /// Evidence about a lane.
    Head(Head),
    /// Rights are asked for.
    RightsRequest(RightsRequest),
    /// A snapshot is asked for.
    SnapshotAsk(SnapshotAsk),
    /// A snapshot is offered.
    SnapshotOffer(SnapshotOffer),
    /// Rows of a snapshot are asked for.
    SnapshotRead(SnapshotRead),
    /// Rows of a snapshot.
    SnapshotPiece(SnapshotPiece<'a>),
    /// Rows of a snapshot are the same.
    SnapshotSame(SnapshotSame),
    /// A snapshot ends.
    SnapshotStop(SnapshotStop),
    /// A frontier is asked for.
    FrontierRequest(FrontierRequest),
    /// A frontier.
    FrontierAnswer(FrontierAnswer),
    /// A part of a state is to be compared.
    AuditAsk(AuditAsk),
    /// What that came to.
    AuditReply(AuditReply),
    /// Objects that may be wrong at the receiver.
    AuditSuspect(AuditSuspect),
    /// The rows of an object are asked for.
    AuditFetch(AuditFetch),
    /// The rows of an object.
    AuditRows(AuditRows),
    /// A type this version does not know, marked as safe to skip.
    Skippable(u8),
}

const HELLO: u8 = 0x01;
const JOIN: u8 = 0x02;
const KNOWS: u8 = 0x80;
const OPEN: u8 = 0x10;
const GENESIS: u8 = 0x1b;
const DENIED: u8 = 0x11;
const REMOVED: u8 = 0x1c;
const BRANCHES: u8 = 0x1d;
const LEAVES: u8 = 0x1e;
const OFFER: u8 = 0x1f;
const SUBSCRIBE: u8 = 0x12;
const UNSUBSCRIBE: u8 = 0x13;
const DATA: u8 = 0x14;
const GONE: u8 = 0x15;
const HEAD: u8 = 0x16;
const HAVE: u8 = 0x18;
const RANGE: u8 = 0x20;
const LIMIT: u8 = 0x21;
const LIMITED: u8 = 0x22;
const FRONTIER_REQUEST: u8 = 0x19;
const FRONTIER_ANSWER: u8 = 0x1a;
const RIGHTS_REQUEST: u8 = 0x2a;
const SNAPSHOT_ASK: u8 = 0x30;
const SNAPSHOT_OFFER: u8 = 0x31;
const SNAPSHOT_READ: u8 = 0x32;
const SNAPSHOT_PIECE: u8 = 0x33;
const SNAPSHOT_SAME: u8 = 0x34;
const SNAPSHOT_STOP: u8 = 0x35;
/// These may be skipped: who does not know them compares nothing.
const AUDIT_ASK: u8 = 0xc0;
const AUDIT_REPLY: u8 = 0xc1;
const AUDIT_SUSPECT: u8 = 0xc2;
const AUDIT_FETCH: u8 = 0xc3;
const AUDIT_ROWS: u8 = 0xc4;
const SKIPPABLE: u8 = 0x80;
/// Who does not compare digests skips it.
const SHARED: u8 = SKIPPABLE | 0x01;
const HEARD: u8 = SKIPPABLE | 0x02;

const DATA_MORE: u8 = 1;
const DATA_AWAITED: u8 = 1 << 1;
const DATA_ENDS: u8 = 1 << 2;

/// The bytes that a frame adds to the part of a piece it carries, at most.
pub(crate) const SNAPSHOT_HEADER_BYTES_MAX: usize = 1 + 5 + 1;

/// The bytes a `Data` frame adds to the piece of a run it carries, at most.
pub(crate) const DATA_HEADER_BYTES_MAX: usize = 1 + 5 + 1 + 10;

impl<'a> Message<'a> {
    /// The message as a frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello(body) => encode(HELLO, body),
            Self::Knows(knows) => {
                let mut out = Writer::new();
                out.u8(KNOWS);
                for tags in [&knows.operations, &knows.kinds] {
                    out.varint(tags.len() as u64);
                    tags.iter().for_each(|tag| out.u8(tag.get()));
                }
                out.finish()
            }
            Self::Shared(body) => encode(SHARED, body),
            Self::Heard => vec![HEARD],
            Self::Branches(body) => encode(BRANCHES, body),
            Self::Leaves(body) => encode(LEAVES, body),
            Self::Join(body) => encode(JOIN, body),
            Self::Open(body) => encode(OPEN, body),
            Self::Genesis(body) => encode(GENESIS, body),
            Self::Denied(body) => encode(DENIED, body),
            Self::Removed(body) => encode(REMOVED, body),
            Self::Subscribe(body) => encode(SUBSCRIBE, body),
            Self::Offer(body) => encode(OFFER, body),
            Self::Range(body) => encode(RANGE, body),
            Self::Limit(body) => encode(LIMIT, body),
            Self::Limited(body) => encode(LIMITED, body),
            Self::Unsubscribe(body) => encode(UNSUBSCRIBE, body),
            Self::Gone(body) => encode(GONE, body),
            Self::Have(body) => encode(HAVE, body),
            Self::RightsRequest(body) => encode(RIGHTS_REQUEST, body),
            Self::SnapshotAsk(body) => encode(SNAPSHOT_ASK, body),
            Self::SnapshotOffer(body) => encode(SNAPSHOT_OFFER, body),
            Self::SnapshotRead(body) => encode(SNAPSHOT_READ, body),
            Self::SnapshotSame(body) => encode(SNAPSHOT_SAME, body),
            Self::SnapshotStop(body) => encode(SNAPSHOT_STOP, body),
            Self::SnapshotPiece(piece) => {
                let mut out = Writer::with_room(SNAPSHOT_HEADER_BYTES_MAX + piece.bytes.len());
                out.u8(SNAPSHOT_PIECE);
                out.varint(u64::from(piece.number));
                out.u8(u8::from(piece.more));
                out.bytes(piece.bytes);
                out.finish()
            }
            Self::FrontierRequest(body) => encode(FRONTIER_REQUEST, body),
            Self::FrontierAnswer(body) => encode(FRONTIER_ANSWER, body),
            Self::AuditAsk(body) => encode(AUDIT_ASK, body),
            Self::AuditReply(body) => encode(AUDIT_REPLY, body),
            Self::AuditSuspect(body) => encode(AUDIT_SUSPECT, body),
            Self::AuditFetch(body) => encode(AUDIT_FETCH, body),
            Self::AuditRows(body) => encode(AUDIT_ROWS, body),
            Self::Data(data) => {
                let mut out = Writer::with_room(DATA_HEADER_BYTES_MAX + data.bytes.len());
                out.u8(DATA);
                out.varint(u64::from(data.subscription));
                let flag = |bit: u8, is_set: bool| if is_set { bit } else { 0 };
                out.u8(flag(DATA_MORE, data.more)
                    | flag(DATA_AWAITED, data.awaited)
                    | flag(DATA_ENDS, data.ends));
                out.varint(data.first);
                out.bytes(data.bytes);
                out.finish()
            }
            Self::Head(head) => {
                let mut out = Writer::new();
                out.u8(HEAD);
                out.bytes(&head.space.0);
                out.bytes(&head.lane.0);
                out.varint(head.lsn);
                out.bytes(&head.hash.0);
                out.bytes(&head.proof.to_bytes());
                out.finish()
            }
            Self::Skippable(tag) => vec![*tag],
        }
    }

    /// The message in a frame.
    ///
    /// # Errors
    /// [`DecodeError`] when it is not one message in canonical form.
    pub fn decode(frame: &'a [u8]) -> Result<Self, DecodeError> {
        let Some((tag, body)) = frame.split_first() else {
            return Err(DecodeError::Truncated { what: "message" });
        };
        match *tag {
            HELLO => decode(body, "Hello").map(Self::Hello),
            KNOWS => decode_knows(body).map(Self::Knows),
            SHARED => decode(body, "Shared").map(Self::Shared),
            HEARD if body.is_empty() => Ok(Self::Heard),
            HEARD => Err(DecodeError::Trailing { what: "Heard", bytes: body.len() }),
            BRANCHES => decode(body, "Branches").map(Self::Branches),
            LEAVES => decode(body, "Leaves").map(Self::Leaves),
            JOIN => decode(body, "Join").map(Self::Join),
            OPEN => decode(body, "Open").map(Self::Open),
            GENESIS => decode(body, "Genesis").map(Self::Genesis),
            DENIED => decode(body, "Denied").map(Self::Denied),
            REMOVED => decode(body, "Removed").map(Self::Removed),
            SUBSCRIBE => decode(body, "Subscribe").map(Self::Subscribe),
            OFFER => decode(body, "Offer").map(Self::Offer),
            RANGE => decode(body, "Range").map(Self::Range),
            LIMIT => decode(body, "Limit").map(Self::Limit),
            LIMITED => decode(body, "Limited").map(Self::Limited),
            UNSUBSCRIBE => decode(body, "Unsubscribe").map(Self::Unsubscribe),
            GONE => decode(body, "Gone").map(Self::Gone),
            HAVE => decode(body, "Have").map(Self::Have),
            RIGHTS_REQUEST => decode(body, "RightsRequest").map(Self::RightsRequest),
            SNAPSHOT_ASK => decode(body, "SnapshotAsk").map(Self::SnapshotAsk),
            SNAPSHOT_OFFER => decode(body, "SnapshotOffer").map(Self::SnapshotOffer),
            SNAPSHOT_READ => decode(body, "SnapshotRead").map(Self::SnapshotRead),
            SNAPSHOT_SAME => decode(body, "SnapshotSame").map(Self::SnapshotSame),
            SNAPSHOT_STOP => decode(body, "SnapshotStop").map(Self::SnapshotStop),
            SNAPSHOT_PIECE => decode_piece(body).map(Self::SnapshotPiece),
            FRONTIER_REQUEST => decode(body, "FrontierRequest").map(Self::FrontierRequest),
            FRONTIER_ANSWER => decode(body, "FrontierAnswer").map(Self::FrontierAnswer),
            AUDIT_ASK => decode(body, "AuditAsk").map(Self::AuditAsk),
            AUDIT_REPLY => decode(body, "AuditReply").map(Self::AuditReply),
            AUDIT_SUSPECT => decode(body, "AuditSuspect").map(Self::AuditSuspect),
            AUDIT_FETCH => decode(body, "AuditFetch").map(Self::AuditFetch),
            AUDIT_ROWS => decode(body, "AuditRows").map(Self::AuditRows),
            HEAD => decode_head(body).map(Self::Head),
            DATA => decode_data(body).map(Self::Data),
            tag if tag & SKIPPABLE != 0 => Ok(Self::Skippable(tag)),
            tag => Err(DecodeError::UnknownTag { what: "message", tag: u64::from(tag) }),
        }
    }
}

fn decode_knows(body: &[u8]) -> Result<Knows, DecodeError> {
    let mut reader = Reader::new(body);
    let (operations, kinds) = (decode_tags(&mut reader)?, decode_tags(&mut reader)?);
    reader.finish("Knows")?;
    Ok(Knows { operations, kinds })
}

fn decode_tags(reader: &mut Reader<'_>) -> Result<BTreeSet<ExtensionTag>, DecodeError> {
    let mut tags = BTreeSet::new();
    for _ in 0..reader.count(KNOWN_TAGS_MAX, "known numbers")? {
        let tag = ExtensionTag::new(reader.u8("known number")?);
        let tag = tag.ok_or(DecodeError::Invalid { what: "known number", rule: "is of a later version" })?;
        if tags.last().is_some_and(|last| *last >= tag) {
            return Err(DecodeError::NotCanonical { what: "known numbers" });
        }
        tags.insert(tag);
    }
    Ok(tags)
}

fn decode_head(body: &[u8]) -> Result<Head, DecodeError> {
    let mut reader = Reader::new(body);
    let (space, lane) = (SpaceId(reader.array("space")?), OriginId(reader.array("lane")?));
    let lsn = reader.varint("lane position")?;
    let (hash, proof) = (Hash(reader.array("chain hash")?), Proof::read_to_end(&mut reader)?);
    Ok(Head { space, lane, lsn, hash, proof })
}

fn decode_data(body: &[u8]) -> Result<Data<'_>, DecodeError> {
    let mut reader = Reader::new(body);
    let subscription = reader.varint_max(u64::from(u32::MAX), "subscription")? as u32;
    let flags = reader.u8("data flags")?;
    if flags & !(DATA_MORE | DATA_AWAITED | DATA_ENDS) != 0 {
        return Err(DecodeError::UnknownTag { what: "data flags", tag: u64::from(flags) });
    }
    let first = reader.varint("first entry")?;
    let bytes = reader.bytes(reader.remaining(), "run")?;
    let has = |flag: u8| flags & flag != 0;
    let (more, awaited, ends) = (has(DATA_MORE), has(DATA_AWAITED), has(DATA_ENDS));
    Ok(Data { subscription, more, awaited, ends, first, bytes })
}

fn decode_piece(body: &[u8]) -> Result<SnapshotPiece<'_>, DecodeError> {
    let mut reader = Reader::new(body);
    let number = reader.varint_max(u64::from(u32::MAX), "snapshot")? as u32;
    let more = match reader.u8("piece flags")? {
        0 => false,
        1 => true,
        flags => return Err(DecodeError::UnknownTag { what: "piece flags", tag: u64::from(flags) }),
    };
    let bytes = reader.bytes(reader.remaining(), "part of a piece")?;
    Ok(SnapshotPiece { number, more, bytes })
}

fn encode<T: Serialize>(tag: u8, body: &T) -> Vec<u8> {
    let mut frame = vec![tag];
    frame.extend(postcard::to_allocvec(body).expect("a message is plain data, which always encodes"));
    frame
}

/// Decodes a body and accepts only its one canonical encoding.
fn decode<T: Serialize + for<'b> Deserialize<'b>>(body: &[u8], what: &'static str) -> Result<T, DecodeError> {
    let rule = "must decode as a message of its type";
    let (message, rest) =
        postcard::take_from_bytes::<T>(body).map_err(|_| DecodeError::Invalid { what, rule })?;
    if !rest.is_empty() {
        return Err(DecodeError::Trailing { what, bytes: rest.len() });
    }
    if postcard::to_allocvec(&message).ok().as_deref() != Some(body) {
        return Err(DecodeError::NotCanonical { what });
    }
    Ok(message)
}
