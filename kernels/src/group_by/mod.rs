//! Groups the rows of a table by some of its columns and says what other columns come to in each group.
//!
//! Shapes    rows of a table -> runs of (key, what the split's rows of the group come to), for `merge_groups`; tally rows.
//!           `by` names the columns whose cells make the key, compared as bytes; none: all rows are one group. `aggregate` names the results:
//!           count (rows), count(x) (cells that are not empty), sum, min, max, mean of numbers, distinct(x) (about how many different cells).
//!           A cell that is empty is a key like any other, and no value: it counts in count alone
//! Limits    a number of at most 18 digits is exact, and so is a sum of such up to 38 digits, in units of the finest of them; others are f64.
//!           Memory: some 100 bytes for each group of a split, and 64 for each column of numbers; sketches up to 8 KiB for each group
//! Agreement exact; no GPU twin. Decimals are added as integers, so order cannot show. Numbers of more digits are added as f64 with
//!           compensation (Neumaier), in the order of rows and tasks: the same bytes on any cluster, but not for any size of splits.
//!           distinct: exact up to 512 different cells, else HyperLogLog with a standard error of 1.6 %, of the set of cells alone
//! Errors    a row with too few or too many cells; a cell of a number's column that is neither empty nor a number; a sum beyond 38 digits;
//!           a column that the table lacks
//! Source    combining in the map task: Dean and Ghemawat, MapReduce (OSDI 2004), section 4.3; batches of columns: Boncz, Zukowski, Nes,
//!           MonetDB/X100 (CIDR 2005); sketches: see sketch.rs

mod groups;
mod plan;
mod record;
mod sketch;
mod stat;

use crate::api::*;
use crate::key;
use crate::params::Resolved;
use crate::run::{push_record, push_varint};
use groups::Groups;
pub(crate) use plan::{Output, Plan, column_names};
use raftwerk_formats::{Array, Batch, Column, Wanted};
pub(crate) use record::{Group, key_cells};
use sketch::Sketch;
use stat::Stat;

pub struct GroupBy;

/// Of both kernels: the reduce kernel must read the same plan, so it inherits what the map kernel got.
pub(crate) const PARAMS: [ParamSpec; 2] = [
    ParamSpec {
        name: "by",
        kind: ParamType::Text,
        default: Some(""),
        doc: "columns whose cells make a group, with commas between; none: one group of all rows",
    },
    ParamSpec {
        name: "aggregate",
        kind: ParamType::Text,
        default: Some("count"),
        doc: "results, with commas between: count, count(x), sum(x), min(x), max(x), mean(x), distinct(x)",
    },
];

static DESCRIPTOR: Descriptor = Descriptor {
    name: "group_by",
    version: 1,
    kind: Kind::Map,
    summary: "Groups rows of tables by columns; count, sum, min, max, mean, distinct of others",
    accepts: Accepts::Table,
    params: &PARAMS,
    tallies: &["rows"],
    shuffles: true,
    formats: &[],
    reduces_with: &["merge_groups"],
    reduce_defaults: &[],
    gpu: false,
    agreement: Agreement::Exact,
};

impl Kernel for GroupBy {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let params = Resolved::new(&DESCRIPTOR, &stage.params)?;
        let plan = Plan::parse(DESCRIPTOR.name, params.text("by"), params.text("aggregate"))?;
        Ok(Box::new(PreparedGroupBy { columns: plan.columns(), plan, partitions: stage.partitions.max(1) }))
    }
}

struct PreparedGroupBy {
    plan: Plan,
    columns: Vec<Wanted>,
    partitions: u32,
}

impl Prepared for PreparedGroupBy {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let Input::Table(table) = &task.input else {
            return Err(KernelError::Input("group_by reads tables".into()));
        };
        let mut seen = Seen::new(&self.plan);
        let mut rows = 0;
        for batch in table.read(&self.columns).map_err(KernelError::of_table)? {
            let batch = batch.map_err(KernelError::of_table)?;
            rows += batch.rows as u64;
            seen.add(&batch)?;
        }
        let records = Records { read: rows, made: seen.groups.len() as u64 };
        Ok(TaskOutput { tallies: vec![rows], blocks: seen.blocks(self.partitions), part: None, records })
    }

    fn columns(&self) -> &[Wanted] {
        &self.columns
    }
}

/// What one task has seen: of group `g` and column `c` out of `n`, number `g * n + c` of each list.
struct Seen<'a> {
    plan: &'a Plan,
    groups: Groups,
    rows: Vec<u64>,
    stats: Vec<Stat>,
    /// Of each column of numbers: digits behind the point in which its decimals are counted.
    scales: Vec<u8>,
    filled: Vec<u64>,
    sketches: Vec<Sketch>,
    /// Of the batch under way: the group of each row.
    of_rows: Vec<u32>,
    key: Vec<u8>,
}

