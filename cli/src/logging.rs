//! Diagnostics on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// `RAFTWERK_LOG` (as in `info,raftwerk_worker=debug`) wins over `default`; what is wrong with it, if it does not.
pub fn start(default: &str) -> Option<String> {
    let wish = std::env::var("RAFTWERK_LOG").ok().filter(|wish| !wish.is_empty());
    let (filter, wrong) = match wish.map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => {
            (EnvFilter::new(default), Some(format!("RAFTWERK_LOG is passed over: {error}; write it as in info,raftwerk_worker=debug")))
        }
        None => (EnvFilter::new(default), None),
    };
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    // An error means that somebody (a test) listens already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would be said with eprintln!, which panics when nobody reads: a full disk under the log must not end what it tells of.
        .log_internal_errors(false)
        .with_ansi(!no_color && std::io::stderr().is_terminal())
        .try_init();
    wrong
}
