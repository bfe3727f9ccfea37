//! What redb makes of a commit of which only some sectors reached the disk: the database that ships, on a disk in memory that is cut.

use std::collections::BTreeMap;
use std::path::Path;

use super::StoreError;
use super::database::RedbMedium;
use super::mark::Mark;
use super::medium::{Medium, Write, meta};
use super::sectors::{Disk, Op, SECTOR, apply};

/// Everything that a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub log: BTreeMap<u64, Vec<u8>>,
    pub meta: BTreeMap<&'static str, Vec<u8>>,
}

impl Records {
    fn of(medium: &RedbMedium) -> Result<Self, StoreError> {
        let mut records = Records::default();
        for name in [meta::IDENTITY, meta::VOTE, meta::COMMITTED, meta::PURGED] {
            if let Some(record) = medium.meta(name)? {
                records.meta.insert(name, record);
            }
        }
        medium.scan(0..u64::MAX, &mut |index, record| {
            records.log.insert(index, record.to_vec());
            Ok(true)
        })?;
        Ok(records)
    }
}

/// What is found at the next start when the power goes somewhere in the commit of `writes` after `before`; `dice` says where, and which of the sectors that
/// were on their way arrive. The start fails if it is neither all of the commit nor nothing of it.
pub fn torn(file: &Path, before: Records, writes: &[Write], dice: u64) -> Result<Records, StoreError> {
    let disk = Disk::default();
    let medium = RedbMedium::on(file, Mark::in_memory(file, 0, 0), || Ok(disk.clone()))?;
    let entries = before.log.iter().map(|(index, record)| Write::Entry { index: *index, record: record.clone() });
    let metas = before.meta.iter().map(|(name, record)| Write::Meta { name, record: record.clone() });
    medium.commit(&entries.chain(metas).collect::<Vec<_>>())?;
    let from = disk.ops().len();
    medium.commit(writes)?;
    // Without the close: that would be more than the power left time for.
    let ops = disk.ops();
    let after = Records::of(&medium)?;
    drop(medium);

    let mut dice = Dice(dice);
    let upto = from + dice.below(ops.len() - from + 1);
    let platter = Disk::of(cut(&ops, upto, &mut dice));
    let medium = RedbMedium::on(file, Mark::in_memory(file, 2, 1), || Ok(platter))?;
    let found = Records::of(&medium)?;
    medium.close();
    if found != before && found != after {
        return Err(StoreError::damaged(file, format!("of a commit that was cut at operation {upto} of {} a part is there", ops.len())));
    }
    Ok(found)
}

/// What the disk holds when the power goes after the first `upto` operations: what was flushed, and any sectors of what was not.
fn cut(ops: &[Op], upto: usize, dice: &mut Dice) -> Vec<u8> {
    let flushed = ops[..upto].iter().rposition(|op| matches!(op, Op::Sync)).map_or(0, |at| at + 1);
    let mut bytes = Vec::new();
    ops[..flushed].iter().for_each(|op| apply(&mut bytes, op));
    // Between nothing and everything: mostly few are missing, which is the harder case.
    let arrives = [0, 8, 32, 56, 60, 62, 63, 64][dice.below(8)];
    for op in &ops[flushed..upto] {
        match op {
            Op::Write { offset, data } => {
                for (at, sector) in data.chunks(SECTOR).enumerate() {
                    if dice.below(64) < arrives {
                        let start = *offset as usize + at * SECTOR;
                        bytes.resize(bytes.len().max(start + sector.len()), 0);
                        bytes[start..start + sector.len()].copy_from_slice(sector);
                    }
                }
            }
            Op::SetLen(_) if dice.below(64) < arrives => apply(&mut bytes, op),
            _ => {}
        }
    }
    bytes
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit.max(1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before() -> Records {
        let log = (10..60).map(|index| (index, vec![index as u8; 100])).collect();
        Records { log, meta: [(meta::IDENTITY, b"who".to_vec()), (meta::VOTE, b"3 for 2".to_vec())].into() }
    }

    #[test]
    fn a_torn_commit_is_there_or_not_and_repeats() {
        let writes = [
            Write::Remove(50..u64::MAX),
            Write::Entry { index: 50, record: vec![7; 3000] },
            Write::Meta { name: meta::VOTE, record: b"4 for 1".to_vec() },
        ];
        let (mut lost, mut kept) = (0, 0);
        for dice in 0..300 {
            let found = torn(Path::new("torn"), before(), &writes, dice).expect("one of both");
            assert_eq!(torn(Path::new("torn"), before(), &writes, dice).expect("the same"), found, "dice {dice}");
            if found == before() {
                lost += 1;
            } else {
                kept += 1;
            }
        }
        println!("{lost} cut off, {kept} kept");
        assert!(lost > 50 && kept > 10, "{lost} cut off, {kept} kept");
    }

    #[test]
    fn a_sector_of_what_was_flushed_that_is_missing_is_noticed() {
        let disk = Disk::default();
        let medium = RedbMedium::on(Path::new("torn"), Mark::in_memory(Path::new("torn"), 0, 0), || Ok(disk.clone())).unwrap();
        let entry = |index: u64| [Write::Entry { index, record: vec![index as u8; 600] }];
        (1..=3).for_each(|index| medium.commit(&entry(index)).unwrap());
        let ops = disk.ops();
        let last = ops.iter().rposition(|op| matches!(op, Op::Write { .. })).expect("a write");
        let (mut noticed, mut bytes) = (0, Vec::new());
        for missing in 0..=last {
            bytes.clear();
            ops.iter()
                .enumerate()
                .filter(|(at, op)| *at != missing || !matches!(op, Op::Write { .. }))
                .for_each(|(_, op)| apply(&mut bytes, op));
            // All three were acknowledged: who finds fewer says so.
            let opened = RedbMedium::on(Path::new("torn"), Mark::in_memory(Path::new("torn"), 3, 3), || Ok(Disk::of(bytes.clone())));
            match opened.and_then(|medium| Records::of(&medium)) {
                Ok(found) => assert_eq!(found.log.len(), 3, "without operation {missing}"),
                Err(_) => noticed += 1,
            }
        }
        assert!(noticed > 0, "nothing that was written mattered");
    }
}
