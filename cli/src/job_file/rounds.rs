//! `[rounds]`: the stages run again and again, each round knowing what the one before has left.

use raftwerk_core::rounds::MAX_ROUNDS;
use raftwerk_proto::v1::{OnSetAside, Rounds};

use super::problem::{Origin, Problem};
use super::section::Section;
use super::stages::Stage;
use super::tree::{Table, Value};

const KEYS: [&str; 2] = ["max", "until"];

pub fn read(root: &Table, map: &Stage, reduce: Option<&Stage>, on_set_aside: OnSetAside) -> Result<Option<Rounds>, Problem> {
    let Some(section) = Section::open(root, "rounds", &KEYS)? else { return Ok(None) };
    let Some(max) = section.integer("max", 1, u64::from(MAX_ROUNDS))? else {
        return Err(section.problem("needs `max`").fix("say how many rounds there may be, such as max = 20"));
    };
    let until = section.choice("until", &["converged", "max"])?;
    let Some(reduce) = reduce else {
        return Err(section.problem(format!("has nothing to end a round: map kernel `{}` writes tallies only", map.kernel.name)));
    };
    for kernel in [map.kernel.name, reduce.kernel.name] {
        // Only a test brings a kernel that is not in the registry.
        if raftwerk_kernels::find(kernel).is_ok_and(|kernel| !kernel.rounds()) {
            let with: Vec<&str> =
                raftwerk_kernels::registry().iter().filter(|kernel| kernel.rounds()).map(|kernel| kernel.descriptor().name).collect();
            let problem = section.problem(format!("goes with kernels that know rounds, and `{kernel}` does not"));
            return Err(problem.fix(format!("take the section out, or use {}", with.join(", "))));
        }
    }
    if reduce.partitions != 1 {
        let problem =
            section.problem(format!("needs one reduce task, which ends each round, and [reduce] has partitions = {}", reduce.partitions));
        let origin = reduce.flags.get("partitions").cloned().unwrap_or(problem.origin);
        return Err(Problem::new(origin, problem.message).fix("set partitions = 1"));
    }
    if on_set_aside != OnSetAside::Fail {
        let problem = section.problem("goes with [job] on_set_aside = \"fail\" alone, or rounds would be of different input");
        let said_at = match root.get("job").map(|job| &job.node.value) {
            Some(Value::Table(job)) => job.get("on_set_aside").map(|entry| entry.node.origin.clone()),
            _ => None,
        };
        let origin = said_at.filter(|origin| matches!(origin, Origin::Flag(_))).unwrap_or(problem.origin);
        return Err(Problem::new(origin, problem.message).fix("take on_set_aside out"));
    }
    Ok(Some(Rounds { max: max.value as u32, all: until.is_some_and(|until| until.value == "max") }))
}

#[cfg(test)]
mod tests {
    use super::super::{Catalogue, JobFileError, Patches, parse};
    use super::*;
    use raftwerk_proto::v1::JobSpec;
    use std::path::Path;

    const POINTS: &str = "[input]\nfiles = \"p.npy\"\n[map]\nkernel = \"kmeans_assign\"\n";

    fn read(text: &str) -> Result<JobSpec, JobFileError> {
        let here = Path::new("/jobs");
        parse(text, "stem", here, here, &Patches::default(), &Catalogue::of_this_build()).map_err(|problem| problem.in_file("job.toml"))
    }

    #[test]
    fn a_flag_that_does_not_go_with_rounds_is_named() {
        let here = Path::new("/jobs");
        let refused = |set: &str| {
            let patches = Patches { set: vec![set.into()], ..Patches::default() };
            let text = format!("[job]\nname = \"n\"\n{POINTS}[rounds]\nmax = 2\n");
            let problem = parse(&text, "stem", here, here, &patches, &Catalogue::of_this_build()).expect_err("refused");
            problem.in_file("job.toml").to_string()
        };
        let said = refused("job.on_set_aside=continue");
        assert!(said.starts_with("--set job.on_set_aside=continue: [rounds] goes with"), "{said}");
        let said = refused("reduce.partitions=2");
        assert!(said.starts_with("--set reduce.partitions=2: [rounds] needs one reduce task"), "{said}");
    }

    fn refusal(text: &str) -> String {
        let error = read(text).expect_err("refused");
        format!("{error} / {}", error.fix.clone().unwrap_or_default())
    }

    #[test]
    fn rounds_end_when_nothing_changes_unless_all_are_wanted() {
        let rounds = |more: &str| read(&format!("{POINTS}{more}")).unwrap().rounds;
        assert_eq!(rounds(""), None);
        assert_eq!(rounds("[rounds]\nmax = 20\n"), Some(Rounds { max: 20, all: false }));
        assert_eq!(rounds("[rounds]\nmax = 20\nuntil = \"converged\"\n"), Some(Rounds { max: 20, all: false }));
        assert_eq!(rounds("[rounds]\nmax = 20\nuntil = \"max\"\n"), Some(Rounds { max: 20, all: true }));
    }

    #[test]
    fn rounds_that_cannot_be_are_refused_with_line_and_fix() {
        let with = |more: &str| refusal(&format!("{POINTS}{more}"));
        assert_eq!(with("[rounds]\n"), "job.toml:5: [rounds] needs `max` / say how many rounds there may be, such as max = 20");
        assert_eq!(with("[rounds]\nmax = 0\n"), "job.toml:6: [rounds] max must be at least 1 / ");
        assert_eq!(with("[rounds]\nmax = 1001\n"), "job.toml:6: [rounds] max must be at most 1000, not 1001 / ");
        assert!(with("[rounds]\nmax = 2\nuntil = \"maximum\"\n").contains("must be one of \"converged\", \"max\""));
        assert!(with("[rounds]\nmax = 2\nuntli = \"max\"\n").contains("did you mean `until`?"));
        assert!(with("[reduce]\npartitions = 2\n[rounds]\nmax = 2\n").contains("set partitions = 1"));
        assert!(with("[job]\non_set_aside = \"continue\"\n[rounds]\nmax = 2\n").contains("take on_set_aside out"));
        let words = "[input]\nfiles = \"a\"\n[map]\nkernel = \"word_count\"\n[rounds]\nmax = 2\n";
        assert_eq!(
            refusal(words),
            "job.toml:5: [rounds] goes with kernels that know rounds, and `word_count` does not / take the section out, or use kmeans_assign, kmeans_update"
        );
        let tallies = "[input]\nrange = { count = 9 }\n[map]\nkernel = \"noop\"\n[rounds]\nmax = 2\n";
        assert!(refusal(tallies).contains("has nothing to end a round"));
    }
}
