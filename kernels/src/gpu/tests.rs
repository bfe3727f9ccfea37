use super::*;
use crate::api::KernelError;
use crate::testing::with_gpus;

#[test]
fn an_adapter_passes_the_self_test_with_wide_integers_and_without() {
    with_gpus(|gpu| {
        gpu.self_test().unwrap();
        gpu.self_test().unwrap(); // from the pipeline cache
        assert_eq!(gpu.lost(), None);
        assert!(gpu.memory().per_lease_bytes > 0);
    });
}

#[test]
fn the_processor_passes_its_self_test() {
    cpu_self_test().unwrap();
}

#[test]
fn an_adapter_that_is_not_there_is_an_error() {
    let error = Gpu::open(1000).unwrap_err();
    assert!(matches!(&error, KernelError::Device(text) if text.contains("no GPU adapter 1000")), "{error}");
}

/// Runs this test binary again without a driver: the loader reads the variable once per process.
#[test]
fn without_a_driver_the_list_is_empty() {
    let binary = std::env::current_exe().unwrap();
    let child = std::process::Command::new(binary)
        .args(["--exact", "gpu::tests::child_lists_adapters", "--ignored", "--nocapture"])
        .env("VK_DRIVER_FILES", "/nonexistent/driver.json")
        .env("VK_ICD_FILENAMES", "/nonexistent/driver.json")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{text}{}", String::from_utf8_lossy(&child.stderr));
    assert!(text.contains("adapters: 0"), "{text}");
}

#[test]
#[ignore = "the child of without_a_driver_the_list_is_empty"]
fn child_lists_adapters() {
    println!("adapters: {}", adapters().len());
}

#[test]
fn a_program_that_does_not_compile_is_an_error_and_the_device_lives_on() {
    with_gpus(|gpu| {
        let program = Program { name: "broken", wgsl: &["fn main() { this is not WGSL }"], constants: &[] };
        let result = gpu.start(&Dispatch { program, inputs: &[&[&[0; 4]]], output_bytes: 4, groups: 1 });
        assert!(matches!(result.map(drop), Err(KernelError::Device(_))));
        gpu.self_test().unwrap();
    });
}

#[test]
fn a_buffer_beyond_the_limits_is_an_error_and_the_device_lives_on() {
    with_gpus(|gpu| {
        let program =
            Program { name: "self_test", wgsl: &[include_str!("self_test.wgsl"), gpu.mul_wide()], constants: &[("group_size", 64)] };
        let output_bytes = gpu.report().max_buffer_bytes / 4 * 4 + 4;
        let result = gpu.start(&Dispatch { program, inputs: &[&[&[0; 4]]], output_bytes, groups: 1 });
        assert!(matches!(result.map(drop), Err(KernelError::Device(_))));
        gpu.self_test().unwrap();
    });
}

#[test]
fn more_groups_than_one_dimension_holds_are_folded_into_two() {
    with_gpus(|gpu| {
        let program =
            Program { name: "self_test", wgsl: &[include_str!("self_test.wgsl"), gpu.mul_wide()], constants: &[("group_size", 1)] };
        let groups = gpu.report().max_workgroups_per_dimension + 7;
        let values = words((0..groups).map(|index| index << 8));
        let output_bytes = u64::from(groups + 1) * 4;
        let output = gpu.start(&Dispatch { program, inputs: &[&[&values]], output_bytes, groups }).unwrap().finish().unwrap();
        let high = |index: u32| ((u64::from(index << 8) * u64::from((index << 8) ^ 0xffff_0000)) >> 32) as u32;
        assert!(output[1..].iter().enumerate().all(|(index, value)| *value == high(index as u32)));
    });
}

#[test]
fn a_device_that_is_gone_is_an_error_and_not_a_panic() {
    with_gpus(|gpu| {
        gpu.self_test().unwrap();
        gpu.device.destroy();
        assert!(matches!(gpu.self_test(), Err(KernelError::Device(_))));
        assert!(matches!(gpu.self_test(), Err(KernelError::Device(_))));
    });
}
