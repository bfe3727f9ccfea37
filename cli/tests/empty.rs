//! Empty input is valid, and so is its result, whatever the kernel: one job for each map kernel, with the reduce kernel that it is made for.

mod home;

use std::collections::BTreeSet;

use home::{Home, assert_exit, json};
use raftwerk_kernels::{Kind, registry};

/// An array of NumPy without an element.
fn npy(descr: &str, shape: &str) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat()
}

/// A kernel, its job, its input file, and what its part is to hold.
struct Case {
    kernel: &'static str,
    job: &'static str,
    input: Vec<u8>,
    holds: &'static str,
}

fn case(kernel: &'static str, job: &'static str, input: impl Into<Vec<u8>>, holds: &'static str) -> Case {
    Case { kernel, job, input: input.into(), holds }
}

const FILES: &str = "files = \"in/*\"\n";

fn cases() -> Vec<Case> {
    let (u4, f4, points) = (npy("<u4", "(0,)"), npy("<f4", "(0,)"), npy("<f4", "(0, 3)"));
    vec![
        case("word_count", "", "", "word,count\n"),
        case("grep", "params = { pattern = \"x\" }\n", "", ""),
        case("histogram", "", u4.clone(), "bin,count\n"),
        case("statistics", "", f4.clone(), "statistic,value\nvalues,0\ninvalid,0\n"),
        case("radix_sort", "", u4, "(0,)"),
        case("sort", "[reduce]\npartitions = 3\n", "", ""),
        case("dedup", "", "", ""),
        case("dedup", "params = { column = 2 }\n", "", ""),
        case("sample", "", "", ""),
        case("sample", "params = { count = 0, share = 0.5 }\n", "", ""),
        case("inverted_index", "", "", "word,file,count\n"),
        case("group_by", "params = { by = \"s\", aggregate = \"count, sum(n)\" }\n", "s,n\n", "s,count,sum(n)\n"),
        case("group_by", "params = { by = \"s\", aggregate = \"count, sum(n)\" }\n", "", "s,count,sum(n)\n"),
        case("group_by", "params = { aggregate = \"count\" }\n", "s,n\n", "count\n"),
        case("top_k", "params = { of = \"n\", k = 3 }\n", "s,n\n", "n\n"),
        case("matmul", "[map.side.b]\nfile = \"b.npy\"\n", points.clone(), "(0,)"),
        case("kmeans_assign", "[rounds]\nmax = 5\n", points.clone(), "cluster,points\n"),
        case("kmeans_assign", "[rounds]\nmax = 5\n[output]\nformat = \"npy\"\n", points.clone(), "(0, 0)"),
        case(
            "kmeans_assign",
            "params = { clusters = 2 }\n[map.side.centroids]\nfile = \"b.npy\"\n[rounds]\nmax = 5\n",
            points,
            "cluster,points\n",
        ),
    ]
}

/// Kernels that read a range of integers.
const RANGES: [&str; 3] = ["noop", "monte_carlo_pi", "black_scholes"];
/// Whose input cannot be empty: an image has a pixel at least, and so has a file of one.
const NEVER_EMPTY: [&str; 2] = ["mandelbrot", "convolve"];
/// Said in `two_stages_over_nothing_join_to_nothing`.
const JOINED: [&str; 1] = ["key_lines"];

#[test]
fn every_kernel_has_its_case() {
    let tried: BTreeSet<&str> = cases().iter().map(|case| case.kernel).chain(RANGES).chain(NEVER_EMPTY).chain(JOINED).collect();
    let all: BTreeSet<&str> =
        registry().iter().map(|kernel| kernel.descriptor()).filter(|kernel| kernel.kind == Kind::Map).map(|kernel| kernel.name).collect();
    assert_eq!(tried, all);
}

/// All parts of the output, one behind the other.
fn parts(home: &Home) -> Vec<u8> {
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(home.path().join("out/manifest.json")).unwrap()).unwrap();
    let parts = manifest["parts"].as_array().unwrap();
    assert!(!parts.is_empty(), "an empty result is a result");
    parts.iter().flat_map(|part| std::fs::read(home.path().join("out").join(part["name"].as_str().unwrap())).unwrap()).collect()
}

