//! What the session is told, and what it asks of its edge.

use std::sync::Arc;

use raftwerk_proto::v1::{
    self as pb, AttemptLogs, Device, FailureClass, Grant, InputListing, LeaseId, LeaseProgress, Load, PartsKept, PublishReport,
    SchedulerMessage, StageInfo, WorkerMessage,
};

/// What the session is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Begin; the first effect is a `Connect`.
    Start,
    /// A stream to this address is open.
    Connected {
        address: String,
    },
    /// The stream ended, or could not be opened. `jitter_permille` (0..=1000) spreads the back-off of workers that lost the same leader.
    Disconnected {
        reason: String,
        jitter_permille: u16,
    },
    /// No address will ever accept this worker (wrong authority, revoked certificate).
    Unreachable {
        reason: String,
    },
    FromScheduler(SchedulerMessage),
    /// From executors, in order per lease; blocks are already indexed and parts already durable in the staging directory.
    Progress(Vec<LeaseProgress>),
    /// An executor ended. `running` are the tasks it was running, as (lease, first task, count); `class` says why: it died, memory ran
    /// out, or the agent stopped it on purpose.
    ExecutorLost {
        device: u32,
        message: String,
        running: Vec<(LeaseId, u64, u64)>,
        class: FailureClass,
    },
    /// The offer of this worker changed (a device was withdrawn or came back): register again.
    DevicesChanged(Vec<Device>),
    /// A new measurement; the session fills in the lease counts.
    Load(Load),
    Listing(InputListing),
    Published(PublishReport),
    PartsKept(PartsKept),
    /// Parts that should lie here do not, or not as they were made.
    PartsMissing(pb::PartsMissing),
    CopiedAgain(pb::CopiedAgain),
    /// The uploads that lie here now.
    Uploads(Vec<String>),
    Logs(AttemptLogs),
    /// Time has passed; wanted at [`AgentSession::wake_at`](super::AgentSession::wake_at).
    Tick,
    ShutdownRequested {
        reason: String,
    },
}

/// What the edge must do.
#[derive(Clone, Debug, PartialEq)]
// Most effects are messages, and none lives longer than a moment: a box for each would cost more than it saves.
#[allow(clippy::large_enum_variant)]
pub enum Effect {
    /// Open a stream after this pause: to this address, or to the next known scheduler in turn. Answer with `Connected` or `Disconnected`.
    Connect {
        address: Option<String>,
        after_ms: u64,
    },
    /// Close the stream; answer with `Disconnected`.
    Disconnect {
        reason: String,
    },
    Send(WorkerMessage),
    StartLease {
        grant: Grant,
        stage: Arc<StageInfo>,
    },
    /// Drop what has not started and end with a final progress message.
    StopLease {
        lease: LeaseId,
        device: u32,
        reason: StopReason,
    },
    /// These are the addresses of all schedulers now: to be tried instead of those known before, also after a restart.
    KnowSchedulers(Vec<String>),
    /// Every task of the lease was brought home by others: what it wrote for them may go.
    FreeLease(LeaseId),
    /// Another round of the job has begun: what earlier ones left of this stage's shuffle data, in generations before this one, may go.
    FreeRounds {
        job: u64,
        stage: String,
        before: u32,
    },
    /// The job ended: its shuffle data, prepared parts and prepared stages may go.
    ReleaseJob(u64),
    /// A stopped lease does not end: kill the executor; answer with `ExecutorLost { class: Stopped, .. }`.
    ReplaceExecutor {
        device: u32,
    },
    ListInputs(pb::ListInputs),
    Publish(pb::Publish),
    /// Have these parts of a result, and flush them; answer with `PartsKept`.
    KeepParts(pb::KeepParts),
    /// Look whether these parts lie here as they were made; answer with `PartsMissing` for those that do not.
    CheckParts(pb::CheckParts),
    /// Copy shuffle data that lies here alone to another worker; answer with `CopiedAgain`.
    CopyAgain(pb::CopyAgain),
    /// Of what lies here of the job's result only these parts are still needed.
    ReleaseParts(pb::KeptParts),
    /// No job that has not ended reads these uploads.
    ReleaseUploads(Vec<String>),
    FetchLogs(pb::FetchLogs),
    /// The last effect ever.
    Exit(ExitReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The scheduler took the lease back.
    Revoked,
    /// The lease had ended while this worker was away.
    EndedMeanwhile,
    /// Nothing was heard from a leader for the lease time.
    Unheard,
    JobEnded,
    Shutdown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// The cluster refuses this worker for good.
    Refused(String),
    /// No address will ever accept it.
    Unreachable(String),
    Stopped,
}
