//! Names of workers are for people, and nobody sees to it that they are distinct: without one a worker is called as its machine, and a machine may
//! have several. Where a name alone is shown, workers of one name are told apart by their numbers.

use std::collections::{BTreeMap, BTreeSet};

/// How each of these workers, by number and name, is called here: `box`, or `box#7` where another one is called `box`.
pub struct Names {
    called: BTreeMap<u64, String>,
}

impl Names {
    pub fn of<'a>(workers: impl IntoIterator<Item = (u64, &'a str)>) -> Self {
        let mut numbers: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for (number, name) in workers {
            numbers.entry(name).or_default().insert(number);
        }
        let mut called = BTreeMap::new();
        for (name, numbers) in numbers {
            let alone = numbers.len() == 1;
            called.extend(numbers.iter().map(|number| (*number, if alone { name.to_owned() } else { numbered(name, *number) })));
        }
        Self { called }
    }

    pub fn get(&self, number: u64) -> &str {
        self.called.get(&number).map_or("", String::as_str)
    }
}

/// The name by which nobody else goes; `worker show` and others take it too.
pub fn numbered(name: &str, number: u64) -> String {
    format!("{name}#{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_of_one_name_get_their_numbers() {
        let names = Names::of([(1, "box"), (2, "lab"), (3, "box"), (2, "lab")]);
        assert_eq!([1, 2, 3, 4].map(|number| names.get(number)), ["box#1", "lab", "box#3", ""]);
    }
}
