//! What to do about an error of the operating system, when whoever reports it has nothing better to say.

use std::io::{Error, ErrorKind};

const FULL: &str =
    "make room on that disk (`df` shows it), or use another one: --data-dir of a scheduler or worker, TMPDIR of `run` and `dev`";

/// Nothing where the error says it itself.
fn of(error: &Error) -> Option<&'static str> {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some(FULL),
        ErrorKind::PermissionDenied => Some("let this user do that (`ls -ld` shows who may), or run the command as one who may"),
        ErrorKind::ReadOnlyFilesystem => Some("use a directory on a file system that can be written"),
        ErrorKind::NotADirectory => Some("a part of that path is a file: check it"),
        _ => None,
    }
}

/// Of the first error of the operating system among the causes.
pub fn of_chain<'a>(causes: impl Iterator<Item = &'a (dyn std::error::Error + 'static)>) -> Option<&'static str> {
    let of_cause = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<Error>() {
        Some(error) => of(error),
        None => says_full(&cause.to_string()).then_some(FULL),
    };
    causes.into_iter().find_map(of_cause)
}

/// What has come over a wire, or out of a library, is text.
pub fn says_full(text: &str) -> bool {
    ["No space left on device", "Disk quota exceeded"].iter().any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use crate::failure::{Exit, Failure};
    use std::io::Error;

    #[test]
    fn a_full_disk_below_other_words_has_a_remedy_unless_there_is_a_better_one() {
        let full = || anyhow::Error::new(Error::from_raw_os_error(28)).context("cannot write /data/raft.redb");
        let lines = Failure::new(Exit::Internal, full()).context("scheduler s1 cannot start").lines();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines[3].starts_with("fix: make room on that disk"), "{lines:?}");
        let lines = Failure::new(Exit::Internal, full()).fix("take another").lines();
        assert_eq!(lines.last().unwrap(), "fix: take another");
        let lines = Failure::say(Exit::Internal, "scheduler s1 stopped: raft.redb: No space left on device (os error 28)").lines();
        assert!(lines[1].starts_with("fix: make room on that disk"), "{lines:?}");
        let lines = Failure::new(Exit::Internal, Error::from_raw_os_error(111)).lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
    }
}
