//! Directories of temporary clusters, which end with the `dev` or `run` that made them; and what is left of those that were killed.
//!
//! ```text
//! <TMPDIR>/raftwerk-dev-XXXXXX/owner    locked by its process for as long as that lives, however it ends; says what it would have put back
//!                              scheduler-1/ worker-1/ ..   each locked by the process that uses it
//! ```
//! A process that is killed cannot tidy up, and leaves a credential and a context that leads nowhere. The next one does it, when the kernel has
//! given back every lock of the directory: a process id alone could be somebody else's by now.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::console::Console;
use crate::contexts::{self, Contexts};
use crate::failure::{Exit, Failure};

pub const DEV: &str = "raftwerk-dev-";
pub const RUN: &str = "raftwerk-run-";
const OWNER: &str = "owner";
/// What a scheduler's and a worker's data directory are locked by.
const LOCKS: [&str; 2] = ["LOCK", "lock"];
/// Processes of a `dev` that was killed end by themselves, when they notice; that takes less than this.
const ENDING: Duration = Duration::from_secs(12);
const PAUSE: Duration = Duration::from_millis(100);

/// What is to be put back when the cluster goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// The context that leads to the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    context: Option<String>,
    /// The one that was current before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    former: Option<String>,
}

/// A temporary directory with its owner's lock. Dropping it removes the directory.
pub struct Temporary {
    dir: tempfile::TempDir,
    owner: File,
}

impl Temporary {
    pub fn make(prefix: &str) -> std::io::Result<Self> {
        let dir = tempfile::Builder::new().prefix(prefix).tempdir()?;
        // Never there without its lock, or somebody who tidies up just now would take the directory.
        let unlocked = dir.path().join("owner.tmp");
        let owner = OpenOptions::new().read(true).write(true).create_new(true).open(&unlocked)?;
        owner.lock()?;
        std::fs::rename(unlocked, dir.path().join(OWNER))?;
        Ok(Self { dir, owner })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes down what a successor would have to put back. Call it before the context is written.
    pub fn note(&self, context: &str, former: Option<&str>) -> std::io::Result<()> {
        let note = Note { context: Some(context.to_owned()), former: former.map(str::to_owned) };
        let text = toml::to_string(&note).map_err(std::io::Error::other)?;
        self.owner.set_len(0)?;
        let mut file = &self.owner;
        file.rewind()?;
        file.write_all(text.as_bytes())
    }

    /// Leaves the directory to the person who asked for it: nobody will tidy it up.
    pub fn keep(self) -> PathBuf {
        let _ = std::fs::remove_file(self.dir.path().join(OWNER));
        self.dir.keep()
    }

    pub fn close(self) -> std::io::Result<()> {
        self.dir.close()
    }
}

/// What has become of a cluster whose credential lies in a temporary directory.
#[derive(Debug, PartialEq, Eq)]
enum Life {
    Running,
    /// Its owner is gone, and some of its processes are still there.
    Ending,
    Gone,
}

/// Of a directory that may not be there any more.
fn life(dir: &Path) -> Life {
    let owner = match File::open(dir.join(OWNER)) {
        Ok(owner) => owner,
        // One that was kept, or is of a release without this file, is nobody's business here.
        Err(_) if dir.exists() => return Life::Running,
        Err(_) => return Life::Gone,
    };
    if !is_free(&owner) {
        return Life::Running;
    }
    let parts = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut locks = parts.flat_map(|part| LOCKS.map(|lock| part.path().join(lock))).filter_map(|lock| File::open(lock).ok());
    if locks.all(|lock| is_free(&lock)) { Life::Gone } else { Life::Ending }
}

/// Whether nobody holds it for himself. It is given back at once: others may ask at the same time.
fn is_free(lock: &File) -> bool {
    match lock.try_lock_shared() {
        Ok(()) => {
            let _ = lock.unlock();
            true
        }
        Err(TryLockError::WouldBlock) => false,
        // Not to be known: as if it were held, which does no harm.
        Err(TryLockError::Error(_)) => false,
    }
}

/// The directory of the `dev` cluster that a credential belongs to, if it is a temporary one.
fn dev_dir(credential: &Path) -> Option<&Path> {
    let dir = credential.parent()?.parent()?;
    dir.file_name()?.to_str()?.starts_with(DEV).then_some(dir)
}

/// Why a context is of no use any more: it leads to a temporary cluster that is gone.
pub fn gone(context: &str, credential: &Path, known: &Contexts) -> Option<Failure> {
    let dir = dev_dir(credential).filter(|dir| life(dir) == Life::Gone)?;
    let others: Vec<&str> = known.contexts.keys().map(String::as_str).filter(|name| *name != context).collect();
    let other = match others.as_slice() {
        [] => String::new(),
        [one] => format!(", or go to another cluster with `raftwerk context use {one}`"),
        several => format!(", or go to another cluster with `raftwerk context use NAME` ({})", several.join(", ")),
    };
    let failure = Failure::say(Exit::ContactLost, format!("the cluster of `raftwerk dev` that context `{context}` leads to is gone"));
    let rest = if dir.exists() { format!(" (it also removes what was left in {})", dir.display()) } else { String::new() };
    Some(failure.fix(format!("start one again with `raftwerk dev`{rest}{other}")))
}

/// Removes what killed ones of this user have left, and says so. Those whose processes are about to end are waited for if that is asked for.
pub async fn tidy_up(console: &Console, wait: bool) {
    let until = Instant::now() + if wait { ENDING } else { Duration::ZERO };
    let mut told = false;
    for dir in candidates() {
        while life(&dir) == Life::Ending && Instant::now() < until {
            if !std::mem::replace(&mut told, true) {
                console.note(format!("the processes of a cluster in {} whose `raftwerk dev` was killed are about to end", dir.display()));
            }
            tokio::time::sleep(PAUSE).await;
        }
        if life(&dir) == Life::Gone {
            remove(console, &dir);
        }
    }
    forget_those_without_directory(console);
}

/// Directories of this user that look like those of temporary clusters: beside where one would be made now, and where contexts lead.
fn candidates() -> Vec<PathBuf> {
    // Whose files this process makes.
    let Ok(user) = tempfile::tempfile().and_then(|file| file.metadata()).map(|own| own.uid()) else { return Vec::new() };
    let beside = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten().map(|entry| entry.path());
    let contexts = contexts::file().and_then(|file| Contexts::load(&file)).unwrap_or_default();
    let by_context = contexts.contexts.values().filter_map(|context| dev_dir(&context.credential).map(Path::to_owned));
    let found = beside.chain(by_context).filter(|dir| looks_temporary(dir, user));
    // As contexts name them.
    let mut dirs: Vec<PathBuf> = found.filter_map(|dir| dir.canonicalize().ok()).collect();
    dirs.sort();
    dirs.dedup();
    dirs
}

fn looks_temporary(dir: &Path, user: u32) -> bool {
    let named = dir.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(DEV) || name.starts_with(RUN));
    // Not through links: anybody may make one in a shared directory.
    named && dir.symlink_metadata().is_ok_and(|found| found.is_dir() && found.uid() == user)
}

