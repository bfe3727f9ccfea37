//! Chores of this repository: `cargo xtask test`, `check`, `chaos`, `fix`.
//!
//! No dependencies, so that the first command a newcomer types starts within seconds.

mod command;
mod programs;
mod sample_data;
mod simulation;
mod vulkan;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use command::{Step, cargo};
use vulkan::SoftwareVulkan;

const USAGE: &str = "\
cargo xtask test [NAME]     build everything and run all tests, or those whose name contains NAME
cargo xtask test -- ARGS    what `cargo test` makes of ARGS (--test chaos, --package raftwerk-core, ..)
cargo xtask check           format, lints, documentation, licences and tests; writes nothing into the tree
cargo xtask lint            the same without the tests
cargo xtask chaos [FLAGS]   break a real cluster while jobs run and check what its clients were told; --help tells the flags
cargo xtask sim --seeds N   N seeds of the deterministic simulation, from --from S on; --planted all shows that it can see
cargo xtask soak --minutes M fresh seeds as long as told; writes tests/soak.txt
cargo xtask fix             what `check` would complain about and a program can repair
cargo xtask gpu-report [FLAGS] what this machine's GPUs do with the kernels, as Markdown; --json FILE, --help
cargo xtask sample-data     write examples/data again (deterministic)";

/// Off in builds for users, for it costs them compile time; on in whatever is tested and linted, so that one variant is compiled and nothing is left out.
const FEATURES: &str = "raftwerk/parquet,raftwerk/object-stores,raftwerk/flight,raftwerk-tests/object-stores,raftwerk-tests/flight";
/// The same for the program alone.
const OF_PROGRAM: &str = "parquet,object-stores,flight";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let task = args.next().unwrap_or_default();
    let rest: Vec<String> = args.skip_while(|arg| arg == "--").collect();
    let outcome = match task.as_str() {
        "test" => test(&rest),
        programs::NOTE => programs::note(&rest),
        "check" => lint().and_then(|()| test(&rest)),
        "lint" => lint(),
        "chaos" => chaos(&rest),
        "sim" => simulation::sim(&rest),
        "soak" => simulation::soak(&rest),
        "fix" => fix(),
        "gpu-report" => gpu_report(&rest),
        "sample-data" => sample_data::write(&root()),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// The repository, wherever this was called from.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// All tests in one profile. The cluster tests start the `raftwerk` binary: with the tests of the whole workspace it is built because its own tests
/// need it too; where flags choose some of them it is built before, with fewer features of what others wrote, and so a second time.
/// The simulation comes last: its build puts other programs where those of `tests` lie.
fn test(args: &[String]) -> Result<(), String> {
    let gpu = vulkan::ensure();
    println!("{gpu}");
    if let SoftwareVulkan::Missing { .. } = gpu
        && std::env::var("CI").is_ok_and(|value| value == "true")
    {
        return Err("error: CI=true, and the GPU tests cannot run: an untested twin must not look tested".to_owned());
    }
    // With an adapter on the machine, a test that finds none has found a bug.
    let required = matches!(gpu, SoftwareVulkan::Present { .. }).then_some(("RAFTWERK_REQUIRE_GPU", "1"));
    // Flags choose targets of the workspace.
    if args.iter().any(|arg| arg.starts_with('-')) {
        cargo(["build", "--locked", "--package", "raftwerk", "--features", OF_PROGRAM]).run()?;
        let mut tests = cargo(["test", "--locked", "--workspace", "--features", FEATURES]);
        if let Some((name, value)) = required {
            tests = tests.env(name, value);
        }
        return tests.args(args).run();
    }
    programs::run(&["--features", FEATURES], args, required)?;
    cargo(["test", "--locked", "--workspace", "--features", FEATURES, "--doc"]).args(args).run()?;
    simulation::test(args)
}

/// Builds the program under test and the one that breaks it, in the same profile.
fn chaos(args: &[String]) -> Result<(), String> {
    cargo(["build", "--locked", "--package", "raftwerk", "--features", OF_PROGRAM]).run()?;
    cargo(["run", "--quiet", "--locked", "--package", "raftwerk-tests", "--bin", "raftwerk-chaos", "--"]).args(args).run()
}

/// In release builds: a debug build's figures say nothing.
fn gpu_report(args: &[String]) -> Result<(), String> {
    cargo(["build", "--release", "--locked", "--package", "raftwerk", "--package", "raftwerk-bench"]).run_for_its_output()?;
    cargo(["run", "--quiet", "--release", "--locked", "--package", "raftwerk-bench", "--", "gpu-report"]).args(args).run_for_its_output()
}

fn lint() -> Result<(), String> {
    cargo(["fmt", "--all", "--check"]).run()?;
    let features = format!("{},{FEATURES}", simulation::FEATURE);
    cargo(["clippy", "--locked", "--workspace", "--all-targets", "--features", &features, "--", "-D", "warnings"]).run()?;
    cargo(["doc", "--locked", "--workspace", "--no-deps", "--features", &features]).env("RUSTDOCFLAGS", "-D warnings").run()?;
    licences()
}

/// `cargo deny` is not part of Rust; where it is missing the rest of the check still counts.
fn licences() -> Result<(), String> {
    if !Step::new("cargo").args(["deny", "--version"]).succeeds() {
        println!("licences and sources: skipped, `cargo deny` is not installed (cargo install --locked cargo-deny)");
        return Ok(());
    }
    cargo(["deny", "--locked", "check", "bans", "licenses", "sources"]).run()
}

fn fix() -> Result<(), String> {
    let features = format!("{},{FEATURES}", simulation::FEATURE);
    cargo(["clippy", "--workspace", "--all-targets", "--features", &features, "--fix", "--allow-dirty", "--allow-staged"]).run()?;
    cargo(["fmt", "--all"]).run()
}
