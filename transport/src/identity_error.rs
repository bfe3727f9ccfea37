use std::io;
use std::path::PathBuf;

/// Why an identity could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{} is not there; this machine has not joined a cluster yet, or the directory is another one", path.display())]
    Missing { path: PathBuf },

    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },

    /// `what` is a path, or where the bytes came from.
    #[error("{what} is damaged: {reason}; restore it from a copy, or remove the credentials and join again")]
    Damaged { what: String, reason: String },

    #[error("{} can be read by others (mode {mode:o}); run `chmod 600 {}`, and make a new credential if someone may have read it", path.display(), path.display())]
    Exposed { path: PathBuf, mode: u32 },

    #[error("the certificate request is not valid: {reason}")]
    BadRequest { reason: String },

    #[error("{name:?} cannot be the name of a {of}: {reason}")]
    BadName { of: &'static str, name: String, reason: &'static str },

    #[error("nothing is signed for an anonymous peer")]
    Anonymous,

    #[error("cannot make a {what}: {reason}")]
    Crypto { what: &'static str, reason: String },
}

impl IdentityError {
    pub(crate) fn damaged(what: impl Into<String>, reason: impl ToString) -> IdentityError {
        IdentityError::Damaged { what: what.into(), reason: reason.to_string() }
    }

    pub(crate) fn crypto(what: &'static str) -> impl Fn(rcgen::Error) -> IdentityError {
        move |error| IdentityError::Crypto { what, reason: error.to_string() }
    }
}
