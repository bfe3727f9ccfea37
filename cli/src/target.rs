//! Which cluster a command talks to: flags, then the environment, then the context.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::client::Cluster;
use crate::contexts::{self, Contexts};
use crate::credential::load_credential;
use crate::failure::{Exit, Failure};
use crate::job_file::hint;
use crate::temporary;
use crate::units::{parse_address, parse_duration};

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Cluster")]
pub struct Target {
    /// Context to use instead of the current one [env: RAFTWERK_CONTEXT]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Scheduler addresses, separated by commas [env: RAFTWERK_ADDRESS]
    #[arg(long, global = true, value_name = "HOST:PORT", value_delimiter = ',', value_parser = parse_address)]
    pub address: Vec<String>,
    /// Credential file of a client, such as admin.pem [env: RAFTWERK_CREDENTIAL]
    #[arg(long, global = true, value_name = "FILE")]
    pub credential: Option<PathBuf>,
    /// How long to look for a replica that answers before a call is given up
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,
}

/// A cluster's addresses and credential, before any connection.
#[derive(Debug)]
pub struct Destination {
    /// None when flags or the environment gave everything.
    pub context: Option<String>,
    pub addresses: Vec<String>,
    pub credential: PathBuf,
    /// The addresses are those of the context.
    pub from_context: bool,
}

impl Target {
    pub fn destination(&self) -> Result<Destination, Failure> {
        let wish = Wish::of(self, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))?;
        if let (false, Some(credential)) = (wish.addresses.is_empty(), &wish.credential) {
            return Ok(Destination { context: None, addresses: wish.addresses, credential: credential.clone(), from_context: false });
        }
        let file = contexts::place()?;
        let known = Contexts::load(&file).map_err(|error| Failure::new(Exit::BadUsage, error))?;
        let Some((name, context)) = known.pick(wish.context.as_deref()) else {
            return Err(no_context(wish.context.as_deref(), &known, &file, !wish.addresses.is_empty()));
        };
        Ok(Destination {
            context: Some(name.to_owned()),
            from_context: wish.addresses.is_empty(),
            addresses: if wish.addresses.is_empty() { context.addresses.clone() } else { wish.addresses },
            credential: wish.credential.unwrap_or_else(|| context.credential.clone()),
        })
    }

    pub fn cluster(&self) -> Result<Cluster, Failure> {
        let destination = self.destination()?;
        if let Some(gone) = destination.gone() {
            return Err(gone);
        }
        let credential = load_credential(&destination.credential)?;
        let cluster = Cluster::new(destination.addresses, credential, self.timeout);
        Ok(match destination.context {
            Some(name) if destination.from_context => cluster.of_context(name),
            _ => cluster,
        })
    }
}

impl Destination {
    /// Why this leads nowhere any more, of the context of a temporary cluster that has ended.
    pub fn gone(&self) -> Option<Failure> {
        let known = contexts::file().and_then(|file| Contexts::load(&file)).unwrap_or_default();
        let whole = |name: &&String| self.from_context && known.contexts.get(*name).is_some_and(|c| c.credential == self.credential);
        let context = self.context.as_ref().filter(whole)?;
        temporary::gone(context, &self.credential, &known)
    }
}

/// What flags and environment ask for. A flag beats the environment as a whole: `--context b` means b, also in a shell that has
/// RAFTWERK_ADDRESS set for a.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    context: Option<String>,
    addresses: Vec<String>,
    credential: Option<PathBuf>,
}

impl Wish {
    fn of(target: &Target, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let clean =
            |addresses: Vec<&str>| addresses.into_iter().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect();
        let addresses: Vec<String> = clean(target.address.iter().map(String::as_str).collect());
        if target.context.is_some() {
            return Ok(Self { context: target.context.clone(), addresses, credential: target.credential.clone() });
        }
        let from_environment = || {
            let addresses: Vec<String> = variable("RAFTWERK_ADDRESS").map(|text| clean(text.split(',').collect())).unwrap_or_default();
            let wrong =
                |problem| Failure::say(Exit::BadUsage, format!("RAFTWERK_ADDRESS: {problem}")).fix("set it anew, or give --address");
            addresses.into_iter().map(|address| parse_address(&address).map_err(wrong)).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            context: variable("RAFTWERK_CONTEXT"),
            addresses: if addresses.is_empty() { from_environment()? } else { addresses },
            credential: target.credential.clone().or_else(|| variable("RAFTWERK_CREDENTIAL").map(PathBuf::from)),
        })
    }
}

fn no_context(wanted: Option<&str>, known: &Contexts, file: &Path, has_address: bool) -> Failure {
    let names: Vec<&str> = known.contexts.keys().map(String::as_str).collect();
    match wanted.or(known.current.as_deref()) {
        Some(name) => {
            let fix = if names.is_empty() { "add one with `raftwerk context add`".to_owned() } else { hint(name, &names) };
            Failure::say(Exit::NotFound, format!("there is no context `{name}` in {}", file.display())).fix(fix)
        }
        None if has_address => Failure::say(Exit::BadUsage, "an address without a credential")
            .fix("add --credential FILE (the admin.pem in a scheduler's data directory) or set RAFTWERK_CREDENTIAL"),
        None => Failure::say(Exit::BadUsage, "no cluster is chosen").fix(
            "start one here with `raftwerk dev`, name one with `raftwerk context add NAME --address HOST:PORT --credential FILE`, or give \
             --address and --credential",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(context: Option<&str>, address: &[&str]) -> Target {
        Target {
            context: context.map(str::to_owned),
            address: address.iter().map(|address| (*address).to_owned()).collect(),
            credential: None,
            timeout: Duration::from_secs(1),
        }
    }

    fn environment(name: &str) -> Option<String> {
        match name {
            "RAFTWERK_ADDRESS" => Some("a:1, b:2".to_owned()),
            "RAFTWERK_CREDENTIAL" => Some("/env.pem".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn the_environment_stands_in_for_flags() {
        let wish = Wish::of(&target(None, &[]), environment).unwrap();
        assert_eq!(wish.addresses, ["a:1", "b:2"]);
        assert_eq!(wish.credential, Some("/env.pem".into()));
        assert_eq!(Wish::of(&target(None, &["c:3"]), environment).unwrap().addresses, ["c:3"]);
    }

    #[test]
    fn a_context_flag_beats_the_environment() {
        let wish = Wish::of(&target(Some("b"), &[]), environment).unwrap();
        assert_eq!(wish, Wish { context: Some("b".into()), addresses: vec![], credential: None });
    }
}
