//! `[job] after`: jobs that must have ended before this one starts.

use raftwerk_proto::v1::StartAfter;

use super::limits::MAX_AFTER;
use super::problem::Problem;
use super::section::Section;

pub fn read(job: &Section<'_>) -> Result<Option<StartAfter>, Problem> {
    let any = job.boolean("after_any")?;
    let Some(jobs) = job.words("after")? else {
        return match any {
            Some(any) if any.value => Err(job
                .problem_at("after_any", &any.origin, "has nothing to be about")
                .fix("name the jobs: after = [12, \"nightly-2026-11-21\"]")),
            _ => Ok(None),
        };
    };
    if jobs.value.is_empty() || jobs.value.len() > MAX_AFTER {
        let message = format!("names {} jobs; 1 to {MAX_AFTER} are possible", jobs.value.len());
        return Err(job.problem_at("after", &jobs.origin, message));
    }
    if let Some(wrong) = jobs.value.iter().find(|given| given.value.is_empty() || given.value.chars().any(char::is_control)) {
        return Err(job.problem_at("after", &wrong.origin, "has an entry that is neither a job's number nor an idempotency key"));
    }
    Ok(Some(StartAfter { jobs: jobs.value.into_iter().map(|given| given.value).collect(), any: any.is_some_and(|any| any.value) }))
}

#[cfg(test)]
mod tests {
    use super::super::{Catalogue, Patches, parse};
    use super::*;
    use std::path::Path;

    fn read(more: &str, patches: &Patches) -> Result<Option<StartAfter>, String> {
        let text = format!("[job]\n{more}[input]\nrange = {{ count = 9 }}\n[map]\nkernel = \"noop\"\n");
        let here = Path::new("/jobs");
        let spec = parse(&text, "stem", here, here, patches, &Catalogue::of_this_build());
        spec.map(|spec| spec.after).map_err(|problem| problem.in_file("job.toml").to_string())
    }

    #[test]
    fn jobs_are_named_by_number_or_key_in_the_file_or_by_flags() {
        let after = |jobs: &[&str], any| Some(StartAfter { jobs: jobs.iter().map(|job| (*job).to_owned()).collect(), any });
        let none = Patches::default();
        assert_eq!(read("", &none), Ok(None));
        assert_eq!(read("after = [12, \"nightly\"]\n", &none), Ok(after(&["12", "nightly"], false)));
        assert_eq!(read("after = 12\nafter_any = true\n", &none), Ok(after(&["12"], true)));
        let flags = Patches { after: vec!["3".into(), "k".into()], after_any: true, ..Patches::default() };
        assert_eq!(read("after = 12\n", &flags), Ok(after(&["3", "k"], true)));
    }

    #[test]
    fn what_names_no_job_is_refused_with_its_line() {
        let refusal = |more: &str| read(more, &Patches::default()).unwrap_err();
        assert_eq!(refusal("after_any = true\n"), "job.toml:2: [job] after_any has nothing to be about");
        assert_eq!(refusal("after = []\n"), "job.toml:2: [job] after names 0 jobs; 1 to 100 are possible");
        assert_eq!(refusal("after = [1.5]\n"), "job.toml:2: [job] after must be an array of strings or whole numbers, not a float");
        assert!(refusal("after = [\"\"]\n").contains("neither a job's number nor an idempotency key"));
        let flag = Patches { after: vec![String::new()], ..Patches::default() };
        assert!(read("", &flag).unwrap_err().starts_with("--after : [job] after has an entry"));
    }
}
