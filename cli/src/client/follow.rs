//! Following a job to its end, through changes of leader and broken connections.

use std::time::{Duration, Instant};

use raftwerk_proto::v1::{GetJobRequest, JobState, JobView};
use raftwerk_transport::plain_status;
use tonic::{Code, Request, Status, Streaming};

use super::verdict::Verdict;
use super::{Attempt, CallError, Cluster, PAUSE};

/// The stream speaks on every change only. After this much silence the job is asked for: a deposed leader that still holds the
/// connection would otherwise keep us waiting for ever.
const SILENCE: Duration = Duration::from_secs(5);

/// Time for a new stream's first view.
const OPENING: Duration = Duration::from_secs(5);

pub enum Sighting<'a> {
    View(&'a JobView),
    /// Contact broke; the follower looks for another replica.
    Lost(&'a str),
    /// And found one.
    Back,
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
    /// Reports every view of the job until it has ended, and returns the last one. Gives up when nobody has answered for `patience`.
    pub async fn follow(&mut self, job: u64, patience: Duration, mut on: impl FnMut(Sighting<'_>)) -> Result<JobView, Standstill> {
        let mut last_heard = Instant::now();
        let mut seen: Option<JobView> = None;
        let mut lost = false;
        let mut pause = PAUSE.0;
        loop {
            let mut on_view = |view: &JobView| {
                if std::mem::take(&mut lost) {
                    on(Sighting::Back);
                }
                on(Sighting::View(view));
                last_heard = Instant::now();
                pause = PAUSE.0;
                seen = Some(view.clone());
                ended(view)
            };
            let reason = match self.watch(job, &mut on_view).await {
                Watched::Ended => match seen.take() {
                    Some(view) => return Ok(view),
                    None => "the stream ended before it began".to_owned(),
                },
                Watched::Refused(error) => return Err(Standstill::Refused(error)),
                // A redirect is an answer, but not about the job; a ring of followers that point at each other must not count as contact.
                Watched::Redirected if last_heard.elapsed() < patience => {
                    tokio::time::sleep(PAUSE.0).await;
                    continue;
                }
                Watched::Redirected => "every replica names another one as the leader".to_owned(),
                Watched::Broken(reason) => reason,
            };
            if !std::mem::replace(&mut lost, true) {
                on(Sighting::Lost(&reason));
            }
            if last_heard.elapsed() >= patience {
                let tried = vec![(self.current().to_owned(), reason)];
                return Err(Standstill::ContactLost(patience, CallError::Unreachable { patience, tried }));
            }
            self.preferred = (self.preferred + 1) % self.addresses.len().max(1);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// One stream, as long as it lasts. `on_view` says whether the job has ended.
    async fn watch(&mut self, job: u64, on_view: &mut impl FnMut(&JobView) -> bool) -> Watched {
        let address = self.current().to_owned();
        let mut stream = match self.open(&address, job).await {
            Ok(stream) => stream,
            Err(watched) => return watched,
        };
        let mut wait = OPENING;
        let mut last: Option<JobView> = None;
        loop {
            match tokio::time::timeout(wait, stream.message()).await {
                Ok(Ok(Some(view))) => {
                    if on_view(&view) {
                        return Watched::Ended;
                    }
                    last = Some(view);
                }
                Ok(Ok(None)) => return Watched::Broken("the replica ended the stream".to_owned()),
                Ok(Err(status)) => return self.watched(&address, status),
                Err(_) => match self.job(job).await {
                    Ok(view) => {
                        if on_view(&view) {
                            return Watched::Ended;
                        }
                        // The stream slept through a change: it hangs on a replica that does not lead any more.
                        if last.as_ref().is_some_and(|last| *last != view) || last.is_none() {
                            return Watched::Redirected;
                        }
                    }
                    Err(error @ CallError::Refused(_)) => return Watched::Refused(error),
                    Err(error) => {
                        self.channels.remove(&address);
                        return Watched::Broken(error.to_string());
                    }
                },
            }
            wait = SILENCE;
        }
    }

    async fn open(&mut self, address: &str, job: u64) -> Result<Streaming<JobView>, Watched> {
        let mut client = match self.client::<()>(address, OPENING).await {
            Ok(client) => client,
            Err(Attempt::Failed(reason) | Attempt::Hopeless(reason, _)) => return Err(Watched::Broken(reason)),
            Err(_) => return Err(Watched::Broken("no connection".to_owned())),
        };
        match tokio::time::timeout(OPENING, client.watch_job(Request::new(GetJobRequest { job }))).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.watched(address, status)),
            Err(_) => Err(self.watched(address, Status::deadline_exceeded("no answer in time"))),
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

enum Watched {
    Ended,
    Redirected,
    Broken(String),
    Refused(CallError),
}

pub fn ended(view: &JobView) -> bool {
    matches!(view.state(), JobState::Done | JobState::Failed | JobState::Cancelled)
}