fn run(home: &Home) -> serde_json::Value {
    let output = home.run(&["run", "job.toml", "--no-gpu", "--cpus", "1", "--output", "out", "-o", "json"]);
    assert_exit(&output, 0);
    json(&output)
}

#[test]
fn an_empty_input_gives_an_empty_result() {
    for Case { kernel, job, input, holds } in cases() {
        let home = Home::new();
        std::fs::create_dir(home.path().join("in")).unwrap();
        std::fs::write(home.path().join("in/empty"), &input).unwrap();
        // Two rows of three, for a product and for centroids.
        let b: Vec<u8> = [npy("<f4", "(2, 3)"), vec![0; 24]].concat();
        let b = if kernel == "matmul" { [npy("<f4", "(3, 2)"), vec![0; 24]].concat() } else { b };
        std::fs::write(home.path().join("b.npy"), b).unwrap();
        home.write("job.toml", &format!("[input]\n{FILES}[map]\nkernel = \"{kernel}\"\n{job}"));
        let view = run(&home);
        assert_eq!(view["state"], "done", "{kernel}: {view:#}");
        let made = parts(&home);
        let text = String::from_utf8_lossy(&made);
        match holds.starts_with('(') {
            true => assert!(made.starts_with(b"\x93NUMPY") && text.contains(&format!("'shape': {holds}")), "{kernel}: {text:?}"),
            false => assert_eq!(text, holds, "{kernel} {job}"),
        }
        assert_eq!(view["stages"][0]["counters"]["records_in"], 0, "{kernel}");
        assert_eq!(view["stages"][0]["inputs"][0]["file_count"], 1, "{kernel}");
    }
}

#[test]
fn an_empty_range_gives_an_empty_result() {
    for kernel in RANGES {
        let home = Home::new();
        home.write("job.toml", &format!("[input.range]\ncount = 0\n[map]\nkernel = \"{kernel}\"\n"));
        let output = home.run(&["run", "job.toml", "--no-gpu", "--cpus", "1", "-o", "json"]);
        assert_exit(&output, 0);
        assert_eq!(json(&output)["stages"][0]["inputs"][0]["count"], 0, "{kernel}");
    }
}

#[test]
fn what_cannot_be_empty_is_refused_as_what_it_is() {
    let home = Home::new();
    home.write("a.png", "");
    home.write("job.toml", "[input]\nfiles = \"a.png\"\n[map]\nkernel = \"convolve\"\n");
    let output = home.run(&["run", "job.toml", "--no-gpu", "--output", "out"]);
    assert_exit(&output, 2);
    assert!(home::stderr(&output).contains("the input cannot be read as PNG"), "{}", home::stderr(&output));
    home.write("job.toml", "[input.range]\ncount = 0\n[map]\nkernel = \"mandelbrot\"\n");
    assert_exit(&home.run(&["run", "job.toml", "--no-gpu"]), 2);
}

#[test]
fn two_stages_over_nothing_join_to_nothing() {
    let home = Home::new();
    home.write("left.csv", "");
    home.write("right.csv", "");
    let stage =
        |name: &str, kernel: &str, inputs: &str| format!("[[stage]]\nname = \"{name}\"\nkernel = \"{kernel}\"\ninputs = [{inputs}]\n");
    let job = "[input.left]\nfiles = \"left.csv\"\n[input.right]\nfiles = \"right.csv\"\n".to_owned()
        + &stage("l", "key_lines", "\"left\"")
        + &stage("r", "key_lines", "\"right\"")
        + &stage("both", "join", "\"l\", \"r\"");
    home.write("job.toml", &job);
    let view = run(&home);
    assert_eq!(view["stages"][2]["inputs"][1], serde_json::json!({"kind": "stage", "stage": "r"}));
    assert_eq!(String::from_utf8(parts(&home)).unwrap(), "key,left,right\n");
}
