//! `[[stage]]`: a job of several stages, each of which names what it reads.
//!
//! ```toml
//! [input.left]                    # or [input], which is then called "input"
//! files = ["a/*.csv"]
//! [[stage]]
//! name = "keyed-left"
//! kernel = "key_lines"
//! inputs = ["left"]               # an input, a stage, or two stages that the kernel joins
//! ```
//! The order of the file is for whoever reads it: a stage may stand before those that it reads.

mod sizes;
#[cfg(test)]
mod tests;

use std::path::Path;

use raftwerk_core::spec::MAX_STAGES;
use raftwerk_kernels::{Accepts, Descriptor, Kind};
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::{OutputSpec, StageInput, StageSpec};

use super::catalogue::Catalogue;
use super::input::{self, Input};
use super::problem::{Origin, Problem};
use super::section::{At, Section};
use super::stages::{self, Stage};
use super::suggest;
use super::tree::{Node, Table, Value};
use sizes::Sizes;

const KEYS: [&str; 13] = [
    "name",
    "kernel",
    "inputs",
    "params",
    "partitions",
    "side",
    "device",
    "require",
    "prefer",
    "gang",
    "gang_hold",
    "max_lease_tasks",
    "shuffle_replicas",
];
/// Of a table that says something of map stages alone, and of reduce stages alone.
const MAP_ONLY: [&str; 1] = ["side"];
const REDUCE_ONLY: [&str; 1] = ["partitions"];
/// What parts are made as when another stage reads them.
const FORMAT_BETWEEN_STAGES: &str = "csv";

const MAX_NAME_CHARS: usize = 63;

/// Puts the `[[stage]]` tables under their names, so that `--set stage.NAME.params.x=1` finds them; the names in the order of the file.
pub fn by_name(root: &mut Table) -> Result<Vec<String>, Problem> {
    let Some(entry) = root.get("stage") else { return Ok(Vec::new()) };
    let how = "write a line `[[stage]]` for each stage, with its name and kernel below";
    let Value::Array(items) = &entry.node.value else {
        return Err(
            Problem::new(entry.key.clone(), format!("`stage` must be an array of tables, not {}", entry.node.value.noun())).fix(how)
        );
    };
    let (mut names, mut tables) = (Vec::new(), Table::default());
    for (number, item) in items.iter().enumerate() {
        let Value::Table(table) = &item.value else {
            return Err(Problem::new(item.origin.clone(), format!("`stage` has {}, where only tables may be", item.value.noun())).fix(how));
        };
        let section = Section::of(format!("[[stage]] number {}", number + 1), item.origin.clone(), table, &KEYS)?;
        let name = section.text("name")?.ok_or_else(|| section.problem("needs `name`").fix("name it, so that other stages can read it"))?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.value.is_empty() || name.value.len() > MAX_NAME_CHARS || !name.value.chars().all(allowed) {
            let message = format!("must be 1 to {MAX_NAME_CHARS} of a-z, A-Z, 0-9, `-` and `_`, not \"{}\"", name.value);
            return Err(section.problem_at("name", &name.origin, message));
        }
        if names.contains(&name.value) {
            let problem = section.problem_at("name", &name.origin, format!("is \"{}\", as that of an earlier stage", name.value));
            return Err(problem.fix("give each stage a name of its own"));
        }
        tables.set(&name.value, Node { origin: item.origin.clone(), value: Value::Table(table.clone()) });
        names.push(name.value);
    }
    let origin = entry.key.clone();
    if names.len() > MAX_STAGES {
        return Err(Problem::new(origin, format!("the job has {} stages; at most {MAX_STAGES} are possible", names.len())));
    }
    root.set("stage", Node { origin, value: Value::Table(tables) });
    Ok(names)
}

/// A stage as its own table says it.
struct Draft<'a> {
    name: &'a str,
    section: Section<'a>,
    kernel: &'static Descriptor,
    kernel_at: Origin,
    reads: Vec<At<Read>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Read {
    /// Name of an input of the job.
    Input(String),
    /// Place of a stage in the file.
    Stage(usize),
}

impl Draft<'_> {
    fn stages(&self) -> impl Iterator<Item = usize> + '_ {
        self.reads.iter().filter_map(|read| match read.value {
            Read::Stage(stage) => Some(stage),
            Read::Input(_) => None,
        })
    }

    /// The input of the job that it reads, if it reads none of the stages.
    fn own_input<'i, 'a>(&self, inputs: &'i [(String, Section<'a>)]) -> Option<&'i (String, Section<'a>)> {
        self.reads.iter().find_map(|read| match &read.value {
            Read::Input(name) => inputs.iter().find(|(input, _)| input == name),
            Read::Stage(_) => None,
        })
    }

    fn problem(&self, at: &Origin, message: impl AsRef<str>) -> Problem {
        self.section.problem_at("inputs", at, message)
    }
}

