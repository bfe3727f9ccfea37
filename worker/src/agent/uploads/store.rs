//! Uploads on this worker's disk.
//!
//! ```text
//! <data dir>/uploads/<id>/manifest             UploadManifest: the files and their names
//!                        /00000-words.txt      the first of them
//! <data dir>/uploads/<id>.<n>.half/            one on its way here, or on its way out
//! ```
//! A directory gets its name when all of it is flushed, so what has a name is whole. The files of the same upload have the same time of last change on
//! every worker: it is their version, as the listing of a job has it.
use crate::agent::staging::sync_dir;
use crate::upload::{bytes, check};
use raftwerk_proto::Wire;
use raftwerk_proto::v1::UploadManifest;
use raftwerk_proto::{is_upload_id, upload_path};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

const HALF: &str = ".half";
const MANIFEST: &str = "manifest";

/// What came, was read or was looked at so lately stays, whatever the leader says: the job that it is for may be on its way to it.
const STAYS: Duration = Duration::from_secs(300);

pub(crate) struct UploadStore {
    dir: PathBuf,
    held: Mutex<BTreeMap<String, Held>>,
    halves: AtomicU64,
    stays: Duration,
}

struct Held {
    manifest: UploadManifest,
    touched: Instant,
}

impl UploadStore {
    /// Finds what earlier processes held, and removes what was on its way.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let dir = data_dir.join("uploads");
        fs::create_dir_all(&dir)?;
        let mut held = BTreeMap::new();
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let found = entry.file_name().to_str().filter(|name| is_upload_id(name)).and_then(|id| whole(&entry.path(), id));
            match found {
                Some(manifest) => {
                    held.insert(manifest.id.clone(), Held { manifest, touched: Instant::now() });
                }
                None if entry.file_type()?.is_dir() => fs::remove_dir_all(entry.path())?,
                None => {}
            }
        }
        Ok(Self { dir, held: Mutex::new(held), halves: AtomicU64::new(0), stays: stays() })
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.held().keys().cloned().collect()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.held().values().map(|held| bytes(&held.manifest)).sum()
    }

    /// What is in it, if it lies here; somebody needs it.
    pub(crate) fn touch(&self, id: &str) -> Option<UploadManifest> {
        let mut held = self.held();
        let found = held.get_mut(id)?;
        found.touched = Instant::now();
        Some(found.manifest.clone())
    }

    /// Where a file of an upload lies here; an error for one that does not. Other paths mean what they say.
    pub(crate) fn place(&self, path: &str) -> Result<Option<PathBuf>, String> {
        let Some((id, name)) = upload_path(path) else { return Ok(None) };
        let held = self.held();
        let files = held.get(id).map_or(&[][..], |held| held.manifest.files.as_slice());
        let number = files.iter().position(|file| file.name == name);
        number
            .map(|number| Some(self.dir.join(id).join(file_name(number, name))))
            .ok_or_else(|| format!("{name} of upload {id} does not lie on this worker"))
    }

    pub(super) fn files(&self, manifest: &UploadManifest) -> Vec<PathBuf> {
        let dir = self.dir.join(&manifest.id);
        manifest.files.iter().enumerate().map(|(number, file)| dir.join(file_name(number, &file.name))).collect()
    }

    /// A directory for an upload on its way here.
    pub(super) fn begin(&self, id: &str) -> io::Result<PathBuf> {
        let half = self.half(id);
        fs::create_dir(&half)?;
        Ok(half)
    }

    fn half(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.{}{HALF}", self.halves.fetch_add(1, Ordering::Relaxed)))
    }

    /// All of it is in this directory and flushed: it gets its name.
    pub(super) fn finish(&self, manifest: UploadManifest, half: &Path) -> io::Result<()> {
        let path = half.join(MANIFEST);
        fs::write(&path, manifest.to_wire())?;
        File::open(&path)?.sync_all()?;
        sync_dir(half)?;
        match fs::rename(half, self.dir.join(&manifest.id)) {
            // Somebody else has brought the same.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {}
            renamed => renamed?,
        }
        sync_dir(&self.dir)?;
        self.held().insert(manifest.id.clone(), Held { manifest, touched: Instant::now() });
        Ok(())
    }

    /// Removes those of them that nobody has looked at lately; whether there were any.
    pub(super) fn release(&self, ids: &[String]) -> bool {
        let mut gone = Vec::new();
        let mut held = self.held();
        for id in ids {
            if held.get(id).is_none_or(|held| held.touched.elapsed() < self.stays) {
                continue;
            }
            // Out of the way first: what is half removed must not look whole after a crash.
            let half = self.half(id);
            match fs::rename(self.dir.join(id), &half) {
                Ok(()) => gone.push((id, half)),
                Err(error) => tracing::warn!(upload = id, %error, "cannot remove an upload that nobody needs"),
            }
            held.remove(id);
        }
        drop(held);
        for (id, half) in &gone {
            tracing::info!(upload = id, "removing an upload that no job needs");
            if let Err(error) = fs::remove_dir_all(half) {
                tracing::warn!(upload = id, %error, "cannot remove an upload that nobody needs; the next start of this worker does");
            }
        }
        !gone.is_empty()
    }
}

