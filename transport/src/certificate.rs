//! What our X.509 certificates say, and reading it back.
//!
//! ```text
//! CA     subject O=raftwerk, CN=<cluster>                        signs peers, nothing below them
//! peer   subject O=raftwerk, CN=raftwerk:<kind>:<id>:<name>      SAN DNS <kind>.raftwerk      client and server authentication
//! ```
//! A peer is recognised by kind, never by host name or address: machines move, get new addresses and sit behind others, and none of that may
//! decide who they are. TLS wants a name to verify, so the kind serves as one.

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, SerialNumber};
use rustls::pki_types::ServerName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity_error::IdentityError;
use crate::peer::{Peer, PeerKind};

const ORGANIZATION: &str = "raftwerk";
/// A host name has at most 253 characters; nothing longer is a name.
const NAME_BYTES: usize = 253;

/// The name that TLS checks in the certificate of a peer of this kind.
pub(crate) fn server_name(kind: PeerKind) -> ServerName<'static> {
    ServerName::try_from(dns_name(kind)).expect("a word and a dot make a DNS name")
}

fn dns_name(kind: PeerKind) -> String {
    format!("{kind}.raftwerk")
}

fn params(common_name: String) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    // For ever, in the words of RFC 5280 (4.1.2.5). The machines of a mixed cluster have wrong clocks, some start in 1970 on every boot, and a
    // cluster that stops because a date has passed has lost more than it gained. Rotation, once there, replaces certificates by command.
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    params.serial_number = Some(random_serial()?);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 127 random bits; the top bit stays clear because a serial number is a positive integer of at most 20 bytes.
fn random_serial() -> Result<SerialNumber, IdentityError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| IdentityError::Crypto { what: "serial number", reason: error.to_string() })?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

pub(crate) fn authority_params(cluster: &str) -> Result<CertificateParams, IdentityError> {
    check_name("cluster", cluster)?;
    if cluster.is_empty() {
        return Err(IdentityError::BadName { of: "cluster", name: String::new(), reason: "it is empty" });
    }
    let mut params = params(cluster.to_owned())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

pub(crate) fn peer_params(kind: PeerKind, id: u64, name: &str) -> Result<CertificateParams, IdentityError> {
    if kind == PeerKind::Anonymous {
        return Err(IdentityError::Anonymous);
    }
    check_name(kind.as_str(), name)?;
    let mut params = params(format!("raftwerk:{kind}:{id}:{name}"))?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.subject_alt_names = vec![SanType::DnsName(dns_name(kind).try_into().expect("kinds are ASCII"))];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Both, since schedulers call each other and workers serve shuffle data.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// Names go into log lines, one-line files and certificates, and come out of them as they went in.
fn check_name(of: &'static str, name: &str) -> Result<(), IdentityError> {
    let bad = |reason| Err(IdentityError::BadName { of, name: name.to_owned(), reason });
    match name {
        _ if name.len() > NAME_BYTES => bad("it is longer than 253 bytes"),
        _ if name.chars().any(char::is_control) => bad("it has control characters"),
        _ if name.trim() != name => bad("it begins or ends with white space"),
        _ => Ok(()),
    }
}

/// The peer that a certificate names. Believe it only after its signature has been verified.
pub(crate) fn peer_in(certificate_der: &[u8]) -> Option<Peer> {
    let common_name = common_name(&parse(certificate_der)?)?;
    let mut parts = common_name.splitn(4, ':');
    let ("raftwerk", kind, id, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?) else {
        return None;
    };
    let kind = kind.parse().ok().filter(|&kind| kind != PeerKind::Anonymous)?;
    Some(Peer { kind, id: id.parse().ok()?, name: name.to_owned() })
}

/// The cluster whose CA certificate this is, if every bit of it is as it was made. TLS would look at the key and the subject alone, but join tokens
/// hash the whole.
pub(crate) fn cluster_in(ca_certificate_der: &[u8]) -> Option<String> {
    let certificate = parse(ca_certificate_der).filter(|certificate| certificate.is_ca() && certificate.verify_signature(None).is_ok())?;
    common_name(&certificate)
}

fn parse(certificate_der: &[u8]) -> Option<X509Certificate<'_>> {
    match X509Certificate::from_der(certificate_der) {
        Ok(([], certificate)) => Some(certificate),
        _ => None,
    }
}

fn common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

/// Whether `key` is the private half of the certificate's key.
pub(crate) fn has_key(certificate_der: &[u8], key: &rcgen::KeyPair) -> bool {
    use rcgen::PublicKeyData;
    parse(certificate_der).is_some_and(|certificate| certificate.public_key().raw == key.subject_public_key_info().as_slice())
}
