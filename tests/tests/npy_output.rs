//! What a job writes as `.npy` holds the numbers that it writes as CSV, read back by the format's own rules.

use raftwerk_tests::cluster::{Cluster, merged_rows};
use std::path::{Path, PathBuf};

/// An array of u64 as any reader of the format would take it.
struct Array {
    shape: Vec<usize>,
    values: Vec<u64>,
}

/// NumPy's format 1.0: magic, version, length of the header, the header as Python text, the elements. The file's end must be theirs.
fn read_npy(path: &Path) -> Array {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let rest = bytes.strip_prefix(b"\x93NUMPY\x01\x00").expect("the magic of version 1.0");
    let (length, rest) = rest.split_first_chunk::<2>().expect("the header's length");
    let (header, elements) = rest.split_at(u16::from_le_bytes(*length).into());
    assert_eq!((bytes.len() - elements.len()) % 64, 0, "elements are aligned");
    let header = std::str::from_utf8(header).expect("text");
    assert!(header.ends_with('\n') && header.contains("'descr': '<u8'") && header.contains("'fortran_order': False"), "{header}");
    let shape = header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')')).expect("a shape").0;
    let shape: Vec<usize> = shape.split(',').map(str::trim).filter(|n| !n.is_empty()).map(|n| n.parse().expect("a length")).collect();
    let (values, rest) = elements.as_chunks::<8>();
    assert!(rest.is_empty(), "a broken element");
    assert_eq!(values.len(), shape.iter().product::<usize>(), "{header}");
    Array { shape, values: values.iter().map(|value| u64::from_le_bytes(*value)).collect() }
}

fn example(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name).display().to_string()
}

/// Runs an example with its result in the cluster's own directory.
fn run(cluster: &Cluster, name: &str, output: &str, more: &[&str]) -> PathBuf {
    let path = cluster.path(output);
    let mut args = vec!["--output", path.to_str().expect("UTF-8")];
    args.extend(more);
    cluster.wait_done(cluster.submit(&example(name), &args));
    path
}

#[test]
fn an_example_that_writes_npy_holds_the_counts_of_the_one_that_writes_csv() {
    let cluster = Cluster::start(1, 2);
    let csv = merged_rows(&run(&cluster, "histogram.toml", "csv", &[]));
    let mut expected: Vec<(u64, u64)> = csv
        .iter()
        .map(|row| std::str::from_utf8(row).expect("digits").split_once(',').expect("two columns"))
        .map(|(bin, count)| (bin.parse().expect("a bin"), count.parse().expect("a count")))
        .collect();
    expected.sort_unstable();
    assert!(expected.len() == 80 && expected.iter().map(|(_, count)| count).sum::<u64>() > 60_000, "{expected:?}");

    let dense = read_npy(&run(&cluster, "histogram-npy.toml", "dense", &[]).join("part-00000.npy"));
    assert_eq!(dense.shape, [80]);
    assert!((0..).zip(dense.values).eq(expected.iter().copied()));

    let parts = run(&cluster, "histogram-npy.toml", "pairs", &["--set", "reduce.partitions=3"]);
    let mut pairs: Vec<(u64, u64)> = Vec::new();
    for part in 0..3 {
        let array = read_npy(&parts.join(format!("part-{part:05}.npy")));
        assert_eq!(array.shape[1..], [2]);
        pairs.extend(array.values.as_chunks::<2>().0.iter().map(|[bin, count]| (*bin, *count)));
    }
    pairs.sort_unstable();
    assert_eq!(pairs, expected);
}
