//! What a job may say of the devices it wants beyond their class: words, limits, and whether a device has what is named.

use crate::spec::{DEVICE_CLASSES, SpecError};
use raftwerk_proto::v1::{Device, DeviceMatch, Hello, Label, StageSpec};

/// Makers of devices, as job files name them.
pub const VENDORS: [&str; 11] =
    ["amd", "apple", "arm", "broadcom", "google", "imagination", "intel", "mesa", "microsoft", "nvidia", "qualcomm"];
/// By what a device is reached; `rayon` is a CPU.
pub const BACKENDS: [&str; 5] = ["vulkan", "metal", "dx12", "gl", "rayon"];
/// Those by which builds of this release reach devices at all.
const REACHED: [&str; 2] = ["vulkan", "rayon"];
/// What workers of this release say of their devices: processors first, then GPUs.
pub const FEATURES: [&str; 14] =
    ["x86_64", "aarch64", "riscv64", "arm", "sse4.2", "avx2", "fma", "avx512f", "neon", "f16", "f64", "i64", "subgroup", "timestamp"];

/// Of a worker, and of what a stage wants.
pub const MAX_LABELS: usize = 32;
pub const MAX_LABEL_KEY: usize = 63;
pub const MAX_LABEL_VALUE: usize = 128;
/// Words in one list of a match.
const MAX_WORDS: usize = 32;
const MAX_WORD: usize = 64;

/// What is wrong with a label, if anything.
pub fn label_problem(key: &str, value: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.' | '/');
    if key.is_empty() || key.len() > MAX_LABEL_KEY || !key.chars().all(allowed) {
        return Some(format!(
            "the key of a label is 1 to {MAX_LABEL_KEY} of a-z, 0-9, `-`, `_`, `.` and `/`, not '{}'",
            key.escape_debug()
        ));
    }
    if value.is_empty() || value.len() > MAX_LABEL_VALUE || value.chars().any(char::is_control) {
        return Some(format!("the value of label {key} must have 1 to {MAX_LABEL_VALUE} bytes without control characters"));
    }
    None
}

/// Keeps what labels may be, in the order of their keys, each key once: what a worker sends is not believed.
pub(crate) fn tidy(labels: &mut Vec<Label>) {
    labels.retain(|label| label_problem(&label.key, &label.value).is_none());
    labels.sort_by(|a, b| a.key.cmp(&b.key));
    labels.dedup_by(|a, b| a.key == b.key);
    labels.truncate(MAX_LABELS);
}

/// Whether a device is of a class that jobs ask for.
pub(crate) fn is_of_class(device: &Device, wanted: &str) -> bool {
    match wanted {
        "" | "any" => true,
        "gpu" => device.class != "cpu",
        class => device.class == class,
    }
}

/// Processors name their makers in words of their own.
fn vendor(device: &Device) -> &str {
    match device.vendor.as_str() {
        "GenuineIntel" => "intel",
        "AuthenticAMD" => "amd",
        other => other,
    }
}

