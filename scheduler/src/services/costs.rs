//! What leases have cost, as a client sees it.

use raftwerk_core::State;
use raftwerk_core::cost::model_of;
use raftwerk_proto::v1::{CostsView, SpeedView};

/// An entry of the log has at most 1 MiB.
pub(super) const IMPORT_BYTES: usize = 900 << 10;

pub(super) fn view(state: &State) -> CostsView {
    let workers = state.workers.iter().filter(|(_, worker)| !worker.lost);
    let speeds = workers.flat_map(|(id, worker)| {
        worker.speeds.iter().filter_map(|(index, speed)| {
            Some(SpeedView {
                worker: id.0,
                worker_name: worker.hello.name.clone(),
                device: *index,
                model: model_of(worker.device(*index)?).to_owned(),
                permille: speed.permille,
                samples: speed.samples,
            })
        })
    });
    CostsView { speeds: speeds.collect(), costs: state.costs.to_wire() }
}
