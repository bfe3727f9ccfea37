//! `raftwerk namespace list | set`.

use clap::{Args, Subcommand};
use raftwerk_proto::v1::NamespaceTerms;
use serde_json::json;

use crate::client::Cluster;
use crate::console::Console;
use crate::failure::{Exit, Failure, Outcome};
use crate::target::Target;
use crate::views;

#[derive(Subcommand, Debug)]
pub enum NamespaceCommand {
    /// List namespaces that have terms or had a job lately
    List,
    /// Say what a namespace may have beside others
    ///
    /// Terms that are not given keep their values. They hold for jobs that run already as well, from the next lease on.
    Set(Set),
}

#[derive(Args, Debug)]
pub struct Set {
    /// As `[job] namespace` of a job file has it
    name: String,
    /// Share of the devices where others want the same: 3 gets three times what 1 gets [default: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    weight: Option<u32>,
    /// Jobs that have not ended, beyond which a submit is refused; 0 for no limit [default: 0]
    #[arg(long, value_name = "N")]
    max_jobs: Option<u32>,
    /// Devices that work for it at once; 0 for no limit [default: 0]
    #[arg(long, value_name = "N")]
    max_devices: Option<u32>,
}

pub async fn namespace(console: &Console, target: &Target, command: NamespaceCommand) -> Outcome {
    let cluster = target.cluster()?;
    match command {
        NamespaceCommand::List => list(console, cluster).await,
        NamespaceCommand::Set(terms) => set(console, cluster, terms).await,
    }
}

async fn list(console: &Console, mut cluster: Cluster) -> Outcome {
    let namespaces = cluster.namespaces().await?;
    if console.is_json() {
        console.json(json!({"namespaces": namespaces.iter().map(views::namespace::to_json).collect::<Vec<_>>()}));
    } else if namespaces.is_empty() {
        console.note("no namespace has terms or a job");
    } else {
        console.table(&views::namespace::list(&namespaces));
    }
    Ok(())
}

async fn set(console: &Console, mut cluster: Cluster, set: Set) -> Outcome {
    let Set { name, weight, max_jobs, max_devices } = set;
    if (weight, max_jobs, max_devices) == (None, None, None) {
        return Err(Failure::say(Exit::BadUsage, "nothing to set").fix("give --weight, --max-jobs or --max-devices"));
    }
    let before = cluster.namespaces().await?.into_iter().find(|view| view.name == name).and_then(|view| view.terms).unwrap_or_default();
    let terms = NamespaceTerms {
        weight: weight.unwrap_or(before.weight.max(1)),
        max_jobs: max_jobs.unwrap_or(before.max_jobs),
        max_devices: max_devices.unwrap_or(before.max_devices),
    };
    cluster.set_namespace(name.clone(), terms).await?;
    if console.is_json() {
        console.json(json!({"name": name, "weight": terms.weight, "max_jobs": terms.max_jobs, "max_devices": terms.max_devices}));
    } else {
        let limit = |n: u32| if n == 0 { "no limit".to_owned() } else { n.to_string() };
        console.note(format!(
            "namespace {name}: weight {}, jobs {}, devices {}",
            terms.weight,
            limit(terms.max_jobs),
            limit(terms.max_devices)
        ));
    }
    Ok(())
}
