//! Results fetched by clients of Arrow Flight, with real processes: one written with the `arrow-flight` crate, and `examples/flight.py`, which is what
//! somebody with `pyarrow` would write.

use arrow_flight::error::FlightError;
use arrow_flight::{FlightClient, FlightDescriptor, FlightInfo, Ticket};
use futures::TryStreamExt;
use raftwerk_tests::cluster::{Cluster, text};
use raftwerk_tests::words::word_count;
use raftwerk_transport::{Identity, PeerKind, connect_lazy};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn client(cluster: &Cluster, address: &str, kind: PeerKind) -> FlightClient {
    raftwerk_transport::install_crypto();
    let identity = Identity::load_pem_bundle(&cluster.path("scheduler-1/admin.pem")).expect("the admin's credential");
    FlightClient::new(connect_lazy(address, &identity, kind).expect("an address"))
}

/// What the leader says, whoever leads.
async fn info(cluster: &Cluster, path: &[&str]) -> Result<FlightInfo, FlightError> {
    let address = &cluster.addresses[cluster.leader()];
    let path = path.iter().map(|word| (*word).to_owned()).collect();
    client(cluster, address, PeerKind::Scheduler).get_flight_info(FlightDescriptor::new_path(path)).await
}

async fn part(cluster: &Cluster, uri: &str, ticket: Ticket) -> Result<Vec<arrow_array::RecordBatch>, FlightError> {
    let address = uri.strip_prefix("grpc+tls://").expect("a location over TLS");
    client(cluster, address, PeerKind::Worker).do_get(ticket).await?.try_collect().await
}

/// All rows of the first two columns, as text.
async fn rows(cluster: &Cluster, info: &FlightInfo) -> Result<BTreeMap<String, String>, FlightError> {
    let mut rows = BTreeMap::new();
    for endpoint in &info.endpoint {
        let ticket = endpoint.ticket.clone().expect("a ticket");
        for batch in part(cluster, &endpoint.location[0].uri, ticket).await? {
            let cell = |column: usize, row| arrow_cast::display::array_value_to_string(batch.column(column), row).expect("a cell");
            rows.extend((0..batch.num_rows()).map(|row| (cell(0, row), cell(1, row))));
        }
    }
    Ok(rows)
}

/// A table with keys of UTF-8, some with commas and quotes in them, and how often each is there.
fn write_table(dir: &Path) -> BTreeMap<String, String> {
    std::fs::create_dir_all(dir).expect("an input directory");
    let keys = (0..5000u64).map(|n| format!("k{}{}", n * n % 331, if n % 7 == 0 { ", ä" } else { "" }));
    let (mut table, mut counts) = ("key,value\n".to_owned(), BTreeMap::<String, u64>::new());
    for key in keys {
        table += &format!("\"{key}\",{}\n", key.len());
        *counts.entry(key).or_default() += 1;
    }
    std::fs::write(dir.join("table.csv"), table).expect("an input file");
    counts.into_iter().map(|(key, count)| (key, count.to_string())).collect()
}

fn groups(input: &Path, format: &str) -> String {
    format!(
        "[job]\nname = \"groups\"\n[input]\nfiles = [\"{}/*.csv\"]\nformat = \"csv\"\nquoted_newlines = false\nsplit = \"4KiB\"\n[map]\nkernel = \"group_by\"\n\
         [map.params]\nby = \"key\"\naggregate = \"count, sum(value), min(value)\"\n[reduce]\npartitions = 4\n[output]\npath = \"worker:\"\nformat = \"{format}\"\n",
        input.display()
    )
}

fn message(error: &FlightError) -> String {
    match error {
        FlightError::Tonic(status) => status.message().to_owned(),
        other => panic!("{other}"),
    }
}

#[test]
fn every_row_of_a_result_on_workers_comes_with_its_types() {
    let cluster = Cluster::start(1, 2);
    let input = cluster.path("text");
    let expected = write_table(&input);
    for format in ["csv", "arrow", "parquet"] {
        let number = cluster.submit(&cluster.job_file("groups.toml", &groups(&input, format)), &[]);
        cluster.wait_done(number);
        run(async {
            let info = info(&cluster, &[&number.to_string()]).await.expect("the result is there");
            assert_eq!((info.endpoint.len(), info.total_records), (4, expected.len() as i64));
            let endpoint = &info.endpoint[0];
            let batches = part(&cluster, &endpoint.location[0].uri, endpoint.ticket.clone().expect("a ticket")).await.expect("a part");
            let types: Vec<String> =
                batches[0].schema().fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
            let numbers = ["key Utf8", "count Int64", "sum(value) Float64", "min(value) Float64"];
            let text = ["key Utf8", "count Utf8", "sum(value) Utf8", "min(value) Utf8"];
            assert_eq!(types, if format == "csv" { text } else { numbers });
            assert_eq!(rows(&cluster, &info).await.expect("all parts"), expected);
        });
    }
}

