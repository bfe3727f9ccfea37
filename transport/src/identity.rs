//! Key, certificate and CA of one process.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::sign::CertifiedKey;

use crate::identity_error::IdentityError;
use crate::peer::Peer;
use crate::verify::{ClusterVerifier, Refusal};
use crate::{certificate, pem, private_file};

pub(crate) const CA_FILE: &str = "ca.crt";
pub(crate) const CLUSTER_FILE: &str = "cluster";
const CERTIFICATE_FILE: &str = "identity.crt";
const KEY_FILE: &str = "identity.key";

/// Key, certificate and CA of one process. Every value of this type is consistent: the key fits the certificate, and the CA signed it.
#[derive(Clone)]
pub struct Identity(Arc<Parts>);

struct Parts {
    cluster: String,
    peer: Peer,
    certificate_der: Vec<u8>,
    key_pkcs8_der: Vec<u8>,
    ca_certificate_der: Vec<u8>,
    certified_key: Arc<CertifiedKey>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("cluster", &self.0.cluster).field("peer", &self.0.peer).finish_non_exhaustive()
    }
}

/// Where the parts come from, for messages.
struct Sources<'a> {
    certificate: &'a str,
    key: &'a str,
    ca: &'a str,
}

impl Identity {
    pub(crate) fn from_parts(
        certificate_der: Vec<u8>,
        key_pkcs8_der: Vec<u8>,
        ca_certificate_der: Vec<u8>,
    ) -> Result<Identity, IdentityError> {
        let sources = Sources { certificate: "the certificate", key: "the private key", ca: "the CA certificate" };
        Identity::assemble(certificate_der, key_pkcs8_der, ca_certificate_der, &sources)
    }

    fn assemble(
        certificate_der: Vec<u8>,
        key_pkcs8_der: Vec<u8>,
        ca_certificate_der: Vec<u8>,
        sources: &Sources<'_>,
    ) -> Result<Identity, IdentityError> {
        let cluster = certificate::cluster_in(&ca_certificate_der)
            .ok_or_else(|| IdentityError::damaged(sources.ca, "it is not the whole certificate of a raftwerk CA"))?;
        let peer = certificate::peer_in(&certificate_der)
            .ok_or_else(|| IdentityError::damaged(sources.certificate, "it is not the certificate of a raftwerk peer"))?;
        // Before the key: only against a certificate known to be whole can a mismatch be the key's fault.
        check_signature(&certificate_der, &peer, &ca_certificate_der, sources)?;
        // The CA travels along in the handshake: a joining machine knows only its hash.
        let chain = vec![CertificateDer::from(certificate_der.clone()), CertificateDer::from(ca_certificate_der.clone())];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key_pkcs8_der.clone()));
        let certified_key = CertifiedKey::from_der(chain, key, &crate::provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                IdentityError::damaged(sources.key, format!("it is not the key of {}", sources.certificate))
            }
            error => IdentityError::damaged(sources.key, error),
        })?;
        let certified_key = Arc::new(certified_key);
        Ok(Identity(Arc::new(Parts { cluster, peer, certificate_der, key_pkcs8_der, ca_certificate_der, certified_key })))
    }

    /// Whether `dir` holds an identity; true only once all of its files are there.
    pub fn exists(dir: &Path) -> bool {
        dir.join(CERTIFICATE_FILE).exists()
    }

    pub fn load(dir: &Path) -> Result<Identity, IdentityError> {
        let [certificate, key, ca] = [CERTIFICATE_FILE, KEY_FILE, CA_FILE].map(|name| dir.join(name));
        let [certificate_name, key_name, ca_name] = [&certificate, &key, &ca].map(|path| path.display().to_string());
        let sources = Sources { certificate: &certificate_name, key: &key_name, ca: &ca_name };
        let certificate_der = pem::one_certificate(&private_file::read(&certificate)?, &certificate_name)?;
        let key_pkcs8_der = pem::one_key(&private_file::read_secret(&key)?, &key_name)?;
        let ca_certificate_der = pem::one_certificate(&private_file::read(&ca)?, &ca_name)?;
        check_cluster(&private_file::read_line(&dir.join(CLUSTER_FILE))?, &ca_certificate_der, &ca_name)?;
        Identity::assemble(certificate_der, key_pkcs8_der, ca_certificate_der, &sources)
    }

    /// On disk when this returns. The certificate is written last, as the sign that the rest is there.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        private_file::create_directory(dir)?;
        private_file::write(&dir.join(CLUSTER_FILE), format!("{}\n", self.0.cluster).as_bytes())?;
        private_file::write(&dir.join(CA_FILE), pem::encode(pem::CERTIFICATE, &self.0.ca_certificate_der).as_bytes())?;
        private_file::write(&dir.join(KEY_FILE), pem::encode(pem::PRIVATE_KEY, &self.0.key_pkcs8_der).as_bytes())?;
        private_file::write(&dir.join(CERTIFICATE_FILE), pem::encode(pem::CERTIFICATE, &self.0.certificate_der).as_bytes())
    }

    pub fn cluster(&self) -> &str {
        &self.0.cluster
    }

    pub fn peer(&self) -> &Peer {
        &self.0.peer
    }

    pub fn ca_certificate_der(&self) -> &[u8] {
        &self.0.ca_certificate_der
    }

    /// SHA-256 of the CA certificate: what a join token names the cluster by.
    pub fn ca_sha256(&self) -> [u8; 32] {
        crate::token::sha256(&self.0.ca_certificate_der)
    }

    pub(crate) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.certified_key)
    }

    /// The identity as one text: a few lines for people, then certificate, key and CA as PEM. **It holds the private key**; write it with
    /// [`save_pem_bundle`](Identity::save_pem_bundle).
    pub fn to_pem_bundle(&self) -> String {
        let Parts { cluster, peer, .. } = &*self.0;
        [
            // Parsers skip what is outside the PEM blocks; a cluster name cannot open one because it stays within its line.
            format!("raftwerk credential: whoever holds this file is {peer}\ncluster: {}\n", cluster.escape_debug()),
            pem::encode(pem::CERTIFICATE, &self.0.certificate_der),
            pem::encode(pem::PRIVATE_KEY, &self.0.key_pkcs8_der),
            pem::encode(pem::CERTIFICATE, &self.0.ca_certificate_der),
        ]
        .concat()
    }

    pub fn from_pem_bundle(text: &str) -> Result<Identity, IdentityError> {
        Identity::from_bundle(text.as_bytes(), "the credential")
    }

    /// Writes the bundle with mode 0600, whole or not at all.
    pub fn save_pem_bundle(&self, path: &Path) -> Result<(), IdentityError> {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            private_file::create_directory(dir)?;
        }
        private_file::write(path, self.to_pem_bundle().as_bytes())
    }

    pub fn load_pem_bundle(path: &Path) -> Result<Identity, IdentityError> {
        Identity::from_bundle(&private_file::read_secret(path)?, &path.display().to_string())
    }

    fn from_bundle(text: &[u8], what: &str) -> Result<Identity, IdentityError> {
        let sections = pem::decode(text, what)?;
        let Ok([certificate, ca]) = <[Vec<u8>; 2]>::try_from(sections.certificates) else {
            return Err(IdentityError::damaged(what, "it does not hold two certificates, its own and the CA's"));
        };
        let Ok([key]) = <[Vec<u8>; 1]>::try_from(sections.keys) else {
            return Err(IdentityError::damaged(what, "it does not hold one private key"));
        };
        let [certificate_name, key_name, ca_name] =
            ["certificate", "private key", "CA certificate"].map(|part| format!("the {part} in {what}"));
        Identity::assemble(certificate, key, ca, &Sources { certificate: &certificate_name, key: &key_name, ca: &ca_name })
    }
}

