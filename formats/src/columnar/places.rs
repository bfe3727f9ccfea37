//! Where in a file what lies, for whoever fetches no more of it than is read: the end, which says everything else; what every reader needs; groups, and of
//! them some columns.

use super::read::guard;
use super::{Columnar, ipc};
use crate::error::FormatError;
use std::fs::File;
use std::ops::Range;

impl Columnar {
    /// How many of a file's last bytes say where everything is, by its last [`TAIL_BYTES`](Columnar::TAIL_BYTES), or all if it has fewer. It may be more than
    /// the file has: such a file is broken, as its reader will say.
    pub fn end_bytes(self, tail: &[u8]) -> u64 {
        let (magic, length): (&[u8], usize) = match self {
            Columnar::Parquet => (b"PAR1", 4),
            Columnar::Arrow => (b"ARROW1", 4),
        };
        let fixed = magic.len() + length;
        let Some(fixed_tail) = tail.len().checked_sub(fixed).map(|from| &tail[from..]).filter(|tail| tail.ends_with(magic)) else {
            // No such file; its reader looks at these bytes and says so.
            return tail.len() as u64;
        };
        let length = fixed_tail.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        u64::from(length) + fixed as u64
    }

    /// Enough to ask [`end_bytes`](Columnar::end_bytes).
    pub const TAIL_BYTES: u64 = 10;

    /// What a reader of these groups reads beside the end, in ascending order and disjoint: what belongs to no group, and of the groups the columns of these
    /// names, or all when none are named. Of the file nothing but its end need be there.
    pub fn places(self, file: &File, groups: Range<u64>, columns: &[String]) -> Result<Vec<Range<u64>>, FormatError> {
        let length = file.metadata().map_err(|error| FormatError::Broken { what: self.what(), message: error.to_string() })?.len();
        let mut places = guard(self.what(), || match self {
            #[cfg(feature = "parquet")]
            Columnar::Parquet => super::parquet::where_lies(file, groups, columns),
            #[cfg(not(feature = "parquet"))]
            Columnar::Parquet => Err(self.lacking()),
            Columnar::Arrow => ipc::where_lies(file, groups),
        })?;
        let beyond = places.iter().find(|place| place.end > length);
        if let Some(place) = beyond {
            let message = format!("its end says that bytes {}..{} belong to it, of {length} that it has", place.start, place.end);
            return Err(FormatError::Broken { what: self.what(), message });
        }
        places.retain(|place| place.start < place.end);
        places.sort_unstable_by_key(|place| place.start);
        let mut joined: Vec<Range<u64>> = Vec::new();
        for place in places {
            match joined.last_mut().filter(|last| place.start <= last.end) {
                Some(last) => last.end = last.end.max(place.end),
                None => joined.push(place),
            }
        }
        Ok(joined)
    }
}
