//! `cargo xtask sim` and `cargo xtask soak`: the deterministic simulation of the control plane (`tests/README.md`).

use crate::command::{Step, cargo};

/// Of the whole workspace: compiles the simulation as well.
pub const FEATURE: &str = "raftwerk-tests/simulation";
// With the features of all other tests: what others wrote, and kernels, need not be compiled a second time.
const PACKAGE: [&str; 5] = [
    "--locked",
    "--package",
    "raftwerk-tests",
    "--features",
    "raftwerk-tests/simulation,raftwerk-tests/parquet,raftwerk-tests/object-stores,raftwerk-tests/flight",
];
const BIN: [&str; 2] = ["--bin", "raftwerk-sim"];
/// The committed summary of the last soak.
const SUMMARY: &str = "tests/soak.txt";

/// The stored seeds and planted bugs, as a part of all tests. A build of its own, because no other may contain the planted bugs.
pub fn test(args: &[String]) -> Result<(), String> {
    cargo(["test"]).args(PACKAGE).args(["--test", "simulation"]).args(args).run()
}

fn bin() -> Step {
    cargo(["run", "--quiet"]).args(PACKAGE).args(BIN)
}

pub fn sim(args: &[String]) -> Result<(), String> {
    bin().args(["--"]).args(args).run()
}

/// Fresh seeds for as long as told; writes the summary that is committed.
pub fn soak(args: &[String]) -> Result<(), String> {
    if !args.iter().any(|a| a == "--minutes") {
        return Err("error: say for how long: cargo xtask soak --minutes 30".to_owned());
    }
    bin().args(["--", "--summary", SUMMARY]).args(args).run()
}
