//! The kernels a job file may name. Tests bring their own, so that a message does not change because a kernel did.

use raftwerk_kernels::{Descriptor, Kind};

use super::problem::Problem;
use super::section::{At, Section};
use super::suggest;

pub struct Catalogue {
    pub kernels: Vec<&'static Descriptor>,
}

impl Catalogue {
    /// Every kernel of this build.
    pub fn of_this_build() -> Self {
        Self { kernels: raftwerk_kernels::registry().iter().map(|kernel| kernel.descriptor()).collect() }
    }

    pub fn names(&self, kind: Kind) -> Vec<&'static str> {
        self.kernels.iter().filter(|kernel| kernel.kind == kind).map(|kernel| kernel.name).collect()
    }

    /// The kernel that `section` names, of whatever kind.
    pub fn find_any(&self, section: &Section<'_>, name: &At<String>) -> Result<&'static Descriptor, Problem> {
        match self.kernels.iter().find(|kernel| kernel.name == name.value) {
            Some(found) => Ok(found),
            None => {
                let names: Vec<&str> = self.kernels.iter().map(|kernel| kernel.name).collect();
                let hint = suggest::hint(&name.value, &names);
                let glue = if hint.ends_with('?') { "" } else { ";" };
                let problem = section.problem_at("kernel", &name.origin, format!("`{}` is unknown", name.value));
                Err(problem.fix(format!("{hint}{glue} `raftwerk kernels list` shows all")))
            }
        }
    }

    /// The kernel that `section` names, of the kind the section takes.
    pub fn find(&self, section: &Section<'_>, name: &At<String>, kind: Kind) -> Result<&'static Descriptor, Problem> {
        let Some(found) = self.kernels.iter().find(|kernel| kernel.name == name.value) else {
            let problem = section.problem_at("kernel", &name.origin, format!("`{}` is unknown", name.value));
            let hint = suggest::hint(&name.value, &self.names(kind));
            let glue = if hint.ends_with('?') { "" } else { ";" };
            return Err(problem.fix(format!("{hint}{glue} `raftwerk kernels list` shows all")));
        };
        if found.kind != kind {
            let (is, wanted) = match found.kind {
                Kind::Map => ("map", "reduce"),
                Kind::Reduce => ("reduce", "map"),
            };
            let problem = section.problem_at("kernel", &name.origin, format!("`{}` is a {is} kernel, not a {wanted} kernel", name.value));
            return Err(problem.fix(format!("{wanted} kernels: {}", self.names(kind).join(", "))));
        }
        Ok(found)
    }
}
