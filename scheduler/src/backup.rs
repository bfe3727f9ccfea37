//! Backup and restore, and the forced recovery of a survivor: what is done to a cluster's state outside its log.

use crate::config::{SchedulerConfig, StartError};
use crate::machine::Replicated;
use crate::raft::{Node, OpenError, StoreError, offline, read_backup, write_backup};
use crate::server::{ADMIN_FILE, FIRST_REPLICA, TOKEN_FILE, make_cluster, write_secret};
use futures::future::BoxFuture;
use raftwerk_core::State;
use raftwerk_core::apply::ENTRY_FORMAT;
use raftwerk_proto::Wire;
use raftwerk_proto::own_entry_format;
use raftwerk_proto::v1::{self as pb, EntryBody, command::Command};
use raftwerk_transport::{Authority, Identity, PeerKind};
use std::path::Path;

/// A backup is a snapshot file without a place in a log: one record with format, cluster and checksum. It holds no key, so that who reads it
/// learns of jobs but gets into no cluster.
pub(crate) fn record(state: &State) -> Vec<u8> {
    let body = pb::RaftSnapshot { meta: None, state: state.to_snapshot().into() };
    write_backup(&state.cluster, &body)
}

/// Reads a backup and checks it; what it holds, as (cluster, log index, jobs).
pub fn check_backup(file: &Path, record: &[u8]) -> Result<(String, u64, usize), String> {
    let (of, state) = read(file, record)?;
    Ok((of, state.applied_index, state.jobs.len()))
}

fn read(file: &Path, record: &[u8]) -> Result<(String, State), String> {
    let body: pb::RaftSnapshot = read_backup(record, file).map_err(|error| match error {
        // The repair that goes with it is for a replica's own files.
        StoreError::Damaged { what, .. } => format!("{what}; take another backup file"),
        StoreError::UnknownFormat { .. } => "it does not begin like one, or a newer version wrote it".to_owned(),
        other => other.to_string(),
    })?;
    let of = pb::Snapshot::from_wire(body.state.clone()).map_err(|e| e.to_string())?.cluster;
    let state = State::from_snapshot(&of, &body.state).map_err(|e| e.to_string())?;
    Ok((of, state))
}

fn entry(at_ms: u64, command: Command) -> bytes::Bytes {
    let commands = vec![pb::Command { command: Some(command) }];
    EntryBody { format: own_entry_format(ENTRY_FORMAT), at_ms, commands }.to_wire().into()
}

/// Makes a new cluster, with an authority of its own, whose state begins with that of the backup. Machines of the old one join it anew.
pub(crate) async fn restore(
    config: &SchedulerConfig,
    file: &Path,
    address: &str,
    identity_dir: &Path,
) -> Result<(Identity, Authority), StartError> {
    let wrong = |reason: String| StartError::Backup { path: file.to_path_buf(), reason };
    let bytes = std::fs::read(file).map_err(|e| wrong(e.to_string()))?;
    // Checked before anything is made, so that a wrong file leaves the directory empty.
    let (_, state) = read(file, &bytes).map_err(wrong)?;
    let (index, now) = (state.applied_index, state.now.0);
    let old = state.to_snapshot();
    let (identity, authority) = make_cluster(config, identity_dir)?;
    let state = State::from_backup(authority.cluster(), &old).map_err(|e| wrong(e.to_string()))?;
    let new_epoch = Command::NewEpoch(pb::NewEpoch { removed_replicas: Vec::new(), forget_workers: true });
    let node = Node { name: config.name.clone(), address: address.to_string() };
    let begun = (index, state.to_snapshot().into());
    offline::begin::<Replicated>(&config.data_dir, authority.cluster(), FIRST_REPLICA, node, begun, entry(now, new_epoch)).await?;
    Ok((identity, authority))
}

/// What a forced recovery did.
#[derive(Clone, Debug)]
pub struct Recovered {
    pub cluster: String,
    pub survey: offline::Survey,
}

fn identity_of(data_dir: &Path) -> Result<Identity, StartError> {
    let dir = data_dir.join("identity");
    if !Identity::exists(&dir) {
        if crate::raft::DataDir::holds_any_log(data_dir) {
            return Err(StartError::IdentityLost { path: data_dir.to_path_buf() });
        }
        return Err(StartError::Empty(data_dir.to_path_buf()));
    }
    let identity = Identity::load(&dir).map_err(|source| StartError::Identity { path: dir, source })?;
    if identity.peer().kind != PeerKind::Scheduler {
        return Err(StartError::WrongKind { path: data_dir.to_path_buf(), found: identity.peer().to_string() });
    }
    Ok(identity)
}

fn must_hold_log(data_dir: &Path, identity: &Identity) -> Result<(), StartError> {
    match crate::raft::DataDir::holds_log(data_dir) {
        true => Ok(()),
        false => Err(StartError::LogLost { path: data_dir.to_path_buf(), replica: identity.peer().id }),
    }
}

/// What a stopped replica's data directory holds.
pub fn survey(data_dir: &Path) -> BoxFuture<'_, Result<Recovered, StartError>> {
    Box::pin(survey_stopped(data_dir))
}

async fn survey_stopped(data_dir: &Path) -> Result<Recovered, StartError> {
    raftwerk_transport::install_crypto();
    let identity = identity_of(data_dir)?;
    must_hold_log(data_dir, &identity)?;
    let survey = offline::survey::<Replicated>(data_dir, identity.cluster(), identity.peer().id).await?;
    Ok(Recovered { cluster: identity.cluster().to_string(), survey })
}

/// Makes the stopped replica in `data_dir` the only member of its cluster, in a new epoch, with a new join token, and with an admin
/// credential if it has none. All other replicas are out for good.
pub fn recover(data_dir: &Path) -> BoxFuture<'_, Result<Recovered, StartError>> {
    Box::pin(recover_stopped(data_dir))
}

async fn recover_stopped(data_dir: &Path) -> Result<Recovered, StartError> {
    raftwerk_transport::install_crypto();
    let identity = identity_of(data_dir)?;
    must_hold_log(data_dir, &identity)?;
    let dir = data_dir.join("identity");
    let wrong = |source| StartError::Identity { path: dir.clone(), source };
    let authority = Authority::load(&dir).map_err(wrong)?;
    let (cluster, id) = (identity.cluster().to_string(), identity.peer().id);
    let survey = offline::recover::<Replicated>(data_dir, &cluster, id, |others| {
        let new_epoch = pb::NewEpoch { removed_replicas: others.to_vec(), forget_workers: false };
        entry(0, Command::NewEpoch(new_epoch)) // at no time of its own: the state's clock stays where it is
    })
    .await?;
    let (authority, token) = authority.with_new_token().map_err(wrong)?;
    authority.save(&dir).map_err(wrong)?;
    let token_file = data_dir.join(TOKEN_FILE);
    write_secret(&token_file, &format!("{token}\n")).map_err(|source| StartError::File { path: token_file, source })?;
    let admin_file = data_dir.join(ADMIN_FILE);
    if !admin_file.exists() {
        let admin = authority.issue(PeerKind::Client, 0, "admin").map_err(wrong)?;
        admin.save_pem_bundle(&admin_file).map_err(|source| StartError::Identity { path: admin_file, source })?;
    }
    Ok(Recovered { cluster, survey })
}

impl From<crate::raft::StoreError> for StartError {
    fn from(e: crate::raft::StoreError) -> Self {
        StartError::Raft(OpenError::Store(e))
    }
}
