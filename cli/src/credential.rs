//! Credentials and join tokens: two kinds of file beside each other in a scheduler's data directory, which are easily mixed up.
//!
//! A credential (`admin.pem`) says who gives commands; a join token (`join-token`) lets a machine become a part of the cluster.

use std::io::ErrorKind;
use std::path::Path;

use raftwerk_transport::{Identity, IdentityError, JoinToken, TokenError};

use crate::failure::{Exit, Failure};

pub fn load_credential(file: &Path) -> Result<Identity, Failure> {
    let bytes = std::fs::read(file).map_err(|error| {
        let fix = match error.kind() {
            ErrorKind::PermissionDenied => "only its owner can read a credential: run the command as that user, or get a copy of your own",
            _ => {
                "name a client's credential with --credential FILE, RAFTWERK_CREDENTIAL, or in a context (`raftwerk context show` tells which \
                 one is used); the first scheduler keeps one in its data directory, admin.pem"
            }
        };
        Failure::new(Exit::BadUsage, error).context(format!("cannot read the credential {}", file.display())).fix(fix)
    })?;
    // What is no text is no credential either; the reader of PEM says so.
    let text = String::from_utf8_lossy(&bytes);
    if is_token(&text) {
        return Err(Failure::say(
            Exit::BadUsage,
            format!(
                "{} is a join token, not a credential: it lets a machine join the cluster, and gives nobody a right to command it",
                file.display()
            ),
        )
        .fix("name the file admin.pem, which lies beside `join-token` in the first scheduler's data directory"));
    }
    Identity::from_pem_bundle(&text).map_err(|error| {
        // What else it says is for whoever finds the identity of a machine damaged.
        let error = match error {
            IdentityError::Damaged { reason, .. } => anyhow::Error::msg(reason),
            other => other.into(),
        };
        Failure::new(Exit::BadUsage, error)
            .context(format!("{} is not a credential", file.display()))
            .fix("name a client's credential, for example admin.pem in the first scheduler's data directory")
    })
}

pub fn read_token(file: &Path) -> Result<JoinToken, Failure> {
    let text = std::fs::read(file).map_err(|error| {
        let fix = match error.kind() {
            ErrorKind::PermissionDenied => "only its owner can read it: copy it to a file that this user can read",
            _ => "name the file `join-token` in the first scheduler's data directory, or a copy of it",
        };
        Failure::new(Exit::BadUsage, error).context(format!("cannot read the join token {}", file.display())).fix(fix)
    })?;
    parse_token(&String::from_utf8_lossy(&text), &file.display().to_string())
}

/// `place` is the flag or file that the text comes from.
pub fn parse_token(text: &str, place: &str) -> Result<JoinToken, Failure> {
    let text = text.trim();
    text.parse().map_err(|error| {
        if text.contains("-----BEGIN") {
            let message = format!("{place} is a credential or a certificate, not a join token");
            return Failure::say(Exit::BadUsage, message)
                .fix("give the file `join-token`, which lies beside admin.pem in the first scheduler's data directory; no machine needs admin.pem");
        }
        if matches!(error, TokenError::NotAToken) && !text.is_empty() && Path::new(text).is_file() {
            return Failure::say(Exit::BadUsage, format!("{place} names a file, where the token itself is wanted"))
                .fix(format!("give it as --token-file {text}"));
        }
        Failure::new(Exit::BadUsage, anyhow::Error::new(error))
            .context(format!("{place} holds no join token"))
            .fix("copy the whole content of the file `join-token` in the first scheduler's data directory")
    })
}

/// Also one that is mistyped, or of a newer form.
fn is_token(text: &str) -> bool {
    !matches!(text.parse::<JoinToken>(), Err(TokenError::NotAToken))
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_transport::{Authority, PeerKind};

    fn said<T>(outcome: Result<T, Failure>) -> String {
        let failure = outcome.err().expect("a failure");
        assert_eq!(failure.exit, Exit::BadUsage);
        failure.lines().join("\n")
    }

    #[test]
    fn a_token_is_no_credential_and_a_credential_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = dir.path().join(name);
            std::fs::write(&file, text).unwrap();
            file
        };
        let (authority, token) = Authority::create("c").unwrap();
        let admin = authority.issue(PeerKind::Client, 1, "admin").unwrap().to_pem_bundle();
        let (token_file, admin_file) = (write("join-token", &format!("{token}\n")), write("admin.pem", &admin));
        assert!(load_credential(&admin_file).is_ok() && read_token(&token_file).is_ok());

        let mixed = said(load_credential(&token_file));
        assert!(
            mixed.contains("join-token is a join token, not a credential") && mixed.contains("fix: name the file admin.pem"),
            "{mixed}"
        );
        let mixed = said(read_token(&admin_file));
        assert!(mixed.contains("admin.pem is a credential") && mixed.contains("fix: give the file `join-token`"), "{mixed}");
        let mixed = said(parse_token(&token_file.display().to_string(), "--token"));
        assert!(mixed.contains("--token names a file") && mixed.contains("fix: give it as --token-file /"), "{mixed}");
        let cut = said(load_credential(&write("cut", &token.to_string()[..20])));
        assert!(cut.contains("is a join token, not a credential"), "{cut}");
    }

    #[test]
    fn what_is_neither_is_not_said_to_be_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.pem");
        let missing = said(load_credential(&file));
        assert!(
            missing.contains("cannot read the credential") && missing.contains("fix: name a client's credential with --credential"),
            "{missing}"
        );
        assert!(said(read_token(&file)).contains("fix: name the file `join-token`"));
        std::fs::write(&file, "hello").unwrap();
        let other = said(load_credential(&file));
        assert!(other.contains("x.pem is not a credential") && !other.contains("join again") && other.contains("\nfix: "), "{other}");
        assert!(said(read_token(&file)).contains("holds no join token"));
    }
}
