//! `--join`, `--token` and `--token-file`, the same for schedulers and workers.

use std::path::PathBuf;

use clap::Args;
use raftwerk_transport::JoinToken;

use crate::credential::{parse_token, read_token};
use crate::failure::Failure;

#[derive(Args, Clone, Debug)]
pub struct TokenFlags {
    /// Join token of the cluster; needed the first time only. The command line of a process is visible to others: prefer --token-file
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file", env = "RAFTWERK_JOIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File that holds the join token (the file `join-token` in the first scheduler's data directory)
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl TokenFlags {
    pub fn token(&self) -> Result<Option<JoinToken>, Failure> {
        match (&self.token, &self.token_file) {
            (Some(text), _) => parse_token(text, "--token").map(Some),
            (None, Some(file)) => read_token(file).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// What a certificate takes.
const NAME_BYTES: usize = 253;

/// Name of a scheduler or worker; checked here, so that nobody looks for the fault in the token.
pub fn peer_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_BYTES || text.chars().any(char::is_control) || text.trim() != text {
        return Err(format!("a name has 1 to {NAME_BYTES} bytes, no control characters, and no white space at its ends"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_a_certificate_takes() {
        assert_eq!(peer_name("box 7.example"), Ok("box 7.example".to_owned()));
        for name in ["", "a\nb", " a", "\u{1b}[31m", &"x".repeat(254)] {
            assert!(peer_name(name).is_err(), "{name:?}");
        }
    }
}
