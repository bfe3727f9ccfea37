//! Costs that somebody brings: exported from another cluster, or from this one before it was made anew.

use super::{Entry, LEARNING, Outcome};
use crate::cost::CostModel;
use crate::state::State;
use raftwerk_proto::v1::ImportCosts;

impl State {
    /// All of them or none. What was learnt here under the same key is replaced.
    pub(super) fn import_costs(&mut self, import: ImportCosts, entry: &Entry) -> Outcome {
        if entry.format < LEARNING {
            return Outcome::Refused(format!("costs are known to entries of format {LEARNING} and later"));
        }
        match CostModel::from_wire(import.costs) {
            Ok(brought) => {
                self.costs.take_in(brought, self.applied_index);
                Outcome::Done
            }
            Err(reason) => Outcome::Refused(reason),
        }
    }
}
