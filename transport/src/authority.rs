//! The cluster's certificate authority. Every scheduler has a copy, so that any of them can answer a join.

use std::fmt;
use std::path::Path;

use rcgen::{CertificateSigningRequestParams, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};

use crate::identity::Identity;
use crate::identity_error::IdentityError;
use crate::peer::PeerKind;
use crate::token::{JoinToken, hex, sha256};
use crate::{certificate, identity, pem, private_file};

const KEY_FILE: &str = "ca.key";
const TOKEN_FILE: &str = "token.sha256";

/// The cluster's certificate authority with the hash of its join secret; lives in a scheduler's data directory.
pub struct Authority {
    cluster: String,
    certificate_der: Vec<u8>,
    key_pkcs8_der: Vec<u8>,
    token_sha256: String,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.cluster).field("ca_sha256", &hex(&self.ca_sha256())).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new authority with a new key (ECDSA P-256), and the token with which machines join. Only the hash of the token's secret is kept: show the
    /// token now, it cannot be shown again.
    pub fn create(cluster: &str) -> Result<(Authority, JoinToken), IdentityError> {
        let key = KeyPair::generate().map_err(IdentityError::crypto("CA key"))?;
        let certificate = certificate::authority_params(cluster)?.self_signed(&key).map_err(IdentityError::crypto("CA certificate"))?;
        let token = JoinToken::random(sha256(certificate.der()))
            .map_err(|error| IdentityError::Crypto { what: "join token", reason: error.to_string() })?;
        let token_sha256 = hex(&sha256(token.secret.as_bytes()));
        Ok((Authority::from_parts(cluster, certificate.der(), &key.serialize_der(), &token_sha256)?, token))
    }

    /// The authority as another scheduler hands it over at join.
    pub fn from_parts(
        cluster: &str,
        ca_certificate_der: &[u8],
        ca_key_pkcs8_der: &[u8],
        token_sha256: &str,
    ) -> Result<Authority, IdentityError> {
        let sources = Sources { certificate: "the CA certificate", key: "the CA key", token: "the hash of the join secret" };
        Authority::assemble(cluster, ca_certificate_der.to_vec(), ca_key_pkcs8_der.to_vec(), token_sha256.to_owned(), &sources)
    }

    fn assemble(
        cluster: &str,
        certificate_der: Vec<u8>,
        key_pkcs8_der: Vec<u8>,
        token_sha256: String,
        sources: &Sources<'_>,
    ) -> Result<Authority, IdentityError> {
        identity::check_cluster(cluster, &certificate_der, sources.certificate)?;
        let key =
            KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(key_pkcs8_der.as_slice()), &rcgen::PKCS_ECDSA_P256_SHA256)
                .map_err(|error| IdentityError::damaged(sources.key, error))?;
        // A key of another authority would sign certificates that nobody accepts, and the first to notice would be a worker far away.
        if !certificate::has_key(&certificate_der, &key) {
            return Err(IdentityError::damaged(sources.key, format!("it is not the key of {}", sources.certificate)));
        }
        if token_sha256.len() != 64 || !token_sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(IdentityError::damaged(sources.token, "it is not 64 hexadecimal digits"));
        }
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(certificate_der.as_slice()), key)
            .map_err(|error| IdentityError::damaged(sources.certificate, error))?;
        Ok(Authority { cluster: cluster.to_owned(), certificate_der, key_pkcs8_der, token_sha256, issuer })
    }

    /// Whether `dir` holds an authority; true only once all of its files are there.
    pub fn exists(dir: &Path) -> bool {
        dir.join(KEY_FILE).exists()
    }

    pub fn load(dir: &Path) -> Result<Authority, IdentityError> {
        let [certificate, key, token] = [identity::CA_FILE, KEY_FILE, TOKEN_FILE].map(|name| dir.join(name));
        let [certificate_name, key_name, token_name] = [&certificate, &key, &token].map(|path| path.display().to_string());
        let sources = Sources { certificate: &certificate_name, key: &key_name, token: &token_name };
        let key_pkcs8_der = pem::one_key(&private_file::read_secret(&key)?, &key_name)?;
        let certificate_der = pem::one_certificate(&private_file::read(&certificate)?, &certificate_name)?;
        let token_sha256 = private_file::read_line(&token)?;
        let cluster = private_file::read_line(&dir.join(identity::CLUSTER_FILE))?;
        Authority::assemble(&cluster, certificate_der, key_pkcs8_der, token_sha256, &sources)
    }

    /// On disk when this returns. The key is written last, as the sign that the rest is there.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        private_file::create_directory(dir)?;
        private_file::write(&dir.join(TOKEN_FILE), format!("{}\n", self.token_sha256).as_bytes())?;
        private_file::write(&dir.join(identity::CLUSTER_FILE), format!("{}\n", self.cluster).as_bytes())?;
        private_file::write(&dir.join(identity::CA_FILE), pem::encode(pem::CERTIFICATE, &self.certificate_der).as_bytes())?;
        private_file::write(&dir.join(KEY_FILE), pem::encode(pem::PRIVATE_KEY, &self.key_pkcs8_der).as_bytes())
    }

    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    pub fn ca_certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    /// The CA's private key. Leaves the process only towards a scheduler that has proven to know the join secret.
    pub fn ca_key_pkcs8_der(&self) -> &[u8] {
        &self.key_pkcs8_der
    }

    /// SHA-256 of the join secret, in hexadecimal digits.
    pub fn token_sha256(&self) -> &str {
        &self.token_sha256
    }

    /// SHA-256 of the CA certificate: the part of a join token that names the cluster.
    pub fn ca_sha256(&self) -> [u8; 32] {
        sha256(&self.certificate_der)
    }

    /// The same authority with a new join secret; the old token opens nothing any more.
    pub fn with_new_token(&self) -> Result<(Authority, JoinToken), IdentityError> {
        let token =
            JoinToken::random(self.ca_sha256()).map_err(|error| IdentityError::Crypto { what: "join token", reason: error.to_string() })?;
        let token_sha256 = hex(&sha256(token.secret.as_bytes()));
        Ok((Authority::from_parts(&self.cluster, &self.certificate_der, &self.key_pkcs8_der, &token_sha256)?, token))
    }

    /// Whether `secret` is the join secret. Takes the same time whether it is nearly right or not at all.
    pub fn token_matches(&self, secret: &str) -> bool {
        let presented = hex(&sha256(secret.as_bytes()));
        let differences = presented.bytes().zip(self.token_sha256.bytes()).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
        differences == 0
    }

    /// A certificate for the key in `csr_der`, which proves by its signature that the asker holds the private half. Subject and names in the
    /// request count for nothing: they are ours to say.
    pub fn sign(&self, csr_der: &[u8], kind: PeerKind, id: u64, name: &str) -> Result<Vec<u8>, IdentityError> {
        let params = certificate::peer_params(kind, id, name)?;
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))
            .map_err(|error| IdentityError::BadRequest { reason: error.to_string() })?;
        let certificate = params.signed_by(&request.public_key, &self.issuer).map_err(IdentityError::crypto("certificate"))?;
        Ok(certificate.der().to_vec())
    }

    /// A complete identity with a key made here: for this scheduler itself, and for the admin client (kind client, id 0).
    pub fn issue(&self, kind: PeerKind, id: u64, name: &str) -> Result<Identity, IdentityError> {
        let key = KeyPair::generate().map_err(IdentityError::crypto("key"))?;
        let certificate =
            certificate::peer_params(kind, id, name)?.signed_by(&key, &self.issuer).map_err(IdentityError::crypto("certificate"))?;
        Identity::from_parts(certificate.der().to_vec(), key.serialize_der(), self.certificate_der.clone())
    }
}

/// Where the parts come from, for messages.
struct Sources<'a> {
    certificate: &'a str,
    key: &'a str,
    token: &'a str,
}
