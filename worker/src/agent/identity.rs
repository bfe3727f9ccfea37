//! Who this worker is: read from its data directory, or got from the cluster by a join token at the first start.
use super::{
    data_dir::{DataDir, IDENTITY},
    results::brought,
};
use raftwerk_proto::{
    Window, own_versions,
    v1::{JoinRequest, join_client::JoinClient},
};
use raftwerk_transport::{
    CALL_DEADLINE, ConnectError, Identity, IdentityError, JoinToken, PeerKind, PendingIdentity, Reached, connect_to_join, first_of,
    plain_error, plain_status,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};
use tonic::transport::Channel;

/// Between rounds over all addresses while no scheduler answers.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Where a replica that does not lead says who does; the schedulers write it.
const LEADER_KEY: &str = "raftwerk-leader";

#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("{} holds no identity and no join token was given; pass --token-file with the file `join-token` that the first scheduler wrote into its data directory", .0.display())]
    NoToken(PathBuf),
    #[error("the identity in {} cannot be used", path.display())]
    Identity { path: PathBuf, source: IdentityError },
    #[error("{} holds the identity of a worker of cluster {cluster}, and the join token is of another cluster; use another data directory, or leave the token away; to bring its results into a cluster that was restored from a backup, add --bring-results", path.display())]
    HeldByOther { path: PathBuf, cluster: String },
    #[error("{} holds the identity of a {kind}, not of a worker; use another data directory", path.display())]
    NotAWorker { path: PathBuf, kind: PeerKind },
    #[error("the join token is of another cluster than the schedulers at {addresses}; use the token of this cluster")]
    OtherCluster { addresses: String },
    #[error("the cluster does not accept the join token: {reason}; ask for the current one")]
    Refused { reason: String },
    #[error("the answer of the scheduler cannot be used")]
    Answer { source: IdentityError },
    #[error("cannot make {} the data directory of a worker of another cluster than {cluster}", path.display())]
    Change { path: PathBuf, cluster: String, source: std::io::Error },
    #[error("{reason}")]
    Address { reason: String },
}

/// Refuses the directory of another kind of peer, which must not even get a lock file from a worker.
pub(crate) fn nobody_elses(data_dir: &Path) -> Result<(), JoinError> {
    let path = data_dir.join(IDENTITY);
    match Identity::load(&path).map(|identity| identity.peer().kind) {
        Ok(kind) if kind != PeerKind::Worker => Err(JoinError::NotAWorker { path, kind }),
        // One that cannot be read is said later, with the reason.
        _ => Ok(()),
    }
}

/// Tries for ever while the cluster is away; every error is final.
pub(crate) async fn load_or_join(
    dir: &DataDir,
    name: &str,
    schedulers: &[String],
    token: Option<&JoinToken>,
    bring_results: bool,
) -> Result<Identity, JoinError> {
    let path = dir.identity();
    if Identity::exists(&path) {
        nobody_elses(dir.path())?;
        let identity = Identity::load(&path).map_err(|source| JoinError::Identity { path: path.clone(), source })?;
        if let Some(token) = token.filter(|token| token.ca_sha256 != identity.ca_sha256()) {
            if bring_results {
                return change_cluster(dir, name, schedulers, token, &identity).await;
            }
            return Err(JoinError::HeldByOther { path: dir.path().to_owned(), cluster: identity.cluster().to_owned() });
        }
        return Ok(identity);
    }
    let token = token.ok_or_else(|| JoinError::NoToken(dir.path().to_owned()))?;
    let (identity, known) = join(name, schedulers, token).await?;
    if let Err(error) = dir.remember_schedulers(&known) {
        tracing::warn!(%error, "cannot note the addresses of the schedulers");
    }
    identity.save(&path).map_err(|source| JoinError::Identity { path, source })?;
    Ok(identity)
}

/// Joins another cluster with the data directory of this one. Nothing is touched before that cluster has taken this worker in; then each step may be
/// the last one of a process that dies: the next one goes on, with `--bring-results` or, when the old identity has gone, without.
async fn change_cluster(
    dir: &DataDir,
    name: &str,
    schedulers: &[String],
    token: &JoinToken,
    old: &Identity,
) -> Result<Identity, JoinError> {
    let (identity, known) = join(name, schedulers, token).await?;
    let failed = |source: std::io::Error| JoinError::Change { path: dir.path().to_owned(), cluster: old.cluster().to_owned(), source };
    brought::put_aside(dir.path(), old.cluster()).map_err(failed)?;
    dir.remember_schedulers(&known).map_err(failed)?;
    std::fs::remove_dir_all(dir.identity()).map_err(failed)?;
    let path = dir.identity();
    identity.save(&path).map_err(|source| JoinError::Identity { path, source })?;
    tracing::info!(
        old = old.cluster(),
        new = identity.cluster(),
        "this worker has changed the cluster, and brings what it kept of results"
    );
    Ok(identity)
}

