//! The job file as a tree in which every value knows where it came from: a line of the file, or a flag that patched it.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Origin, Problem};

#[derive(Clone, Debug)]
pub struct Node {
    pub origin: Origin,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    Text(String),
    /// Wider than TOML's own 64 bits, so that a seed above 2^63 can be written without quotes.
    Integer(i128),
    Float(f64),
    Boolean(bool),
    Array(Vec<Node>),
    Table(Table),
    /// No key of a job file takes one; kept so that the message can name what was found.
    Datetime,
}

impl Value {
    /// What to call it in a message.
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
            Self::Datetime => "a date",
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Table {
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
pub struct Entry {
    /// Where the key stands; for a table this is its header line.
    pub key: Origin,
    pub node: Node,
}

impl Table {
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(key, entry)| (key.as_str(), entry))
    }

    pub fn set(&mut self, key: &str, node: Node) {
        self.entries.insert(key.to_owned(), Entry { key: node.origin.clone(), node });
    }

    pub fn remove(&mut self, key: &str) {
        self.entries.remove(key);
    }

    /// The table under `key`, made when absent; `None` when something else stands there.
    pub fn table_mut(&mut self, key: &str, origin: &Origin) -> Option<&mut Table> {
        let entry = self
            .entries
            .entry(key.to_owned())
            .or_insert_with(|| Entry { key: origin.clone(), node: Node { origin: origin.clone(), value: Value::Table(Table::default()) } });
        match &mut entry.node.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }
}

/// Parses a whole document; a syntax error carries its line.
pub fn parse(text: &str) -> Result<Table, Problem> {
    let lines = Lines::of(text);
    match DeTable::parse(text) {
        Ok(table) => convert_table(table.get_ref(), &|start| Origin::Line(lines.line_at(start))),
        Err(error) => {
            let origin = error.span().map_or(Origin::File, |span| Origin::Line(lines.line_at(span.start)));
            let problem = Problem::new(origin, format!("not valid TOML: {}", error.message()));
            let key = error.span().filter(|_| error.message() == "duplicate key").and_then(|span| text.get(span));
            Err(match key {
                Some(key) => {
                    Problem { message: format!("{} `{key}`", problem.message), ..problem }.fix("take one of the two out, or join them")
                }
                None => problem,
            })
        }
    }
}

/// Parses one value as it may stand on the right of `=`; `None` when it is no TOML value.
pub fn parse_value(text: &str, origin: &Origin) -> Option<Node> {
    let value = DeValue::parse(text).ok()?;
    convert(&value, &|_| origin.clone()).ok()
}

fn convert_table(table: &DeTable<'_>, origin_at: &dyn Fn(usize) -> Origin) -> Result<Table, Problem> {
    let mut entries = BTreeMap::new();
    for (key, value) in table {
        let key_origin = origin_at(key.span().start);
        let mut node = convert(value, origin_at)?;
        // The span of a table's value covers its header or its first key; the key's own line is what a person looks for.
        if matches!(node.value, Value::Table(_)) {
            node.origin = key_origin.clone();
        }
        entries.insert(key.get_ref().clone().into_owned(), Entry { key: key_origin, node });
    }
    Ok(Table { entries })
}

fn convert(value: &Spanned<DeValue<'_>>, origin_at: &dyn Fn(usize) -> Origin) -> Result<Node, Problem> {
    let origin = origin_at(value.span().start);
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(integer) => match i128::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(integer) => Value::Integer(integer),
            Err(_) => return Err(Problem::new(origin, format!("the integer {integer} is too large"))),
        },
        DeValue::Float(float) => match float.as_str().parse() {
            Ok(float) => Value::Float(float),
            Err(_) => return Err(Problem::new(origin, format!("{float} is not a float"))),
        },
        DeValue::Boolean(boolean) => Value::Boolean(*boolean),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(items) => Value::Array(items.iter().map(|item| convert(item, origin_at)).collect::<Result<_, _>>()?),
        DeValue::Table(table) => Value::Table(convert_table(table, origin_at)?),
    };
    Ok(Node { origin, value })
}

/// Byte offsets at which lines start.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// Lines are counted from 1, as editors do.
    fn line_at(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }
}
