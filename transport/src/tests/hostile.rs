//! Dialers that do not mean to finish their handshake, or do not even speak the protocol.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::UdpSocket;

use super::support::*;
use crate::tls::{Credentials, SERVER_NAME};
use crate::*;

/// The first packets of `count` dials, which nobody answered.
async fn first_packets(count: usize) -> Vec<Vec<u8>> {
    let silent = UdpSocket::bind(LOOPBACK).await.expect("loopback is there");
    let addr = silent.local_addr().expect("bound");
    let raw = raw_endpoint();
    let mut dials = Vec::new();
    let mut seen = HashSet::new();
    let mut packets = Vec::new();
    while packets.len() < count {
        if dials.len() == packets.len() {
            let config = raw_config(&Credentials::new(&identity(9)), 2);
            dials.push(raw.connect_with(config, addr, SERVER_NAME).expect("valid"));
        }
        let mut packet = vec![0; 2000];
        let len = soon(silent.recv(&mut packet)).await.expect("the dial's first packet");
        packet.truncate(len);
        // What a dial sends again has the connection id of its first packet (RFC 9000 §17.2).
        let id = packet[6..][..usize::from(packet[5])].to_vec();
        if seen.insert(id) {
            packets.push(packet);
        }
    }
    packets
}

/// Whether a packet is a Retry (RFC 9000 §17.2.5).
fn is_retry(packet: &[u8]) -> bool {
    packet[0] & 0xf0 == 0xf0
}

fn patient_config() -> TransportConfig {
    TransportConfig {
        handshake_timeout: Duration::from_secs(3600),
        idle_timeout: Duration::from_secs(3600),
        ..TransportConfig::default()
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn handshakes_that_never_end_do_not_keep_an_honest_one_out() {
    let listener = endpoint_with(2, Arc::new(Everyone), patient_config());
    let attackers = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0));
    let attacker = UdpSocket::bind(attackers).await.expect("all of 127/8 is loopback on Linux");
    for packet in first_packets(200).await {
        attacker.send_to(&packet, listener.local_addr()).await.expect("loopback");
        // An answer, be it the server's flight or a retry, shows that the packet was dealt with.
        soon(attacker.recv(&mut [0; 2000])).await.expect("an answer");
    }
    // The last ones were told to prove their address, which costs the listener nothing.
    let mut answer = [0; 2000];
    attacker.send_to(&first_packets(1).await[0], listener.local_addr()).await.expect("loopback");
    while !is_retry(&answer) {
        soon(attacker.recv(&mut answer)).await.expect("an answer");
    }
    let honest = endpoint(1);
    let (_, accepted) = pair(&honest, &listener, 2).await;
    assert_eq!(accepted.peer(), identity(1).public());
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_given_up() {
    let config =
        TransportConfig { handshake_timeout: Duration::from_millis(50), ..TransportConfig::default() };
    let listener = endpoint_with(2, Arc::new(Everyone), config);
    let attacker = UdpSocket::bind(LOOPBACK).await.expect("loopback is there");
    let packet = first_packets(1).await.remove(0);
    attacker.send_to(&packet, listener.local_addr()).await.expect("loopback");
    let outcome = soon(listener.accept()).await.expect("open");
    let addr = attacker.local_addr().expect("bound");
    assert_eq!(outcome.err(), Some(HandshakeError::TimedOut { addr }));
}

#[tokio::test]
async fn garbage_datagrams_change_nothing() {
    let (dialer, listener) = (endpoint(1), endpoint(2));
    let (at_dialer, at_listener) = pair(&dialer, &listener, 2).await;
    let noise = UdpSocket::bind(LOOPBACK).await.expect("loopback is there");
    let mut packet = first_packets(1).await.remove(0);
    for n in 0..500 {
        packet[n] ^= 0xA5;
        noise.send_to(&packet[..packet.len() - n], listener.local_addr()).await.expect("loopback");
        noise.send_to(&vec![n as u8; n + 1], listener.local_addr()).await.expect("loopback");
    }
    let (mut sender, _receiver) = at_dialer.split();
    let (_sender, mut receiver) = at_listener.split();
    sender.try_send(Class::Live, bytes("still here")).expect("room");
    assert_eq!(soon(receiver.recv()).await, Ok((Class::Live, bytes("still here"))));
    soon(dialer.connect(listener.local_addr(), identity(2).public())).await.expect("still accepting");
}

/// A client that neither checks the server nor has a key of its own.
#[derive(Debug)]
struct Careless;

impl ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

async fn careless_dial(listener: &Endpoint, alpn: &[&[u8]]) -> HandshakeError {
    let mut tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Careless))
        .with_no_client_auth();
    tls.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("TLS 1.3")));
    let raw = raw_endpoint();
    let _dial = raw.connect_with(config, listener.local_addr(), SERVER_NAME).expect("valid");
    let dialing = async {
        drop(_dial.await);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = dialing => unreachable!("pending"),
        outcome = soon(listener.accept()) => outcome.expect("open").expect_err("refused"),
    }
}

#[tokio::test]
async fn a_client_without_a_key_or_with_another_protocol_is_refused() {
    let listener = endpoint(2);
    for alpn in [&[b"comity/1".as_slice()][..], &[b"comity/2".as_slice()][..], &[]] {
        let error = careless_dial(&listener, alpn).await;
        assert!(matches!(error, HandshakeError::Protocol { .. }), "{alpn:?}: {error:?}");
    }
}
