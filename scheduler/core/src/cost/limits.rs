//! Costs that cannot be right, wherever they were measured. Asked where somebody brings them, and not where an entry is applied: what a log holds was
//! taken once, and entries keep their rules.

use super::entry::SPREAD_MAX;
use raftwerk_proto::v1::CostRecord;

const SECOND_NS: u64 = 1_000_000_000;
/// To begin a lease.
const FIXED_NS: u64 = 24 * 3600 * SECOND_NS;
/// Of a unit, which is an integer or a byte. 64 bits of femtoseconds end at five hours.
const PER_UNIT_FS: u64 = 3600 * SECOND_NS * 1_000_000;
/// More than any cluster grants.
const LEASES: u64 = 1_000_000_000_000;
/// Of a lease, in time of threads.
const LEASE_NS: u64 = 365 * 24 * 3600 * SECOND_NS;

/// The field that is beyond what is taken, and the limit.
pub fn beyond_limits(cost: &CostRecord) -> Option<String> {
    let fields = [
        ("fixed_ns", cost.fixed_ns, FIXED_NS, "a day"),
        ("per_unit_fs", cost.per_unit_fs, PER_UNIT_FS, "an hour"),
        ("samples", cost.samples, LEASES, "a million million leases"),
        ("spread_permille", cost.spread_permille, SPREAD_MAX, "tenfold, as any larger error counts"),
        ("scores", cost.scores.iter().copied().max().unwrap_or(0), LEASES, "a million million leases"),
        ("window", cost.window.iter().map(|lease| lease.ns).max().unwrap_or(0), LEASE_NS, "a year"),
    ];
    let (field, value, most, means) = fields.into_iter().find(|(_, value, most, _)| value > most)?;
    let holds = if matches!(field, "scores" | "window") { "holds" } else { "is" };
    Some(format!("`{field}` {holds} {value}; the most that is taken is {most} ({means})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::CostSample;

    #[test]
    fn what_no_lease_takes_is_told_with_its_field_and_limit() {
        let usual = CostRecord {
            fixed_ns: FIXED_NS,
            per_unit_fs: PER_UNIT_FS,
            samples: LEASES,
            spread_permille: SPREAD_MAX,
            scores: vec![LEASES],
            window: vec![CostSample { units: u64::MAX, ns: LEASE_NS }],
            ..CostRecord::default()
        };
        assert_eq!(beyond_limits(&usual), None);
        assert_eq!(
            beyond_limits(&CostRecord { fixed_ns: u64::MAX, ..usual.clone() }).as_deref(),
            Some("`fixed_ns` is 18446744073709551615; the most that is taken is 86400000000000 (a day)")
        );
        for (spoilt, field) in [
            (CostRecord { per_unit_fs: u64::MAX, ..usual.clone() }, "`per_unit_fs` is"),
            (CostRecord { samples: u64::MAX, ..usual.clone() }, "`samples` is"),
            (CostRecord { spread_permille: u64::MAX, ..usual.clone() }, "`spread_permille` is"),
            (CostRecord { scores: vec![1, u64::MAX], ..usual.clone() }, "`scores` holds"),
            (CostRecord { window: vec![CostSample { units: 1, ns: u64::MAX }], ..usual.clone() }, "`window` holds"),
        ] {
            assert!(beyond_limits(&spoilt).is_some_and(|said| said.starts_with(field)), "{spoilt:?}");
        }
    }
}
