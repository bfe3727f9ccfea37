//! Flags that say which cluster is meant go with a command that talks to one. Many people write them first.

use clap::error::{ContextKind, ContextValue, ErrorKind};

const FLAGS: [&str; 4] = ["--address", "--credential", "--context", "--timeout"];
/// Commands that talk to a cluster which they find by these flags.
const TAKERS: [&str; 7] = ["submit", "job", "worker", "cluster", "costs", "context", "namespace"];
const CLUSTERS_OF_THEIR_OWN: [&str; 3] = ["run", "dev", "doctor"];

/// What to do about it, when the command line `words` (without the program's name) was refused for such a flag.
pub fn fix(error: &clap::Error, words: &[String]) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(said)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = *FLAGS.iter().find(|flag| said.split('=').next() == Some(**flag))?;
    let given = |word: &String| word.split('=').next() == Some(flag);
    let flag_at = words.iter().position(given)?;
    let command = words.iter().position(|word| TAKERS.contains(&word.as_str()) || CLUSTERS_OF_THEIR_OWN.contains(&word.as_str()))?;
    let name = words[command].as_str();
    if CLUSTERS_OF_THEIR_OWN.contains(&name) {
        return Some(format!("`raftwerk {name}` goes to no cluster: take {flag} out; `raftwerk submit` sends a job to one"));
    }
    if name == "worker" && words.iter().any(|word| word == "start") {
        return Some("a worker that starts is told its cluster by --join HOST:PORT and --token-file FILE".to_owned());
    }
    (flag_at < command).then(|| format!("write {flag} behind the command, as in `raftwerk {name} .. {flag} ..`"))
}

#[cfg(test)]
mod tests {
    use super::fix;
    use crate::args::Cli;
    use clap::Parser;

    fn said(line: &str) -> Option<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let error = Cli::try_parse_from([&["raftwerk".to_owned()], &words[..]].concat()).err()?;
        fix(&error, &words)
    }

    #[test]
    fn a_flag_before_its_command_is_told_where_it_goes() {
        assert_eq!(
            said("--address 127.0.0.1:1 job list").unwrap(),
            "write --address behind the command, as in `raftwerk job .. --address ..`"
        );
        assert!(said("-q --credential=/a.pem submit j.toml").unwrap().contains("raftwerk submit .. --credential .."));
        assert!(said("--context mine cluster show").unwrap().contains("--context behind the command"));
        assert!(said("run j.toml --address 127.0.0.1:1").unwrap().contains("goes to no cluster"));
        assert!(said("--timeout 1s run j.toml").unwrap().contains("goes to no cluster"));
        assert!(said("worker start --address 127.0.0.1:1").unwrap().contains("--join HOST:PORT"));
    }

    #[test]
    fn other_mistakes_are_not_about_the_place() {
        for line in [
            "job list --nope",
            "job list --address 127.0.0.1:1",
            "--addres x job list",
            "--address 127.0.0.1:1",
            "kernels list --address a:1",
        ] {
            assert_eq!(said(line), None, "{line}");
        }
    }
}
