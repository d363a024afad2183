//! The TLS configurations driven in memory, without QUIC.

use std::io::Cursor;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::{AlertDescription, ClientConnection, HandshakeKind, ServerConnection};

use super::*;

fn identity(number: u8) -> Identity {
    Identity::from_secret(&[number; 32])
}

/// Trusts everyone and counts how often it is asked.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Trust for Counting {
    fn accepts(&self, _peer: &PeerKey) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed);
        true
    }
}

fn configs(trust: Arc<dyn Trust>) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let (dialer, listener) = (Credentials::new(&identity(1)), Credentials::new(&identity(2)));
    let keys = |credentials: &Credentials| Keys::new(&credentials.provider, FindingSlot::default());
    let pinned = PinnedServer { expected: identity(2).public(), keys: keys(&dialer) };
    let trusted = TrustedClient { trust, keys: keys(&listener) };
    (Arc::new(dialer.client_tls(Arc::new(pinned))), Arc::new(listener.server_tls(Arc::new(trusted))))
}

/// Carries bytes between both sides until neither has any.
fn shake_hands(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), Error> {
    loop {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut to_server).expect("memory");
        }
        while server.wants_write() {
            server.write_tls(&mut to_client).expect("memory");
        }
        if to_server.is_empty() && to_client.is_empty() {
            return Ok(());
        }
        server.read_tls(&mut Cursor::new(to_server)).expect("memory");
        server.process_new_packets()?;
        client.read_tls(&mut Cursor::new(to_client)).expect("memory");
        client.process_new_packets()?;
    }
}

#[test]
fn every_handshake_is_full_and_asks_trust_again_even_of_a_client_that_would_resume() {
    let trust = Arc::new(Counting::default());
    let (honest, server_config) = configs(Arc::clone(&trust) as Arc<dyn Trust>);
    assert_eq!(server_config.send_tls13_tickets, 0);
    assert_eq!(server_config.max_early_data_size, 0);
    let mut resuming = (*honest).clone();
    resuming.resumption = Resumption::in_memory_sessions(16);
    resuming.enable_early_data = true;
    let resuming = Arc::new(resuming);
    let dials = [&honest, &honest, &resuming, &resuming, &resuming];
    for (earlier, client_config) in dials.into_iter().enumerate() {
        let name = ServerName::try_from(SERVER_NAME).expect("a name");
        let mut client = ClientConnection::new(Arc::clone(client_config), name).expect("valid");
        let mut server = ServerConnection::new(Arc::clone(&server_config)).expect("valid");
        assert!(client.early_data().is_none());
        shake_hands(&mut client, &mut server).expect("both trust each other");
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(client.tls13_tickets_received(), 0);
        assert_eq!(trust.0.load(Ordering::Relaxed), earlier + 1);
    }
}

#[test]
fn a_tls_1_2_client_hello_is_refused() {
    let (_, server_config) = configs(Arc::new(Counting::default()));
    let mut server = ServerConnection::new(server_config).expect("valid");
    server.read_tls(&mut Cursor::new(tls12_client_hello())).expect("memory");
    let error = server.process_new_packets().expect_err("TLS 1.2 is over");
    assert!(matches!(error, Error::PeerIncompatible(_)), "{error:?}");
    let mut alert = Vec::new();
    server.write_tls(&mut alert).expect("memory");
    assert_eq!(alert.last(), Some(&u8::from(AlertDescription::ProtocolVersion)));
}

/// A well-formed ClientHello that offers nothing newer than TLS 1.2.
fn tls12_client_hello() -> Vec<u8> {
    let extensions: &[u8] = &[
        0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x1d, // supported_groups: x25519
        0x00, 0x0b, 0x00, 0x02, 0x01, 0x00, // ec_point_formats: uncompressed
        0x00, 0x0d, 0x00, 0x04, 0x00, 0x02, 0x08, 0x07, // signature_algorithms: ed25519
        0x00, 0x17, 0x00, 0x00, // extended_master_secret
    ];
    let mut body = vec![0x03, 0x03];
    body.extend([0x5a; 32]);
    body.extend([0x00, 0x00, 0x02, 0xc0, 0x2b, 0x01, 0x00]); // no session, ECDHE_ECDSA_AES_128_GCM, no compression
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut record = vec![0x16, 0x03, 0x01];
    record.extend((body.len() as u16 + 4).to_be_bytes());
    record.extend([0x01, 0x00]);
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

#[test]
fn only_the_canonical_spki_of_a_sound_key_is_a_key() {
    let key = identity(3).public();
    let spki = spki_of(&key);
    assert_eq!(key_of(&spki), Some(key));
    assert_eq!(key_of(&spki[..43]), None);
    assert_eq!(key_of(&[&spki[..], &[0]].concat()), None);
    let mut x25519 = spki;
    x25519[8] = 0x6e;
    assert_eq!(key_of(&x25519), None);
    assert_eq!(key_of(&spki_of(&PeerKey([0; 32]))), None);
}

#[test]
fn surplus_certificates_are_refused() {
    let (credentials, slot) = (Credentials::new(&identity(1)), FindingSlot::default());
    let keys = Keys::new(&credentials.provider, Arc::clone(&slot));
    let spki = CertificateDer::from(spki_of(&identity(3).public()).to_vec());
    assert!(keys.presented(&spki, std::slice::from_ref(&spki)).is_err());
    assert_eq!(slot.get(), Some(&Finding::NoKey));
}
