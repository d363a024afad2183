//! Endpoints and peers for the tests.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::tls::{Credentials, FindingSlot, SERVER_NAME};
use crate::*;

/// Longer than any step of any test takes; a guard against hanging, never a means of ordering.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The key pair of replica `number`.
pub(super) fn identity(number: u8) -> Identity {
    Identity::from_secret(&[number; 32])
}

pub(super) struct Everyone;

impl Trust for Everyone {
    fn accepts(&self, _peer: &PeerKey) -> bool {
        true
    }
}

/// Trusts these keys.
pub(super) struct Only(pub(super) Vec<PeerKey>);

impl Trust for Only {
    fn accepts(&self, peer: &PeerKey) -> bool {
        self.0.contains(peer)
    }
}

pub(super) fn endpoint(number: u8) -> Endpoint {
    endpoint_with(number, Arc::new(Everyone), TransportConfig::default())
}

pub(super) fn endpoint_with(number: u8, trust: Arc<dyn Trust>, config: TransportConfig) -> Endpoint {
    Endpoint::bind(LOOPBACK, &identity(number), trust, config).expect("loopback is there")
}

/// Waits, but not for ever.
pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("in time")
}

/// A connection between `dialer` and `listener`, as both see it.
pub(super) async fn pair(
    dialer: &Endpoint,
    listener: &Endpoint,
    listener_key: u8,
) -> (Connection, Connection) {
    let dial = dialer.connect(listener.local_addr(), identity(listener_key).public());
    let (dialed, accepted) = soon(async { tokio::join!(dial, listener.accept()) }).await;
    (dialed.expect("accepted"), accepted.expect("open").expect("trusted"))
}

pub(super) fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// Lets the other tasks work until `holds`.
pub(super) async fn until(holds: impl Fn() -> bool) {
    soon(async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A bare QUIC endpoint with the transport's handshake and none of its behaviour.
pub(super) fn raw_endpoint() -> quinn::Endpoint {
    quinn::Endpoint::client(LOOPBACK).expect("loopback is there")
}

/// The QUIC configuration with which `dialer` dials replica `listener_key`.
pub(super) fn raw_config(dialer: &Credentials, listener_key: u8) -> quinn::ClientConfig {
    let crypto = dialer.client(identity(listener_key).public(), FindingSlot::default());
    quinn::ClientConfig::new(Arc::new(crypto))
}

/// A peer that speaks QUIC as it pleases, and the connection as the endpoint sees it.
pub(super) async fn raw_peer(
    raw: &quinn::Endpoint,
    listener: &Endpoint,
    key: u8,
) -> (quinn::Connection, Connection) {
    raw_peer_with(raw, listener, raw_config(&Credentials::new(&identity(99)), key)).await
}

pub(super) async fn raw_peer_with(
    raw: &quinn::Endpoint,
    listener: &Endpoint,
    config: quinn::ClientConfig,
) -> (quinn::Connection, Connection) {
    let connecting = raw.connect_with(config, listener.local_addr(), SERVER_NAME).expect("valid");
    let (dialed, accepted) = soon(async { tokio::join!(connecting, listener.accept()) }).await;
    (dialed.expect("accepted"), accepted.expect("open").expect("trusted"))
}