fn remove(console: &Console, dir: &Path) {
    let Ok(mut owner) = File::open(dir.join(OWNER)) else { return };
    // For oneself, so that of two that tidy up at the same time one does it.
    if owner.try_lock().is_err() {
        return;
    }
    let mut text = String::new();
    let note: Note = owner.read_to_string(&mut text).ok().and_then(|_| toml::from_str(&text).ok()).unwrap_or_default();
    if let Err(error) = std::fs::remove_dir_all(dir) {
        return console.note(format!("what a killed raftwerk left in {} cannot be removed: {error}", dir.display()));
    }
    console.note(format!("removed {}, which a raftwerk that was killed had left", dir.display()));
    if let Some(name) = note.context {
        forget(console, &name, note.former.as_deref(), |credential| credential.starts_with(dir));
    }
}

/// Contexts of temporary clusters of which nothing at all is left: the machine was started again, or somebody has emptied the directory.
fn forget_those_without_directory(console: &Console) {
    let Ok(known) = contexts::file().and_then(|file| Contexts::load(&file)) else { return };
    for (name, context) in &known.contexts {
        if dev_dir(&context.credential).is_some_and(|dir| !dir.exists()) {
            forget(console, name, None, |credential| credential == context.credential);
        }
    }
}

fn forget(console: &Console, name: &str, former: Option<&str>, is_it: impl Fn(&Path) -> bool) {
    let Ok(known) = contexts::file().and_then(|file| Contexts::load(&file)) else { return };
    let Some(context) = known.contexts.get(name).filter(|context| is_it(&context.credential)) else { return };
    match contexts::forget(name, context, former) {
        Ok(()) => console.note(format!("removed its context {name}")),
        Err(error) => console.note(format!("its context {name} cannot be removed: {error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_lives_as_long_as_its_owner_and_its_parts() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(life(dir.path()), Life::Running, "not one of ours");
        let lock = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = File::create(path).unwrap();
            file.lock().unwrap();
            file
        };
        let (owner, scheduler, worker) = (lock(OWNER), lock("scheduler-1/LOCK"), lock("worker-1/lock"));
        assert_eq!(life(dir.path()), Life::Running);
        drop(owner);
        assert_eq!(life(dir.path()), Life::Ending);
        drop(scheduler);
        assert_eq!(life(dir.path()), Life::Ending);
        drop(worker);
        assert_eq!(life(dir.path()), Life::Gone);
        assert_eq!(life(&dir.path().join("not there")), Life::Gone);
    }

    #[test]
    fn what_is_to_be_put_back_is_written_down_and_a_kept_directory_is_nobodys() {
        let temporary = Temporary::make(RUN).unwrap();
        temporary.note("dev", None).unwrap();
        temporary.note("a", Some("mine")).unwrap();
        let text = std::fs::read_to_string(temporary.path().join(OWNER)).unwrap();
        assert_eq!(toml::from_str::<Note>(&text).unwrap(), Note { context: Some("a".into()), former: Some("mine".into()) });
        let kept = temporary.keep();
        assert_eq!(life(&kept), Life::Running);
        std::fs::remove_dir_all(kept).unwrap();
    }

    #[test]
    fn a_context_is_gone_only_when_it_leads_to_a_temporary_cluster() {
        let known = Contexts::default();
        let said = |credential: &str| gone("dev", Path::new(credential), &known).map(|failure| failure.lines().join("\n"));
        assert_eq!(said("/not/there/scheduler-1/admin.pem"), None);
        let gone = said("/not/there/raftwerk-dev-x1/scheduler-1/admin.pem").unwrap();
        assert_eq!(
            gone,
            "error: the cluster of `raftwerk dev` that context `dev` leads to is gone\nfix: start one again with `raftwerk dev`"
        );
    }

    #[test]
    fn links_and_directories_of_others_are_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let user = parent.path().metadata().unwrap().uid();
        let (real, link, other) =
            (parent.path().join("raftwerk-dev-a"), parent.path().join("raftwerk-dev-b"), parent.path().join("something"));
        std::fs::create_dir(&real).unwrap();
        std::fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&other, &link).unwrap();
        assert!(looks_temporary(&real, user));
        assert!(!looks_temporary(&real, user + 1) && !looks_temporary(&link, user) && !looks_temporary(&other, user));
    }
}
