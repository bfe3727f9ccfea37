//! Files that a client has brought for a job. They lie in the data directories of workers and are read there like any file.
//!
//! ```text
//! store     what lies here, until nobody needs it          receive  one upload on its way here, checked and flushed
//! service   what clients and other workers ask              bring    from another worker, for a task that reads it here
//! listing   which files those are, for a submit
//! ```
//! A job names them `upload:<id>/<name>`; whoever opens one does so under its place here, and kernels and people see the name.
mod bring;
mod listing;
mod receive;
pub(crate) mod service;
pub(crate) mod store;

use super::{edge::EdgeInput, room::Room};
use crate::session::Input;
use raftwerk_transport::Identity;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use store::UploadStore;
use tokio::sync::mpsc;

/// What a worker has to do with uploads.
pub(crate) struct Uploads {
    pub(crate) store: Arc<UploadStore>,
    room: Arc<Room>,
    identity: Identity,
    edge: mpsc::UnboundedSender<EdgeInput>,
    /// One transfer at a time for each upload: whoever comes later waits for it.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Uploads {
    pub(crate) fn new(store: Arc<UploadStore>, room: Arc<Room>, identity: Identity, edge: mpsc::UnboundedSender<EdgeInput>) -> Self {
        Self { store, room, identity, edge, turns: Mutex::default() }
    }

    /// Nobody needs these any more, as the leader says.
    pub(crate) fn release(&self, ids: &[String]) {
        if self.store.release(ids) {
            self.tell();
        }
    }

    /// What is held has changed: the scheduler hears of it at once, because a job that reads it may be on its way there.
    fn tell(&self) {
        let _ = self.edge.send(EdgeInput::Session(Input::Uploads(self.store.ids())));
    }
}
