//! Merging of sorted runs by a loser tree: each step replays one path of log2(runs) comparisons. The tree holds the prefixes themselves, so
//! that a comparison looks at no run unless two prefixes are equal. (Knuth, The Art of Computer Programming 3, section 5.4.1)

use super::Order;
use crate::api::KernelError;

/// Set in the number of a run that is at its end: it comes behind every other.
const ENDED: u32 = 1 << 31;

#[derive(Clone, Copy)]
struct Entry {
    prefix: u128,
    run: u32,
}

struct Head<'a> {
    item: &'a [u8],
    rest: &'a [u8],
}

pub(crate) struct Merge<'a> {
    order: Order,
    heads: Vec<Head<'a>>,
    /// Inner nodes of a complete binary tree over the heads, from 1 on: the loser of each match.
    losers: Vec<Entry>,
    winner: Entry,
    bytes: usize,
}

impl<'a> Merge<'a> {
    /// Runs in the order in which equal keys shall come; empty ones are allowed.
    pub(crate) fn new(order: Order, runs: impl IntoIterator<Item = &'a [u8]>) -> Result<Merge<'a>, KernelError> {
        let mut heads = Vec::new();
        let mut entries = Vec::new();
        let mut bytes = 0;
        for run in runs.into_iter().filter(|run| !run.is_empty()) {
            let items = order.items(run)?;
            bytes += items.len();
            let mut head = Head { item: &[], rest: items };
            head.step(&order)?;
            let number = u32::try_from(heads.len()).ok().filter(|number| number & ENDED == 0);
            let run = number.ok_or_else(|| KernelError::Input("a partition has more runs than can be merged".into()))?;
            entries.push(Entry { prefix: order.prefix(head.item), run });
            heads.push(head);
        }
        let nobody = Entry { prefix: u128::MAX, run: ENDED };
        let mut merge = Merge { order, losers: vec![nobody; heads.len()], winner: nobody, heads, bytes };
        if !entries.is_empty() {
            merge.winner = merge.play(1, &entries);
        }
        Ok(merge)
    }

    /// Length of all items together.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Plays all matches below `node` and returns the winner. Leaves are the nodes `entries.len()..2 * entries.len()`.
    fn play(&mut self, node: usize, entries: &[Entry]) -> Entry {
        if node >= entries.len() {
            return entries[node - entries.len()];
        }
        let (left, right) = (self.play(2 * node, entries), self.play(2 * node + 1, entries));
        let (winner, loser) = if self.before(left, right) { (left, right) } else { (right, left) };
        self.losers[node] = loser;
        winner
    }

    #[inline]
    fn before(&self, a: Entry, b: Entry) -> bool {
        if a.prefix != b.prefix { a.prefix < b.prefix } else { self.before_of_equals(a, b) }
    }

    #[inline(never)]
    fn before_of_equals(&self, a: Entry, b: Entry) -> bool {
        if (a.run | b.run) & ENDED == 0 && self.order.goes_on(a.prefix) {
            let rest = self.order.compare_rest(self.heads[a.run as usize].item, self.heads[b.run as usize].item);
            if rest.is_ne() {
                return rest.is_lt();
            }
        }
        a.run < b.run
    }

    /// The next item, or `None` at the end of all runs.
    #[inline]
    pub(crate) fn next_item(&mut self) -> Result<Option<&'a [u8]>, KernelError> {
        let Entry { prefix, run } = self.winner;
        // A number with the mark is beyond every head.
        let Some(head) = self.heads.get_mut(run as usize) else { return Ok(None) };
        let item = head.item;
        let mut winner = if head.step(&self.order)? {
            let next = Entry { prefix: self.order.prefix(head.item), run };
            let falls = next.prefix < prefix
                || (next.prefix == prefix && self.order.goes_on(prefix) && self.order.compare_rest(item, head.item).is_gt());
            if falls {
                return Err(KernelError::Failed("shuffle block is damaged: a run is not sorted".into()));
            }
            next
        } else {
            Entry { prefix: u128::MAX, run: run | ENDED }
        };
        let mut node = (run as usize + self.heads.len()) / 2;
        while node > 0 {
            let loser = self.losers[node];
            if self.before(loser, winner) {
                self.losers[node] = winner;
                winner = loser;
            }
            node /= 2;
        }
        self.winner = winner;
        Ok(Some(item))
    }
}

impl Head<'_> {
    /// Goes on to the next item; false at the end.
    #[inline]
    fn step(&mut self, order: &Order) -> Result<bool, KernelError> {
        if self.rest.is_empty() {
            return Ok(false);
        }
        let length = match order.record as usize {
            0 => memchr::memchr(b'\n', self.rest).map_or(self.rest.len(), |newline| newline + 1),
            record => record,
        };
        let damaged = || KernelError::Failed("shuffle block is damaged: it ends within an item".into());
        (self.item, self.rest) = self.rest.split_at_checked(length).ok_or_else(damaged)?;
        Ok(true)
    }
}
