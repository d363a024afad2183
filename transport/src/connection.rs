//! One connection between two verified keys, whole or split into its halves.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::close::{CloseCode, CloseReason, truncated};
use crate::config::TransportConfig;
use crate::identity::PeerKey;
use crate::receiver::FrameReceiver;
use crate::sender::FrameSender;
use crate::stats::{ConnectionStats, Counters};

/// What an endpoint was closed with, for the connections that end with it.
pub(crate) type EndpointClose = Arc<OnceLock<(CloseCode, String)>>;

/// An established connection. Dropping it, or both of its halves, closes it with [`CloseCode::NORMAL`];
/// [`FrameSender::finish`] delivers what is queued first.
pub struct Connection {
    handle: ConnectionHandle,
    sender: FrameSender,
    receiver: FrameReceiver,
    confirmed: watch::Receiver<bool>,
}

impl Connection {
    /// Starts the tasks of a connection whose handshake is over.
    pub(crate) fn start(
        quic: quinn::Connection,
        peer: PeerKey,
        endpoint_close: EndpointClose,
        config: &TransportConfig,
    ) -> Connection {
        let link = Arc::new(Link {
            quic,
            peer,
            established: Instant::now(),
            counters: Counters::default(),
            closing: OnceLock::new(),
            endpoint_close,
        });
        let lifeline = Arc::new(Lifeline(Arc::clone(&link)));
        let (confirmed_sender, confirmed) = watch::channel(false);
        Connection {
            sender: FrameSender::start(&link, Arc::clone(&lifeline), config),
            receiver: FrameReceiver::start(&link, lifeline, config, confirmed_sender),
            handle: ConnectionHandle { link },
            confirmed,
        }
    }

    /// The key the peer has proved.
    pub fn peer(&self) -> PeerKey {
        self.handle.peer()
    }

    /// Whether this side dialed.
    pub fn dialed(&self) -> bool {
        self.handle.dialed()
    }

    /// Where the peer is at the moment; it may migrate.
    pub fn remote_addr(&self) -> SocketAddr {
        self.handle.remote_addr()
    }

    /// The current estimate of the round-trip time.
    pub fn rtt(&self) -> Duration {
        self.handle.rtt()
    }

    /// See [`ConnectionHandle::close`].
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.handle.close(code, reason);
    }

    /// See [`ConnectionHandle::closed`].
    pub async fn closed(&self) -> CloseReason {
        self.handle.closed().await
    }

    /// A handle that outlives [`split`](Self::split).
    pub fn handle(&self) -> ConnectionHandle {
        self.handle.clone()
    }

    /// The two directions, for one owner each.
    pub fn split(self) -> (FrameSender, FrameReceiver) {
        (self.sender, self.receiver)
    }

    /// Resolves once the listener has accepted this side's key, which shows in its first stream; or when the
    /// connection is over. Cancel safe.
    pub(crate) async fn confirmed(&mut self) -> Result<(), CloseReason> {
        let confirmed = self.confirmed.wait_for(|confirmed| *confirmed).await.is_ok();
        if confirmed { Ok(()) } else { Err(self.handle.closed().await) }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.fmt(f)
    }
}

/// Observes and closes a connection. Cheap to clone; does not keep the connection open.
#[derive(Clone)]
pub struct ConnectionHandle {
    link: Arc<Link>,
}

impl ConnectionHandle {
    /// The key the peer has proved.
    pub fn peer(&self) -> PeerKey {
        self.link.peer
    }

    /// Whether this side dialed.
    pub fn dialed(&self) -> bool {
        self.link.quic.side().is_client()
    }

    /// Where the peer is at the moment; it may migrate.
    pub fn remote_addr(&self) -> SocketAddr {
        self.link.quic.remote_address()
    }

    /// The current estimate of the round-trip time.
    pub fn rtt(&self) -> Duration {
        self.link.quic.rtt()
    }

    /// Time since the handshake ended on this side; what [`survivor`](crate::survivor) asks for.
    pub fn age(&self) -> Duration {
        self.link.established.elapsed()
    }

    /// What went over the connection so far.
    pub fn stats(&self) -> ConnectionStats {
        self.link.counters.snapshot(&self.link.quic.stats())
    }

    /// Ends the connection at once; what is queued or unacknowledged is lost. The first close of either side
    /// wins, later ones do nothing. The reason is cut to 256 bytes and is for the peer's logs.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.link.close(code, reason);
    }

    /// Why the connection ended; `None` while it is open.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.link.close_reason()
    }

    /// Waits for the end of the connection. Cancel safe; any number of callers may wait.
    pub async fn closed(&self) -> CloseReason {
        self.link.closed().await
    }
}

impl fmt::Debug for ConnectionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer())
            .field("dialed", &self.dialed())
            .field("remote_addr", &self.remote_addr())
            .field("close_reason", &self.close_reason())
            .finish()
    }
}

/// What the handles and the tasks of a connection share.
pub(crate) struct Link {
    pub(crate) quic: quinn::Connection,
    pub(crate) counters: Counters,
    peer: PeerKey,
    established: Instant,
    closing: OnceLock<(CloseCode, String)>,
    endpoint_close: EndpointClose,
}

impl Link {
    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        let reason = truncated(reason.as_bytes());
        // QUIC honours the first close only, so the first is the one to remember.
        self.closing.get_or_init(|| (code, String::from_utf8_lossy(reason).into_owned()));
        self.quic.close(code.to_varint(), reason);
    }

    /// Ends the connection because of what the peer did.
    pub(crate) fn blame_peer(&self, code: CloseCode, violation: &str) {
        tracing::warn!(peer = %self.peer, %code, violation, "closing a connection for a violation");
        self.close(code, violation);
    }

    pub(crate) fn close_reason(&self) -> Option<CloseReason> {
        self.quic.close_reason().map(|error| self.reason_of(&error))
    }

    pub(crate) async fn closed(&self) -> CloseReason {
        self.reason_of(&self.quic.closed().await)
    }

    fn reason_of(&self, error: &quinn::ConnectionError) -> CloseReason {
        let unexplained = || (CloseCode::NORMAL, String::new());
        CloseReason::of(error, || {
            self.closing.get().or_else(|| self.endpoint_close.get()).cloned().unwrap_or_else(unexplained)
        })
    }
}

/// Held by both halves: a connection that nobody sends on or receives from is closed.
pub(crate) struct Lifeline(Arc<Link>);

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.0.close(CloseCode::NORMAL, "");
    }
}
