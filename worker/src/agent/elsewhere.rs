//! A data directory belongs to one cluster; the addresses that somebody types may belong to another.
//!
//! The cluster's own list of schedulers, which lies in the data directory, is newer than the command line of a service that was written once, so
//! it comes first, and an old address on that line must not end a worker that has work to do. But whoever starts a worker with addresses that
//! are of another cluster altogether, while nobody of its own answers, has mixed up two clusters and wants to hear it now.
use super::connection::Failed;
use raftwerk_transport::{ConnectError, Identity, PeerKind, connect};
use std::{collections::BTreeMap, path::Path};

/// What became of addresses since a scheduler was last found.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    failed: BTreeMap<String, Failed>,
    /// A leader has welcomed this process once.
    found: bool,
}

impl Tried {
    pub(crate) fn failed(&mut self, failed: Failed) {
        self.failed.insert(failed.address.clone(), failed);
    }

    pub(crate) fn answered(&mut self, address: &str) {
        self.failed.remove(address);
    }

    /// Whether this was the first time.
    pub(crate) fn found(&mut self) -> bool {
        self.failed.clear();
        !std::mem::replace(&mut self.found, true)
    }

    /// Why it makes no sense to go on; `given` are those of the `addresses` that were typed.
    pub(crate) fn hopeless(&self, addresses: &[String], given: &[String]) -> Option<String> {
        let never = |address: &String| self.failed.get(address).is_some_and(|failed| failed.hopeless);
        let reasons = |of: &mut dyn Iterator<Item = &String>| {
            of.filter_map(|address| self.failed.get(address)).map(|failed| failed.reason.clone()).collect::<Vec<_>>().join("; ")
        };
        if addresses.iter().all(never) {
            return Some(reasons(&mut addresses.iter()));
        }
        if self.found || !given.iter().all(never) || !addresses.iter().all(|address| self.failed.contains_key(address)) {
            return None;
        }
        let own = reasons(&mut addresses.iter().filter(|address| !given.contains(address)));
        Some(format!("{}; and no scheduler that it knows answers: {own}", reasons(&mut given.iter())))
    }
}

/// Says so when addresses that were typed belong to another cluster than the one this worker has just been welcomed by: they were not needed,
/// and whoever typed them expects the worker there.
pub(crate) async fn warn_of_others(given: Vec<String>, identity: Identity, dir: &Path) {
    let mut others = Vec::new();
    for address in given {
        if let Err(ConnectError::WrongAuthority { address }) = connect(&address, &identity, PeerKind::Scheduler).await {
            others.push(address);
        }
    }
    if !others.is_empty() {
        tracing::warn!(
            "this worker works for cluster {}, to which {} belongs; {} of --join belongs to another cluster and is not used. To work for that \
             cluster, start with an empty data directory and its join token",
            identity.cluster(),
            dir.display(),
            others.join(", ")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "own:1";
    const TYPED: &str = "typed:1";

    fn failed(address: &str, hopeless: bool) -> Failed {
        let reason = if hopeless { format!("{address} belongs to another cluster") } else { format!("cannot reach {address}") };
        Failed { address: address.into(), hopeless, reason }
    }

    fn all() -> (Vec<String>, Vec<String>) {
        (vec![OWN.into(), TYPED.into()], vec![TYPED.into()])
    }

    #[test]
    fn typed_addresses_of_another_cluster_are_the_end_once_every_own_one_was_tried() {
        let (addresses, given) = all();
        let mut tried = Tried::default();
        tried.failed(failed(TYPED, true));
        assert_eq!(tried.hopeless(&addresses, &given), None, "a scheduler of its own may be there");
        tried.failed(failed(OWN, false));
        let said = tried.hopeless(&addresses, &given).expect("the end");
        assert_eq!(said, "typed:1 belongs to another cluster; and no scheduler that it knows answers: cannot reach own:1");
        tried.answered(OWN);
        assert_eq!(tried.hopeless(&addresses, &given), None);
    }

    #[test]
    fn a_worker_that_had_a_session_outlives_an_old_address_on_its_command_line() {
        let (addresses, given) = all();
        let mut tried = Tried::default();
        assert!(tried.found() && !tried.found());
        tried.failed(failed(TYPED, true));
        tried.failed(failed(OWN, false));
        assert_eq!(tried.hopeless(&addresses, &given), None);
        tried.failed(failed(OWN, true));
        let said = tried.hopeless(&addresses, &given).expect("nobody will ever take it");
        assert_eq!(said, "own:1 belongs to another cluster; typed:1 belongs to another cluster");
    }

    #[test]
    fn silence_alone_is_never_the_end() {
        let (addresses, given) = all();
        let mut tried = Tried::default();
        tried.failed(failed(TYPED, false));
        tried.failed(failed(OWN, false));
        assert_eq!(tried.hopeless(&addresses, &given), None);
    }
}
