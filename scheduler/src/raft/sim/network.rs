//! Messages between simulated replicas. They are the protobuf messages of the real network, without the bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use openraft::OptionalSend;
use openraft::async_runtime::Instant;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::AsyncRuntime;
use openraft_rt_sim::SimInstant;
use prost::Message;
use raftwerk_proto::v1 as pb;

use super::{Dice, SimRuntime};
use crate::raft::coalesce::{Appending, coalesce};
use crate::raft::convert::{
    append_to_pb, appended_from_pb, ask_vote_to_pb, transfer_to_pb, transferred_from_pb, vote_from_pb, voted_from_pb,
};
use crate::raft::handle::{Handler, Refused};
use crate::raft::network::{LEAST_APPEND_TIME, chunks};
use crate::raft::state_machine::StateMachine;
use crate::raft::types::{Node, Snapshot, Types, Vote};

type C<S> = Types<S, SimRuntime>;

/// When a connection on which nothing comes back is given up.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// What was delivered so far, in order: two runs with the same trace were the same run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    pub messages: u64,
    /// Of the simulated time, sender, receiver, kind and content of every delivered message.
    pub hash: u64,
}

/// What the network did to messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    /// A connection broke under a message, which arrived or not.
    pub lost: u64,
    /// Sent again after a time-out of the transport, as TCP does.
    pub late: u64,
    pub repeated: u64,
    /// Snapshots that reached another replica.
    pub snapshots: u64,
}

struct Wires<S: StateMachine> {
    /// The incarnation of each replica that may speak, and its ear once it listens.
    alive: BTreeMap<u64, (u64, Option<Handler<S, SimRuntime>>)>,
    incarnations: u64,
    /// From, to: a cut may be one-sided.
    cut: BTreeSet<(u64, u64)>,
    delay: (Duration, Duration),
    /// Of a thousand messages, one way.
    loss: u64,
    /// Of a thousand messages, delivered twice.
    repeats: u64,
    counts: NetworkCounts,
    /// The newest vote that each replica has told another one it would keep: term and whom for.
    promised: BTreeMap<u64, (u64, u64)>,
    dice: Dice,
    trace: Trace,
}

pub struct SimNetwork<S: StateMachine>(Arc<Mutex<Wires<S>>>);

impl<S: StateMachine> Clone for SimNetwork<S> {
    fn clone(&self) -> Self {
        SimNetwork(self.0.clone())
    }
}

impl<S: StateMachine> SimNetwork<S> {
    pub(in crate::raft) fn new(seed: u64) -> Self {
        SimNetwork(Arc::new(Mutex::new(Wires {
            alive: BTreeMap::new(),
            incarnations: 0,
            cut: BTreeSet::new(),
            delay: (Duration::from_micros(50), Duration::from_millis(2)),
            loss: 0,
            repeats: 0,
            counts: NetworkCounts::default(),
            promised: BTreeMap::new(),
            dice: Dice::new(seed),
            trace: Trace { messages: 0, hash: 0xcbf2_9ce4_8422_2325 },
        })))
    }

    /// How long a message takes one way: a random time between these.
    pub fn set_delay(&self, least: Duration, most: Duration) {
        self.lock().delay = (least, most);
    }

    /// Of a thousand messages so many meet a broken connection or arrive late, and so many are delivered twice.
    pub fn set_unreliable(&self, loss: u64, repeats: u64) {
        let mut wires = self.lock();
        (wires.loss, wires.repeats) = (loss, repeats);
    }

    pub fn counts(&self) -> NetworkCounts {
        self.lock().counts
    }

    /// The newest vote that a replica has told another one it would keep: term and whom for.
    pub fn promised(&self, id: u64) -> Option<(u64, u64)> {
        self.lock().promised.get(&id).copied()
    }

    /// Messages from one replica to another vanish, the other way they pass.
    pub fn cut_one_way(&self, from: u64, to: u64) {
        self.lock().cut.insert((from, to));
    }

    pub fn cut(&self, a: u64, b: u64) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Cuts a replica off from all others.
    pub fn isolate(&self, id: u64) {
        let others: Vec<u64> = self.lock().alive.keys().copied().filter(|other| *other != id).collect();
        others.into_iter().for_each(|other| self.cut(id, other));
    }

    pub fn heal(&self) {
        self.lock().cut.clear();
    }

    pub(super) fn trace(&self) -> Trace {
        self.lock().trace
    }

