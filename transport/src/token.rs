//! The join token as text.
//!
//! ```text
//! rwk1-  base64url( CA certificate hash: 32 bytes | check: 4 bytes | secret: the rest, UTF-8 )
//! check = the first 4 bytes of SHA-256( "raftwerk join token" | CA certificate hash | secret )
//! ```
//! The check is there for people: a mistyped or half-copied token is recognised at once, before it reads as "wrong cluster" or "wrong secret".

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

const PREFIX: &str = "rwk1-";
const HASH_BYTES: usize = 32;
const CHECK_BYTES: usize = 4;
/// 144 bits: beyond guessing, and 24 base64 characters without a rest.
const SECRET_BYTES: usize = 18;

/// What a new machine needs to join: which cluster to trust, and the secret that makes the cluster trust it.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the CA certificate's DER form.
    pub ca_sha256: [u8; 32],
    pub secret: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("this is not a join token; one starts with `{PREFIX}`")]
    NotAToken,
    #[error("this join token has a newer form (`{0}`) than this version of raftwerk reads; update raftwerk on this machine")]
    Newer(String),
    #[error("this join token is mistyped or incomplete; copy it again, from `{PREFIX}` to its last character")]
    Mistyped,
}

impl JoinToken {
    /// A token with a fresh random secret.
    pub(crate) fn random(ca_sha256: [u8; 32]) -> Result<JoinToken, getrandom::Error> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret)?;
        Ok(JoinToken { ca_sha256, secret: BASE64_URL_SAFE_NO_PAD.encode(secret) })
    }

    fn check(&self) -> [u8; CHECK_BYTES] {
        let hash = Sha256::new().chain_update("raftwerk join token").chain_update(self.ca_sha256).chain_update(&self.secret).finalize();
        *hash.first_chunk().expect("SHA-256 is longer than the check")
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.ca_sha256[..], &self.check(), self.secret.as_bytes()].concat();
        write!(f, "{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("ca_sha256", &hex(&self.ca_sha256)).field("secret", &"(hidden)").finish()
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let Some(body) = text.strip_prefix(PREFIX) else {
            return Err(newer_form(text).map_or(TokenError::NotAToken, TokenError::Newer));
        };
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Mistyped)?;
        let (ca_sha256, rest) = bytes.split_first_chunk::<HASH_BYTES>().ok_or(TokenError::Mistyped)?;
        let (check, secret) = rest.split_first_chunk::<CHECK_BYTES>().ok_or(TokenError::Mistyped)?;
        let secret = str::from_utf8(secret).map_err(|_| TokenError::Mistyped)?.to_owned();
        let token = JoinToken { ca_sha256: *ca_sha256, secret };
        if token.check() == *check { Ok(token) } else { Err(TokenError::Mistyped) }
    }
}

/// `rwk2-` and so on: a form we may invent later.
fn newer_form(text: &str) -> Option<String> {
    let (form, _) = text.split_once('-')?;
    let number = form.strip_prefix("rwk")?;
    number.parse::<u32>().ok().filter(|&n| n > 1).map(|_| form.to_owned())
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken::random(sha256(b"a CA certificate")).unwrap()
    }

    #[test]
    fn a_token_reads_back_as_it_is_written() {
        let token = token();
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert_eq!(format!("  {token}\n").parse(), Ok(token));
    }

    #[test]
    fn any_other_character_anywhere_is_refused() {
        let text = token().to_string();
        for place in 0..text.len() {
            let other = if text.as_bytes()[place] == b'x' { "y" } else { "x" };
            let mut mistyped = text.clone();
            mistyped.replace_range(place..=place, other);
            assert!(mistyped.parse::<JoinToken>().is_err(), "character {place}");
        }
    }

    #[test]
    fn a_token_cut_short_anywhere_is_refused() {
        let text = token().to_string();
        for end in 0..text.len() {
            assert!(text[..end].parse::<JoinToken>().is_err(), "{end} characters");
        }
    }

    #[test]
    fn an_error_says_what_to_do() {
        assert_eq!("hello".parse::<JoinToken>(), Err(TokenError::NotAToken));
        assert_eq!("rwk2-abc".parse::<JoinToken>(), Err(TokenError::Newer("rwk2".into())));
        assert_eq!("rwk1-abc".parse::<JoinToken>(), Err(TokenError::Mistyped));
    }

    #[test]
    fn the_secret_stays_out_of_debug_output() {
        let token = token();
        assert!(!format!("{token:?}").contains(&token.secret));
    }
}
