//! A bare QUIC stream on the loopback: what the network takes of what Comity does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{DigitallySignedStruct, SignatureScheme};

use crate::Failure;
use crate::figures::Times;

/// Two QUIC endpoints on the loopback that trust each other, and what is sent between them.
pub(crate) struct Quic {
    client: quinn::Connection,
    server: quinn::Connection,
    // Connections end with their endpoints.
    _endpoints: [quinn::Endpoint; 2],
}

impl Quic {
    pub(crate) async fn connect() -> Result<Self, Failure> {
        let any: SocketAddr = "127.0.0.1:0".parse()?;
        let listening = quinn::Endpoint::server(server()?, any)?;
        let mut dialing = quinn::Endpoint::client(any)?;
        dialing.set_default_client_config(client()?);
        let connecting = dialing.connect(listening.local_addr()?, "localhost")?;
        let accepting = async { Ok::<_, Failure>(listening.accept().await.ok_or("nobody came")?.await?) };
        let (client, server) = tokio::join!(connecting, accepting);
        Ok(Self { client: client?, server: server?, _endpoints: [listening, dialing] })
    }

    /// How long so many bytes take on one stream, until the last was read.
    pub(crate) async fn transfer(&self, bytes: u64) -> Result<Duration, Failure> {
        const CHUNK: usize = 64 * 1024;
        let begun = Instant::now();
        let sending = async {
            let mut stream = self.client.open_uni().await?;
            let (chunk, mut left) = ([0xa5; CHUNK], bytes);
            while left > 0 {
                let now = left.min(CHUNK as u64) as usize;
                stream.write_all(&chunk[..now]).await?;
                left -= now as u64;
            }
            stream.finish()?;
            Ok::<_, Failure>(())
        };
        let receiving = async {
            let mut stream = self.server.accept_uni().await?;
            let mut received = 0;
            while let Some(chunk) = stream.read_chunk(usize::MAX, true).await? {
                received += chunk.bytes.len() as u64;
            }
            Ok::<_, Failure>(received)
        };
        let (sent, received) = tokio::join!(sending, receiving);
        sent?;
        if received? == bytes { Ok(begun.elapsed()) } else { Err("the stream lost bytes".into()) }
    }

    /// How long a message of 300 bytes and its echo take, one after the other on one stream.
    pub(crate) async fn pings(&self, count: usize) -> Result<Times, Failure> {
        let server = self.server.clone();
        let echoing = tokio::spawn(async move {
            let (mut send, mut receive) = server.accept_bi().await.map_err(|error| error.to_string())?;
            let mut message = [0; 300];
            while receive.read_exact(&mut message).await.is_ok() {
                send.write_all(&message).await.map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(())
        });
        let (mut send, mut receive) = self.client.open_bi().await?;
        let (mut message, mut times) = ([0xa5; 300], Times::default());
        for _ in 0..count {
            let before = Instant::now();
            send.write_all(&message).await?;
            receive.read_exact(&mut message).await?;
            times.push(before.elapsed());
        }
        send.finish()?;
        echoing.await??;
        Ok(times)
    }
}

/// A server with a raw public key, as replicas have. Nobody's secret.
pub(crate) fn server() -> Result<quinn::ServerConfig, Failure> {
    let provider = Arc::new(ring::default_provider());
    let pkcs8 = [PKCS8_PREFIX.as_slice(), &[7; 32]].concat();
    let key = provider.key_provider.load_private_key(PrivatePkcs8KeyDer::from(pkcs8).into())?;
    let public = key.public_key().ok_or("the key has no public half")?;
    let certified = CertifiedKey::new(vec![CertificateDer::from(public.to_vec())], key);
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified))));
    Ok(quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?)))
}

/// A client of any such server.
pub(crate) fn client() -> Result<quinn::ClientConfig, Failure> {
    let provider = Arc::new(ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyKey(provider)))
        .with_no_client_auth();
    Ok(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)))
}

/// A private key of Ed25519 up to its 32 bytes (RFC 8410 §7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

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
