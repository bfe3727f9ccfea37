//! Who may talk to whom, over real connections on loopback.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use raftwerk_transport::{
    Authority, ConnectError, Identity, JoinToken, Peer, PeerKind, caller_address, connect, connect_lazy, connect_to_join, incoming,
    require, server,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const EVERY_MEMBER: &[PeerKind] = &[PeerKind::Scheduler, PeerKind::Worker, PeerKind::Client];

/// A gRPC server with one service (health), open to `allowed`, that notes who called.
struct Server {
    address: String,
    callers: Arc<Mutex<Vec<Peer>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(identity: &Identity, allowed: &'static [PeerKind]) -> Server {
        Server::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), identity, allowed)
    }

    fn start_on(listener: TcpListener, identity: &Identity, allowed: &'static [PeerKind]) -> Server {
        let address = listener.local_addr().unwrap().to_string();
        let callers = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&callers);
        let note_caller = move |request: Request<()>| {
            assert!(caller_address(&request).is_some_and(|address| address.ip().is_loopback()));
            seen.lock().unwrap().push(require(&request, allowed)?);
            Ok(request)
        };
        let (_, health) = tonic_health::server::health_reporter();
        let serving = server().add_service(InterceptedService::new(health, note_caller)).serve_with_incoming(incoming(listener, identity));
        Server { address, callers, task: tokio::spawn(async move { serving.await.unwrap() }) }
    }

    fn last_caller(&self) -> Peer {
        self.callers.lock().unwrap().last().cloned().expect("nobody has called")
    }
}

async fn call(channel: Channel) -> Result<(), Status> {
    HealthClient::new(channel).check(HealthCheckRequest { service: String::new() }).await.map(drop)
}

fn cluster(name: &str) -> (Authority, JoinToken) {
    Authority::create(name).unwrap()
}

fn scheduler(authority: &Authority) -> Identity {
    authority.issue(PeerKind::Scheduler, 1, "s1").unwrap()
}

fn worker(authority: &Authority) -> Identity {
    authority.issue(PeerKind::Worker, 7, "attic").unwrap()
}

