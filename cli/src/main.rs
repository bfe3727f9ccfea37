//! The `raftwerk` command: the user's words, tables and progress bars. Decisions about jobs and leases are made elsewhere.
//!
//! ```text
//! commands/   one file per command               job_file/  TOML to job spec, every error with its line
//! client/     calls that survive a change of     views/     what the cluster says, as tables and JSON
//!             leader                             target, contexts, credential  which cluster a command talks to
//! embedded    a whole cluster in this process    console, table, progress, failure  how it looks and how it ends
//! misplaced, remedy          what to do about mistakes that many make, and about errors of the system
//! temporary   what a cluster that was to end with its process leaves when that is killed
//! ```
#![deny(clippy::print_stdout, clippy::print_stderr)] // println! panics when the reader is gone; see `console`

mod args;
mod calendar;
mod client;
mod commands;
mod console;
mod contexts;
mod credential;
mod embedded;
mod failure;
mod job_file;
mod logging;
mod misplaced;
mod progress;
mod remedy;
mod table;
mod target;
mod temporary;
mod units;
mod uploads;
mod views;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::failure::Exit;

fn main() -> ExitCode {
    // An executor confines itself and runs no async code: it must be on its way before a runtime has started threads.
    if let Some(code) = commands::executor::run_if_asked() {
        return code;
    }
    raftwerk_transport::install_crypto();
    match Cli::try_parse() {
        Ok(cli) => args::run(cli),
        Err(said) => {
            let printed = said.print().and_then(|()| std::io::stdout().flush());
            let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
            if let Some(fix) = misplaced::fix(&said, &words) {
                // A closed stderr leaves nobody to tell.
                let _ = writeln!(std::io::stderr(), "fix: {fix}");
            }
            match printed {
                // Help on a full disk is no success; a reader that went away is nobody's fault.
                Err(error) if error.kind() != ErrorKind::BrokenPipe && said.exit_code() == 0 => {
                    let _ = writeln!(std::io::stderr(), "error: {}: {error}", console::NO_STDOUT);
                    ExitCode::from(Exit::Internal as u8)
                }
                _ => ExitCode::from(said.exit_code() as u8),
            }
        }
    }
}
