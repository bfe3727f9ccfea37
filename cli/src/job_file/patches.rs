//! `--set`, `--input` and `--output`: changes to the tree before it is validated, so that a flag gets the same checks as the file.

use std::path::Path;

use raftwerk_proto::{OUTPUT_ON_WORKERS, UPLOAD_SCHEME};

use super::paths;
use super::problem::{Origin, Problem};
use super::tree::{Node, Table, Value, parse_value};

/// What the command line changes in a job file.
#[derive(Clone, Debug, Default)]
pub struct Patches {
    /// `path=value`, in the order given; a later one wins.
    pub set: Vec<String>,
    /// Replaces `[input] files`; relative to the current directory, behind `upload:` to be brought from there.
    pub input: Vec<String>,
    /// Replaces `[output] path`; relative to the current directory.
    pub output: Option<String>,
    /// Sets `[job] wait_for_devices`.
    pub wait_for_devices: bool,
    /// Sets `[job] after`, and `after_any`.
    pub after: Vec<String>,
    pub after_any: bool,
}

impl Patches {
    pub fn apply(&self, root: &mut Table, current_dir: &Path) -> Result<(), Problem> {
        for assignment in &self.set {
            set(root, assignment)?;
        }
        if !self.input.is_empty() {
            replace_input(root, &self.input, current_dir)?;
        }
        if let Some(output) = &self.output {
            replace_output(root, output, current_dir)?;
        }
        if !self.after.is_empty() {
            let origin = Origin::Flag(format!("--after {}", self.after[0]));
            let jobs = self.after.iter().map(|job| {
                let origin = Origin::Flag(format!("--after {job}"));
                Node { origin, value: Value::Text(job.clone()) }
            });
            let jobs = Value::Array(jobs.collect());
            section(root, "job", &origin)?.set("after", Node { origin, value: jobs });
        }
        if self.after_any {
            let origin = Origin::Flag("--after-any".to_owned());
            section(root, "job", &origin)?.set("after_any", Node { origin, value: Value::Boolean(true) });
        }
        if self.wait_for_devices {
            let origin = Origin::Flag("--wait-for-devices".to_owned());
            section(root, "job", &origin)?.set("wait_for_devices", Node { origin, value: Value::Boolean(true) });
        }
        Ok(())
    }
}

fn set(root: &mut Table, assignment: &str) -> Result<(), Problem> {
    let origin = Origin::Flag(format!("--set {assignment}"));
    let shape = "write it as `--set map.params.seed=7`: the keys down to the value, joined by dots";
    let Some((path, text)) = assignment.split_once('=') else {
        return Err(Problem::new(origin, "there is no `=`").fix(shape));
    };
    let keys: Vec<&str> = path.split('.').map(str::trim).collect();
    let Some((last, sections)) = keys.split_last().filter(|_| keys.iter().all(|key| !key.is_empty())) else {
        return Err(Problem::new(origin, "a key is empty").fix(shape));
    };
    if sections.is_empty() {
        return Err(Problem::new(origin, format!("`{last}` names no key inside a section")).fix(shape));
    }
    let mut table = root;
    for key in sections {
        table = table.table_mut(key, &origin).ok_or_else(|| Problem::new(origin.clone(), format!("`{key}` is a value, not a table")))?;
    }
    // `--set output.format=csv` should not need quotes that the shell would eat.
    let node =
        parse_value(text.trim(), &origin).unwrap_or_else(|| Node { origin: origin.clone(), value: Value::Text(text.trim().to_owned()) });
    table.set(last, node);
    Ok(())
}

fn replace_input(root: &mut Table, patterns: &[String], current_dir: &Path) -> Result<(), Problem> {
    let flag = |pattern: &str| match pattern.strip_prefix(UPLOAD_SCHEME) {
        Some(own) => Origin::Flag(format!("--upload {own}")),
        None => Origin::Flag(format!("--input {pattern}")),
    };
    let origin = flag(&patterns[0]);
    let mut nodes = Vec::new();
    for pattern in patterns {
        let origin = flag(pattern);
        let absolute = paths::absolute_pattern(current_dir, pattern).map_err(|message| Problem::new(origin.clone(), message))?;
        nodes.push(Node { origin, value: Value::Text(absolute) });
    }
    let input = section(root, "input", &origin)?;
    if let Some((name, _)) = input.iter().find(|(_, entry)| is_named_input(&entry.node.value)) {
        let problem = Problem::new(origin, "the job has several inputs, and it is not said which one is meant");
        return Err(problem.fix(format!("use --set 'input.{name}.files=[\"/a/path/*.txt\"]'")));
    }
    input.remove("range");
    input.set("files", Node { origin, value: Value::Array(nodes) });
    Ok(())
}

/// `[input.NAME]`, and not the range of an `[input]`.
fn is_named_input(value: &Value) -> bool {
    matches!(value, Value::Table(table) if super::input::KEYS.iter().any(|key| table.get(key).is_some()))
}

fn replace_output(root: &mut Table, output: &str, current_dir: &Path) -> Result<(), Problem> {
    let origin = Origin::Flag(format!("--output {output}"));
    let absolute = match output {
        OUTPUT_ON_WORKERS => output.to_owned(),
        directory => paths::absolute_dir(current_dir, directory).map_err(|message| Problem::new(origin.clone(), message))?,
    };
    section(root, "output", &origin)?.set("path", Node { origin, value: Value::Text(absolute) });
    Ok(())
}

fn section<'a>(root: &'a mut Table, name: &str, origin: &Origin) -> Result<&'a mut Table, Problem> {
    root.table_mut(name, origin).ok_or_else(|| Problem::new(origin.clone(), format!("`{name}` is a value in the job file, not a section")))
}
