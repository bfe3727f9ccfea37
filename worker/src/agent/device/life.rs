//! The life of a device's executor: taken over, ended, started again, given up.

use super::{Device, DeviceEvent, Running};
use crate::{
    agent::{
        child::{LaunchError, Launched, OutputSink, explain},
        edge::EdgeInput,
        oom, shuffle, socket,
        watchdog::Watch,
    },
    executor::ExecutorDevice,
    session::Input,
};
use raftwerk_proto::v1::{FailureClass, FromExecutor, Shutdown, from_executor, to_executor};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// First pause before an executor that died is started again.
const RESTART_MIN: Duration = Duration::from_millis(50);
const RESTART_MAX: Duration = Duration::from_secs(10);
/// An executor that lived this long starts again without a pause: what killed it was a task, not the start.
const HEALTHY: Duration = Duration::from_secs(5);
/// Starts in a row that may fail before the device is withdrawn: half a minute with the pauses.
const STARTS_MAX: u32 = 5;
/// An executor that was asked to end and does not is killed.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

impl Device {
    /// Takes over an executor that is ready.
    pub(super) fn attach(&mut self, launched: Launched) {
        let Launched { reader, frames, writer, recorder, killer, exited, .. } = launched;
        let socket = socket::start_writer(writer);
        let (incarnation, events, if_broken) = (self.incarnation, self.events.clone(), killer.clone());
        raftwerk_transport::tasks::spawn(async move {
            let progress = events.clone();
            let forward = move |batch: Vec<FromExecutor>| {
                let batch = batch.into_iter().filter_map(|message| match message.message {
                    Some(from_executor::Message::Progress(progress)) => Some(progress),
                    _ => None,
                });
                let _ = progress.send(DeviceEvent::FromExecutor(incarnation, batch.collect()));
            };
            let broken = socket::read_all(reader, frames, forward).await;
            if broken.is_some() {
                if_broken.kill();
            }
            // Only now: what it told before its end still counts.
            let status = exited.await.unwrap_or_else(|_| "unknown".into());
            let status = broken.map_or(status, |error| error.to_string());
            let _ = events.send(DeviceEvent::Ended(incarnation, status));
        });
        let since = Instant::now();
        let (watch, oom_kills) = (Watch::default(), oom::kills());
        let (deliberate, hung, defined) = (false, None, HashMap::new());
        self.running = Some(Running { socket, recorder, killer, since, deliberate, watch, hung, oom_kills, defined });
    }

    pub(super) fn on_ended(&mut self, status: &str) {
        let Some(running) = self.running.take() else { return };
        self.incarnation += 1;
        self.outgoing.clear();
        let lived = running.since.elapsed();
        let by_system = status.contains("SIGKILL") && running.oom_kills.zip(oom::kills()).is_some_and(|(before, now)| now > before);
        let (class, what) = if let Some(hung) = &running.hung {
            (FailureClass::Executor, hung.to_string())
        } else if running.deliberate {
            (FailureClass::Stopped, "the executor was replaced because a lease on it did not end".into())
        } else if by_system {
            // Shorter leases help a GPU, which takes a whole one at once. Those of a CPU run side by side and need as much together, however short:
            // there it helps that tasks under suspicion run alone.
            let class = if matches!(self.kind, ExecutorDevice::Gpu(_)) { FailureClass::OutOfMemory } else { FailureClass::Executor };
            (class, "the system killed the executor because memory ran out".into())
        } else {
            (FailureClass::Executor, format!("the executor died ({status}{})", explain(status)))
        };
        let tail = self.output.tail();
        let last_line = tail.lines().last().unwrap_or_default();
        let message = if last_line.is_empty() { what } else { format!("{what}: {last_line}") };
        tracing::warn!(device = self.index, leases = self.leases.len(), "{message}");
        // Of one that hung only the tasks that it hung in are to blame, and not those that happened to run beside them.
        let at = running.hung.clone().map_or_else(|| running.recorder.running(), |hung| hung.tasks);
        let tasks = at.into_iter().map(|(key, first, count)| (key.into(), first, count)).collect();
        for (key, mut lease) in self.leases.drain() {
            if let Some(preparation) = lease.preparation.take() {
                preparation.abort();
            }
            self.output.ended(key);
        }
        let input = Input::ExecutorLost { device: self.index, message, running: tasks, class };
        let _ = self.common.edge.send(EdgeInput::Session(input));
        if running.hung.is_some_and(|hung| hung.tasks.is_empty()) {
            // Nobody is charged, so nothing else would end it.
            self.failed_starts += 1;
            if self.failed_starts >= STARTS_MAX {
                return self.withdraw("it begins none of its tasks");
            }
        }
        self.relaunch(if lived >= HEALTHY { Duration::ZERO } else { RESTART_MIN });
    }

    fn relaunch(&self, pause: Duration) {
        let (common, kind, output) = (self.common.clone(), self.kind, self.output.clone());
        let (events, incarnation) = (self.events.clone(), self.incarnation);
        raftwerk_transport::tasks::spawn(async move {
            tokio::time::sleep(pause).await;
            let launched = common.launcher.launch(kind, output).await;
            let _ = events.send(DeviceEvent::Launched(incarnation, Box::new(launched)));
        });
    }

    pub(super) fn on_launched(&mut self, launched: Result<Launched, LaunchError>) {
        let error = match launched {
            Ok(launched) => {
                self.attach(launched);
                for (grant, stage) in std::mem::take(&mut self.waiting) {
                    self.start_lease(grant, stage);
                }
                return;
            }
            Err(error) => shuffle::fetch::chain(&error),
        };
        self.failed_starts += 1;
        if self.failed_starts < STARTS_MAX {
            let pause = (RESTART_MIN * 10u32.pow(self.failed_starts)).min(RESTART_MAX);
            tracing::warn!(device = self.index, error, again_in = ?pause, "the executor does not start");
            return self.relaunch(pause);
        }
        self.withdraw(&error);
    }

    fn withdraw(&mut self, error: &str) {
        tracing::error!(
            device = self.index,
            error,
            "the executor does not start; the device is withdrawn until the worker is started again"
        );
        self.withdrawn = true;
        for (grant, _) in std::mem::take(&mut self.waiting) {
            self.fail_whole(&grant, format!("the executor of device {} does not start: {error}", self.index));
        }
        let _ = self.common.edge.send(EdgeInput::Withdrawn(self.index));
    }

    pub(super) async fn shutdown(mut self, mut events: mpsc::UnboundedReceiver<DeviceEvent>) {
        self.leases.values_mut().filter_map(|lease| lease.preparation.take()).for_each(|preparation| preparation.abort());
        self.outgoing.clear();
        self.send(to_executor::Message::Shutdown(Shutdown {}), Vec::new());
        self.flush();
        let Some(Running { socket, killer, .. }) = self.running.take() else { return };
        drop(socket); // the writer closes its half when it is done
        let ended = async {
            while let Some(event) = events.recv().await {
                if matches!(event, DeviceEvent::Ended(..)) {
                    return;
                }
            }
        };
        if tokio::time::timeout(SHUTDOWN_LIMIT, ended).await.is_err() {
            killer.kill();
        }
    }
}
