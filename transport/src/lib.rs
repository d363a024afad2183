//! Frames between replicas: QUIC, mutual authentication by raw Ed25519 keys, one stream per class.
//!
//! An [`Endpoint`] owns one UDP socket that both dials and accepts. A [`Connection`] is a verified pair of
//! keys; split, it is a [`FrameSender`] that never blocks and a [`FrameReceiver`] whose slowness reaches the
//! peer as QUIC back-pressure. A frame is opaque here: what it means is the engine's business.
//!
//! *Invariants.* No byte of a frame is delivered before the peer has proved its key. Nothing is resumed and
//! nothing travels in 0-RTT. Every queue and buffer has a limit in [`TransportConfig`] or a named constant.
//! A violation by the peer closes its connection with a [`CloseCode`] and touches no other connection.

mod admission;
mod backoff;
mod close;
mod config;
mod connection;
mod crossing;
mod endpoint;
mod error;
mod frame;
mod identity;
mod queue;
mod receiver;
mod sender;
mod stats;
mod tls;

#[cfg(feature = "fuzzing")]
pub mod framing;

#[cfg(test)]
mod tests;

pub use backoff::{BACKOFF_MAX, BACKOFF_MIN, Backoff};
pub use close::{CloseCode, CloseReason};
pub use config::{Congestion, TransportConfig};
pub use connection::{Connection, ConnectionHandle};
pub use crossing::{CROSSING_WINDOW, Keep, survivor};
pub use endpoint::Endpoint;
pub use error::{BindError, ConnectError, HandshakeError, RecvError, SendError};
pub use frame::Class;
pub use identity::{Identity, PeerKey, Trust};
pub use receiver::FrameReceiver;
pub use sender::FrameSender;
pub use stats::{ClassStats, ConnectionStats};
