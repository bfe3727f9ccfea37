//! What the other replicas read, as far as they have said.
//!
//! A replica says it at the beginning of its presence stream, and it holds until the stream ends: it is said by one process, and a process does not
//! change. Entries of a new format may be written once every member has said that it reads them. A replica that is just being added counts as a
//! member, and after an agreement none is added that reads less.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use raftwerk_proto::v1::Versions;

#[derive(Clone, Default)]
pub(super) struct Peers(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    /// With the number of the stream. `None`: a build that does not say.
    said: BTreeMap<u64, (u64, Option<Versions>)>,
    streams: u64,
    /// Replicas that are being made members.
    joining: BTreeMap<u64, u32>,
    agreed: u32,
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Until the answer is dropped.
    pub(super) fn hear(&self, id: u64, versions: Option<Versions>) -> Heard {
        let mut known = self.lock();
        known.streams += 1;
        let stream = known.streams;
        known.said.insert(id, (stream, versions));
        Heard { peers: self.clone(), id, stream }
    }

    pub(super) fn agree(&self, own: u32, members: &BTreeSet<u64>, floor: u32) -> u32 {
        let mut known = self.lock();
        let said = members.iter().map(|id| known.said.get(id).map_or(floor, |(_, said)| Versions::reads(said.as_ref())));
        let common = said.chain(known.joining.values().copied()).fold(own, u32::min);
        known.agreed = known.agreed.max(common);
        common
    }

    /// What a new member has to read at the least.
    pub(super) fn needed(&self, log_format: u32) -> u32 {
        self.lock().agreed.max(log_format)
    }

    /// Lets a replica in that reads entries up to `reads`, or says which format it would have to read.
    pub(super) fn admit(&self, id: u64, reads: u32, log_format: u32) -> Result<Joining, u32> {
        let mut known = self.lock();
        let needed = known.agreed.max(log_format);
        if reads < needed {
            return Err(needed);
        }
        known.joining.insert(id, reads);
        Ok(Joining { peers: self.clone(), id })
    }
}

/// What a replica said is forgotten with this.
pub(super) struct Heard {
    peers: Peers,
    id: u64,
    stream: u64,
}

impl Drop for Heard {
    fn drop(&mut self) {
        let mut known = self.peers.lock();
        // A later stream to the same replica may stand already.
        if known.said.get(&self.id).is_some_and(|(stream, _)| *stream == self.stream) {
            known.said.remove(&self.id);
        }
    }
}

/// A replica on its way to be a member.
pub(super) struct Joining {
    peers: Peers,
    id: u64,
}

impl Drop for Joining {
    fn drop(&mut self) {
        self.peers.lock().joining.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(entry_format: u32) -> Option<Versions> {
        Some(Versions { protocol: 2, oldest_protocol: 1, entry_format, ..Versions::default() })
    }

    #[test]
    fn a_format_is_agreed_on_when_every_member_has_said_so_and_still_runs() {
        let (peers, members) = (Peers::default(), BTreeSet::from([2, 3]));
        assert_eq!(peers.agree(3, &members, 2), 2, "nobody has said anything");
        let _two = peers.hear(2, reads(3));
        assert_eq!(peers.agree(3, &members, 2), 2, "one is missing");
        let three = peers.hear(3, reads(3));
        drop(three);
        assert_eq!(peers.agree(3, &members, 2), 2, "what a process said ends with it");
        let earlier = peers.hear(3, reads(3));
        let _three = peers.hear(3, None);
        assert_eq!(peers.agree(3, &members, 2), 2, "a build that does not say reads what such builds do");
        let _three = peers.hear(3, reads(4));
        drop(earlier);
        assert_eq!(peers.agree(3, &members, 2), 3);
        assert_eq!(peers.agree(3, &BTreeSet::new(), 2), 3, "alone at once");
    }

    #[test]
    fn whoever_is_being_added_counts_and_afterwards_nobody_is_added_who_reads_less() {
        let (peers, alone) = (Peers::default(), BTreeSet::new());
        let joining = peers.admit(2, 2, 2).expect("it reads what the log has");
        assert_eq!(peers.agree(3, &alone, 2), 2);
        drop(joining);
        assert_eq!(peers.agree(3, &alone, 2), 3);
        assert_eq!(peers.admit(2, 2, 2).err(), Some(3));
        assert!(peers.admit(2, 3, 3).is_ok());
        assert_eq!(Peers::default().admit(2, 2, 3).err(), Some(3), "the log says so too");
    }
}
