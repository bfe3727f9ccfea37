//! A result that stays on workers: which worker keeps which part.

use raftwerk_proto::OUTPUT_ON_WORKERS;
use raftwerk_proto::v1::{JobView, OutputPart, WorkerView};

use crate::table::Table;
use crate::units::{format_bytes, group_digits};

const AWAY_FIX: &str = "start those workers again with their data directories (in a cluster that began with a backup, `scheduler start --restore`, with \
--bring-results and its own join token); when they are gone, submit the job again (with more copies, [output] copies)";
const GONE_FIX: &str = "submit the job again (with more copies, [output] copies): of at least one part no worker has a copy any more, and what is lost or damaged \
there does not come back when a worker is started";

/// What helps when parts are away; `gone` says what was found out beside the record: that the worker does not have the part.
pub fn away_fix<'a>(parts: impl IntoIterator<Item = &'a OutputPart>, gone: impl Fn(&OutputPart, u64) -> bool) -> &'static str {
    let may_return = |part: &OutputPart| keepers(part).any(|worker| !is_gone_at(part, worker) && !gone(part, worker));
    if parts.into_iter().all(may_return) { AWAY_FIX } else { GONE_FIX }
}

pub fn is_on_workers(view: &JobView) -> bool {
    view.spec.as_ref().and_then(|spec| spec.output.as_ref()).is_some_and(|output| output.url == OUTPUT_ON_WORKERS)
}

/// How many workers were to keep each part.
pub fn wanted(view: &JobView) -> u32 {
    view.spec.as_ref().and_then(|spec| spec.output.as_ref()).map_or(0, |output| output.copies.max(1))
}

pub fn keepers(part: &OutputPart) -> impl Iterator<Item = u64> + '_ {
    std::iter::once(part.worker).chain(part.copy_workers.iter().copied()).filter(|worker| *worker != 0)
}

/// Whether the keeper has said that the part is missing there, or damaged.
pub fn is_gone_at(part: &OutputPart, worker: u64) -> bool {
    part.gone_at.contains(&worker)
}

/// Whether somebody asked for it to be deleted.
pub fn was_dropped(view: &JobView) -> bool {
    !view.parts.is_empty() && view.parts.iter().all(|part| part.worker == 0)
}

fn find(workers: &[WorkerView], worker: u64) -> Option<&WorkerView> {
    workers.iter().find(|view| view.worker == worker)
}

fn name(workers: &[WorkerView], worker: u64) -> String {
    find(workers, worker).map_or_else(|| format!("worker {worker}"), |view| format!("worker {worker} ({})", view.name))
}

pub fn table(view: &JobView, workers: &[WorkerView]) -> Table {
    let mut table = Table::new(["part", ">rows", ">bytes", "crc32c", ">copies", "kept by"]);
    for part in &view.parts {
        let place = |worker: u64| match find(workers, worker).map(|view| view.liveness.as_str()) {
            _ if is_gone_at(part, worker) => format!("{}: missing or damaged", name(workers, worker)),
            Some("alive") => name(workers, worker),
            Some(liveness) => format!("{}: {liveness}", name(workers, worker)),
            None => format!("{}: gone", name(workers, worker)),
        };
        let alive = holders(part, workers).count();
        table.row([
            part.name.as_str().into(),
            group_digits(part.rows).into(),
            format_bytes(part.bytes).into(),
            format!("{:08x}", part.crc32c).into(),
            format!("{alive} of {}", wanted(view)).into(),
            keepers(part).map(place).collect::<Vec<_>>().join(", ").into(),
        ]);
    }
    table
}

fn is_there(workers: &[WorkerView], worker: u64) -> bool {
    find(workers, worker).is_some_and(|view| view.liveness != "lost")
}

/// Keepers that are there and, as far as is known, have the part.
pub fn holders<'a>(part: &'a OutputPart, workers: &'a [WorkerView]) -> impl Iterator<Item = u64> + 'a {
    keepers(part).filter(|worker| is_there(workers, *worker) && !is_gone_at(part, *worker))
}

