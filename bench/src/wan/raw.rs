//! Plain QUIC over a path: one stream, no frames, no storage. What is left of it with Comity on top is the measure.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use comity_path::{Conditions, Path};
use quinn::congestion::{BbrConfig, CubicConfig};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::udp::UdpSocketState;
use quinn::{ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, SignatureScheme};

use crate::Failure;

/// What is written at once.
const WRITE_BYTES: usize = 64 * 1024;
/// A private key of Ed25519 up to its 32 bytes (RFC 8410 §7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// How a connection is set up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) is_bbr: bool,
    /// For one stream, and for all of them; quinn's own where none are given.
    pub(super) windows: Option<(usize, usize)>,
}

impl Setup {
    fn quic(self) -> TransportConfig {
        let mut quic = TransportConfig::default();
        match self.is_bbr {
            true => quic.congestion_controller_factory(Arc::new(BbrConfig::default())),
            false => quic.congestion_controller_factory(Arc::new(CubicConfig::default())),
        };
        if let Some((stream, all)) = self.windows {
            quic.stream_receive_window(VarInt::from_u32(stream as u32))
                .receive_window(VarInt::from_u32(all as u32))
                .send_window(all as u64);
        }
        quic
    }
}

/// What a transfer came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) bytes: u64,
    pub(super) took: Duration,
}

/// Sends `bytes` one way, or as many as arrive within `at_most`, counted from the first byte written.
pub(super) async fn transfer(
    conditions: Conditions,
    setup: Setup,
    (bytes, at_most): (u64, Duration),
) -> Result<Transfer, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = server(&provider, setup)?;
    let path = Path::to(server.local_addr()?, conditions, 1)?;
    let arrived = Arc::new(AtomicU64::new(0));
    let (counter, acceptor) = (Arc::clone(&arrived), server.clone());
    let receiving = tokio::spawn(async move {
        let connection = acceptor.accept().await?.await.ok()?;
        let mut stream = connection.accept_uni().await.ok()?;
        while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX, true).await {
            counter.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
        }
        Some(())
    });
    let client = client(&provider, setup)?;
    let connection = client.connect(path.near(), "any.invalid")?.await?;
    let mut stream = connection.open_uni().await?;
    let started = Instant::now();
    let sending = async {
        let block = Bytes::from(vec![0x5a; WRITE_BYTES]);
        for _ in 0..bytes.div_ceil(WRITE_BYTES as u64) {
            stream.write_chunk(block.clone()).await?;
        }
        stream.finish()?;
        receiving.await?.ok_or("nothing was accepted")?;
        Ok::<_, Failure>(())
    };
    if let Ok(sent) = tokio::time::timeout(at_most, sending).await {
        sent?;
    }
    let transfer = Transfer { bytes: arrived.load(Ordering::Relaxed), took: started.elapsed() };
    client.close(VarInt::from_u32(0), b"");
    server.close(VarInt::from_u32(0), b"");
    Ok(transfer)
}

fn server(provider: &Arc<CryptoProvider>, setup: Setup) -> Result<Endpoint, Failure> {
    let pkcs8 = [PKCS8_PREFIX.as_slice(), &[7; 32]].concat();
    let key = provider.key_provider.load_private_key(PrivatePkcs8KeyDer::from(pkcs8).into())?;
    let public = key.public_key().ok_or("the key has no public half")?;
    let certified = CertifiedKey::new(vec![CertificateDer::from(public.to_vec())], key);
    let tls = rustls::ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified))));
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(setup.quic()));
    endpoint(Some(config))
}

fn client(provider: &Arc<CryptoProvider>, setup: Setup) -> Result<Endpoint, Failure> {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyKey(Arc::clone(provider))))
        .with_no_client_auth();
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(setup.quic()));
    let mut endpoint = endpoint(None)?;
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}

/// One with the buffers in the kernel that replicas have.
fn endpoint(server: Option<ServerConfig>) -> Result<Endpoint, Failure> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (state, bytes) =
        (UdpSocketState::new((&socket).into())?, comity::TransportConfig::default().socket_bytes);
    state.set_recv_buffer_size((&socket).into(), bytes)?;
    state.set_send_buffer_size((&socket).into(), bytes)?;
    Ok(Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime))?)
}

/// Takes any server for the right one: what it costs to send bytes is measured, not to whom.
#[derive(Debug)]
struct AnyKey(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(
            message,
            &key,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
