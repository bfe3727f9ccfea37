//! The parameters of a stage that matter for what a task costs, in short: under what costs are remembered.

use crate::api::{Kernel, Params};

/// Longest footprint. What is longer is cut, and told apart by a checksum.
const LONGEST: usize = 120;

/// "bins=4096 high=1": complete parameters that differ from their defaults, without those that the kernel says cost nothing
/// ([`Kernel::costless_params`]). Empty for a stage with the kernel's defaults.
pub fn footprint(kernel: &dyn Kernel, params: &Params) -> String {
    let descriptor = kernel.descriptor();
    let defaults = descriptor.params.iter().filter_map(|spec| Some((spec.name.to_owned(), spec.default?.to_owned()))).collect();
    // In the spelling that complete parameters have.
    let defaults = crate::resolve_params(descriptor, &defaults).unwrap_or(defaults);
    let matters =
        |name: &str, value: &str| !kernel.costless_params().contains(&name) && defaults.get(name).is_none_or(|default| default != value);
    let words: Vec<String> =
        params.iter().filter(|(name, value)| matters(name, value)).map(|(name, value)| format!("{name}={value}")).collect();
    shortened(words.join(" "))
}

fn shortened(text: String) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.len() <= LONGEST {
        return text;
    }
    // FNV-1a: the same with every build and on every machine.
    let sum = text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let end = (0..=LONGEST - 20).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}.. {sum:016x}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kernel: &str, given: &[(&str, &str)]) -> String {
        let kernel = crate::find(kernel).expect("a kernel");
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        footprint(kernel, &crate::resolve_params(kernel.descriptor(), &given).expect("parameters"))
    }

    #[test]
    fn only_what_matters_and_is_no_default_is_in_it() {
        assert_eq!(of("monte_carlo_pi", &[("seed", "7")]), "");
        assert_eq!(of("mandelbrot", &[("palette", "ember"), ("max_iterations", "50")]), "max_iterations=50");
        assert_eq!(of("mandelbrot", &[("max_iterations", "1000")]), "");
        assert_eq!(of("mandelbrot", &[("zoom", "1e3"), ("center_x", "-0.75")]), "center_x=-0.75 zoom=1000");
    }

    #[test]
    fn a_long_one_is_cut_and_told_apart() {
        let (one, other) = (shortened("x".repeat(500)), shortened(format!("{}y", "x".repeat(499))));
        assert!(one.len() <= LONGEST && other.len() <= LONGEST && one != other, "{one} {other}");
        assert!(shortened("ä".repeat(100)).len() <= LONGEST);
    }

    #[test]
    fn kernels_name_only_parameters_that_they_have() {
        for kernel in crate::registry() {
            let names: Vec<&str> = kernel.descriptor().params.iter().map(|spec| spec.name).collect();
            assert!(kernel.costless_params().iter().all(|name| names.contains(name)), "{}", kernel.descriptor().name);
        }
    }
}
