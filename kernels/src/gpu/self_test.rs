//! Does this device compute rightly? Asked once before it gets work, and again when its answers are in doubt.

use super::{Dispatch, Gpu, Program, words};
use crate::api::KernelError;

const GROUP_SIZE: u32 = 64;
const LENGTH: u32 = 100_003; // a prime: the last group is not full
const SEED: u32 = 0x5eed;

impl Gpu {
    /// Runs a small program that uses what the kernels use (wide products, group memory, barriers, atomics) and compares every
    /// number of its result with the CPU's.
    pub fn self_test(&self) -> Result<(), KernelError> {
        let input = words((0..LENGTH).map(value));
        let groups = LENGTH.div_ceil(GROUP_SIZE);
        let program = Program {
            name: "self_test",
            wgsl: &[include_str!("self_test.wgsl"), self.mul_wide()],
            constants: &[("group_size", GROUP_SIZE)],
        };
        let output_bytes = u64::from(groups + 1) * 4;
        let output = self.start(&Dispatch { program, inputs: &[&[&input]], output_bytes, groups })?.finish()?;
        let expected = expected(groups);
        match output.iter().zip(&expected).position(|(a, b)| a != b) {
            None if output.len() == expected.len() => Ok(()),
            at => Err(self.error(&format!("self-test: a wrong result{}", at.map(|at| format!(" in place {at}")).unwrap_or_default()))),
        }
    }
}

fn value(index: u32) -> u32 {
    index.wrapping_mul(0x9e37_79b9) ^ SEED
}

fn high_product(index: u32) -> u32 {
    ((u64::from(value(index)) * u64::from(value(index) ^ 0xffff_0000)) >> 32) as u32
}

/// Per group the largest number that its members make, and in front the sum of all, wrapping.
fn expected(groups: u32) -> Vec<u32> {
    let mut expected = vec![(0..LENGTH).map(high_product).fold(0, u32::wrapping_add)];
    expected.extend((0..groups).map(|group| {
        let first = group * GROUP_SIZE;
        (first..(first + GROUP_SIZE).min(LENGTH)).map(high_product).max().unwrap_or(0)
    }));
    expected
}

/// The same for the processor: the wide product two ways, and floats as the kernels' tables need them. A machine that fails this has
/// broken hardware.
pub fn cpu_self_test() -> Result<(), KernelError> {
    let sum = expected(LENGTH.div_ceil(GROUP_SIZE))[0];
    let halves = |index: u32| {
        let (a, b) = (value(index), value(index) ^ 0xffff_0000);
        let cross = u64::from(a >> 16) * u64::from(b & 0xffff) + u64::from(((a & 0xffff) * (b & 0xffff)) >> 16);
        let other = u64::from(a & 0xffff) * u64::from(b >> 16) + (cross & 0xffff);
        (u64::from(a >> 16) * u64::from(b >> 16) + (cross >> 16) + (other >> 16)) as u32
    };
    let again = std::hint::black_box(0..LENGTH).map(halves).fold(0, u32::wrapping_add);
    let root = std::hint::black_box(2.0f64).sqrt();
    if sum != again || root.to_bits() != 0x3ff6_a09e_667f_3bcd {
        return Err(KernelError::Device("the processor fails its self-test".into()));
    }
    Ok(())
}
