//! Runs the test programs of the workspace, several beside each other.
//!
//! `cargo test` runs one after the other, and most of ours wait most of their time: for a process to end, a lease to run out, a disk. What to run, in
//! which directory and with which variables is still for cargo to say: it is asked to run this program in their place, which notes what it was given.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant};

use crate::command::cargo;

/// How many run beside each other, whatever the machine has: each uses as many threads as there are cores.
const MOST: usize = 4;
/// After so long without one that ended, a line says what still runs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Says how many run beside each other instead.
const VARIABLE: &str = "XTASK_TEST_PROGRAMS";
/// What cargo is told to run in place of a test program: this, with where to note it.
pub const NOTE: &str = "note-program";

/// All that `cargo test --tests` of these arguments builds, and all of them to their ends, whichever fails.
pub fn run(cargo_args: &[&str], filter: &[String], variable: Option<(&str, &str)>) -> Result<(), String> {
    let lanes = lanes()?;
    let of = |more: &[&str]| cargo(["test", "--locked", "--workspace", "--tests"]).args(cargo_args).args(more);
    of(&["--no-run"]).run()?;
    let own = std::env::current_exe().map_err(|error| format!("error: cannot tell where this program lies: {error}"))?;
    let place = own.with_file_name(format!("test-programs-{}", std::process::id()));
    let failed = |error: io::Error| format!("error: {}: {error}", place.display());
    // What a process of the same number has left is another build's.
    fs::remove_dir_all(&place).or_else(absent_is_fine).and_then(|()| fs::create_dir_all(&place)).map_err(failed)?;
    let runner = format!("target.'cfg(all())'.runner = [{}, {NOTE:?}, {}]", quoted(&own), quoted(&place));
    let mut asked = of(&["--config", &runner]).args(filter);
    if let Some((name, value)) = variable {
        asked = asked.env(name, value);
    }
    asked.run_in_silence()?;
    let programs = Program::noted_in(&place).map_err(failed)?;
    fs::remove_dir_all(&place).map_err(failed)?;
    if programs.is_empty() {
        return Err("error: cargo did not ask how to run the test programs; a `runner` for this target, in a configuration of cargo or \
                    CARGO_TARGET_.._RUNNER, keeps it from that: unset it, or run `cargo xtask test -- --tests`"
            .to_owned());
    }
    beside_each_other(&programs, lanes)
}

fn lanes() -> Result<usize, String> {
    match std::env::var(VARIABLE) {
        Ok(text) => (text.parse().ok().filter(|lanes| *lanes > 0))
            .ok_or(format!("error: {VARIABLE}={text}: say how many test programs run beside each other, 1 or more")),
        Err(_) => Ok(std::thread::available_parallelism().map_or(1, usize::from).min(MOST)),
    }
}

/// A string of TOML.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('\\', "\\\\").replace('"', "\\\""))
}

fn absent_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// What cargo calls for each test program: `note-program DIRECTORY PROGRAM ARGS..`.
pub fn note(args: &[String]) -> Result<(), String> {
    let [place, command @ ..] = args else { return Err(format!("error: {NOTE} is for cargo to call")) };
    let place = Path::new(place);
    let noted = std::env::current_dir().and_then(|directory| {
        let command = command.iter().map(OsString::from).collect();
        let program = Program { directory, command, variables: std::env::vars_os().collect() };
        // cargo calls for one after the other.
        let number = fs::read_dir(place)?.count();
        fs::write(place.join(format!("{number:04}")), program.to_bytes())
    });
    noted.map_err(|error| format!("error: {}: {error}", place.display()))
}

#[derive(Debug, PartialEq)]
struct Program {
    directory: PathBuf,
    /// The program and its arguments.
    command: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
}

