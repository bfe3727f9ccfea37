//! `raftwerk costs [import FILE]`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use raftwerk_proto::v1::CostRecord;
use serde_json::json;

use crate::console::Console;
use crate::failure::{Exit, Failure, Outcome};
use crate::target::Target;
use crate::views;

#[derive(Subcommand, Debug)]
pub enum CostsCommand {
    /// Take over costs that `raftwerk costs -o json` printed, here or on another cluster
    ///
    /// Each takes the place of what is known of the same kernel, parameters, size and model of device. All of them are taken, or none.
    Import {
        /// File with the JSON document
        file: PathBuf,
    },
}

pub async fn costs(console: &Console, target: &Target, command: Option<CostsCommand>) -> Outcome {
    match command {
        None => {
            let view = target.cluster()?.costs().await?;
            if console.is_json() {
                console.json(views::costs::to_json(&view));
            } else {
                views::costs::print(console, &view);
            }
            Ok(())
        }
        Some(CostsCommand::Import { file }) => import(console, target, &file).await,
    }
}

async fn import(console: &Console, target: &Target, file: &Path) -> Outcome {
    let taken = target.cluster()?.import_costs(read(file)?).await?;
    if console.is_json() {
        console.json(json!({"file": file, "taken": taken}));
    } else {
        console.note(format!("{taken} costs taken from {}", file.display()));
    }
    Ok(())
}

/// Costs from a file that `raftwerk costs -o json` or `raftwerk doctor --calibrate -o json` has printed.
pub fn read(file: &Path) -> Result<Vec<CostRecord>, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::new(Exit::BadUsage, error).context(format!("cannot read {}", file.display())))?;
    views::costs::from_json(&text).map_err(|problem| {
        Failure::say(Exit::BadUsage, format!("{}: {problem}", file.display())).fix("give a file that `raftwerk costs -o json` has printed")
    })
}
