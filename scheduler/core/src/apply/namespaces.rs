//! What operators let namespaces have.

use super::{Entry, Outcome, SHARES};
use crate::namespace::{MAX_SET, MAX_WEIGHT, check_name};
use crate::state::State;
use raftwerk_proto::v1::SetNamespace;

impl State {
    pub(super) fn set_namespace(&mut self, set: SetNamespace, entry: &Entry) -> Outcome {
        if entry.format < SHARES {
            return Outcome::Refused(format!("terms of namespaces need entries of format {SHARES}"));
        }
        if let Err(reason) = check_name(&set.name) {
            return Outcome::Refused(reason);
        }
        let terms = set.terms.unwrap_or_default();
        if terms.weight > MAX_WEIGHT {
            return Outcome::Refused(format!("weight is {}; use 1 to {MAX_WEIGHT}", terms.weight));
        }
        let known = self.namespaces.get(&set.name).is_some_and(|n| n.terms.is_some());
        if !known && self.namespaces.values().filter(|n| n.terms.is_some()).count() >= MAX_SET {
            return Outcome::Refused(format!("terms are set for {MAX_SET} namespaces already"));
        }
        self.namespaces.entry(set.name).or_default().terms = Some(terms);
        Outcome::Done
    }
}
