//! The job file: TOML for a person, a [`JobSpec`] for the cluster.
//!
//! Reading is three steps: the text becomes a tree that knows its lines (`tree`), the command line patches the tree (`patches`), and
//! the sections are checked and turned into the spec. Whatever is wrong is said with file and line, or with the flag that said it.

mod after;
mod catalogue;
mod graph;
mod input;
mod limits;
mod named;
mod params;
mod patches;
mod paths;
mod problem;
mod rounds;
mod section;
mod sides;
mod stages;
mod suggest;
mod tables;
#[cfg(test)]
mod tests;
mod tree;
mod wants;

use std::io::ErrorKind;
use std::path::Path;

use raftwerk_core::plan::policy::policies;
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::{JobSpec, OnSetAside, OutputSpec, Rounds, StageSpec, StartAfter};

pub use catalogue::Catalogue;
pub use limits::DEFAULT_PRIORITY;
pub use named::Named;
pub use patches::Patches;
pub use problem::JobFileError;
pub use suggest::hint;

use problem::{Origin, Problem};
use section::Section;
use tree::Table;

const SECTIONS: [&str; 7] = ["job", "input", "map", "reduce", "stage", "rounds", "output"];

/// A job file that was read.
#[derive(Debug)]
pub struct Loaded {
    /// Every path in it is absolute.
    pub spec: JobSpec,
    pub named: Named,
}

/// Reads and checks the job file at `path`.
pub fn load(path: &Path, patches: &Patches, catalogue: &Catalogue) -> Result<Loaded, JobFileError> {
    let file = path.display().to_string();
    let unreadable = |message: String| JobFileError { place: file.clone(), message, fix: None };
    let bytes = std::fs::read(path)
        .map_err(|error| JobFileError { fix: Some(how_to_read(&error)), ..unreadable(format!("cannot read the job file: {error}")) })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        Problem::new(Origin::Line(line), "the line is no text in UTF-8").fix("save it as UTF-8").in_file(&file)
    })?;
    let current = std::env::current_dir()
        .and_then(|dir| dir.canonicalize())
        .map_err(|error| unreadable(format!("cannot tell the current directory: {error}")))?;
    // With the symbolic links resolved, `..` in a path of the file means what it says. A pipe (`/dev/stdin`) has been read and lies nowhere: paths
    // are those of whoever writes into it.
    let own = match path.canonicalize() {
        Err(error) if error.kind() == ErrorKind::NotFound => current.join("stdin"),
        own => own.map_err(|error| unreadable(format!("cannot find its directory: {error}")))?,
    };
    let dir = own.parent().unwrap_or(Path::new("/"));
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("job");
    let read = || {
        let (root, names) = patched(&text, &current, patches)?;
        Ok(Loaded { spec: read(&root, &names, stem, dir, catalogue)?, named: Named::of(&root, dir, &file) })
    };
    read().map_err(|problem: Problem| problem.in_file(&file))
}

fn how_to_read(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => {
            let here = std::env::current_dir().map_or_else(|_| "the current directory".to_owned(), |dir| dir.display().to_string());
            format!("check the path; one that does not begin with `/` is looked for below {here}")
        }
        ErrorKind::IsADirectory => "name the file in it".to_owned(),
        ErrorKind::PermissionDenied => "let this user read it: `chmod u+r FILE`, if it is yours; `ls -l FILE` shows whose it is".to_owned(),
        _ => "check the path and its file system".to_owned(),
    }
}

#[cfg(test)]
fn parse(text: &str, stem: &str, dir: &Path, current_dir: &Path, patches: &Patches, catalogue: &Catalogue) -> Result<JobSpec, Problem> {
    let (root, names) = patched(text, current_dir, patches)?;
    read(&root, &names, stem, dir, catalogue)
}

/// The tree with what the command line changes, and the names of its stages in the order of the file.
fn patched(text: &str, current_dir: &Path, patches: &Patches) -> Result<(Table, Vec<String>), Problem> {
    let mut root = tree::parse(text)?;
    let names = graph::by_name(&mut root)?;
    patches.apply(&mut root, current_dir)?;
    Ok((root, names))
}

