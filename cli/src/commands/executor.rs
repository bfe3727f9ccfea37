//! The executor child process: `raftwerk executor --device D --threads N`, started by an agent and by nobody else.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use raftwerk_worker::{ExecutorArgs, executor_main};

use crate::failure::{Exit, Failure};

const SUBCOMMAND: &str = "executor";

/// This very program, which the agent starts again as its executors.
pub fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::new(Exit::Internal, error).context("cannot tell where this program lies"))
}

/// What stands before the arguments that the agent adds.
pub fn args_prefix() -> Vec<String> {
    vec![SUBCOMMAND.to_owned()]
}

/// Runs the executor when that is what this process was started for. Parsed by hand: the executor is started for every device of every
/// worker, and must not depend on what the command line for people looks like.
pub fn run_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    if args.next()? != SUBCOMMAND {
        return None;
    }
    let status = match ExecutorArgs::parse(args) {
        Ok(args) => executor_main(args),
        Err(reason) => {
            let _ = writeln!(std::io::stderr(), "error: {reason}\nfix: executors are started by `raftwerk worker`, not by hand");
            Exit::BadUsage as i32
        }
    };
    Some(ExitCode::from(u8::try_from(status).unwrap_or(Exit::Internal as u8)))
}
