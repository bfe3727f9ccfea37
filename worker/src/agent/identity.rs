//! Who this worker is: read from its data directory, or got from the cluster by a join token at the first start.
use super::data_dir::{DataDir, IDENTITY};
use raftwerk_proto::{
    Window, own_versions,
    v1::{JoinRequest, join_client::JoinClient},
};
use raftwerk_transport::{
    CALL_DEADLINE, ConnectError, Identity, IdentityError, JoinToken, PeerKind, PendingIdentity, connect_to_join, plain_error, plain_status,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

/// Between rounds over all addresses while no scheduler answers.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("{} holds no identity and no join token was given; pass --token-file with the file `join-token` that the first scheduler wrote into its data directory", .0.display())]
    NoToken(PathBuf),
    #[error("the identity in {} cannot be used", path.display())]
    Identity { path: PathBuf, source: IdentityError },
    #[error("{} holds the identity of a worker of cluster {cluster}, and the join token is of another cluster; use another data directory, or leave the token away", path.display())]
    HeldByOther { path: PathBuf, cluster: String },
    #[error("{} holds the identity of a {kind}, not of a worker; use another data directory", path.display())]
    NotAWorker { path: PathBuf, kind: PeerKind },
    #[error("the join token is of another cluster than the schedulers at {addresses}; use the token of this cluster")]
    OtherCluster { addresses: String },
    #[error("the cluster does not accept the join token: {reason}; ask for the current one")]
    Refused { reason: String },
    #[error("the answer of the scheduler cannot be used")]
    Answer { source: IdentityError },
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
) -> Result<Identity, JoinError> {
    let path = dir.identity();
    if Identity::exists(&path) {
        nobody_elses(dir.path())?;
        let identity = Identity::load(&path).map_err(|source| JoinError::Identity { path: path.clone(), source })?;
        if token.is_some_and(|token| token.ca_sha256 != identity.ca_sha256()) {
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

async fn join(name: &str, schedulers: &[String], token: &JoinToken) -> Result<(Identity, Vec<String>), JoinError> {
    let mut pause = PAUSE_MIN;
    let mut told: BTreeMap<&str, String> = BTreeMap::new();
    tracing::info!("joining the cluster through {}", schedulers.join(", "));
    loop {
        let mut elsewhere = 0;
        for address in schedulers {
            match try_join(name, address, token).await {
                Ok(joined) => return Ok(joined),
                Err(Attempt::Final(error)) => return Err(error),
                Err(Attempt::OtherCluster) => elsewhere += 1,
                // Said at once, and again when the reason changes: a mistyped address would otherwise look like a hang.
                Err(Attempt::Later(reason)) => {
                    if told.get(address.as_str()) != Some(&reason) {
                        let named = if reason.contains(address.as_str()) { reason.clone() } else { format!("{address}: {reason}") };
                        tracing::warn!("cannot join yet: {named}; trying on until a scheduler answers, or this process is stopped");
                    }
                    told.insert(address, reason);
                }
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
    OtherCluster,
    Final(JoinError),
}

async fn try_join(name: &str, address: &str, token: &JoinToken) -> Result<(Identity, Vec<String>), Attempt> {
    let channel = connect_to_join(address, token).await.map_err(|error| match error {
        ConnectError::WrongAuthority { .. } => Attempt::OtherCluster,
        ConnectError::BadAddress { .. } | ConnectError::WrongKind { .. } => {
            Attempt::Final(JoinError::Address { reason: plain_error(&error) })
        }
        error => Attempt::Later(plain_error(&error)),
    })?;
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
        _ => Attempt::Later(plain_status(&status)),
    })?;
    let reply = reply.into_inner();
    let identity = pending
        .complete(&reply.cluster, &reply.certificate_der, &reply.ca_certificate_der)
        .map_err(|source| Attempt::Final(JoinError::Answer { source }))?;
    Ok((identity, reply.scheduler_addresses))
}