/// The stages in an order in which they can run, and the output.
pub fn read(
    root: &Table,
    names: &[String],
    catalogue: &Catalogue,
    dir: &Path,
    reproducible: bool,
) -> Result<(Vec<StageSpec>, Option<OutputSpec>), Problem> {
    for short in ["map", "reduce"] {
        if let Some(entry) = root.get(short) {
            // A flag that speaks of the one kind of table in a file of the other kind is what is wrong.
            let by_flag = root.get("stage").map(|stage| stage.key.clone()).filter(|key| matches!(key, Origin::Flag(_)));
            if let Some(flag) = by_flag {
                let problem = Problem::new(flag, format!("the job file has no [[stage]] tables, but [{short}]"));
                return Err(problem.fix(format!("set values of [{short}], as in --set {short}.params.NAME=VALUE")));
            }
            let problem = Problem::new(entry.key.clone(), format!("[{short}] stands beside [[stage]] tables"));
            return Err(match entry.key {
                Origin::Flag(_) => problem.fix("name the stage, as in --set stage.NAME.params.seed=7"),
                _ => problem.fix("write its stage as a [[stage]] table too, or take the others out"),
            });
        }
    }
    if let Some(entry) = root.get("rounds") {
        let problem = Problem::new(entry.key.clone(), "[rounds] goes with one [map] and one [reduce], not with [[stage]] tables");
        return Err(problem.fix("take it out, or write the two stages as [map] and [reduce]"));
    }
    let inputs = named_inputs(root)?;
    let drafts = drafts(root, names, catalogue, &inputs)?;
    let order = order(&drafts)?;
    drafts.iter().try_for_each(|draft| check_reads(&drafts, draft))?;
    let last = only_last(&drafts)?;
    if let Some((name, section)) =
        inputs.iter().find(|(name, _)| !drafts.iter().any(|d| d.reads.iter().any(|r| r.value == Read::Input(name.clone()))))
    {
        let problem = section.problem("is read by no stage");
        return Err(problem.fix(format!("write inputs = [\"{name}\"] in a stage with a map kernel, or take it out")));
    }
    let mut made: Vec<Option<Stage>> = drafts.iter().map(|_| None).collect();
    for &place in &order {
        let mut stage = one(&drafts, place, &made, last, dir)?;
        if let Some((_, section)) = drafts[place].own_input(&inputs) {
            stage.reads_records(input::record_bytes(section, stage.kernel)?);
        }
        if reproducible {
            stage.pin();
        }
        made[place] = Some(stage);
    }
    let made: Vec<Stage> = made.into_iter().flatten().collect();
    let output = stages::read_output(root, &made[last], dir)?;
    let format = output.as_ref().map(|output| output.format.clone());
    let sizes = Sizes::of(&drafts, &made)?;
    let mut read_inputs: Vec<Option<Input>> = Vec::with_capacity(made.len());
    for (place, stage) in made.iter().enumerate() {
        read_inputs.push(check(&drafts, place, stage, &inputs, &sizes, format.as_deref(), last, dir)?);
    }
    let mut made: Vec<Option<(Stage, Option<Input>)>> = made.into_iter().zip(read_inputs).map(Some).collect();
    let mut specs = Vec::with_capacity(order.len());
    for place in order {
        let Some((mut stage, input)) = made[place].take() else { continue };
        let draft = &drafts[place];
        let mut from = draft.stages().map(|producer| drafts[producer].name);
        let first = match (input, from.next()) {
            (Some(input), _) => input.stage_input,
            (None, Some(name)) => stages::from_stage(name),
            (None, None) => continue, // every stage reads something
        };
        let side = |name: &str| StageInput { name: "right".to_owned(), ..stages::from_stage(name) };
        let first = match from.next() {
            Some(right) => {
                stage.sides.push(side(right));
                StageInput { name: "left".to_owned(), ..first }
            }
            None => first,
        };
        let mut spec = stage.into_spec(draft.name, first, sizes.partitions[place]);
        spec.partition_per_task = sizes.per_task[place];
        specs.push(spec);
    }
    Ok((specs, output))
}

