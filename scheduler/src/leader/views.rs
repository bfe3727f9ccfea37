//! What only the leader can tell of workers: liveness and load.

use super::Leader;
use raftwerk_core::{State, WorkerId};
use raftwerk_proto::v1::{DeviceLoad, Quarantine, WorkerView};

impl Leader {
    pub fn worker_views(&self, now: u64, state: &State) -> Vec<WorkerView> {
        state.workers.iter().map(|(id, record)| self.worker_view(now, state, *id, record)).collect()
    }

    fn quarantines(&self, now: u64, record: &raftwerk_core::worker::Worker) -> Vec<Quarantine> {
        let now = self.clock.at(now);
        let of_devices = record.device_standing.iter().map(|(device, standing)| (Some(*device), standing));
        let all = std::iter::once((None, &record.standing)).chain(of_devices);
        all.filter(|(_, standing)| standing.is_quarantined(now))
            .map(|(device, standing)| Quarantine {
                whole_worker: device.is_none(),
                device: device.unwrap_or_default(),
                ends_in_ms: standing.until.0.saturating_sub(now.0),
                reason: standing.reason.clone(),
                times: standing.times,
            })
            .collect()
    }

    fn worker_view(&self, now: u64, state: &State, id: WorkerId, record: &raftwerk_core::worker::Worker) -> WorkerView {
        let conn = self.sessions.by_worker.get(&id).and_then(|c| self.sessions.conns.get(c));
        let silence = self.sessions.silence(id, now);
        let liveness = match conn {
            _ if record.lost => "lost",
            Some(c) if !c.detector.is_suspect(now) => "alive",
            _ => "suspect",
        };
        let uses = state.uses().range((id, 0)..=(id, u32::MAX));
        WorkerView {
            worker: id.0,
            name: record.hello.name.clone(),
            address: record.hello.data_address.clone(),
            liveness: liveness.into(),
            host: record.hello.host.clone(),
            devices: record.hello.devices.clone(),
            load: conn.and_then(|c| c.load.clone()),
            last_heard_ms: silence.unwrap_or_default(),
            unheard: silence.is_none(),
            device_loads: uses
                .map(|((_, device), u)| DeviceLoad { device: *device, leases: u.leases, tasks: u.tasks, held: Some(u.held) })
                .collect(),
            build: record.hello.build.clone(),
            quarantines: self.quarantines(now, record),
            drained: record.drained,
            protocol: conn.map_or(0, |c| c.protocol),
            labels: record.hello.labels.clone(),
        }
    }
}
