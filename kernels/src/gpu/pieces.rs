//! Cuts tasks of any length into pieces of even work, so that one dispatch holds many short tasks and one long task fills many groups.

/// `count` elements of the task at `task` in the slice, from its element `start` on. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) task: usize,
    pub(crate) start: u64,
    pub(crate) count: u32,
}

/// The pieces of tasks with these numbers of elements, in order, none longer than `longest`.
pub(crate) fn pieces(counts: impl IntoIterator<Item = u64>, longest: u32) -> impl Iterator<Item = Piece> {
    assert!(longest > 0);
    counts.into_iter().enumerate().flat_map(move |(task, count)| {
        (0..count.div_ceil(u64::from(longest))).map(move |index| {
            let start = index * u64::from(longest);
            Piece { task, start, count: (count - start).min(u64::from(longest)) as u32 }
        })
    })
}

#[cfg(test)]
#[test]
fn pieces_cover_every_element_once() {
    let all: Vec<Piece> = pieces([0, 5, 4, 1], 4).collect();
    let expected = [(1, 0, 4), (1, 4, 1), (2, 0, 4), (3, 0, 1)].map(|(task, start, count)| Piece { task, start, count });
    assert_eq!(all, expected);
}
