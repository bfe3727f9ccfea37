use super::*;
use crate::testing::params;

fn array(path: &str, dtype: &str, shape: &[u64]) -> ListedArray {
    ListedArray { path: path.into(), dtype: dtype.into(), shape: shape.into() }
}

fn files(types: &[&str]) -> ListedInput {
    let file = |(at, dtype): (usize, &&str)| array(&format!("/data/{at}.npy"), dtype, &[100]);
    ListedInput { files: types.iter().enumerate().map(file).collect(), sides: Vec::new() }
}

fn product(a: &[u64], b: ListedArray) -> ListedInput {
    ListedInput { files: vec![array("/data/a.npy", "f4", a)], sides: vec![("b".into(), b)] }
}

fn said(kernel: &str, given: &[(&str, &str)], input: &ListedInput) -> String {
    let kernel = crate::find(kernel).unwrap();
    let complete = crate::resolve_params(kernel.descriptor(), &params(given)).unwrap();
    check_listed(kernel, &complete, input).map_or_else(|problem| problem.to_string(), |()| "taken".to_owned())
}

#[test]
fn a_file_of_another_type_is_named_with_what_it_has_what_is_taken_and_a_fix() {
    assert_eq!(
        said("histogram", &[], &files(&["u1", "u8"])),
        "/data/1.npy has elements of type u8, and kernel `histogram` takes u1, u4 or f4\n\
         fix: convert it, for example in Python: numpy.save(\"new.npy\", numpy.load(\"/data/1.npy\").astype(\"u4\"))"
    );
    assert_eq!(said("histogram", &[], &files(&["u1", "u4", "f4"])), "taken");
    assert!(said("radix_sort", &[], &files(&["u1"])).contains("takes u4, u8 or f4"));
    assert!(said("matmul", &[], &files(&["u4"])).contains("takes f4\nfix: convert it"));
    let kernel = crate::find("statistics").unwrap();
    assert!(wrong_type(kernel, "/x.npy", "'<f8'").to_string().contains("type '<f8', and kernel `statistics` takes u1, u4 or f4"));
    assert!(wrong_type(kernel, "/x.npy", "'<f8'").fix.contains("astype(\"f4\")"));
    assert!(wrong_type(kernel, "/x.npy", "'<i8'").fix.contains("astype(\"u4\")"));
    assert!(wrong_type(crate::find("noop").unwrap(), "/x.npy", "u4").to_string().contains("takes none\nfix: give"));
}

#[test]
fn a_side_input_of_another_type_or_shape_is_refused() {
    let fitting = product(&[10, 3], array("/data/b.npy", "f4", &[3, 7]));
    assert_eq!(said("matmul", &[], &fitting), "taken");
    assert_eq!(
        said("matmul", &[], &product(&[10, 3], array("/data/b.npy", "u4", &[3, 7]))),
        "/data/b.npy has elements of type u4, and kernel `matmul` takes f4 as side input 'b'\n\
         fix: convert it, for example in Python: numpy.save(\"new.npy\", numpy.load(\"/data/b.npy\").astype(\"f4\"))"
    );
    assert_eq!(
        said("matmul", &[], &product(&[10, 3], array("/data/b.npy", "f4", &[21]))),
        "/data/b.npy has 1 dimension, and kernel `matmul` takes 2 as side input 'b'\nfix: give the right matrix of the product"
    );
    assert_eq!(
        said("matmul", &[], &product(&[10, 4], array("/data/b.npy", "f4", &[3, 7]))),
        "/data/a.npy has rows of 4 elements, and side input 'b' (/data/b.npy) has the shape (3, 7): a row must have 3\n\
         fix: give matrices that can be multiplied: as many columns of the input as rows of b"
    );
    assert!(said("matmul", &[], &product(&[10, 3], array("/data/b.npy", "f4", &[3, 0]))).contains("each must be 1 to 536870912\nfix: "));
}

#[test]
fn kernels_say_what_no_single_file_shows() {
    assert!(said("radix_sort", &[], &files(&["u4", "f4"])).starts_with("/data/0.npy has elements of type u4 and /data/1.npy of f4"));
    assert!(said("statistics", &[], &files(&["u4", "u4", "f4"])).starts_with("/data/0.npy has elements of type u4 and /data/2.npy of f4"));
    assert!(said("radix_sort", &[("payload_bits", "8")], &files(&["f4"])).contains("\nfix: set payload_bits = 0"));
    assert!(said("radix_sort", &[("payload_bits", "32")], &files(&["u4"])).contains("leaves no key in the 32 bits of u4\nfix: "));
    assert_eq!(said("radix_sort", &[("payload_bits", "32")], &files(&["u8"])), "taken");
    let points = |columns: [u64; 2]| ListedInput {
        files: columns.iter().enumerate().map(|(at, columns)| array(&format!("/{at}.npy"), "f4", &[5, *columns])).collect(),
        sides: Vec::new(),
    };
    assert_eq!(said("kmeans_assign", &[], &points([3, 3])), "taken");
    assert!(said("kmeans_assign", &[], &points([3, 4])).starts_with("/0.npy has rows of 3 elements and /1.npy of 4"));
    assert!(said("kmeans_assign", &[], &points([70_000; 2])).contains("1 to 65536 are possible\nfix: "));
    assert!(said("kmeans_assign", &[("clusters", "60000")], &points([4; 2])).contains("use fewer clusters"));
}

#[test]
fn what_an_input_adds_to_the_footprint() {
    let of = |kernel: &str, input: &ListedInput| listed_footprint(crate::find(kernel).unwrap(), input);
    assert_eq!(of("histogram", &files(&["f4"])), "dtype=f4");
    assert_eq!(of("histogram", &files(&["u8", "f4", "u8"])), "dtype=f4+u8");
    assert_eq!(of("histogram", &files(&[])), "");
    assert_eq!(of("kmeans_assign", &files(&["f4"])), "", "a kernel of one type");
    assert_eq!(of("matmul", &product(&[10, 3], array("/data/b.npy", "f4", &[3, 7]))), "n=7");
    assert_eq!(of("word_count", &files(&[])), "");
}
