//! Runs the binary with nothing of the caller's environment that could point it at a cluster.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub struct Home(pub TempDir);

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    }

    /// The binary with nothing of the caller's environment that could point it at a cluster.
    pub fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_raftwerk"));
        for variable in ["RAFTWERK_ADDRESS", "RAFTWERK_CREDENTIAL", "RAFTWERK_CONTEXT", "RAFTWERK_JOIN_TOKEN", "RAFTWERK_LOG"] {
            command.env_remove(variable);
        }
        command.env("RAFTWERK_CONFIG", self.path().join("contexts.toml")).env("TMPDIR", self.path());
        command.current_dir(self.path()).args(line).stdin(Stdio::null());
        command
    }

    pub fn run(&self, line: &[&str]) -> Output {
        self.command(line).output().unwrap()
    }
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub fn json(output: &Output) -> Value {
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(document["schema"], 1, "{document}");
    document
}

#[track_caller]
pub fn assert_exit(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "stdout: {}\nstderr: {}", stdout(output), stderr(output));
}