/// `[input]`, called "input", or `[input.NAME]` tables by their names.
fn named_inputs(root: &Table) -> Result<Vec<(String, Section<'_>)>, Problem> {
    let Some(entry) = root.get("input") else {
        let problem = Problem::new(Origin::File, "the section [input] is missing");
        return Err(problem.fix("write [input] and files = [\"data/*.txt\"], or [input.NAME] for each of several inputs"));
    };
    let Value::Table(table) = &entry.node.value else {
        return Err(Problem::new(entry.key.clone(), format!("`input` must be a section, not {}", entry.node.value.noun())));
    };
    let is_named = |entry: &super::tree::Entry| matches!(entry.node.value, Value::Table(_));
    if table.iter().any(|(key, _)| input::KEYS.contains(&key)) || table.iter().next().is_none() {
        if let Some((key, other)) = table.iter().find(|(key, entry)| !input::KEYS.contains(key) && is_named(entry)) {
            let problem = Problem::new(other.key.clone(), format!("[input.{key}] stands beside an [input] of its own"));
            return Err(problem.fix("give every input a name: [input.NAME]"));
        }
        let section = Section::of("[input]".to_owned(), entry.key.clone(), table, &input::KEYS)?;
        return Ok(vec![(input::NAME.to_owned(), section)]);
    }
    let mut inputs = Vec::new();
    for (name, entry) in table.iter() {
        let label = format!("[input.{name}]");
        let Value::Table(table) = &entry.node.value else {
            return Err(Problem::new(entry.key.clone(), format!("[input] has no key `{name}`")).fix(suggest::hint(name, &input::KEYS)));
        };
        inputs.push((name.to_owned(), Section::of(label, entry.key.clone(), table, &input::KEYS)?));
    }
    Ok(inputs)
}

fn drafts<'a>(
    root: &'a Table,
    names: &'a [String],
    catalogue: &Catalogue,
    inputs: &[(String, Section<'_>)],
) -> Result<Vec<Draft<'a>>, Problem> {
    let Some(Value::Table(tables)) = root.get("stage").map(|entry| &entry.node.value) else { return Ok(Vec::new()) };
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    if let Some((name, entry)) = tables.iter().find(|(name, _)| !known.contains(name)) {
        return Err(Problem::new(entry.key.clone(), format!("there is no stage `{name}`")).fix(suggest::hint(name, &known)));
    }
    if let Some((name, section)) = inputs.iter().find(|(name, _)| names.contains(name)) {
        return Err(section.problem(format!("is called as stage `{name}` is")).fix("rename one of them"));
    }
    let mut drafts = Vec::with_capacity(names.len());
    for name in names {
        let Some(entry) = tables.get(name) else { continue };
        let Value::Table(table) = &entry.node.value else {
            return Err(Problem::new(entry.key.clone(), format!("stage.{name} must be a table, not {}", entry.node.value.noun())));
        };
        let section = Section::of(format!("stage '{name}':"), entry.key.clone(), table, &KEYS)?;
        let kernel_name =
            section.text("kernel")?.ok_or_else(|| section.problem("needs `kernel`").fix("`raftwerk kernels list` shows all"))?;
        let kernel = catalogue.find_any(&section, &kernel_name)?;
        let (wrong, other): (&[&str], _) = match kernel.kind {
            Kind::Map => (&REDUCE_ONLY, "map"),
            Kind::Reduce => (&MAP_ONLY, "reduce"),
        };
        if let Some(key) = wrong.iter().find(|key| section.has(key)) {
            let problem = section.problem(format!("has `{key}`, but `{}` is a {other} kernel", kernel.name));
            return Err(problem.fix(match kernel.kind {
                Kind::Map => "say in the reduce stage that reads it into how many partitions its keys are cut",
                Kind::Reduce => "give side inputs to a map stage",
            }));
        }
        let readable: Vec<&str> = inputs.iter().map(|(name, _)| name.as_str()).chain(known.iter().copied().filter(|k| k != name)).collect();
        let fix = || format!("write inputs = [\"..\"]; there are {}", readable.join(", "));
        let given = section.texts("inputs")?.ok_or_else(|| section.problem("needs `inputs`").fix(fix()))?;
        if given.value.is_empty() {
            return Err(section.problem_at("inputs", &given.origin, "is empty").fix(fix()));
        }
        let mut reads = Vec::with_capacity(given.value.len());
        for At { value, origin } in given.value {
            let read = match names.iter().position(|stage| *stage == value) {
                Some(stage) => Read::Stage(stage),
                None if inputs.iter().any(|(input, _)| *input == value) => Read::Input(value),
                None => {
                    let problem = section.problem_at("inputs", &origin, format!("names `{value}`, which is neither an input nor a stage"));
                    return Err(problem.fix(suggest::hint(&value, &readable)));
                }
            };
            reads.push(At { value: read, origin });
        }
        drafts.push(Draft { name, section, kernel, kernel_at: kernel_name.origin, reads });
    }
    Ok(drafts)
}

