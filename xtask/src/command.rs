//! Running other programs, and saying which one failed.

use std::process::{Command, Stdio};

pub struct Step {
    program: String,
    args: Vec<String>,
    command: Command,
}

/// The cargo that runs this, in the repository's root.
pub fn cargo<'a>(args: impl IntoIterator<Item = &'a str>) -> Step {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut step = Step::new(&program).args(args).in_root();
    "cargo".clone_into(&mut step.program);
    // `cargo xtask` has set these for us. Build scripts that watch them (ring's does) would take a cargo started from here for another
    // one than the user's own, and both would build everything again in turns.
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_this_package(&name.to_string_lossy())) {
        step.command.env_remove(name);
    }
    step
}

fn is_of_this_package(variable: &str) -> bool {
    variable.starts_with("CARGO_PKG_") || variable.starts_with("CARGO_MANIFEST_") || variable == "CARGO_PRIMARY_PACKAGE"
}

impl Step {
    pub fn new(program: &str) -> Self {
        Self { program: program.to_owned(), args: Vec::new(), command: Command::new(program) }
    }

    pub fn args<T: AsRef<str>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        for arg in args {
            self.command.arg(arg.as_ref());
            self.args.push(arg.as_ref().to_owned());
        }
        self
    }

    pub fn in_root(mut self) -> Self {
        self.command.current_dir(crate::root());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    fn text(&self) -> String {
        format!("{} {}", self.program, self.args.join(" ")).trim_end().to_owned()
    }

    /// Runs it with its output on ours.
    pub fn run(self) -> Result<(), String> {
        println!("$ {}", self.text());
        self.finish()
    }

    /// Runs it, and says so where it does not mix with what it prints.
    pub fn run_for_its_output(self) -> Result<(), String> {
        eprintln!("$ {}", self.text());
        self.finish()
    }

    fn finish(mut self) -> Result<(), String> {
        match self.command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("error: `{}` failed ({status})", self.text())),
            Err(error) => Err(format!("error: cannot start `{}`: {error}", self.text())),
        }
    }

    /// Runs it, and shows what it printed only where it failed.
    pub fn run_in_silence(mut self) -> Result<(), String> {
        let output =
            self.command.stdin(Stdio::null()).output().map_err(|error| format!("error: cannot start `{}`: {error}", self.text()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{}error: `{}` failed ({})", said, self.text(), output.status))
    }

    /// Whether it runs and succeeds, in silence.
    pub fn succeeds(mut self) -> bool {
        let quiet = self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    }
}
