//! Pure values for Comity: identities, causality, the data types and their laws.
//!
//! Nothing here reads a clock, a random source, a socket or a file. Every function is a function of its
//! arguments.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod address;
mod codec;
mod dot;
mod frontier;
mod hlc;
mod id;
pub mod limits;

pub use address::{AddressError, Kind, ObjectAddress, check_collection};
pub use codec::{DecodeError, Reader, Writer};
pub use dot::Dot;
pub use frontier::Frontier;
pub use hlc::{Clock, Hlc};
pub use id::{LaneId, Nonce, ObjectId, OriginId, ReplicaId, SpaceId};
