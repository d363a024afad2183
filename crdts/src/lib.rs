//! Pure values for Comity: identities, causality, the data types and their laws.
//!
//! Nothing here reads a clock, a random source, a socket or a file. Every function is a function of its
//! arguments.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod address;
mod bounded;
pub mod canary;
mod codec;
mod counter;
mod document;
mod dot;
mod extension;
mod flag;
mod frontier;
mod guard;
mod hlc;
mod id;
#[cfg(test)]
mod laws;
pub mod limits;
mod observed;
mod place;
mod policy;
mod raw_change;
mod register;
mod remove_wins;
mod resettable;
mod set;
mod value;

/// The document engine, in the version the documents here are made of.
pub use automerge;

pub use address::{AddressError, Kind, ObjectAddress, check_collection};
pub use bounded::{BoundedCounter, BoundedError};
pub use codec::{DecodeError, Reader, Writer};
pub use counter::{CounterRange, PnCounter};
pub use document::json::{JsonError, JsonForm};
pub use document::versions::DocumentVersion;
pub use document::{
    Admitted, Applied, Document, DocumentAction, DocumentMark, DocumentPatch, EditError, LatestChange, admit,
    in_causal_order, json, text, versions,
};
pub use dot::Dot;
pub use extension::ExtensionTag;
pub use flag::{DwFlag, EwFlag};
pub use frontier::Frontier;
pub use hlc::{Clock, Hlc};
pub use id::{LaneId, Nonce, ObjectId, OriginId, ReplicaId, SpaceId};
pub use observed::Observed;
pub use place::{Context, Place};
pub use policy::{
    ConflictPolicy, CustomPolicy, Policy, PolicyFault, PolicyLaw, PolicyNameError, PolicyRegistry,
    RegisterView, RegistryError, check_policy,
};
#[cfg(any(test, feature = "testing"))]
pub use raw_change::hostile;
pub use raw_change::{ChunkLimits, DocumentError, Expected, RawChange, RecentChanges};
pub use register::{MvRegister, Sibling};
pub use remove_wins::{RwRow, RwSet};
pub use resettable::{ResetColumn, ResettableCounter, Step};
pub use set::{AwSet, ElementDots};
pub use value::{Value, ValueError, ValueSerdeError};
