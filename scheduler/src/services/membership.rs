//! Whether a replica may be taken out.

use crate::raft::Member;
use std::collections::BTreeSet;

/// The voters that stay must have a majority that answers, or the cluster would stop with this change. The text says what to do instead.
pub(super) fn check_removal(members: &[Member], answering: &BTreeSet<u64>, id: u64) -> Result<(), String> {
    let staying: BTreeSet<u64> = members.iter().filter(|m| m.voter && m.id != id).map(|m| m.id).collect();
    if staying.is_empty() {
        return Err(format!("replica {id} is the only one; to end the cluster, stop its process"));
    }
    let needed = staying.len() / 2 + 1;
    let there = staying.intersection(answering).count();
    if there >= needed {
        return Ok(());
    }
    let silent: Vec<String> = staying.difference(answering).map(u64::to_string).collect();
    let silent = silent.join(" and ");
    Err(format!(
        "without replica {id} only {there} of {} voters would answer, and {needed} are a majority: nothing could be written any more. \
         Start replica {silent} again first, or take {silent} out before {id}, or join another replica",
        staying.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(members: &[u64], answering: &[u64], id: u64) -> Result<(), String> {
        let member = |id: &u64| Member { id: *id, name: String::new(), address: String::new(), voter: true, matched: None };
        check_removal(&members.iter().map(member).collect::<Vec<_>>(), &answering.iter().copied().collect(), id)
    }

    #[test]
    fn a_replica_goes_only_if_a_majority_of_the_others_answers() {
        assert_eq!(check(&[1, 2, 3], &[1, 2, 3], 3), Ok(()));
        assert_eq!(check(&[1, 2, 3], &[1, 2], 3), Ok(()));
        let why = check(&[1, 2, 3], &[1, 2], 2).unwrap_err();
        assert!(why.contains("only 1 of 2 voters would answer, and 2 are a majority") && why.contains("replica 3"), "{why}");
        assert_eq!(check(&[1, 2, 3, 4, 5], &[1, 2, 3], 3).unwrap_err().matches("4 and 5").count(), 2);
        assert_eq!(check(&[1, 2], &[1, 2], 2), Ok(()));
        assert!(check(&[1], &[1], 1).unwrap_err().contains("the only one"));
    }
}
