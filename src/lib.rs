//! Comity: a multi-leader, geo-replicated CRDT sync engine to embed in applications.
//!
//! Every region or device is a leader: it accepts writes alone, offline, at the latency of its own disk, and
//! exchanges causally ordered change sets with all others over QUIC. Nothing is ever lost silently.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use comity::{ObjType, Policy, ROOT, Replica, Transactable};
//!
//! let replica = Replica::open("app.comity").await?;
//! let notes = replica.create_space("notes").await?; // or replica.connect(&ticket).await?
//!
//! notes.counter("stats", "likes").add(5).await?;
//! notes.set("tags", "post-1").insert("rust").await?;
//! notes.register("profile", "name").write("Carol").await?;
//! notes.document("todos", "today").edit(|doc| {
//!     let title = doc.put_object(ROOT, "title", ObjType::Text)?;
//!     doc.splice_text(&title, 0, 0, "Milk")?;
//!     Ok(())
//! }).await?;
//!
//! let receipt = notes.transact(|tx| { // one atomic change set
//!     tx.counter("stock", "apple").add(-1)?;
//!     tx.register("order", "17").write("paid")?;
//!     Ok(())
//! }).await?;
//!
//! let view = notes.at(&receipt.token()).await?; // a consistent snapshot, at least this fresh
//! let name = view.register("profile", "name")?;
//! println!("{:?} of {:?}", name.latest(), name.under(&Policy::Siblings));
//!
//! replica.listen("127.0.0.1:4433".parse()?).await?;
//! println!("{}", notes.invite().await?); // a ticket for another replica
//! replica.shutdown().await;
//! # Ok(())
//! # }
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod core;
mod error;
mod network;
mod replica;
mod space;
mod ticket;
mod transaction;
mod view;
mod watch;

pub use comity_crdts::automerge::transaction::Transactable;
pub use comity_crdts::automerge::{self, ObjType, ROOT, ReadDoc};
pub use comity_crdts::{
    AddressError, Document, Dot, Frontier, Hlc, Kind, LaneId, MvRegister, ObjectAddress, OriginId, Policy,
    RegisterView, ReplicaId, Sibling, SpaceId, Value,
};
pub use comity_engine::{
    ChangeEvent, CommandError, Did, Durability, Freeze, JournalEntry, JournalReason, LaneStatus, Listing,
    ObjectChange, ReadError, Role, SpaceStatus, StateDigest, Status, StoreError, Token, TransactError,
    TxError,
};
pub use comity_store::{
    CompactError as StorageCompactError, CompactReport, Damage, OpenError as DirectoryError, StoreOptions,
};
pub use comity_transport::{BindError, ClassStats, Congestion, ConnectionStats, TransportConfig};
pub use error::{CompactError, ConnectedError, InviteError, OpenError, RequestError, WatchError, WriteError};
pub use replica::{OpenOptions, Replica};
pub use space::{
    Counter, DocumentHandle, INVITATION_VALID, Pending, Receipt, Register, Set, Space, Transact, WAIT_DEFAULT,
};
pub use ticket::{Ticket, TicketError};
pub use transaction::{Transaction, TxCounter, TxDocument, TxRegister, TxSet};
pub use view::{RegisterReader, View};
pub use watch::{LAG_MAX, Watch};
