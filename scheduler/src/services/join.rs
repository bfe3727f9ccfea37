//! Joining: a token buys a certificate. The only service for peers without one.

use super::not_leader;
use crate::edge::Shared;
use crate::leader::{Answer, Input};
use crate::versions::{cannot_read, strangers};
use raftwerk_proto::Window;
use raftwerk_proto::v1::join_server::Join;
use raftwerk_proto::v1::{JoinReply, JoinRequest, Versions};
use raftwerk_transport::{Authority, PeerKind, require};
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub(crate) struct JoinService {
    pub(crate) shared: Arc<Shared>,
    pub(crate) authority: Arc<Authority>,
}

#[tonic::async_trait]
impl Join for JoinService {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        // Anybody may knock; the token decides.
        require(&request, &[PeerKind::Anonymous, PeerKind::Scheduler, PeerKind::Worker, PeerKind::Client])?;
        let join = request.into_inner();
        if !self.authority.token_matches(&join.token_secret) {
            tracing::warn!(kind = join.kind, name = join.name, "a join with a wrong token was refused");
            return Err(Status::permission_denied(
                "the join token is wrong; use the one in the file join-token of the first scheduler's data directory, or, after a forced recovery, of the recovered scheduler's",
            ));
        }
        // "Invalid argument" is final also for machines of the former release.
        let said = join.versions.as_ref();
        let (own, theirs) = (Window::own(), Window::of(said, join.protocol_version));
        if own.shared(theirs).is_none() {
            return Err(Status::invalid_argument(strangers("the joining machine", own, theirs)));
        }
        let kind = match join.kind.as_str() {
            "worker" => PeerKind::Worker,
            "scheduler" => PeerKind::Scheduler,
            other => return Err(Status::invalid_argument(format!("'{other}' cannot join; only a worker or a scheduler can"))),
        };
        let needed = self.shared.replica.needed_format();
        if kind == PeerKind::Scheduler && Versions::reads(said) < needed {
            return Err(Status::invalid_argument(cannot_read(needed, said)));
        }
        let (asked_kind, name) = (join.kind.clone(), join.name.clone());
        let answer = self.shared.ask(|request| Input::Mint { request, kind: asked_kind, name });
        let Some(Answer::Minted(id)) = answer.await else { return Err(not_leader(&self.shared)) };
        let certificate = self
            .authority
            .sign(&join.certificate_request_der, kind, id, &join.name)
            .map_err(|e| Status::invalid_argument(format!("the certificate request cannot be signed: {e}")))?;
        let scheduler = kind == PeerKind::Scheduler;
        Ok(Response::new(JoinReply {
            cluster: self.authority.cluster().to_string(),
            id,
            certificate_der: certificate.into(),
            ca_certificate_der: self.authority.ca_certificate_der().to_vec().into(),
            scheduler_addresses: self.shared.replica.status().members.into_iter().map(|m| m.address).collect(),
            ca_key_pkcs8_der: if scheduler { self.authority.ca_key_pkcs8_der().to_vec().into() } else { bytes::Bytes::new() },
            token_sha256: if scheduler { self.authority.token_sha256().to_string() } else { String::new() },
        }))
    }
}
