//! What is said to a process that this one cannot work with.

use raftwerk_proto::Window;
use raftwerk_proto::v1::Versions;

/// Builds that do not say what they speak.
const PROTOCOL_OF_THE_SILENT: u32 = 1;

/// In every text about a log that this process does not read.
const TOO_NEW: &str = "start it with the release that the other replicas run";

/// The order of an upgrade, at the end of every refusal.
const ORDER: &str = "neighbouring releases work together: upgrade one release at a time, schedulers first, then workers";

/// The refusal of a worker, or of a machine that wants to join, that shares no version of the protocol with this process.
pub(crate) fn strangers(who: &str, own: Window, theirs: Window) -> String {
    format!("this cluster speaks {own}, {who} speaks {theirs}; {ORDER}")
}

/// The refusal of a replica that does not read what the log of the cluster has, or may get at any moment.
pub(crate) fn cannot_read(needed: u32, said: Option<&Versions>) -> String {
    format!(
        "the log of this cluster ({}) has entries of format {needed}, and the replica ({}) reads up to format {}; {TOO_NEW}",
        Window::own(),
        Window::of(said, PROTOCOL_OF_THE_SILENT),
        Versions::reads(said)
    )
}

/// Why a replica that reads entries up to `reads` has no place beside another one, which says `said`; nothing if it has.
pub(crate) fn misfits(reads: u32, other: &str, said: Option<&Versions>) -> Option<String> {
    let (own, theirs) = (Window::own(), Window::of(said, PROTOCOL_OF_THE_SILENT));
    if own.shared(theirs).is_none() {
        return Some(format!("this replica speaks {own}, {other} speaks {theirs}; {ORDER}"));
    }
    let log_format = said.map_or(0, |said| said.log_format);
    (log_format > reads).then(|| {
        format!("{other} ({theirs}) has log entries of format {log_format}, and this replica ({own}) reads up to format {reads}; {TOO_NEW}")
    })
}

/// What a replica says that has something in its own log, or snapshot, that it does not read.
pub(crate) fn unreadable(what: &str, found: u32, reads: u32) -> String {
    format!(
        "{what} has format {found}, and this build ({}, {}) reads up to format {reads}; {TOO_NEW}",
        env!("CARGO_PKG_VERSION"),
        Window::own()
    )
}

/// Whether a text with which a replica stopped says that its release is the wrong one.
pub fn is_about_versions(text: &str) -> bool {
    text.contains(TOO_NEW) || text.contains(ORDER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(oldest_protocol: u32, protocol: u32, log_format: u32) -> Versions {
        Versions { protocol, oldest_protocol, entry_format: 9, log_format, build: String::new() }
    }

    #[test]
    fn a_misfit_is_told_both_versions() {
        assert_eq!(misfits(3, "replica 1", None), None, "the build before this one");
        assert_eq!(misfits(3, "replica 1", Some(&said(2, 3, 3))), None);
        let why = misfits(3, "replica 1 at h:1", Some(&said(8, 9, 3))).expect("two strangers");
        assert!(
            why.contains("this replica speaks protocols 1 to 2, replica 1 at h:1 speaks protocols 8 to 9") && is_about_versions(&why),
            "{why}"
        );
        let why = misfits(3, "replica 1", Some(&said(2, 3, 4))).expect("its log is newer");
        assert!(why.contains("entries of format 4") && why.contains("up to format 3") && is_about_versions(&why), "{why}");
    }

    #[test]
    fn other_troubles_are_not_about_versions() {
        assert!(!is_about_versions("log entry 7 fails its checksum"));
        assert!(is_about_versions(&unreadable("log entry 7", 3, 2)));
    }
}
