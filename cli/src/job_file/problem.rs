//! What is wrong with a job file, and where.

use std::fmt;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The file as a whole: something is missing.
    File,
    /// Counted from 1.
    Line(usize),
    /// The flag as the user typed it, for example `--set reduce.partitions=0`.
    Flag(String),
}

/// One thing wrong, before the file's name is known.
#[derive(Clone, Debug)]
pub struct Problem {
    pub origin: Origin,
    pub message: String,
    pub fix: Option<String>,
}

impl Problem {
    pub fn new(origin: Origin, message: impl Into<String>) -> Self {
        Self { origin, message: message.into(), fix: None }
    }

    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    pub fn in_file(self, file: &str) -> JobFileError {
        let place = match self.origin {
            Origin::File => file.to_owned(),
            Origin::Line(line) => format!("{file}:{line}"),
            Origin::Flag(flag) => flag,
        };
        JobFileError { place, message: self.message, fix: self.fix }
    }
}

/// A job file that was refused: `examples/x.toml:12: [reduce] partitions must be at least 1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFileError {
    /// `file:line`, the file, or the flag.
    pub place: String,
    pub message: String,
    pub fix: Option<String>,
}

impl fmt::Display for JobFileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.message)
    }
}

impl std::error::Error for JobFileError {}
