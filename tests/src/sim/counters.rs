//! What a simulation did and which rare states it reached. Sums of many seeds go into the summary of a soak.

use std::collections::BTreeMap;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident: $text:literal,)*) => {
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
            /// Faults that were carried out, by kind.
            pub faults: BTreeMap<&'static str, u64>,
        }

        impl Counters {
            pub fn add(&mut self, other: &Counters) {
                $(self.$name += other.$name;)*
                for (kind, count) in &other.faults {
                    *self.faults.entry(kind).or_default() += count;
                }
            }

            /// Every counter with its name in words.
            pub fn lines(&self) -> Vec<(&'static str, u64)> {
                vec![$(($text, self.$name),)*]
            }
        }
    };
}

counters! {
    entries: "log entries applied",
    leaderships: "leaderships",
    accepted_tasks: "tasks accepted",
    jobs_ended: "jobs ended",
    failed_attempts: "failures reported",
    stale_placements: "stale placements skipped",
    fenced_results: "results fenced",
    gangs_begun: "stages begun on several devices at once",
    results_of_joins: "results of tasks that join two stages",
    parts_made_again: "parts between stages made again",
    rounds_ended: "rounds of jobs ended",
    late_of_rounds: "of their results, fenced because the round had ended",
    generations_invalidated: "generations invalidated",
    workers_lost: "workers declared lost",
    speculative_wins: "speculative wins",
    tasks_set_aside: "tasks set aside",
    quarantines: "workers or devices quarantined",
    snapshots_restored: "snapshots restored",
    snapshots_installed: "snapshots installed from a leader",
    installs_under_fire: "of these while a fault was going on",
    self_fenced: "leases stopped by a worker that heard nothing",
    kept_reports_offered: "reports offered again at hand-over",
    repeated_submits: "submits answered from their key",
    damage_detected: "flipped bits detected at start",
    damage_harmless: "flipped bits without consequence",
    replicas_replaced: "lost replicas replaced",
    replicas_removed: "replicas removed",
    new_epochs: "forced recoveries",
    stopped_by_disk: "replicas stopped by a failed write",
    torn_cut_off: "commits torn, of which nothing was there at the next start",
    torn_whole: "commits torn, which were there all the same",
    publishes: "publishers asked",
    parts_remade: "decisions taken back for a lost part",
    copies_made: "tasks with a second copy of their shuffle data",
    copies_made_again: "of these, made again after a loss",
    copies_used: "tasks that lived on by their copy",
    copies_read: "fetches from a copy",
    copies_refused: "copies refused by a full worker",
    handed_back: "leases handed back by a full worker",
    parts_kept: "parts of results that stay on workers",
    parts_copied: "copies of such parts",
    copies_dropped: "such copies that came to nothing, because the result was dropped meanwhile",
    results_read: "such results read by clients",
    results_away: "of which a part was away",
    results_dropped: "such results dropped",
    kept_parts_lost: "such parts lost on a disk",
    kept_parts_damaged: "such parts damaged on a disk",
    copies_damaged: "copies that came damaged and were not taken",
    kept_losses_found: "of these, found by their worker",
    addresses_asked: "schedulers asked in turn",
    addresses_passed_by: "of these, passed by without an answer",
    addresses_learnt: "lists of schedulers learnt",
    reads: "reads by clients",
    messages: "messages between replicas",
}

impl Counters {
    /// What was never reached, but for what a few seeds seldom reach: a leader plans on the state that it has just applied, so one seed in twenty has a
    /// stale placement; a result has to be dropped in the seconds in which a lost copy of it is made again; one of a round has to come just when the
    /// round has ended; a worker has to die with parts between two stages that are still needed; and the only source of a copy has to be damaged just before.
    pub fn missing(&self) -> Vec<&'static str> {
        let counted =
            Counters { stale_placements: 1, copies_dropped: 1, late_of_rounds: 1, parts_made_again: 1, copies_damaged: 1, ..self.clone() };
        counted.lines().into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }

    /// A fault was carried out.
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    pub fn total_faults(&self) -> u64 {
        self.faults.values().sum()
    }
}
