//! `raftwerk submit`.

use std::path::PathBuf;

use clap::Args;
use raftwerk_proto::UPLOAD_SCHEME;
use raftwerk_proto::v1::{JobSpec, KernelKind, KernelRef, SubmitReply};
use serde_json::json;
use tonic::{Code, Status};

use super::wait::{self, Patience};
use crate::client::CallError;
use crate::console::Console;
use crate::failure::{Exit, Failure, Outcome};
use crate::job_file::{self, Catalogue, Loaded, Named, Patches};
use crate::target::Target;
use crate::uploads::{self, FROM_STDIN};

/// As the schedulers have it.
const MAX_KEY_BYTES: usize = 256;
const STDIN_PATHS: [&str; 3] = ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];

/// Changes to the job file from the command line.
#[derive(Args, Clone, Debug)]
pub struct JobFlags {
    /// The job file (TOML)
    #[arg(value_name = "JOB.TOML")]
    pub job_file: PathBuf,
    /// Replace the job file's input files by these, which the workers see; a path or a quoted pattern, relative to the current directory (repeatable).
    /// `-` is standard input, brought as by --upload
    #[arg(long, value_name = "GLOB")]
    pub input: Vec<String>,
    /// Replace the job file's input files by these of this machine, and bring them to the cluster; a path, a directory or a quoted pattern, or `-` for
    /// standard input (repeatable, also beside --input)
    #[arg(long, value_name = "FILE")]
    pub upload: Vec<String>,
    /// Set one value of the job file, such as map.params.seed=7 or reduce.partitions=4 (repeatable)
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Write the result to this directory, relative to the current directory
    #[arg(long, value_name = "DIR")]
    pub output: Option<String>,
}

impl JobFlags {
    /// `more`: what only some commands take.
    pub fn load(self, more: Patches) -> Result<Loaded, Failure> {
        // Of a file that is called so the path is `./-`.
        let input = self.input.into_iter().map(|input| if input == FROM_STDIN { format!("{UPLOAD_SCHEME}{input}") } else { input });
        let input: Vec<String> = input.chain(self.upload.into_iter().map(|file| format!("{UPLOAD_SCHEME}{file}"))).collect();
        let own = self.job_file.to_str().unwrap_or_default();
        if STDIN_PATHS.contains(&own) && input.iter().any(|input| input.strip_prefix(UPLOAD_SCHEME) == Some(FROM_STDIN)) {
            return Err(Failure::say(Exit::BadUsage, "standard input is the job file, and cannot be its input as well")
                .fix("put the job file into a file"));
        }
        let patches = Patches { set: self.set, input, output: self.output, ..more };
        Ok(job_file::load(&self.job_file, &patches, &Catalogue::of_this_build())?)
    }
}

#[derive(Args, Debug)]
pub struct SubmitArgs {
    #[command(flatten)]
    job: JobFlags,
    /// Wait for the job's end, show its progress and print its result
    #[arg(long)]
    wait: bool,
    /// Take the job also when no device of the cluster can run it yet: it waits for one
    #[arg(long)]
    wait_for_devices: bool,
    /// Start after this job is done: its number, or its idempotency key in the same namespace (repeatable)
    #[arg(long, value_name = "JOB")]
    after: Vec<String>,
    /// Start after these jobs however they end, and not only when all of them are done
    #[arg(long)]
    after_any: bool,
    /// Name of this submission: the same key and job file give the same job, however often it is sent
    #[arg(long, value_name = "KEY", value_parser = idempotency_key)]
    idempotency_key: Option<String>,
    #[command(flatten)]
    patience: Patience,
}

