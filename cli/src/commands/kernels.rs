//! `raftwerk kernels list | describe`: what this build can run.

use clap::{Args, Subcommand};
use raftwerk_kernels::{Accepts, Agreement, Descriptor, Kind, ParamSpec, ParamType, SideSpec};
use serde_json::{Value, json};

use crate::console::Console;
use crate::failure::{Exit, Failure, Outcome};
use crate::job_file::{Catalogue, hint};
use crate::table::Table;

#[derive(Subcommand, Debug)]
pub enum Kernels {
    /// List the kernels of this build
    List,
    /// Describe one kernel: what it reads, its parameters, what it makes
    Describe(Name),
}

#[derive(Args, Debug)]
pub struct Name {
    #[arg(value_name = "KERNEL")]
    name: String,
}

pub fn kernels(console: &Console, command: Kernels) -> Outcome {
    let catalogue = Catalogue::of_this_build();
    match command {
        Kernels::List if console.is_json() => {
            console.json(json!({"kernels": catalogue.kernels.iter().map(|kernel| to_json(kernel)).collect::<Vec<_>>()}));
        }
        Kernels::List => list(console, &catalogue),
        Kernels::Describe(Name { name }) => {
            let Some(kernel) = catalogue.kernels.iter().find(|kernel| kernel.name == name) else {
                let names: Vec<&str> = catalogue.kernels.iter().map(|kernel| kernel.name).collect();
                return Err(Failure::say(Exit::NotFound, format!("there is no kernel `{name}`")).fix(hint(&name, &names)));
            };
            if console.is_json() {
                console.json(to_json(kernel));
            } else {
                describe(console, kernel);
            }
        }
    }
    Ok(())
}

fn list(console: &Console, catalogue: &Catalogue) {
    let mut table = Table::new(["kernel", "kind", "reads", "twins", "agreement", "summary"]);
    for kernel in &catalogue.kernels {
        table.row([
            format!("{}@{}", kernel.name, kernel.version).into(),
            kind(kernel).into(),
            reads(kernel).into(),
            twins(kernel).into(),
            agreement(kernel).into(),
            kernel.summary.into(),
        ]);
    }
    console.table(&table);
}

fn describe(console: &Console, kernel: &Descriptor) {
    console.line(format!("{}@{}: {}", kernel.name, kernel.version, kernel.summary));
    console.line(format!("kind: {}; reads {}; twins: {}", kind(kernel), reads(kernel), twins(kernel)));
    match kernel.agreement {
        Agreement::Exact => console.line("agreement: exact, the same bytes on every device"),
        Agreement::Bounded(bound) => console.line(format!("agreement: bounded, {bound}")),
    }
    for (title, words) in [("tallies", kernel.tallies), ("formats", kernel.formats), ("reduce kernels", kernel.reduces_with)] {
        if !words.is_empty() {
            console.line(format!("{title}: {}", words.join(", ")));
        }
    }
    for side in sides(kernel) {
        let shape = if side.dimensions == 2 { "two-dimensional npy" } else { "npy" };
        let may = if side.required { "" } else { " (may be left out)" };
        console.line(format!("side input {}{may}: {shape} of {}; {}", side.name, side.dtypes.join(", "), side.doc));
    }
    if kernel.params.is_empty() {
        return;
    }
    console.line("");
    let mut table = Table::new(["parameter", "type", "default", "meaning"]);
    for spec in kernel.params {
        table.row([spec.name.into(), param_type(spec).into(), default(spec).into(), spec.doc.into()]);
    }
    console.table(&table);
}

fn kind(kernel: &Descriptor) -> &'static str {
    match kernel.kind {
        Kind::Map => "map",
        Kind::Reduce => "reduce",
    }
}

fn reads(kernel: &Descriptor) -> String {
    accepted(kernel.accepts)
}

fn accepted(accepts: Accepts) -> String {
    match accepts {
        Accepts::AnyOf(several) => several.iter().map(|one| accepted(*one)).collect::<Vec<_>>().join(" or "),
        Accepts::Records => "records".to_owned(),
        Accepts::Index => "range".to_owned(),
        Accepts::Text | Accepts::PlacedText => "text".to_owned(),
        Accepts::Npy(dtypes) => format!("npy of {}", dtypes.join(", ")),
        Accepts::Rows(dtypes) => format!("npy rows of {}", dtypes.join(", ")),
        Accepts::Png => "png".to_owned(),
        Accepts::Table => "tables (csv, jsonl)".to_owned(),
        Accepts::Shuffle => "shuffle".to_owned(),
        Accepts::TwoShuffles => "two shuffles".to_owned(),
    }
}

fn sides(kernel: &Descriptor) -> &'static [SideSpec] {
    raftwerk_kernels::find(kernel.name).map_or(&[], |kernel| kernel.sides())
}

fn twins(kernel: &Descriptor) -> &'static str {
    if kernel.gpu { "cpu, gpu" } else { "cpu" }
}

fn agreement(kernel: &Descriptor) -> &'static str {
    match kernel.agreement {
        Agreement::Exact => "exact",
        Agreement::Bounded(_) => "bounded",
    }
}

fn param_type(spec: &ParamSpec) -> String {
    match spec.kind {
        ParamType::U64 { min, max: u64::MAX } => format!("whole number from {min}"),
        ParamType::U64 { min, max } => format!("whole number {min} to {max}"),
        ParamType::F64 { min, max: f64::MAX } => format!("number from {}", raftwerk_kernels::canonical_f64(min)),
        ParamType::F64 { min, max } => {
            format!("number {} to {}", raftwerk_kernels::canonical_f64(min), raftwerk_kernels::canonical_f64(max))
        }
        ParamType::Text => "text".to_owned(),
        ParamType::Choice(choices) => choices.join(" | "),
    }
}

fn default(spec: &ParamSpec) -> &'static str {
    match spec.default {
        None => "must be given",
        Some("") => "\"\"",
        Some(default) => default,
    }
}

fn to_json(kernel: &Descriptor) -> Value {
    let param = |spec: &ParamSpec| json!({"name": spec.name, "type": param_type(spec), "default": spec.default, "meaning": spec.doc});
    let side = |side: &SideSpec| {
        json!({"name": side.name, "dtypes": side.dtypes, "dimensions": side.dimensions,
        "required": side.required, "meaning": side.doc})
    };
    json!({
        "name": kernel.name, "version": kernel.version, "kind": kind(kernel), "summary": kernel.summary, "reads": reads(kernel),
        "gpu": kernel.gpu, "agreement": agreement(kernel),
        "bound": match kernel.agreement { Agreement::Exact => Value::Null, Agreement::Bounded(bound) => bound.into() },
        "tallies": kernel.tallies, "formats": kernel.formats, "reduces_with": kernel.reduces_with, "shuffles": kernel.shuffles,
        "sides": sides(kernel).iter().map(side).collect::<Vec<_>>(),
        "params": kernel.params.iter().map(param).collect::<Vec<_>>(),
    })
}
