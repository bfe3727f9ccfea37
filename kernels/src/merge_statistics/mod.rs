//! Adds the statistics of all tasks and writes them as one table.
//!
//! Shapes    records of `statistics` -> rows of (statistic, value): type, values, invalid, min, max, sum, mean, variance, std
//! Limits    one partition; fewer than 2^64 elements
//! Agreement exact: sums are integers until the end. Then sum, mean and variance are each rounded once, to the nearest f64 (the even one of
//!           two); sums of integers not at all. std is the square root of that variance, as IEEE 754 fixes it. Order cannot change the
//!           result: adding counts and integers is associative and commutative, identity 0; so are min and max, identity the largest and
//!           the smallest rank
//! Errors    more than one partition; tasks of different element types; a damaged record
//! Source    variance = (n * squares - sum^2) / n^2 in exact integers, which loses nothing to cancellation. With infinities: IEEE 754

#[cfg(test)]
mod tests;

use crate::api::*;
use crate::gather;
use crate::histogram::ElementType;
use crate::run::Merge;
use crate::statistics::{Magnitude, Moments, SCALE, element_of};

pub struct MergeStatistics;

static DESCRIPTOR: Descriptor = gather::descriptor("merge_statistics", "Adds the statistics of all splits; one table", &["rows"], &["csv"]);

impl Kernel for MergeStatistics {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        gather::check(&DESCRIPTOR, stage)?;
        if stage.tasks > 1 {
            let text = format!("kernel 'merge_statistics' writes one table, not {}: set partitions = 1", stage.tasks);
            return Err(KernelError::Param(text));
        }
        Ok(Box::new(PreparedMergeStatistics))
    }
}

struct PreparedMergeStatistics;

impl Prepared for PreparedMergeStatistics {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let blocks = gather::blocks(&DESCRIPTOR, task)?;
        let (all, read) = add_all(blocks)?;
        let rows = match all {
            Some((element, moments)) => rows(element, &moments),
            None => vec![("values", "0".into()), ("invalid", "0".into())],
        };
        let mut csv = "statistic,value\n".to_owned();
        rows.iter().for_each(|(name, value)| csv += &format!("{name},{value}\n"));
        let count = rows.len() as u64;
        // Falling weights keep the rows in this order.
        let preview = rows.into_iter().zip((1..=count).rev());
        let preview = preview.map(|((name, value), weight)| PreviewRow { cells: vec![name.into(), value], weight }).collect();
        let columns = vec!["statistic".into(), "value".into()];
        let part = Part { extension: "csv", bytes: csv.into_bytes(), rows: count, columns, preview };
        Ok(TaskOutput { tallies: vec![count], blocks: Vec::new(), part: Some(part), records: Records { read, made: 0 } })
    }
}

/// What all tasks have seen together, and how many of them there were.
fn add_all(blocks: &[Block<'_>]) -> Result<(Option<(ElementType, Moments)>, u64), KernelError> {
    let mut merge = Merge::new(blocks.iter().map(|block| block.bytes))?;
    let mut all: Option<(ElementType, Moments)> = None;
    while let Some(record) = merge.next_record()? {
        let element = element_of(record.key).ok_or_else(|| {
            KernelError::Failed(format!("shuffle block is damaged: no element type is named '{}'", String::from_utf8_lossy(record.key)))
        })?;
        let (first, moments) = all.get_or_insert_with(|| (element, Moments::default()));
        if *first != element {
            let (a, b) = (first.name(), element.name());
            return Err(KernelError::Input(format!(
                "the input has files of {a} and of {b}; statistics are of one type: use a job for each"
            )));
        }
        moments.add(record.value)?;
    }
    Ok((all, merge.taken()))
}

fn rows(element: ElementType, all: &Moments) -> Vec<(&'static str, String)> {
    let (mean, variance) = (mean(element, all), variance(element, all));
    vec![
        ("type", element.name().into()),
        ("values", all.count.to_string()),
        ("invalid", all.invalid.to_string()),
        ("min", number_of_rank(element, all.smallest, all.count)),
        ("max", number_of_rank(element, all.largest, all.count)),
        ("sum", sum(element, all)),
        ("mean", text(mean)),
        ("variance", text(variance)),
        ("std", text(variance.sqrt())),
    ]
}

fn number_of_rank(element: ElementType, rank: u32, count: u64) -> String {
    if count == 0 {
        return text(f64::NAN);
    }
    if element != ElementType::F4 {
        return rank.to_string();
    }
    let value = f32::from_bits(if rank >> 31 == 1 { rank ^ 1 << 31 } else { !rank });
    // The shortest text that names this f4; as an f64 it would have more digits.
    let plain = value == 0.0 || !value.is_finite() || (1e-5..1e16).contains(&value.abs());
    if plain { value.to_string() } else { format!("{value:e}") }
}

fn text(value: f64) -> String {
    if value.is_finite() { crate::canonical_f64(value) } else { value.to_string() }
}

/// What infinities make of a sum, if there are any.
fn infinite(all: &Moments) -> Option<f64> {
    match (all.below > 0, all.above > 0) {
        (false, false) => None,
        (true, true) => Some(f64::NAN),
        (true, false) => Some(f64::NEG_INFINITY),
        (false, true) => Some(f64::INFINITY),
    }
}

fn scale(element: ElementType) -> i32 {
    if element == ElementType::F4 { SCALE as i32 } else { 0 }
}

/// Below zero, and the size.
fn finite_sum(all: &Moments) -> (bool, Magnitude) {
    let (order, size) = all.positive.difference(&all.negative);
    (order.is_lt(), size)
}

fn sum(element: ElementType, all: &Moments) -> String {
    match infinite(all) {
        Some(value) => text(value),
        None if element == ElementType::F4 => text(quotient(finite_sum(all), 1, scale(element))),
        None => finite_sum(all).1.to_string(),
    }
}

fn mean(element: ElementType, all: &Moments) -> f64 {
    if all.count == 0 {
        return f64::NAN;
    }
    infinite(all).unwrap_or_else(|| quotient(finite_sum(all), all.count.into(), scale(element)))
}

fn quotient((negative, size): (bool, Magnitude), divisor: u128, scale: i32) -> f64 {
    let value = size.ratio(divisor, scale);
    if negative { -value } else { value }
}

/// Of the elements as they are, not of a population they were drawn from: the divisor is n, as NumPy's `var` has it.
fn variance(element: ElementType, all: &Moments) -> f64 {
    if all.count == 0 || infinite(all).is_some() {
        return f64::NAN;
    }
    let (count, (_, sum)) = (u128::from(all.count), finite_sum(all));
    let (order, size) = Magnitude::from(count).times(&all.squares).difference(&sum.times(&sum));
    // Never negative for records that `statistics` wrote (Cauchy and Schwarz); damaged ones are not worth a panic.
    if order.is_lt() { f64::NAN } else { size.ratio(count * count, 2 * scale(element)) }
}