/// A job without an output is fine for its tallies; whoever forgot the section should not have to find out at the end.
pub fn note_rows_that_nobody_keeps(console: &Console, spec: &JobSpec) {
    let makes_rows = |name: &str| raftwerk_kernels::find(name).is_ok_and(|kernel| kernel.descriptor().shuffles);
    let is_reduce = |kernel: &KernelRef| kernel.kind() == KernelKind::Reduce;
    let kernel = match spec.stages.as_slice() {
        [.., last] if spec.stages.len() > 2 => last.kernel.as_ref().filter(|kernel| is_reduce(kernel)),
        [first, ..] => first.kernel.as_ref().filter(|kernel| makes_rows(&kernel.name)),
        [] => None,
    };
    if spec.output.is_none()
        && let Some(kernel) = kernel.map(|kernel| &kernel.name)
    {
        console
            .note(format!("the rows of `{kernel}` go nowhere, because the job has no [output] (or --output); its tallies are its result"));
    }
}

/// An empty one, from a shell variable that is not set, would protect nothing.
fn idempotency_key(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_KEY_BYTES || text.chars().any(char::is_control) {
        return Err(format!(
            "a key has 1 to {MAX_KEY_BYTES} bytes and no control characters; without this flag each submission gets a key of its own"
        ));
    }
    Ok(text.to_owned())
}

/// A submission that was refused, with the line of the job file that names the input, if that is what is wrong.
pub fn refusal(error: CallError, name: &str, named: &Named) -> Failure {
    let place = match &error {
        CallError::Refused(status) if is_about_input(status) => named.place_of(status.message()).map(str::to_owned),
        _ => None,
    };
    let failure = Failure::from(error);
    place.into_iter().fold(failure, Failure::context).context(format!("job `{name}` was not submitted"))
}

/// Others may have the path of an input in them too, such as an output that lies beside it.
fn is_about_input(status: &Status) -> bool {
    status.code() == Code::InvalidArgument || status.message().starts_with("no worker sees the input")
}

/// A request that was sent may have been taken, whatever became of the answer; what was not sent was not.
fn not_known_to_be_taken(error: CallError, name: &str, key: &str, named: &Named) -> Failure {
    match error {
        CallError::Unreachable { doubt: true, .. } => Failure::from(error)
            .context(format!("it is not known whether job `{name}` was submitted"))
            .fix(format!("submit it again with --idempotency-key {key:?}: if it was taken, that finds it instead of running it twice")),
        error => refusal(error, name, named),
    }
}

pub async fn submit(console: &Console, target: &Target, args: SubmitArgs) -> Outcome {
    let more = Patches { wait_for_devices: args.wait_for_devices, after: args.after, after_any: args.after_any, ..Patches::default() };
    let Loaded { mut spec, named } = args.job.load(more)?;
    note_rows_that_nobody_keeps(console, &spec);
    let name = spec.name.clone();
    let has_key = args.idempotency_key.is_some();
    let key = args.idempotency_key.map_or_else(random_key, Ok)?;
    let mut cluster = target.cluster()?;
    let upload = uploads::gather(console, &mut spec).await?;
    // What was submitted before with this key needs no second upload.
    let refused = |error| not_known_to_be_taken(error, &name, &key, &named);
    let before = match upload.is_some() && has_key {
        true => cluster.submitted_before(spec.clone(), key.clone()).await.map_err(refused)?,
        false => None,
    };
    let mut placed = None;
    let SubmitReply { job, existing } = match before {
        Some(before) => before,
        None => {
            if let Some(upload) = &upload {
                placed = Some(uploads::place(console, &mut cluster, upload).await?);
            }
            cluster.submit(spec, key.clone()).await.map_err(refused)?
        }
    };
    let verb = if existing { "was submitted before with this key" } else { "submitted" };
    if args.wait {
        console.note(format!("job {job} ({name}) {verb}"));
        let view = wait::until_end(console, &mut cluster, job, args.patience.contact_timeout).await?;
        return wait::report(console, &view);
    }
    if console.is_json() {
        let upload = upload.map(|upload| upload.to_json(placed.as_ref()));
        console.json(json!({"job": job, "existing": existing, "idempotency_key": key, "upload": upload}));
    } else {
        console.line(job);
        console.note(format!("job {job} ({name}) {verb}; follow it with: raftwerk job wait {job}"));
    }
    Ok(())
}

/// A key that nobody else has, so that the retries of this submission make one job.
pub fn random_key() -> Result<String, Failure> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::say(Exit::Internal, format!("the system gives no random numbers for an idempotency key: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
