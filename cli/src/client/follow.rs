//! Following a job to its end, through changes of leader and broken connections.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use raftwerk_proto::v1::{GetJobRequest, JobState, JobView, ListWorkersRequest};
use raftwerk_transport::plain_status;
use tonic::{Code, Request, Status, Streaming};

use super::verdict::Verdict;
use super::{Attempt, CallError, Cluster, Limits, PAUSE};
use crate::failure::Exit;
use crate::views::waits;

/// The stream speaks on every change only. After this much silence the job is asked for: a leader that was deposed, paused or cut off
/// would otherwise keep us waiting without a word.
const SILENCE: Duration = Duration::from_secs(2);

/// Time for the answer to that question; also for a connection and for a new stream's first view. Doubled after every round in vain, up
/// to the second value.
const OPENING: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(8));

pub enum Sighting<'a> {
    View(&'a JobView),
    /// Contact broke; the follower looks for another replica.
    Lost(&'a str),
    /// And found one.
    Back,
    /// Nothing moves, because every worker is held back, for these reasons.
    Waits(&'a str),
}

/// Why following ended without the job's end.
#[derive(Debug, thiserror::Error)]
pub enum Standstill {
    #[error("contact with the cluster was lost for {}; whether the job goes on is not known", crate::units::format_duration(*.0))]
    ContactLost(Duration, #[source] CallError),
    #[error(transparent)]
    Refused(CallError),
}

impl Cluster {
    /// Reports every view of the job until it has ended, and returns the last one. Gives up when nobody has answered for `patience`, which begins when contact
    /// is found to be lost: noticing that takes longer than some people's patience.
    pub async fn follow(&mut self, job: u64, patience: Duration, mut on: impl FnMut(Sighting<'_>)) -> Result<JobView, Standstill> {
        let began = Instant::now();
        let mut last_heard = began;
        let mut seen: Option<JobView> = None;
        let mut lost = false;
        // Of contact that there was once.
        let mut lost_at: Option<Instant> = None;
        let mut pause = PAUSE.0;
        let mut vain = 0;
        // Addresses in a row where nobody will ever answer to this credential.
        let mut hopeless: BTreeMap<String, String> = BTreeMap::new();
        // Said once, and again when it is something else.
        let mut waits: Option<String> = None;
        loop {
            let rounds = vain / self.addresses.len().max(1);
            let opening = (OPENING.0 * (1 << rounds.min(8))).min(OPENING.1);
            let mut on_view = |seen_now: Seen<'_>| {
                let view = match seen_now {
                    Seen::View(view) => view,
                    Seen::Still(why) => {
                        if let Some(why) = why.as_deref().filter(|_| why != waits) {
                            on(Sighting::Waits(why));
                        }
                        waits = why;
                        return false;
                    }
                };
                lost_at = None;
                if std::mem::take(&mut lost) {
                    on(Sighting::Back);
                }
                on(Sighting::View(view));
                last_heard = Instant::now();
                pause = PAUSE.0;
                vain = 0;
                seen = Some(view.clone());
                ended(view)
            };
            let watched = self.watch(job, opening, &mut on_view).await;
            if !matches!(watched, Watched::Hopeless(..)) {
                hopeless.clear();
            }
            let reason = match watched {
                Watched::Ended => match seen.take() {
                    Some(view) => return Ok(view),
                    None => "the stream ended before it began".to_owned(),
                },
                Watched::Refused(error) => return Err(Standstill::Refused(error)),
                // A redirect is an answer, but not about the job; a ring of followers that point at each other must not count as contact.
                Watched::Redirected if lost_at.unwrap_or(last_heard).elapsed() < patience => {
                    tokio::time::sleep(PAUSE.0).await;
                    continue;
                }
                Watched::Redirected => "every replica names another one as the leader".to_owned(),
                Watched::Broken(reason) => reason,
                Watched::Hopeless(reason, exit) => {
                    hopeless.insert(self.current().to_owned(), reason.clone());
                    if hopeless.len() >= self.addresses.len() {
                        let tried = hopeless.into_iter().collect();
                        return Err(Standstill::Refused(CallError::Hopeless { tried, exit }));
                    }
                    reason
                }
            };
            // At the beginning nothing is lost before every address was tried.
            let begun = last_heard > began || vain + 1 >= self.addresses.len();
            if begun && !std::mem::replace(&mut lost, true) {
                on(Sighting::Lost(&reason));
            }
            if last_heard > began {
                lost_at.get_or_insert_with(Instant::now);
            }
            if lost_at.unwrap_or(last_heard).elapsed() >= patience {
                let tried = vec![(self.current().to_owned(), reason)];
                return Err(Standstill::ContactLost(patience, CallError::Unreachable { patience, tried, doubt: false }));
            }
            self.preferred = (self.preferred + 1) % self.addresses.len().max(1);
            vain += 1;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// One stream, as long as it lasts. `on_view` says whether the job has ended.
    async fn watch(&mut self, job: u64, opening: Duration, on_view: &mut impl FnMut(Seen<'_>) -> bool) -> Watched {
        let address = self.current().to_owned();
        let mut stream = match self.open(&address, opening, job).await {
            Ok(stream) => stream,
            Err(watched) => return watched,
        };
        let mut last: Option<JobView> = None;
        let mut heard = Instant::now();
        loop {
            match tokio::time::timeout(if last.is_none() { opening } else { SILENCE }, stream.message()).await {
                Ok(Ok(Some(view))) => {
                    if on_view(Seen::View(&view)) {
                        return Watched::Ended;
                    }
                    last = Some(view);
                }
                Ok(Ok(None)) => return Watched::Broken("the replica ended the stream".to_owned()),
                Ok(Err(status)) => return self.watched(&address, status),
                Err(_) => match self.ask(&address, opening, job).await {
                    Attempt::Answer(view) => {
                        if on_view(Seen::View(&view)) {
                            return Watched::Ended;
                        }
                        // The stream slept through a change, or hangs on a replica that does not lead any more.
                        if last.as_ref() != Some(&view) {
                            return Watched::Redirected;
                        }
                        let why = self.why_still(&address, opening, &view).await;
                        on_view(Seen::Still(why));
                    }
                    Attempt::Redirected => return Watched::Redirected,
                    Attempt::Refusal(status) if status.code() == Code::Internal => return Watched::Broken(plain_status(&status)),
                    Attempt::Refusal(status) => return Watched::Refused(CallError::Refused(Box::new(status))),
                    Attempt::Failed(..) | Attempt::Hopeless(..) => {
                        self.channels.remove(&address);
                        let silence = Duration::from_secs(heard.elapsed().as_secs());
                        return Watched::Broken(format!("nothing heard for {}", crate::units::format_duration(silence)));
                    }
                },
            }
            heard = Instant::now();
        }
    }

    /// Asks this replica, and no other, for the job.
    async fn ask(&mut self, address: &str, limit: Duration, job: u64) -> Attempt<JobView> {
        let limits = Limits { connecting: limit, answering: limit, watched: None };
        self.attempt(
            address,
            limits,
            GetJobRequest { job },
            &|mut client: super::Client, request| async move { client.get_job(request).await },
        )
        .await
    }

    /// Asks this replica what holds a job back that does not move; no answer is no reason.
    async fn why_still(&mut self, address: &str, limit: Duration, view: &JobView) -> Option<String> {
        if !waits::stands_still(view) {
            return None;
        }
        let limits = Limits { connecting: limit, answering: limit, watched: None };
        let list = |mut client: super::Client, request| async move { client.list_workers(request).await };
        match self.attempt(address, limits, ListWorkersRequest {}, &list).await {
            Attempt::Answer(reply) => waits::why(view, &reply.workers),
            _ => None,
        }
    }

    async fn open(&mut self, address: &str, limit: Duration, job: u64) -> Result<Streaming<JobView>, Watched> {
        let (address, mut client) = match self.client::<()>(address, limit).await {
            Ok(found) => found,
            Err(Attempt::Failed(reason, _)) => return Err(Watched::Broken(reason)),
            Err(Attempt::Hopeless(reason, exit)) => return Err(Watched::Hopeless(reason, exit)),
            Err(_) => return Err(Watched::Broken("no connection".to_owned())),
        };
        match tokio::time::timeout(limit, client.watch_job(Request::new(GetJobRequest { job }))).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.watched(&address, status)),
            Err(_) => Err(self.watched(&address, Status::deadline_exceeded("no answer in time"))),
        }
    }

    fn watched(&mut self, address: &str, status: Status) -> Watched {
        match self.judge(address, &status) {
            Verdict::AskLeader(_) => Watched::Redirected,
            Verdict::Final if status.code() != Code::Internal => Watched::Refused(CallError::Refused(Box::new(status))),
            // A replica that breaks is no reason to stop waiting for the job; the others may be sound.
            Verdict::Final | Verdict::TryAnother => Watched::Broken(plain_status(&status)),
        }
    }
}

/// What a stream shows.
enum Seen<'a> {
    View(&'a JobView),
    /// Nothing for a while, and why, if every worker is held back.
    Still(Option<String>),
}

enum Watched {
    Ended,
    Redirected,
    Broken(String),
    Refused(CallError),
    /// No attempt at this address with this identity will succeed.
    Hopeless(String, Exit),
}

pub fn ended(view: &JobView) -> bool {
    matches!(view.state(), JobState::Done | JobState::Failed | JobState::Cancelled)
}
