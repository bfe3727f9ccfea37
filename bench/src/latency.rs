//! One-task jobs on a warm cluster: from submit to done.

use crate::sample::{Sample, noop};
use raftwerk_proto::v1::client_client::ClientClient;
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::{
    GetJobRequest, IndexRange, JobSpec, JobState, KernelKind, KernelRef, Param, StageInput, StageSpec, SubmitRequest,
};
use raftwerk_tests::cluster::Cluster;
use raftwerk_transport::{CALL_DEADLINE, Identity, PeerKind, connect};
use std::time::Instant;
use tokio::time::timeout;

pub fn run(tries: usize, replicas: usize) -> anyhow::Result<()> {
    println!("## one-task job, submit to done: {replicas} durable replicas, 2 workers, warm");
    let cluster = Cluster::start(replicas, 2);
    let address = cluster.addresses[cluster.leader()].clone();
    let identity = Identity::load_pem_bundle(&cluster.path("scheduler-1/admin.pem"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (acknowledged, done) = runtime.block_on(over_one_connection(&address, &identity, tries))?;
    print("over one open connection, acknowledged", &acknowledged, tries);
    print("over one open connection, done", &done, tries);

    let file = cluster.job_file("one.toml", &noop(1, 0, 0));
    let mut command_line = Vec::new();
    for _ in 0..tries.min(200) {
        let started = Instant::now();
        let output = cluster.run(&["-q", "submit", "--wait", &file]);
        command_line.push(started.elapsed().as_secs_f64() * 1000.0);
        anyhow::ensure!(output.status.success(), "submit failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let count = command_line.len();
    print("command line, a process each", &Sample::new(command_line), count);
    Ok(())
}

fn print(what: &str, sample: &Sample, tries: usize) {
    println!("{what}: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms ({tries} tries)", sample.median(), sample.percentile(99.0), sample.max());
}

async fn over_one_connection(address: &str, identity: &Identity, tries: usize) -> anyhow::Result<(Sample, Sample)> {
    let channel = connect(address, identity, PeerKind::Scheduler).await?;
    let mut client = ClientClient::new(channel);
    let (mut acknowledged, mut done) = (Vec::with_capacity(tries), Vec::with_capacity(tries));
    for n in 0..tries + 20 {
        let started = Instant::now();
        let request = SubmitRequest { spec: Some(one_task()), idempotency_key: format!("bench-{n}"), ..SubmitRequest::default() };
        let job = timeout(CALL_DEADLINE, client.submit(request)).await??.into_inner().job;
        let durable = started.elapsed();
        let mut views = timeout(CALL_DEADLINE, client.watch_job(GetJobRequest { job })).await??.into_inner();
        let mut last = None;
        while let Some(view) = timeout(CALL_DEADLINE, views.message()).await?? {
            last = Some(view);
        }
        anyhow::ensure!(last.is_some_and(|v| v.state() == JobState::Done), "job {job} did not end well");
        // The first ones warm caches and connections.
        if n >= 20 {
            acknowledged.push(durable.as_secs_f64() * 1000.0);
            done.push(started.elapsed().as_secs_f64() * 1000.0);
        }
    }
    Ok((Sample::new(acknowledged), Sample::new(done)))
}

fn one_task() -> JobSpec {
    let param = |name: &str, value: &str| Param { name: name.into(), value: value.into() };
    JobSpec {
        name: "one".into(),
        namespace: "default".into(),
        stages: vec![StageSpec {
            name: "map".into(),
            kernel: Some(KernelRef {
                name: "noop".into(),
                version: 1,
                kind: KernelKind::Map.into(),
                tallies: vec!["value".into()],
                ..KernelRef::default()
            }),
            params: vec![param("fail_task", ""), param("print", "no"), param("sleep_us", "0")],
            inputs: vec![StageInput { name: "input".into(), source: Some(Source::Range(IndexRange { start: 0, count: 1, tasks: 1 })) }],
            ..StageSpec::default()
        }],
        ..JobSpec::default()
    }
}
