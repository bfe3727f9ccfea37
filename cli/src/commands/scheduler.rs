//! `raftwerk scheduler start`: one replica of the scheduler.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use raftwerk_core::plan::policy::policies;
use raftwerk_scheduler::leader::Limits;
use raftwerk_scheduler::raft::{OpenError, StoreError};
use raftwerk_scheduler::{RunningScheduler, SchedulerConfig, StartError, StartMode, is_about_versions};

use super::join::{TokenFlags, peer_name};
use super::{ready, signals};
use crate::console::Console;
use crate::failure::{Exit, Failure, Outcome};
use crate::job_file;
use crate::units::{parse_address, parse_bytes, parse_duration, parse_listen};

#[derive(Subcommand, Debug)]
pub enum Scheduler {
    /// Start a scheduler replica and run it until SIGTERM or Ctrl-C
    ///
    /// The first replica of a cluster starts with --bootstrap, further ones with --join and a token. A data directory that holds a
    /// replica already continues with it, whatever of the two is given.
    Start(Box<Start>),
    /// Make a stopped replica the only one, after the majority is lost for good
    ///
    /// Without --yes it only shows what the data directory holds. Entries that were acknowledged by the lost replicas and did not reach this one
    /// are gone; of several survivors take the one with the largest (term, entry). All other replicas are out for good, all leases end, and
    /// machines join with a new token.
    Recover(Recover),
}

#[derive(Args, Debug)]
pub struct Recover {
    /// Data directory of the survivor, which must not run
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Do it
    #[arg(long)]
    yes: bool,
}

#[derive(Args, Debug)]
pub struct Start {
    /// Name of this replica, for people
    #[arg(long, value_name = "NAME", value_parser = peer_name)]
    name: String,
    /// Directory of the replica's log, state and identity; of one replica only
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Address to listen at; port 0 picks a free one. When not given, the one that the data directory keeps; in a new one 127.0.0.1:7300
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_listen)]
    listen: Option<String>,
    /// Address under which others reach this replica, when it differs from the one it listens at
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    advertise: Option<String>,
    /// Make a new cluster with this replica as its first
    #[arg(long, conflicts_with = "join")]
    bootstrap: bool,
    /// Make a new cluster that begins with this backup (see `raftwerk cluster backup`); only in a data directory that holds no
    /// replica
    ///
    /// The cluster is another one than that of the backup: machines join it with its own token, and commands need its own admin.pem. Ended jobs
    /// can be looked at and running ones go on. Results that stay on workers remain on those of the old cluster until
    /// these join the new one with `raftwerk worker start --bring-results`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["join", "bootstrap"])]
    restore: Option<PathBuf>,
    /// Addresses of replicas of the cluster to join, separated by commas
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address, value_delimiter = ',')]
    join: Vec<String>,
    #[command(flatten)]
    token: TokenFlags,
    /// A worker that has heard nothing for so long stops its leases, and its tasks run elsewhere; 10s when not given
    #[arg(long, value_name = "DURATION", value_parser = lease_ttl, hide_short_help = true)]
    lease_ttl: Option<Duration>,
    /// Refuse new jobs while the state takes more memory than this; give every scheduler the same
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "1GiB", hide_short_help = true)]
    max_state: u64,
    /// Refuse new jobs while so many have not ended
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, hide_short_help = true)]
    max_active_jobs: usize,
    /// Refuse new jobs while the disk under --data-dir has less free
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "256MiB", hide_short_help = true)]
    min_free_disk: u64,
    /// Ended jobs to keep; each is kept for at least a day
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, hide_short_help = true)]
    keep_jobs: usize,
    /// By which tasks of jobs that name no policy are placed; give every scheduler the same
    #[arg(long, value_name = "NAME", value_parser = policy_name, default_value = default_policy())]
    policy: String,
    /// End when standard input closes (for a parent process that must not leave this one behind)
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

pub fn default_policy() -> &'static str {
    policies()[0].name()
}

/// One that this build knows.
pub fn policy_name(text: &str) -> Result<String, String> {
    let known: Vec<&str> = policies().iter().map(|policy| policy.name()).collect();
    if known.contains(&text) { Ok(text.to_owned()) } else { Err(format!("there is no such policy; {}", job_file::hint(text, &known))) }
}

