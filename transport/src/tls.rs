//! Mutual authentication: TLS 1.3 with raw Ed25519 public keys (RFC 8446, RFC 7250) and nothing else.
//!
//! *Invariants.* Handshake signatures are verified by the provider, with the very key that was presented.
//! Neither side keeps or issues anything a session could be resumed from, so every connection asks [`Trust`]
//! anew. There is no certificate, no authority and no name.

use std::fmt;
use std::sync::{Arc, OnceLock};

use ed25519_dalek::Signer as _;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    ServerConfig, SignatureAlgorithm, SignatureScheme,
};

use crate::identity::{Identity, PeerKey, Trust};

/// The protocol and its version, which both sides must offer.
const ALPN: &[u8] = b"comity/1";

/// The name rustls asks a client for. It is neither sent nor verified.
pub(crate) const SERVER_NAME: &str = "replica.invalid";

/// An Ed25519 SubjectPublicKeyInfo (RFC 8410 §4) up to the 32 bytes of the key.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What a verifier found out about the peer of one handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// What was presented is not a sound Ed25519 key.
    NoKey,
    /// The peer presented this key instead of the pinned one.
    OtherKey(PeerKey),
    /// The peer presented this key but signed with another.
    Unproven(PeerKey),
    /// The peer proved this key, which is not trusted.
    Untrusted(PeerKey),
}

/// Where a verifier leaves the reason for its refusal, since TLS errors cannot carry it.
pub(crate) type FindingSlot = Arc<OnceLock<Finding>>;

/// Everything needed to configure handshakes of one identity.
#[derive(Clone)]
pub(crate) struct Credentials {
    provider: Arc<CryptoProvider>,
    certified: Arc<CertifiedKey>,
}

impl Credentials {
    pub(crate) fn new(identity: &Identity) -> Credentials {
        Self::presenting(&identity.public(), identity)
    }

    /// Presents `public`, signs with `signer`. They differ only for the impostors of the tests.
    pub(crate) fn presenting(public: &PeerKey, signer: &Identity) -> Credentials {
        let spki = CertificateDer::from(spki_of(public).to_vec());
        let key = Arc::new(HandshakeKey(signer.clone()));
        Credentials {
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            certified: Arc::new(CertifiedKey::new(vec![spki], key)),
        }
    }

    /// The configuration of one dial to the holder of `expected`.
    pub(crate) fn client(&self, expected: PeerKey, slot: FindingSlot) -> QuicClientConfig {
        let keys = Keys::new(&self.provider, slot);
        QuicClientConfig::try_from(self.client_tls(Arc::new(PinnedServer { expected, keys })))
            .expect("the provider has the cipher suite of QUIC's initial packets")
    }

    fn client_tls(&self, verifier: Arc<dyn ServerCertVerifier>) -> ClientConfig {
        let mut tls = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3 cipher suites")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(
                &self.certified,
            ))));
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.resumption = Resumption::disabled();
        tls.enable_early_data = false;
        tls.enable_sni = false;
        tls
    }

    /// The configuration of one incoming handshake.
    pub(crate) fn server(&self, trust: Arc<dyn Trust>, slot: FindingSlot) -> QuicServerConfig {
        let keys = Keys::new(&self.provider, slot);
        QuicServerConfig::try_from(self.server_tls(Arc::new(TrustedClient { trust, keys })))
            .expect("the provider has the cipher suite of QUIC's initial packets")
    }

    fn server_tls(&self, verifier: Arc<dyn ClientCertVerifier>) -> ServerConfig {
        let mut tls = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3 cipher suites")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(
                &self.certified,
            ))));
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.send_tls13_tickets = 0;
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.max_early_data_size = 0;
        tls
    }
}

/// The key of a raw public key "certificate", if it is a sound Ed25519 key in DER.
pub(crate) fn key_of(spki: &[u8]) -> Option<PeerKey> {
    let key = PeerKey(spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?);
    key.is_sound().then_some(key)
}

fn spki_of(key: &PeerKey) -> [u8; 44] {
    let mut spki = [0; 44];
    spki[..12].copy_from_slice(&SPKI_PREFIX);
    spki[12..].copy_from_slice(&key.0);
    spki
}

/// The client's side: the server must hold exactly the pinned key.
#[derive(Debug)]
struct PinnedServer {
    expected: PeerKey,
    keys: Keys,
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let presented = self.keys.presented(end_entity, intermediates)?;
        if presented != self.expected {
            return Err(self.keys.refuse(Finding::OtherKey(presented)));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12_refused())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.keys.verify_signature(message, cert, dss).map(|(_, valid)| valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The server's side: the client must prove a key that [`Trust`] accepts.
#[derive(Debug)]
struct TrustedClient {
    trust: Arc<dyn Trust>,
    keys: Keys,
}

impl ClientCertVerifier for TrustedClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    /// Trust is asked only once the signature is verified: else anyone could find out which keys are trusted,
    /// and a refusal would blame a key whose holder never dialed.
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.keys.presented(end_entity, intermediates).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12_refused())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let (proved, valid) = self.keys.verify_signature(message, cert, dss)?;
        if !self.trust.accepts(&proved) {
            return Err(self.keys.refuse(Finding::Untrusted(proved)));
        }
        Ok(valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// What both verifiers share.
#[derive(Debug)]
struct Keys {
    algorithms: rustls::crypto::WebPkiSupportedAlgorithms,
    slot: FindingSlot,
}

impl Keys {
    fn new(provider: &CryptoProvider, slot: FindingSlot) -> Keys {
        Keys { algorithms: provider.signature_verification_algorithms, slot }
    }

    /// The one key a peer presents.
    fn presented(&self, spki: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<PeerKey, Error> {
        match key_of(spki) {
            Some(key) if others.is_empty() => Ok(key),
            _ => Err(self.refuse(Finding::NoKey)),
        }
    }

    fn verify_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<(PeerKey, HandshakeSignatureValid), Error> {
        let claimed = self.presented(spki, &[])?;
        if dss.scheme != SignatureScheme::ED25519 {
            return Err(self.refuse(Finding::Unproven(claimed)));
        }
        let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
        match verify_tls13_signature_with_raw_key(message, &spki, dss, &self.algorithms) {
            Ok(valid) => Ok((claimed, valid)),
            Err(error) => {
                self.refuse(Finding::Unproven(claimed));
                Err(error)
            }
        }
    }

    /// Notes why; the error becomes the alert `access_denied`.
    fn refuse(&self, finding: Finding) -> Error {
        self.slot.get_or_init(|| finding);
        Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
    }
}

fn tls12_refused() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}

/// Signs handshakes with a replica's key.
#[derive(Debug)]
struct HandshakeKey(Identity);

impl SigningKey for HandshakeKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let offered = offered.contains(&SignatureScheme::ED25519);
        offered.then(|| -> Box<dyn Signer> { Box::new(HandshakeKey(self.0.clone())) })
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(spki_of(&self.0.public()).to_vec()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for HandshakeKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.signing().sign(message).to_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

impl fmt::Debug for dyn Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}

#[cfg(test)]
mod tests;
