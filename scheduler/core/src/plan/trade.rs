//! Jobs of one priority with unlike kernels exchange devices: each gets those where it is comparatively fastest, instead of a part of every one.
//!
//! A device's worth to a stage is the part that it has of the stage's speed on all devices together. A device goes to the stage that it is worth
//! most to (comparative advantage: Ricardo, 1817). Shares are of device time, and an exchange changes them; so it is made only if everybody gains
//! by it: what a stage gets must be worth at least a tenth more to it than its share of every device would be. Who has too little is
//! given devices of others who can spare them, those first that lose least by it (adjusted winner: Brams and Taylor, 1996). Where that
//! does not come out, nothing is exchanged.
//!
//! Whatever the owner of a device leaves free is everybody's, in the usual order.

use super::order::Claim;
use super::{Round, policy_of};
use raftwerk_proto::v1::KernelRef;

/// Unlike kernels that are looked at; with more of them each is served as before.
const MAX_KINDS: usize = 16;
/// A stage must gain so much, in percent of its share of every device: less than that is noise of predictions.
const GAIN_PERCENT: u128 = 110;
/// Worth of all devices together.
const ALL: u128 = 1 << 40;

/// Who has which device for this round.
pub(super) struct Trade {
    /// Kind of each claim; none for one with nothing ready.
    pub kinds: Vec<Option<usize>>,
    /// Of each claim, of what its kind has.
    pub permille: Vec<u64>,
    /// Kind by place of the device.
    owners: Vec<Option<usize>>,
}

impl Trade {
    pub(super) fn owns(&self, kind: usize, place: usize) -> bool {
        self.owners.get(place).copied().flatten() == Some(kind)
    }
}

/// Stages that cost the same on every device.
struct Kind<'a> {
    kernel: Option<&'a KernelRef>,
    footprint: &'a str,
    /// Of the claims.
    permille: u64,
    /// By place; 0 where it cannot run.
    worth: Vec<u128>,
}

