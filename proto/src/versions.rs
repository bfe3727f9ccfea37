//! Which builds may speak to each other: the numbers, and how they are compared.
//!
//! | protocol | release | log entries and snapshots it reads |
//! |---|---|---|
//! | 1 | before versions were exchanged | formats 1 and 2 |
//! | 2 | this one | formats 1 to 4 |
//!
//! A build speaks its own protocol version and the one before it. Two that share a version work together.

use crate::v1::Versions;

/// Newest version of the protocol that this build speaks.
pub const PROTOCOL_VERSION: u32 = 2;
/// The oldest. Its peers are the build before this one.
pub const OLDEST_PROTOCOL_VERSION: u32 = 1;
/// What builds that do not send [`Versions`] read.
const FORMAT_OF_PROTOCOL_1: u32 = 2;

/// What this process says of itself; `entry_format` is the newest its code reads, 0 for a process that reads no log. Nothing for a process
/// that stands in for a build which did not know the message.
pub fn own_versions(entry_format: u32) -> Option<Versions> {
    let window = Window::own();
    (window.newest >= 2).then(|| Versions {
        protocol: window.newest,
        oldest_protocol: window.oldest,
        entry_format: own_entry_format(entry_format),
        log_format: 0,
        build: env!("CARGO_PKG_VERSION").into(),
    })
}

/// The newest format of log entries that this process reads, for code that reads up to `newest`.
pub fn own_entry_format(newest: u32) -> u32 {
    match stand_in::protocol() {
        Some(0) => 1,
        Some(1) => FORMAT_OF_PROTOCOL_1.min(newest),
        _ => newest,
    }
}

/// The protocol versions that a process speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub oldest: u32,
    pub newest: u32,
}

impl Window {
    /// Of this process.
    pub fn own() -> Window {
        match stand_in::protocol() {
            // Protocol 1 was the first, and its builds knew no other.
            Some(newest) => Window { oldest: if newest < 2 { newest } else { newest - 1 }, newest },
            None => Window { oldest: OLDEST_PROTOCOL_VERSION, newest: PROTOCOL_VERSION },
        }
    }

    /// Of a peer: what it said, or else the only number that builds before [`Versions`] gave.
    pub fn of(said: Option<&Versions>, only: u32) -> Window {
        match said {
            Some(versions) => Window { oldest: versions.oldest_protocol, newest: versions.protocol },
            None => Window { oldest: only, newest: only },
        }
    }

    /// The newest version that both speak.
    pub fn shared(self, other: Window) -> Option<u32> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.newest - self.oldest.min(self.newest) {
            0 => write!(f, "protocol {}", self.newest),
            _ => write!(f, "protocols {} to {}", self.oldest, self.newest),
        }
    }
}

impl Versions {
    /// What a replica reads that said this, or nothing.
    pub fn reads(said: Option<&Versions>) -> u32 {
        said.map_or(FORMAT_OF_PROTOCOL_1, |versions| versions.entry_format)
    }
}

/// A process of a debug build can stand in for the build of another protocol version, for tests of upgrades: it then says, reads and writes what
/// that one did. `RAFTWERK_STAND_IN_FOR=1` is the build before this one, 0 one that is too old, 3 the next one.
mod stand_in {
    #[cfg(debug_assertions)]
    pub(super) fn protocol() -> Option<u32> {
        static WANTED: std::sync::OnceLock<Option<u32>> = std::sync::OnceLock::new();
        *WANTED.get_or_init(|| std::env::var("RAFTWERK_STAND_IN_FOR").ok()?.parse().ok())
    }

    #[cfg(not(debug_assertions))]
    pub(super) fn protocol() -> Option<u32> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(oldest: u32, newest: u32) -> Window {
        Window { oldest, newest }
    }

    #[test]
    fn neighbours_share_a_version_and_others_do_not() {
        assert_eq!(window(1, 2).shared(window(1, 1)), Some(1));
        assert_eq!(window(1, 1).shared(window(1, 2)), Some(1));
        assert_eq!(window(1, 2).shared(window(2, 3)), Some(2));
        assert_eq!(window(1, 2).shared(window(1, 2)), Some(2));
        assert_eq!(window(1, 1).shared(window(2, 3)), None);
        assert_eq!(window(2, 3).shared(window(0, 0)), None);
    }

    #[test]
    fn what_a_peer_did_not_say_is_what_builds_of_protocol_1_can() {
        assert_eq!(Window::of(None, 1), window(1, 1));
        assert_eq!(Versions::reads(None), 2);
        let said = Versions { protocol: 3, oldest_protocol: 2, entry_format: 4, ..Versions::default() };
        assert_eq!((Window::of(Some(&said), 1), Versions::reads(Some(&said))), (window(2, 3), 4));
    }

    #[test]
    fn a_window_is_told_in_words() {
        assert_eq!(window(1, 1).to_string(), "protocol 1");
        assert_eq!(window(1, 2).to_string(), "protocols 1 to 2");
        assert_eq!(window(3, 1).to_string(), "protocol 1", "also one that makes no sense");
    }
}
