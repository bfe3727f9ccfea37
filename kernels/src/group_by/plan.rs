//! What a job asks for: `by` and `aggregate`, from their text to columns and results.

use crate::api::KernelError;
use raftwerk_formats::Wanted;

/// One column of the result behind the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Rows of the group.
    Rows,
    /// Of `Plan::texts`: cells that are not empty.
    Filled(usize),
    /// Of `Plan::sketched`: about how many different cells.
    Distinct(usize),
    /// Of `Plan::numbers`.
    Sum(usize),
    Min(usize),
    Max(usize),
    Mean(usize),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) keys: Vec<String>,
    pub(crate) numbers: Vec<String>,
    pub(crate) texts: Vec<String>,
    /// Those of `texts` whose different cells are counted.
    pub(crate) sketched: Vec<usize>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) headings: Vec<String>,
}

/// A job that asks for more means something else.
const MAX_COLUMNS: usize = 256;

impl Plan {
    pub(crate) fn parse(kernel: &str, by: &str, aggregate: &str) -> Result<Plan, KernelError> {
        let wrong = |parameter: &str, message: String| KernelError::Param(format!("kernel '{kernel}': parameter '{parameter}': {message}"));
        let mut plan = Plan::default();
        for item in items(by) {
            let name = name(&item).map_err(|message| wrong("by", message))?;
            if plan.keys.contains(&name) {
                return Err(wrong("by", format!("column '{name}' occurs twice")));
            }
            plan.headings.push(name.clone());
            plan.keys.push(name);
        }
        for item in items(aggregate) {
            let output = plan.output(&item).map_err(|message| wrong("aggregate", message))?;
            plan.outputs.push(output);
            plan.headings.push(item);
        }
        if plan.outputs.is_empty() {
            return Err(wrong("aggregate", format!("it asks for nothing; {KNOWN}")));
        }
        if plan.headings.len() > MAX_COLUMNS {
            return Err(wrong(
                "aggregate",
                format!("the result would have {} columns; at most {MAX_COLUMNS} are possible", plan.headings.len()),
            ));
        }
        Ok(plan)
    }

    fn output(&mut self, item: &str) -> Result<Output, String> {
        let Some((function, argument)) = item.split_once('(') else {
            return match item {
                "count" => Ok(Output::Rows),
                "sum" | "min" | "max" | "mean" | "distinct" => Err(format!("{item} of what? write {item}(column)")),
                _ => Err(format!("'{item}' is unknown; {KNOWN}")),
            };
        };
        let argument = argument.strip_suffix(')').ok_or_else(|| format!("'{item}' lacks its closing parenthesis"))?;
        let column = name(argument.trim())?;
        Ok(match function.trim() {
            "count" => Output::Filled(place(&mut self.texts, column)),
            "distinct" => {
                let text = place(&mut self.texts, column);
                Output::Distinct(place(&mut self.sketched, text))
            }
            "sum" => Output::Sum(place(&mut self.numbers, column)),
            "min" => Output::Min(place(&mut self.numbers, column)),
            "max" => Output::Max(place(&mut self.numbers, column)),
            "mean" => Output::Mean(place(&mut self.numbers, column)),
            other => return Err(format!("'{other}' is unknown; {KNOWN}")),
        })
    }

    /// What is read of the table: keys, then numbers, then texts.
    pub(crate) fn columns(&self) -> Vec<Wanted> {
        let keys = self.keys.iter().map(|name| Wanted::text(name));
        let numbers = self.numbers.iter().map(|name| Wanted::number(name));
        keys.chain(numbers).chain(self.texts.iter().map(|name| Wanted::text(name))).collect()
    }
}

const KNOWN: &str = "there are count, count(column), sum(column), min(column), max(column), mean(column) and distinct(column)";

fn place<T: PartialEq>(all: &mut Vec<T>, one: T) -> usize {
    all.iter().position(|known| *known == one).unwrap_or_else(|| {
        all.push(one);
        all.len() - 1
    })
}

/// Pieces between commas; a comma in double quotes is a letter.
fn items(text: &str) -> Vec<String> {
    let mut quoted = false;
    let pieces = text.split(|char| {
        quoted ^= char == '"';
        char == ',' && !quoted
    });
    pieces.map(|piece| piece.trim().to_owned()).filter(|piece| !piece.is_empty()).collect()
}

/// The names in a list with commas between.
pub(crate) fn column_names(text: &str) -> Result<Vec<String>, String> {
    items(text).iter().map(|item| name(item)).collect()
}

/// A name as it stands, or in double quotes, in which a double quote is written twice.
fn name(text: &str) -> Result<String, String> {
    let inner = match text.strip_prefix('"') {
        None => return if text.is_empty() { Err("the name of a column is missing".into()) } else { Ok(text.to_owned()) },
        Some(rest) => rest.strip_suffix('"').ok_or_else(|| format!("the quotes of {text} are not closed"))?,
    };
    if inner.replace("\"\"", "").contains('"') {
        return Err(format!("a quote inside the quotes of {text} must be written twice"));
    }
    Ok(inner.replace("\"\"", "\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(by: &str, aggregate: &str) -> Result<Plan, String> {
        Plan::parse("group_by", by, aggregate).map_err(|error| error.to_string())
    }

    #[test]
    fn columns_that_several_results_need_are_read_once() {
        let found = plan("city, street", "count, sum(amount), mean(amount), count(user), distinct(user), max( x )").unwrap();
        assert_eq!(found.headings, ["city", "street", "count", "sum(amount)", "mean(amount)", "count(user)", "distinct(user)", "max( x )"]);
        use Output::*;
        assert_eq!(found.outputs, [Rows, Sum(0), Mean(0), Filled(0), Distinct(0), Max(1)]);
        let expected = [Wanted::text("city"), Wanted::text("street"), Wanted::number("amount"), Wanted::number("x"), Wanted::text("user")];
        assert_eq!(found.columns(), expected);
    }

    #[test]
    fn names_with_commas_stand_in_quotes() {
        let found = plan("\"a, b\"", "sum(\"say \"\"x\"\"\")").unwrap();
        assert_eq!((found.keys, found.numbers), (vec!["a, b".to_owned()], vec!["say \"x\"".to_owned()]));
    }

    #[test]
    fn what_cannot_be_meant_names_the_parameter() {
        for (by, aggregate, expected) in [
            ("a, a", "count", "parameter 'by': column 'a' occurs twice"),
            ("a", "", "parameter 'aggregate': it asks for nothing"),
            ("a", "sum", "sum of what? write sum(column)"),
            ("a", "sum()", "the name of a column is missing"),
            ("a", "sum(b", "'sum(b' lacks its closing parenthesis"),
            ("a", "median(b)", "'median' is unknown; there are count"),
            ("\"a", "count", "the quotes of \"a are not closed"),
            ("\"", "count", "the quotes of \" are not closed"),
        ] {
            let error = plan(by, aggregate).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
