//! One UDP socket that dials and accepts.

use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::udp::{UdpSockRef, UdpSocketState};
use quinn::{ConnectionError, EndpointConfig, TokioRuntime, TransportErrorCode, ValidationTokenConfig};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use crate::admission::{AddressProof, Admission, Refusal, Ticket};
use crate::close::{CloseCode, CloseReason, truncated};
use crate::config::TransportConfig;
use crate::connection::{Connection, EndpointClose};
use crate::error::{BindError, ConnectError, HandshakeError};
use crate::identity::{Identity, PeerKey, Trust};
use crate::tls::{self, Credentials, Finding, FindingSlot};

/// Bytes kept for one handshake before it is looked at: a handshake needs a few packets.
const INCOMING_BYTES_EACH: u64 = 32 * 1024;

/// Bytes kept for all handshakes before they are looked at.
const INCOMING_BYTES_TOTAL: u64 = 8 * 1024 * 1024;

/// Dials and accepts connections on one UDP socket. Dropping it closes them all with
/// [`CloseCode::SHUTTING_DOWN`].
pub struct Endpoint {
    shared: Arc<Shared>,
    local_addr: SocketAddr,
    accepted: Mutex<mpsc::Receiver<Accepted>>,
}

/// The outcome of an incoming handshake, which keeps its place until the caller takes it.
type Accepted = (Result<Connection, HandshakeError>, Ticket);

impl Endpoint {
    /// Opens the socket and starts to answer handshakes. Peers dialed are pinned by the dial; peers that dial
    /// are put to `trust`.
    ///
    /// # Errors
    ///
    /// [`BindError`]; needs a tokio runtime with IO and time.
    pub fn bind(
        addr: SocketAddr,
        identity: &Identity,
        trust: Arc<dyn Trust>,
        config: TransportConfig,
    ) -> Result<Endpoint, BindError> {
        Endpoint::bind_with(addr, Credentials::new(identity), trust, config)
    }

