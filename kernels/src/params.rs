//! Parameters of a stage: text in, complete and canonical text out.
//!
//! Validation happens once at submit, where a person reads the message. [`Resolved`] repeats it when a kernel is prepared (it is
//! idempotent), so that a kernel never meets an unchecked value, however the stage reached the executor.

use crate::api::{Descriptor, KernelError, ParamSpec, ParamType, Params};

/// Fills defaults and checks names, types and limits. Numbers come back in one canonical spelling, so that equal jobs have equal text.
pub fn resolve_params(descriptor: &Descriptor, given: &Params) -> Result<Params, KernelError> {
    let fail = |message: String| KernelError::Param(format!("kernel '{}': {message}", descriptor.name));
    let names: Vec<&str> = descriptor.params.iter().map(|spec| spec.name).collect();
    if let Some(name) = given.keys().find(|name| !names.contains(&name.as_str())) {
        return Err(fail(unknown("parameter", name, &names, "its parameters")));
    }
    let mut resolved = Params::new();
    for spec in descriptor.params {
        let text = match (given.get(spec.name), spec.default) {
            (Some(text), _) => text.as_str(),
            (None, Some(default)) => default,
            (None, None) => return Err(fail(format!("parameter '{}' is required: {}", spec.name, spec.doc))),
        };
        resolved.insert(spec.name.to_owned(), canonical(spec, text).map_err(fail)?);
    }
    Ok(resolved)
}

/// Parameters for the reduce stage that follows a map stage: what the job gave, then what the map kernel suggests for names this
/// reduce knows, then the reduce kernel's own defaults.
pub fn reduce_params(map: &Descriptor, reduce: &Descriptor, given: &Params) -> Result<Params, KernelError> {
    let mut params = given.clone();
    for (name, value) in map.reduce_defaults {
        if reduce.params.iter().any(|spec| spec.name == *name) {
            params.entry((*name).to_owned()).or_insert_with(|| (*value).to_owned());
        }
    }
    resolve_params(reduce, &params)
}

fn canonical(spec: &ParamSpec, text: &str) -> Result<String, String> {
    let name = spec.name;
    match spec.kind {
        ParamType::U64 { min, max } => {
            let value = parse_u64(text).ok_or_else(|| format!("parameter '{name}' must be a whole number {min}..={max}, not '{text}'"))?;
            if (min..=max).contains(&value) {
                Ok(value.to_string())
            } else {
                Err(format!("parameter '{name}' = {text} is outside {min}..={max}"))
            }
        }
        ParamType::F64 { min, max } => {
            let limits = format!("{}..={}", canonical_f64(min), canonical_f64(max));
            let value = text.trim().parse::<f64>().map_err(|_| format!("parameter '{name}' must be a number {limits}, not '{text}'"))?;
            // NaN is in no range, so it is refused here too.
            if (min..=max).contains(&value) {
                Ok(canonical_f64(value))
            } else {
                Err(format!("parameter '{name}' = {text} is outside {limits}"))
            }
        }
        ParamType::Text => Ok(text.to_owned()),
        ParamType::Choice(choices) => {
            if choices.contains(&text) {
                return Ok(text.to_owned());
            }
            Err(unknown(&format!("value of parameter '{name}':"), text, choices, "choices"))
        }
    }
}

/// Digits with optional `_` between them, or a float spelling that is exactly whole, such as `1e9`: people write large counts that way.
fn parse_u64(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.replace('_', "");
    if !text.starts_with('_')
        && let Ok(value) = digits.parse::<u64>()
    {
        return Some(value);
    }
    let value = text.parse::<f64>().ok()?;
    // Above 2^53 a float no longer names one whole number.
    ((0.0..=9_007_199_254_740_992.0).contains(&value) && value.fract() == 0.0).then_some(value as u64)
}

/// The shortest text that reads back as the same number; plain digits where a person would write them. Minus zero is zero.
pub fn canonical_f64(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        "0".to_owned()
    } else if (1e-5..1e16).contains(&size) {
        format!("{value}")
    } else {
        format!("{value:e}")
    }
}

/// "unknown kernel 'word_cuont'; did you mean 'word_count'? known kernels: .."
pub(crate) fn unknown(what: &str, name: &str, known: &[&str], list: &str) -> String {
    let nearest = known.iter().map(|candidate| (strsim::damerau_levenshtein(name, candidate), *candidate)).min();
    // A third of the letters wrong is a typing error; more is another word.
    let hint = match nearest {
        Some((distance, candidate)) if distance <= candidate.len().div_ceil(3) => format!("did you mean '{candidate}'? "),
        _ => String::new(),
    };
    let list = if known.is_empty() { format!("{list}: none") } else { format!("{list}: {}", known.join(", ")) };
    format!("unknown {what} '{name}'; {hint}{list}")
}

/// Complete parameters with typed access, for [`crate::Kernel::prepare`].
pub(crate) struct Resolved(Params);

impl Resolved {
    pub(crate) fn new(descriptor: &Descriptor, given: &Params) -> Result<Resolved, KernelError> {
        resolve_params(descriptor, given).map(Resolved)
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("the descriptor declares no parameter '{name}'"))
    }

    pub(crate) fn u64(&self, name: &str) -> u64 {
        self.text(name).parse().expect("resolved as a whole number")
    }

    pub(crate) fn f64(&self, name: &str) -> f64 {
        self.text(name).parse().expect("resolved as a number")
    }
}
