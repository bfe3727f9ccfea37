//! Plain tables with a stable layout: one header line in capitals, two spaces between columns, no borders, nothing cut off.

use unicode_width::UnicodeWidthStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Colour {
    #[default]
    None,
    Green,
    Yellow,
    Red,
}

#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    colour: Colour,
}

impl Cell {
    pub fn coloured(text: impl Into<String>, colour: Colour) -> Self {
        Self { text: printable(&text.into()), colour }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::coloured(text, Colour::None)
    }
}

pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A title that starts with `>` belongs to a column of numbers, aligned to the right.
    pub fn new<T: AsRef<str>>(titles: impl IntoIterator<Item = T>) -> Self {
        let column = |title: T| match title.as_ref().strip_prefix('>') {
            Some(title) => (printable(title).to_uppercase(), Align::Right),
            None => (printable(title.as_ref()).to_uppercase(), Align::Left),
        };
        Self { columns: titles.into_iter().map(column).collect(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn render(&self, colour: bool) -> String {
        let width_of = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.width());
            cells.chain([self.columns[column].0.width()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width_of).collect();
        let header: Vec<Cell> = self.columns.iter().map(|(title, _)| Cell { text: title.clone(), colour: Colour::None }).collect();
        let mut text = String::new();
        for row in std::iter::once(&header).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(&self.columns) {
                let space = " ".repeat(width - cell.text.width());
                let painted = paint(cell, colour);
                match align {
                    Align::Left => line.push_str(&format!("{painted}{space}  ")),
                    Align::Right => line.push_str(&format!("{space}{painted}  ")),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn paint(cell: &Cell, colour: bool) -> String {
    let code = match cell.colour {
        Colour::Green => 32,
        Colour::Yellow => 33,
        Colour::Red => 31,
        Colour::None => return cell.text.clone(),
    };
    if colour { format!("\x1b[{code}m{}\x1b[0m", cell.text) } else { cell.text.clone() }
}

/// Text from input data or from another machine with its control characters made visible: a counted word must not move the cursor.
pub fn printable(text: &str) -> String {
    escape(text, |c| c.is_control())
}

/// The same for text of several lines.
pub fn printable_lines(text: &str) -> String {
    escape(text, |c| c.is_control() && c != '\n' && c != '\t')
}

fn escape(text: &str, hidden: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if hidden(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let mut table = Table::new(["word", ">count"]);
        table.row(["the".into(), "12".into()]);
        table.row(["größe".into(), "7".into()]);
        table.row(["語".into(), "100".into()]);
        assert_eq!(table.render(false), "WORD   COUNT\nthe       12\ngröße      7\n語       100\n");
        let mut table = Table::new(["a", "b"]);
        table.row(["1".into(), "".into()]);
        assert_eq!(table.render(false), "A  B\n1\n");
    }

    #[test]
    fn control_characters_are_shown_not_sent() {
        assert_eq!(printable("a\x1b[31mb\n"), "a\\u{1b}[31mb\\n");
        assert_eq!(printable_lines("a\n\x07"), "a\n\\u{7}");
    }

    #[test]
    fn colour_does_not_change_the_layout() {
        let mut table = Table::new(["state", "x"]);
        table.row([Cell::coloured("done", Colour::Green), "y".into()]);
        assert_eq!(table.render(true), "STATE  X\n\x1b[32mdone\x1b[0m   y\n");
    }
}
