//! Parameters of a kernel: every one present, as text, inside its limits.

use std::collections::BTreeMap;

use raftwerk_kernels::{Descriptor, ParamSpec, ParamType, Params, canonical_f64};

use super::problem::{Origin, Problem};
use super::section::Section;
use super::suggest;
use super::tree::{Node, Value};

/// Which parameters a flag has set, and which flag.
pub type Flags = BTreeMap<String, Origin>;

/// Of the flags that set a parameter which the text names, the first: whoever typed it should not look for it in the file.
pub fn blamed(flags: &Flags, text: &str) -> Option<Origin> {
    let named = |name: &str| text.contains(&format!("'{name}'")) || text.contains(&format!(" {name} = "));
    flags.iter().find(|(name, _)| named(name)).map(|(_, origin)| origin.clone())
}

/// The parameters of this section that flags have set.
pub fn flags(section: &Section<'_>) -> Result<Flags, Problem> {
    let entries = section.table("params")?.into_iter().flat_map(|table| table.iter());
    let from_flag = entries.filter(|(_, entry)| matches!(entry.node.origin, Origin::Flag(_)));
    Ok(from_flag.map(|(name, entry)| (name.to_owned(), entry.node.origin.clone())).collect())
}

/// Reads `params` of a stage. What the user leaves out comes from `inherited` (the map stage's parameter of the same name), then from
/// the kernel's default.
pub fn read(section: &Section<'_>, kernel: &Descriptor, inherited: &Params) -> Result<Params, Problem> {
    let names: Vec<&str> = kernel.params.iter().map(|spec| spec.name).collect();
    let mut params = Params::new();
    for (name, entry) in section.table("params")?.into_iter().flat_map(|table| table.iter()) {
        let Some(spec) = kernel.params.iter().find(|spec| spec.name == name) else {
            let message = format!("{} params: kernel `{}` has no parameter `{name}`", section.label(), kernel.name);
            return Err(Problem::new(entry.key.clone(), message).fix(suggest::hint(name, &names)));
        };
        let text = text_of(&entry.node)
            .and_then(|text| check(spec, &text))
            .map_err(|message| Problem::new(entry.node.origin.clone(), format!("{} params.{name} {message}", section.label())))?;
        params.insert(name.to_owned(), text);
    }
    for spec in kernel.params {
        if params.contains_key(spec.name) {
            continue;
        }
        let value = inherited.get(spec.name).map(String::as_str).or(spec.default);
        let value = value.ok_or_else(|| {
            section
                .problem(format!("params.{} is missing: kernel `{}` needs it", spec.name, kernel.name))
                .fix(format!("{}: {}", spec.name, spec.doc))
        })?;
        params.insert(spec.name.to_owned(), value.to_owned());
    }
    // The kernel crate has the last word, for rules that one parameter alone does not show.
    let by_flag = flags(section)?;
    raftwerk_kernels::resolve_params(kernel, &params).map_err(|error| {
        let problem = section.problem(format!("params: {error}"));
        match blamed(&by_flag, &problem.message) {
            Some(origin) => Problem { origin, ..problem },
            None => problem,
        }
    })
}

fn text_of(node: &Node) -> Result<String, String> {
    match &node.value {
        Value::Text(text) => Ok(text.clone()),
        Value::Integer(integer) => Ok(integer.to_string()),
        Value::Float(float) => Ok(float.to_string()),
        Value::Boolean(boolean) => Ok(boolean.to_string()),
        other => Err(format!("must be a number or a string, not {}", other.noun())),
    }
}

fn check(spec: &ParamSpec, text: &str) -> Result<String, String> {
    match spec.kind {
        ParamType::U64 { min, max } => {
            let wrong = || format!("must be a whole number from {min} to {max}, not {}", suggest::shown(text));
            let number = whole_number(text.trim()).ok_or_else(wrong)?;
            if number < min || number > max { Err(wrong()) } else { Ok(number.to_string()) }
        }
        ParamType::F64 { min, max } => {
            let wrong = || format!("must be a number {}, not {}", within(min, max), suggest::shown(text));
            let number: f64 = text.trim().parse().map_err(|_| wrong())?;
            if (min..=max).contains(&number) { Ok(text.trim().to_owned()) } else { Err(wrong()) }
        }
        ParamType::Text => Ok(text.to_owned()),
        ParamType::Choice(choices) => {
            if choices.contains(&text) {
                return Ok(text.to_owned());
            }
            Err(format!("must be one of {}, not {}", choices.join(", "), suggest::shown(text)))
        }
    }
}

/// Limits as a person reads them: the largest number there is has 309 digits, and means that there is none.
fn within(min: f64, max: f64) -> String {
    if max == f64::MAX {
        return format!("of at least {}", canonical_f64(min));
    }
    format!("from {} to {}", canonical_f64(min), canonical_f64(max))
}

/// Digits, or a float that is exactly whole such as `1e9`: people write large counts that way.
fn whole_number(text: &str) -> Option<u64> {
    if let Ok(number) = text.replace('_', "").parse() {
        return Some(number);
    }
    // Above 2^53 a float no longer names one whole number.
    text.parse::<f64>()
        .ok()
        .filter(|number| number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(number))
        .map(|number| number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_none_is_not_written_out() {
        assert_eq!(within(0.0, f64::MAX), "of at least 0");
        assert_eq!(within(-4e38, 4e38), "from -4e38 to 4e38");
        assert_eq!(within(0.5, 2.0), "from 0.5 to 2");
    }
}
