//! Whether the system killed an executor because memory ran out, by its own count of such kills.
//!
//! A signal 9 says nothing about who sent it. Linux counts the processes of a control group that it killed for lack of memory, whichever limit
//! was reached (`memory.events` of version 2, `memory.oom_control` of version 1), and those of the whole machine (`/proc/vmstat`).

use std::fs;
use std::path::{Path, PathBuf};

/// Kills for lack of memory so far in this process's control group, or on this machine where the group is not told; `None` where nobody
/// counts. An executor is in the group of its agent.
pub(crate) fn kills() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let first = |files: Vec<PathBuf>| files.iter().find_map(|file| count(&fs::read_to_string(file).ok()?));
    first(of_group(&groups, Path::new("/sys/fs/cgroup"))).or_else(|| first(vec!["/proc/vmstat".into()]))
}

/// Where the counts of this process's groups may be, by `/proc/self/cgroup`. In a container the group's own path is not seen and the root is
/// its own.
fn of_group(groups: &str, root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (dirs, file): (&[&str], _) = match controllers {
            "" => (&["", "unified"], "memory.events"),
            list if list.split(',').any(|name| name == "memory") => (&["memory"], "memory.oom_control"),
            _ => continue,
        };
        for dir in dirs {
            files.push(root.join(dir).join(path.trim_start_matches('/')).join(file));
            files.push(root.join(dir).join(file));
        }
    }
    files
}

/// The number behind `oom_kill`.
fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_in_all_three_shapes() {
        assert_eq!(count("low 0\nhigh 0\nmax 4\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), Some(7));
        assert_eq!(count("pgfault 12\noom_kill 1\n"), Some(1));
        assert_eq!(count("oom 3\n"), None, "an older system");
    }

    #[test]
    fn both_versions_of_control_groups_are_looked_for_and_the_own_group_first() {
        let files = of_group("9:cpu,memory:/a/b\n3:cpuset:/\nnonsense\n0::/c\n", Path::new("/r"));
        let expected = [
            "/r/memory/a/b/memory.oom_control",
            "/r/memory/memory.oom_control",
            "/r/c/memory.events",
            "/r/memory.events",
            "/r/unified/c/memory.events",
            "/r/unified/memory.events",
        ];
        assert_eq!(files, expected.map(PathBuf::from));
    }
}
