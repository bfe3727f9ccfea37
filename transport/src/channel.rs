//! Outgoing connections.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::certificate;
use crate::connect_error::ConnectError;
use crate::identity::Identity;
use crate::listener::{ALPN, CONNECTION_WINDOW_BYTES, FRAME_BYTES, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, STREAM_WINDOW_BYTES};
use crate::peer::PeerKind;
use crate::plain::OwnWords;
use crate::token::JoinToken;
use crate::verify::{ClusterVerifier, TokenVerifier};

/// For name lookup and TCP. Covers one lost SYN (sent again after 1 s); a host that is up answers within the round-trip time.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// For TLS and the peer's first bytes. The kernel of a stopped process still completes TCP, so this bounds how long a dead scheduler holds up a
/// search for the live one; it leaves room for a scheduler that every worker reconnects to at once.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// A connection that is being made. A future is compiled where it is polled, and this one holds all of an HTTP/2 client: boxed here it is compiled once,
/// and not in every program and crate that connects.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Channel, ConnectError>> + Send>>;

/// A mutual-TLS channel to a peer of kind `expect` at `address` ("host:port").
///
/// Returns once the peer has accepted us too, so a refused credential is an error here and not a puzzle at the first call. The channel reconnects
/// by itself under the same conditions; [`ConnectError::find`] reads the reason out of a failed call's status.
pub fn connect(address: &str, identity: &Identity, expect: PeerKind) -> Connecting {
    connecting(Dialer::new(address, identity, expect))
}

/// Like [`connect`], but connects when the first call is made; only a malformed address is an error now.
pub fn connect_lazy(address: &str, identity: &Identity, expect: PeerKind) -> Result<Channel, ConnectError> {
    Ok(Dialer::new(address, identity, expect)?.connect_lazy())
}

/// A channel for the Join service alone: we show no certificate, the scheduler is recognised by the CA hash in the token. Nothing, the token's
/// secret included, is sent before that.
pub fn connect_to_join(address: &str, token: &JoinToken) -> Connecting {
    let tls = tls_config(Arc::new(TokenVerifier::new(token.ca_sha256)), None);
    connecting(Dialer::with_tls(address, tls, PeerKind::Scheduler))
}

fn connecting(dialer: Result<Dialer, ConnectError>) -> Connecting {
    Box::pin(async move { dialer?.connect().await })
}

fn tls_config(verifier: Arc<dyn ServerCertVerifier>, identity: Option<&Identity>) -> ClientConfig {
    let config = ClientConfig::builder_with_provider(crate::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring supports TLS 1.3")
        .dangerous() // rustls' word for "with a verifier of your own"; ours asks for more than the usual one, not for less
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key()))),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

/// Makes the connections of one channel.
#[derive(Clone)]
struct Dialer {
    address: Arc<str>,
    endpoint: Endpoint,
    tls: TlsConnector,
    name: ServerName<'static>,
}

impl Dialer {
    fn new(address: &str, identity: &Identity, expect: PeerKind) -> Result<Dialer, ConnectError> {
        let verifier = ClusterVerifier::new(identity.ca_certificate_der(), expect).expect("an identity's CA certificate has been verified");
        Dialer::with_tls(address, tls_config(Arc::new(verifier), Some(identity)), expect)
    }

    /// The TLS configuration, and with it the memory for resumed sessions, belongs to this channel: another channel may lead to another peer of
    /// the same kind, whose sessions are of no use here.
    fn with_tls(address: &str, tls: ClientConfig, expect: PeerKind) -> Result<Dialer, ConnectError> {
        let endpoint = endpoint(address)?;
        Ok(Dialer { address: address.into(), endpoint, tls: Arc::new(tls).into(), name: certificate::server_name(expect) })
    }

    /// Makes the first connection here and not inside tonic, whose error would hide ours.
    async fn connect(self) -> Result<Channel, ConnectError> {
        let first = self.dial().await?;
        let connector = tower::service_fn(self.clone().into_connector(Some(first)));
        self.endpoint.connect_with_connector(connector).await.map_err(|error| self.unreachable(io::Error::other(error)))
    }

    fn connect_lazy(self) -> Channel {
        let connector = tower::service_fn(self.clone().into_connector(None));
        self.endpoint.connect_with_connector_lazy(connector)
    }

    /// Gives tonic `first` and then new connections. tonic's own TLS cannot verify as we do, so it sees an `http` address and a connector that
    /// happens to encrypt.
    fn into_connector(self, mut first: Option<TlsStream<TcpStream>>) -> impl FnMut(Uri) -> Dialing + Send + 'static {
        move |_| {
            let (dialer, first) = (self.clone(), first.take());
            Box::pin(async move {
                match first {
                    Some(stream) => Ok(TokioIo::new(stream)),
                    None => dialer.dial().await.map(TokioIo::new),
                }
            })
        }
    }

    fn unreachable(&self, source: io::Error) -> ConnectError {
        ConnectError::Unreachable { address: self.address.to_string(), source }
    }

    async fn dial(&self) -> Result<TlsStream<TcpStream>, ConnectError> {
        let tcp = timeout(CONNECT_LIMIT, TcpStream::connect(&*self.address))
            .await
            .map_err(|_| self.unreachable(timed_out("no answer", CONNECT_LIMIT)))?
            .map_err(|error| self.unreachable(error))?;
        tcp.set_nodelay(true).map_err(|error| self.unreachable(error))?;
        timeout(HANDSHAKE_LIMIT, self.handshake(tcp))
            .await
            .map_err(|_| self.unreachable(timed_out("connected, but no TLS handshake", HANDSHAKE_LIMIT)))?
            .map_err(|error| ConnectError::from_handshake(&self.address, error))
    }

    async fn handshake(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let mut tls = self.tls.connect(self.name.clone(), tcp).await?;
        // In TLS 1.3 the client is done before the server has looked at the client's certificate. An HTTP/2 server speaks first (its settings),
        // but only if it goes on with us: wait for these bytes, without consuming them. Were we to send first, the server's closing socket could
        // also answer with a reset that destroys the alert which says why.
        if tls.fill_buf().await?.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                OwnWords("the peer closed the connection after the TLS handshake".into()),
            ));
        }
        Ok(tls)
    }
}

type Dialing = Pin<Box<dyn Future<Output = Result<TokioIo<TlsStream<TcpStream>>, ConnectError>> + Send>>;

fn timed_out(what: &str, limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, OwnWords(format!("{what} within {} s", limit.as_secs())))
}

fn endpoint(address: &str) -> Result<Endpoint, ConnectError> {
    let bad = |reason: &str| ConnectError::BadAddress { address: address.to_owned(), reason: reason.to_owned() };
    if address.contains("://") {
        return Err(bad("leave off the part up to `://`; all connections use TLS"));
    }
    let (host, port) = address.rsplit_once(':').ok_or_else(|| bad("it has no port; write host:port"))?;
    if host.is_empty() {
        return Err(bad("it has no host; write host:port"));
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(bad("an IPv6 address stands in brackets, as in [::1]:7070"));
    }
    if !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return Err(bad("the port is not a number from 1 to 65535"));
    }
    // What reads as a user name or a path inside a URL would be dropped in silence.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .ok()
        .filter(|endpoint| endpoint.uri().host() == Some(host))
        .ok_or_else(|| bad("it has characters that no host name has"))?;
    Ok(endpoint
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .user_agent(concat!("raftwerk/", env!("CARGO_PKG_VERSION")))
        .expect("the user agent is ASCII"))
}
