//! Bugs on purpose. A simulation that finds nothing proves little until it has found what was hidden for it.
//!
//! Each [`Bug`] is a switch in the code that ships, but for two whose place the simulation takes: [`Bug::SkipFsync`] is in its disk,
//! [`Bug::OldSessions`] in its edge of a leader. One is caught when the seed fails, by whatever check. Without the feature `planted`, which only `raftwerk-tests` asks for, [`on`] is a
//! constant `false` and the compiler removes the bug. With it, a bug is switched on for one thread: a simulation runs on one thread.

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What can be switched on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug { $($(#[$doc])* $name,)* }

        impl Bug {
            pub const ALL: &[Bug] = &[$(Bug::$name,)*];

            /// As written on a command line.
            pub fn name(self) -> &'static str {
                match self { $(Bug::$name => $text,)* }
            }
        }
    };
}

bugs! {
    /// The log writer reports entries and votes as durable; a power cut takes the last ones away.
    SkipFsync = "skip-fsync",
    /// A vote is never written.
    DropVote = "drop-vote",
    /// A snapshot claims one entry more than it holds, so a restart skips that one.
    SkipEntry = "skip-entry",
    /// A snapshot leaves out live leases.
    SnapshotLosesLeases = "snapshot-loses-leases",
    /// Every lease of a log entry gets the same id.
    ReuseLeaseId = "reuse-lease-id",
    /// Whoever reports a task that is not accepted yet is believed.
    AcceptFenced = "accept-fenced",
    /// A range that is out already is proposed again, and granted although a lease holds it.
    DoubleGrant = "double-grant",
    /// Shuffle data that died with its worker is still counted as there.
    LoseGeneration = "lose-generation",
    /// The idempotency key of a submit is not kept.
    ForgetKey = "forget-key",
    /// A worker is declared lost by the stamps of log entries.
    ExpireByWallClock = "expire-by-wall-clock",
    /// A leader begins with the sessions and batches of its earlier leadership.
    OldSessions = "old-sessions",
    /// Publishing begins with the last report instead of with the decision.
    PublishEarly = "publish-early",
    /// A copy of a part that stays on workers is recorded when it is asked for, before its bytes have come and were checked.
    CountCopyEarly = "count-copy-early",
    /// At the end of a job its workers are told to keep what they made, and not what they copied.
    ReleaseCopies = "release-copies",
    /// Reports are acknowledged when they arrive.
    AckEarly = "ack-early",
    /// A worker that reconnects does not offer its unacknowledged results again.
    ForgetResults = "forget-results",
    /// A worker that has heard nothing for the lease time goes on.
    NoSelfFence = "no-self-fence",
    /// A worker that leaves its leader is taken for dead a second later, as if its connection had broken.
    LeftIsDead = "left-is-dead",
    /// A leader that no majority answers goes on to answer its workers.
    AnswerInTheDark = "answer-in-the-dark",
    /// A worker is told of a stage once, and not again with every round.
    OldRound = "old-round",
    /// A stage that joins two opens when one of them is complete.
    OpenEarly = "open-early",
    /// The leader stamps entries with its wall clock, and the stamp is taken as it is, also when it lies before the last one.
    TimeGoesBack = "time-goes-back",
}

impl std::str::FromStr for Bug {
    type Err = String;

    fn from_str(text: &str) -> Result<Bug, String> {
        Bug::ALL.iter().copied().find(|bug| bug.name() == text).ok_or_else(|| {
            // Not `collect` and `join`: over constants of known lengths these keep LLVM busy for more than a minute of a release build.
            let mut error = format!("there is no planted bug '{text}'; there are");
            for bug in Bug::ALL {
                error.push(' ');
                error.push_str(bug.name());
            }
            error
        })
    }
}

#[cfg(feature = "planted")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Switches one bug on for this thread, and every other off.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether this bug is switched on in this thread.
    pub fn on(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(not(feature = "planted"))]
mod switch {
    /// Never: the bugs are not compiled in.
    #[inline(always)]
    pub const fn on(_: super::Bug) -> bool {
        false
    }
}

pub use switch::*;
