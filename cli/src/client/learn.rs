//! A context learns where the replicas are now.
//!
//! Replicas are replaced, and a context that names only those that are gone is of no use. So when one of its addresses did not answer, or an
//! unknown one led, the list is asked for once, and the context takes it over. It does so only when the answer came from an address that is on the
//! list: who reaches a cluster by other addresses than its replicas do, through a tunnel, knows better. That the context cannot be written is no
//! reason for a command to fail.

use std::collections::BTreeSet;
use std::time::Duration;

use raftwerk_proto::v1::{ClusterView, ShowClusterRequest};

use super::Cluster;
use crate::contexts;

/// A command should not be held up by this.
const PATIENCE: Duration = Duration::from_secs(1);

/// The context that a command goes by, as it was read.
#[derive(Debug)]
pub(super) struct Source {
    name: String,
    addresses: Vec<String>,
}

impl Cluster {
    /// The addresses are those of this context.
    pub fn of_context(mut self, name: String) -> Self {
        self.source = Some(Source { name, addresses: self.addresses.clone() });
        self
    }

    /// Asks the replica that has just answered at `address`.
    pub(super) async fn learn(&mut self, address: &str) {
        let Ok((address, mut client)) = self.client::<()>(address, PATIENCE).await else { return };
        if let Ok(Ok(view)) = tokio::time::timeout(PATIENCE, client.show_cluster(ShowClusterRequest {})).await {
            self.adopt(&address, view.get_ref());
        }
    }

    /// Takes over what the replica at `from` says of the others.
    pub(super) fn adopt(&mut self, from: &str, view: &ClusterView) {
        let Some(addresses) = reachable(from, view) else { return };
        for address in &addresses {
            if !self.addresses.contains(address) {
                self.addresses.push(address.clone());
            }
        }
        let Some(source) = &mut self.source else { return };
        if same(&addresses, &source.addresses) {
            return;
        }
        match contexts::relocate(&source.name, &source.addresses, &addresses) {
            Ok(()) => source.addresses = addresses,
            Err(error) => tracing::debug!("the context {} keeps its addresses: {error:#}", source.name),
        }
    }
}

/// The replicas' addresses, if the one that was asked is among them.
fn reachable(from: &str, view: &ClusterView) -> Option<Vec<String>> {
    let addresses: Vec<String> =
        view.replicas.iter().map(|replica| replica.address.clone()).filter(|address| !address.is_empty()).collect();
    addresses.iter().any(|address| address == from).then_some(addresses)
}

fn same(one: &[String], other: &[String]) -> bool {
    one.iter().collect::<BTreeSet<_>>() == other.iter().collect::<BTreeSet<_>>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::ReplicaView;

    #[test]
    fn a_list_is_taken_over_only_from_an_address_that_is_on_it() {
        let replica = |address: &str| ReplicaView { address: address.into(), ..ReplicaView::default() };
        let view = ClusterView { replicas: vec![replica("h1:7300"), replica(""), replica("h2:7300")], ..ClusterView::default() };
        assert_eq!(reachable("h2:7300", &view), Some(vec!["h1:7300".to_owned(), "h2:7300".to_owned()]));
        assert_eq!(reachable("localhost:17300", &view), None);
        assert_eq!(reachable("h1:7300", &ClusterView::default()), None);
    }

    #[test]
    fn order_is_no_news() {
        let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(same(&list("a b"), &list("b a")) && !same(&list("a b"), &list("a c")));
    }
}
