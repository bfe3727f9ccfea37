//! `raftwerk cluster show`.

use clap::Subcommand;

use crate::console::Console;
use crate::failure::Outcome;
use crate::target::Target;
use crate::views;

#[derive(Subcommand, Debug)]
pub enum ClusterCommand {
    /// Show replicas, leader, term, and the positions of log and snapshot
    Show,
}

pub async fn cluster(console: &Console, target: &Target, command: ClusterCommand) -> Outcome {
    let ClusterCommand::Show = command;
    let survey = target.cluster()?.survey().await?;
    if console.is_json() {
        console.json(views::cluster::to_json(&survey));
    } else {
        views::cluster::print(console, &survey);
    }
    Ok(())
}