impl<'a> Seen<'a> {
    fn new(plan: &'a Plan) -> Seen<'a> {
        Seen {
            plan,
            groups: Groups::new(),
            rows: Vec::new(),
            stats: Vec::new(),
            scales: vec![0; plan.numbers.len()],
            filled: Vec::new(),
            sketches: Vec::new(),
            of_rows: Vec::new(),
            key: Vec::new(),
        }
    }

    fn add(&mut self, batch: &Batch) -> Result<(), KernelError> {
        let (keys, rest) = batch.columns.split_at(self.plan.keys.len());
        let (numbers, texts) = rest.split_at(self.plan.numbers.len());
        self.find_groups(keys, batch.rows)?;
        let groups = self.groups.len();
        self.rows.resize(groups, 0);
        self.stats.resize_with(groups * numbers.len(), Stat::default);
        self.filled.resize(groups * texts.len(), 0);
        self.sketches.resize_with(groups * self.plan.sketched.len(), Sketch::default);
        self.of_rows.iter().for_each(|group| self.rows[*group as usize] += 1);
        for (index, column) in numbers.iter().enumerate() {
            self.add_numbers(index, column)?;
        }
        for (index, column) in texts.iter().enumerate() {
            self.add_texts(index, column)?;
        }
        Ok(())
    }

    fn find_groups(&mut self, keys: &[Column], rows: usize) -> Result<(), KernelError> {
        self.of_rows.clear();
        match keys {
            [] => {
                let all = self.groups.of_key(b"")?;
                self.of_rows.resize(rows, all);
            }
            [Column::Text(column)] => self.groups.of_column(column, &mut self.of_rows)?,
            several => {
                for row in 0..rows {
                    self.key.clear();
                    for (index, column) in several.iter().enumerate() {
                        let Column::Text(column) = column else { return Err(not_asked()) };
                        record::push_key_cell(&mut self.key, column.value(row), index + 1 == several.len());
                    }
                    self.of_rows.push(self.groups.of_key(&self.key)?);
                }
            }
        }
        Ok(())
    }

    fn add_numbers(&mut self, index: usize, column: &Column) -> Result<(), KernelError> {
        let columns = self.plan.numbers.len();
        let too_large = || record::too_large(&self.plan.numbers[index]);
        let overflow = match column {
            Column::Text(_) => return Err(not_asked()),
            Column::Decimal(array) => {
                let power = self.align(index, array.scale() as u8)?;
                let (values, nulls, stats) = (array.values(), array.nulls(), &mut self.stats);
                let mut overflow = false;
                match nulls {
                    None => {
                        for (group, value) in self.of_rows.iter().zip(values.iter()) {
                            overflow |= stats[*group as usize * columns + index].add(i128::from(*value) * power);
                        }
                    }
                    Some(nulls) => {
                        for row in nulls.valid_indices() {
                            overflow |= stats[self.of_rows[row] as usize * columns + index].add(i128::from(values[row]) * power);
                        }
                    }
                }
                overflow
            }
            Column::Wide(array) => {
                // Of all scales the finest, so that nothing is multiplied.
                self.align(index, array.scale() as u8)?;
                let mut overflow = false;
                for (group, value) in self.of_rows.iter().zip(array.iter()) {
                    if let Some(value) = value {
                        overflow |= self.stats[*group as usize * columns + index].add(value);
                    }
                }
                overflow
            }
            Column::Float(array) => {
                for (group, value) in self.of_rows.iter().zip(array.iter()) {
                    if let Some(value) = value {
                        self.stats[*group as usize * columns + index].add_float(value);
                    }
                }
                false
            }
        };
        if overflow { Err(too_large()) } else { Ok(()) }
    }

    /// Makes the column count in units at least as fine as 10^-scale; by what numbers of that scale are to be multiplied.
    fn align(&mut self, index: usize, scale: u8) -> Result<i128, KernelError> {
        let own = self.scales[index];
        if scale <= own {
            return Ok(record::power(own - scale));
        }
        let (columns, power) = (self.plan.numbers.len(), record::power(scale - own));
        let refined = self.stats.iter_mut().skip(index).step_by(columns).try_for_each(|stat| stat.refine(power));
        refined.ok_or_else(|| record::too_large(&self.plan.numbers[index]))?;
        self.scales[index] = scale;
        Ok(1)
    }

    fn add_texts(&mut self, index: usize, column: &Column) -> Result<(), KernelError> {
        let Column::Text(array) = column else { return Err(not_asked()) };
        let (texts, sketched) = (self.plan.texts.len(), self.plan.sketched.len());
        let sketch = self.plan.sketched.iter().position(|text| *text == index);
        for (row, group) in self.of_rows.iter().enumerate() {
            let (group, cell) = (*group as usize, array.value(row));
            if cell.is_empty() {
                continue;
            }
            self.filled[group * texts + index] += 1;
            if let Some(sketch) = sketch {
                self.sketches[group * sketched + sketch].add(key::hash(cell));
            }
        }
        Ok(())
    }

    /// One sorted run for each partition.
    fn blocks(&self, partitions: u32) -> Vec<Vec<u8>> {
        let mut order: Vec<usize> = (0..self.groups.len()).collect();
        order.sort_unstable_by(|a, b| self.groups.key(*a).cmp(self.groups.key(*b)));
        let mut blocks = vec![Vec::new(); partitions as usize];
        let mut value = Vec::new();
        for group in order {
            let key = self.groups.key(group);
            value.clear();
            self.push(group, &mut value);
            push_record(&mut blocks[key::partition(key, partitions) as usize], key, &value);
        }
        blocks
    }

    fn push(&self, group: usize, out: &mut Vec<u8>) {
        let slice = |columns: usize| group * columns..(group + 1) * columns;
        push_varint(out, self.rows[group]);
        let stats = &self.stats[slice(self.plan.numbers.len())];
        stats.iter().zip(&self.scales).for_each(|(stat, scale)| record::push_stat(out, stat, *scale));
        self.filled[slice(self.plan.texts.len())].iter().for_each(|filled| push_varint(out, *filled));
        self.sketches[slice(self.plan.sketched.len())].iter().for_each(|sketch| sketch.push(out));
    }
}

fn not_asked() -> KernelError {
    KernelError::Input("the table gives a column of a kind that was not asked for".into())
}