/// Parts of which no keeper is there that has them.
pub fn away<'a>(view: &'a JobView, workers: &'a [WorkerView]) -> impl Iterator<Item = &'a OutputPart> {
    view.parts.iter().filter(|part| part.worker != 0 && holders(part, workers).next().is_none())
}

/// A part, its keepers, and what is wrong with each; `why` knows more than liveness does.
pub fn away_text(job: u64, part: &OutputPart, workers: &[WorkerView], why: impl Fn(u64) -> Option<String>) -> String {
    let file = || format!("results/{job}/{} in its data directory", part.staged_name);
    let one = |worker: u64| {
        let reason = match find(workers, worker) {
            _ if is_gone_at(part, worker) => {
                why(worker).map_or_else(|| ", where it is missing or damaged".to_owned(), |reason| format!(": {reason}"))
            }
            None => format!(", which this cluster does not know ({})", file()),
            Some(view) if view.liveness == "lost" => format!(", which is lost ({})", file()),
            Some(_) => why(worker).map_or_else(|| ", which does not answer".to_owned(), |reason| format!(": {reason}")),
        };
        format!("{}{reason}", name(workers, worker))
    };
    format!("{} was kept by {}", part.name, keepers(part).map(one).collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(worker: u64, liveness: &str) -> WorkerView {
        WorkerView { worker, name: format!("w{worker}"), liveness: liveness.into(), ..WorkerView::default() }
    }

    #[test]
    fn a_part_is_away_when_none_of_its_keepers_is_there() {
        let part = |worker, copy_workers| OutputPart {
            worker,
            copy_workers,
            name: "part".into(),
            staged_name: "part.0-5-0".into(),
            ..OutputPart::default()
        };
        let view = JobView { parts: vec![part(5, vec![6]), part(6, vec![]), part(0, vec![])], ..JobView::default() };
        let workers = [worker(5, "suspect"), worker(6, "lost")];
        let away: Vec<&OutputPart> = away(&view, &workers).collect();
        assert_eq!(away, [&view.parts[1]], "a dropped part is not away, it is gone");
        assert_eq!(
            away_text(7, away[0], &workers, |_| None),
            "part was kept by worker 6 (w6), which is lost (results/7/part.0-5-0 in its data directory)"
        );
        let unknown = OutputPart { staged_name: "part.0-33-2".into(), ..part(9, vec![5]) };
        assert_eq!(
            away_text(7, &unknown, &workers, |_| Some("no connection in time".into())),
            "part was kept by worker 9, which this cluster does not know (results/7/part.0-33-2 in its data directory); worker 5 (w5): no connection in time"
        );
        assert!(!was_dropped(&view));
    }

    #[test]
    fn a_keeper_that_has_lost_its_part_does_not_count_and_starting_it_does_not_help() {
        let part =
            |worker, copy_workers, gone_at| OutputPart { worker, copy_workers, gone_at, name: "part".into(), ..OutputPart::default() };
        let view = JobView {
            parts: vec![part(5, vec![6], vec![5]), part(5, vec![6], vec![5, 6]), part(5, vec![7], vec![5])],
            ..JobView::default()
        };
        let workers = [worker(5, "alive"), worker(6, "alive"), worker(7, "lost")];
        let away: Vec<&OutputPart> = away(&view, &workers).collect();
        assert_eq!(away, [&view.parts[1], &view.parts[2]]);
        let said = away_text(7, away[0], &workers, |_| None);
        assert_eq!(said, "part was kept by worker 5 (w5), where it is missing or damaged; worker 6 (w6), where it is missing or damaged");
        let fix = |parts: &[&OutputPart], found: u64| away_fix(parts.iter().copied(), |_, worker| worker == found);
        assert_eq!((fix(&away, 0), fix(&away[1..], 0), fix(&away[1..], 7)), (GONE_FIX, AWAY_FIX, GONE_FIX));
        let shown = table(&view, &workers).render(false);
        assert!(shown.contains("1 of") && shown.contains("worker 5 (w5): missing or damaged, worker 6 (w6)"), "{shown}");
    }
}
