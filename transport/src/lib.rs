//! Who a process is, and every connection it makes or accepts.
//!
//! A cluster has one certificate authority ([`Authority`]), kept by its schedulers. Each process holds an [`Identity`]: a key and a certificate
//! that says scheduler, worker or client, with its id. [`connect`] and [`incoming`] make the only gRPC channels and listeners of the project, both
//! with mutual TLS 1.3; there is no way to turn it off. A handler learns its caller from the channel with [`require`], never from the message.
//!
//! A new machine starts with a [`JoinToken`] alone: the CA hash in it proves the scheduler to the machine ([`connect_to_join`]), the secret in it
//! proves the machine to the scheduler ([`Authority::token_matches`]); what it gets back is a certificate for its own [`PendingIdentity`].
//!
//! ```text
//! authority        the CA: creates, signs, keeps the hash of the join secret       certificate    what our X.509 certificates say
//! token            the join token as text                                          pem            keys and certificates as text
//! identity         key + certificate + CA of one process                           private_file   secrets on disk, never half written
//! peer             kinds of peers, and the caller of a request                     verify         how a peer's certificate is judged
//! channel          outgoing connections     connect_error  why one failed          listener       incoming connections
//! plain            the same for a person                                          head_start   several addresses of which one will do
//! tasks            what runs beside, compiled once
//! ```

mod authority;
mod certificate;
mod channel;
mod connect_error;
mod head_start;
mod identity;
mod identity_error;
mod listener;
mod pacer;
mod peer;
mod pem;
mod plain;
mod private_file;
pub mod tasks;
mod token;
mod verify;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::crypto::CryptoProvider;

pub use authority::Authority;
pub use channel::{Connecting, connect, connect_lazy, connect_to_join};
pub use connect_error::ConnectError;
pub use head_start::{HEAD_START, Reached, first_of};
pub use identity::{Identity, PendingIdentity};
pub use identity_error::IdentityError;
pub use listener::{TlsIo, incoming, serve, server};
pub use peer::{Caller, Peer, PeerKind, UnknownPeerKind, called_by, caller_address, require};
pub use plain::{is_mere_silence, plain_error, plain_status};
pub use token::{JoinToken, TokenError};

/// The largest message either side accepts. tonic's own limit of 4 MiB is smaller than a snapshot chunk or a batch of reports may be; generated
/// clients and servers take this as `max_decoding_message_size` and `max_encoding_message_size`.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// How long a caller waits for an ordinary (not streaming) call. Longer than a change of leader takes, shorter than a person's patience.
pub const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// Makes ring the process-wide provider for whatever else uses rustls here (S3 clients, tests). Our own channels name ring themselves and work
/// without this. Safe to call many times.
pub fn install_crypto() {
    // An error means that a provider is installed already, which is what we want.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The one cryptography provider of every channel.
fn provider() -> Arc<CryptoProvider> {
    static RING: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    Arc::clone(&RING)
}
