//! `[map.require]`, `[map.prefer]` and `gang`: which devices a stage wants beyond their class.

use raftwerk_core::device_match::{BACKENDS, FEATURES, MAX_LABELS, VENDORS, label_problem};
use raftwerk_core::gang::{DEFAULT_HOLD_MS, MAX_DEVICES, MAX_HOLD_MS, MIN_HOLD_MS};
use raftwerk_proto::v1::{DeviceMatch, Gang, Label};

use super::problem::Problem;
use super::section::{At, Section};
use super::stages::DEVICE_CLASSES;
use super::suggest;
use super::tree::Value;
use crate::units::{format_duration, parse_duration};

const KEYS: [&str; 6] = ["class", "vendor", "backend", "features", "memory", "labels"];
/// No device has more.
const MAX_MEMORY: u64 = 1 << 50;

#[derive(Debug, Default)]
pub struct Wants {
    /// What `require` says of the class: the same as `device` of the section.
    pub class: Option<At<String>>,
    pub require: Option<DeviceMatch>,
    pub prefer: Option<DeviceMatch>,
    pub gang: Option<Gang>,
}

pub fn read(section: &Section<'_>) -> Result<Wants, Problem> {
    let mut wants = Wants { gang: gang(section)?, ..Wants::default() };
    if let Some(require) = section.inner("require", &KEYS)? {
        let (class, wanted) = one(&require)?;
        wants.class = class;
        // The class alone is nothing new.
        wants.require = Some(wanted).filter(|wanted| *wanted != DeviceMatch::default());
    }
    if let Some(prefer) = section.inner("prefer", &KEYS)? {
        let (class, wanted) = one(&prefer)?;
        let class = class.map_or_else(String::new, |class| class.value);
        let wanted = DeviceMatch { class, ..wanted };
        if wanted == DeviceMatch::default() {
            return Err(prefer.problem("says nothing").fix(format!("give it some of {}, or take it out", KEYS.join(", "))));
        }
        wants.prefer = Some(wanted);
    }
    Ok(wants)
}

fn one(section: &Section<'_>) -> Result<(Option<At<String>>, DeviceMatch), Problem> {
    let class = section.choice("class", &DEVICE_CLASSES)?;
    let wanted = DeviceMatch {
        class: String::new(),
        vendors: words(section, "vendor", &VENDORS)?,
        backends: words(section, "backend", &BACKENDS)?,
        features: words(section, "features", &FEATURES)?,
        memory_bytes: section.bytes("memory", 1, MAX_MEMORY)?.map_or(0, |memory| memory.value),
        labels: labels(section)?,
    };
    Ok((class, wanted))
}

/// Words of a closed list, sorted, each once.
fn words(section: &Section<'_>, key: &str, known: &[&str]) -> Result<Vec<String>, Problem> {
    let Some(texts) = section.texts(key)? else { return Ok(Vec::new()) };
    if texts.value.is_empty() {
        return Err(section.problem_at(key, &texts.origin, "names nothing").fix("name something, or take the line out"));
    }
    let mut words = Vec::new();
    for text in texts.value {
        if !known.contains(&text.value.as_str()) {
            return Err(section
                .problem_at(key, &text.origin, format!("\"{}\" is unknown", text.value))
                .fix(suggest::hint(&text.value.to_lowercase(), known)));
        }
        words.push(text.value);
    }
    words.sort();
    words.dedup();
    Ok(words)
}

fn labels(section: &Section<'_>) -> Result<Vec<Label>, Problem> {
    let Some(table) = section.table("labels")? else { return Ok(Vec::new()) };
    let mut labels = Vec::new();
    for (key, entry) in table.iter() {
        let Value::Text(value) = &entry.node.value else {
            let message = format!("{key} must be a string, not {}", entry.node.value.noun());
            return Err(section.problem_at("labels", &entry.key, message).fix(format!("write {key} = \"..\"")));
        };
        if let Some(problem) = label_problem(key, value) {
            return Err(section.problem_at("labels", &entry.key, format!("are wrong: {problem}")));
        }
        labels.push(Label { key: key.to_owned(), value: value.clone() });
    }
    if labels.len() > MAX_LABELS {
        return Err(section.problem(format!("names {} labels; at most {MAX_LABELS} are possible", labels.len())));
    }
    Ok(labels)
}

fn gang(section: &Section<'_>) -> Result<Option<Gang>, Problem> {
    let hold = section.text("gang_hold")?;
    let Some(devices) = section.integer("gang", 1, u64::from(MAX_DEVICES))? else {
        return match hold {
            None => Ok(None),
            Some(hold) => Err(section
                .problem_at("gang_hold", &hold.origin, "means nothing without `gang`")
                .fix("write gang = 2, say, or take the line out")),
        };
    };
    let hold_ms = match hold {
        None => DEFAULT_HOLD_MS,
        Some(hold) => {
            let wrong = |text: String| section.problem_at("gang_hold", &hold.origin, text);
            let duration = parse_duration(&hold.value).map_err(|error| wrong(format!("is wrong: {error}")))?;
            let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            let human = |ms| format_duration(std::time::Duration::from_millis(ms));
            if !(MIN_HOLD_MS..=MAX_HOLD_MS).contains(&ms) {
                return Err(wrong(format!("must be {} to {}, not {}", human(MIN_HOLD_MS), human(MAX_HOLD_MS), human(ms))));
            }
            ms
        }
    };
    Ok(Some(Gang { devices: devices.value as u32, hold_ms }))
}

