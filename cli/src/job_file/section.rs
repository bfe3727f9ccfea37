//! Typed reading of one table of the job file. A key that the section does not know is an error, never ignored.

use super::problem::{Origin, Problem};
use super::suggest;
use super::tree::{Node, Table, Value};

/// A value with the place it came from.
#[derive(Clone, Debug)]
pub struct At<T> {
    pub value: T,
    pub origin: Origin,
}

pub struct Section<'a> {
    /// As messages call it: `[reduce]` or `[input] range`.
    label: String,
    pub origin: Origin,
    table: &'a Table,
}

impl<'a> Section<'a> {
    /// The section `name` of the root, `None` when the file has none.
    pub fn open(root: &'a Table, name: &str, keys: &[&str]) -> Result<Option<Self>, Problem> {
        let Some(entry) = root.get(name) else { return Ok(None) };
        let Value::Table(table) = &entry.node.value else {
            return Err(Problem::new(entry.key.clone(), format!("`{name}` must be a section, not {}", entry.node.value.noun()))
                .fix(format!("write a line `[{name}]` and its keys below")));
        };
        Self::of(format!("[{name}]"), entry.key.clone(), table, keys).map(Some)
    }

    /// A table that stands somewhere else, under the label by which messages call it.
    pub fn of(label: String, origin: Origin, table: &'a Table, keys: &[&str]) -> Result<Self, Problem> {
        if let Some((key, entry)) = table.iter().find(|(key, _)| !keys.contains(key)) {
            return Err(Problem::new(entry.key.clone(), format!("{label} has no key `{key}`")).fix(suggest::hint(key, keys)));
        }
        Ok(Self { label, origin, table })
    }

    pub fn label(&self) -> &str {
        &self.label
    }

    pub fn problem(&self, message: impl AsRef<str>) -> Problem {
        Problem::new(self.origin.clone(), format!("{} {}", self.label, message.as_ref()))
    }

    /// A problem with the value of one key.
    pub fn problem_at(&self, key: &str, origin: &Origin, message: impl AsRef<str>) -> Problem {
        Problem::new(origin.clone(), format!("{} {key} {}", self.label, message.as_ref()))
    }

    fn wrong_type(&self, key: &str, node: &Node, wanted: &str) -> Problem {
        self.problem_at(key, &node.origin, format!("must be {wanted}, not {}", node.value.noun()))
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// The flag that the first of these keys came by which came by one: whoever typed it should not look for it in the file.
    pub fn flag_of(&self, keys: &[&str]) -> Option<Origin> {
        let entries = keys.iter().filter_map(|key| self.table.get(key));
        entries.flat_map(|entry| [&entry.key, &entry.node.origin]).find(|origin| matches!(origin, Origin::Flag(_))).cloned()
    }

    pub fn text(&self, key: &str) -> Result<Option<At<String>>, Problem> {
        let Some(entry) = self.table.get(key) else { return Ok(None) };
        match &entry.node.value {
            Value::Text(text) => Ok(Some(At { value: text.clone(), origin: entry.node.origin.clone() })),
            _ => Err(self.wrong_type(key, &entry.node, "a string")),
        }
    }

    /// One word of a closed list.
    pub fn choice(&self, key: &str, choices: &[&str]) -> Result<Option<At<String>>, Problem> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        if choices.contains(&text.value.as_str()) {
            return Ok(Some(text));
        }
        let list = choices.iter().map(|choice| format!("\"{choice}\"")).collect::<Vec<_>>().join(", ");
        let problem = self.problem_at(key, &text.origin, format!("must be one of {list}, not \"{}\"", suggest::shown(&text.value)));
        Err(match suggest::nearest(&text.value, choices.iter().copied()) {
            Some(word) => problem.fix(format!("did you mean \"{word}\"?")),
            None => problem,
        })
    }

    pub fn boolean(&self, key: &str) -> Result<Option<At<bool>>, Problem> {
        let Some(entry) = self.table.get(key) else { return Ok(None) };
        match entry.node.value {
            Value::Boolean(value) => Ok(Some(At { value, origin: entry.node.origin.clone() })),
            _ => Err(self.wrong_type(key, &entry.node, "true or false")),
        }
    }

