//! "Did you mean": the nearest known word.

/// The word nearest to `given`, if it is near enough to be a likely slip of the keyboard.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|word| (word, strsim::jaro_winkler(given, word).max(strsim::jaro_winkler(&given.replace('-', "_"), word))))
        // Below 0.75 suggestions start to surprise (`range` for `name`).
        .filter(|(_, likeness)| *likeness >= 0.75)
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(word, _)| word)
}

/// The hint under an unknown word: the nearest one, or all of them.
pub fn hint(given: &str, known: &[&str]) -> String {
    match nearest(given, known.iter().copied()) {
        Some(word) => format!("did you mean `{word}`?"),
        None if known.is_empty() => "it takes none".to_owned(),
        None => format!("known: {}", known.join(", ")),
    }
}

/// A value as a message shows it: its beginning, if it is long.
pub fn shown(value: &str) -> String {
    const LONGEST: usize = 60;
    match value.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}.. ({} characters)", &value[..end], value.chars().count()),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut() {
        assert_eq!(shown("größe"), "größe");
        assert_eq!(shown(&"é".repeat(301)), format!("{}.. (301 characters)", "é".repeat(60)));
    }

    #[test]
    fn the_nearest_word_is_suggested() {
        assert_eq!(nearest("partitons", ["kernel", "partitions", "params"]), Some("partitions"));
        assert_eq!(nearest("wordcount", ["noop", "word_count", "histogram"]), Some("word_count"));
        assert_eq!(nearest("word-count", ["noop", "word_count", "histogram"]), Some("word_count"));
    }

    #[test]
    fn a_word_that_resembles_nothing_gets_the_list() {
        assert_eq!(hint("zzz", &["kernel", "params"]), "known: kernel, params");
        assert_eq!(hint("zzz", &[]), "it takes none");
    }
}
