//! The deterministic core of Comity: change sets, lanes, causal delivery, spaces, transactions, sync
//! sessions, acknowledgements.
//!
//! One value, [`Engine`], is driven by [`Input`]s and drained of [`Output`]s. It reads no clock, no random
//! source, no socket and no file: time and fresh randomness enter with each call as [`Now`], storage is the
//! [`Store`] trait. The same inputs over the same store give the same outputs.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod acks;
mod announce;
mod apply;
mod audit;
mod beaten;
mod bootstrap;
mod catalog;
mod change;
mod changes;
mod commands;
mod conflicts;
mod deletion;
mod deliver;
mod dictionary;
mod documents;
mod durability;
mod elision;
mod engine;
mod excerpt;
mod extension;
mod forks;
mod fresh;
mod hash;
mod head;
mod held;
mod invitations;
mod io;
mod journal;
mod keys;
mod lag;
mod limits;
mod members;
mod membership;
mod message;
mod offers;
mod op;
mod operations;
mod options;
mod own;
mod pack;
mod parents;
mod proof;
mod quiet;
mod ranges;
mod read;
mod recall;
mod receive;
mod report;
mod retention;
mod rights;
mod round_trip;
mod rows;
mod run;
mod segments;
mod send;
mod session;
mod settings;
mod site;
mod sorted;
mod space;
mod status;
mod store;
mod throttle;
mod token;
mod trust;
mod tx;
mod unstable;
mod verify;
mod version;
pub mod wire;
mod work;

pub use audit::{
    AuditAnswer, AuditEvent, AuditLimits, AuditStatus, AuditTask, ObjectDigest, Repair, Unresolved,
    object_digest, repairs,
};
pub use bootstrap::{
    BootstrapPhase, Offer, SnapshotAnswer, SnapshotEnd, SnapshotSource, SnapshotTask, check_readable,
    is_installing,
};
pub use catalog::{collections, space_name, spaces};
pub use changes::{
    ChangeCursor, ChangeEvent, ChangePage, ChangesError, Did, ObjectChange, PageLimit, Scope, position_of,
};
pub use conflicts::{Conflict, Location, Matter, SiblingReport, conflict_at, conflicts};
pub use documents::{
    DocumentPosition, DocumentReader, Followed, QuarantinedChange, ReadDocument, Settled, lost_document,
    quarantined, settle,
};
pub use engine::Engine;
pub use extension::Extensions;
pub use held::{held_objects, is_held};
pub use io::{
    Acknowledgement, Applied, Class, CloseReason, Command, CommandError, Durability, Input, Notice, Now,
    Output, Reply, RequestId, SessionId, Whom,
};
pub use journal::{
    JournalEntry, JournalLimits, JournalPlace, JournalReason, JournalTotals, Replayed, journal,
    journal_after, journal_of, journal_totals, replay,
};
pub use lag::{Lag, LagChange, LagEvent, LagLimits, LagSide};
pub use limits::FRAME_BYTES_MAX;
pub use op::Role;
pub use operations::{OPERATION_NAME_BYTES_MAX, OperationId, OperationNameError, operation_ids};
pub use options::{BootstrapLimits, EngineOptions, TailLimits, WriteOptions};
pub use read::{
    Listing, ReadError, bounded_counter, counter, counter_at, document, document_heads, flag_at, frontier,
    list, map_keys, map_len, members, register, register_at, set_contains, set_contains_at, set_elements,
    set_elements_at, set_len, set_len_at,
};
pub use retention::{Retention, lane_floor};
pub use settings::{REGION_BYTES_MAX, policy_of, region_of};
pub use space::InstanceToken;
pub use status::{
    Blocked, BootstrapStatus, Freeze, LaneLag, LaneStatus, PeerStatus, SessionStatus, SpaceStatus, Standing,
    StateDigest, Status,
};
pub use store::{Batch, LaneRecord, LaneSpan, LogRead, Position, Put, Row, StateRead, Store, StoreError};
pub use throttle::{Away, Throttle, Throttled};
pub use token::Token;
pub use trust::Trust;
pub use tx::{TransactError, Tx, TxError};
pub use unstable::unstable_rows;
pub use verify::{Fault, Matters, Verified, verify};
pub use version::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, VersionRange, VersionRefusal};
