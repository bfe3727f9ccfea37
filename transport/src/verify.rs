//! How the certificate of the peer we connect to is judged. (The listener's side is rustls' own verifier with our CA.)

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};

use crate::certificate;
use crate::peer::PeerKind;
use crate::token::sha256;

/// Why we do not talk to a peer that has shown a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the certificate is not of this cluster")]
    OtherCluster,
    #[error("the certificate is of a {found}, not of a {expected}")]
    OtherKind { expected: PeerKind, found: PeerKind },
}

impl Refusal {
    /// rustls has no variants for these, but carries ours through the handshake.
    fn into_error(self) -> rustls::Error {
        CertificateError::Other(OtherError(Arc::new(self))).into()
    }

    pub(crate) fn in_error(error: &rustls::Error) -> Option<Refusal> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => other.downcast_ref().copied(),
            _ => None,
        }
    }
}

pub(crate) fn roots(ca_certificate_der: &[u8]) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca_certificate_der.to_vec()))?;
    Ok(Arc::new(roots))
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    crate::provider().signature_verification_algorithms
}

/// Accepts a certificate that our CA signed for a peer of one kind, at whatever address.
#[derive(Debug)]
pub(crate) struct ClusterVerifier {
    expect: PeerKind,
    inner: Arc<WebPkiServerVerifier>,
}

impl ClusterVerifier {
    pub(crate) fn new(ca_certificate_der: &[u8], expect: PeerKind) -> Result<ClusterVerifier, rustls::Error> {
        let inner = WebPkiServerVerifier::builder_with_provider(roots(ca_certificate_der)?, crate::provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(ClusterVerifier { expect, inner })
    }
}

impl ServerCertVerifier for ClusterVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _asked_for: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let name = certificate::server_name(self.expect);
        // The signature is checked before the name, so a wrong name is that of a true member of the cluster.
        self.inner.verify_server_cert(end_entity, intermediates, &name, ocsp_response, now).map_err(|error| match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                Refusal::OtherCluster.into_error()
            }
            rustls::Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
                match certificate::peer_in(end_entity) {
                    Some(peer) => Refusal::OtherKind { expected: self.expect, found: peer.kind }.into_error(),
                    None => error,
                }
            }
            error => error,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// Accepts a scheduler whose CA certificate has the hash in our join token. Schedulers send their CA along for this.
pub(crate) struct TokenVerifier {
    ca_sha256: [u8; 32],
}

impl TokenVerifier {
    pub(crate) fn new(ca_sha256: [u8; 32]) -> TokenVerifier {
        TokenVerifier { ca_sha256 }
    }
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenVerifier").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for TokenVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        asked_for: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates.iter().find(|certificate| sha256(certificate) == self.ca_sha256);
        let ca = ca.ok_or_else(|| Refusal::OtherCluster.into_error())?;
        ClusterVerifier::new(ca, PeerKind::Scheduler)?.verify_server_cert(end_entity, &[], asked_for, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}
