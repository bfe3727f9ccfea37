//! Jobs with a second input that every task reads whole, on real processes: it is checked like the first, and the result is the product.

use raftwerk_tests::cluster::{Cluster, text};
use std::path::{Path, PathBuf};

/// An array of f4 with two dimensions: NumPy's format 1.0.
struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f32>,
}

impl Matrix {
    fn new(rows: usize, columns: usize, value: impl Fn(usize, usize) -> f32) -> Matrix {
        let values = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))).map(|(row, column)| value(row, column));
        Matrix { rows, columns, values: values.collect() }
    }

    fn write(&self, path: &Path) {
        let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", self.rows, self.columns);
        header.push_str(&" ".repeat((64 - (10 + header.len() + 1) % 64) % 64));
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(self.values.iter().flat_map(|value| value.to_le_bytes()));
        std::fs::write(path, bytes).expect("the file is written");
    }

    fn read(path: &Path) -> Matrix {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let rest = bytes.strip_prefix(b"\x93NUMPY\x01\x00").expect("the magic of version 1.0");
        let (length, rest) = rest.split_first_chunk::<2>().expect("the header's length");
        let (header, elements) = rest.split_at(u16::from_le_bytes(*length).into());
        let header = std::str::from_utf8(header).expect("text");
        assert!(header.contains("'descr': '<f4'") && header.contains("'fortran_order': False"), "{header}");
        let shape = header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')')).expect("a shape").0;
        let shape: Vec<usize> = shape.split(',').map(|n| n.trim().parse().expect("a length")).collect();
        let values = elements.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
        Matrix { rows: shape[0], columns: shape[1], values }
    }

    fn times(&self, right: &Matrix) -> Matrix {
        let element = |row: usize, column: usize| {
            (0..self.columns).map(|k| self.values[row * self.columns + k] * right.values[k * right.columns + column]).sum()
        };
        Matrix::new(self.rows, right.columns, element)
    }
}

/// Whole numbers, whose products and sums are exact in f32: any order gives the same.
fn whole(row: usize, column: usize) -> f32 {
    (row * 31 + column * 17) as f32 % 15.0 - 7.0
}

struct Product {
    cluster: Cluster,
    a: PathBuf,
    b: PathBuf,
    file: String,
}

fn product(a: &Matrix, b: &Matrix) -> Product {
    let cluster = Cluster::start(1, 2);
    let (path_a, path_b) = (cluster.path("a.npy"), cluster.path("b.npy"));
    a.write(&path_a);
    b.write(&path_b);
    let job = format!(
        "[input]\nfiles = {path_a:?}\nsplit = \"1KiB\"\n[map]\nkernel = \"matmul\"\nmax_lease_tasks = 2\n[map.side.b]\nfile = {path_b:?}\n\
         [reduce]\npartitions = 3\n[output]\npath = {:?}\n",
        cluster.path("c")
    );
    let file = cluster.job_file("product.toml", &job);
    Product { cluster, a: path_a, b: path_b, file }
}

#[test]
fn a_product_of_matrices_comes_out_in_blocks_of_rows() {
    let (a, b) = (Matrix::new(101, 37, whole), Matrix::new(37, 23, |row, column| whole(column, row + 3)));
    let made = product(&a, &b);
    let view = made.cluster.wait_done(made.cluster.submit(&made.file, &[]));
    let tally = |name: &str| {
        view["tallies"].as_array().into_iter().flatten().find(|t| t["name"] == name).map(|t| t["total"].clone()).unwrap_or_default()
    };
    assert_eq!((tally("rows"), tally("not_finite")), ("101".into(), "0".into()), "{view:#}");
    let parts: Vec<Matrix> = (0..3).map(|part| Matrix::read(&made.cluster.path("c").join(format!("part-{part:05}.npy")))).collect();
    assert!(parts.iter().all(|part| part.columns == 23 && part.rows > 20));
    let together: Vec<f32> = parts.into_iter().flat_map(|part| part.values).collect();
    assert!(together == a.times(&b).values);

    // The kernel is bounded: the manifest names the device of each range of tasks, and every task once.
    let manifest = std::fs::read_to_string(made.cluster.path("c").join("manifest.json")).expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for device in manifest["devices"].as_array().into_iter().flatten().filter(|device| device["stage"] == "map") {
        assert!(device["device"].as_str().is_some_and(|name| !name.is_empty()), "{manifest:#}");
        ranges.extend(device["task_ranges"].as_array().expect("ranges").iter().map(|r| (r[0].as_u64().unwrap(), r[1].as_u64().unwrap())));
    }
    ranges.sort_unstable();
    let end = ranges.iter().fold(0, |next, (first, count)| {
        assert_eq!(*first, next, "{ranges:?}");
        first + count
    });
    assert_eq!(end, manifest["stages"][0]["tasks"], "{manifest:#}");
    assert_eq!((&manifest["stages"][0]["bounded"], &manifest["stages"][1]["bounded"]), (&true.into(), &false.into()));
}

#[test]
fn a_side_input_that_is_not_there_or_does_not_fit_is_told_by_name() {
    let (a, b) = (Matrix::new(9, 4, whole), Matrix::new(5, 3, whole));
    let made = product(&a, &b);
    let refused = made.cluster.run(&["submit", &made.file]);
    let said = text(&refused.stderr);
    let expected =
        ["a.npy has rows of 4 elements, and side input 'b'", "has the shape (5, 3)", "fix: give matrices that can be multiplied"];
    assert!(refused.status.code() == Some(2) && expected.iter().all(|part| said.contains(part)), "{said}");

    std::fs::remove_file(&made.b).expect("it was there");
    let refused = made.cluster.run(&["submit", &made.file]);
    let said = text(&refused.stderr);
    assert!(!refused.status.success() && said.contains("b.npy"), "{said}");
    assert!(made.a.exists());

    // A column is no matrix.
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }".to_owned() + &" ".repeat(60) + "\n";
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend([0; 16]);
    std::fs::write(&made.b, bytes).expect("written");
    let refused = made.cluster.run(&["submit", &made.file]);
    let said = text(&refused.stderr);
    assert!(!refused.status.success() && said.contains("b.npy") && said.contains("has 1 dimension;"), "{said}");
}
