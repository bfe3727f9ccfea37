//! Keys at which the range of all keys is cut into partitions, and their form in the survey of the input.
//!
//! ```text
//! | length: u8, at most 64 | bytes of the key | length | bytes | ..      one for each partition but the last, in the order of the output
//! ```
//! A cut is the beginning of a sampled key; every key that is not before it lies behind it. So equal keys are never in two partitions, and
//! wherever the cuts lie the parts are in order: a bad sample makes uneven partitions and nothing worse.

use crate::api::KernelError;
use crate::sorted_run::Order;

const CUT_BYTES: usize = 64;

#[derive(Debug, PartialEq)]
pub(super) struct Cuts(Vec<Vec<u8>>);

impl Cuts {
    /// Cuts that give each partition as many samples as the next; none without a sample.
    pub(super) fn of_samples(order: &Order, samples: &[&[u8]], partitions: u32) -> Cuts {
        let mut keys: Vec<&[u8]> = samples.iter().map(|sample| order.key(sample)).map(|key| &key[..key.len().min(CUT_BYTES)]).collect();
        keys.sort_unstable_by(|a, b| order.compare(a, b));
        if keys.is_empty() {
            return Cuts(Vec::new());
        }
        let cut = |number: u64| keys[(keys.len() as u64 * number / u64::from(partitions)) as usize].to_vec();
        Cuts((1..u64::from(partitions)).map(cut).collect())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for key in &self.0 {
            bytes.push(key.len() as u8);
            bytes.extend_from_slice(key);
        }
        bytes
    }

    pub(super) fn decode(order: &Order, mut survey: &[u8], partitions: u32) -> Result<Cuts, KernelError> {
        let damaged = || KernelError::Param("the survey of the input is damaged: it holds no cuts for these partitions".into());
        let mut keys: Vec<Vec<u8>> = Vec::new();
        while let Some((length, rest)) = survey.split_first() {
            let (key, rest) = rest.split_at_checked((*length).into()).ok_or_else(damaged)?;
            if keys.last().is_some_and(|before| order.compare(before, key).is_gt()) {
                return Err(damaged());
            }
            keys.push(key.to_vec());
            survey = rest;
        }
        if keys.len() >= partitions.max(1) as usize { Err(damaged()) } else { Ok(Cuts(keys)) }
    }

    /// In the order of the output.
    pub(super) fn keys(&self) -> &[Vec<u8>] {
        &self.0
    }
}
