//! Keys and certificates as text.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::pem::{PemObject, SectionKind};

use crate::identity_error::IdentityError;

pub(crate) const CERTIFICATE: &str = "CERTIFICATE";
pub(crate) const PRIVATE_KEY: &str = "PRIVATE KEY";
/// RFC 7468: every line but the last has exactly 64 characters.
const LINE: usize = 64;

pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let base64 = BASE64_STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in base64.as_bytes().chunks(LINE) {
        text.push_str(str::from_utf8(line).expect("base64 is ASCII"));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

/// All certificates and PKCS #8 keys in `text`, in order; other text between them is skipped.
#[derive(Default)]
pub(crate) struct Sections {
    pub(crate) certificates: Vec<Vec<u8>>,
    pub(crate) keys: Vec<Vec<u8>>,
}

pub(crate) fn decode(text: &[u8], what: &str) -> Result<Sections, IdentityError> {
    let mut sections = Sections::default();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
        // The library's own messages print the text as lists of bytes, and with them perhaps of a key.
        let (kind, der) = section.map_err(|_| IdentityError::damaged(what, "it is not whole PEM text"))?;
        match kind {
            SectionKind::Certificate => sections.certificates.push(der),
            SectionKind::PrivateKey => sections.keys.push(der),
            _ => {}
        }
    }
    Ok(sections)
}

pub(crate) fn one_certificate(text: &[u8], what: &str) -> Result<Vec<u8>, IdentityError> {
    let found = decode(text, what)?.certificates;
    only(found).map_err(|count| IdentityError::damaged(what, format!("it holds {count} certificates where one is expected")))
}

pub(crate) fn one_key(text: &[u8], what: &str) -> Result<Vec<u8>, IdentityError> {
    let found = decode(text, what)?.keys;
    only(found).map_err(|count| IdentityError::damaged(what, format!("it holds {count} PKCS #8 private keys where one is expected")))
}

fn only(mut found: Vec<Vec<u8>>) -> Result<Vec<u8>, usize> {
    match found.len() {
        1 => Ok(found.remove(0)),
        count => Err(count),
    }
}
