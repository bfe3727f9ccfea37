//! Who holds what clients have brought is known from what workers say, and told to whoever reads it.

use crate::host::{Host, files, grants, hello, sent};
use raftwerk_core::{JobId, WorkerId};
use raftwerk_proto::v1::scheduler_message::Message as Down;
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::worker_message::Message as Up;
use raftwerk_proto::v1::*;
use raftwerk_scheduler::leader::{ConnId, Effect, Input, RequestId};

const READ: &str = "00112233445566778899aabbccddeeff";
const LEFT: &str = "ffeeddccbbaa99887766554433221100";

fn reading() -> JobSpec {
    let mut spec = files();
    let Some(Source::Files(files)) = &mut spec.stages[0].inputs[0].source else { unreachable!() };
    files.patterns = vec![format!("upload:{READ}//a.txt"), "/shared/b.txt".into()];
    spec
}

fn beat(host: &mut Host, conn: u64, uploads: &[&str]) -> Vec<String> {
    let uploads = uploads.iter().map(|id| (*id).to_owned()).collect();
    let effects = host.up(conn, Up::Heartbeat(Heartbeat { sequence: 1, uploads, ..Heartbeat::default() }));
    let ack = sent(&effects).find_map(|(_, m)| if let Down::HeartbeatAck(ack) = m { Some(ack.unneeded_uploads.clone()) } else { None });
    ack.expect("an answer")
}

/// Of each grant: which upload, and who holds it.
fn sources(effects: &[Effect]) -> Vec<(String, Vec<String>)> {
    let all = grants(effects).into_iter().flat_map(|grants| grants.grants).flat_map(|grant| grant.uploads);
    all.map(|source| (source.id, source.holders.into_iter().map(|holder| holder.address).collect())).collect()
}

/// Workers 7 and 8 are there, 8 holds what the job reads, and the job is listed.
fn submitted(host: &mut Host) -> Vec<Effect> {
    host.connect(1, 7);
    host.connect(2, 8);
    beat(host, 2, &[READ]);
    let asked = host.submit(5, reading());
    let request = sent(&asked).find_map(|(_, m)| if let Down::ListInputs(list) = m { Some(list.request) } else { None }).expect("asked");
    let file = |path: &str| InputFile { path: path.into(), bytes: 30, ..InputFile::default() };
    let listing = vec![file(&format!("upload:{READ}//a.txt")), file("/shared/b.txt")];
    let inputs = vec![Files { listing, format: "text".into(), ..Files::default() }];
    host.up(1, Up::Listing(InputListing { request, error: "upload .. does not lie on this worker".into(), ..InputListing::default() }));
    let mut effects = host.up(2, Up::Listing(InputListing { request, inputs, ..InputListing::default() }));
    effects.extend(host.commit());
    effects
}

#[test]
fn a_lease_is_told_who_holds_what_it_reads_also_by_a_new_leader() {
    let mut host = Host::new();
    let told = sources(&submitted(&mut host));
    assert!(!told.is_empty() && told.iter().all(|source| *source == (READ.to_owned(), vec!["w8:1".to_owned()])), "{told:?}");
    host.change_leader();
    let says = |worker: u64, uploads: &[&str]| Hello { uploads: uploads.iter().map(|id| (*id).to_owned()).collect(), ..hello(worker) };
    // 8 is not back when 7 is told again what it should be doing.
    let connect = |conn, worker, hello| Input::WorkerConnected { conn: ConnId(conn), worker: WorkerId(worker), hello };
    let effects = host.input(connect(3, 7, says(7, &[])));
    assert!(sources(&effects).iter().all(|(id, holders)| id == READ && holders.is_empty()) && !sources(&effects).is_empty());
    let effects = host.input(connect(4, 8, says(8, &[READ, LEFT, "../../etc"])));
    assert!(sources(&effects).iter().all(|(_, holders)| *holders == ["w8:1"]) && !sources(&effects).is_empty());
    host.commit();
    assert!(host.state.workers.values().all(|worker| worker.hello.uploads.is_empty()), "nothing of it is logged");
}

#[test]
fn what_no_unfinished_job_reads_is_named_to_whoever_holds_it() {
    let mut host = Host::new();
    submitted(&mut host);
    host.wait(1_000);
    assert_eq!(beat(&mut host, 2, &[READ, LEFT]), [LEFT]);
    assert!(beat(&mut host, 1, &[]).is_empty());
    host.input(Input::Cancel { request: RequestId(6), job: JobId(1) });
    host.commit();
    host.wait(1_000);
    assert_eq!(beat(&mut host, 2, &[READ, LEFT]), [READ, LEFT]);
}
