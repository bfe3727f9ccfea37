//! `cargo xtask sim` and `cargo xtask soak`: the deterministic simulation of the control plane (`tests/README.md`).

use crate::command::cargo;

const BIN: [&str; 7] = ["run", "--quiet", "--locked", "--package", "raftwerk-tests", "--bin", "raftwerk-sim"];
/// The committed summary of the last soak.
const SUMMARY: &str = "tests/soak.txt";

pub fn sim(args: &[String]) -> Result<(), String> {
    cargo(BIN).args(["--"]).args(args).run()
}

/// Fresh seeds for as long as told; writes the summary that is committed.
pub fn soak(args: &[String]) -> Result<(), String> {
    if !args.iter().any(|a| a == "--minutes") {
        return Err("error: say for how long: cargo xtask soak --minutes 30".to_owned());
    }
    cargo(BIN).args(["--", "--summary", SUMMARY]).args(args).run()
}
