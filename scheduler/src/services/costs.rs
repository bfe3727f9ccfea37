//! What leases have cost, as a client sees it.

use raftwerk_core::State;
use raftwerk_core::cost::{beyond_limits, model_of};
use raftwerk_proto::v1::{CostRecord, CostsView, SpeedView};

/// An entry of the log has at most 1 MiB.
pub(super) const IMPORT_BYTES: usize = 900 << 10;

/// Of costs that are brought, the first that cannot be right. The command line says it before, with the place in its file.
pub(super) fn unlikely(costs: &[CostRecord]) -> Option<String> {
    costs.iter().find_map(|cost| Some(format!("the cost of '{}' on '{}': {}", cost.kernel, cost.model, beyond_limits(cost)?)))
}

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
