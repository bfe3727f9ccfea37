//! Which tasks really ran, read from the logs of the workers: one line per executed task, written while it ran, so that the record
//! survives a killed worker (but for lines that were still in the pipe).

use super::decisions;
use raftwerk_core::LeaseId;

/// One line that an executing task printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    pub worker: String,
    /// Unix microseconds at which the worker read it.
    pub at_us: u64,
    /// Unique over all jobs of a run: jobs have ranges of their own.
    pub index: u64,
}

/// A lease that a worker was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantSeen {
    pub worker: String,
    pub at_us: u64,
    pub lease: LeaseId,
    pub job: u64,
    pub first_task: u64,
    pub tasks: u64,
}

pub fn executions(worker: &str, log: &str) -> Vec<Execution> {
    lines(log, "raftwerk_worker::output")
        .filter_map(|(at_us, text)| {
            let index = text.split_once(" at index ")?.1.trim().parse().ok()?;
            Some(Execution { worker: worker.to_owned(), at_us, index })
        })
        .collect()
}

pub fn grants(worker: &str, log: &str) -> Vec<GrantSeen> {
    lines(log, "raftwerk_worker::leases")
        .filter_map(|(at_us, text)| {
            let number = |name| field(text, name)?.parse().ok();
            Some(GrantSeen {
                worker: worker.to_owned(),
                at_us,
                lease: decisions::lease(field(text, "lease=")?)?,
                job: number("job=")?,
                first_task: number("first_task=")?,
                tasks: number("tasks=")?,
            })
        })
        .collect()
}

/// When this worker was welcomed by a leader, and the leader's address.
pub fn welcomes(log: &str) -> Vec<(u64, String)> {
    log.lines()
        .filter(|line| line.contains("registered with the cluster"))
        .filter_map(|line| {
            let (time, text) = line.split_once(' ')?;
            let leader = text.split_whitespace().find_map(|word| word.strip_prefix("leader="))?;
            Some((parse_time(time)?, leader.trim_matches('"').to_owned()))
        })
        .collect()
}

/// The word of a line that begins like this, without its beginning.
pub(super) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split_whitespace().find_map(|word| word.strip_prefix(name))
}

/// Times and texts of the lines of one target.
pub(super) fn lines<'a>(log: &'a str, target: &'a str) -> impl Iterator<Item = (u64, &'a str)> {
    log.lines().filter_map(move |line| {
        let (time, rest) = line.split_once(' ')?;
        let (_level, rest) = rest.trim_start().split_once(' ')?;
        let text = rest.trim_start().strip_prefix(target)?.strip_prefix(':')?;
        Some((parse_time(time)?, text))
    })
}

/// Microseconds of "2026-11-21T09:55:08.123456Z".
fn parse_time(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|n| n.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.splitn(3, ':');
    let (hour, minute): (u64, u64) = (time.next()?.parse().ok()?, time.next()?.parse().ok()?);
    let (second, fraction) = time.next()?.split_once('.')?;
    let second: u64 = second.parse().ok()?;
    let micros: u64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    // Days since 1970 of a date of the Gregorian calendar, counted from March so that the leap day is the last.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some((u64::try_from(days).ok()? * 86_400 + hour * 3600 + minute * 60 + second) * 1_000_000 + micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_unix_microseconds() {
        assert_eq!(parse_time("1970-01-01T00:00:00.000001Z"), Some(1));
        assert_eq!(parse_time("2000-02-29T12:00:00.5Z"), Some(951_825_600_500_000));
        assert_eq!(parse_time("2026-11-21T09:55:08.123456Z"), Some(1_795_254_908_123_456));
        assert_eq!(parse_time("yesterday"), None);
    }

    #[test]
    fn a_workers_log_tells_what_it_ran_and_was_given() {
        let log = "\
2026-11-21T09:55:08.000000Z  INFO raftwerk_worker::agent::edge: registered with the cluster worker=1 session=9 leader=\"127.0.0.1:1\"
2026-11-21T09:55:08.000001Z DEBUG raftwerk_worker::leases: granted lease=0-12-0 job=3 first_task=7 tasks=1
2026-11-21T09:55:08.000002Z DEBUG raftwerk_worker::output: task 7 at index 1000007
2026-11-21T09:55:08.000003Z DEBUG raftwerk_worker::output: something else
";
        let base = 1_795_254_908_000_000;
        let lease = LeaseId { epoch: 0, index: 12, position: 0 };
        assert_eq!(executions("w", log), [Execution { worker: "w".into(), at_us: base + 2, index: 1_000_007 }]);
        assert_eq!(grants("w", log), [GrantSeen { worker: "w".into(), at_us: base + 1, lease, job: 3, first_task: 7, tasks: 1 }]);
        assert_eq!(welcomes(log), [(base, "127.0.0.1:1".to_owned())]);
    }
}