/// The manifest of an upload whose files are all there.
fn whole(dir: &Path, id: &str) -> Option<UploadManifest> {
    let manifest = UploadManifest::from_wire_slice(&fs::read(dir.join(MANIFEST)).ok()?).ok()?;
    let there = |(number, file): (usize, &raftwerk_proto::v1::UploadFile)| {
        fs::metadata(dir.join(file_name(number, &file.name))).is_ok_and(|found| found.is_file() && found.len() == file.bytes)
    };
    (manifest.id == id && check(&manifest).is_ok() && manifest.files.iter().enumerate().all(there)).then_some(manifest)
}

/// Of the file of this number on disk. Its end says how it is compressed, and its number keeps the order.
pub(super) fn file_name(number: usize, name: &str) -> String {
    const LONGEST: usize = 80;
    let base = name.rsplit('/').next().unwrap_or_default();
    let plain: String = base.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' }).collect();
    format!("{number:05}-{}", &plain[plain.len().saturating_sub(LONGEST)..])
}

/// The time of the last change of a file with this content: in whole, even seconds, which every file system keeps, and long past, so that whoever
/// writes into it changes it.
pub(super) fn time_of(sha256: [u8; 32]) -> SystemTime {
    let [a, b, c, d, ..] = sha256;
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(u32::from_le_bytes([a, b, c, d]) >> 2) & !1)
}

/// In a debug build a test may be less patient.
fn stays() -> Duration {
    #[cfg(debug_assertions)]
    if let Some(ms) = std::env::var("RAFTWERK_UPLOAD_STAYS_MS").ok().and_then(|text| text.parse().ok()) {
        return Duration::from_millis(ms);
    }
    STAYS
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::upload::{HashedFile, manifest};
    use sha2::{Digest, Sha256};

    /// Lays an upload there as if it had come.
    pub(crate) fn held(store: &UploadStore, files: &[(&str, &str)]) -> UploadManifest {
        let hashed = |(name, text): &(&str, &str)| HashedFile {
            name: (*name).into(),
            bytes: text.len() as u64,
            sha256: Sha256::digest(text).into(),
        };
        let manifest = manifest(&mut files.iter().map(hashed).collect::<Vec<_>>()).unwrap();
        let half = store.begin(&manifest.id).unwrap();
        for (number, file) in manifest.files.iter().enumerate() {
            let (_, text) = files.iter().find(|(name, _)| *name == file.name).unwrap();
            fs::write(half.join(file_name(number, &file.name)), text).unwrap();
        }
        store.finish(manifest.clone(), &half).unwrap();
        manifest
    }

    #[test]
    fn a_whole_upload_outlives_the_process_and_half_ones_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = UploadStore::open(dir.path()).unwrap();
        let (one, cut) = (held(&store, &[("/b/words.txt", "one"), ("/a", "")]), held(&store, &[("stdin", "two")]));
        let half = store.begin("0123456789abcdef0123456789abcdef").unwrap();
        fs::write(store.files(&cut)[0].as_path(), "tw").unwrap();
        let again = UploadStore::open(dir.path()).unwrap();
        assert_eq!((again.ids(), again.bytes()), (vec![one.id.clone()], 3));
        assert!(!half.exists() && !dir.path().join("uploads").join(&cut.id).exists());
        let place = again.place(&format!("upload:{}//b/words.txt", one.id)).unwrap().unwrap();
        assert!(place.ends_with("00001-words.txt"), "{}", place.display());
        assert_eq!(fs::read(place).unwrap(), b"one");
        assert_eq!(again.place("/b/words.txt"), Ok(None));
        assert!(again.place(&format!("upload:{}/stdin", cut.id)).unwrap_err().contains("does not lie on this worker"));
    }

    #[test]
    fn what_nobody_needs_goes_once_nobody_has_looked_at_it_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = UploadStore::open(dir.path()).unwrap();
        let one = held(&store, &[("/a", "one")]);
        assert!(!store.release(std::slice::from_ref(&one.id)), "its job may be on its way");
        store.stays = Duration::ZERO;
        assert!(!store.release(&["0123456789abcdef0123456789abcdef".into()]));
        assert!(store.release(std::slice::from_ref(&one.id)));
        assert_eq!((store.ids().len(), fs::read_dir(store.dir()).unwrap().count()), (0, 0));
        assert_eq!(store.touch(&one.id), None);
    }

    #[test]
    fn a_name_never_leads_out_of_the_uploads_directory() {
        for (name, expected) in [("../../etc/passwd", "00007-passwd"), ("/a/..", "00007-.."), ("/", "00007-"), ("ü b.gz", "00007-__b.gz")]
        {
            assert_eq!(file_name(7, name), expected);
        }
        assert!(file_name(7, &"x".repeat(4096)).len() < 100);
    }
}
