//! What operators let namespaces have.

use super::batch::Waiter;
use super::{Answer, Effect, Leader, RequestId};
use raftwerk_core::State;
use raftwerk_core::namespace::check_name;
use raftwerk_proto::v1::{NamespaceTerms, SetNamespace, command::Command};

impl Leader {
    pub(super) fn on_set_namespace(
        &mut self,
        state: &State,
        request: RequestId,
        name: String,
        terms: NamespaceTerms,
        effects: &mut Vec<Effect>,
    ) {
        let answer = if let Err(reason) = check_name(&name) {
            Answer::Refused(reason)
        } else if !self.all_know_shares(state) {
            Answer::Precondition("not before every replica runs this release; `raftwerk cluster show` tells which does not".into())
        } else {
            let command = SetNamespace { name, terms: Some(terms) };
            return self.batch.push(Command::SetNamespace(command), Waiter::Set(request));
        };
        effects.push(Effect::Answer { request, answer });
    }
}