#[cfg(test)]
mod tests {
    use super::super::{Catalogue, Patches, parse};
    use super::*;
    use raftwerk_proto::v1::StageSpec;
    use std::path::Path;

    fn read(map: &str) -> Result<StageSpec, String> {
        let text = format!("[input]\nrange = {{ count = 100, tasks = 10 }}\n[map]\nkernel = \"monte_carlo_pi\"\n{map}\n");
        let patches = Patches::default();
        let spec = parse(&text, "stem", Path::new("/jobs"), Path::new("/here"), &patches, &Catalogue::of_this_build());
        spec.map(|mut spec| spec.stages.remove(0)).map_err(|problem| {
            let error = problem.in_file("job.toml");
            error.fix.as_ref().map_or_else(|| error.to_string(), |fix| format!("{error}; {fix}"))
        })
    }

    #[test]
    fn everything_that_can_be_wanted_arrives_in_the_spec() {
        let map = "gang = 3\ngang_hold = \"90s\"\n[map.require]\nclass = \"gpu\"\nvendor = [\"nvidia\", \"amd\"]\nbackend = \"vulkan\"\n\
                   features = [\"subgroup\", \"f16\"]\nmemory = \"8GiB\"\nlabels = { zone = \"a\", disk = \"ssd\" }\n[map.prefer]\nclass = \"discrete\"\n";
        let stage = read(map).unwrap();
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
        let label = |key: &str, value: &str| Label { key: key.into(), value: value.into() };
        assert_eq!(stage.device.as_ref().map(|device| device.class.as_str()), Some("gpu"));
        let require = DeviceMatch {
            class: String::new(),
            vendors: words(&["amd", "nvidia"]),
            backends: words(&["vulkan"]),
            features: words(&["f16", "subgroup"]),
            memory_bytes: 8 << 30,
            labels: vec![label("disk", "ssd"), label("zone", "a")],
        };
        assert_eq!(stage.require, Some(require));
        assert_eq!(stage.prefer, Some(DeviceMatch { class: "discrete".into(), ..DeviceMatch::default() }));
        assert_eq!(stage.gang, Some(Gang { devices: 3, hold_ms: 90_000 }));
        let plain = read("[map.require]\nclass = \"cpu\"").unwrap();
        assert_eq!((plain.device.map(|device| device.class), plain.require, plain.gang), (Some("cpu".into()), None, None));
        assert_eq!(read("gang = 2").unwrap().gang, Some(Gang { devices: 2, hold_ms: DEFAULT_HOLD_MS }));
    }

    #[test]
    fn what_cannot_be_is_said_with_its_line() {
        let cases = [
            ("[map.require]\nvendro = \"amd\"", "job.toml:6: [map] require has no key `vendro`; did you mean `vendor`?"),
            ("[map.require]\nvendor = \"nvida\"", "job.toml:6: [map] require vendor \"nvida\" is unknown; did you mean `nvidia`?"),
            ("[map.require]\nvendor = \"NVIDIA\"", "job.toml:6: [map] require vendor \"NVIDIA\" is unknown; did you mean `nvidia`?"),
            (
                "[map.require]\nbackend = [\"vulkan\", \"dx11\"]",
                "job.toml:6: [map] require backend \"dx11\" is unknown; did you mean `dx12`?",
            ),
            ("[map.require]\nvendor = 5", "job.toml:6: [map] require vendor must be a string or an array of strings, not an integer"),
            ("[map.require]\nvendor = [5]", "job.toml:6: [map] require vendor must be an array of strings, not an integer"),
            ("[map.prefer]\nfeatures = []", "job.toml:6: [map] prefer features names nothing; name something, or take the line out"),
            ("[map.require]\nmemory = \"lots\"", "job.toml:6: [map] require memory is not a size: "),
            (
                "[map.require]\nlabels = { zone = 7 }",
                "job.toml:6: [map] require labels zone must be a string, not an integer; write zone = \"..\"",
            ),
            ("[map.require.labels]\nZone = \"a\"", "job.toml:6: [map] require labels are wrong: the key of a label is 1 to 63 of a-z"),
            ("[map.prefer]", "job.toml:5: [map] prefer says nothing; give it some of class, vendor"),
            (
                "device = \"cpu\"\n[map.require]\nclass = \"gpu\"",
                "job.toml:7: [map] require class is \"gpu\", and device says \"cpu\"; say it once",
            ),
            ("gang = 0", "job.toml:5: [map] gang must be at least 1"),
            ("gang = 2000", "job.toml:5: [map] gang must be at most 1024, not 2000"),
            ("gang_hold = \"5s\"", "job.toml:5: [map] gang_hold means nothing without `gang`; write gang = 2, say, or take the line out"),
            ("gang = 2\ngang_hold = \"1h\"", "job.toml:6: [map] gang_hold must be 1.0 s to 10 m 00 s, not 1 h 00 m"),
            ("gang = 2\ngang_hold = \"soon\"", "job.toml:6: [map] gang_hold is wrong: `soon` is not a duration"),
        ];
        for (map, said) in cases {
            let refused = read(map).expect_err(map);
            assert!(refused.starts_with(said), "{map}\n{refused}\n{said}");
        }
    }
}
