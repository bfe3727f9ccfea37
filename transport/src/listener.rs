//! Incoming connections.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tonic::transport::Server;
use tonic::transport::server::{Connected, Router};
use tracing::{debug, warn};

use crate::identity::Identity;
use crate::pacer::Pacer;
use crate::peer::{Caller, Peer};
use crate::{certificate, verify};

pub(crate) const ALPN: &[u8] = b"h2";
/// A broken connection is noticed after interval + timeout, 15 s; the usual ways to die (process, host reset) show at once.
pub(crate) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Shuffle data flows through these channels: 4 MiB keeps 10 Gbit/s busy at 3 ms round trip, HTTP/2's 64 KiB would stop at 170 Mbit/s.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 4 << 20;
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// The largest frame that either side takes. With HTTP/2's own 16 KiB a message of data is some thirty of them.
pub(crate) const FRAME_BYTES: u32 = 256 << 10;
/// Per connection. One process talks to us over one or two; this many calls at once from it is a fault, not a load.
const CONCURRENT_STREAMS: u32 = 1024;
/// Generous, since an old laptop on a bad line needs a few round trips; an unfinished handshake costs us one socket.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Unfinished handshakes at once; beyond it connections wait in the kernel's queue. Well above every worker of a large cluster reconnecting.
const HANDSHAKES: usize = 16_384;
/// After `accept` failed, mostly for want of file descriptors, which come back only as connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A gRPC server with our limits. Serve it with [`incoming`]: what it would listen on by itself is not encrypted.
pub fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .max_concurrent_streams(CONCURRENT_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
}

/// The TLS connections that come in on `listener`, for tonic's `serve_with_incoming` and `serve_with_incoming_shutdown`.
///
/// A client without a certificate is let in as [`Anonymous`](crate::PeerKind::Anonymous); one with a certificate that is not of our cluster is
/// not let in. Handshakes run side by side, so a slow one delays nobody. The stream neither ends nor yields an error; dropping it closes the
/// listener and ends unfinished handshakes.
pub fn incoming(listener: TcpListener, identity: &Identity) -> impl Stream<Item = Result<TlsIo, io::Error>> + Send + 'static {
    let acceptor = TlsAcceptor::from(Arc::new(tls_config(identity)));
    Incoming { listener, acceptor, handshakes: JoinSet::new(), pacer: Pacer::default(), turns: JoinSet::new(), pause: None }
}

/// Serves what `router` has on [`incoming`] until `stopped` ends. Boxed here, so that the crates that serve do not each compile an HTTP/2 server of their own.
pub fn serve(
    router: Router,
    listener: TcpListener,
    identity: &Identity,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> Pin<Box<dyn Future<Output = Result<(), tonic::transport::Error>> + Send>> {
    serve_boxed(router, listener, identity, Box::pin(stopped))
}

fn serve_boxed(
    router: Router,
    listener: TcpListener,
    identity: &Identity,
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
) -> Pin<Box<dyn Future<Output = Result<(), tonic::transport::Error>> + Send>> {
    Box::pin(router.serve_with_incoming_shutdown(incoming(listener, identity), stopped))
}

fn tls_config(identity: &Identity) -> ServerConfig {
    let roots = verify::roots(identity.ca_certificate_der()).expect("an identity's CA certificate has been verified");
    let clients = WebPkiClientVerifier::builder_with_provider(roots, crate::provider())
        .allow_unauthenticated() // the Join service is for these; every other handler refuses them by `require`
        .build()
        .expect("there is a root certificate");
    let mut config = ServerConfig::builder_with_provider(crate::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring supports TLS 1.3")
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

struct Incoming {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handshakes: JoinSet<Option<TlsIo>>,
    pacer: Pacer,
    /// The task that gives the handshakes their turns; ends with this.
    turns: JoinSet<()>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    /// Accepts all there is and is woken by the next; never ready.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Infallible> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            if self.handshakes.len() >= HANDSHAKES {
                return Poll::Pending; // a handshake that ends wakes us
            }
            match ready!(self.listener.poll_accept(cx)) {
                Ok((tcp, address)) => {
                    if self.turns.is_empty() {
                        self.turns.spawn(self.pacer.clone().run());
                    }
                    let (pacer, acceptor) = (self.pacer.clone(), self.acceptor.clone());
                    self.handshakes.spawn(async move { pacer.pace(handshake(acceptor, tcp, address)).await });
                }
                // The connection went away while it was queued; the listener is well.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
                Err(error) => {
                    warn!(%error, "cannot accept connections, trying again");
                    self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

impl Stream for Incoming {
    type Item = Result<TlsIo, io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Poll::Pending = self.poll_accept(cx);
            match self.handshakes.poll_join_next(cx) {
                Poll::Ready(Some(Ok(Some(io)))) => return Poll::Ready(Some(Ok(io))),
                Poll::Ready(Some(Ok(None))) => {}
                Poll::Ready(Some(Err(error))) => warn!(%error, "a TLS handshake panicked"),
                // No handshake under way, or none done; the next connection wakes us too.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

async fn handshake(acceptor: TlsAcceptor, tcp: TcpStream, address: SocketAddr) -> Option<TlsIo> {
    if let Err(error) = tcp.set_nodelay(true) {
        debug!(%address, %error, "connection lost before the TLS handshake");
        return None;
    }
    let stream = match timeout(HANDSHAKE_LIMIT, acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            debug!(%address, %error, "TLS handshake failed");
            return None;
        }
        Err(_) => {
            debug!(%address, "TLS handshake not finished within {} s", HANDSHAKE_LIMIT.as_secs());
            return None;
        }
    };
    let peer = match stream.get_ref().1.peer_certificates() {
        None | Some([]) => Peer::anonymous(),
        Some([certificate, ..]) => match certificate::peer_in(certificate) {
            Some(peer) => peer,
            None => {
                warn!(%address, "a certificate signed by our CA names no peer; the connection is closed");
                return None;
            }
        },
    };
    Some(TlsIo { stream, caller: Caller { peer: Arc::new(peer), address: Some(address) } })
}

/// An accepted connection together with who is at its other end.
pub struct TlsIo {
    stream: TlsStream<TcpStream>,
    caller: Caller,
}

impl Connected for TlsIo {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for TlsIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
