//! What no schedule can beat, whatever it knows: the area bound and the critical path, whichever is higher.
//! And, in `mean`, of the mean time of the jobs.
//!
//! Every task's own time is counted with its noise. Launches, transfers, the log's and the network's delays and jitter only ever add time, so
//! they are left out; a device that dies or is slow has only the time it really has.

mod mean;
pub mod simplex;

use crate::rate::{Ns, Rate};
use crate::scenario::{Job, Scenario};
use serde::Serialize;
use simplex::area;
use std::collections::BTreeMap;

/// Jobs looked at one by one, and moments after which all that arrives is looked at together.
const LOOKS: usize = 256;
/// Different kinds of work that the linear program takes; more are put together by the kernel's fastest times, which only weakens the bound.
const KINDS: usize = 400;
/// Halvings of an interval: to one part in a million.
const HALVINGS: u32 = 24;

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bound {
    /// Infinite (in JSON: null) when the work cannot end: what is needed dies before, and for good.
    pub seconds: f64,
    pub by: By,
    /// Of the mean time from a job's arrival to its end. None for a graph of tasks, and where devices die or change their speed.
    pub mean_completion_s: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// Work against machine time.
    Area,
    /// The longest chain of what has to come one after the other.
    CriticalPath,
}

/// Work of one kind.
struct Kind {
    /// Nanoseconds of one unit on one thread of each group.
    unit_ns: Vec<Option<f64>>,
    units: f64,
}

/// Groups with the rates of their devices, for machine time between two moments.
struct Fleet {
    groups: Vec<(f64, Vec<Rate>)>,
}

impl Fleet {
    fn of(scenario: &Scenario) -> Fleet {
        let of_group = |(place, group): (usize, &crate::scenario::Group)| {
            let mut changing = Vec::new();
            let mut constant = 0u64;
            for device in 0..group.count {
                match scenario.rate(place, device) {
                    rate if rate.is_constant() => constant += 1,
                    rate => changing.push(rate),
                }
            }
            (constant as f64 * f64::from(group.parallelism.max(1)), changing)
        };
        Fleet { groups: scenario.groups.iter().enumerate().map(of_group).collect() }
    }

    fn capacity(&self, scenario: &Scenario, from: Ns, until: Ns) -> Vec<f64> {
        let of_group = |((constant, changing), group): (&(f64, Vec<Rate>), &crate::scenario::Group)| {
            let threads = f64::from(group.parallelism.max(1));
            constant * (until - from) as f64 + changing.iter().map(|rate| rate.capacity(from, until) * threads).sum::<f64>()
        };
        self.groups.iter().zip(&scenario.groups).map(of_group).collect()
    }

    fn is_constant(&self) -> bool {
        self.groups.iter().all(|(_, changing)| changing.is_empty())
    }

    /// The earliest end of this work when it begins at `from` and has everything for itself.
    fn end(&self, scenario: &Scenario, kinds: &[Kind], from: Ns) -> f64 {
        let units: Vec<f64> = kinds.iter().map(|k| k.units).collect();
        let times: Vec<Vec<Option<f64>>> = kinds.iter().map(|k| k.unit_ns.clone()).collect();
        // Share of the machine time until then that is needed.
        let needed = |until: Ns| area(&units, &times, &self.capacity(scenario, from, until));
        let second = 1_000_000_000;
        let first = needed(from.saturating_add(second));
        if self.is_constant() {
            return from as f64 + first * second as f64;
        }
        let mut late = second;
        while needed(from.saturating_add(late)) > 1.0 {
            if late > Ns::MAX / 4 {
                return f64::INFINITY;
            }
            late *= 2;
        }
        let (mut early, mut late) = (0, late);
        for _ in 0..HALVINGS {
            let middle = early + (late - early) / 2;
            if needed(from + middle.max(1)) > 1.0 { early = middle } else { late = middle }
        }
        (from + early) as f64
    }
}

