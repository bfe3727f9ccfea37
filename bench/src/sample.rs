//! Median and spread of repeated measurements.

pub struct Sample(Vec<f64>);

impl Sample {
    pub fn new(mut values: Vec<f64>) -> Sample {
        values.sort_by(f64::total_cmp);
        Sample(values)
    }

    /// Nearest-rank percentile.
    pub fn percentile(&self, percent: f64) -> f64 {
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    pub fn median(&self) -> f64 {
        self.percentile(50.0)
    }

    pub fn min(&self) -> f64 {
        self.percentile(0.0)
    }

    pub fn max(&self) -> f64 {
        self.percentile(100.0)
    }
}

/// A job of `tasks` tasks that each return their number after sleeping `sleep_us` microseconds.
pub fn noop(tasks: u64, sleep_us: u64, max_lease_tasks: u64) -> String {
    format!(
        "[job]\nname = \"noop\"\n[input]\nrange = {{ start = 0, count = {tasks}, tasks = {tasks} }}\n[map]\nkernel = \"noop\"\nmax_lease_tasks = {max_lease_tasks}\nparams = {{ sleep_us = {sleep_us} }}\n"
    )
}

pub fn seconds(job: &serde_json::Value) -> f64 {
    let ms = |key: &str| job[key].as_u64().unwrap_or(0) as f64;
    (ms("finished_at_ms") - ms("submitted_at_ms")) / 1000.0
}

/// Every task ran and counted exactly once.
pub fn assert_sum(job: &serde_json::Value, tasks: u64) {
    let expected = (u128::from(tasks) * u128::from(tasks - 1) / 2).to_string();
    assert_eq!(job["tallies"][0]["total"].as_str(), Some(expected.as_str()), "{job:#}");
}

/// Resident bytes of a process, and the peak.
pub fn resident(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |key: &str| {
        let line = status.lines().find(|l| l.starts_with(key)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    (kib("VmRSS:"), kib("VmHWM:"))
}

/// CPU seconds that a process has used.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold spaces; user and system time are the 12th and 13th field after it, in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
