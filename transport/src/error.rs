//! One small error enum per operation.

use std::io;
use std::net::SocketAddr;

use crate::close::{CloseCode, CloseReason};
use crate::identity::PeerKey;

/// Why [`Endpoint::bind`](crate::Endpoint::bind) failed. Nothing was bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The caller's fault: a limit of the configuration is out of range or contradicts another. Correct it.
    #[error("invalid transport configuration: {0}")]
    Config(&'static str),
    /// The caller's fault: `bind` ran outside a tokio runtime.
    #[error("no tokio runtime")]
    NoRuntime,
    /// The environment's fault: the UDP socket could not be opened, usually because the port is taken.
    #[error("cannot open the socket")]
    Socket(#[from] io::Error),
}

/// Why an outgoing connection did not come about. The endpoint is unaffected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The environment's fault: no answer within the handshake timeout. Back off and dial again.
    #[error("no answer from the peer")]
    Unreachable,
    /// The caller's fault: the address cannot be dialed from this socket (port 0, or the other IP family).
    #[error("address {0} cannot be dialed from this socket")]
    BadAddress(SocketAddr),
    /// The peer's fault, or a wrong address book: whoever answered does not hold the pinned key. Nothing was
    /// sent to it. Do not retry at this address without telling the operator.
    #[error("the peer at this address does not hold the key {expected}")]
    WrongKey {
        /// The key that was pinned.
        expected: PeerKey,
        /// The key that was presented instead; `None` when the pinned key was claimed without a valid
        /// signature by it, or when what was presented is no Ed25519 key.
        presented: Option<PeerKey>,
    },
    /// The peer does not trust this side's key. Retrying is pointless until its operator adds the key.
    #[error("the peer does not trust this replica's key")]
    UnknownPeer,
    /// The peer has too many handshakes or connections. Back off and dial again.
    #[error("the peer is too busy for another connection")]
    Busy,
    /// The peer closed the connection as soon as it was established. The code says what to do.
    #[error("the peer closed the connection: {code}: {reason}")]
    PeerClosed {
        /// The code the peer sent.
        code: CloseCode,
        /// The peer's text, for logs only.
        reason: String,
    },
    /// This endpoint was closed. Do not retry.
    #[error("the endpoint is closed")]
    LocalClosed,
    /// QUIC or TLS failed: whoever answered is not a Comity peer, or speaks another version. Back off.
    #[error("handshake failed: {detail}")]
    Protocol {
        /// What failed, for logs only.
        detail: String,
    },
}

/// Why an incoming handshake failed. The peer's fault in every variant; log and count it, and go on accepting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer proved a key that [`Trust`](crate::Trust) does not accept. It was refused and told so.
    #[error("{addr} holds the key {peer}, which is not trusted")]
    UnknownPeer {
        /// The proved key.
        peer: PeerKey,
        /// Where it dialed from.
        addr: SocketAddr,
    },
    /// The peer presented a key without a valid signature by it: an impostor.
    #[error("{addr} claimed the key {claimed} without proof")]
    Unproven {
        /// The key it claimed.
        claimed: PeerKey,
        /// Where it dialed from.
        addr: SocketAddr,
    },
    /// The handshake did not end within its timeout. Its state is freed.
    #[error("handshake with {addr} timed out")]
    TimedOut {
        /// Where it dialed from.
        addr: SocketAddr,
    },
    /// QUIC or TLS failed, or the peer gave up.
    #[error("handshake with {addr} failed: {detail}")]
    Protocol {
        /// Where it dialed from.
        addr: SocketAddr,
        /// What failed, for logs only.
        detail: String,
    },
}

/// Why a frame was not taken. The frame is dropped; earlier frames are unaffected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The peer's fault: it reads slower than it is sent to, and the queue of the class is at its limit. Wait
    /// or close with [`CloseCode::SLOW_PEER`].
    #[error("the queue of this class is full")]
    Full,
    /// The connection is closed or the peer stopped reading this class; the reason is
    /// [`ConnectionHandle::closed`](crate::ConnectionHandle::closed).
    #[error("the connection is closed")]
    Closed,
    /// The caller's fault: the frame exceeds `frame_bytes_max`.
    #[error("the frame is too large")]
    TooLarge,
    /// The caller's fault: frames hold at least one byte.
    #[error("the frame is empty")]
    Empty,
}

/// Why no further frame will arrive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The peer ended all its streams properly; the connection is still open for sending.
    #[error("the peer has finished sending")]
    Finished,
    /// The connection is closed. Every frame that arrived whole was delivered before this.
    #[error("{0}")]
    Closed(CloseReason),
}
