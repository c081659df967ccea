//! TLS 1.3 in which both sides are known by their keys: no authority, no names, no expiry, no resumption, nothing early.

use super::identity::Identity;
use super::pipe::PACKET;
use super::{CONNECTION_WINDOW, IDLE, LinkError, Measuring, STREAM_WINDOW, STREAMS};
use crate::io::mutex::lock;
use crate::peer::{Id, PublicKey};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::version::TLS13;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often a silent connection says that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(7);
/// Handshakes that wait to be looked at, and bytes that they may bring meanwhile: one, and all.
const INCOMING: usize = 64;
const INCOMING_BYTES: u64 = 16 << 10;
const INCOMING_BYTES_TOTAL: u64 = 512 << 10;
/// Streams of one way that the other side may have open: the greeting.
const ONE_WAY_STREAMS: u32 = 1;

/// Larger packets are looked for in steps of so many bytes: each step costs a packet each way, also when there is nothing to say.
const MTU_STEP: u16 = 128;

/// What is spoken on a connection, told by its ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Synchronising, with known peers.
    Sync,
    /// Pairing, and nothing else.
    Pair,
}

impl Purpose {
    /// As it stands in the handshake; the number is the protocol's version.
    pub(super) fn alpn(self) -> &'static str {
        match self {
            Purpose::Sync => "driftless/1",
            Purpose::Pair => "driftless-pair/1",
        }
    }
}

/// May this machine come in? Asked in every handshake, on a thread that drives all connections: the answer has to be at hand.
pub type Admits = dyn Fn(&Id) -> bool + Send + Sync;

/// Whose keys are accepted.
#[derive(Clone)]
pub(super) enum Trust {
    /// These machines.
    Only(BTreeSet<Id>),
    /// Those that are known at the moment at which they come.
    Asked(Arc<Admits>),
    /// Any machine. For pairing, in which the code decides.
    Anyone,
}

impl Trust {
    fn admits(&self, id: &Id) -> bool {
        match self {
            Trust::Only(ids) => ids.contains(id),
            Trust::Asked(admits) => admits(id),
            Trust::Anyone => true,
        }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trust::Only(ids) => write!(f, "Only({ids:?})"),
            Trust::Asked(_) => f.write_str("Asked"),
            Trust::Anyone => f.write_str("Anyone"),
        }
    }
}

/// The key that the other side showed, also if it was refused.
pub(super) type Seen = Arc<Mutex<Option<PublicKey>>>;

/// The key in a certificate of ours.
pub(super) fn key_of(certificate: &CertificateDer<'_>) -> Option<PublicKey> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    PublicKey::decode_spki(&parsed.subject_public_key_info())
}

#[derive(Debug)]
struct Pinned {
    trust: Trust,
    seen: Seen,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn check(&self, certificate: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        let key = key_of(certificate).filter(|_| others.is_empty());
        let key = key.ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        *lock(&self.seen) = Some(key);
        match self.trust.admits(&key.id()) {
            true => Ok(()),
            false => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    /// The key of the certificate is the one that signs the handshake, and nothing but Ed25519 is offered or taken.
    fn signed(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signature.scheme != SignatureScheme::ED25519 {
            return Err(Error::InvalidCertificate(CertificateError::BadSignature));
        }
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }
}

/// What both sides do with signatures, whoever listens and whoever dials.
macro_rules! verifies_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("TLS 1.2 is not spoken".into()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.signed(message, certificate, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }
    };
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(certificate, others).map(|()| ServerCertVerified::assertion())
    }

    verifies_signatures!();
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(certificate, others).map(|()| ClientCertVerified::assertion())
    }

    verifies_signatures!();
}

fn pinned(trust: Trust) -> (Arc<Pinned>, Seen) {
    let seen = Seen::default();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    (Arc::new(Pinned { trust, seen: Arc::clone(&seen), provider }), seen)
}

fn failed(error: impl std::fmt::Display) -> LinkError {
    LinkError::Setup { what: "set up TLS".into(), why: error.to_string() }
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.minimum_change(MTU_STEP);
    transport
        .mtu_discovery_config(Some(mtu))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(ONE_WAY_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IDLE.try_into().ok())
        .congestion_controller_factory(Arc::new(Measuring));
    transport
}

/// As for a network, in larger packets, whose size is known.
pub(super) fn through_pipe() -> TransportConfig {
    let mut transport = transport();
    transport.initial_mtu(PACKET).min_mtu(PACKET).mtu_discovery_config(None);
    transport
}

/// For a listener.
pub(super) fn server(identity: &Identity, trust: Trust, purpose: Purpose) -> Result<ServerConfig, LinkError> {
    let (verifier, _) = pinned(trust);
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&verifier.provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate()], identity.private())
        .map_err(failed)?;
    tls.alpn_protocols = vec![purpose.alpn().into()];
    tls.max_early_data_size = 0;
    // A resumed session would not ask for the key again.
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).map_err(failed)?));
    config
        .transport_config(Arc::new(transport()))
        .max_incoming(INCOMING)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
    Ok(config)
}

/// For one attempt to reach somebody; with the key that it finds there.
pub(super) fn client(identity: &Identity, trust: Trust, purpose: Purpose) -> Result<(ClientConfig, Seen), LinkError> {
    let (verifier, seen) = pinned(trust);
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&verifier.provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(vec![identity.certificate()], identity.private())
        .map_err(failed)?;
    tls.alpn_protocols = vec![purpose.alpn().into()];
    tls.enable_early_data = false;
    tls.enable_sni = false;
    tls.resumption = Resumption::disabled();
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).map_err(failed)?));
    config.transport_config(Arc::new(transport()));
    Ok((config, seen))
}