    pub fn integer(&self, key: &str, min: u64, max: u64) -> Result<Option<At<u64>>, Problem> {
        let Some(entry) = self.table.get(key) else { return Ok(None) };
        let origin = entry.node.origin.clone();
        let Value::Integer(integer) = entry.node.value else { return Err(self.wrong_type(key, &entry.node, "an integer")) };
        if integer < i128::from(min) {
            return Err(self.problem_at(key, &origin, format!("must be at least {min}")));
        }
        if integer > i128::from(max) {
            return Err(self.problem_at(key, &origin, format!("must be at most {max}, not {integer}")));
        }
        Ok(Some(At { value: integer as u64, origin }))
    }

    /// A number of bytes, as an integer or as text with a unit.
    pub fn bytes(&self, key: &str, min: u64, max: u64) -> Result<Option<At<u64>>, Problem> {
        let Some(entry) = self.table.get(key) else { return Ok(None) };
        let origin = entry.node.origin.clone();
        let bytes = match &entry.node.value {
            Value::Integer(integer) => u64::try_from(*integer).map_err(|_| self.problem_at(key, &origin, "must be a positive size"))?,
            Value::Text(text) => {
                crate::units::parse_bytes(text).map_err(|error| self.problem_at(key, &origin, format!("is not a size: {error}")))?
            }
            _ => return Err(self.wrong_type(key, &entry.node, "a size such as \"16MiB\"")),
        };
        if bytes < min || bytes > max {
            let bound = if bytes < min { format!("at least {}", human(min)) } else { format!("at most {}", human(max)) };
            return Err(self.problem_at(key, &origin, format!("must be {bound}, not {}", human(bytes))));
        }
        Ok(Some(At { value: bytes, origin }))
    }

    /// An array of strings; one string alone stands for an array of one.
    pub fn texts(&self, key: &str) -> Result<Option<At<Vec<At<String>>>>, Problem> {
        let Some(entry) = self.table.get(key) else { return Ok(None) };
        let origin = entry.node.origin.clone();
        let text_of = |node: &Node, wanted: &str| match &node.value {
            Value::Text(text) => Ok(At { value: text.clone(), origin: node.origin.clone() }),
            _ => Err(self.wrong_type(key, node, wanted)),
        };
        let value = match &entry.node.value {
            Value::Array(items) => items.iter().map(|item| text_of(item, "an array of strings")).collect::<Result<_, _>>()?,
            _ => vec![text_of(&entry.node, "a string or an array of strings")?],
        };
        Ok(Some(At { value, origin }))
    }

    /// The same where numbers may stand for text.
    pub fn words(&self, key: &str) -> Result<Option<At<Vec<At<String>>>>, Problem> {
        let Some(entry) = self.table.get(key) else { return Ok(None) };
        let word_of = |node: &Node, wanted: &str| match &node.value {
            Value::Text(text) => Ok(At { value: text.clone(), origin: node.origin.clone() }),
            Value::Integer(number) => Ok(At { value: number.to_string(), origin: node.origin.clone() }),
            _ => Err(self.wrong_type(key, node, wanted)),
        };
        let value = match &entry.node.value {
            Value::Array(items) => {
                items.iter().map(|item| word_of(item, "an array of strings or whole numbers")).collect::<Result<_, _>>()?
            }
            _ => vec![word_of(&entry.node, "a string, a whole number, or an array of them")?],
        };
        Ok(Some(At { value, origin: entry.node.origin.clone() }))
    }

    /// A table inside this one, with its own closed list of keys.
    pub fn inner(&self, key: &str, keys: &[&str]) -> Result<Option<Section<'a>>, Problem> {
        let Some(entry) = self.table.get(key) else { return Ok(None) };
        match &entry.node.value {
            Value::Table(table) => Self::of(format!("{} {key}", self.label), entry.key.clone(), table, keys).map(Some),
            _ => Err(self.wrong_type(key, &entry.node, "a table")),
        }
    }

    /// A table inside this one whose keys somebody else checks.
    pub fn inner_any(&self, key: &str) -> Result<Option<Section<'a>>, Problem> {
        let Some(entry) = self.table.get(key) else { return Ok(None) };
        let Some(table) = self.table(key)? else { return Ok(None) };
        Ok(Some(Self { label: format!("{} {key}", self.label), origin: entry.key.clone(), table }))
    }

    /// A table whose keys somebody else checks.
    pub fn table(&self, key: &str) -> Result<Option<&'a Table>, Problem> {
        let Some(entry) = self.table.get(key) else { return Ok(None) };
        match &entry.node.value {
            Value::Table(table) => Ok(Some(table)),
            _ => Err(self.wrong_type(key, &entry.node, "a table")),
        }
    }
}

fn human(bytes: u64) -> String {
    crate::units::format_bytes(bytes)
}