/// Places of the stages so that each comes behind those that it reads; else in the order of the file.
fn order(drafts: &[Draft<'_>]) -> Result<Vec<usize>, Problem> {
    let mut order: Vec<usize> = Vec::with_capacity(drafts.len());
    while order.len() < drafts.len() {
        let ready = |place: &usize| !order.contains(place) && drafts[*place].stages().all(|from| order.contains(&from));
        match (0..drafts.len()).find(ready) {
            Some(next) => order.push(next),
            None => return Err(circle(drafts, &order)),
        }
    }
    Ok(order)
}

fn circle(drafts: &[Draft<'_>], done: &[usize]) -> Problem {
    let mut path: Vec<usize> = Vec::new();
    let mut at = (0..drafts.len()).find(|place| !done.contains(place)).unwrap_or(0);
    // Whoever is not done reads another one that is not done, so this comes round.
    while !path.contains(&at) {
        path.push(at);
        at = drafts[at].stages().find(|from| !done.contains(from)).unwrap_or(at);
    }
    let round = path.iter().position(|place| *place == at).map_or(&path[..], |from| &path[from..]);
    let mut names: Vec<&str> = round.iter().map(|place| drafts[*place].name).collect();
    names.push(drafts[at].name);
    let origin = drafts[at].reads.first().map_or(Origin::File, |read| read.origin.clone());
    match names[..] {
        [name, _] => drafts[at].problem(&origin, format!("names the stage itself, `{name}`")),
        _ => drafts[at].problem(&origin, format!("go in a circle: {}", names.join(" reads "))).fix("let one of them read an input instead"),
    }
}

/// The one stage that nobody reads.
fn only_last(drafts: &[Draft<'_>]) -> Result<usize, Problem> {
    let unread = |place: &usize| !drafts.iter().any(|draft| draft.stages().any(|from| from == *place));
    let lasts: Vec<usize> = (0..drafts.len()).filter(unread).collect();
    match lasts[..] {
        [last] => Ok(last),
        [first, second, ..] => {
            let (first, second) = (&drafts[first], &drafts[second]);
            let message = format!("is read by nobody, and neither is stage '{}'; a job has one last stage", first.name);
            Err(second.section.problem(message).fix("let another stage read it, or submit it as a job of its own"))
        }
        [] => Err(Problem::new(Origin::File, "the job has no stage").fix("write a [[stage]] table")),
    }
}

/// Whether the stage's kernel can read what it names.
fn check_reads(drafts: &[Draft<'_>], draft: &Draft<'_>) -> Result<(), Problem> {
    let kernel = draft.kernel;
    if kernel.kind == Kind::Map {
        if let Some(second) = draft.reads.get(1) {
            let problem = draft.problem(&second.origin, format!("has {} entries, but a map kernel reads one", draft.reads.len()));
            return Err(problem.fix("two stages are joined by a reduce kernel such as `join`, which reads map stages"));
        }
        return draft.stages().try_for_each(|from| check_parts(draft, &drafts[from]));
    }
    let wanted = if kernel.accepts == Accepts::TwoShuffles { 2 } else { 1 };
    let origin = draft.reads.last().map_or(&draft.section.origin, |read| &read.origin);
    if draft.reads.len() != wanted {
        let entries = if draft.reads.len() == 1 { "1 entry".to_owned() } else { format!("{} entries", draft.reads.len()) };
        let message = format!("has {entries}, but reduce kernel `{}` reads {wanted}", kernel.name);
        return Err(draft.problem(origin, message));
    }
    for read in &draft.reads {
        let from = match &read.value {
            Read::Stage(from) => &drafts[*from],
            Read::Input(name) => {
                let message = format!("names the input `{name}`, but reduce kernel `{}` reads what a map stage wrote", kernel.name);
                return Err(draft.problem(&read.origin, message).fix("put a stage with a map kernel before it"));
            }
        };
        if from.kernel.kind != Kind::Map {
            let message = format!("names stage '{}', whose kernel is a reduce kernel as this one is", from.name);
            return Err(draft.problem(&read.origin, message).fix("put a stage with a map kernel between them"));
        }
        stages::check_pair(&draft.section, kernel, &draft.kernel_at, from.kernel)?;
    }
    if let [left, right] = &draft.reads[..]
        && left.value == right.value
    {
        return Err(draft.problem(&right.origin, "names one stage twice").fix("join two different stages"));
    }
    Ok(())
}

/// The stage at this place; those that it reads are made, and it can read them.
fn one(drafts: &[Draft<'_>], place: usize, made: &[Option<Stage>], last: usize, dir: &Path) -> Result<Stage, Problem> {
    let draft = &drafts[place];
    let (section, kernel) = (&draft.section, draft.kernel);
    let is_last = place == last;
    if kernel.kind == Kind::Map {
        if is_last && kernel.shuffles {
            let problem =
                section.problem(format!("is the last one, but map kernel `{}` writes what a reduce stage has to read", kernel.name));
            return Err(problem.fix(format!("add a stage with {} that reads it", kernel.reduces_with.join(" or "))));
        }
        if !is_last && !kernel.shuffles {
            let problem = section.problem(format!("is read by another stage, but map kernel `{}` writes tallies only", kernel.name));
            return Err(problem.fix("take out the stage that reads it"));
        }
        return stages::map_of(section, kernel, dir);
    }
    let maps: Vec<&Stage> = draft.stages().filter_map(|from| made[from].as_ref()).collect();
    let stage = stages::reduce_of(section, kernel, &draft.kernel_at, &maps)?;
    if stage.partition_per_task && !is_last {
        let problem = section.problem(format!("has kernel `{}`, which makes files and is read by another stage", kernel.name));
        return Err(problem.fix("let it be the last stage"));
    }
    Ok(stage)
}

/// Whether a map stage can read what this stage makes.
fn check_parts(draft: &Draft<'_>, from: &Draft<'_>) -> Result<(), Problem> {
    let origin = draft.reads.first().map_or(&draft.section.origin, |read| &read.origin);
    if from.kernel.kind == Kind::Map {
        let message = format!("names stage '{}', a map stage, but `{}` is a map kernel too", from.name, draft.kernel.name);
        return Err(draft.problem(origin, message).fix("put a stage with a reduce kernel between them"));
    }
    if !from.kernel.formats.contains(&FORMAT_BETWEEN_STAGES) {
        let message = format!("names stage '{}', whose kernel `{}` makes no text", from.name, from.kernel.name);
        return Err(draft.problem(origin, message).fix("a stage can be read on when its kernel writes csv"));
    }
    let why = match draft.kernel.accepts {
        Accepts::Text => return Ok(()),
        // They must know the files: their names, or a sample of them before anything runs.
        Accepts::PlacedText | Accepts::AnyOf(_) => "reads files only",
        _ => "reads no text",
    };
    let message = format!("names stage '{}', whose parts are text, but `{}` {why}", from.name, draft.kernel.name);
    Err(draft.problem(origin, message))
}

/// Lets the kernel look at its parameters, and reads the stage's input of the job.
fn check(
    drafts: &[Draft<'_>],
    place: usize,
    stage: &Stage,
    inputs: &[(String, Section<'_>)],
    sizes: &Sizes,
    format: Option<&str>,
    last: usize,
    dir: &Path,
) -> Result<Option<Input>, Problem> {
    let draft = &drafts[place];
    let label = format!("stage {}", draft.name);
    let mut input = match draft.own_input(inputs) {
        Some((_, section)) => Some(input::read_section(section, stage.kernel, sizes.partitions[place], dir)?),
        None => None,
    };
    let tasks = match input.as_ref().and_then(|input| input.stage_input.source.as_ref()) {
        Some(Source::Range(range)) => range.tasks,
        _ => sizes.tasks(drafts, place).unwrap_or(1),
    };
    let columns = match stage.kernel.kind {
        Kind::Map => stage.prepare(&label, tasks, sizes.partitions[place], "")?,
        Kind::Reduce => {
            let own = stage.kernel.formats.first().copied().unwrap_or_default();
            let between = if stage.kernel.formats.contains(&FORMAT_BETWEEN_STAGES) { FORMAT_BETWEEN_STAGES } else { own };
            stage.prepare(&label, tasks, 0, if place == last { format.unwrap_or(own) } else { between })?
        }
    };
    if let Some(input) = &mut input {
        input.want(columns);
        input.check_range(stage)?;
    }
    Ok(input)
}
