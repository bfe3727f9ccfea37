//! Tests with real child processes. This program is also the executor that they start: with `--device` it runs as one, with the
//! kernels of [`kernels`]; otherwise it runs the tests whose name contains the first argument.
mod agent;
mod cluster;
mod driver;
mod executor;
mod gpu;
mod kernels;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--device") {
        return run_as_executor(arguments);
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-')).cloned().unwrap_or_default();
    let measure = arguments.iter().any(|argument| argument == "--measure");
    let tests = executor::TESTS.iter().chain(gpu::TESTS).chain(agent::TESTS).filter(|(name, _)| !measure && name.contains(&filter));
    let measures = executor::MEASURES.iter().chain(agent::MEASURES).filter(|(name, _)| measure && name.contains(&filter));
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, test) in tests.chain(measures) {
        match catch_unwind(AssertUnwindSafe(test)) {
            Ok(()) => {
                println!("test {name} ... ok");
                passed += 1;
            }
            Err(_) => {
                println!("test {name} ... FAILED");
                failed.push(*name);
            }
        }
    }
    println!("\ntest result: {passed} passed; {} failed {failed:?}", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `--fail REASON` plays a device that does not work, `--built-in` takes the kernels that ship.
fn run_as_executor(mut arguments: Vec<String>) -> ExitCode {
    if let Some(at) = arguments.iter().position(|argument| argument == "--fail") {
        eprintln!("{}", arguments[at + 1]);
        return ExitCode::from(raftwerk_worker::executor::EXIT_SELF_TEST as u8);
    }
    let built_in = arguments.iter().position(|argument| argument == "--built-in").map(|at| arguments.remove(at)).is_some();
    let args = raftwerk_worker::ExecutorArgs::parse(arguments).expect("arguments of an executor");
    let status = match built_in {
        true => raftwerk_worker::executor_main(args),
        false => raftwerk_worker::executor::executor_main_with(args, &kernels::TestKernels),
    };
    ExitCode::from(status as u8)
}

/// A test and its name, which is its promise.
type Named = (&'static str, fn());

/// Lists functions as named tests.
macro_rules! named {
    ($($test:ident),* $(,)?) => { &[$((stringify!($test), $test as fn())),*] };
}
pub(crate) use named;
