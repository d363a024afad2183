//! The formats that replicas exchange and keep, for tools that inspect them and tests that forge them.
//! `docs/wire.md` has the tables.

pub use crate::audit::{AuditItem, RangeDigest, object_rows};
pub use crate::bootstrap::{WalkRow, decode_piece, encode_piece, flipped};
pub use crate::change::{Body, ChangeSet, LaneEntry, LaneOwner, LaneTip, decode_entry, encode_entry};
pub use crate::deletion::deleted;
pub use crate::dictionary::Dictionary;
pub use crate::hash::Hash;
#[cfg(feature = "stand-in-signatures")]
pub use crate::head::use_stand_in_signatures;
pub use crate::head::{HeadSignature, sign};
pub use crate::message::{
    AuditAsk, AuditFetch, AuditReply, AuditRows, AuditSuspect, Data, Denied, FrontierAnswer, FrontierRequest,
    Genesis, Gone, Have, Head, Hello, Join, Knows, LaneRef, Limit, Limited, Message, Open, OpenLane, Range,
    Removed, RightsRequest, RowsEnd, SnapshotAsk, SnapshotOffer, SnapshotPiece, SnapshotRead, SnapshotSame,
    SnapshotStop, Subscribe, Unsubscribe,
};
pub use crate::op::{Group, Op};
pub use crate::proof::Proof;
pub use crate::quiet::{Branch, Branches, Leaf, Leaves, Shared};
pub use crate::run::{CheckedRun, RunError, decode_run, encode_run};
pub use crate::version::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