impl Program {
    /// Fields that a NUL ends, as none of them holds one: the directory, how many words the command has, these, and the variables.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut field = |parts: &[&OsStr]| {
            parts.iter().for_each(|part| bytes.extend_from_slice(part.as_bytes()));
            bytes.push(0);
        };
        field(&[self.directory.as_os_str()]);
        field(&[OsStr::new(&self.command.len().to_string())]);
        self.command.iter().for_each(|word| field(&[word]));
        self.variables.iter().for_each(|(name, value)| field(&[name, OsStr::new("="), value]));
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = bytes.strip_suffix(&[0])?.split(|byte| *byte == 0);
        let directory = PathBuf::from(OsStr::from_bytes(fields.next()?));
        let words: usize = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let command: Vec<_> = fields.by_ref().take(words).map(|word| OsString::from_vec(word.to_vec())).collect();
        let variables = fields.map(|field| {
            let at = field.iter().position(|byte| *byte == b'=')?;
            Some((OsString::from_vec(field[..at].to_vec()), OsString::from_vec(field[at + 1..].to_vec())))
        });
        let variables = variables.collect::<Option<_>>()?;
        (words > 0 && command.len() == words).then_some(Self { directory, command, variables })
    }

    fn noted_in(place: &Path) -> io::Result<Vec<Self>> {
        let count = fs::read_dir(place)?.count();
        (0..count)
            .map(|number| {
                let bytes = fs::read(place.join(format!("{number:04}")))?;
                Self::from_bytes(&bytes).ok_or_else(|| io::Error::other(format!("{number:04} is not a note of a test program")))
            })
            .collect()
    }

    fn executable(&self) -> &Path {
        Path::new(&self.command[0])
    }

    /// Where its output goes as it comes.
    fn log(&self) -> PathBuf {
        self.executable().with_extension("log")
    }

    /// To its end, with its output in a file and not in a pipe, which a process that it leaves behind would keep open. Whether it succeeded, and its output.
    fn run(&self) -> io::Result<(bool, Vec<u8>)> {
        // What a run before has left behind may write on into its own.
        fs::remove_file(self.log()).or_else(absent_is_fine)?;
        let output = File::create(self.log())?;
        let status = Command::new(self.executable())
            .args(&self.command[1..])
            .current_dir(&self.directory)
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(std::process::Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .status()?;
        let mut output = fs::read(self.log())?;
        if !status.success() {
            output.extend_from_slice(format!("error: {self}: {status}\n").as_bytes());
        }
        Ok((status.success(), output))
    }
}

impl fmt::Display for Program {
    /// `tests/chaos`: its package and what it is called without cargo's hash.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let package = self.directory.strip_prefix(crate::root()).unwrap_or(&self.directory);
        let stem = self.executable().file_stem().unwrap_or_default().to_string_lossy();
        write!(to, "{}/{}", package.display(), stem.rsplit_once('-').map_or(&*stem, |(name, _)| name))
    }
}

struct Ended {
    at: usize,
    success: bool,
    took: Duration,
    output: Vec<u8>,
}