/// Workers are heard twice a second, and a broken connection is forgiven for a second: a lease time below would end leases of workers that are well.
const LEAST_LEASE_TTL: Duration = Duration::from_secs(1);
/// A worker that is silent for longer than a day is not coming back.
const MOST_LEASE_TTL: Duration = Duration::from_secs(24 * 3600);

fn lease_ttl(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        short if short < LEAST_LEASE_TTL => Err("a lease lasts 1s at least: workers are heard twice a second".to_owned()),
        long if long > MOST_LEASE_TTL => Err("a lease lasts 24h at most".to_owned()),
        duration => Ok(duration),
    }
}

pub async fn scheduler(console: &Console, command: Scheduler) -> Outcome {
    let args = match command {
        Scheduler::Start(args) => *args,
        Scheduler::Recover(args) => return recover(console, args).await,
    };
    let until_stdin_closes = args.until_stdin_closes;
    let name = args.name.clone();
    let bootstrap = args.bootstrap || args.restore.is_some();
    let joins = !args.join.is_empty();
    let config = config(args)?;
    end_on_panic();
    raftwerk_scheduler::keep_program_in_memory();
    let stop = signals::stop_or_stdin(until_stdin_closes);
    tokio::pin!(stop);
    let started = tokio::select! {
        started = raftwerk_scheduler::start(config) => started,
        signal = &mut stop => {
            console.note(format!("{signal}: scheduler {name} stops before it was ready"));
            return Ok(());
        }
    };
    let mut running = started.map_err(|error| refused_start(error, &name, joins))?;
    if bootstrap {
        introduce(console, &running);
    }
    ready::scheduler(console, &name, running.replica(), running.cluster(), running.address());
    let outcome = tokio::select! {
        ended = running.wait() => ended.map_err(|message| {
            let exit = if is_about_versions(&message) { Exit::Refused } else { Exit::Internal };
            Failure::say(exit, format!("scheduler {name} stopped: {message}"))
        }),
        signal = &mut stop => {
            console.note(format!("{signal}: scheduler {name} stops"));
            Ok(())
        }
    };
    running.stop().await;
    outcome
}

/// A replica in which a part has died could stay the leader and lead nothing. It ends instead, and the others take over.
fn end_on_panic() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        told(panic);
        std::process::abort();
    }));
}

fn config(args: Start) -> Result<SchedulerConfig, Failure> {
    let token = args.token.token()?;
    let mut config = SchedulerConfig::new(args.name, args.data_dir);
    config.listen = args.listen;
    config.advertise = args.advertise;
    config.limits = Limits {
        ended_jobs: args.keep_jobs,
        state_bytes: args.max_state,
        active_jobs: args.max_active_jobs,
        free_disk_bytes: args.min_free_disk,
    };
    config.policy = args.policy;
    if let Some(lease_ttl) = args.lease_ttl {
        config.lease_ttl = lease_ttl;
    }
    if let Some(file) = args.restore {
        config.start = StartMode::Restore { file };
        return Ok(config);
    }
    config.start = match (args.bootstrap, args.join.is_empty(), token) {
        (true, _, _) => StartMode::Bootstrap,
        (false, false, Some(token)) => StartMode::Join { addresses: args.join, token },
        // With a data directory that holds a replica this is enough; otherwise the start says what is missing, for `--join` the token.
        (false, _, None) => StartMode::Continue,
        (false, true, Some(_)) => {
            return Err(
                Failure::say(Exit::BadUsage, "a join token without --join").fix("add --join HOST:PORT of a scheduler of the cluster")
            );
        }
    };
    Ok(config)
}

fn exit_of(error: &StartError) -> Exit {
    match error {
        StartError::Empty(_)
        | StartError::WrongKind { .. }
        | StartError::OtherCluster { .. }
        | StartError::Listen { .. }
        | StartError::EveryAddress { .. }
        | StartError::File { .. } => Exit::BadUsage,
        StartError::Raft(OpenError::Store(StoreError::InUse { .. })) => Exit::BadUsage,
        StartError::LogLost { .. }
        | StartError::LogUnnamed { .. }
        | StartError::IdentityLost { .. }
        | StartError::IdentityDamaged { .. }
        | StartError::Leftover { .. }
        | StartError::NotEmpty { .. }
        | StartError::Backup { .. } => Exit::BadUsage,
        StartError::Join(_) | StartError::Removed(_) => Exit::Refused,
        StartError::Raft(OpenError::Recover(text)) if is_about_versions(text) => Exit::Refused,
        StartError::Unreachable(_) => Exit::ContactLost,
        _ => Exit::Internal,
    }
}

