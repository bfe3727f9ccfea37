//! Kinds of peers, and the caller of a request.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use tonic::{Request, Status};

/// What a process is to the cluster. `Anonymous` holds no certificate and may only ask to join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeerKind {
    Scheduler,
    Worker,
    Client,
    Anonymous,
}

impl PeerKind {
    pub fn as_str(self) -> &'static str {
        match self {
            PeerKind::Scheduler => "scheduler",
            PeerKind::Worker => "worker",
            PeerKind::Client => "client",
            PeerKind::Anonymous => "anonymous",
        }
    }
}

impl fmt::Display for PeerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no kind of peer; the kinds are scheduler, worker, client and anonymous")]
pub struct UnknownPeerKind(pub String);

impl FromStr for PeerKind {
    type Err = UnknownPeerKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [PeerKind::Scheduler, PeerKind::Worker, PeerKind::Client, PeerKind::Anonymous]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownPeerKind(text.to_owned()))
    }
}

/// Who is at the other end of a channel, as its certificate says. `id` is 0 for an anonymous peer and for the admin client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub kind: PeerKind,
    pub id: u64,
    pub name: String,
}

impl Peer {
    pub fn anonymous() -> Peer {
        Peer { kind: PeerKind::Anonymous, id: 0, name: String::new() }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.name.as_str()) {
            (PeerKind::Anonymous, _) => write!(f, "a peer without a certificate"),
            (kind, "") => write!(f, "{kind} {}", self.id),
            (kind, name) => write!(f, "{kind} {} ({name})", self.id),
        }
    }
}

/// What the listener knows about a connection; every request on it carries this in its extensions.
#[derive(Debug, Clone)]
pub struct Caller {
    pub peer: Arc<Peer>,
    pub address: Option<SocketAddr>,
}

/// The caller of `request`, if its kind is among `allowed`; otherwise `PERMISSION_DENIED`, naming both.
///
/// The peer comes from the certificate of the channel. A request that did not come through [`incoming`](crate::incoming) counts as anonymous, so
/// that a service which is one day mounted elsewhere by mistake refuses instead of trusting.
pub fn require<T>(request: &Request<T>, allowed: &[PeerKind]) -> Result<Peer, Status> {
    let peer = request.extensions().get::<Caller>().map_or_else(Peer::anonymous, |caller| Peer::clone(&caller.peer));
    if allowed.contains(&peer.kind) {
        return Ok(peer);
    }
    let allowed = allowed.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" or ");
    Err(Status::permission_denied(format!("this call is for a {allowed}; the caller is {peer}")))
}

/// Where the caller connects from, for log lines. tonic's own `remote_addr` knows only plain TCP.
pub fn caller_address<T>(request: &Request<T>) -> Option<SocketAddr> {
    request.extensions().get::<Caller>().and_then(|caller| caller.address)
}

/// A request as `peer` would send it, for calling a handler within the process (and in its tests) without a channel.
pub fn called_by<T>(peer: Peer, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller { peer: Arc::new(peer), address: None });
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_reads_back_as_it_is_written() {
        for kind in [PeerKind::Scheduler, PeerKind::Worker, PeerKind::Client, PeerKind::Anonymous] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!("Worker".parse::<PeerKind>(), Err(UnknownPeerKind("Worker".into())));
    }

    #[test]
    fn a_request_from_no_listener_of_ours_is_anonymous() {
        let request = Request::new(());
        assert_eq!(require(&request, &[PeerKind::Anonymous]).unwrap(), Peer::anonymous());
        let refusal = require(&request, &[PeerKind::Scheduler, PeerKind::Worker]).unwrap_err();
        assert_eq!(refusal.code(), tonic::Code::PermissionDenied);
        assert_eq!(refusal.message(), "this call is for a scheduler or worker; the caller is a peer without a certificate");
    }

    #[test]
    fn a_refusal_names_the_caller() {
        let worker = Peer { kind: PeerKind::Worker, id: 7, name: "attic".into() };
        let refusal = require(&called_by(worker, ()), &[PeerKind::Client]).unwrap_err();
        assert_eq!(refusal.message(), "this call is for a client; the caller is worker 7 (attic)");
    }
}