#[test]
fn what_cannot_be_had_says_why() {
    let cluster = Cluster::start(1, 1);
    let input = cluster.path("text");
    write_table(&input);
    let published = cluster.submit(
        &cluster.job_file("published.toml", &groups(&input, "csv").replace("worker:", &cluster.path("out").display().to_string())),
        &[],
    );
    cluster.wait_done(published);
    let kept = cluster.submit(&cluster.job_file("kept.toml", &groups(&input, "csv")), &[]);
    cluster.wait_done(kept);
    std::fs::create_dir(cluster.path("bytes")).expect("a directory");
    std::fs::write(cluster.path("bytes/bytes.txt"), b"good \xff\xfe good\n").expect("a file");
    let bytes = cluster.submit(&cluster.job_file("bytes.toml", &word_count(&cluster.path("bytes"), Path::new("worker:"), 4)), &[]);
    cluster.wait_done(bytes);
    run(async {
        let refused = async |path: &[&str]| message(&info(&cluster, path).await.expect_err("there is no such result"));
        assert!(refused(&["999"]).await.contains("there is no job 999"));
        assert!(refused(&["words"]).await.contains("[\"JOB\", \"binary\"]"));
        let said = refused(&[&published.to_string()]).await;
        assert!(said.contains("was published at") && said.contains("worker:"), "{said}");

        // Words that are no UTF-8: an error that names the cell, and all of it as bytes.
        let text = info(&cluster, &[&bytes.to_string()]).await.expect("it is there");
        let said = message(&rows(&cluster, &text).await.expect_err("this is no text"));
        assert!(said.contains("column 'word'") && said.contains("binary"), "{said}");
        let binary = info(&cluster, &[&bytes.to_string(), "binary"]).await.expect("it is there");
        let rows = rows(&cluster, &binary).await.expect("bytes are bytes");
        assert_eq!(rows.len(), 2, "{rows:?}");

        // A worker says where parts are asked for, a scheduler where their rows are; a forged ticket opens no file but a part.
        let found = info(&cluster, &[&kept.to_string()]).await.expect("it is there");
        let location = found.endpoint[0].location[0].uri.clone();
        let ticket = found.endpoint[0].ticket.clone().expect("a ticket");
        let mut at_scheduler = client(&cluster, &cluster.addresses[0], PeerKind::Scheduler);
        assert!(message(&at_scheduler.do_get(ticket).await.map(drop).expect_err("it keeps none")).contains("keeps no results"));
        for forged in [b"\x08\x01\x12\x0e../../admin.pem".as_slice(), b"not a ticket"] {
            let error = part(&cluster, &location, Ticket::new(forged.to_vec())).await.expect_err("this is no ticket");
            let said = message(&error);
            assert!(said.contains("not kept on this worker") || said.contains("no ticket"), "{said}");
        }
    });

    // A damaged part is not handed out, and the cluster hears of it.
    let dir = cluster.path("worker-1/results").join(kept.to_string());
    let file = std::fs::read_dir(dir).expect("parts").flatten().next().expect("a part").path();
    let mut contents = std::fs::read(&file).expect("a part");
    *contents.last_mut().expect("bytes") ^= 1;
    std::fs::write(&file, contents).expect("a part can be damaged");
    run(async {
        let found = info(&cluster, &[&kept.to_string()]).await.expect("nobody knows yet");
        let said = message(&rows(&cluster, &found).await.expect_err("a part is damaged"));
        assert!(said.contains("it is damaged: its checksum"), "{said}");
    });
    cluster.until("the damage is known", || !text(&cluster.run(&["job", "result", &kept.to_string()]).stderr).is_empty());
    let said = run(async { message(&info(&cluster, &[&kept.to_string()]).await.expect_err("a part is gone")) });
    assert!(said.contains("nobody who is there keeps part"), "{said}");
}

#[test]
fn pyarrow_reads_a_result() {
    let python = std::env::var("RAFTWERK_PYTHON").unwrap_or_else(|_| "python3".into());
    let has_pyarrow = Command::new(&python).args(["-c", "import pyarrow.flight"]).output().is_ok_and(|output| output.status.success());
    if !has_pyarrow {
        println!("skipped: {python} has no pyarrow; install it, or name another Python in RAFTWERK_PYTHON");
        return;
    }
    let cluster = Cluster::start(3, 2);
    let input = cluster.path("text");
    let expected = write_table(&input);
    let number = cluster.submit(&cluster.job_file("groups.toml", &groups(&input, "arrow")), &[]);
    cluster.wait_done(number);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/flight.py");
    let read = |job: &str, out: &Path| {
        let mut command = Command::new(&python);
        command
            .arg(&script)
            .arg("--credential")
            .arg(cluster.path("scheduler-1/admin.pem"))
            .args(["--scheduler", &cluster.addresses.join(",")]);
        command.arg(job).arg("--csv").arg(out).output().expect("python runs")
    };
    let out = cluster.path("rows.csv");
    let output = read(&number.to_string(), &out);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains(&format!("{0} rows of {0}", expected.len())), "{}", text(&output.stdout));
    let lines = std::fs::read_to_string(&out).expect("a CSV file").lines().count();
    assert_eq!(lines, expected.len() + 1);
    let output = read("999", &out);
    assert!(!output.status.success() && text(&output.stderr).contains("there is no job 999"), "{}", text(&output.stderr));
}
