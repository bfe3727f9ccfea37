//! Where the tasks of an input ran last. A device that has read a split has it in its own memory or in that of its machine, and may be asked first
//! when the same split is to be read again: in the next round of a job, or by another job over the same input.
//!
//! Advice for planning and nothing else: no lease is refused for it, and none waits for it. Known are accepted results only, because they are in the log;
//! what a worker has dropped from its memory since is not.

use crate::ids::{TaskRange, WorkerId};
use crate::interval_map::IntervalMap;
use crate::job::Job;
use crate::split::input_number;
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::{HomeRecord, HomeSpan};
use std::collections::BTreeMap;

/// Inputs that are remembered. Those whose tasks were accepted longest ago go first.
pub const MAX_INPUTS: usize = 32;
/// Pieces of one input. Of one in more pieces the rest is not remembered.
pub const MAX_PIECES: usize = 1024;

/// A device of a worker; worker 0 stands for none.
pub type Device = (WorkerId, u32);

pub(crate) const NOBODY: Device = (WorkerId(0), 0);

#[derive(Clone, Debug, PartialEq)]
struct Home {
    devices: IntervalMap<Device>,
    /// Index of the entry that accepted the last of its tasks.
    accepted_at: u64,
}

/// By the number of the input.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Homes {
    inputs: BTreeMap<u64, Home>,
}

/// The number of a stage's input, if it is worth remembering who read it: that of a job with rounds will be read again, and files lie in the caches of
/// machines, which the policies that look there can use.
pub(crate) fn worth(job: &Job, stage: u32) -> Option<u64> {
    let spec = job.spec.stages.get(stage as usize)?;
    let worth = match spec.inputs.first()?.source.as_ref()? {
        Source::Files(_) => job.rounds.is_some() || matches!(job.spec.policy.as_str(), "" | "consistent-hash"),
        Source::Range(_) => job.rounds.is_some(),
        Source::Stage(_) => false,
    };
    worth.then(|| input_number(spec, Some(job.id)))
}

impl Homes {
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Pieces of all inputs: the memory that it takes.
    pub(crate) fn pieces(&self) -> usize {
        self.inputs.values().map(|home| home.devices.intervals()).sum()
    }

    /// Who ran which of the input's tasks, if it has so many.
    pub(crate) fn of(&self, input: u64, tasks: u64) -> Option<&IntervalMap<Device>> {
        self.inputs.get(&input).map(|home| &home.devices).filter(|devices| devices.len() == tasks)
    }

    /// The device has run these tasks of the input, which has so many.
    pub(crate) fn record(&mut self, input: u64, tasks: u64, device: Device, ranges: &[TaskRange], index: u64) {
        if ranges.is_empty() {
            return;
        }
        if !self.inputs.contains_key(&input) && self.inputs.len() >= MAX_INPUTS {
            let oldest = self.inputs.iter().min_by_key(|(_, home)| home.accepted_at).map(|(input, _)| *input);
            oldest.and_then(|input| self.inputs.remove(&input));
        }
        let unknown = || Home { devices: IntervalMap::new(tasks, NOBODY), accepted_at: index };
        let home = self.inputs.entry(input).or_insert_with(unknown);
        if home.devices.len() != tasks {
            *home = unknown();
        }
        home.accepted_at = index;
        for range in ranges {
            // One more piece in the middle of another makes two more.
            if home.devices.intervals() + 2 <= MAX_PIECES {
                home.devices.set(*range, device);
            }
        }
    }

    pub(crate) fn to_wire(&self) -> Vec<HomeRecord> {
        let span = |(range, (worker, device)): (TaskRange, Device)| HomeSpan {
            first_task: range.first,
            task_count: range.count(),
            worker: worker.0,
            device,
        };
        let record = |(input, home): (&u64, &Home)| HomeRecord {
            input: *input,
            tasks: home.devices.len(),
            accepted_at: home.accepted_at,
            spans: home.devices.iter().filter(|(_, device)| *device != NOBODY).map(span).collect(),
        };
        self.inputs.iter().map(record).collect()
    }

    pub(crate) fn from_wire(records: Vec<HomeRecord>) -> Result<Homes, String> {
        let mut homes = Homes::default();
        if records.len() > MAX_INPUTS {
            return Err(format!("it remembers who read {} inputs; {MAX_INPUTS} are possible", records.len()));
        }
        for record in records {
            let mut devices = IntervalMap::new(record.tasks, NOBODY);
            for span in record.spans {
                let range = TaskRange::new(span.first_task, span.task_count).filter(|range| range.end <= record.tasks && !range.is_empty());
                let range = range.ok_or("it remembers who ran tasks that an input does not have")?;
                devices.set(range, (WorkerId(span.worker), span.device));
            }
            if devices.intervals() > MAX_PIECES {
                return Err(format!("it remembers {} pieces of an input; {MAX_PIECES} are possible", devices.intervals()));
            }
            homes.inputs.insert(record.input, Home { devices, accepted_at: record.accepted_at });
        }
        Ok(homes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Device = (WorkerId(1), 0);

    fn range(first: u64, end: u64) -> [TaskRange; 1] {
        [TaskRange { first, end }]
    }

    #[test]
    fn of_too_many_inputs_the_one_read_longest_ago_is_forgotten() {
        let mut homes = Homes::default();
        for input in 0..MAX_INPUTS as u64 {
            homes.record(input, 10, ONE, &range(0, 10), input);
        }
        homes.record(0, 10, ONE, &range(3, 4), 100);
        homes.record(99, 10, ONE, &range(0, 1), 101);
        assert_eq!((homes.inputs.len(), homes.of(1, 10).is_some(), homes.of(0, 10).is_some()), (MAX_INPUTS, false, true));
        assert_eq!(Homes::from_wire(homes.to_wire()), Ok(homes));
    }

    #[test]
    fn an_input_in_too_many_pieces_is_remembered_in_part() {
        let mut homes = Homes::default();
        for task in 0..10_000 {
            homes.record(7, 20_000, ONE, &range(2 * task, 2 * task + 1), task);
        }
        assert!(homes.pieces() <= MAX_PIECES && homes.pieces() >= MAX_PIECES - 2);
        // Whoever runs it whole puts that right.
        let all = homes.of(7, 20_000).expect("the input").len();
        homes.record(7, all + 1, ONE, &range(0, all), 10_001);
        assert_eq!((homes.pieces(), homes.of(7, 20_000)), (2, None), "another number of tasks is another input");
    }

    #[test]
    fn what_no_log_could_have_made_is_refused() {
        let span = |first_task, task_count| HomeSpan { first_task, task_count, worker: 1, device: 0 };
        let of = |tasks, spans| Homes::from_wire(vec![HomeRecord { input: 1, tasks, accepted_at: 1, spans }]);
        assert!(of(10, vec![span(0, 11)]).is_err() && of(10, vec![span(u64::MAX, 2)]).is_err() && of(10, vec![span(3, 0)]).is_err());
        assert!(of(10_000, (0..1_000).map(|n| span(2 * n, 1)).collect()).is_err());
        assert!(Homes::from_wire(vec![HomeRecord::default(); MAX_INPUTS + 1]).is_err());
        assert!(of(10, vec![span(0, 5), span(7, 3)]).is_ok());
    }
}
