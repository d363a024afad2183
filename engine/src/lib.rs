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
mod bootstrap;
mod change;
mod changes;
mod commands;
mod conflicts;
mod deliver;
mod dictionary;
mod documents;
mod durability;
mod elision;
mod engine;
mod forks;
mod fresh;
mod hash;
mod head;
mod invitations;
mod io;
mod journal;
mod keys;
mod limits;
mod members;
mod message;
mod op;
mod operations;
mod options;
mod own;
mod pack;
mod parents;
mod read;
mod recall;
mod receive;
mod report;
mod retention;
mod rights;
mod rows;
mod run;
mod send;
mod session;
mod settings;
mod site;
mod space;
mod status;
mod store;
mod token;
mod tx;
mod unstable;
pub mod wire;
mod work;

pub use bootstrap::{
    BootstrapPhase, Offer, SnapshotAnswer, SnapshotEnd, SnapshotSource, SnapshotTask, is_installing,
};
pub use changes::{ChangeCursor, ChangeEvent, ChangePage, ChangesError, Did, ObjectChange, PageLimit, Scope};
pub use conflicts::{Conflict, Location, Matter, SiblingReport, conflict_at, conflicts};
pub use documents::{
    DocumentPosition, DocumentReader, Followed, QuarantinedChange, ReadDocument, Settled, quarantined, settle,
};
pub use engine::{Engine, TransactError, Trust};
pub use io::{
    Acknowledgement, Applied, Class, CloseReason, Command, CommandError, Durability, Input, Notice, Now,
    Output, Reply, RequestId, SessionId, Whom,
};
pub use journal::{
    JournalEntry, JournalLimits, JournalReason, JournalTotals, Replayed, journal, journal_of, journal_totals,
    replay,
};
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
pub use status::{BootstrapStatus, Freeze, LaneStatus, SpaceStatus, StateDigest, Status};
pub use store::{Batch, LaneRecord, LaneSpan, LogRead, Position, Put, Row, StateRead, Store, StoreError};
pub use token::Token;
pub use tx::{Tx, TxError};
pub use unstable::unstable_rows;
