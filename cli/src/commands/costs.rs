//! `raftwerk costs [import FILE]`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use raftwerk_proto::v1::CostRecord;
use serde_json::json;

use crate::console::Console;
use crate::failure::{Exit, Failure, Outcome};
use crate::target::Target;
use crate::units::counted;
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
    // A file that is none is said before anybody is asked.
    let costs = read(file)?;
    let strange = strange(&costs);
    let taken = target.cluster()?.import_costs(costs).await?;
    if let Some(note) = strange {
        console.note(note);
    }
    if console.is_json() {
        console.json(json!({"file": file, "taken": taken}));
    } else {
        console.note(format!("{} taken from {}", counted(taken, "cost"), file.display()));
    }
    Ok(())
}

/// Costs from a file that `raftwerk costs -o json` or `raftwerk doctor --calibrate -o json` has printed.
pub fn read(file: &Path) -> Result<Vec<CostRecord>, Failure> {
    const FIX: &str = "give a file that `raftwerk costs -o json` or `raftwerk doctor --calibrate -o json` has printed";
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::new(Exit::BadUsage, error).context(format!("cannot read {}", file.display())).fix(FIX))?;
    views::costs::from_json(&text).map_err(|problem| {
        Failure::say(Exit::BadUsage, format!("{}: {}", file.display(), problem.what)).fix(problem.fix.unwrap_or_else(|| FIX.to_owned()))
    })
}

/// Costs of kernels that this build does not have, in this version: they are of use only to a cluster whose workers do.
fn strange(costs: &[CostRecord]) -> Option<String> {
    let known: BTreeSet<String> =
        raftwerk_kernels::registry().iter().map(|kernel| format!("{}@{}", kernel.descriptor().name, kernel.descriptor().version)).collect();
    let unknown: BTreeSet<&str> = costs.iter().map(|cost| cost.kernel.as_str()).filter(|kernel| !known.contains(*kernel)).collect();
    if unknown.is_empty() {
        return None;
    }
    let of = costs.iter().filter(|cost| unknown.contains(cost.kernel.as_str())).count();
    let names = unknown.into_iter().collect::<Vec<_>>().join(", ");
    let (all, are) = (counted(costs.len() as u64, "cost"), if of == 1 { "is" } else { "are" });
    Some(format!("{of} of the {all} {are} of kernels that this build does not have: {names}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_nobody_has_are_told_of() {
        let descriptor = raftwerk_kernels::registry()[0].descriptor();
        let of = |kernel: String| CostRecord { kernel, ..CostRecord::default() };
        let known = of(format!("{}@{}", descriptor.name, descriptor.version));
        assert_eq!(strange(std::slice::from_ref(&known)), None);
        let later = format!("{}@{}", descriptor.name, descriptor.version + 1);
        let said = strange(&[known, of("zebra@1".into()), of(later.clone()), of("zebra@1".into())]);
        assert_eq!(said, Some(format!("3 of the 4 costs are of kernels that this build does not have: {later}, zebra@1")));
    }
}
