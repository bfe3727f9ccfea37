//! The GPU path through the whole cluster, on whatever adapter there is: Mesa's software rasteriser where there is no card.
//!
//! Without any adapter these tests say `skipped`, unless RAFTWERK_REQUIRE_GPU=1 asks them to fail.

use raftwerk_tests::cluster::{Cluster, merged_rows};
use serde_json::Value;

/// A cluster whose one worker offers its CPU and every GPU; `None` when there is no GPU.
fn cluster_with_gpu(test: &str) -> Option<(Cluster, String)> {
    let cluster = Cluster::with_worker_flags(1, 1, &["--cpus", "1"]);
    let workers = cluster.json(&["worker", "list"]);
    let devices: Vec<Value> = workers["workers"][0]["devices"].as_array().cloned().unwrap_or_default();
    let gpu = devices.iter().find_map(|d| d["class"].as_str().filter(|c| *c != "cpu"));
    let Some(class) = gpu else {
        assert!(
            std::env::var("RAFTWERK_REQUIRE_GPU").as_deref() != Ok("1"),
            "no GPU adapter, and RAFTWERK_REQUIRE_GPU=1\n{}",
            cluster.logs()
        );
        println!("skipped: {test}: no GPU adapter");
        return None;
    };
    let class = class.to_string();
    Some((cluster, class))
}

fn tasks_by_class(job: &Value, stage: &str, class: &str) -> u64 {
    let shares = job["shares"].as_array().expect("shares");
    shares.iter().filter(|s| s["stage"] == stage && s["class"] == class).filter_map(|s| s["tasks"].as_u64()).sum()
}

fn pi(device: &str) -> String {
    format!(
        "[job]\nname = \"pi\"\n[input]\nrange = {{ start = 0, count = 200003, tasks = 17 }}\n[map]\nkernel = \"monte_carlo_pi\"\nparams = {{ seed = 7 }}\ndevice = \"{device}\"\n"
    )
}

fn histogram(cluster: &Cluster, device: &str) -> String {
    let input = cluster.path("values.npy");
    if !input.exists() {
        write_npy(&input);
    }
    format!(
        "[job]\nname = \"histogram\"\n[input]\nfiles = [\"{}\"]\nsplit = \"4KiB\"\n[map]\nkernel = \"histogram\"\nparams = {{ bins = 37, low = -3.5, high = 9.25 }}\ndevice = \"{device}\"\n[reduce]\nkernel = \"sum_by_key\"\npartitions = 3\n[output]\npath = \"{}\"\nformat = \"csv\"\n",
        input.display(),
        cluster.path(&format!("histogram-{device}")).display()
    )
}

/// 10,007 floats, with NaN, infinities and both zeros among them.
fn write_npy(path: &std::path::Path) {
    let mut values: Vec<f32> = (0..10_003u32).map(|i| ((i.wrapping_mul(2_654_435_761) >> 8) as f32 / 1_000_000.0) - 4.0).collect();
    values.extend([f32::NAN, f32::INFINITY, -0.0, f32::NEG_INFINITY]);
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}", values.len());
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    std::fs::write(path, bytes).expect("an .npy file");
}

#[test]
fn a_gpu_runs_every_map_task_of_a_job_that_asks_for_it_and_counts_what_a_cpu_counts() {
    let Some((cluster, class)) = cluster_with_gpu("pi on the GPU") else { return };
    let on_gpu = cluster.wait_done(cluster.submit(&cluster.job_file("gpu.toml", &pi(&class)), &[]));
    let on_cpu = cluster.wait_done(cluster.submit(&cluster.job_file("cpu.toml", &pi("cpu")), &[]));
    assert_eq!(tasks_by_class(&on_gpu, "map", &class), 17, "{:#}", on_gpu["shares"]);
    assert_eq!(tasks_by_class(&on_cpu, "map", "cpu"), 17, "{:#}", on_cpu["shares"]);
    assert_eq!(on_gpu["tallies"], on_cpu["tallies"]);
}

#[test]
fn an_exact_kernel_publishes_the_same_rows_from_gpu_and_cpu() {
    let Some((cluster, class)) = cluster_with_gpu("histogram on the GPU") else { return };
    let mut rows = Vec::new();
    for device in [class.as_str(), "cpu"] {
        let file = cluster.job_file("histogram.toml", &histogram(&cluster, device));
        let view = cluster.wait_done(cluster.submit(&file, &[]));
        assert!(tasks_by_class(&view, "map", device) >= 10, "{:#}", view["shares"]);
        rows.push((merged_rows(&cluster.path(&format!("histogram-{device}"))), view["tallies"].clone()));
    }
    assert_eq!(rows[0], rows[1]);
    assert!(rows[0].0.len() > 30);
}

#[test]
fn a_software_adapter_gets_no_work_unless_asked_for() {
    let Some((cluster, class)) = cluster_with_gpu("software adapter left alone") else { return };
    let view = cluster.wait_done(cluster.submit(&cluster.job_file("any.toml", &pi("any")), &[]));
    if class == "software" {
        assert_eq!(tasks_by_class(&view, "map", "cpu"), 17, "{:#}", view["shares"]);
    }
}
