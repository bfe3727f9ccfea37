//! What a simulation did and which rare states it reached. Sums of many seeds go into the summary of a soak.

use std::collections::BTreeMap;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident: $text:literal,)*) => {
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
            /// Faults by kind.
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
    stopped_by_disk: "replicas stopped by a failed write",
    publishes: "outputs made visible",
    reads: "reads by clients",
    messages: "messages between replicas",
}

impl Counters {
    pub fn total_faults(&self) -> u64 {
        self.faults.values().sum()
    }
}
