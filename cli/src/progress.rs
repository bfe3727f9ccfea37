//! A job's progress on stderr: a bar on a terminal, a plain line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use raftwerk_proto::v1::{JobState, JobView};

use crate::client::Sighting;
use crate::console::Console;
use crate::units::{counted, format_duration, group_digits};
use crate::views::{job, rounds};

/// Between two plain lines: a log file should not be mostly progress.
const LINE_EVERY: Duration = Duration::from_secs(2);

pub struct Progress {
    shown: Shown,
    pace: Pace,
}

enum Shown {
    Nothing,
    Bar(ProgressBar),
    Lines { last: Option<Instant> },
}

impl Progress {
    pub fn new(console: &Console) -> Self {
        let shown = if console.quiet {
            Shown::Nothing
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
            // Without colours in the template, NO_COLOR has nothing to take away.
            let style = ProgressStyle::with_template("{prefix:10} [{bar:32}] {human_pos}/{human_len} tasks  {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
            Shown::Bar(bar)
        } else {
            Shown::Lines { last: None }
        };
        Self { shown, pace: Pace::default() }
    }

    pub fn on(&mut self, sighting: Sighting<'_>) {
        match sighting {
            Sighting::View(view) => self.update(view),
            Sighting::Lost(reason) => self.say(&format!("contact with the cluster lost ({reason}); looking for another replica")),
            Sighting::Back => self.say("contact with the cluster is back"),
            Sighting::Waits(why) => {
                // Nothing runs, so there is no pace from which to tell the time left.
                self.pace = Pace::default();
                self.say(&format!("the job waits: {why}"));
            }
        }
    }

    fn update(&mut self, view: &JobView) {
        let (accepted, tasks) = job::tasks_of(view);
        let left = self.pace.time_left(accepted, tasks);
        let eta = match left {
            Some(left) if !left.is_zero() => format!("about {} left", format_duration(left)),
            _ => String::new(),
        };
        match &mut self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => {
                bar.set_length(tasks);
                bar.set_position(accepted);
                bar.set_prefix(phase(view));
                bar.set_message(eta);
            }
            Shown::Lines { last } => {
                let ended = crate::client::ended(view);
                if !ended && last.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
                    *last = Some(Instant::now());
                    let eta = if eta.is_empty() { eta } else { format!(", {eta}") };
                    write_line(&format!("{}: {} of {}{eta}", phase(view), group_digits(accepted), counted(tasks, "task")));
                }
            }
        }
    }

    pub fn say(&self, text: &str) {
        let text = crate::table::printable_lines(text);
        match &self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => bar.suspend(|| write_line(&text)),
            Shown::Lines { .. } => write_line(&text),
        }
    }

    /// Takes the bar away, so that the result stands alone.
    pub fn finish(self) {
        if let Shown::Bar(bar) = self.shown {
            bar.finish_and_clear();
        }
    }
}

fn write_line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn phase(view: &JobView) -> String {
    if view.state() == JobState::Publishing {
        return "publishing".to_owned();
    }
    // Several stages may run beside each other.
    let open: Vec<&str> = view.stages.iter().filter(|stage| stage.open && !stage.complete).map(|stage| stage.name.as_str()).collect();
    let stage = match (open.is_empty(), view.stages.first()) {
        (false, _) => open.join(" and "),
        (true, Some(first)) => first.name.clone(),
        (true, None) => "planning".to_owned(),
    };
    match &view.rounds {
        Some(all) => format!("{}, {stage}", rounds::text(all)),
        None => stage,
    }
}

/// Tasks (or bytes) per second, smoothed, for the time left.
#[derive(Default)]
pub struct Pace {
    last: Option<(Instant, u64)>,
    per_second: f64,
}

impl Pace {
    pub fn time_left(&mut self, accepted: u64, tasks: u64) -> Option<Duration> {
        let now = Instant::now();
        match self.last {
            None => self.last = Some((now, accepted)),
            Some((then, before)) => {
                let seconds = now.duration_since(then).as_secs_f64();
                // Results come in batches; a shorter window would make the estimate jump.
                if seconds >= 0.5 {
                    let rate = accepted.saturating_sub(before) as f64 / seconds;
                    self.per_second = if self.per_second == 0.0 { rate } else { 0.7 * self.per_second + 0.3 * rate };
                    self.last = Some((now, accepted));
                }
            }
        }
        let left = tasks.saturating_sub(accepted) as f64 / self.per_second;
        Duration::try_from_secs_f64(left).ok().filter(|_| self.per_second > 0.0)
    }
}
