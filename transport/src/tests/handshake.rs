//! Who gets in, who does not, and what each side is told.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::support::*;
use crate::tls::Credentials;
use crate::*;

#[tokio::test]
async fn an_unknown_client_is_refused_on_both_sides_and_accepting_goes_on() {
    let trust = Arc::new(Only(vec![identity(1).public()]));
    let listener = endpoint_with(2, trust, TransportConfig::default());
    let (stranger, friend) = (endpoint(3), endpoint(1));

    let dial = stranger.connect(listener.local_addr(), identity(2).public());
    let (dialed, accepted) = soon(async { tokio::join!(dial, listener.accept()) }).await;
    assert_eq!(dialed.err(), Some(ConnectError::UnknownPeer));
    let refused = HandshakeError::UnknownPeer { peer: identity(3).public(), addr: stranger.local_addr() };
    assert_eq!(accepted.expect("open").err(), Some(refused));

    let (_, accepted) = pair(&friend, &listener, 2).await;
    assert_eq!(accepted.peer(), identity(1).public());
}

#[tokio::test]
async fn an_unconfirmed_dial_learns_of_the_refusal_from_its_connection() {
    let listener = endpoint_with(2, Arc::new(Only(vec![])), TransportConfig::default());
    let stranger = endpoint(3);
    let dial = stranger.connect_unconfirmed(listener.local_addr(), identity(2).public());
    let (mut sender, mut receiver) = soon(dial).await.expect("the listener holds the key").split();
    // Whether the refusal is here already is a matter of luck.
    let sent = sender.try_send(Class::Control, bytes("hello"));
    assert!(matches!(sent, Ok(()) | Err(SendError::Closed)), "{sent:?}");
    let error = soon(receiver.recv()).await.expect_err("refused");
    let RecvError::Closed(CloseReason::Peer { code, .. }) = error else { panic!("{error:?}") };
    assert_eq!(code, CloseCode::UNKNOWN_PEER);
    let refusal = soon(listener.accept()).await.expect("open");
    assert!(matches!(refusal, Err(HandshakeError::UnknownPeer { .. })), "{refusal:?}");
}

#[tokio::test]
async fn frames_of_an_unconfirmed_dial_arrive() {
    let (a, b) = (endpoint(1), endpoint(2));
    let dial = a.connect_unconfirmed(b.local_addr(), identity(2).public());
    let (mut sender, _receiver) = soon(dial).await.expect("trusted").split();
    sender.try_send(Class::Control, bytes("hello")).expect("room");
    let (_sender, mut receiver) = soon(b.accept()).await.expect("open").expect("trusted").split();
    assert_eq!(soon(receiver.recv()).await, Ok((Class::Control, bytes("hello"))));
}

#[tokio::test]
async fn a_server_with_another_key_is_not_connected_to() {
    let (a, b) = (endpoint(1), endpoint(2));
    let expected = identity(7).public();
    let dial = a.connect(b.local_addr(), expected);
    let (dialed, accepted) = soon(async { tokio::join!(dial, b.accept()) }).await;
    let presented = Some(identity(2).public());
    assert_eq!(dialed.err(), Some(ConnectError::WrongKey { expected, presented }));
    assert!(matches!(accepted, Some(Err(HandshakeError::Protocol { .. }))), "{accepted:?}");
}

#[tokio::test]
async fn a_server_that_cannot_sign_for_the_key_it_presents_is_not_connected_to() {
    let impostor = Credentials::presenting(&identity(2).public(), &identity(6));
    let listener = Endpoint::bind_with(LOOPBACK, impostor, Arc::new(Everyone), TransportConfig::default())
        .expect("free");
    let dialer = endpoint(1);
    let expected = identity(2).public();
    let dialed = soon(dialer.connect(listener.local_addr(), expected)).await;
    assert_eq!(dialed.err(), Some(ConnectError::WrongKey { expected, presented: None }));
}

/// Trusts everyone, and remembers having been asked.
#[derive(Default)]
struct Curious(AtomicBool);