fn read(root: &Table, names: &[String], stem: &str, dir: &Path, catalogue: &Catalogue) -> Result<JobSpec, Problem> {
    check_sections(root)?;
    let head = Head::read(root, stem)?;
    if root.get("stage").is_some() {
        let (stages, output) = graph::read(root, names, catalogue, dir, head.reproducible)?;
        return Ok(head.into_spec(stages, output, None));
    }
    let mut map = stages::read_map(root, catalogue, dir)?;
    if let Some(section) = Section::open(root, "input", &input::KEYS)? {
        map.reads_records(input::record_bytes(&section, map.kernel)?);
    }
    let mut reduce = stages::read_reduce(root, catalogue, &map)?;
    if head.reproducible {
        map.pin();
        reduce.iter_mut().for_each(stages::Stage::pin);
    }
    let rounds = rounds::read(root, &map, reduce.as_ref(), head.on_set_aside)?;
    let output = stages::read_output(root, reduce.as_ref().unwrap_or(&map), dir)?;
    let partitions = reduce.as_ref().map_or(0, |stage| stage.partitions);
    let mut input = input::read(root, map.kernel, partitions, dir)?;
    // How many tasks files make is known when a worker has listed them; no kernel's rule about parameters depends on it.
    let tasks = match &input.stage_input.source {
        Some(Source::Range(range)) => range.tasks,
        _ => 1,
    };
    input.want(map.prepare("map", tasks, partitions, "")?);
    input.check_range(&map)?;
    if let Some(reduce) = &reduce {
        let format = output.as_ref().map_or_else(|| reduce.kernel.formats.first().copied().unwrap_or(""), |output| &output.format);
        reduce.prepare("reduce", u64::from(partitions), 0, format)?;
    }
    let mut stages = vec![map.into_spec("map", input.stage_input, partitions)];
    if let Some(reduce) = reduce {
        stages[0].partition_per_task = reduce.partition_per_task;
        stages.push(reduce.into_spec("reduce", stages::from_stage("map"), 0));
    }
    Ok(head.into_spec(stages, output, rounds))
}

fn check_sections(root: &Table) -> Result<(), Problem> {
    match root.iter().find(|(key, _)| !SECTIONS.contains(key)) {
        None => Ok(()),
        Some((key, entry)) => {
            Err(Problem::new(entry.key.clone(), format!("there is no section `{key}`")).fix(suggest::hint(key, &SECTIONS)))
        }
    }
}

/// `[job]`.
struct Head {
    name: String,
    namespace: String,
    /// 0: the usual one.
    priority: u32,
    max_attempts: u32,
    on_set_aside: OnSetAside,
    /// Empty: the cluster's.
    policy: String,
    reproducible: bool,
    wait_for_devices: bool,
    after: Option<StartAfter>,
}

impl Head {
    fn into_spec(self, stages: Vec<StageSpec>, output: Option<OutputSpec>, rounds: Option<Rounds>) -> JobSpec {
        JobSpec {
            name: self.name,
            namespace: self.namespace,
            stages,
            output,
            max_attempts: self.max_attempts,
            on_set_aside: self.on_set_aside.into(),
            priority: self.priority,
            policy: self.policy,
            rounds,
            wait_for_devices: self.wait_for_devices,
            after: self.after,
        }
    }

    fn read(root: &Table, stem: &str) -> Result<Self, Problem> {
        let mut head = Self {
            name: stem.to_owned(),
            namespace: "default".to_owned(),
            priority: 0,
            max_attempts: limits::DEFAULT_ATTEMPTS as u32,
            on_set_aside: OnSetAside::Fail,
            policy: String::new(),
            reproducible: false,
            wait_for_devices: false,
            after: None,
        };
        let keys = [
            "name",
            "namespace",
            "priority",
            "max_attempts",
            "on_set_aside",
            "policy",
            "reproducible",
            "wait_for_devices",
            "after",
            "after_any",
        ];
        let Some(section) = Section::open(root, "job", &keys)? else { return Ok(head) };
        if let Some(name) = section.text("name")? {
            let chars = name.value.chars().count();
            if chars == 0 || chars > limits::MAX_NAME_CHARS || name.value.chars().any(char::is_control) {
                let message = format!("must be 1 to {} characters without control characters", limits::MAX_NAME_CHARS);
                return Err(section.problem_at("name", &name.origin, message));
            }
            head.name = name.value;
        }
        if let Some(namespace) = section.text("namespace")? {
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if namespace.value.is_empty() || namespace.value.len() > 63 || !namespace.value.chars().all(allowed) {
                return Err(section.problem_at("namespace", &namespace.origin, "must be 1 to 63 of a-z, 0-9 and `-`"));
            }
            head.namespace = namespace.value;
        }
        if let Some(priority) = section.integer("priority", 1, limits::MAX_PRIORITY)? {
            head.priority = priority.value as u32;
        }
        if let Some(attempts) = section.integer("max_attempts", 1, limits::MAX_ATTEMPTS)? {
            head.max_attempts = attempts.value as u32;
        }
        if section.choice("on_set_aside", &["fail", "continue"])?.is_some_and(|choice| choice.value == "continue") {
            head.on_set_aside = OnSetAside::Continue;
        }
        let known: Vec<&str> = policies().iter().map(|policy| policy.name()).collect();
        if let Some(policy) = section.choice("policy", &known)? {
            head.policy = policy.value;
        }
        head.reproducible = section.boolean("reproducible")?.is_some_and(|reproducible| reproducible.value);
        head.wait_for_devices = section.boolean("wait_for_devices")?.is_some_and(|wait| wait.value);
        head.after = after::read(&section)?;
        Ok(head)
    }
}
