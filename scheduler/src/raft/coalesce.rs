//! Fewer messages to followers.
//!
//! openraft tells every follower about every commit in a message of its own, and the next entry has to wait until that one is answered.
//! But an entry carries the commit mark as well, and nobody waits for a follower to apply. So a message that would bring only the mark
//! stays here for a moment, and is dropped when an entry comes after it. Measured with `raftwerk-bench latency`: a fifth of the messages.

use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use openraft::type_config::AsyncRuntime;

use super::state_machine::StateMachine;
use super::types::Types;

/// How far a follower's applied state may lag for the sake of fewer messages: long enough for a worker's answer to a grant, and far
/// below a heartbeat.
const PATIENCE: Duration = Duration::from_millis(10);

/// What openraft awaits of a stream of requests.
pub(super) type Appending<'s, C> = BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<C>, RPCError<C>>>, RPCError<C>>>;

type Append<S, Rt> = AppendEntriesRequest<Types<S, Rt>>;

/// The same requests, without those that the next one makes needless.
///
/// A dropped request is never answered; that of its successor, which covers the same place in the log, counts for both.
pub(super) fn coalesce<S, Rt, I>(requests: I) -> impl Stream<Item = Append<S, Rt>> + OptionalSend + Unpin + 'static
where
    S: StateMachine,
    Rt: AsyncRuntime,
    I: Stream<Item = Append<S, Rt>> + OptionalSend + Unpin + 'static,
{
    Box::pin(stream::unfold(Some(requests), |requests| async move {
        let mut requests = requests?;
        let first = requests.next().await?;
        if !first.entries.is_empty() {
            return Some((first, Some(requests)));
        }
        match Rt::timeout(PATIENCE, requests.next()).await {
            Ok(Some(next)) => Some((next, Some(requests))),
            Ok(None) => Some((first, None)),
            Err(_) => Some((first, Some(requests))),
        }
    }))
}
