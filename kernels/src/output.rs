//! What kernels print, for the log of the job.
//!
//! Tasks of several leases run beside each other in one process, and a pipe does not say which thread wrote a line. So whoever runs tasks
//! names, per thread, what the lines belong to, and [`print()`] puts the name before each line.
//!
//! ```text
//! 0x1e a.b.c 0x1e text \n        a.b.c: the mark, three decimal numbers whose meaning is the runner's
//! ```

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::Write as _;

/// What a line belongs to.
pub type Mark = [u64; 3];

/// Before and after a mark; a control character that no text has use for.
pub const SEPARATOR: char = '\u{1e}';

thread_local! {
    static MARK: Cell<Option<Mark>> = const { Cell::new(None) };
}

/// Lines printed by this thread from now on belong to `mark`. Gives back the former one.
pub fn set_mark(mark: Option<Mark>) -> Option<Mark> {
    MARK.replace(mark)
}

/// Prints `text`, a line or several, into the log of the job. A closed standard output is no reason to fail a task, which `println!` would
/// make of it.
pub fn print(text: &str) {
    // In one piece, so that lines of other threads do not come between.
    let _ = std::io::stdout().lock().write_all(marked(MARK.get(), text).as_bytes());
}

fn marked(mark: Option<Mark>, text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 40);
    for line in text.lines() {
        if let Some([a, b, c]) = mark {
            let _ = write!(out, "{SEPARATOR}{a}.{b}.{c}{SEPARATOR}");
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// The mark of a line, if it has one, and the rest of it.
pub fn split_mark(line: &str) -> (Option<Mark>, &str) {
    let parsed = line.strip_prefix(SEPARATOR).and_then(|rest| rest.split_once(SEPARATOR)).and_then(|(mark, text)| {
        let mut numbers = mark.split('.').map(str::parse::<u64>);
        let mark = [numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?];
        numbers.next().is_none().then_some((mark, text))
    });
    parsed.map_or((None, line), |(mark, text)| (Some(mark), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_mark_and_loses_it_again() {
        let printed = marked(Some([1, u64::MAX, 0]), "one\ntwo");
        let lines: Vec<_> = printed.lines().map(split_mark).collect();
        assert_eq!(lines, [(Some([1, u64::MAX, 0]), "one"), (Some([1, u64::MAX, 0]), "two")]);
        assert_eq!(marked(None, "plain"), "plain\n");
    }

    #[test]
    fn what_is_no_mark_is_text() {
        for line in [
            "",
            "plain",
            "\u{1e}1.2\u{1e}x",
            "\u{1e}1.2.3.4\u{1e}x",
            "\u{1e}a.b.c\u{1e}x",
            "\u{1e}1.2.3",
            "\u{1e}1.2.99999999999999999999\u{1e}",
        ] {
            assert_eq!(split_mark(line), (None, line));
        }
    }
}