#[tokio::test]
async fn each_side_knows_who_the_other_is() {
    let (ours, _) = cluster("ours");
    let (scheduler, worker) = (scheduler(&ours), worker(&ours));
    let admin = ours.issue(PeerKind::Client, 0, "admin").unwrap();

    let server = Server::start(&scheduler, EVERY_MEMBER).await;
    for caller in [&scheduler, &worker, &admin] {
        call(connect(&server.address, caller, PeerKind::Scheduler).await.unwrap()).await.unwrap();
        assert_eq!(server.last_caller(), *caller.peer());
    }

    let server = Server::start(&worker, EVERY_MEMBER).await;
    call(connect_lazy(&server.address, &scheduler, PeerKind::Worker).unwrap()).await.unwrap();
    assert_eq!(server.last_caller(), *scheduler.peer());
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_anonymous() {
    let (ours, token) = cluster("ours");
    let open = Server::start(&scheduler(&ours), &[PeerKind::Anonymous]).await;
    call(connect_to_join(&open.address, &token).await.unwrap()).await.unwrap();
    assert_eq!(open.last_caller(), Peer::anonymous());

    let closed = Server::start(&scheduler(&ours), EVERY_MEMBER).await;
    let refusal = call(connect_to_join(&closed.address, &token).await.unwrap()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied);
    assert_eq!(refusal.message(), "this call is for a scheduler or worker or client; the caller is a peer without a certificate");
}

#[tokio::test]
async fn a_call_for_another_kind_is_refused() {
    let (ours, _) = cluster("ours");
    let server = Server::start(&scheduler(&ours), &[PeerKind::Client]).await;
    let refusal = call(connect(&server.address, &worker(&ours), PeerKind::Scheduler).await.unwrap()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied);
    assert_eq!(refusal.message(), "this call is for a client; the caller is worker 7 (attic)");
}

#[tokio::test]
async fn a_server_of_another_kind_is_not_spoken_to() {
    let (ours, token) = cluster("ours");
    let server = Server::start(&worker(&ours), EVERY_MEMBER).await;
    for result in [connect(&server.address, &scheduler(&ours), PeerKind::Scheduler).await, connect_to_join(&server.address, &token).await] {
        match result.unwrap_err() {
            ConnectError::WrongKind { address, expected: PeerKind::Scheduler, found: PeerKind::Worker } => {
                assert_eq!(address, server.address)
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_server_of_another_cluster_is_recognised() {
    // Of the same name, so that only the keys differ, and of another name.
    for name in ["ours", "theirs"] {
        let ((ours, token), (theirs, _)) = (cluster("ours"), cluster(name));
        let server = Server::start(&scheduler(&theirs), EVERY_MEMBER).await;
        let error = connect(&server.address, &worker(&ours), PeerKind::Scheduler).await.unwrap_err();
        assert!(matches!(&error, ConnectError::WrongAuthority { address } if *address == server.address), "{error:?}");
        let error = connect_to_join(&server.address, &token).await.unwrap_err();
        assert!(matches!(&error, ConnectError::WrongAuthority { address } if *address == server.address), "{error:?}");

        let status = call(connect_lazy(&server.address, &worker(&ours), PeerKind::Scheduler).unwrap()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(matches!(ConnectError::find(&status), Some(ConnectError::WrongAuthority { .. })), "{status:?}");
    }
}

/// A server that shows a certificate of `shown` but accepts only clients of `trusted`.
async fn server_of_two_minds(shown: &Identity, trusted: &Authority) -> SocketAddr {
    let bundle = shown.to_pem_bundle();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(trusted.ca_certificate_der().to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(
            CertificateDer::pem_slice_iter(bundle.as_bytes()).map(Result::unwrap).collect(),
            PrivateKeyDer::from_pem_slice(bundle.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let _ = acceptor.accept(tcp).await;
        }
    });
    address
}

#[tokio::test]
async fn a_server_that_refuses_our_certificate_is_recognised_before_the_first_call() {
    let ((ours, _), (theirs, _)) = (cluster("ours"), cluster("theirs"));
    let address = server_of_two_minds(&scheduler(&ours), &theirs).await;
    let error = connect(&address.to_string(), &worker(&ours), PeerKind::Scheduler).await.unwrap_err();
    assert!(matches!(error, ConnectError::RefusedByPeer { .. }), "{error:?}");
}

#[tokio::test]
async fn a_refused_port_is_unreachable() {
    let (ours, token) = cluster("ours");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let refused = |error: &ConnectError| match error {
        ConnectError::Unreachable { address: found, source } => *found == address && source.kind() == std::io::ErrorKind::ConnectionRefused,
        _ => false,
    };
    let error = connect(&address, &worker(&ours), PeerKind::Scheduler).await.unwrap_err();
    assert!(refused(&error), "{error:?}");
    assert!(refused(&connect_to_join(&address, &token).await.unwrap_err()));
    let status = call(connect_lazy(&address, &worker(&ours), PeerKind::Scheduler).unwrap()).await.unwrap_err();
    assert!(ConnectError::find(&status).is_some_and(refused), "{status:?}");
    assert!(status.message().contains(&address), "{status:?}");
}

#[tokio::test]
async fn something_that_speaks_no_tls_is_unreachable() {
    let (ours, _) = cluster("ours");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let _ = tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    match connect(&address, &worker(&ours), PeerKind::Scheduler).await.unwrap_err() {
        ConnectError::Unreachable { source, .. } => assert_eq!(source.to_string(), "what answers there does not speak TLS"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_peer_that_never_answers_is_given_up() {
    let (ours, _) = cluster("ours");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap(); // the kernel accepts, nobody else does
    let address = listener.local_addr().unwrap().to_string();
    match connect(&address, &worker(&ours), PeerKind::Scheduler).await.unwrap_err() {
        ConnectError::Unreachable { source, .. } => assert_eq!(source.to_string(), "connected, but no TLS handshake within 5 s"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_address_that_is_none_is_refused_with_the_reason() {
    let (ours, _) = cluster("ours");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _guard = runtime.enter();
    for (address, expected) in [
        ("scheduler", "it has no port; write host:port"),
        (":7070", "it has no host; write host:port"),
        ("https://scheduler:7070", "leave off the part up to `://`; all connections use TLS"),
        ("scheduler:70707", "the port is not a number from 1 to 65535"),
        ("scheduler:0", "the port is not a number from 1 to 65535"),
        ("::1:7070", "an IPv6 address stands in brackets, as in [::1]:7070"),
        ("a b:7070", "it has characters that no host name has"),
        ("a/b:7070", "it has characters that no host name has"),
        ("me@scheduler:7070", "it has characters that no host name has"),
    ] {
        match connect_lazy(address, &worker(&ours), PeerKind::Scheduler) {
            Err(ConnectError::BadAddress { reason, .. }) => assert_eq!(reason, expected, "{address}"),
            other => panic!("{address}: {other:?}"),
        }
    }
    for address in ["scheduler:7070", "[::1]:7070", "127.0.0.1:1"] {
        connect_lazy(address, &worker(&ours), PeerKind::Scheduler).unwrap();
    }
}

#[tokio::test]
async fn strangers_do_not_stop_the_listener() {
    let ((ours, _), (theirs, _)) = (cluster("ours"), cluster("theirs"));
    let server = Server::start(&scheduler(&ours), EVERY_MEMBER).await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0; 4096], b"\x16\x03\x01\xff\xff", b""] {
        let mut tcp = TcpStream::connect(&server.address).await.unwrap();
        tcp.write_all(garbage).await.unwrap();
        tcp.shutdown().await.unwrap();
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    }
    connect(&server.address, &worker(&theirs), PeerKind::Scheduler).await.unwrap_err();
    call(connect(&server.address, &worker(&ours), PeerKind::Scheduler).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn unfinished_handshakes_hold_up_nobody() {
    let (ours, _) = cluster("ours");
    let server = Server::start(&scheduler(&ours), EVERY_MEMBER).await;
    let mut silent = Vec::new();
    for _ in 0..32 {
        silent.push(TcpStream::connect(&server.address).await.unwrap());
    }
    let channel = tokio::time::timeout(Duration::from_secs(5), connect(&server.address, &worker(&ours), PeerKind::Scheduler)).await;
    call(channel.expect("the listener waits for a silent client").unwrap()).await.unwrap();

    // And in the end the listener gives them up.
    let closed = tokio::time::timeout(Duration::from_secs(20), silent[0].read(&mut [0])).await;
    assert_eq!(closed.expect("a silent client is kept for ever").unwrap(), 0);
}

#[tokio::test]
async fn a_client_of_plain_http2_gets_nowhere() {
    let (ours, _) = cluster("ours");
    let server = Server::start(&scheduler(&ours), &[PeerKind::Anonymous]).await;
    let plain = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address)).unwrap().connect_lazy();
    assert!(call(plain).await.is_err());
    assert!(server.callers.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_port_is_free_as_soon_as_the_server_is_gone() {
    let (ours, _) = cluster("ours");
    let first = Server::start(&scheduler(&ours), EVERY_MEMBER).await;
    let address = first.address.clone();
    first.task.abort();
    while !first.task.is_finished() {
        tokio::task::yield_now().await;
    }
    let second = Server::start_on(TcpListener::bind(&address).await.unwrap(), &scheduler(&ours), EVERY_MEMBER);
    call(connect(&address, &worker(&ours), PeerKind::Scheduler).await.unwrap()).await.unwrap();
    assert_eq!(second.last_caller(), *worker(&ours).peer());
}

/// Forwards connections to `target`; each one is cut when `cut` is notified.
async fn cuttable_link(target: String, cut: Arc<tokio::sync::Notify>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = TcpStream::connect(&target).await.unwrap();
            let cut = Arc::clone(&cut);
            tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = cut.notified() => {}
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_channel_that_was_cut_connects_anew_as_the_same_peer() {
    let (ours, _) = cluster("ours");
    let server = Server::start(&scheduler(&ours), EVERY_MEMBER).await;
    let cut = Arc::new(tokio::sync::Notify::new());
    let link = cuttable_link(server.address.clone(), Arc::clone(&cut)).await;
    let channel = connect(&link, &worker(&ours), PeerKind::Scheduler).await.unwrap();
    for round in 0..3 {
        // The call that meets the cut fails; the next one goes over a resumed session, which must still name its peer.
        let mut result = call(channel.clone()).await;
        if result.is_err() {
            result = call(channel.clone()).await;
        }
        result.unwrap_or_else(|status| panic!("round {round}: {status:?}"));
        assert_eq!(server.last_caller(), *worker(&ours).peer(), "round {round}");
        cut.notify_waiters();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