/// One thing that a device must have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wish<'a> {
    Class(&'a str),
    Vendor(&'a [String]),
    Backend(&'a [String]),
    Feature(&'a str),
    Memory(u64),
    Label(&'a Label),
}

impl<'a> Wish<'a> {
    pub(crate) fn all(of: &'a DeviceMatch) -> impl Iterator<Item = Wish<'a>> {
        let class = (!of.class.is_empty()).then_some(Wish::Class(&of.class));
        let vendor = (!of.vendors.is_empty()).then_some(Wish::Vendor(&of.vendors));
        let backend = (!of.backends.is_empty()).then_some(Wish::Backend(&of.backends));
        let memory = (of.memory_bytes > 0).then_some(Wish::Memory(of.memory_bytes));
        let features = of.features.iter().map(|feature| Wish::Feature(feature));
        class.into_iter().chain(vendor).chain(backend).chain(features).chain(memory).chain(of.labels.iter().map(Wish::Label))
    }

    pub(crate) fn is_met(self, worker: &Hello, device: &Device) -> bool {
        let one_of = |words: &[String], own: &str| words.iter().any(|word| word.eq_ignore_ascii_case(own));
        match self {
            Wish::Class(class) => is_of_class(device, class),
            Wish::Vendor(words) => one_of(words, vendor(device)),
            Wish::Backend(words) => one_of(words, &device.backend),
            Wish::Feature(feature) => device.features.iter().any(|own| own == feature),
            Wish::Memory(bytes) => device.capacity.is_some_and(|capacity| capacity.memory_bytes >= bytes),
            Wish::Label(label) => worker.labels.contains(label),
        }
    }

    /// What is said of a device that does not have it.
    pub(crate) fn lack(self) -> String {
        match self {
            Wish::Class(class) => format!("not of class {class}"),
            Wish::Vendor(words) => format!("not of vendor {}", words.join(" or ")),
            Wish::Backend(words) => format!("not reached by {}", words.join(" or ")),
            Wish::Feature(feature) => format!("lacks feature {feature}"),
            Wish::Memory(bytes) => format!("has less memory than {}", size(bytes)),
            Wish::Label(Label { key, value }) => format!("its worker has no label {key}={value}"),
        }
    }
}

/// A number of bytes in the largest unit that says it exactly.
fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let exact = units.into_iter().find(|(bits, _)| bytes.trailing_zeros() >= *bits);
    exact.map_or_else(|| format!("{bytes} bytes"), |(bits, unit)| format!("{} {unit}", bytes >> bits))
}

/// What is said of a match that asks for backends which no build has: no worker that anybody could start meets it.
pub(crate) fn out_of_reach(wanted: &DeviceMatch) -> Option<String> {
    let is_reached = |word: &String| REACHED.iter().any(|own| word.eq_ignore_ascii_case(own));
    (!wanted.backends.is_empty() && !wanted.backends.iter().any(is_reached)).then(|| {
        format!(
            "no build of this release reaches a device by {}; require backend \"vulkan\" (GPUs) or \"rayon\" (processors), or leave it out",
            wanted.backends.join(" or ")
        )
    })
}

/// Whether the stage would rather have this device than others.
pub fn is_preferred(prefer: &DeviceMatch, worker: &Hello, device: &Device) -> bool {
    Wish::all(prefer).all(|wish| wish.is_met(worker, device))
}

/// What can be checked without looking at a cluster.
pub(crate) fn check(stage: &StageSpec) -> Result<(), SpecError> {
    let refuse = |text: String| Err(SpecError(format!("stage '{}': {text}", stage.name)));
    if stage.require.as_ref().is_some_and(|require| !require.class.is_empty()) {
        return refuse("the class that it requires is said by its device request".into());
    }
    for (what, wanted) in [("require", &stage.require), ("prefer", &stage.prefer)] {
        let Some(wanted) = wanted else { continue };
        if !wanted.class.is_empty() && !DEVICE_CLASSES.contains(&wanted.class.as_str()) {
            return refuse(format!("{what} names device class '{}'; use one of {}", wanted.class, DEVICE_CLASSES.join(", ")));
        }
        let lists = [("vendor", &wanted.vendors), ("backend", &wanted.backends), ("feature", &wanted.features)];
        for (name, words) in lists {
            if words.len() > MAX_WORDS || words.iter().any(|word| word.is_empty() || word.len() > MAX_WORD) {
                return refuse(format!("{what} names at most {MAX_WORDS} words of 1 to {MAX_WORD} bytes as {name}"));
            }
        }
        if wanted.labels.len() > MAX_LABELS {
            return refuse(format!("{what} names at most {MAX_LABELS} labels"));
        }
        if let Some(problem) = wanted.labels.iter().find_map(|label| label_problem(&label.key, &label.value)) {
            return refuse(format!("{what}: {problem}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::Capacity;

    fn card() -> (Hello, Device) {
        let label = Label { key: "zone".into(), value: "a".into() };
        let device = Device {
            class: "discrete".into(),
            vendor: "NVIDIA".into(),
            backend: "vulkan".into(),
            features: vec!["f16".into(), "subgroup".into()],
            capacity: Some(Capacity { memory_bytes: 8 << 30, ..Capacity::default() }),
            ..Device::default()
        };
        (Hello { labels: vec![label], ..Hello::default() }, device)
    }

    #[test]
    fn each_thing_is_met_or_said_to_be_lacking() {
        let (worker, device) = card();
        let lacks = |wanted: DeviceMatch| -> Vec<String> {
            Wish::all(&wanted).filter(|wish| !wish.is_met(&worker, &device)).map(Wish::lack).collect()
        };
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
        let label = |value: &str| vec![Label { key: "zone".into(), value: value.into() }];
        let met = DeviceMatch {
            class: "gpu".into(),
            vendors: words(&["amd", "nvidia"]),
            backends: words(&["vulkan"]),
            features: words(&["f16"]),
            memory_bytes: 8 << 30,
            labels: label("a"),
        };
        assert!(lacks(met).is_empty());
        let not_met = DeviceMatch {
            class: "cpu".into(),
            vendors: words(&["amd", "intel"]),
            backends: words(&["metal"]),
            features: words(&["f16", "f64"]),
            memory_bytes: (8 << 30) + (1 << 20),
            labels: label("b"),
        };
        let said = [
            "not of class cpu",
            "not of vendor amd or intel",
            "not reached by metal",
            "lacks feature f64",
            "has less memory than 8193 MiB",
            "its worker has no label zone=b",
        ];
        assert_eq!(lacks(not_met), said);
    }

    #[test]
    fn processors_have_the_vendors_that_people_know() {
        for (said, word) in [("GenuineIntel", "intel"), ("AuthenticAMD", "amd"), ("Apple", "apple")] {
            let device = Device { vendor: said.into(), ..Device::default() };
            assert!(Wish::Vendor(&[word.to_owned()]).is_met(&Hello::default(), &device), "{said}");
        }
    }

    #[test]
    fn labels_that_cannot_be_are_left_out() {
        let label = |key: &str, value: &str| Label { key: key.into(), value: value.into() };
        let mut labels =
            vec![label("zone", "b"), label("Zone", "a"), label("disk", "ssd"), label("zone", "a"), label("x", ""), label("", "y")];
        tidy(&mut labels);
        assert_eq!(labels, [label("disk", "ssd"), label("zone", "b")]);
    }
}