fn check_signature(certificate_der: &[u8], peer: &Peer, ca_certificate_der: &[u8], sources: &Sources<'_>) -> Result<(), IdentityError> {
    let verifier = ClusterVerifier::new(ca_certificate_der, peer.kind).map_err(|error| IdentityError::damaged(sources.ca, error))?;
    let (certificate, name) = (CertificateDer::from(certificate_der), certificate::server_name(peer.kind));
    match verifier.verify_server_cert(&certificate, &[], &name, &[], UnixTime::now()) {
        Ok(_) => Ok(()),
        Err(error) if matches!(Refusal::in_error(&error), Some(Refusal::OtherCluster)) => {
            Err(IdentityError::damaged(sources.certificate, format!("it is not signed by {}", sources.ca)))
        }
        Err(error) => Err(IdentityError::damaged(sources.certificate, error)),
    }
}

/// A CA certificate says of which cluster it is; a mismatch means that files of two clusters got mixed.
pub(crate) fn check_cluster(cluster: &str, ca_certificate_der: &[u8], what: &str) -> Result<(), IdentityError> {
    match certificate::cluster_in(ca_certificate_der) {
        Some(found) if found == cluster => Ok(()),
        Some(found) => Err(IdentityError::damaged(what, format!("it is of cluster `{found}`, not of `{cluster}`"))),
        None => Err(IdentityError::damaged(what, "it is not the whole certificate of a raftwerk CA")),
    }
}

/// A key that waits for its certificate. The key never leaves this machine; only the request does.
pub struct PendingIdentity {
    key: KeyPair,
    request_der: Vec<u8>,
}

impl fmt::Debug for PendingIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingIdentity").finish_non_exhaustive()
    }
}

impl PendingIdentity {
    pub fn new() -> Result<PendingIdentity, IdentityError> {
        let key = KeyPair::generate().map_err(IdentityError::crypto("key"))?;
        let request = CertificateParams::default().serialize_request(&key).map_err(IdentityError::crypto("certificate request"))?;
        Ok(PendingIdentity { key, request_der: request.der().to_vec() })
    }

    /// PKCS #10, for [`Authority::sign`](crate::Authority::sign).
    pub fn request_der(&self) -> Vec<u8> {
        self.request_der.clone()
    }

    /// Puts the identity together from what the scheduler answered; refuses parts that do not belong together.
    pub fn complete(self, cluster: &str, certificate_der: &[u8], ca_der: &[u8]) -> Result<Identity, IdentityError> {
        let sources = Sources {
            certificate: "the certificate from the scheduler",
            key: "the key made here",
            ca: "the CA certificate from the scheduler",
        };
        check_cluster(cluster, ca_der, sources.ca)?;
        Identity::assemble(certificate_der.to_vec(), self.key.serialize_der(), ca_der.to_vec(), &sources)
    }
}
