//! `raftwerk job result JOB --output DIR` for a result that was published to an object store: its objects are brought here with the keys of this
//! process's own environment, whole or not at all.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raftwerk_proto::v1::{JobView, OutputPart};
use raftwerk_proto::{StoreKind, is_store_url, parse_store_url};
use raftwerk_worker::{StoredResult, StoredResultError};
use tokio::task::JoinSet;

use super::download::{Brought, cannot_write, check_destination, check_names, destination, finish, stage};
use super::signals;
use crate::failure::{Exit, Failure};

/// Parts fetched at once; each has up to 16 MiB in memory.
const AT_ONCE: usize = 4;

/// The prefix in a store that holds the output, if it is in one.
pub fn place(view: &JobView) -> Option<&str> {
    let url = view.spec.as_ref()?.output.as_ref()?.url.as_str();
    is_store_url(url).then_some(url)
}

pub async fn bring(view: &JobView, url: &str, cluster: &str, to: &Path) -> Result<Brought, Failure> {
    tokio::select! {
        outcome = whole(view, url, cluster, to) => outcome,
        signal = signals::stop() => Err(Failure::say(Exit::Interrupted, format!("{signal}: nothing was written to {}", to.display()))),
    }
}

async fn whole(view: &JobView, url: &str, cluster: &str, to: &Path) -> Result<Brought, Failure> {
    let place = destination(to)?;
    check_destination(&place)?;
    check_names(view)?;
    let failed = |error| explained(view.job, url, to, error);
    let stored = StoredResult::open(url, cluster, view.job, &view.parts).await.map_err(failed)?;
    let staging = stage(&place).map_err(|error| cannot_write(&place, &error))?;
    let stored = Arc::new(stored);
    let mut waiting = view.parts.iter();
    let mut coming = JoinSet::new();
    loop {
        for part in waiting.by_ref().take(AT_ONCE.saturating_sub(coming.len())) {
            coming.spawn(one(stored.clone(), part.clone(), staging.path.join(&part.name)));
        }
        match coming.join_next().await {
            None => break,
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err((path, StoredResultError::Local(error))))) => return Err(cannot_write(&path, &error)),
            Some(Ok(Err((_, error)))) => return Err(explained(view.job, url, to, error)),
            Some(Err(error)) => return Err(Failure::new(Exit::Internal, error)),
        }
    }
    finish(&staging, view, cluster, &place).map_err(|error| cannot_write(&place, &error))?;
    Ok(Brought { parts: view.parts.len(), bytes: view.parts.iter().map(|part| part.bytes).sum() })
}

/// Under the name that the part has in a directory: the object's is that of its attempt.
async fn one(stored: Arc<StoredResult>, part: OutputPart, path: PathBuf) -> Result<(), (PathBuf, StoredResultError)> {
    let brought = async {
        let mut file = File::create_new(&path).map_err(StoredResultError::Local)?;
        stored.bring(&part, &mut file).await?;
        file.sync_all().map_err(StoredResultError::Local)
    };
    brought.await.map_err(|error| (path, error))
}

/// What the user can do about it, with the exit code of its kind.
fn explained(job: u64, url: &str, to: &Path, error: StoredResultError) -> Failure {
    use StoredResultError::{Denied, Different, Local, Missing, NotBuilt, Settings, Unreachable};
    let (exit, fix) = match &error {
        NotBuilt(_) => (
            Exit::BadUsage,
            format!(
                "use a `raftwerk` that was built with `--features object-stores`, or the store's own client, {}; its manifest.json names the objects that count",
                by_hand(url, to)
            ),
        ),
        Denied { variables, .. } => {
            (Exit::Refused, format!("set {variables} in the environment of this command, or let its keys read there"))
        }
        Settings { variables, .. } => {
            (Exit::Refused, format!("set {variables} in the environment of this command, as in that of the workers"))
        }
        Missing { .. } | Different { .. } => (Exit::NotFound, "submit the job again, to another prefix".to_owned()),
        Unreachable { .. } => (Exit::ResultAway, "try again later, or look whether this machine reaches the store".to_owned()),
        Local(_) => (Exit::BadUsage, "look at the place that is written to".to_owned()),
    };
    let text = match exit {
        Exit::BadUsage | Exit::Refused => format!("the result of job {job} lies in {url}: {error}"),
        _ => format!("the result of job {job} cannot be brought here: {error}"),
    };
    Failure::say(exit, text).fix(fix)
}

fn by_hand(url: &str, to: &Path) -> String {
    let to = to.display();
    match parse_store_url(url).map(|url| url.kind) {
        Ok(StoreKind::Google) => format!("gcloud storage cp -r {url} {to}"),
        Ok(StoreKind::Azure) => format!("az storage blob download-batch (its container and prefix are in {url}) -d {to}"),
        _ => format!("aws s3 cp --recursive {url} {to}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(error: StoredResultError) -> (Exit, String) {
        let failure = explained(7, "s3://b/out", Path::new("here"), error);
        (failure.exit, failure.lines().join("\n"))
    }

    #[test]
    fn each_reason_has_its_exit_code_and_a_way_out() {
        let object = || "s3://b/out/part-0".to_owned();
        let (exit, text) = said(StoredResultError::NotBuilt("s3://b/out".into()));
        assert!(
            exit == Exit::BadUsage && text.contains("aws s3 cp --recursive s3://b/out here") && text.contains("--features object-stores"),
            "{text}"
        );
        let (exit, text) = said(StoredResultError::Denied { object: object(), reason: "AccessDenied".into(), variables: "AWS_X" });
        assert!(
            exit == Exit::Refused && text.contains("AccessDenied") && text.contains("fix: set AWS_X in the environment of this command"),
            "{text}"
        );
        let (exit, text) = said(StoredResultError::Settings { object: object(), reason: "no bucket".into(), variables: "AWS_Y" });
        assert!(exit == Exit::Refused && text.contains("fix: set AWS_Y"), "{text}");
        let (exit, text) = said(StoredResultError::Missing { object: object() });
        assert!(exit == Exit::NotFound && text.contains("s3://b/out/part-0 is not there"), "{text}");
        let (exit, text) = said(StoredResultError::Different { object: object(), found: "it is shorter".into() });
        assert!(exit == Exit::NotFound && text.contains("is not what the job made: it is shorter"), "{text}");
        let (exit, _) = said(StoredResultError::Unreachable { object: object(), reason: "503".into() });
        assert_eq!(exit, Exit::ResultAway);
    }

    #[cfg(not(feature = "object-stores"))]
    #[tokio::test]
    async fn a_build_without_stores_says_so_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let view = JobView { job: 7, ..JobView::default() };
        let error = bring(&view, "gs://b/out", "c", &dir.path().join("here")).await.err().unwrap();
        let text = error.lines().join("\n");
        assert!(error.exit == Exit::BadUsage && text.contains("gcloud storage cp -r gs://b/out"), "{text}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
