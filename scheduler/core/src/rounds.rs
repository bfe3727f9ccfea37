//! Jobs whose stages run again and again over the same input, until their reduce kernel says that nothing changes any more.
//!
//! ```text
//!            +-------------------------------------------------------------------------------+
//!            v                                                                               |  state: what the reduce task left
//!   round r: map stage (reads input, state) --> reduce stage, one task --accepted: decided--> +--> last: as in a job without rounds
//! ```
//! A round ends with the entry that accepts its reduce task. The same entry ends every lease of the job and makes all tasks ready under a new
//! generation, so whatever is still on its way from the round before is fenced like any late result, and the shuffle data of a round that has
//! ended may be lost without harm.

use crate::ids::Timestamp;
use crate::spec::{SpecError, refuse};
use crate::stage::Stage;
use prost::bytes::Bytes;
use raftwerk_proto::v1::{JobSpec, OnSetAside, RoundEnd, RoundInfo, RoundRecord, RoundsRecord, RoundsView};

pub const MAX_ROUNDS: u32 = 1000;
/// What one round leaves for the next. It goes through the log, whose entries have at most 1 MiB, and to each worker once per round and stage.
pub const MAX_STATE_BYTES: usize = 256 << 10;
/// Numbers that a kernel gives of a round, and the length of a name and of a value.
pub const MAX_MEASURES: usize = 8;
pub const MAX_MEASURE_BYTES: usize = 64;

#[derive(Clone, Debug, PartialEq)]
pub struct Rounds {
    /// Those that are over, the first one first. At most as many as the spec allows.
    pub ended: Vec<RoundRecord>,
    /// What the round under way reads, or the last one did.
    pub state: Bytes,
    pub began_at: Timestamp,
    /// Generation of each stage with which the round under way began.
    pub first_generations: Vec<u32>,
}

impl Rounds {
    pub(crate) fn new(stages: &[Stage], now: Timestamp) -> Rounds {
        let mut rounds = Rounds { ended: Vec::new(), state: Bytes::new(), began_at: now, first_generations: Vec::new() };
        rounds.begin(&[], stages, now);
        rounds
    }

    pub(crate) fn begin(&mut self, state: &[u8], stages: &[Stage], now: Timestamp) {
        // A copy of its own: it would keep the whole entry that it came with in memory.
        self.state = Bytes::copy_from_slice(state);
        self.began_at = now;
        self.first_generations = stages.iter().map(|stage| stage.generation).collect();
    }

    /// Writes down a sound end; what the next round begins with.
    pub(crate) fn end(&mut self, end: RoundEnd, now: Timestamp) -> Bytes {
        self.ended.push(RoundRecord {
            began_at_ms: self.began_at.0,
            ended_at_ms: now.0,
            converged: end.converged,
            state_bytes: end.state.len() as u64,
            measures: end.measures,
        });
        end.state
    }

    /// Whether the last round has been decided.
    pub fn is_over(&self, spec: &JobSpec) -> bool {
        let of = spec.rounds.unwrap_or_default();
        self.ended.len() >= of.max as usize || (!of.all && self.ended.last().is_some_and(|round| round.converged))
    }

    /// The round under way, from 1, or the last one.
    pub fn current(&self, spec: &JobSpec) -> u32 {
        let ended = self.ended.len() as u32;
        if self.is_over(spec) { ended } else { ended + 1 }
    }

    /// What the tasks of a stage are told of their round.
    pub fn info(&self, spec: &JobSpec, stage: usize) -> RoundInfo {
        let number = self.current(spec);
        RoundInfo {
            number,
            state: self.state.clone(),
            last: self.is_over(spec) || number >= spec.rounds.unwrap_or_default().max,
            first_generation: self.first_generations.get(stage).copied().unwrap_or_default(),
            all: spec.rounds.unwrap_or_default().all,
        }
    }

    pub(crate) fn view(&self, spec: &JobSpec) -> RoundsView {
        RoundsView { current: self.current(spec), max: spec.rounds.unwrap_or_default().max, ended: self.ended.clone() }
    }

    pub(crate) fn to_wire(&self) -> RoundsRecord {
        RoundsRecord {
            ended: self.ended.clone(),
            state: self.state.clone(),
            began_at_ms: self.began_at.0,
            first_generations: self.first_generations.clone(),
        }
    }

    /// `None` for what no log could have made.
    pub(crate) fn from_wire(record: RoundsRecord, spec: &JobSpec) -> Option<Rounds> {
        let fits = record.ended.len() <= spec.rounds?.max as usize
            && record.state.len() <= MAX_STATE_BYTES
            && record.first_generations.len() == spec.stages.len();
        fits.then_some(Rounds {
            ended: record.ended,
            state: record.state,
            began_at: Timestamp(record.began_at_ms),
            first_generations: record.first_generations,
        })
    }
}

/// The end of this round as the log may keep it.
pub(crate) fn sound(end: Option<RoundEnd>, round: u32) -> Result<RoundEnd, String> {
    let end = end.filter(|end| end.round == round).ok_or("the reduce task did not say how the round ended")?;
    if end.state.len() > MAX_STATE_BYTES {
        return Err(format!("the reduce task left {} bytes for the next round; at most {MAX_STATE_BYTES} are possible", end.state.len()));
    }
    let too_long = |text: &str| text.len() > MAX_MEASURE_BYTES;
    if end.measures.len() > MAX_MEASURES || end.measures.iter().any(|m| too_long(&m.name) || too_long(&m.value)) {
        return Err(format!("the reduce task gave more than {MAX_MEASURES} numbers of {MAX_MEASURE_BYTES} bytes"));
    }
    Ok(end)
}

/// What a spec with rounds must satisfy.
pub(crate) fn check(spec: &JobSpec) -> Result<(), SpecError> {
    let Some(rounds) = &spec.rounds else { return Ok(()) };
    if !(1..=MAX_ROUNDS).contains(&rounds.max) {
        return refuse(format!("rounds: max must be 1 to {MAX_ROUNDS}, not {}", rounds.max));
    }
    if spec.stages.len() > 2 {
        return refuse(format!(
            "a job with rounds has one map and one reduce stage, not {} stages; take out its rounds, or make jobs of their own of the other stages",
            spec.stages.len()
        ));
    }
    if spec.stages.len() != 2 {
        return refuse("a job with rounds needs a reduce stage, whose task leaves what the next round begins with");
    }
    if spec.stages[0].partitions != 1 {
        return refuse(format!(
            "a job with rounds has one reduce task, which ends each round; set its partitions to 1 instead of {}",
            spec.stages[0].partitions
        ));
    }
    if spec.on_set_aside() != OnSetAside::Fail {
        return refuse("a job with rounds cannot go on without a task, or its rounds would be of different input; take out on_set_aside");
    }
    Ok(())
}