fn beside_each_other(programs: &[Program], lanes: usize) -> Result<(), String> {
    let lost = |error: io::Error| format!("error: standard output: {error}");
    let mut out = io::stdout();
    writeln!(out, "{} test programs, {lanes} beside each other ({VARIABLE}=1: one after the other)", programs.len()).map_err(lost)?;
    let begun = Instant::now();
    let next = AtomicUsize::new(0);
    let running = Mutex::new(Vec::new());
    let (ended, endings) = mpsc::channel();
    let (mut counts, mut failed) = (Counts::default(), Vec::new());
    let told = std::thread::scope(|scope| {
        for _ in 0..lanes {
            let (ended, next, running) = (ended.clone(), &next, &running);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(program) = programs.get(at) else { return };
                    let begun = Instant::now();
                    held(running).push((at, begun));
                    let cannot = |error| (false, format!("error: cannot run {}: {error}\n", program.executable().display()).into_bytes());
                    let (success, output) = program.run().unwrap_or_else(cannot);
                    held(running).retain(|(other, _)| *other != at);
                    let _ = ended.send(Ended { at, success, took: begun.elapsed(), output });
                }
            });
        }
        drop(ended);
        let mut tell = || -> io::Result<()> {
            loop {
                match endings.recv_timeout(PATIENCE) {
                    Ok(one) => {
                        counts.add(&String::from_utf8_lossy(&one.output));
                        if !one.success {
                            failed.push(one.at);
                        }
                        let program = &programs[one.at];
                        writeln!(out, "\n     Ran {program} in {:.1} s ({})", one.took.as_secs_f64(), program.executable().display())?;
                        out.write_all(&one.output)?;
                    }
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        for (at, since) in held(&running).iter() {
                            let program = &programs[*at];
                            writeln!(
                                out,
                                "     Running {program} for {} s; output: {}",
                                since.elapsed().as_secs(),
                                program.log().display()
                            )?;
                        }
                    }
                    Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
                }
            }
        };
        let told = tell();
        // Nobody reads on: what runs ends, and no more begins.
        next.store(programs.len(), Ordering::Relaxed);
        told
    });
    told.map_err(lost)?;
    writeln!(out, "\n{} test programs in {:.0} s: {counts}", programs.len(), begun.elapsed().as_secs_f64()).map_err(lost)?;
    if failed.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = failed.iter().map(|at| programs[*at].to_string()).collect();
    Err(format!("error: {} of {} test programs failed: {}", failed.len(), programs.len(), names.join(", ")))
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// What the closing lines of all programs add up to.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Counts {
    /// Of the closing line of a program, such as `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.12s`.
    /// Those before it are of itself, called by its own tests.
    fn add(&mut self, output: &str) {
        let Some((_, line)) = output.lines().filter_map(|line| line.split_once("test result: ")).next_back() else { return };
        for part in line.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (number, what) = (words.next().and_then(|number| number.parse::<u64>().ok()), words.next());
            match (number, what) {
                (Some(number), Some("passed")) => self.passed += number,
                (Some(number), Some("failed")) => self.failed += number,
                (Some(number), Some("ignored")) => self.ignored += number,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} passed; {} failed; {} ignored", self.passed, self.failed, self.ignored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Program {
        Program {
            directory: crate::root().join("tests"),
            command: vec!["/t/debug/deps/chaos-d3aa9cfcaecf2865".into(), "a name".into(), String::new().into()],
            variables: vec![("A".into(), "1=2\n3".into()), ("EMPTY".into(), String::new().into())],
        }
    }

    #[test]
    fn a_note_comes_back_as_it_was() {
        assert_eq!(Program::from_bytes(&program().to_bytes()), Some(program()));
    }

    #[test]
    fn half_a_note_is_none() {
        let bytes = program().to_bytes();
        let whole =
            (0..bytes.len()).filter(|end| Program::from_bytes(&bytes[..*end]).is_some_and(|half| half.command == program().command));
        // Without its last variables it cannot be told from one that has fewer.
        assert!(whole.min().unwrap() > bytes.len() - "A=1=2\n3\0EMPTY=\0".len() - 1);
        assert_eq!(Program::from_bytes(b""), None);
        assert_eq!(Program::from_bytes(b"/\x000\0"), None);
    }

    #[test]
    fn a_path_is_quoted_as_toml_wants_it() {
        assert_eq!(quoted(Path::new("/a b/\"c\"/d\\e/\u{301}")), "\"/a b/\\\"c\\\"/d\\\\e/\u{301}\"");
    }

    #[test]
    fn a_program_is_called_by_its_package_and_name() {
        assert_eq!(program().to_string(), "tests/chaos");
    }

    #[test]
    fn closing_lines_add_up() {
        let mut counts = Counts::default();
        counts.add("running 2 tests\ntest a ... ok\ntest b ... test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 1.50s\n");
        counts.add(
            "test result: ok. 9 passed; 0 failed\ntest result: FAILED. 4 passed; 3 failed; 0 ignored; 0 measured; finished in 0.00s\n",
        );
        counts.add("\ntest result: 5 passed; 1 failed [\"a name\"]\n");
        counts.add("no closing line: 7 passed");
        assert_eq!(counts, Counts { passed: 11, failed: 4, ignored: 1 });
    }

    #[test]
    fn one_that_fails_fails_all_and_the_others_run_to_their_ends() {
        let folder = std::env::temp_dir().join(format!("raftwerk-xtask-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let shell = |number: usize, script: &str| {
            let path = folder.join(format!("p{number}-0"));
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            Program { directory: folder.clone(), command: vec![path.into()], variables: vec![("WORD".into(), "said".into())] }
        };
        let programs = [shell(0, "exit 3"), shell(1, "pwd > here; echo $WORD > word"), shell(2, "kill -9 $$"), shell(3, "exit 0")];
        let error = beside_each_other(&programs, 2).unwrap_err();
        assert!(error.contains("2 of 4 test programs failed"), "{error}");
        assert!(error.contains("/p0") && error.contains("/p2"), "{error}");
        assert_eq!(fs::read_to_string(folder.join("word")).unwrap(), "said\n");
        assert!(fs::read_to_string(folder.join("here")).unwrap().trim_end().ends_with(folder.file_name().unwrap().to_str().unwrap()));
        assert_eq!(beside_each_other(&programs[3..], 2), Ok(()));
        fs::remove_dir_all(&folder).unwrap();
    }
}