async fn join(name: &str, schedulers: &[String], token: &JoinToken) -> Result<(Identity, Vec<String>), JoinError> {
    let mut pause = PAUSE_MIN;
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    tracing::info!("joining the cluster through {}", schedulers.join(", "));
    loop {
        let mut elsewhere = 0;
        let mut left: Vec<String> = schedulers.to_vec();
        let mut asked: BTreeSet<String> = BTreeSet::new();
        let mut leader: Option<String> = None;
        while leader.is_some() || !left.is_empty() {
            let now = leader.take().map_or_else(|| left.clone(), |leader| vec![leader]);
            for (address, outcome) in ask_one(name, &now, token).await {
                left.retain(|other| *other != address);
                let given = schedulers.contains(&address);
                asked.insert(address.clone());
                let reason = match outcome {
                    Ok(joined) => return Ok(joined),
                    // Being sent on to the leader is the way in, not a failure; unless it has just been asked.
                    Err(Attempt::NotLeader { leader: at, .. }) if !asked.contains(&at) => {
                        leader = Some(at);
                        continue;
                    }
                    Err(Attempt::OtherCluster) if given => {
                        elsewhere += 1;
                        continue;
                    }
                    // An address that nobody typed is nobody's mistake: the next election may change it.
                    Err(Attempt::OtherCluster) => "a scheduler of another cluster is there".to_owned(),
                    Err(Attempt::Final(JoinError::Address { reason })) if !given => reason,
                    Err(Attempt::Final(error)) => return Err(error),
                    Err(Attempt::NotLeader { reason, .. } | Attempt::Later(reason)) => reason,
                };
                // Said at once, and again when the reason changes: a mistyped address would otherwise look like a hang.
                if told.get(&address) != Some(&reason) {
                    let named = if reason.contains(&address) { reason.clone() } else { format!("{address}: {reason}") };
                    tracing::warn!("cannot join yet: {named}; trying on until a scheduler answers, or this process is stopped");
                }
                told.insert(address, reason);
            }
        }
        if elsewhere == schedulers.len() {
            return Err(JoinError::OtherCluster { addresses: schedulers.join(", ") });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

enum Attempt {
    Later(String),
    /// It said who leads.
    NotLeader {
        leader: String,
        reason: String,
    },
    OtherCluster,
    Final(JoinError),
}

type Joined = (Identity, Vec<String>);

/// Asks the first of these that answers, and says what became of it and of those that failed before; the others are as they were.
async fn ask_one(name: &str, addresses: &[String], token: &JoinToken) -> Vec<(String, Result<Joined, Attempt>)> {
    let dial = |address: &String| {
        let (address, token) = (address.clone(), token.clone());
        async move { connect_to_join(&address, &token).await }
    };
    let (failed, reached) = match first_of(addresses.iter().map(dial).collect::<Vec<_>>()).await {
        Ok(Reached { place, value, failed }) => (failed, Some((place, value))),
        Err(failed) => (failed, None),
    };
    let attempt = |error: ConnectError| match error {
        ConnectError::WrongAuthority { .. } => Attempt::OtherCluster,
        ConnectError::BadAddress { .. } | ConnectError::WrongKind { .. } => {
            Attempt::Final(JoinError::Address { reason: plain_error(&error) })
        }
        error => Attempt::Later(plain_error(&error)),
    };
    let mut said: Vec<(String, Result<Joined, Attempt>)> =
        failed.into_iter().map(|(place, error)| (addresses[place].clone(), Err(attempt(error)))).collect();
    if let Some((place, channel)) = reached {
        // First: what is wrong with another address does not matter any more.
        said.insert(0, (addresses[place].clone(), try_join(name, channel, token).await));
    }
    said
}

async fn try_join(name: &str, channel: Channel, token: &JoinToken) -> Result<Joined, Attempt> {
    let pending = PendingIdentity::new().map_err(|source| Attempt::Final(JoinError::Answer { source }))?;
    let request = JoinRequest {
        protocol_version: Window::own().oldest,
        kind: PeerKind::Worker.as_str().into(),
        name: name.into(),
        address: String::new(),
        token_secret: token.secret.clone(),
        certificate_request_der: pending.request_der().into(),
        versions: own_versions(0),
    };
    let mut client = JoinClient::new(channel);
    let call = tokio::time::timeout(CALL_DEADLINE, client.join(request));
    let reply = call.await.map_err(|_| Attempt::Later("no answer in time".into()))?.map_err(|status| match status.code() {
        tonic::Code::PermissionDenied | tonic::Code::Unauthenticated | tonic::Code::InvalidArgument | tonic::Code::AlreadyExists => {
            Attempt::Final(JoinError::Refused { reason: status.message().to_owned() })
        }
        _ => match status.metadata().get(LEADER_KEY).and_then(|leader| leader.to_str().ok()).filter(|leader| !leader.is_empty()) {
            Some(leader) => Attempt::NotLeader { leader: leader.to_owned(), reason: plain_status(&status) },
            None => Attempt::Later(plain_status(&status)),
        },
    })?;
    let reply = reply.into_inner();
    let identity = pending
        .complete(&reply.cluster, &reply.certificate_der, &reply.ca_certificate_der)
        .map_err(|source| Attempt::Final(JoinError::Answer { source }))?;
    Ok((identity, reply.scheduler_addresses))
}
