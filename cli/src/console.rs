//! Where output goes: data on stdout, progress and notes on stderr.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::Mutex;

use serde_json::{Map, Value};

use crate::failure::{Exit, Failure, Outcome};
use crate::table::Table;

/// Version of every JSON document this program prints; it grows when a key changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// What is said when data cannot be printed.
pub const NO_STDOUT: &str = "cannot write to standard output";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Json,
}

pub struct Console {
    pub format: Format,
    pub quiet: bool,
    colour: bool,
    /// The first error on stdout. Output after it is dropped: a reader that went away (`| head`) is no reason to panic or to stop
    /// half-way through cleaning up.
    broken: Mutex<Option<io::Error>>,
}

impl Console {
    pub fn new(format: Format, quiet: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = !no_color && io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { format, quiet, colour, broken: Mutex::new(None) }
    }

    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    fn write(&self, text: &str) {
        let mut broken = self.broken.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if broken.is_none() {
            let mut stdout = io::stdout().lock();
            *broken = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).err();
        }
    }

    /// One line of data.
    pub fn line(&self, line: impl Display) {
        self.write(&format!("{line}\n"));
    }

    pub fn table(&self, table: &Table) {
        self.write(&table.render(self.colour));
    }

    /// One JSON document: the fields of `document` and `schema`.
    pub fn json(&self, document: Value) {
        self.write(&format!("{:#}\n", with_schema(document)));
    }

    /// The same on one line, for a reader that takes line by line.
    pub fn json_line(&self, document: Value) {
        self.write(&format!("{}\n", with_schema(document)));
    }

    /// A remark for the person, not part of the data.
    pub fn note(&self, note: impl Display) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "{note}");
        }
    }

    /// To be called when a command is through: a full disk behind `> file` must not look like success.
    pub fn close(&self) -> Outcome {
        match self.broken.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take() {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::new(Exit::Internal, error)
                .context(NO_STDOUT)
                .fix("make room where standard output goes, or send it elsewhere")),
            _ => Ok(()),
        }
    }
}

fn with_schema(document: Value) -> Value {
    let mut whole = Map::new();
    whole.insert("schema".to_owned(), SCHEMA.into());
    match document {
        Value::Object(fields) => whole.extend(fields),
        other => {
            whole.insert("value".to_owned(), other);
        }
    }
    Value::Object(whole)
}
