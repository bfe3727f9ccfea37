//! Places where a test makes a leader die: the only way to hit one step of a publish for certain. Debug builds alone have them.
//!
//! `RAFTWERK_FAIL_AT` holds wishes `kill:POINT:FILE`, separated by commas. Several schedulers may have the same wish: the one that creates
//! `FILE` dies.

#[cfg(debug_assertions)]
pub(crate) use armed::{on_effect, on_input};

#[cfg(not(debug_assertions))]
pub(crate) fn on_input(_: &crate::leader::Input) {}
#[cfg(not(debug_assertions))]
pub(crate) fn on_effect(_: &crate::leader::Effect) {}

#[cfg(debug_assertions)]
mod armed {
    use crate::leader::{Effect, Input};
    use raftwerk_proto::v1::{scheduler_message as down, worker_message as up};

    /// Parts are prepared and the decision is not in the log; or the output is in place and the log does not know.
    pub(crate) fn on_input(input: &Input) {
        match input {
            Input::FromWorker { message: up::Message::Reports(reports), .. } if reports.reports.iter().any(|r| !r.parts.is_empty()) => {
                reach("leader.prepared");
            }
            Input::FromWorker { message: up::Message::Published(_), .. } => reach("leader.published"),
            _ => {}
        }
    }

    /// The decision is in the log and nobody has been asked to carry it out.
    pub(crate) fn on_effect(effect: &Effect) {
        if let Effect::Send { message: down::Message::Publish(_), .. } = effect {
            reach("leader.decided");
        }
    }

    fn reach(point: &str) {
        let Ok(wishes) = std::env::var("RAFTWERK_FAIL_AT") else { return };
        for wish in wishes.split(',') {
            let mut words = wish.splitn(3, ':');
            let (Some("kill"), Some(at), Some(file)) = (words.next(), words.next(), words.next()) else { continue };
            if at == point && std::fs::OpenOptions::new().write(true).create_new(true).open(file).is_ok() {
                tracing::warn!(point, "a fail point is reached");
                std::process::abort();
            }
        }
    }
}