    pub(crate) fn bind_with(
        addr: SocketAddr,
        credentials: Credentials,
        trust: Arc<dyn Trust>,
        config: TransportConfig,
    ) -> Result<Endpoint, BindError> {
        config.validate()?;
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(BindError::NoRuntime);
        }
        let quic_transport = Arc::new(config.quic());
        let crypto = credentials.server(Arc::clone(&trust), FindingSlot::default());
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        server
            .transport_config(Arc::clone(&quic_transport))
            .validation_token_config(unused_validation_tokens())
            .max_incoming(config.incoming_max)
            .incoming_buffer_size(INCOMING_BYTES_EACH)
            .incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
        let socket = UdpSocket::bind(addr)?;
        enlarge_buffers(&socket, config.socket_bytes)?;
        let local_addr = socket.local_addr()?;
        let endpoint = EndpointConfig::default();
        let quic = quinn::Endpoint::new(endpoint, Some(server.clone()), socket, Arc::new(TokioRuntime))?;
        let (accepted_sender, accepted) = mpsc::channel(config.incoming_max);
        let shared = Arc::new(Shared {
            quic,
            server,
            quic_transport,
            credentials,
            trust,
            config,
            closing: Arc::default(),
        });
        tokio::spawn(Arc::clone(&shared).listen(accepted_sender));
        Ok(Endpoint { shared, local_addr, accepted: Mutex::new(accepted) })
    }

    /// The address of the socket, with the port that was chosen when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The next incoming connection, or the next handshake that failed; `None` once the endpoint is closed.
    /// Handshakes run on their own and concurrently: none waits for another, and while `incoming_max` outcomes
    /// wait for this call, further dials are refused. Cancel safe.
    pub async fn accept(&self) -> Option<Result<Connection, HandshakeError>> {
        let (outcome, _ticket) = self.accepted.lock().await.recv().await?;
        Some(outcome)
    }

    /// Dials `addr` and returns once both sides have accepted each other: the peer holds `expected`, and trusts
    /// this side's key. Takes two round trips. Cancelling it abandons the dial.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; the endpoint remains usable.
    pub async fn connect(&self, addr: SocketAddr, expected: PeerKey) -> Result<Connection, ConnectError> {
        let confirmed = async {
            let mut connection = self.shared.dial(addr, expected).await?;
            connection.confirmed().await?;
            Ok(connection)
        };
        timeout(self.shared.config.handshake_timeout, confirmed)
            .await
            .unwrap_or(Err(ConnectError::Unreachable))
    }

    /// Like [`connect`](Self::connect), but returns one round trip earlier: the peer has proved `expected`, and
    /// frames sent at once leave with the last flight of the handshake. Should the peer not trust this side's
    /// key, the connection closes with [`CloseCode::UNKNOWN_PEER`] and it has read none of them.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], never [`ConnectError::UnknownPeer`].
    pub async fn connect_unconfirmed(
        &self,
        addr: SocketAddr,
        expected: PeerKey,
    ) -> Result<Connection, ConnectError> {
        let dial = self.shared.dial(addr, expected);
        timeout(self.shared.config.handshake_timeout, dial).await.unwrap_or(Err(ConnectError::Unreachable))
    }

    /// Closes every connection and dial at once and accepts no more. The first call decides code and reason.
    pub fn close(&self, code: CloseCode, reason: &str) {
        let reason = truncated(reason.as_bytes());
        let text = String::from_utf8_lossy(reason).into_owned();
        if self.shared.closing.set((code, text)).is_ok() {
            self.shared.quic.close(code.to_varint(), reason);
        }
    }

    /// After [`close`](Self::close): waits until the peers were told, or had the time to be. Cancel safe.
    pub async fn wait_idle(&self) {
        self.shared.quic.wait_idle().await;
    }

    /// After [`close`](Self::close): gives up the port, so that it can be listened on again at once, here or in another
    /// process. What is still on its way to peers goes out from another port, where they may not take it for ours.
    /// Returns once the port is free, or after a second.
    pub async fn release_port(&self) {
        // QUIC keeps the socket before, until something arrives on the new one: so it is changed twice.
        for _ in 0..2 {
            let moved = UdpSocket::bind(SocketAddr::new(self.local_addr.ip(), 0));
            if let Err(error) = moved.and_then(|socket| self.shared.quic.rebind(socket)) {
                tracing::debug!(%error, "the port of a closed endpoint is free once its connections have drained");
                return;
            }
        }
        // Each connection lets go of the socket when it is next looked at.
        for _ in 0..RELEASE_CHECKS_MAX {
            if UdpSocket::bind(self.local_addr).is_ok() {
                return;
            }
            tokio::time::sleep(RELEASE_CHECK_INTERVAL).await;
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.close(CloseCode::SHUTTING_DOWN, "endpoint dropped");
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

/// How often it is looked whether a port is free, and how long apart.
const RELEASE_CHECKS_MAX: u32 = 100;
const RELEASE_CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// What the caller's side and the listening task have in common.
struct Shared {
    quic: quinn::Endpoint,
    server: quinn::ServerConfig,
    quic_transport: Arc<quinn::TransportConfig>,
    credentials: Credentials,
    trust: Arc<dyn Trust>,
    config: TransportConfig,
    closing: EndpointClose,
}

impl Shared {
    async fn dial(&self, addr: SocketAddr, expected: PeerKey) -> Result<Connection, ConnectError> {
        let slot = FindingSlot::default();
        let crypto = self.credentials.client(expected, Arc::clone(&slot));
        let mut client = quinn::ClientConfig::new(Arc::new(crypto));
        client.transport_config(Arc::clone(&self.quic_transport));
        let connecting =
            self.quic.connect_with(client, addr, tls::SERVER_NAME).map_err(|error| match error {
                quinn::ConnectError::EndpointStopping => ConnectError::LocalClosed,
                quinn::ConnectError::InvalidRemoteAddress(addr) => ConnectError::BadAddress(addr),
                other => ConnectError::Protocol { detail: other.to_string() },
            })?;
        let quic = connecting.await.map_err(|error| dial_error(&error, expected, slot.get()))?;
        Ok(self.start(quic))
    }

    /// Answers handshakes until the endpoint is closed.
    async fn listen(self: Arc<Self>, accepted: mpsc::Sender<Accepted>) {
        let admission = Admission::new(self.config.incoming_max);
        while let Some(incoming) = self.quic.accept().await {
            if self.quic.open_connections() >= self.config.connections_max {
                incoming.refuse();
                continue;
            }
            let proof = match incoming.remote_address_validated() {
                true => AddressProof::RetryToken,
                false => AddressProof::None,
            };
            match admission.admit(incoming.remote_address().ip(), proof) {
                Ok(ticket) => {
                    tokio::spawn(Arc::clone(&self).shake_hands(incoming, ticket, accepted.clone()));
                }
                // Fails only for an address that is proved already, and dropping the error refuses that.
                Err(Refusal::ProveAddress) => drop(incoming.retry()),
                Err(Refusal::Busy) => incoming.refuse(),
            }
        }
    }

    async fn shake_hands(
        self: Arc<Self>,
        incoming: quinn::Incoming,
        ticket: Ticket,
        accepted: mpsc::Sender<Accepted>,
    ) {
        let addr = incoming.remote_address();
        let slot = FindingSlot::default();
        let mut server = self.server.clone();
        server.crypto = Arc::new(self.credentials.server(Arc::clone(&self.trust), Arc::clone(&slot)));
        let handshake = async { incoming.accept_with(Arc::new(server))?.await };
        let outcome = match timeout(self.config.handshake_timeout, handshake).await {
            Ok(Ok(quic)) => Ok(self.start(quic)),
            // The endpoint is closing, which the caller knows.
            Ok(Err(ConnectionError::LocallyClosed)) => return,
            Ok(Err(error)) => Err(handshake_error(&error, addr, slot.get())),
            Err(_) => Err(HandshakeError::TimedOut { addr }),
        };
        if let Err(error) = &outcome {
            tracing::debug!(%error, "incoming handshake failed");
        }
        // Fails once the endpoint is dropped; the connection goes with it.
        drop(accepted.send((outcome, ticket)).await);
    }

    fn start(&self, quic: quinn::Connection) -> Connection {
        let peer = quic
            .peer_identity()
            .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
            .and_then(|keys| tls::key_of(keys.first()?))
            .expect("no handshake completes before the verifier has seen a sound key");
        Connection::start(quic, peer, Arc::clone(&self.closing), &self.config)
    }
}

/// Asks the kernel to keep so many bytes each way. What it grants is its own affair.
fn enlarge_buffers(socket: &UdpSocket, bytes: usize) -> Result<(), BindError> {
    let state = UdpSocketState::new(UdpSockRef::from(socket))?;
    for enlarged in [
        state.set_recv_buffer_size(UdpSockRef::from(socket), bytes),
        state.set_send_buffer_size(UdpSockRef::from(socket), bytes),
    ] {
        if let Err(error) = enlarged {
            tracing::debug!(%error, "the socket keeps the kernel's usual buffers");
        }
    }
    Ok(())
}

/// quinn hands clients tokens to skip address validation with at their next dial; nothing here keeps them.
fn unused_validation_tokens() -> ValidationTokenConfig {
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(0);
    tokens
}

fn dial_error(error: &ConnectionError, expected: PeerKey, finding: Option<&Finding>) -> ConnectError {
    match (finding, error) {
        (Some(Finding::OtherKey(presented)), _) => {
            ConnectError::WrongKey { expected, presented: Some(*presented) }
        }
        (Some(_), _) => ConnectError::WrongKey { expected, presented: None },
        (None, ConnectionError::ConnectionClosed(close))
            if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
        {
            ConnectError::Busy
        }
        (None, error) => CloseReason::of(error, || (CloseCode::NORMAL, String::new())).into(),
    }
}

impl From<CloseReason> for ConnectError {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Local { .. } => ConnectError::LocalClosed,
            CloseReason::Peer { code: CloseCode::UNKNOWN_PEER, .. } => ConnectError::UnknownPeer,
            CloseReason::Peer { code, reason } => ConnectError::PeerClosed { code, reason },
            CloseReason::TimedOut => ConnectError::Unreachable,
            CloseReason::Reset => ConnectError::Protocol { detail: CloseReason::Reset.to_string() },
            CloseReason::Protocol { detail } => ConnectError::Protocol { detail },
        }
    }
}

fn handshake_error(error: &ConnectionError, addr: SocketAddr, finding: Option<&Finding>) -> HandshakeError {
    match finding {
        Some(Finding::Untrusted(peer)) => HandshakeError::UnknownPeer { peer: *peer, addr },
        Some(Finding::Unproven(claimed)) => HandshakeError::Unproven { claimed: *claimed, addr },
        Some(Finding::NoKey | Finding::OtherKey(_)) | None => {
            HandshakeError::Protocol { addr, detail: error.to_string() }
        }
    }
}
