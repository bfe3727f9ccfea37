//! What is wrong with a file, and where in it. Whoever opened the file adds its name.

/// An error that the same bytes give again, so that nobody tries a second time in vain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("the row at {place} has {found} cells and the table has {expected} columns; mend the row, or its quotes")]
    Ragged { place: Place, found: usize, expected: usize },
    #[error("the cell at {place}, column '{column}', is \"{text}\", which is no number; an empty cell counts as no value")]
    NotANumber { place: Place, column: String, text: String },
    #[error("the quotes that open at {place} are not closed before {}", end_text(*.in_line))]
    Unclosed { place: Place, in_line: bool },
    #[error("the cell at {place} goes on behind its closing quotes; a quote inside quotes is written twice")]
    AfterQuotes { place: Place },
    #[error("the cell at {place} has {bytes} bytes; at most 1 GiB are possible")]
    Large { place: Place, bytes: usize },
    #[error("there is no column '{name}'; {hint}its columns: {known}")]
    UnknownColumn { name: String, hint: String, known: String },
    #[error("{times} columns are called '{name}'; give each a name of its own, or leave the heading out with header = false")]
    AmbiguousColumn { name: String, times: usize },
    #[error("its first row has {found} cells, and `columns` names {given}; name every column")]
    Names { found: usize, given: usize },
    #[error("{place}: {message}; every line is one JSON object")]
    Json { place: Place, message: &'static str },
    #[error("its first row does not end within {0} bytes; is the separator right?")]
    Head(usize),
    #[error("the cell in row {row}, column '{column}', is \"{text}\", which is no number; a null or an empty cell counts as no value")]
    NoNumberInRow { row: u64, column: String, text: String },
    #[error("column '{column}' is of type {found}, and {wanted} are wanted; name another column, or write the table with another type")]
    Type { column: String, found: String, wanted: &'static str },
    #[error("it is no whole {what} file: {message}; make it again, or copy it again")]
    Broken { what: &'static str, message: String },
    #[error("this build neither reads nor writes {what} files; use one that was built with `--features {feature}`")]
    Feature { what: &'static str, feature: &'static str },
    #[error(
        "the cell in row {row}, column '{column}', cannot stand in a file of format {what}, which holds UTF-8 and numbers; write format = \"csv\""
    )]
    Unwritable { what: &'static str, column: String, row: u64 },
    #[error("the cell in row {row}, column '{column}', is no UTF-8; ask for bytes instead")]
    NoText { column: String, row: u64 },
    #[error("{}, so it is not compressed with {with}; write compression = \"none\" if it is not compressed at all", if *.empty { "it has no byte" } else { "it begins as no such file does" })]
    NotCompressed { with: &'static str, empty: bool },
    #[error("its {with} data ends in the middle: the file was cut off at byte {at}; make it again, or copy it again")]
    CutOff { with: &'static str, at: u64 },
    #[error("at byte {at} it ends {bytes} bytes into a record of {record} bytes")]
    CutRecord { at: u64, bytes: u64, record: u64 },
    #[error("its {with} data is damaged, which shows at byte {at} of the file: {message}; make it again, or copy it again")]
    Damaged { with: &'static str, at: u64, message: String },
}

fn end_text(in_line: bool) -> &'static str {
    if in_line { "the end of the line; a job whose cells hold line ends needs quoted_newlines = true" } else { "the end of the file" }
}

impl FormatError {
    fn place(&mut self) -> Option<&mut Place> {
        match self {
            FormatError::Ragged { place, .. }
            | FormatError::NotANumber { place, .. }
            | FormatError::Unclosed { place, .. }
            | FormatError::AfterQuotes { place }
            | FormatError::Large { place, .. }
            | FormatError::Json { place, .. } => Some(place),
            _ => None,
        }
    }

    /// The same of this row of a file of columns, from 1.
    #[cfg_attr(not(feature = "arrow-ipc"), allow(dead_code))]
    pub(crate) fn in_row(mut self, number: u64) -> FormatError {
        if let FormatError::NoNumberInRow { row, .. } = &mut self {
            *row = number;
        }
        self
    }

    /// The same with the line, for whoever is shown it. Counting reads the file from its start, so errors that nobody sees go without.
    pub(crate) fn with_line(mut self, file: &[u8]) -> FormatError {
        if let Some(place) = self.place() {
            place.count(file);
        }
        self
    }

    /// Whether the file is sound, and only has not the columns that are wanted, or this build cannot look.
    pub fn is_about_columns(&self) -> bool {
        matches!(
            self,
            FormatError::UnknownColumn { .. }
                | FormatError::AmbiguousColumn { .. }
                | FormatError::Names { .. }
                | FormatError::Type { .. }
                | FormatError::Feature { .. }
        )
    }

    /// What is wrong, for whoever says beside it where.
    pub(crate) fn without_place(&self) -> String {
        match self {
            FormatError::Ragged { found, expected, .. } => format!("it has {found} cells and the table has {expected} columns"),
            FormatError::NotANumber { column, text, .. } | FormatError::NoNumberInRow { column, text, .. } => {
                format!("its cell in column '{column}' is \"{text}\", which is no number")
            }
            FormatError::Unclosed { in_line, .. } => {
                format!("its quotes are not closed before the end of the {}", if *in_line { "line" } else { "file" })
            }
            FormatError::AfterQuotes { .. } => "a cell of it goes on behind its closing quotes".to_owned(),
            FormatError::Json { message, .. } => format!("it is no JSON object: {message}"),
            FormatError::CutRecord { bytes, record, .. } => format!("the file ends after {bytes} of its {record} bytes"),
            other => other.to_string(),
        }
    }
}

/// Where in a file. The line is counted where that does not take long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub byte: u64,
    pub line: Option<u64>,
}

/// Counting lines reads the file from its start; of what is longer, the byte must do.
pub(crate) const COUNTED_BYTES: usize = 256 << 20;

/// In which line a byte of a file is, from 1, if counting does not take long.
pub fn line_of(file: &[u8], byte: u64) -> Option<u64> {
    let before = &file[..file.len().min(byte as usize)];
    (before.len() <= COUNTED_BYTES).then(|| newlines(before) + 1)
}

pub(crate) fn newlines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

impl Place {
    /// Its line is not counted yet.
    pub(crate) fn at(byte: usize) -> Place {
        Place { byte: byte as u64, line: None }
    }

    fn count(&mut self, file: &[u8]) {
        self.line = line_of(file, self.byte);
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line} (byte {} of the file)", self.byte),
            None => write!(f, "byte {} of the file", self.byte),
        }
    }
}
