//! The transport over loopback, with real QUIC.

mod flow;
mod frames;
mod handshake;
mod hostile;
mod shutdown;
mod support;
mod violations;
