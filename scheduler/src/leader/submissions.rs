//! A submit before it is in the log: workers say what the input is, because only they have the mounts and credentials.

use super::batch::Waiter;
use super::readers::{learn, readers};
use super::{Answer, ConnId, Effect, Leader, RequestId};
use raftwerk_core::plan::policy::{policies, policy};
use raftwerk_core::{State, kept, matching, spec};
use raftwerk_proto::Wire;
use raftwerk_proto::v1::{self as wire, Files, JobSpec, command::Command, scheduler_message as down, stage_input::Source};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Ends the refusal of a job that no device can run, for a person with a command line; `raftwerk run`, which has no such flag, leaves it out.
pub const OR_WAIT: &str = "\n(or submit it with --wait-for-devices, and it waits for them)";

/// How much longer workers that are alive may take to list an input: with the five seconds before less than the minute that a client waits for its
/// answer.
const LONG_LISTING_MS: u64 = 45_000;

struct Submission {
    spec: JobSpec,
    idempotency_key: String,
    payload_sha256: Vec<u8>,
    deadline: u64,
    asked: BTreeSet<ConnId>,
    waiting_for: BTreeSet<ConnId>,
    errors: Vec<Unable>,
}

/// What a worker could not do.
struct Unable {
    worker: String,
    error: String,
    of_output: bool,
}

impl Unable {
    fn to_read(worker: String, error: impl Into<String>) -> Unable {
        Unable { worker, error: error.into(), of_output: false }
    }
}

#[derive(Default)]
pub(super) struct Submissions {
    waiting: BTreeMap<RequestId, Submission>,
}

impl Submissions {
    pub(super) fn connection_gone(&mut self, conn: ConnId) {
        for submission in self.waiting.values_mut() {
            submission.waiting_for.remove(&conn);
        }
    }
}

/// Without what is derived from the rest, which former releases do not see: the same submission is the same to all.
fn payload_sha256(spec: &JobSpec) -> Vec<u8> {
    let mut payload = spec.clone();
    spec::forget_derived(&mut payload);
    Sha256::digest(payload.to_wire()).to_vec()
}

/// What a submission with a key that is known is answered.
fn earlier(state: &State, namespace: &str, key: &str, payload_sha256: &[u8]) -> Option<Answer> {
    let earlier = state.idempotency.get(&(namespace.to_owned(), key.to_owned())).filter(|_| !key.is_empty())?;
    Some(match earlier.payload_sha256 == payload_sha256 {
        true => Answer::Submitted { job: earlier.job, existing: true },
        false => Answer::IdempotencyConflict { job: earlier.job },
    })
}

/// The job that a submission made before, for whoever would have to bring its files first.
pub(crate) fn existing(state: &State, spec: &JobSpec, key: &str) -> Option<Answer> {
    earlier(state, &spec.namespace, key, &payload_sha256(spec))
}

fn files_of(spec: &JobSpec) -> Vec<Files> {
    let inputs = spec.stages.iter().flat_map(|s| &s.inputs);
    inputs
        .filter_map(|i| match &i.source {
            Some(Source::Files(files)) => Some(files.clone()),
            _ => None,
        })
        .collect()
}

/// Which of the files of [`files_of`] a kernel is to look at.
fn surveys_of(spec: &JobSpec) -> Vec<wire::SurveyRequest> {
    let mut surveys = Vec::new();
    let mut listed = 0;
    for stage in &spec.stages {
        for (number, input) in stage.inputs.iter().enumerate() {
            if !matches!(input.source, Some(Source::Files(_))) {
                continue;
            }
            if number == 0 && stage.wants_survey {
                let (kernel, params) = (stage.kernel.clone(), stage.params.clone());
                surveys.push(wire::SurveyRequest { input: listed, kernel, params, partitions: stage.partitions });
            }
            listed += 1;
        }
    }
    surveys
}

