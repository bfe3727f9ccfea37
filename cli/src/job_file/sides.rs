//! `[map.side.NAME]`: arrays that every task reads whole.

use std::path::Path;

use raftwerk_kernels::SideSpec;
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::{Files, StageInput};

use super::limits::DEFAULT_SPLIT_BYTES;
use super::paths;
use super::problem::Problem;
use super::section::Section;
use super::suggest;

/// The side inputs of the map section, in the order in which the kernel names them.
pub fn read(map: &Section<'_>, kernel: &str, wanted: &[SideSpec], dir: &Path) -> Result<Vec<StageInput>, Problem> {
    let names: Vec<&str> = wanted.iter().map(|spec| spec.name).collect();
    let given = map.table("side")?;
    if let Some((name, entry)) = given.into_iter().flat_map(|table| table.iter()).find(|(name, _)| !names.contains(name)) {
        let message = match names.as_slice() {
            [] => format!("{} side.{name} is given, but kernel `{kernel}` takes no side input", map.label()),
            _ => format!("{} side.{name} is given, but kernel `{kernel}` has no side input of that name", map.label()),
        };
        let fix = if names.is_empty() { "take it out".to_owned() } else { suggest::hint(name, &names) };
        return Err(Problem::new(entry.key.clone(), message).fix(fix));
    }
    let is_given = |spec: &&SideSpec| spec.required || given.is_some_and(|table| table.iter().any(|(name, _)| name == spec.name));
    wanted.iter().filter(is_given).map(|spec| one(map, kernel, spec, dir)).collect()
}

fn one(map: &Section<'_>, kernel: &str, spec: &SideSpec, dir: &Path) -> Result<StageInput, Problem> {
    let name = spec.name;
    let fix = || format!("write [map.side.{name}] and file = \"{name}.npy\" below it");
    let missing = || map.problem(format!("needs side.{name}: kernel `{kernel}` reads {} in every task", spec.doc)).fix(fix());
    let sides = map.inner_any("side")?.ok_or_else(missing)?;
    let section = sides.inner(name, &["file"])?.ok_or_else(missing)?;
    let file = section.text("file")?.ok_or_else(|| section.problem("needs `file`, one .npy file").fix(fix()))?;
    let pattern = paths::absolute_pattern(dir, &file.value)
        .map_err(|message| section.problem_at("file", &file.origin, format!("is not usable: {message}")))?;
    let files = Files {
        patterns: vec![pattern],
        format: if spec.dimensions == 2 { "npy-rows" } else { "npy" }.to_owned(),
        split_bytes: DEFAULT_SPLIT_BYTES,
        ..Files::default()
    };
    Ok(StageInput { name: name.to_owned(), source: Some(Source::Files(files)) })
}

#[cfg(test)]
mod tests {
    use raftwerk_proto::v1::JobSpec;
    use raftwerk_proto::v1::stage_input::Source;

    use super::super::{Catalogue, Patches, parse};
    use std::path::Path;

    fn read(text: &str) -> Result<JobSpec, String> {
        let patches = Patches::default();
        parse(text, "stem", Path::new("/jobs"), Path::new("/here"), &patches, &Catalogue::of_this_build()).map_err(|problem| {
            let error = problem.in_file("job.toml");
            error.fix.as_ref().map_or_else(|| error.to_string(), |fix| format!("{error}; {fix}"))
        })
    }

    const PRODUCT: &str = "[input]\nfiles = \"a.npy\"\n[map]\nkernel = \"matmul\"\n";
    const OPTIONS: &str = "[input]\nrange = { count = 100 }\n[map]\nkernel = \"black_scholes\"\n";

    #[test]
    fn a_side_input_is_the_second_input_of_the_map_stage() {
        let spec = read(&format!("{PRODUCT}[map.side.b]\nfile = \"data/b.npy\"\n")).unwrap();
        let [first, second] = spec.stages[0].inputs.as_slice() else { panic!("{spec:?}") };
        let files = |input: &raftwerk_proto::v1::StageInput| match &input.source {
            Some(Source::Files(files)) => (files.patterns.clone(), files.format.clone()),
            other => panic!("{other:?}"),
        };
        assert_eq!((first.name.as_str(), files(first)), ("input", (vec!["/jobs/a.npy".to_owned()], "npy-rows".to_owned())));
        assert_eq!((second.name.as_str(), files(second)), ("b", (vec!["/jobs/data/b.npy".to_owned()], "npy-rows".to_owned())));
        assert_eq!(spec.stages[1].inputs.len(), 1);
    }

