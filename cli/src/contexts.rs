//! The contexts file: names for clusters, so that a command needs no address.
//!
//! ```toml
//! current = "dev"
//! [contexts.dev]
//! addresses = ["127.0.0.1:7301", "127.0.0.1:7302"]
//! credential = "/home/ann/.local/raftwerk/admin.pem"
//! ```
//! It holds no secret, only where the credential lies.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    pub addresses: Vec<String>,
    pub credential: PathBuf,
}

/// `RAFTWERK_CONFIG` names the file itself; otherwise it lies where the XDG base directories say.
pub fn file() -> anyhow::Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = variable("RAFTWERK_CONFIG") {
        return Ok(file);
    }
    let config = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    let config = config.context("neither RAFTWERK_CONFIG nor XDG_CONFIG_HOME nor HOME is set, so there is no place for contexts.toml")?;
    Ok(config.join("raftwerk").join("contexts.toml"))
}

/// The same for a command that cannot go on without it.
pub fn place() -> Result<PathBuf, Failure> {
    file().map_err(|error| {
        Failure::new(Exit::BadUsage, error)
            .fix("set HOME, or RAFTWERK_CONFIG to a file, or name the cluster with --address and --credential")
    })
}

/// Where links lead from `file`, also when nothing is there yet: whoever keeps the file elsewhere wants it to stay there.
fn behind_links(file: &Path) -> PathBuf {
    /// As the kernel counts.
    const MOST: usize = 40;
    let mut path = file.to_owned();
    for _ in 0..MOST {
        let Ok(target) = std::fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path
}

impl Contexts {
    /// A missing file is an empty one.
    pub fn load(file: &Path) -> anyhow::Result<Self> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        toml::from_str(&text).with_context(|| format!("{} is not a contexts file", file.display()))
    }

    /// Replaces the file in one step, so that a reader sees the old contexts or the new ones.
    pub fn save(&self, file: &Path) -> anyhow::Result<()> {
        let doing = || format!("cannot write {}", file.display());
        let file = &behind_links(file);
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir).with_context(doing)?;
        let text = toml::to_string_pretty(self).with_context(doing)?;
        let mut next = tempfile::NamedTempFile::new_in(dir).with_context(doing)?;
        next.write_all(text.as_bytes()).and_then(|()| next.as_file().sync_all()).with_context(doing)?;
        next.persist(file).with_context(doing)?;
        Ok(())
    }

    /// The context called `name`, or the current one; with its name.
    pub fn pick(&self, name: Option<&str>) -> Option<(&str, &Context)> {
        let name = name.or(self.current.as_deref())?;
        self.contexts.get_key_value(name).map(|(name, context)| (name.as_str(), context))
    }
}

/// Adds or replaces a context and makes it the current one.
pub fn write(name: &str, context: Context) -> anyhow::Result<()> {
    let file = file()?;
    let mut contexts = Contexts::load(&file)?;
    contexts.contexts.insert(name.to_owned(), context);
    contexts.current = Some(name.to_owned());
    contexts.save(&file)
}

/// Gives a context other addresses, unless somebody did so meanwhile.
pub fn relocate(name: &str, expected: &[String], addresses: &[String]) -> anyhow::Result<()> {
    let file = file()?;
    let mut contexts = Contexts::load(&file)?;
    let context = contexts.contexts.get_mut(name).filter(|context| context.addresses == expected);
    context.context("it was changed meanwhile")?.addresses = addresses.to_vec();
    contexts.save(&file)
}

/// Takes a context out again, unless somebody changed it meanwhile.
pub fn forget(name: &str, expected: &Context, former_current: Option<&str>) -> anyhow::Result<()> {
    let file = file()?;
    let mut contexts = Contexts::load(&file)?;
    if contexts.contexts.get(name) != Some(expected) {
        return Ok(());
    }
    contexts.contexts.remove(name);
    if contexts.current.as_deref() == Some(name) {
        contexts.current = former_current.filter(|former| contexts.contexts.contains_key(*former)).map(str::to_owned);
    }
    contexts.save(&file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(port: u16) -> Context {
        Context { addresses: vec![format!("127.0.0.1:{port}")], credential: "/c/admin.pem".into() }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("deep/contexts.toml");
        assert_eq!(Contexts::load(&file).unwrap(), Contexts::default());
        let mut contexts = Contexts { current: Some("a".into()), ..Contexts::default() };
        contexts.contexts.insert("a".into(), context(1));
        contexts.contexts.insert("b".into(), context(2));
        contexts.save(&file).unwrap();
        assert_eq!(Contexts::load(&file).unwrap(), contexts);
        assert_eq!(contexts.pick(None).unwrap().0, "a");
        assert_eq!(contexts.pick(Some("b")).unwrap().1, &context(2));
        assert!(contexts.pick(Some("c")).is_none());
    }

    #[test]
    fn a_link_stays_a_link_and_its_target_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (link, target) = (dir.path().join("contexts.toml"), dir.path().join("dotfiles/raftwerk.toml"));
        std::os::unix::fs::symlink("dotfiles/raftwerk.toml", &link).unwrap();
        let mut contexts = Contexts::default();
        // Once while it leads nowhere, and once more.
        for port in [1, 2] {
            contexts.contexts.insert("a".into(), context(port));
            contexts.save(&link).unwrap();
            assert!(link.symlink_metadata().unwrap().is_symlink());
            assert_eq!(Contexts::load(&target).unwrap(), contexts);
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("contexts.toml");
        std::fs::write(&file, "currant = 1").unwrap();
        let error = format!("{:#}", Contexts::load(&file).unwrap_err());
        assert!(error.contains("is not a contexts file") && error.contains("currant"), "{error}");
    }
}