/// Where the output will go, for workers to look at before anything runs; empty without one, and when it stays on the workers.
fn destination(spec: &JobSpec) -> (String, i32) {
    let there = spec.output.as_ref().filter(|_| !kept::on_workers(spec));
    there.map(|o| (o.url.clone(), o.if_exists)).unwrap_or_default()
}

impl Leader {
    pub(super) fn on_submit(
        &mut self,
        now: u64,
        state: &State,
        request: RequestId,
        spec: JobSpec,
        idempotency_key: String,
        effects: &mut Vec<Effect>,
    ) {
        let payload_sha256 = payload_sha256(&spec);
        if let Some(answer) = earlier(state, &spec.namespace, &idempotency_key, &payload_sha256) {
            effects.push(Effect::Answer { request, answer });
            return;
        }
        if let Some(full) = self.no_room(state) {
            effects.push(Effect::Answer { request, answer: full });
            return;
        }
        if let Err(reason) = spec::check(&spec) {
            effects.push(Effect::Answer { request, answer: Answer::Refused(reason.0) });
            return;
        }
        if let Err(reason) = self.format_allows(state, &spec) {
            effects.push(Effect::Answer { request, answer: Answer::Precondition(reason.0) });
            return;
        }
        if let Some(reason) = state.namespace_is_full(&spec.namespace) {
            effects.push(Effect::Answer { request, answer: Answer::Exhausted(reason) });
            return;
        }
        if let Some(reason) = state.gang_beyond_namespace(&spec) {
            effects.push(Effect::Answer { request, answer: Answer::Precondition(reason) });
            return;
        }
        if !spec.policy.is_empty() && policy(&spec.policy).is_none() {
            let known: Vec<&str> = policies().iter().map(|policy| policy.name()).collect();
            let reason = format!("there is no policy '{}'; use one of {}", spec.policy, known.join(", "));
            effects.push(Effect::Answer { request, answer: Answer::Refused(reason) });
            return;
        }
        if kept::on_workers(&spec) && !self.all_know_kept_data(state) {
            let reason = "results stay on workers only when every replica runs this release; `raftwerk cluster show` tells which does not";
            effects.push(Effect::Answer { request, answer: Answer::Precondition(reason.into()) });
            return;
        }
        let submission = Submission {
            spec,
            idempotency_key,
            payload_sha256,
            deadline: now + self.timing.listing_ms,
            asked: BTreeSet::new(),
            waiting_for: BTreeSet::new(),
            errors: Vec::new(),
        };
        self.submissions.waiting.insert(request, submission);
        self.try_submission(state, request, effects);
        let connected: Vec<ConnId> = self.sessions.conns.iter().filter(|(_, c)| c.session.is_some()).map(|(c, _)| *c).collect();
        for conn in connected {
            self.ask(request, conn, effects);
        }
    }

    /// A submission that needs nobody's eyes goes straight into the batch.
    fn try_submission(&mut self, state: &State, request: RequestId, effects: &mut Vec<Effect>) {
        let Some(submission) = self.submissions.waiting.get(&request) else { return };
        let anybody = !self.sessions.present(self.now).is_empty();
        // One that is to wait for devices says so itself.
        let waits = submission.spec.wait_for_devices;
        if anybody
            && !waits
            && let Some(short) = matching::shortfall(state, &submission.spec)
        {
            let answer = Answer::Precondition(format!("{}{OR_WAIT}", short.lines()));
            self.submissions.waiting.remove(&request);
            effects.push(Effect::Answer { request, answer });
            return;
        }
        if anybody && let Some(reason) = state.too_few_keepers(&submission.spec) {
            self.submissions.waiting.remove(&request);
            effects.push(Effect::Answer { request, answer: Answer::Precondition(reason) });
            return;
        }
        let needs_eyes = !files_of(&submission.spec).is_empty() || !destination(&submission.spec).0.is_empty();
        if (anybody || waits) && !needs_eyes {
            self.submit_now(request, effects);
        }
    }

