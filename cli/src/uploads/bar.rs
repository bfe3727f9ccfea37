//! How far an upload is: a bar with the time left on a terminal, a plain line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::console::Console;
use crate::progress::Pace;
use crate::units::{format_bytes, format_duration};

/// Between two plain lines, and before the first: what is done at once needs none.
const LINE_EVERY: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub struct Bar(Arc<Inner>);

struct Inner {
    doing: &'static str,
    total: AtomicU64,
    done: AtomicU64,
    shown: Option<Mutex<Shown>>,
}

enum Shown {
    Bar(ProgressBar),
    Lines { last: Instant, pace: Pace },
}

impl Bar {
    pub fn new(console: &Console, doing: &'static str) -> Self {
        let shown = if console.quiet {
            None
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
            let style = ProgressStyle::with_template(
                "{prefix:10} [{bar:32}] {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}, {eta} left",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
            bar.set_prefix(doing);
            Some(Mutex::new(Shown::Bar(bar)))
        } else {
            Some(Mutex::new(Shown::Lines { last: Instant::now(), pace: Pace::default() }))
        };
        Self(Arc::new(Inner { doing, total: AtomicU64::new(0), done: AtomicU64::new(0), shown }))
    }

    /// More is to be done than was known.
    pub fn expect(&self, bytes: u64) {
        self.0.total.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn add(&self, bytes: u64) {
        self.set(self.done() + bytes);
    }

    pub fn done(&self) -> u64 {
        self.0.done.load(Ordering::Relaxed)
    }

    pub fn set(&self, bytes: u64) {
        self.0.done.store(bytes, Ordering::Relaxed);
        let Some(shown) = &self.0.shown else { return };
        let total = self.0.total.load(Ordering::Relaxed);
        match &mut *shown.lock().unwrap_or_else(PoisonError::into_inner) {
            Shown::Bar(bar) => {
                bar.set_length(total);
                bar.set_position(bytes);
            }
            Shown::Lines { last, pace } if last.elapsed() >= LINE_EVERY => {
                *last = Instant::now();
                let left = pace.time_left(bytes, total).filter(|left| !left.is_zero());
                let left = left.map_or_else(String::new, |left| format!(", about {} left", format_duration(left)));
                // Of what comes from a pipe nobody knows how much there will be.
                let of = if total > bytes { format!(" of {}", format_bytes(total)) } else { String::new() };
                let _ = writeln!(std::io::stderr(), "{}: {}{of}{left}", self.0.doing, format_bytes(bytes));
            }
            Shown::Lines { .. } => {}
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(shown) = &self.0.shown
            && let Shown::Bar(bar) = &*shown.lock().unwrap_or_else(PoisonError::into_inner)
        {
            bar.finish_and_clear();
        }
    }
}
