//! What broke a connection or a call, in plain words.
//!
//! TLS, HTTP/2 and the operating system have their own ways to say that a peer is gone: addresses of manuals, frame types, error numbers. A
//! person at the command line can use none of them. Whoever debugs the libraries turns on their logs.

use std::error::Error;
use std::io::{self, ErrorKind};

use tonic::{Code, Status};

use crate::connect_error::ConnectError;

const BROKE: &str = "the connection broke";
const SILENT: &str = "no answer in time";

/// Whether these words of [`plain_error`] or [`plain_status`] tell less than what a handler said before.
pub fn is_mere_silence(words: &str) -> bool {
    words == BROKE || words == SILENT
}

/// One line that says why no connection could be made or kept.
pub fn plain_error(error: &(dyn Error + 'static)) -> String {
    if let Some(ours) = ConnectError::find(error) {
        return connect(ours);
    }
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(status) = error.downcast_ref::<Status>() {
            return plain_status(status);
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return system(error);
        }
        next = error.source();
    }
    BROKE.to_owned()
}

/// One line that says why a call gave no answer: the words of the handler at the other end, or what became of the connection.
pub fn plain_status(status: &Status) -> String {
    // A handler's refusal comes over the wire and has no source; what a library makes of a broken connection mostly has.
    if let Some(source) = status.source() {
        return plain_error(source);
    }
    let message = status.message();
    match status.code() {
        Code::DeadlineExceeded | Code::Cancelled if message.is_empty() || message == "Timeout expired" => SILENT.to_owned(),
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled if of_library(message) => BROKE.to_owned(),
        Code::Unimplemented if message.is_empty() => "it does not know this call; it is of another version".to_owned(),
        code if message.is_empty() => code.description().to_owned(),
        _ => message.to_owned(),
    }
}

/// Some errors reach us as text only: a stream that was reset, a connection that was told to go away.
fn of_library(message: &str) -> bool {
    let marks =
        ["h2 protocol error", "http2 error", "transport error", "tcp connect error", "grpc-status", "connection closed", "://docs.rs"];
    message.is_empty() || marks.iter().any(|mark| message.contains(mark))
}

fn connect(error: &ConnectError) -> String {
    match error {
        ConnectError::Unreachable { source, .. } => format!("{error}: {}", system(source)),
        ConnectError::WrongAuthority { .. }
        | ConnectError::WrongKind { .. }
        | ConnectError::RefusedByPeer { .. }
        | ConnectError::BadAddress { .. } => error.to_string(),
    }
}

fn system(error: &io::Error) -> String {
    if let Some(words) = error.get_ref().and_then(|inner| inner.downcast_ref::<OwnWords>()) {
        return words.to_string();
    }
    let known = match error.kind() {
        ErrorKind::ConnectionRefused => "nothing listens there (connection refused)",
        ErrorKind::TimedOut => SILENT,
        ErrorKind::UnexpectedEof
        | ErrorKind::ConnectionReset
        | ErrorKind::BrokenPipe
        | ErrorKind::ConnectionAborted
        | ErrorKind::NotConnected => BROKE,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "no route leads there from this machine",
        ErrorKind::NetworkDown => "this machine's network is down",
        ErrorKind::PermissionDenied => "this machine does not let the program connect there (a firewall?)",
        ErrorKind::AddrNotAvailable => "this machine has no address of that kind",
        ErrorKind::InvalidData => "what answers there does not speak TLS as this program does",
        _ => "",
    };
    if !known.is_empty() {
        return known.to_owned();
    }
    let text = error.to_string();
    if text.contains("failed to lookup address") {
        return "the host's name is not known".to_owned();
    }
    match (error.raw_os_error(), error.get_ref()) {
        // The system's own words, such as "Too many open files", without their number.
        (Some(_), _) => text.split(" (os error").next().unwrap_or_default().to_lowercase(),
        // Some library's error in the clothes of an I/O error; what is inside may be known.
        (None, Some(inner)) => plain_error(inner),
        (None, None) => text,
    }
}

/// What this crate itself puts into an I/O error, to be told from what libraries put there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct OwnWords(pub(crate) String);

#[cfg(test)]
mod tests {
    use super::*;

    /// A note on lost contact once carried the address of a page of the TLS library's manual.
    #[test]
    fn a_peer_that_died_in_the_middle_of_a_sentence_is_a_broken_connection() {
        let manual = "peer closed connection without sending TLS close_notify: https://docs.rs/rustls/latest/rustls/manual";
        assert_eq!(plain_error(&io::Error::new(ErrorKind::UnexpectedEof, manual)), BROKE);
        let status = Status::from_error(Box::new(io::Error::new(ErrorKind::UnexpectedEof, manual)));
        assert_eq!(plain_status(&status), BROKE);
        assert_eq!(plain_status(&Status::unknown(format!("transport error: {manual}"))), BROKE);
        assert_eq!(plain_status(&Status::internal("h2 protocol error: http2 error")), BROKE);
    }

    #[test]
    fn what_the_system_says_is_said_without_its_numbers() {
        let refused = ConnectError::Unreachable { address: "a:1".into(), source: io::Error::from_raw_os_error(111) };
        assert_eq!(plain_error(&refused), "cannot reach a:1: nothing listens there (connection refused)");
        assert_eq!(system(&io::Error::from_raw_os_error(24)), "too many open files");
        assert_eq!(
            system(&io::Error::other("failed to lookup address information: Name or service not known")),
            "the host's name is not known"
        );
    }

    #[test]
    fn a_handlers_words_and_our_own_stay() {
        assert_eq!(plain_status(&Status::failed_precondition("output exists")), "output exists");
        assert_eq!(plain_status(&Status::unavailable("no majority answers")), "no majority answers");
        assert_eq!(plain_status(&Status::cancelled("Timeout expired")), SILENT);
        let ours = io::Error::new(ErrorKind::TimedOut, OwnWords("no answer within 3 s".into()));
        assert_eq!(
            plain_error(&ConnectError::Unreachable { address: "a:1".into(), source: ours }),
            "cannot reach a:1: no answer within 3 s"
        );
    }

    #[test]
    fn a_library_in_the_clothes_of_the_system_is_looked_into() {
        let inner = ConnectError::BadAddress { address: "x".into(), reason: "it has no port".into() };
        assert_eq!(plain_error(&io::Error::other(inner)), "`x` is not an address: it has no port");
        assert_eq!(plain_error(&io::Error::other("frame with invalid size")), BROKE);
    }
}
