//! What executors print, kept per lease.
use super::child::OutputSink;
use crate::{lease::LeaseKey, recorder::Recorder};
use raftwerk_kernels::output::split_mark;
use raftwerk_proto::v1::AttemptLog;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

/// Text kept per lease; a person reads the beginning, where the first error is.
const LEASE_BYTES: usize = 64 << 10;
/// Leases whose text is kept, newest first to stay: 64 MiB at most.
const LEASES: usize = 1000;
/// Text in one answer: half of what a message may have.
const ANSWER_BYTES: u64 = 4 << 20;
/// Ended leases that lines may still come from.
const ENDED: usize = 256;
/// Last lines of an executor, for the message when it dies.
const TAIL_BYTES: usize = 2 << 10;

/// Text by lease, for all devices.
#[derive(Default)]
pub(crate) struct Logs {
    state: Mutex<LogState>,
}

#[derive(Default)]
struct LogState {
    entries: HashMap<LeaseKey, (u64, AttemptLog)>,
    order: VecDeque<LeaseKey>,
}

/// What a log says of its lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseFacts {
    pub(crate) key: LeaseKey,
    pub(crate) job: u64,
    pub(crate) stage: u32,
    pub(crate) first_task: u64,
    pub(crate) task_count: u64,
    pub(crate) device: u32,
}

impl Logs {
    fn append(&self, facts: &LeaseFacts, text: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.entries.contains_key(&facts.key) {
            state.order.push_back(facts.key);
            if state.order.len() > LEASES
                && let Some(oldest) = state.order.pop_front()
            {
                state.entries.remove(&oldest);
            }
            let log = AttemptLog {
                lease: Some(facts.key.into()),
                stage: facts.stage,
                first_task: facts.first_task,
                task_count: facts.task_count,
                device: facts.device,
                ..AttemptLog::default()
            };
            state.entries.insert(facts.key, (facts.job, log));
        }
        if let Some((_, log)) = state.entries.get_mut(&facts.key) {
            let room = LEASE_BYTES - log.text.len();
            let end = prefix(text, room);
            log.text.push_str(&text[..end]);
            log.truncated |= end < text.len();
        }
    }

    /// Logs of a job, oldest lease first, up to `max_bytes` of text; 0 means as much as one message takes.
    pub(crate) fn of_job(&self, job: u64, max_bytes: u64) -> Vec<AttemptLog> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = if max_bytes == 0 { ANSWER_BYTES } else { max_bytes.min(ANSWER_BYTES) } as usize;
        let mut logs: Vec<AttemptLog> = Vec::new();
        for (_, log) in state.order.iter().filter_map(|key| state.entries.get(key)).filter(|(of, _)| *of == job) {
            let end = prefix(&log.text, left);
            if end == 0 {
                break;
            }
            left -= end;
            logs.push(AttemptLog { text: log.text[..end].to_owned(), truncated: log.truncated || end < log.text.len(), ..log.clone() });
        }
        logs
    }
}

impl OutputState {
    fn facts(&self, epoch: u64, index: u64, position: u64) -> Option<LeaseFacts> {
        let is_it =
            |facts: &&LeaseFacts| (u64::from(facts.key.epoch), facts.key.index, u64::from(facts.key.position)) == (epoch, index, position);
        self.current.iter().chain(&self.ended).find(is_it).copied()
    }
}

/// The output of one device's executor.
pub(crate) struct DeviceOutput {
    logs: Arc<Logs>,
    state: Mutex<OutputState>,
}

#[derive(Default)]
struct OutputState {
    /// Leases at the executor, oldest first.
    current: Vec<LeaseFacts>,
    /// The leases that ended last, the newest at the end: a line may be read after the end of the lease that printed it.
    ended: VecDeque<LeaseFacts>,
    recorder: Option<Arc<Recorder>>,
    tail: String,
}