/// `joins`: it was told whom to join.
fn refused_start(error: StartError, name: &str, joins: bool) -> Failure {
    let fix = match &error {
        // With a token it would have joined.
        StartError::Empty(_) if joins => {
            "to join, it needs the cluster's token too: add --token-file FILE, a copy of `join-token` in the first scheduler's data directory"
        }
        StartError::Empty(_) => {
            "start the first replica of a cluster with --bootstrap, and a further one with --join HOST:PORT and --token-file FILE"
        }
        StartError::Listen { .. } => OTHER_LISTEN,
        StartError::Unreachable(_) => "check that the schedulers run and that --join has the addresses they listen at",
        StartError::Raft(OpenError::Store(StoreError::InUse { .. })) => "stop that process, or give this one a --data-dir of its own",
        _ => "",
    };
    let failure = Failure::new(exit_of(&error), error).context(format!("scheduler {name} cannot start"));
    if fix.is_empty() { failure } else { failure.fix(fix) }
}

/// An address that cannot be listened at is another process's, of another machine, or below the ports that everybody may have.
pub const OTHER_LISTEN: &str = "choose another with --listen; ports below 1024 need special rights, and port 0 is any that is free";

async fn recover(console: &Console, args: Recover) -> Outcome {
    let dir = args.data_dir.display();
    let done = if args.yes { raftwerk_scheduler::recover(&args.data_dir).await } else { raftwerk_scheduler::survey(&args.data_dir).await };
    let done = done.map_err(|error| {
        let empty = matches!(error, StartError::Empty(_));
        let failure = Failure::new(exit_of(&error), error).context(format!("the replica in {dir} cannot be recovered"));
        if empty { failure.fix("give the data directory of a stopped replica") } else { failure }
    })?;
    let survey = &done.survey;
    let others: Vec<u64> = survey.members.iter().map(|m| m.id).filter(|id| *id != survey.replica).collect();
    if console.is_json() {
        console.json(serde_json::json!({
            "cluster": done.cluster, "replica": survey.replica, "last_log_term": survey.last_log_term,
            "last_log_index": survey.last_log_index, "others": others, "recovered": args.yes,
        }));
    } else {
        let list = others.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        console.note(format!(
            "replica {} of cluster {}: its log ends with entry {} of term {}; other members: {}",
            survey.replica,
            done.cluster,
            survey.last_log_index,
            survey.last_log_term,
            if list.is_empty() { "none" } else { &list }
        ));
        if args.yes {
            console.note(format!(
                "it is now the only member, in a new epoch
  join token        {dir}/join-token  (new; the old one opens nothing any more)
  admin credential  {dir}/admin.pem
go on with
  raftwerk scheduler start --name NAME --data-dir {dir}
and join new replicas in empty directories. Never start the others again."
            ));
        }
    }
    if args.yes {
        return Ok(());
    }
    Err(Failure::say(Exit::BadUsage, "nothing was changed")
        .fix("when the majority is lost for good, and this survivor has the largest (term, entry) of all, run it again with --yes"))
}

/// What the person who made a cluster needs next.
fn introduce(console: &Console, running: &RunningScheduler) {
    let dir = std::path::absolute(running.data_dir()).unwrap_or_else(|_| running.data_dir().to_owned());
    let (address, dir) = (running.address(), dir.display());
    console.note(format!(
        "cluster {} is at {address}
  admin credential  {dir}/admin.pem   (owner-only; whoever holds it commands the cluster)
  join token        {dir}/join-token  (owner-only; a machine needs it once, to join)
go on with
  raftwerk context add my-cluster --address {address} --credential {dir}/admin.pem
  raftwerk worker start --join {address} --token-file {dir}/join-token --data-dir DIR
  raftwerk scheduler start --name NAME --data-dir DIR --listen HOST:PORT --join {address} --token-file {dir}/join-token",
        running.cluster()
    ));
}
