//! How a command ends: the exit codes scripts rely on, and the one place where errors are printed.

use std::io::Write;

use crate::job_file::JobFileError;
use crate::remedy;

/// Exit codes are part of the interface; `docs/cli.md` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Something this program did not expect.
    Internal = 1,
    /// Bad flags, or a job file that was refused.
    BadUsage = 2,
    JobFailed = 3,
    JobCancelled = 4,
    /// No replica answered, or none answers any more. What became of the job is not known.
    ContactLost = 5,
    /// The cluster answered, and said no: identity, permission, a precondition.
    Refused = 6,
    NotFound = 7,
    /// The job is done, but not with all of its tasks.
    SetAside = 8,
    /// Parts of a result that stays on workers are on none that answers.
    ResultAway = 9,
    /// 128 + SIGINT, as shells count. The job goes on.
    Interrupted = 130,
}

pub type Outcome = Result<(), Failure>;

#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    error: anyhow::Error,
    fix: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into(), fix: None }
    }

    pub fn say(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, error: anyhow::Error::msg(message.into()), fix: None }
    }

    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Adds what was being done; the former message becomes the cause.
    pub fn context(mut self, doing: impl Into<String>) -> Self {
        self.error = self.error.context(doing.into());
        self
    }

    /// `error:`, each cause on its own line, and `fix:` when there is something to do about it.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut last = String::new();
        for cause in self.error.chain() {
            let text = cause.to_string();
            // Some libraries repeat their source in their own text; a person should read it once.
            if !last.is_empty() && (last.contains(&text) || text.is_empty()) {
                continue;
            }
            lines.push(if last.is_empty() { format!("error: {text}") } else { format!("  caused by: {text}") });
            last = text;
        }
        let fix = self.fix.as_deref().or_else(|| remedy::of_chain(self.error.chain()));
        lines.extend(fix.map(|fix| format!("fix: {fix}")));
        lines
    }

    pub fn print(&self) {
        let mut stderr = std::io::stderr().lock();
        for line in self.lines() {
            // A closed stderr leaves nobody to tell.
            let _ = writeln!(stderr, "{}", crate::table::printable_lines(&line));
        }
    }
}

/// Anything without a more telling exit code is internal.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Internal, error)
    }
}

impl From<JobFileError> for Failure {
    fn from(error: JobFileError) -> Self {
        let fix = error.fix.clone();
        Self { exit: Exit::BadUsage, error: error.into(), fix }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_printed_once() {
        let inner = anyhow::anyhow!("connection refused");
        let failure = Failure::new(Exit::ContactLost, inner.context("tcp: connection refused")).context("cannot list jobs").fix("start it");
        assert_eq!(failure.lines(), ["error: cannot list jobs", "  caused by: tcp: connection refused", "fix: start it"]);
    }
}