    /// A replica's access to the network, for one incarnation of it.
    pub(in crate::raft) fn link(&self, id: u64) -> Link<S> {
        let mut wires = self.lock();
        wires.incarnations += 1;
        let incarnation = wires.incarnations;
        wires.alive.insert(id, (incarnation, None));
        Link { network: self.clone(), id, incarnation }
    }

    pub(super) fn disconnect(&self, id: u64) {
        self.lock().alive.remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, Wires<S>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl<S: StateMachine> Wires<S> {
    fn delay(&mut self) -> Duration {
        let (least, most) = self.delay;
        least + Duration::from_nanos(self.dice.below((most.saturating_sub(least)).as_nanos() as u64))
    }

    fn speaks(&self, id: u64, incarnation: u64) -> bool {
        self.alive.get(&id).is_some_and(|(current, _)| *current == incarnation)
    }

    fn promise(&mut self, id: u64, vote: Option<&pb::RaftVote>) {
        if let Some(vote) = vote {
            let promised = self.promised.entry(id).or_default();
            *promised = (*promised).max((vote.term, vote.node));
        }
    }

    fn record(&mut self, from: u64, to: u64, kind: &str, message: &[u8]) {
        self.trace.messages += 1;
        let now = SimInstant::now().elapsed_since_start().as_nanos() as u64;
        let head = [now, from, to].map(u64::to_le_bytes);
        // FNV-1a
        for byte in head.iter().flatten().chain(kind.as_bytes()).chain(message) {
            self.trace.hash = (self.trace.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

pub struct Link<S: StateMachine> {
    network: SimNetwork<S>,
    id: u64,
    incarnation: u64,
}

impl<S: StateMachine> Clone for Link<S> {
    fn clone(&self) -> Self {
        Link { network: self.network.clone(), id: self.id, incarnation: self.incarnation }
    }
}

impl<S: StateMachine> Link<S> {
    /// From now on others can reach the replica.
    pub(super) fn serve(&self, handler: Handler<S, SimRuntime>) {
        let mut wires = self.network.lock();
        if wires.speaks(self.id, self.incarnation) {
            wires.alive.insert(self.id, (self.incarnation, Some(handler)));
        }
    }
}

impl<S: StateMachine> RaftNetworkFactory<C<S>> for Link<S> {
    type Network = Wire<S>;

    async fn new_client(&mut self, target: u64, _: &Node) -> Wire<S> {
        Wire { link: self.clone(), target, least_append: LEAST_APPEND_TIME }
    }

    async fn new_heartbeat_client(&mut self, target: u64, _: &Node) -> Wire<S> {
        Wire { link: self.clone(), target, least_append: Duration::ZERO }
    }
}

/// The way to one other replica.
pub struct Wire<S: StateMachine> {
    link: Link<S>,
    target: u64,
    least_append: Duration,
}

impl<S: StateMachine> Wire<S> {
    /// Carries a message there and its answer back.
    async fn call<M: Message + Clone, A, F>(
        &self,
        action: RPCTypes,
        limit: Duration,
        message: M,
        handle: impl Fn(Handler<S, SimRuntime>, M) -> F + Send + Sync,
    ) -> Result<A, RPCError<C<S>>>
    where
        F: Future<Output = Result<A, Refused>> + Send,
        A: Send,
    {
        let (from, to) = (self.link.id, self.target);
        let there_and_back = async {
            self.travel(from, to).await?;
            let (handler, again) = {
                let mut wires = self.link.network.lock();
                wires.record(from, to, &format!("{action:?}"), &message.encode_to_vec());
                let again = wires.repeats > 0 && wires.dice.below(1000) < wires.repeats;
                wires.counts.repeated += u64::from(again);
                wires.counts.snapshots += u64::from(matches!(action, RPCTypes::InstallSnapshot));
                (wires.alive.get(&to).and_then(|(_, handler)| handler.clone()), again)
            };
            let answer = match handler {
                // What a host answers on whose port nobody listens.
                None => Err("connection refused".to_owned()),
                Some(handler) => {
                    if again {
                        let _ = handle(handler.clone(), message.clone()).await;
                    }
                    handle(handler, message).await.map_err(|e| e.to_string())
                }
            };
            self.travel(to, from).await?;
            answer
        };
        match SimRuntime::timeout(limit, there_and_back).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(why)) => Err(RPCError::Unreachable(Unreachable::from_string(why))),
            Err(_) => Err(RPCError::Timeout(Timeout { action, id: from, target: to, timeout: limit })),
        }
    }

    /// Returns when the message has arrived. When it is lost the sender hears nothing, until keep-alive finds the connection dead.
    async fn travel(&self, from: u64, to: u64) -> Result<(), String> {
        let delay = self.link.network.lock().delay();
        SimRuntime::sleep(delay).await;
        let (lost, trouble) = {
            let mut wires = self.link.network.lock();
            let trouble = (wires.loss > 0 && wires.dice.below(1000) < wires.loss).then(|| wires.dice.below(800));
            match trouble {
                Some(0..400) => wires.counts.lost += 1,
                Some(_) => wires.counts.late += 1,
                None => {}
            }
            (wires.cut.contains(&(from, to)) || !wires.speaks(self.link.id, self.link.incarnation), trouble)
        };
        match trouble {
            Some(0..400) => return Err("connection reset".to_owned()),
            Some(late) => SimRuntime::sleep(Duration::from_millis(late - 350)).await,
            None => {}
        }
        if lost {
            SimRuntime::sleep(KEEP_ALIVE).await;
            return Err("the connection is dead".to_owned());
        }
        Ok(())
    }

    fn broken(&self, why: impl ToString) -> RPCError<C<S>> {
        RPCError::Unreachable(Unreachable::from_string(why))
    }
}

impl<S: StateMachine> RaftNetworkV2<C<S>> for Wire<S> {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<C<S>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<C<S>>, RPCError<C<S>>> {
        let from = self.link.id;
        let limit = option.soft_ttl().max(self.least_append);
        let message = append_to_pb(self.target, &rpc);
        let reply = self.call(RPCTypes::AppendEntries, limit, message, |h, m| async move { h.append(from, m).await }).await?;
        appended_from_pb(&reply).map_err(|e| self.broken(e))
    }

    fn stream_append<'s, I>(&'s mut self, requests: I, option: RPCOption) -> Appending<'s, C<S>>
    where
        I: Stream<Item = AppendEntriesRequest<C<S>>> + OptionalSend + Unpin + 'static,
    {
        stream_append_sequential(self, coalesce(requests), option)
    }

    async fn vote(&mut self, rpc: VoteRequest<C<S>>, option: RPCOption) -> Result<VoteResponse<C<S>>, RPCError<C<S>>> {
        let from = self.link.id;
        let message = ask_vote_to_pb(self.target, &rpc);
        let (network, target) = (self.link.network.clone(), self.target);
        let vote = |h: Handler<S, SimRuntime>, m: pb::VoteRequest| {
            let network = network.clone();
            async move {
                let reply = h.vote(from, m).await?;
                network.lock().promise(target, reply.vote.as_ref().filter(|_| reply.granted));
                Ok(reply)
            }
        };
        let reply = self.call(RPCTypes::Vote, option.soft_ttl(), message, vote).await?;
        voted_from_pb(&reply).map_err(|e| self.broken(e))
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<C<S>>, option: RPCOption) -> Result<VoteResponse<C<S>>, RPCError<C<S>>> {
        let from = self.link.id;
        let message = ask_vote_to_pb(self.target, &rpc);
        let reply = self.call(RPCTypes::Vote, option.soft_ttl(), message, |h, m| async move { h.pre_vote(from, m).await }).await?;
        voted_from_pb(&reply).map_err(|e| self.broken(e))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<C<S>>, StreamingError<C<S>>> {
        let from = self.link.id;
        let mut chunks = chunks(self.target, &vote, snapshot);
        let head = chunks.next().unwrap_or_default();
        let rest: Vec<pb::SnapshotChunk> = chunks.collect();
        let reply = self
            .call(RPCTypes::InstallSnapshot, option.soft_ttl(), head, |h, head| {
                let rest = rest.clone();
                async move {
                    let mut incoming = h.begin_snapshot(from, head)?;
                    rest.into_iter().for_each(|chunk| incoming.add(chunk.data));
                    h.install(incoming).await
                }
            })
            .await?;
        let vote = reply.vote.as_ref().map(vote_from_pb).ok_or_else(|| self.broken("an answer without a vote"))?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<C<S>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<C<S>>, RPCError<C<S>>> {
        let from = self.link.id;
        let message = transfer_to_pb(&req);
        let reply =
            self.call(RPCTypes::TransferLeader, option.soft_ttl(), message, |h, m| async move { h.transfer(from, m).await }).await?;
        Ok(transferred_from_pb(&req, &reply))
    }
}