    #[test]
    fn a_side_input_that_is_missing_or_unknown_is_named() {
        let refusal = |text: &str| read(text).unwrap_err();
        assert_eq!(
            refusal(PRODUCT),
            "job.toml:3: [map] needs side.b: kernel `matmul` reads the right matrix of the product in every task; write [map.side.b] and \
             file = \"b.npy\" below it"
        );
        assert_eq!(
            refusal(&format!("{PRODUCT}[map.side.c]\nfile = \"x\"\n[map.side.b]\nfile = \"y\"\n")),
            "job.toml:5: [map] side.c is given, but kernel `matmul` has no side input of that name; known: b"
        );
        assert_eq!(
            refusal(&format!("{OPTIONS}[map.side.b]\nfile = \"x\"\n")),
            "job.toml:5: [map] side.b is given, but kernel `black_scholes` takes no side input; take it out"
        );
        assert!(refusal(&format!("{PRODUCT}[map.side.b]\n")).contains("[map] side b needs `file`"));
        assert!(refusal(&format!("{PRODUCT}[map.side.b]\nfiles = \"x\"\n")).contains("[map] side b has no key `files`"));
        assert!(refusal(&format!("{PRODUCT}[map]\nside = 3\n")).contains("job.toml"));
        assert!(refusal(&PRODUCT.replace("[map]", "[map]\nside = 3")).contains("[map] side must be a table, not"));
    }

    #[test]
    fn a_side_input_that_is_not_required_may_be_left_out() {
        let job = "[input]\nfiles = \"p.npy\"\n[map]\nkernel = \"kmeans_assign\"\n[rounds]\nmax = 9\n";
        assert_eq!(read(job).unwrap().stages[0].inputs.len(), 1);
        let given = read(&format!("{job}[map.side.centroids]\nfile = \"start.npy\"\n")).unwrap();
        assert_eq!(given.stages[0].inputs[1].name, "centroids");
        let empty = read(&format!("{job}[map.side.centroids]\n")).unwrap_err();
        assert!(empty.contains("[map] side centroids needs `file`"), "{empty}");
    }

    #[test]
    fn a_reproducible_job_pins_bounded_kernels_to_one_twin() {
        let stages = |text: &str| {
            let spec = read(text).unwrap();
            let of = |stage: &raftwerk_proto::v1::StageSpec| (stage.device.clone().unwrap().class, stage.reproducible);
            spec.stages.iter().map(of).collect::<Vec<_>>()
        };
        let reproducible = |text: &str| format!("[job]\nreproducible = true\n{text}");
        let (any, cpu, gpu) = (("any".to_owned(), false), ("cpu".to_owned(), true), ("gpu".to_owned(), true));
        assert_eq!(stages(OPTIONS), [any.clone(), any.clone()]);
        assert_eq!(stages(&reproducible(OPTIONS)), [cpu, any.clone()], "the reduce kernel is exact wherever it runs");
        assert_eq!(stages(&reproducible(&format!("{OPTIONS}device = \"gpu\"\n"))), [gpu, any.clone()]);
        assert_eq!(stages(&reproducible("[input]\nrange = { count = 9 }\n[map]\nkernel = \"monte_carlo_pi\"\n")), [any]);
        assert!(read("[job]\nreproducible = 1\n").unwrap_err().contains("[job] reproducible must be true or false"));
    }

    #[test]
    fn bounded_kernels_are_marked() {
        let spec = read(OPTIONS).unwrap();
        let bounded: Vec<bool> = spec.stages.iter().map(|stage| stage.kernel.as_ref().unwrap().bounded).collect();
        assert_eq!(bounded, [true, false]);
    }
}