    /// A worker arrived: submissions that wait for one go on.
    pub(super) fn ask_newcomer(&mut self, _now: u64, conn: ConnId, effects: &mut Vec<Effect>) {
        let waiting: Vec<RequestId> = self.submissions.waiting.keys().copied().collect();
        for request in waiting {
            self.ask(request, conn, effects);
        }
    }

    fn ask(&mut self, request: RequestId, conn: ConnId, effects: &mut Vec<Effect>) {
        let Some(submission) = self.submissions.waiting.get_mut(&request) else { return };
        let inputs = files_of(&submission.spec);
        let readers = readers(&submission.spec);
        let (output_url, if_exists) = destination(&submission.spec);
        if (inputs.is_empty() && output_url.is_empty()) || !submission.asked.insert(conn) {
            return;
        }
        submission.waiting_for.insert(conn);
        let surveys = surveys_of(&submission.spec);
        let message = down::Message::ListInputs(wire::ListInputs { request: request.0, inputs, output_url, if_exists, readers, surveys });
        effects.push(Effect::Send { conn, message });
    }

    pub(super) fn on_listing(&mut self, state: &State, conn: ConnId, listing: wire::InputListing, effects: &mut Vec<Effect>) {
        let request = RequestId(listing.request);
        let name = self.sessions.conns.get(&conn).map(|c| c.hello.name.clone()).unwrap_or_default();
        let Some(submission) = self.submissions.waiting.get_mut(&request) else { return };
        if !submission.waiting_for.remove(&conn) {
            return;
        }
        if !listing.error.is_empty() {
            submission.errors.push(Unable { worker: name, error: listing.error, of_output: listing.output_error });
            self.settle_submissions(effects);
            return;
        }
        if !listing.output_problem.is_empty() {
            effects.push(Effect::Answer { request, answer: Answer::Precondition(listing.output_problem) });
            self.submissions.waiting.remove(&request);
            return;
        }
        if !listing.input_problem.is_empty() {
            effects.push(Effect::Answer { request, answer: Answer::Refused(listing.input_problem) });
            self.submissions.waiting.remove(&request);
            return;
        }
        let asked = surveys_of(&submission.spec);
        if !asked.iter().all(|asked| listing.surveys.iter().any(|survey| survey.input == asked.input)) {
            // Another one may know how.
            submission.errors.push(Unable::to_read(name, "it runs a release that cannot look at the input for this kernel"));
            self.settle_submissions(effects);
            return;
        }
        let asked = files_of(&submission.spec);
        if asked.iter().zip(&listing.inputs).any(|(asked, listed)| asked.compression != listed.compression) {
            submission.errors.push(Unable::to_read(name, "it runs a release that does not read compressed files"));
            self.settle_submissions(effects);
            return;
        }
        let mut found = listing.inputs.into_iter();
        let mut listed = 0;
        for stage in &mut submission.spec.stages {
            let surveyed = std::mem::take(&mut stage.wants_survey);
            for (number, input) in stage.inputs.iter_mut().enumerate() {
                if matches!(input.source, Some(Source::Files(_))) {
                    if surveyed && number == 0 {
                        let survey = listing.surveys.iter().find(|survey| survey.input == listed);
                        stage.survey = survey.map(|survey| survey.survey.clone()).unwrap_or_default();
                    }
                    listed += 1;
                }
                if let Some(Source::Files(files)) = &mut input.source
                    && let Some(listed) = found.next()
                {
                    files.listing = listed.listing;
                    // Some of them may stand for packs of files.
                    files.listed_files = files.listing.iter().map(|file| file.pack_files.max(1)).fold(0, u64::saturating_add);
                    files.listed_bytes = files.listing.iter().map(|file| file.bytes).fold(0, u64::saturating_add);
                    if !listed.format.is_empty() {
                        files.format = listed.format;
                    }
                }
            }
        }
        learn(&mut submission.spec, listing.findings);
        // That files are compressed may be known only now.
        let waiting = self.submissions.waiting.get(&request);
        if let Some(Err(reason)) = waiting.map(|submission| self.format_allows(state, &submission.spec)) {
            self.submissions.waiting.remove(&request);
            effects.push(Effect::Answer { request, answer: Answer::Precondition(reason.0) });
            return;
        }
        self.submit_now(request, effects);
    }

