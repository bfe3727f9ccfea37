//! Why a connection could not be made: one variant for each thing the caller can do about it.

use std::error::Error;
use std::io;

use rustls::AlertDescription;

use crate::peer::PeerKind;
use crate::plain::OwnWords;
use crate::verify::Refusal;

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Refused, timed out, unknown host, or something that is no raftwerk answers there. Worth another try, there or elsewhere.
    #[error("cannot reach {address}")]
    Unreachable { address: String, source: io::Error },

    /// Try another address; this one never becomes right.
    #[error("{address} belongs to another cluster: its certificate is not from the authority that this credential or join token names")]
    WrongAuthority { address: String },

    #[error("{address} is a {found}, not a {expected}")]
    WrongKind { address: String, expected: PeerKind, found: PeerKind },

    /// The credential is of another cluster, or was withdrawn; join again.
    #[error("{address} does not accept this credential; is it of the same cluster?")]
    RefusedByPeer { address: String, source: io::Error },

    #[error("`{address}` is not an address: {reason}")]
    BadAddress { address: String, reason: String },
}

impl ConnectError {
    /// Why a call failed to connect, if that is why: finds ours in the `Status` of a call on a lazy or reconnecting channel.
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a ConnectError> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<ConnectError>() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    /// Sorts what went wrong between opening the socket and the first byte from the peer.
    pub(crate) fn from_handshake(address: &str, error: io::Error) -> ConnectError {
        let address = address.to_owned();
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return ConnectError::Unreachable { address, source: error };
        };
        match (Refusal::in_error(tls), tls) {
            (Some(Refusal::OtherCluster), _) => ConnectError::WrongAuthority { address },
            (Some(Refusal::OtherKind { expected, found }), _) => ConnectError::WrongKind { address, expected, found },
            (None, rustls::Error::AlertReceived(alert)) if is_about_certificates(*alert) => {
                ConnectError::RefusedByPeer { address, source: error }
            }
            (None, rustls::Error::InvalidMessage(_)) => {
                let source = io::Error::new(io::ErrorKind::InvalidData, OwnWords("what answers there does not speak TLS".into()));
                ConnectError::Unreachable { address, source }
            }
            (None, _) => ConnectError::Unreachable { address, source: error },
        }
    }
}

fn is_about_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
    )
}