impl DeviceOutput {
    pub(crate) fn new(logs: Arc<Logs>) -> Arc<Self> {
        Arc::new(Self { logs, state: Mutex::default() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, OutputState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn started(&self, facts: LeaseFacts) {
        self.state().current.push(facts);
    }

    pub(crate) fn ended(&self, key: LeaseKey) {
        let mut state = self.state();
        // Leases end about in the order they came.
        if let Some(at) = state.current.iter().position(|facts| facts.key == key) {
            let facts = state.current.remove(at);
            state.ended.push_back(facts);
            if state.ended.len() > ENDED {
                state.ended.pop_front();
            }
        }
    }
}

impl OutputSink for DeviceOutput {
    fn lines(&self, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        let mut state = self.state();
        // Where it belongs, as far as the line says so itself.
        let lines: Vec<(Option<LeaseFacts>, &str)> = text
            .lines()
            .map(split_mark)
            .map(|(mark, line)| (mark.and_then(|[epoch, index, position]| state.facts(epoch, index, position)), line))
            .collect();
        for (_, line) in &lines {
            state.tail.push_str(line);
            state.tail.push('\n');
        }
        if state.tail.len() > TAIL_BYTES {
            let from = (state.tail.len() - TAIL_BYTES..).find(|&at| state.tail.is_char_boundary(at)).unwrap_or(0);
            state.tail.drain(..from);
        }
        let owners = match &state.current[..] {
            [] => state.ended.back().copied().into_iter().collect(),
            [only] => vec![*only],
            several => {
                let running = state.recorder.as_ref().map(|recorder| recorder.running()).unwrap_or_default();
                let now: Vec<LeaseFacts> =
                    several.iter().filter(|facts| running.iter().any(|(key, ..)| *key == facts.key)).copied().collect();
                if now.is_empty() { several.to_vec() } else { now }
            }
        };
        drop(state);
        // Also where it survives this process; the text by lease is in memory.
        for (own, line) in lines {
            tracing::debug!(target: "raftwerk_worker::output", "{line}");
            let line = format!("{line}\n");
            match own {
                Some(facts) => self.logs.append(&facts, &line),
                None => owners.iter().for_each(|facts| self.logs.append(facts, &line)),
            }
        }
    }

    fn tail(&self) -> String {
        self.state().tail.trim_end().to_owned()
    }

    fn watch(&self, recorder: Arc<Recorder>) {
        let mut state = self.state();
        state.recorder = Some(recorder);
        state.tail.clear();
    }
}

/// Length of the longest prefix of whole characters within `bytes`.
fn prefix(text: &str, bytes: usize) -> usize {
    (0..=bytes.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(index: u64) -> LeaseFacts {
        LeaseFacts { key: LeaseKey { epoch: 0, index, position: 0 }, job: 7, stage: 0, first_task: 0, task_count: 1, device: 0 }
    }

    #[test]
    fn a_line_goes_to_the_only_lease_or_to_the_one_that_just_ended() {
        let logs = Arc::new(Logs::default());
        let output = DeviceOutput::new(logs.clone());
        output.lines(b"nobody runs\n");
        output.started(facts(1));
        output.lines(b"one\n");
        output.ended(facts(1).key);
        output.lines(b"late\n");
        let texts: Vec<String> = logs.of_job(7, 0).into_iter().map(|log| log.text).collect();
        assert_eq!(texts, ["one\nlate\n"]);
    }

    #[test]
    fn a_marked_line_goes_to_its_lease_alone_also_beside_others_and_after_its_end() {
        let logs = Arc::new(Logs::default());
        let output = DeviceOutput::new(logs.clone());
        (1..4).for_each(|index| output.started(facts(index)));
        output.ended(facts(1).key);
        output.lines("\u{1e}0.2.0\u{1e}two\n\u{1e}0.1.0\u{1e}one\n\u{1e}0.3.0\u{1e}three\n".as_bytes());
        let texts: Vec<(u64, String)> = logs.of_job(7, 0).into_iter().map(|log| (log.lease.unwrap().index, log.text)).collect();
        assert_eq!(texts, [(2, "two\n".into()), (1, "one\n".into()), (3, "three\n".into())]);
        assert_eq!(output.tail(), "two\none\nthree");
    }

    #[test]
    fn text_and_leases_are_bounded() {
        let logs = Arc::new(Logs::default());
        for index in 0..1100 {
            logs.append(&facts(index), "line\n");
        }
        logs.append(&facts(1099), &"ä".repeat(LEASE_BYTES));
        let kept = logs.of_job(7, 0);
        assert_eq!(kept.len(), LEASES);
        assert_eq!(logs.of_job(7, 12).into_iter().map(|log| log.text).collect::<String>(), "line\nline\nli");
        assert!(kept[999].truncated && kept[999].text.len() <= LEASE_BYTES);
        assert!(!kept[0].truncated);
    }
}
