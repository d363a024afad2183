//! Comity: a multi-leader, geo-replicated CRDT sync engine to embed in applications.
//!
//! Every region or device is a leader: it accepts writes alone, offline, at the latency of its own disk, and
//! exchanges causally ordered change sets with all others over QUIC. Nothing is ever lost silently.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use comity::{ObjType, Policy, ROOT, Replica, Transactable};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Profile {
//!     name: String,
//!     languages: Vec<String>,
//! }
//!
//! let replica = Replica::open("app.comity").await?;
//! let notes = replica.create_space("notes").await?; // or replica.connect(&ticket).await?
//!
//! notes.counter("stats", "likes").add(5).await?;
//! notes.set("tags", "post-1").insert("rust").await?;
//! notes.map("settings", "ada").flag("dark").enable().await?;
//! notes.bounded_counter("stock", "apple").increase(10).await?; // never below zero, anywhere
//! let ada = Profile { name: "Ada".to_owned(), languages: vec!["en".to_owned()] };
//! notes.register("profiles", "ada").typed().write(&ada).await?;
//! notes.document("todos", "today").edit(|doc| {
//!     let title = doc.put_object(ROOT, "title", ObjType::Text)?;
//!     doc.splice_text(&title, 0, 0, "Milk")?;
//!     Ok(())
//! }).await?;
//!
//! let receipt = notes.transact(|tx| { // one atomic change set
//!     tx.bounded_counter("stock", "apple").decrease(1)?;
//!     tx.register("orders", "17").write("paid")?;
//!     Ok(())
//! }).await?;
//!
//! let view = notes.at(&receipt.token()).await?; // a consistent snapshot, at least this fresh
//! println!("{:?}", view.register("orders", "17")?.value()?);
//! let ada = view.register("profiles", "ada")?.typed::<Profile>().value()?;
//!
//! notes.set_policy("orders", Policy::Siblings).await?; // or union, min, …, or one of your own
//! for conflict in notes.conflicts(None, 100)? { // what was written at the same time
//!     notes.resolve(&conflict, "paid").await?; // replaces what the conflict shows, and nothing newer
//! }
//!
//! replica.listen("127.0.0.1:4433".parse()?).await?;
//! println!("{}", notes.invite().await?); // a ticket for another replica
//! replica.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! | kind | by | when two write at the same time |
//! |---|---|---|
//! | counter | [`Space::counter`] | both additions count |
//! | bounded counter | [`Space::bounded_counter`] | both count, and the value never falls below zero |
//! | set | [`Space::set`], [`Space::remove_wins_set`] | adding an element wins over removing it; or removing does |
//! | flag | [`Space::flag`], [`Space::disable_wins_flag`] | enabling wins; or disabling does |
//! | register | [`Space::register`] | both values are kept, and a [`Policy`] says what is shown |
//! | map | [`Space::map`] | by the rule of what is nested under the key; what was not seen is not removed |
//! | document | [`Space::document`] | Automerge merges them |
//!
//! Each can be written by itself, or with others by [`Space::transact`]; read by itself, or with others at one moment
//! in a [`View`]; and watched by [`Space::watch`]. A document is written and read as JSON too
//! ([`DocumentHandle::put_json`], [`DocumentHandle::patch`]), as text with marks and cursors, and as an application's own
//! types, and its versions can be listed, compared and restored ([`DocumentHandle::versions`]). Registers and sets hold
//! [`Value`]s, or any type of your own by [`Typed`]. [`Space::conflicts`] lists what people have to decide, and
//! [`Space::journal`] what was set aside.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod audit;
mod core;
mod documents;
mod error;
mod follow;
mod handles;
mod inbox;
mod lag;
mod members;
mod meters;
mod network;
mod place;
mod replica;
mod snapshots;
mod space;
mod ticket;
mod transaction;
mod typed;
mod view;
mod watch;
mod write;

pub use audit::{AUDIT_EVENTS_MAX, AuditEvents};
/// Documents as an application's own types: the version whose traits the handles take. The derive macros name the
/// crates `autosurgeon` and `automerge`, so whoever derives depends on both, in the versions that are here.
#[cfg(feature = "autosurgeon")]
pub use autosurgeon;
pub use comity_crdts::automerge::transaction::Transactable;
pub use comity_crdts::automerge::{self, ObjType, ROOT, ReadDoc, marks::ExpandMark};
pub use comity_crdts::{
    AddressError, BoundedCounter, BoundedError, ChunkLimits, ConflictPolicy, CustomPolicy, Document,
    DocumentAction, DocumentMark, DocumentPatch, DocumentVersion, Dot, Frontier, Hlc, JsonError, JsonForm,
    Kind, LaneId, MvRegister, ObjectAddress, OriginId, Policy, PolicyFault, PolicyLaw, PolicyNameError,
    PolicyRegistry, RegisterView, RegistryError, ReplicaId, Sibling, SpaceId, Value, ValueError,
    ValueSerdeError, check_policy, json, limits, text, versions,
};
pub use comity_engine::{
    AuditEvent, AuditLimits, AuditStatus, Away, Blocked, BootstrapLimits, BootstrapPhase, BootstrapStatus,
    ChangeEvent, CommandError, Conflict, Did, Durability, Fault, Freeze, JournalEntry, JournalLimits,
    JournalPlace, JournalReason, JournalTotals, Lag, LagChange, LagEvent, LagLimits, LagSide, LaneLag,
    LaneStatus, Listing, Location, Matter, Matters, OPERATION_NAME_BYTES_MAX, ObjectChange,
    OperationNameError, PeerStatus, QuarantinedChange, REGION_BYTES_MAX, ReadError, Repair, Replayed,
    Retention, Role, SessionStatus, SiblingReport, SpaceStatus, Standing, StateDigest, Status, StoreError,
    Throttle, Throttled, Token, TransactError, TxError, Unresolved, Verified, VersionRange, VersionRefusal,
};
pub use comity_store::{
    BackupError, BackupProgress, BackupReport, CompactError as StorageCompactError, CompactReport, Damage,
    OpenError as DirectoryError, StoreOptions, restore as restore_backup,
};
pub use comity_transport::{BindError, ClassStats, Congestion, ConnectionStats, TransportConfig};
pub use error::{
    AuditEventsError, CompactError, ConnectedError, ContentError, DecreaseError, DocumentReadError,
    ImportError, InviteError, LagEventsError, OpenError, RequestError, ResolveError, TransferError,
    WatchError, WriteError,
};
pub use follow::{DocumentFeed, DocumentUpdate};
pub use handles::{
    BoundedCounterHandle, Counter, Decrease, DocumentAt, DocumentHandle, Flag, Map, MapReader, Register,
    RegisterReader, Set, SetReader, TxBoundedCounter, TxCounter, TxDocument, TxFlag, TxMap, TxRegister,
    TxSet,
};
pub use inbox::{Choice, ConflictEvent, ConflictEvents};
pub use lag::{LAG_EVENTS_MAX, LagEvents};
pub use meters::{Histogram, METER_BOUNDS_US, Meters};
pub use replica::{OpenOptions, Replica};
/// JSON, in the version that documents are read and written in.
pub use serde_json;
pub use space::{INVITATION_VALID, Space};
pub use ticket::{Ticket, TicketError};
pub use transaction::Transaction;
pub use typed::Typed;
pub use view::View;
pub use watch::{LAG_MAX, Watch};
pub use write::{Pending, Receipt, Transact, WAIT_DEFAULT};
