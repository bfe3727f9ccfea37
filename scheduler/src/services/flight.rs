//! Where the parts of a result are, for clients of Arrow Flight. Asked of the leader, like everything that must be fresh.

use super::client::ClientService;
use super::worker_session;
use raftwerk_core::JobId;
use raftwerk_flight::{Asked, FlightEndpoint, FlightInfo, Results, endpoint};
use raftwerk_proto::OUTPUT_ON_WORKERS;
use raftwerk_proto::v1::{JobState, JobView, OutputPart, PartTicket, WorkerView};
use tonic::Status;

pub(crate) struct Flights(pub(crate) ClientService);

#[tonic::async_trait]
impl Results for Flights {
    async fn info(&self, asked: Asked) -> Result<FlightInfo, Status> {
        let view = self.0.fresh_view(JobId(asked.job)).await?;
        let workers = worker_session::workers(&self.0.shared).await?;
        result_of(&view, &workers, asked)
    }
}

fn result_of(view: &JobView, workers: &[WorkerView], asked: Asked) -> Result<FlightInfo, Status> {
    let job = view.job;
    let url = view.spec.as_ref().and_then(|spec| spec.output.as_ref()).map_or("", |output| output.url.as_str());
    match view.state() {
        JobState::Done => {}
        JobState::Failed => return Err(Status::failed_precondition(format!("job {job} failed, so there is no result: {}", view.cause))),
        JobState::Cancelled => return Err(Status::failed_precondition(format!("job {job} was cancelled, so there is no result"))),
        _ => return Err(Status::unavailable(format!("job {job} is not done yet; wait for it with `raftwerk job wait {job}`"))),
    }
    if url != OUTPUT_ON_WORKERS {
        let text = format!(
            "the result of job {job} was published at {url}; read it there. Workers keep and serve results of jobs with `path = \"worker:\"`"
        );
        return Err(Status::failed_precondition(text));
    }
    let endpoint = view.parts.iter().map(|part| endpoint_of(job, part, workers, asked.binary)).collect::<Result<_, _>>()?;
    let sum = |of: fn(&OutputPart) -> u64| i64::try_from(view.parts.iter().map(of).sum::<u64>()).unwrap_or(-1);
    Ok(FlightInfo {
        endpoint,
        total_records: sum(|part| part.rows),
        total_bytes: sum(|part| part.bytes),
        ordered: true,
        ..FlightInfo::default()
    })
}

fn endpoint_of(job: u64, part: &OutputPart, workers: &[WorkerView], binary: bool) -> Result<FlightEndpoint, Status> {
    let keepers = std::iter::once(part.worker).chain(part.copy_workers.iter().copied());
    let there =
        keepers.filter(|keeper| !part.gone_at.contains(keeper)).filter_map(|keeper| workers.iter().find(|worker| worker.worker == keeper));
    let addresses: Vec<String> = there.filter(|worker| worker.liveness != "lost").map(|worker| worker.address.clone()).collect();
    if addresses.is_empty() {
        let text = format!(
            "nobody who is there keeps part {} of job {job}; `raftwerk job result {job}` says who should, and what to do",
            part.name
        );
        return Err(Status::unavailable(text));
    }
    let ticket = PartTicket { job, staged_name: part.staged_name.clone(), bytes: part.bytes, crc32c: part.crc32c, binary };
    Ok(endpoint(&ticket, addresses))
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::{JobSpec, OutputSpec};

    fn done(url: &str, parts: Vec<OutputPart>) -> JobView {
        let output = OutputSpec { url: url.into(), ..OutputSpec::default() };
        JobView {
            job: 7,
            state: JobState::Done.into(),
            spec: Some(JobSpec { output: Some(output), ..JobSpec::default() }),
            parts,
            ..JobView::default()
        }
    }

    fn worker(worker: u64, liveness: &str) -> WorkerView {
        WorkerView { worker, address: format!("host{worker}:1"), liveness: liveness.into(), ..WorkerView::default() }
    }

    const ASKED: Asked = Asked { job: 7, binary: false };

    fn locations(view: &JobView, workers: &[WorkerView]) -> Result<Vec<Vec<String>>, Status> {
        let info = result_of(view, workers, ASKED)?;
        Ok(info.endpoint.into_iter().map(|endpoint| endpoint.location.into_iter().map(|location| location.uri).collect()).collect())
    }

    #[test]
    fn every_part_is_an_endpoint_at_those_who_have_it() {
        let part = |name: &str, worker, copy_workers: &[u64], gone_at: &[u64]| OutputPart {
            name: name.into(),
            worker,
            rows: 5,
            copy_workers: copy_workers.to_vec(),
            gone_at: gone_at.to_vec(),
            ..OutputPart::default()
        };
        let view = done(OUTPUT_ON_WORKERS, vec![part("a", 1, &[2], &[]), part("b", 1, &[3], &[1])]);
        let workers = [worker(1, "alive"), worker(2, "lost"), worker(3, "suspect")];
        assert_eq!(locations(&view, &workers).unwrap(), [["grpc+tls://host1:1"], ["grpc+tls://host3:1"]]);
        assert_eq!(result_of(&view, &workers, ASKED).unwrap().total_records, 10);
        // Without its last keeper a result is not handed out in part.
        let away = locations(&view, &workers[..2]).unwrap_err();
        assert!(away.message().contains("part b of job 7"), "{away}");
    }

    #[test]
    fn what_is_not_kept_here_says_where_it_is() {
        let published = locations(&done("file:///out", vec![]), &[]).unwrap_err();
        assert!(published.message().contains("file:///out"), "{published}");
        let failed = JobView { state: JobState::Failed.into(), cause: "a fault".into(), ..done(OUTPUT_ON_WORKERS, vec![]) };
        assert!(locations(&failed, &[]).unwrap_err().message().contains("a fault"));
        let running = JobView { state: JobState::Running.into(), ..done(OUTPUT_ON_WORKERS, vec![]) };
        assert_eq!(locations(&running, &[]).unwrap_err().code(), tonic::Code::Unavailable);
    }
}
