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

/// A line that says nothing new comes again after pauses that grow up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

pub struct Progress {
    shown: Shown,
    pace: Pace,
}

enum Shown {
    Nothing,
    Bar(ProgressBar),
    Lines(Lines),
}

/// When the next plain line is due.
#[derive(Default)]
struct Lines {
    last: Option<(Instant, String)>,
    pause: Duration,
}

impl Lines {
    /// Whether to print `what` now; a caller that hears yes does.
    fn are_due(&mut self, what: &str, now: Instant) -> bool {
        let said = self.last.as_ref().is_some_and(|(_, said)| said == what);
        let pause = if said { self.pause } else { LINE_EVERY };
        if self.last.as_ref().is_some_and(|(last, _)| now.duration_since(*last) < pause) {
            return false;
        }
        self.pause = if said { (self.pause * 2).min(LONGEST_PAUSE) } else { LINE_EVERY };
        self.last = Some((now, what.to_owned()));
        true
    }
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
            Shown::Lines(Lines::default())
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
            Shown::Lines(lines) => {
                let line = format!("{}: {} of {}", phase(view), group_digits(accepted), counted(tasks, "task"));
                // The time left changes with every look, also when nothing else does.
                if !crate::client::ended(view) && lines.are_due(&line, Instant::now()) {
                    let eta = if eta.is_empty() { eta } else { format!(", {eta}") };
                    write_line(&format!("{line}{eta}"));
                }
            }
        }
    }

    pub fn say(&self, text: &str) {
        let text = crate::table::printable_lines(text);
        match &self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => bar.suspend(|| write_line(&text)),
            Shown::Lines(_) => write_line(&text),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_says_nothing_new_comes_ever_more_rarely() {
        let (mut lines, begun) = (Lines::default(), Instant::now());
        let mut said_at = |what: &str, seconds: std::ops::Range<u64>| -> Vec<u64> {
            seconds.filter(|second| lines.are_due(what, begun + Duration::from_secs(*second))).collect()
        };
        assert_eq!(said_at("0 of 9", 0..200), [0, 2, 6, 14, 30, 62, 122, 182]);
        assert_eq!(said_at("1 of 9", 200..205), [200, 202], "what is new is said soon");
        assert_eq!(said_at("2 of 9", 205..208), [205, 207]);
        assert_eq!(said_at("3 of 9", 208..210), [209], "and not at once");
    }
}
