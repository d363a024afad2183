//! Pure values for Comity: identities, causality, the data types and their laws.
//!
//! Nothing here reads a clock, a random source, a socket or a file. Every function is a function of its
//! arguments.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod address;
pub mod canary;
mod codec;
mod counter;
mod document;
mod dot;
mod frontier;
mod hlc;
mod id;
#[cfg(test)]
mod laws;
pub mod limits;
mod policy;
mod raw_change;
mod register;
mod set;
mod value;

/// The document engine, in the version the documents here are made of.
pub use automerge;

pub use address::{AddressError, Kind, ObjectAddress, check_collection};
pub use codec::{DecodeError, Reader, Writer};
pub use counter::{CounterRange, PnCounter};
pub use document::{Applied, Document, EditError};
pub use dot::Dot;
pub use frontier::Frontier;
pub use hlc::{Clock, Hlc};
pub use id::{LaneId, Nonce, ObjectId, OriginId, ReplicaId, SpaceId};
pub use policy::{Policy, RegisterView};
pub use raw_change::{DocumentError, RawChange};
pub use register::{MvRegister, Sibling};
pub use set::{AwSet, ElementDots};
pub use value::{Value, ValueError, ValueSerdeError};
