//! Submits that say which devices they want, and stages that begin on several devices at once.

use crate::host::Host;
use crate::host::*;
use raftwerk_core::{JobId, WorkerId};
use raftwerk_proto::v1::*;
use raftwerk_scheduler::leader::{Answer, ConnId, Input};
use std::collections::BTreeSet;

fn wanting_label(tasks: u64, value: &str) -> JobSpec {
    let mut spec = numbers(tasks);
    let labels = vec![Label { key: "zone".into(), value: value.into() }];
    spec.stages[0].require = Some(DeviceMatch { labels, ..DeviceMatch::default() });
    spec
}

fn ganged(tasks: u64, devices: u32, hold_ms: u64) -> JobSpec {
    let mut spec = numbers(tasks);
    spec.stages[0].gang = Some(Gang { devices, hold_ms });
    spec
}

fn connect_labelled(host: &mut Host, conn: u64, worker: u64, zone: &str) {
    let labels = vec![Label { key: "zone".into(), value: zone.into() }];
    let hello = Hello { labels, ..hello(worker) };
    host.input(Input::WorkerConnected { conn: ConnId(conn), worker: WorkerId(worker), hello });
    host.commit();
}

#[test]
fn a_submit_that_no_device_can_run_is_refused_with_what_would_have_to_change() {
    let mut host = Host::new();
    connect_labelled(&mut host, 1, 7, "a");
    let said = answers(&host.submit(1, wanting_label(3, "b")));
    let [Answer::Precondition(text)] = &said[..] else { panic!("{said:?}") };
    for part in [
        "no device of the cluster can run stage 'map'",
        "1 of 1 device: its worker has no label zone=b",
        "nearest: worker 7 (w7) device 0",
        "--wait-for-devices",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(host.state.jobs.is_empty());
    let said = answers(&host.submit(2, ganged(10, 2, 5_000)));
    assert!(matches!(&said[..], [Answer::Precondition(text)] if text.contains("begins on 2 devices at once (gang), and 1")), "{said:?}");
}

#[test]
fn one_that_waits_for_devices_is_taken_and_begins_when_such_a_worker_comes() {
    let mut host = Host::new();
    connect_labelled(&mut host, 1, 7, "a");
    host.submit(1, JobSpec { wait_for_devices: true, ..wanting_label(1, "b") });
    let effects = host.commit();
    assert_eq!(answers(&effects), [Answer::Submitted { job: JobId(1), existing: false }]);
    assert!(grants(&effects).is_empty());
    assert!(host.state.waits_for(JobId(1)).contains("no label zone=b"), "{}", host.state.waits_for(JobId(1)));
    // It keeps nobody else waiting.
    host.submit(2, numbers(1));
    assert_eq!(grants(&host.commit())[0].grants[0].job, 2);
    connect_labelled(&mut host, 2, 8, "b");
    assert_eq!(host.state.leases_of(WorkerId(8)).count(), 1);
    // Nor does it need a worker to be submitted at all.
    let mut empty = Host::new();
    empty.submit(1, JobSpec { wait_for_devices: true, ..numbers(1) });
    assert!(matches!(answers(&empty.commit())[..], [Answer::Submitted { .. }]));
}

#[test]
fn a_gang_is_granted_at_once_to_all_its_workers() {
    let mut host = Host::new();
    host.connect(1, 7);
    host.connect(2, 8);
    host.submit(1, ganged(10, 2, 5_000));
    let effects = host.commit();
    let to: BTreeSet<u64> =
        sent(&effects).filter(|(_, m)| matches!(m, scheduler_message::Message::Grants(_))).map(|(conn, _)| conn).collect();
    assert_eq!(to, [1, 2].into());
    let entries: BTreeSet<u64> = host.state.leases.keys().map(|id| id.index).collect();
    assert_eq!((host.state.leases.len(), entries.len()), (2, 1), "{:?}", host.state.leases);
}

#[test]
fn a_new_leader_finds_what_is_held_and_gives_it_back_when_its_time_is_up() {
    let mut host = Host::new();
    host.connect(1, 7);
    host.connect(2, 8);
    host.submit(1, numbers(1));
    host.commit();
    host.submit(2, ganged(10, 2, 3_000));
    host.commit();
    let held = |host: &Host| host.state.gangs().get(&(JobId(2), 0)).map_or(0, |hold| hold.devices.len());
    assert_eq!(held(&host), 2);
    host.change_leader();
    host.wait(500);
    assert_eq!(held(&host), 2, "workers that have not come yet are not given up");
    for _ in 0..6 {
        host.wait(500);
    }
    assert_eq!((held(&host), host.state.gangs()[&(JobId(2), 0)].given_back), (0, 1));
}