impl<'a> Round<'a> {
    /// Of the claims of one priority; nothing where it is no use.
    pub(super) fn trade(&mut self, level: &[Claim<'a>]) -> Option<Trade> {
        if level.len() < 2 || !level.iter().all(|claim| policy_of(self.view, &claim.job.spec).goes_by_cost()) {
            return None;
        }
        let mut kinds: Vec<Kind<'a>> = Vec::new();
        let mut of_claims = Vec::with_capacity(level.len());
        for claim in level {
            let Some(index) = claim.job.stages.iter().position(|stage| stage.open && stage.free() > 0) else {
                of_claims.push(None);
                continue;
            };
            // Who is limited to some devices has no use for others.
            if self.tenants[claim.namespace].devices_left().is_some() {
                return None;
            }
            let spec = &claim.job.spec.stages[index];
            let same = |kind: &Kind<'_>| kind.kernel == spec.kernel.as_ref() && kind.footprint == spec.footprint;
            let kind = match kinds.iter().position(same) {
                Some(kind) => kind,
                None => {
                    let kind = Kind { kernel: spec.kernel.as_ref(), footprint: &spec.footprint, permille: 0, worth: Vec::new() };
                    kinds.push(kind);
                    kinds.len() - 1
                }
            };
            if kinds.len() > MAX_KINDS {
                return None;
            }
            if kinds[kind].permille == 0 {
                kinds[kind].worth = self.worth(claim, index as u32)?;
            }
            kinds[kind].permille += claim.permille;
            of_claims.push(Some(kind));
        }
        let owners = exchange(&kinds)?;
        let part = |(claim, kind): (&Claim<'_>, &Option<usize>)| {
            kind.map_or(0, |kind| (1000 * claim.permille / kinds[kind].permille.max(1)).max(1))
        };
        let permille = level.iter().zip(&of_claims).map(part).collect();
        Some(Trade { kinds: of_claims, permille, owners })
    }

    /// What each device is worth to the stage; nothing before all of them are known.
    fn worth(&mut self, claim: &Claim<'a>, index: u32) -> Option<Vec<u128>> {
        self.tenant = claim.namespace;
        let places = self.devices(&claim.job.spec.stages[index as usize], Some(claim.job), index);
        let costs = self.costs.of(claim.job, index)?;
        let kinds = self.kinds.as_ref()?;
        let mut speeds = vec![0u128; self.slots.len()];
        for place in places {
            let slot = &self.slots[place];
            let estimate = costs.own_or_lent(slot.at(), kinds)?;
            speeds[place] = (u128::from(slot.parallelism) << 60) / u128::from(estimate.task_ns());
        }
        let all = speeds.iter().fold(0u128, |sum, speed| sum.saturating_add(*speed)).max(1);
        // 2^60 of each of at most 2^20 lanes, times 2^40, is below 2^128.
        Some(speeds.into_iter().map(|speed| speed.min(1 << 84).saturating_mul(ALL) / all).collect())
    }
}

/// Who gets which device, if all gain.
fn exchange(kinds: &[Kind<'_>]) -> Option<Vec<Option<usize>>> {
    if kinds.len() < 2 {
        return None;
    }
    let places = kinds.iter().map(|kind| kind.worth.len()).max()?;
    let worth = |kind: usize, place: usize| kinds[kind].worth.get(place).copied().unwrap_or(0);
    let best =
        |place: usize| (0..kinds.len()).filter(|kind| worth(*kind, place) > 0).max_by_key(|kind| (worth(*kind, place), usize::MAX - kind));
    let mut owners: Vec<Option<usize>> = (0..places).map(best).collect();
    let all: u64 = kinds.iter().map(|kind| kind.permille).sum();
    let needs = |kind: usize| ALL * u128::from(kinds[kind].permille) * GAIN_PERCENT / 100 / u128::from(all.max(1));
    let mut has = vec![0u128; kinds.len()];
    for (place, owner) in owners.iter().enumerate() {
        if let Some(kind) = *owner {
            has[kind] += worth(kind, place);
        }
    }
    for kind in 0..kinds.len() {
        if has[kind] >= needs(kind) {
            continue;
        }
        let mut others: Vec<(u128, usize, usize)> = Vec::new();
        for (place, owner) in owners.iter().enumerate() {
            if let Some(owner) = owner.filter(|owner| *owner != kind && worth(kind, place) > 0) {
                others.push((worth(kind, place).saturating_mul(ALL) / worth(owner, place).max(1), place, owner));
            }
        }
        others.sort_by_key(|(advantage, place, _)| (u128::MAX - advantage, *place));
        for (_, place, owner) in others {
            if has[kind] >= needs(kind) {
                break;
            }
            if has[owner].saturating_sub(worth(owner, place)) < needs(owner) {
                continue;
            }
            has[owner] -= worth(owner, place);
            has[kind] += worth(kind, place);
            owners[place] = Some(kind);
        }
        if has[kind] < needs(kind) {
            return None;
        }
    }
    Some(owners)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(speeds: &[u128], permille: u64) -> Kind<'static> {
        let all: u128 = speeds.iter().sum();
        Kind { kernel: None, footprint: "", permille, worth: speeds.iter().map(|speed| speed * ALL / all).collect() }
    }

    #[test]
    fn each_gets_what_it_is_comparatively_fastest_on() {
        // The second is faster than the first everywhere.
        let owners = exchange(&[kind(&[3, 1, 1], 500), kind(&[4, 40, 40], 500)]);
        assert_eq!(owners, Some(vec![Some(0), Some(1), Some(1)]));
    }

    #[test]
    fn kernels_that_compare_devices_alike_have_nothing_to_exchange() {
        assert_eq!(exchange(&[kind(&[1, 20, 3], 500), kind(&[2, 40, 6], 500)]), None);
        assert_eq!(exchange(&[kind(&[1, 1], 1000)]), None);
    }

    #[test]
    fn who_would_have_less_than_its_share_is_given_devices_of_others() {
        // The first is quick on the first device alone, which is less than half of all that it could have.
        let (first, second) = (kind(&[48, 13, 13, 13, 13], 500), kind(&[4, 24, 24, 24, 24], 500));
        let owners = exchange(&[first, second]).expect("an exchange");
        assert_eq!(owners.iter().filter(|owner| **owner == Some(0)).count(), 2, "{owners:?}");
        // Three quarters of every device cannot be made up for.
        assert_eq!(exchange(&[kind(&[48, 13, 13, 13, 13], 750), kind(&[4, 24, 24, 24, 24], 250)]), None);
        assert_eq!(exchange(&[kind(&[1, 1, 1], 500), kind(&[1, 1, 2], 500)]), None);
    }

    #[test]
    fn what_only_one_can_use_is_its_own() {
        let owners = exchange(&[kind(&[1, 0, 1], 500), kind(&[0, 7, 3], 500)]);
        assert_eq!(owners.map(|owners| (owners[0], owners[1])), Some((Some(0), Some(1))));
    }
}