impl Trust for Curious {
    fn accepts(&self, _peer: &PeerKey) -> bool {
        self.0.store(true, Ordering::Relaxed);
        true
    }
}

#[tokio::test]
async fn a_client_that_cannot_sign_for_the_key_it_presents_is_refused_before_trust_is_asked() {
    let trust = Arc::new(Curious::default());
    let listener = endpoint_with(2, Arc::clone(&trust) as Arc<dyn Trust>, TransportConfig::default());
    let impostor = Credentials::presenting(&identity(1).public(), &identity(6));
    let dialer = Endpoint::bind_with(LOOPBACK, impostor, Arc::new(Everyone), TransportConfig::default())
        .expect("free");
    let dial = dialer.connect(listener.local_addr(), identity(2).public());
    let (dialed, accepted) = soon(async { tokio::join!(dial, listener.accept()) }).await;
    assert!(matches!(dialed, Err(ConnectError::Protocol { .. })), "{dialed:?}");
    let refused = HandshakeError::Unproven { claimed: identity(1).public(), addr: dialer.local_addr() };
    assert_eq!(accepted.expect("open").err(), Some(refused));
    assert!(!trust.0.load(Ordering::Relaxed));
}

/// Trusts the first `n` handshakes.
struct Until(AtomicUsize);

impl Trust for Until {
    fn accepts(&self, _peer: &PeerKey) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

#[tokio::test]
async fn a_revoked_peer_cannot_come_back_on_the_strength_of_its_last_session() {
    let trust = Arc::new(Until(AtomicUsize::new(2)));
    let (dialer, listener) = (endpoint(1), endpoint_with(2, trust, TransportConfig::default()));
    for _ in 0..2 {
        let (dialed, _accepted) = pair(&dialer, &listener, 2).await;
        dialed.close(CloseCode::NORMAL, "again");
    }
    let dial = dialer.connect(listener.local_addr(), identity(2).public());
    assert_eq!(soon(dial).await.err(), Some(ConnectError::UnknownPeer));
}

#[tokio::test]
async fn nobody_at_the_address_is_unreachable() {
    let config =
        TransportConfig { handshake_timeout: Duration::from_millis(100), ..TransportConfig::default() };
    let dialer = endpoint_with(1, Arc::new(Everyone), config);
    let silent = UdpSocket::bind(LOOPBACK).expect("loopback is there");
    let addr = silent.local_addr().expect("bound");
    let dialed = soon(dialer.connect(addr, identity(2).public())).await;
    assert_eq!(dialed.err(), Some(ConnectError::Unreachable));
}

#[tokio::test]
async fn an_address_of_the_other_family_is_a_bad_address() {
    let dialer = endpoint(1);
    let addr = "[::1]:4000".parse().expect("an address");
    let dialed = soon(dialer.connect(addr, identity(2).public())).await;
    assert_eq!(dialed.err(), Some(ConnectError::BadAddress(addr)));
}

#[tokio::test]
async fn a_full_endpoint_is_busy_until_a_connection_ends() {
    let config = TransportConfig { connections_max: 1, ..TransportConfig::default() };
    let (dialer, listener) = (endpoint(1), endpoint_with(2, Arc::new(Everyone), config));
    let (dialed, accepted) = pair(&dialer, &listener, 2).await;
    let second = soon(dialer.connect(listener.local_addr(), identity(2).public())).await;
    assert_eq!(second.err(), Some(ConnectError::Busy));
    dialed.close(CloseCode::NORMAL, "make room");
    soon(accepted.closed()).await;
    soon(listener.wait_idle()).await;
    pair(&dialer, &listener, 2).await;
}

#[test]
fn binding_outside_a_runtime_and_on_a_taken_port_fails_with_a_type() {
    let bind = |addr| Endpoint::bind(addr, &identity(1), Arc::new(Everyone), TransportConfig::default());
    assert!(matches!(bind(LOOPBACK), Err(BindError::NoRuntime)));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _guard = runtime.enter();
    let taken = UdpSocket::bind(LOOPBACK).expect("loopback is there");
    assert!(matches!(bind(taken.local_addr().expect("bound")), Err(BindError::Socket(_))));
}