/// The lower bound of the makespan.
pub fn lower_bound(scenario: &Scenario) -> Bound {
    let fleet = Fleet::of(scenario);
    let mut best = Bound { seconds: 0.0, by: By::Area, mean_completion_s: None };
    let mut consider = |ns: f64, by: By| {
        // The same bound by another way changes nothing.
        if ns / 1e9 > best.seconds * (1.0 + 1e-9) {
            (best.seconds, best.by) = (ns / 1e9, by);
        }
    };
    if !scenario.graph.is_empty() {
        let (work, longest) = graph(scenario);
        consider(fleet.end(scenario, &put_together(work.into_values()), 0), By::Area);
        consider(longest, By::CriticalPath);
        return best;
    }
    let work: Vec<Vec<(Kind, f64)>> = scenario.jobs.iter().enumerate().map(|(number, job)| stages(scenario, number, job)).collect();
    // All that arrives from some moment on has the machines from then on at best.
    let mut arrivals: Vec<Ns> = scenario.jobs.iter().map(|job| job.arrives).collect();
    arrivals.sort_unstable();
    arrivals.dedup();
    for place in looks(arrivals.len()) {
        let from = arrivals[place];
        let later = scenario.jobs.iter().zip(&work).filter(|(job, _)| job.arrives >= from);
        let kinds = later.flat_map(|(_, stages)| stages.iter().map(|(kind, _)| Kind { unit_ns: kind.unit_ns.clone(), units: kind.units }));
        consider(fleet.end(scenario, &put_together(kinds), from), By::Area);
    }
    // Each job by itself: a stage begins when the one before it has ended, and no stage is shorter than its longest task.
    for place in looks(scenario.jobs.len()) {
        let mut at = scenario.jobs[place].arrives as f64;
        for (kind, longest) in &work[place] {
            let alone = std::slice::from_ref(kind);
            at = fleet.end(scenario, alone, at as Ns).max(at + longest);
        }
        consider(at, By::CriticalPath);
    }
    best.mean_completion_s = mean::mean_completion(scenario, &fleet, &work);
    best
}

/// At most [`LOOKS`] places of so many, evenly, with the first.
fn looks(count: usize) -> impl Iterator<Item = usize> {
    let step = count.div_ceil(LOOKS).max(1);
    (0..count).step_by(step)
}

/// Work of each stage of a job, and the time of its longest task on the fastest device.
fn stages(scenario: &Scenario, number: usize, job: &Job) -> Vec<(Kind, f64)> {
    let of_stage = |(index, stage): (usize, &crate::scenario::Stage)| {
        let weights = scenario.weights(number, index);
        let (mut units, mut longest) = (0.0, 0.0f64);
        for task in 0..stage.tasks {
            let own = weights.units(task);
            units += own;
            longest = longest.max(own);
        }
        let unit_ns = scenario.given(&stage.class, stage.kernel);
        let fastest = unit_ns.iter().flatten().copied().fold(f64::INFINITY, f64::min);
        (Kind { unit_ns, units }, if stage.tasks == 0 { 0.0 } else { longest * fastest })
    };
    job.stages.iter().enumerate().map(of_stage).collect()
}

/// Work by kernel, and the longest chain in nanoseconds.
fn graph(scenario: &Scenario) -> (BTreeMap<usize, Kind>, f64) {
    let weights = scenario.graph_weights();
    let mut work: BTreeMap<usize, Kind> = BTreeMap::new();
    let given: Vec<Vec<Option<f64>>> = (0..scenario.kernels.len()).map(|kernel| scenario.given("any", kernel)).collect();
    let fastest: Vec<f64> = given.iter().map(|unit_ns| unit_ns.iter().flatten().copied().fold(f64::INFINITY, f64::min)).collect();
    let mut ends: Vec<f64> = vec![0.0; scenario.graph.len()];
    for place in scenario.order() {
        let task = &scenario.graph[place];
        let units = weights.units(place as u64);
        let kind = work.entry(task.kernel).or_insert_with(|| Kind { unit_ns: given[task.kernel].clone(), units: 0.0 });
        kind.units += units;
        let begins = task.after.iter().map(|before| ends[*before as usize]).fold(0.0, f64::max);
        ends[place] = begins + units * fastest[task.kernel];
    }
    (work, ends.into_iter().fold(0.0, f64::max))
}

/// Kinds whose times are in the same proportions are one; and if there are still too many, those that are most alike count as their minimum.
fn put_together(kinds: impl Iterator<Item = Kind>) -> Vec<Kind> {
    let mut by_shape: BTreeMap<Vec<Option<u64>>, Kind> = BTreeMap::new();
    for kind in kinds {
        let least = kind.unit_ns.iter().flatten().copied().fold(f64::INFINITY, f64::min);
        if kind.units == 0.0 || !least.is_finite() || least <= 0.0 {
            continue;
        }
        // Rounded down in the tenth digit, so that what is put together stays a lower bound.
        let shape: Vec<Option<u64>> = kind.unit_ns.iter().map(|t| t.map(|t| (t / least * 1e10) as u64)).collect();
        let unit_ns: Vec<Option<f64>> = shape.iter().map(|t| t.map(|t| t as f64 / 1e10)).collect();
        by_shape.entry(shape).or_insert(Kind { unit_ns, units: 0.0 }).units += kind.units * least;
    }
    let mut kinds: Vec<Kind> = by_shape.into_values().collect();
    while kinds.len() > KINDS {
        // Neighbours in the order of their shapes.
        let halved = kinds.chunks(2).map(|pair| Kind {
            unit_ns: (0..pair[0].unit_ns.len()).map(|g| pair.iter().filter_map(|k| k.unit_ns[g]).reduce(f64::min)).collect(),
            units: pair.iter().map(|k| k.units).sum(),
        });
        kinds = halved.collect();
    }
    kinds
}
