//! `cargo xtask sim` and `cargo xtask soak`: the deterministic simulation of the control plane (`tests/README.md`).

use crate::command::{Step, cargo};

/// Of the whole workspace: compiles the simulation as well.
pub const FEATURE: &str = "raftwerk-tests/simulation";
/// The crates that it compiles by itself, as they hold the planted bugs, or code that is generic over what it replaces.
const OPTIMISED: [&str; 3] = ["raftwerk-core", "raftwerk-scheduler", "raftwerk-tests"];
/// The committed summary of the last soak.
const SUMMARY: &str = "tests/soak.txt";

/// Of the whole workspace although one target is wanted, with the features of all other tests: so what others wrote is compiled as for these, which is once.
/// What it makes replaces no program but those of `tests`.
fn made(what: &[&str]) -> Step {
    let features = format!("{FEATURE},{}", crate::FEATURES);
    let optimised = OPTIMISED.iter().flat_map(|package| ["--config".to_owned(), format!("profile.dev.package.{package}.opt-level=2")]);
    cargo(["test", "--locked", "--workspace", "--features", &features]).args(optimised).args(["--test", "simulation"]).args(what)
}

/// The stored seeds and planted bugs, as a part of all tests. A build of its own, because no other may contain the planted bugs.
pub fn test(args: &[String]) -> Result<(), String> {
    made(&[]).args(args).run()
}

/// The program, which cargo makes with the tests of its package, and puts beside this one.
fn bin() -> Result<Step, String> {
    made(&["--quiet", "--no-run"]).run()?;
    let own = std::env::current_exe().map_err(|error| format!("error: cannot tell where this program lies: {error}"))?;
    Ok(Step::new(&own.with_file_name("raftwerk-sim").display().to_string()).in_root())
}

pub fn sim(args: &[String]) -> Result<(), String> {
    bin()?.args(args).run()
}

/// Fresh seeds for as long as told; writes the summary that is committed.
pub fn soak(args: &[String]) -> Result<(), String> {
    if !args.iter().any(|a| a == "--minutes") {
        return Err("error: say for how long: cargo xtask soak --minutes 30".to_owned());
    }
    bin()?.args(["--summary", SUMMARY]).args(args).run()
}