    fn submit_now(&mut self, request: RequestId, effects: &mut Vec<Effect>) {
        let Some(mut submission) = self.submissions.waiting.remove(&request) else { return };
        if let Err(reason) = spec::count_partitions(&mut submission.spec).and_then(|()| spec::check_blocks(&submission.spec)) {
            effects.push(Effect::Answer { request, answer: Answer::Refused(reason.0) });
            return;
        }
        // Also of what has nothing to be listed.
        submission.spec.stages.iter_mut().for_each(|stage| stage.wants_survey = false);
        let command = wire::SubmitJob {
            spec: Some(submission.spec),
            idempotency_key: submission.idempotency_key,
            payload_sha256: submission.payload_sha256.into(),
        };
        self.batch.push(Command::SubmitJob(command), Waiter::Submit(request));
    }

    /// Refuses submissions that every asked worker has answered with an error.
    pub(super) fn settle_submissions(&mut self, effects: &mut Vec<Effect>) {
        let hopeless: Vec<RequestId> = self
            .submissions
            .waiting
            .iter()
            .filter(|(_, s)| s.waiting_for.is_empty() && !s.errors.is_empty())
            .map(|(request, _)| *request)
            .collect();
        for request in hopeless {
            if let Some(submission) = self.submissions.waiting.remove(&request) {
                effects.push(Effect::Answer { request, answer: nobody_sees(&submission) });
            }
        }
    }

    pub(super) fn expire_submissions(&mut self, now: u64, state: &State, effects: &mut Vec<Effect>) {
        let waiting: Vec<RequestId> = self.submissions.waiting.keys().copied().collect();
        for request in waiting {
            self.try_submission(state, request, effects);
        }
        // A worker that gives signs of life may have a million files to list, and its answer is worth more than a refusal.
        let at_work = |submission: &Submission| {
            let alive = |conn: &ConnId| self.sessions.conns.get(conn).is_some_and(|conn| !conn.detector.is_suspect(now));
            now < submission.deadline.saturating_add(LONG_LISTING_MS) && submission.waiting_for.iter().any(alive)
        };
        let is_late = |submission: &Submission| submission.deadline <= now && !at_work(submission);
        let late: Vec<RequestId> = self.submissions.waiting.iter().filter(|(_, s)| is_late(s)).map(|(r, _)| *r).collect();
        for request in late {
            if let Some(submission) = self.submissions.waiting.remove(&request) {
                let known = state.workers.values().any(|w| !w.lost);
                let answer = if !known {
                    Answer::Precondition("the cluster has no worker; start one with 'raftwerk worker start' and submit again".into())
                } else if submission.asked.is_empty() {
                    Answer::Unavailable("no worker is connected at this moment".into())
                } else {
                    nobody_sees(&submission)
                };
                effects.push(Effect::Answer { request, answer });
            }
        }
    }
}

/// What each asked worker said.
fn nobody_sees(submission: &Submission) -> Answer {
    let said: Vec<String> = submission.errors.iter().map(|unable| format!("worker {}: {}", unable.worker, unable.error)).collect();
    let silent = submission.waiting_for.len();
    if said.is_empty() {
        // Cut off, stopped or busy: that says nothing about the input, and asking again may.
        return Answer::Unavailable(format!(
            "none of the {} workers asked has said in time whether it sees the input",
            submission.asked.len()
        ));
    }
    let of_output = submission.errors.iter().filter(|unable| unable.of_output).count();
    let what = match of_output {
        0 => "no worker sees the input",
        all if all == said.len() => "no worker can write the output",
        _ => "no worker sees the input and can write the output",
    };
    let mut text = format!("{what}; asked {}: {}", submission.asked.len(), said.join("; "));
    if silent > 0 {
        text.push_str(&format!("; {silent} did not answer in time"));
    }
    Answer::Precondition(text)
}
