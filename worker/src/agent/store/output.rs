//! An output in a store: parts under names of their attempts, and one manifest that makes them an output.
//!
//! ```text
//! s3://bucket/out/part-00003-<cluster>-<job>-<lease>.csv     a part; attempts of one task never share a name
//! s3://bucket/out/manifest.json                              which of them count. Put once: a store refuses a second one
//! ```
//! Stores have no rename, but they create an object only where none is (`If-None-Match: *`), in one act that exactly one of any number of publishers
//! succeeds in. Readers trust the manifest; until it is there, there is no output, and afterwards it never changes.
use super::{
    StoreError,
    address::Address,
    client::{self, Patience, again, block, explain},
    upload::{self, Pieces},
};
use crate::{
    agent::{part_file::PartFiles, publish::MANIFEST, shuffle::fetch::Fetcher, staging::letters},
    fail_point,
    lease::LeaseKey,
};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use raftwerk_proto::v1::{BlockRange, LostPart, OutputPart, Publish, PublishReport};
use serde_json::Value;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// Parts of all leases that go up at once; each has some pieces in memory.
const UPLOADS: usize = 4;
/// Small requests under way at once.
const REQUESTS: usize = 16;
/// A manifest is shorter; what is longer is not ours.
const MANIFEST_BYTES: u64 = 64 << 20;
/// Ended jobs that are remembered.
const RELEASED_JOBS: usize = 4096;
/// The scheduler gives a publisher up after a minute, and a second more for each 20 MB. One that is slower than this does not begin its last step, which
/// itself takes fifteen seconds at most: once given up, nobody publishes.
const PATIENCE: Duration = Duration::from_secs(40);
const PUT_LIMIT: Duration = Duration::from_secs(15);
const SLOWEST_BYTES_PER_MS: u64 = 20_000;

pub(super) struct Outputs {
    cluster: String,
    uploads: Semaphore,
    pieces: Pieces,
    /// Prefixes this agent has written to, by job.
    touched: Mutex<HashMap<u64, Address>>,
    /// Jobs that have ended: a part that is still going up for one must not stay.
    released: Mutex<BTreeSet<u64>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What stands in the way at the destination, and whether it can be reached at all.
pub(crate) fn output_problem(url: &str) -> Result<(), StoreError> {
    let address = Address::parse(url)?;
    let store = client::open(&address, Patience::Question)?;
    block(again(Patience::Question, || async {
        let mut there = store.list(Some(&client::key(&address)?));
        while let Some(meta) = there.next().await {
            let meta = meta.map_err(|error| explain(&address, error))?;
            // Parts that were never published are nobody's output.
            if !meta.location.filename().is_some_and(is_attempt) {
                return Err(StoreError::InTheWay { url: url.into(), found: address.with_key(meta.location.as_ref()).to_string() });
            }
        }
        Ok(())
    }))
}

/// The name of a part's object: its attempt stands before the ending, so that patterns such as `*.csv` find it.
fn object_name(part: &str, cluster: &str, job: u64, lease: LeaseKey) -> String {
    let (stem, ending) = part.rsplit_once('.').map_or((part, String::new()), |(stem, ending)| (stem, format!(".{ending}")));
    format!("{stem}-{cluster}-{job}-{lease}{ending}")
}

/// Whether a name is one of [`object_name`].
fn is_attempt(name: &str) -> bool {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let mut words = stem.rsplitn(6, '-');
    let numbers = (0..4).all(|_| words.next().is_some_and(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())));
    let cluster = words.next().is_some_and(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    numbers && cluster && words.next().is_some_and(|part| part.starts_with("part-"))
}

impl Outputs {
    /// `memory` is what this worker may take of it, if that is limited.
    pub(super) fn new(cluster: &str, memory: Option<u64>) -> Self {
        let (touched, released) = (Mutex::default(), Mutex::default());
        let uploads = Semaphore::new(Fetcher::at_once(memory, UPLOADS));
        Self { cluster: letters(cluster), uploads, pieces: Pieces::within(memory), touched, released }
    }

    fn is_released(&self, job: u64) -> bool {
        locked(&self.released).contains(&job)
    }

    pub(super) fn prepare(
        &self,
        url: &str,
        job: u64,
        lease: LeaseKey,
        files: &PartFiles,
        parts: &mut [OutputPart],
        ranges: &[BlockRange],
    ) -> Result<(), StoreError> {
        let address = Address::parse(url)?;
        if self.is_released(job) {
            return Err(StoreError::Ended);
        }
        locked(&self.touched).insert(job, address.clone());
        let store = client::open(&address, Patience::Work)?;
        block(self.send(&*store, &address, job, lease, files, parts, ranges))?;
        fail_point::reach("store.part");
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "one call, from right above")]
    async fn send(
        &self,
        store: &dyn ObjectStore,
        address: &Address,
        job: u64,
        lease: LeaseKey,
        files: &PartFiles,
        parts: &mut [OutputPart],
        ranges: &[BlockRange],
    ) -> Result<(), StoreError> {
        for part in parts.iter_mut() {
            let range = ranges.iter().find(|range| range.task == u64::from(part.partition));
            let missing = || std::io::Error::other(format!("the executor did not say where part {} is", part.partition));
            let range = range.ok_or_else(missing)?;
            part.staged_name = object_name(&part.name, &self.cluster, job, lease);
            let at = address.child(&part.staged_name);
            {
                let _turn = self.uploads.acquire().await;
                let source = files.of(part.partition)?;
                again(Patience::Work, || upload::upload(store, &at, source, range, part.crc32c, self.pieces)).await?;
            }
            if self.is_released(job) {
                // Whoever released it may have looked before this part was there.
                let _ = store.delete(&client::key(&at)?).await;
                return Err(StoreError::Ended);
            }
        }
        Ok(())
    }

    pub(super) fn publish(&self, request: &Publish, worker: &str) -> PublishReport {
        let report = |error: String, retryable| PublishReport { job: request.job, error, retryable, ..PublishReport::default() };
        match self.try_publish(request) {
            Ok(Published::Done) => {
                fail_point::reach("store.published");
                report(String::new(), false)
            }
            Ok(Published::Lost(lost)) => {
                let first = lost.first().cloned().unwrap_or_default();
                let error = format!(
                    "worker {worker}: {} {} ({} of the parts of the output are lost or not seen here)",
                    first.staged_name,
                    first.reason,
                    lost.len()
                );
                PublishReport { lost, ..report(error, true) }
            }
            Err(error) => report(format!("worker {worker}: {error}"), error.retryable()),
        }
    }

    fn try_publish(&self, request: &Publish) -> Result<Published, StoreError> {
        let began = Instant::now();
        let address = Address::parse(request.output.as_ref().map_or("", |output| &output.url))?;
        let store = client::open(&address, Patience::Work)?;
        let quick = client::open(&address, Patience::Question)?;
        let manifest = manifest_of(request)?;
        locked(&self.touched).insert(request.job, address.clone());
        fail_point::reach("store.asked");
        block(async {
            if is_there(&*store, &address, &manifest).await? {
                return Ok(Published::Done);
            }
            let lost = missing_parts(&*store, &address, &request.parts).await?;
            if !lost.is_empty() {
                return Ok(Published::Lost(lost));
            }
            raftwerk_transport::tasks::blocking(|| fail_point::reach("store.checked")).await.unwrap_or_default();
            let bytes = request.parts.iter().fold(0u64, |sum, part| sum.saturating_add(part.bytes));
            if began.elapsed() > PATIENCE + Duration::from_millis(bytes / SLOWEST_BYTES_PER_MS) || self.is_released(request.job) {
                let reason = "it was so slow that another worker has been asked to publish meanwhile".into();
                return Err(StoreError::Unreachable { url: address.to_string(), reason });
            }
            put_once(&*quick, &*store, &address, &manifest).await?;
            raftwerk_transport::tasks::blocking(|| fail_point::reach("store.put")).await.unwrap_or_default();
            if let Err(error) = again(Patience::Question, || self.collect(&*store, &address, request.job)).await {
                tracing::warn!(job = request.job, output = %address, %error, "cannot remove parts of attempts that were not accepted");
            }
            Ok(Published::Done)
        })
    }

    /// Removes the job's objects that its manifest does not name; all of them when it was not published.
    async fn collect(&self, store: &dyn ObjectStore, address: &Address, job: u64) -> Result<(), StoreError> {
        let manifest = manifest_at(store, &address.child(MANIFEST)).await?;
        let ours =
            manifest.filter(|manifest| manifest["job"] == job && manifest["cluster"].as_str().map(letters) == Some(self.cluster.clone()));
        let named: HashSet<&str> =
            ours.iter().flat_map(|manifest| manifest["parts"].as_array()).flatten().filter_map(|part| part["name"].as_str()).collect();
        let mark = format!("-{}-{job}-", self.cluster);
        let left_over = |meta: &ObjectMeta| {
            meta.location.filename().is_some_and(|name| is_attempt(name) && name.contains(&mark) && !named.contains(name))
        };
        let key = client::key(address)?;
        let there = store.list(Some(&key)).map_err(|error| explain(address, error));
        there
            .try_filter(|meta| std::future::ready(left_over(meta)))
            .try_for_each_concurrent(REQUESTS, |meta| async move {
                tracing::debug!(job, object = %meta.location, "removed: a part of an attempt that was not accepted");
                match store.delete(&meta.location).await {
                    Err(object_store::Error::NotFound { .. }) => Ok(()),
                    deleted => deleted.map_err(|error| explain(address, error)),
                }
            })
            .await
    }

    pub(super) fn release(&self, job: u64) {
        {
            // Job numbers only grow, so the oldest can go: nothing is written for them any more.
            let mut released = locked(&self.released);
            released.insert(job);
            while released.len() > RELEASED_JOBS {
                released.pop_first();
            }
        }
        let Some(address) = locked(&self.touched).remove(&job) else { return };
        let collected =
            client::open(&address, Patience::Work).and_then(|store| block(again(Patience::Work, || self.collect(&*store, &address, job))));
        if let Err(error) = collected {
            tracing::warn!(job, output = %address, %error, "cannot remove what an ended job left in its store");
        }
    }
}

enum Published {
    Done,
    Lost(Vec<LostPart>),
}

/// The scheduler's manifest, with parts under the names that they have in the store.
fn manifest_of(request: &Publish) -> Result<Value, StoreError> {
    let wrong = || StoreError::Local(std::io::Error::other("protocol error: the manifest is not JSON with `job`, `cluster` and the parts"));
    let mut manifest: Value = serde_json::from_str(&request.manifest_json).map_err(|_| wrong())?;
    if !manifest["job"].is_u64() || !manifest["cluster"].is_string() {
        return Err(wrong());
    }
    let names: HashMap<u64, &str> = request.parts.iter().map(|part| (part.partition.into(), part.staged_name.as_str())).collect();
    for part in manifest["parts"].as_array_mut().ok_or_else(wrong)? {
        let name = part["partition"].as_u64().and_then(|partition| names.get(&partition)).ok_or_else(wrong)?;
        part["part"] = part["name"].take();
        part["name"] = (*name).into();
    }
    Ok(manifest)
}

/// The manifest there, if it can be one.
pub(super) async fn manifest_at(store: &dyn ObjectStore, at: &Address) -> Result<Option<Value>, StoreError> {
    let got = match store.get(&client::key(at)?).await {
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        got => got.map_err(|error| explain(at, error))?,
    };
    if got.meta.size > MANIFEST_BYTES {
        return Ok(Some(Value::Null));
    }
    let bytes = got.bytes().await.map_err(|error| explain(at, error))?;
    Ok(Some(serde_json::from_slice(&bytes).unwrap_or_default()))
}

/// Whether the output is there, made by this job; an error when another one is.
async fn is_there(store: &dyn ObjectStore, address: &Address, ours: &Value) -> Result<bool, StoreError> {
    match manifest_at(store, &address.child(MANIFEST)).await? {
        None => Ok(false),
        Some(there) if there["job"] == ours["job"] && there["cluster"] == ours["cluster"] => Ok(true),
        Some(_) => Err(StoreError::InTheWay { url: address.to_string(), found: address.child(MANIFEST).to_string() }),
    }
}

/// The atomic act. Its answer may be lost on the way, so that what is there decides, whatever the answer was.
async fn put_once(quick: &dyn ObjectStore, store: &dyn ObjectStore, address: &Address, manifest: &Value) -> Result<(), StoreError> {
    let at = address.child(MANIFEST);
    let text = serde_json::to_string_pretty(manifest).unwrap_or_default();
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let key = client::key(&at)?;
    let put = tokio::time::timeout(PUT_LIMIT, quick.put_opts(&key, PutPayload::from(text), options)).await;
    let failed = match put {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => explain(&at, error),
        Err(_) => StoreError::Unreachable { url: at.to_string(), reason: "it does not answer".into() },
    };
    if is_there(store, address, manifest).await? { Ok(()) } else { Err(failed) }
}

/// Parts that are not there as they were reported. A store compares what it takes with the checksum that is sent with it, so the object under this name,
/// of this length, is what was read on its way there; it is not read again.
async fn missing_parts(store: &dyn ObjectStore, address: &Address, parts: &[OutputPart]) -> Result<Vec<LostPart>, StoreError> {
    let looks = parts.iter().map(|part| async move {
        let at = address.child(&part.staged_name);
        let options = GetOptions { head: true, ..GetOptions::default() };
        let reason = match store.get_opts(&client::key(&at)?, options).await {
            Err(object_store::Error::NotFound { .. }) => "is missing".to_owned(),
            Err(error) => return Err(explain(&at, error)),
            Ok(there) => match (there.meta.size, upload::checksum_of(&there.attributes)) {
                (bytes, _) if bytes != part.bytes => format!("has {bytes} bytes instead of {}", part.bytes),
                (_, Some(crc)) if crc == part.crc32c => return Ok(None),
                (_, Some(crc)) => format!("is another: its checksum is {crc:08x}, not {:08x}", part.crc32c),
                (_, None) => "was not uploaded by a worker: it has no checksum".to_owned(),
            },
        };
        tracing::warn!(part = part.name, object = %at, reason, "a decided part is not as it was prepared");
        Ok(Some(LostPart { partition: part.partition, staged_name: part.staged_name.clone(), reason }))
    });
    let found: Vec<Option<LostPart>> = stream::iter(looks).buffered(REQUESTS).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::{memory::InMemory, path::Path};
    use std::{os::unix::fs::FileExt, sync::Arc};

    const LEASE: LeaseKey = LeaseKey { epoch: 0, index: 12, position: 1 };

    #[test]
    fn a_part_is_named_after_its_attempt_and_keeps_its_ending() {
        let name = object_name("part-00003.csv", "c1", 7, LEASE);
        assert_eq!(name, "part-00003-c1-7-0-12-1.csv");
        assert!(is_attempt(&name) && is_attempt(&object_name("part-1", "c1", 7, LEASE)));
        for other in ["part-00003.csv", "manifest.json", "a-b-1-2-3.csv", "part-1-c-1-2-3.csv", "x-c1-7-0-12-1.csv", ""] {
            assert!(!is_attempt(other), "{other}");
        }
    }

    struct Bench {
        store: Arc<InMemory>,
        outputs: Outputs,
        address: Address,
    }

    impl Bench {
        fn new() -> Self {
            Self::with_memory(None)
        }

        fn with_memory(memory: Option<u64>) -> Self {
            Self { store: Arc::new(InMemory::new()), outputs: Outputs::new("c-1", memory), address: Address::parse("s3://b/out").unwrap() }
        }

        async fn prepared(&self, job: u64, lease: LeaseKey, text: &[u8]) -> Publish {
            let source = tempfile::tempfile().unwrap();
            source.write_all_at(text, 0).unwrap();
            let (bytes, crc32c) = (text.len() as u64, crc32c::crc32c(text));
            let mut parts = vec![OutputPart { name: "part-00000.csv".into(), bytes, crc32c, ..OutputPart::default() }];
            let files = PartFiles { lease: Some(source.into()), ..PartFiles::default() };
            let range = BlockRange { bytes, ..BlockRange::default() };
            self.outputs.send(&*self.store, &self.address, job, lease, &files, &mut parts, &[range]).await.unwrap();
            let manifest_json = format!(r#"{{"job":{job},"cluster":"c-1","parts":[{{"partition":0,"name":"part-00000.csv"}}]}}"#);
            Publish { job, parts, manifest_json, ..Publish::default() }
        }

        async fn published(&self, request: &Publish) -> Result<(), StoreError> {
            let manifest = manifest_of(request)?;
            put_once(&*self.store, &*self.store, &self.address, &manifest).await?;
            self.outputs.collect(&*self.store, &self.address, request.job).await
        }

        async fn names(&self) -> Vec<String> {
            let mut names: Vec<String> = self.store.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap();
            names.sort();
            names
        }
    }

    #[tokio::test]
    async fn the_manifest_is_put_once_and_again_by_nobody_and_what_it_does_not_name_goes() {
        let bench = Bench::new();
        let other = LeaseKey { index: 13, ..LEASE };
        bench.prepared(7, other, b"of an attempt that was not accepted").await;
        let request = bench.prepared(7, LEASE, b"result").await;
        let of_another_job = bench.prepared(8, LEASE, b"other").await;
        bench.published(&request).await.unwrap();
        let expected = ["out/manifest.json", "out/part-00000-c1-7-0-12-1.csv", "out/part-00000-c1-8-0-12-1.csv"];
        assert_eq!(bench.names().await, expected);
        let manifest = manifest_at(&*bench.store, &bench.address.child(MANIFEST)).await.unwrap().unwrap();
        assert_eq!(
            (&manifest["parts"][0]["name"], &manifest["parts"][0]["part"]),
            (&"part-00000-c1-7-0-12-1.csv".into(), &"part-00000.csv".into())
        );
        bench.published(&request).await.unwrap();
        let error = bench.published(&of_another_job).await.unwrap_err();
        assert!(matches!(error, StoreError::InTheWay { .. }) && !error.retryable(), "{error}");
        bench.outputs.collect(&*bench.store, &bench.address, 8).await.unwrap();
        assert_eq!(bench.names().await, expected[..2]);
    }

    #[tokio::test]
    async fn a_part_that_is_not_as_it_was_reported_is_lost() {
        let bench = Bench::new();
        let request = bench.prepared(7, LEASE, b"result").await;
        let (store, address) = (&*bench.store, &bench.address);
        let lost = |parts: Vec<OutputPart>| async move { missing_parts(store, address, &parts).await.unwrap() };
        assert_eq!(lost(request.parts.clone()).await, []);
        let with = |change: fn(&mut OutputPart)| {
            let mut part = request.parts[0].clone();
            change(&mut part);
            vec![part]
        };
        assert_eq!(lost(with(|part| part.staged_name = "gone".into())).await[0].reason, "is missing");
        assert!(lost(with(|part| part.bytes = 5)).await[0].reason.contains("6 bytes instead of 5"));
        assert!(lost(with(|part| part.crc32c ^= 1)).await[0].reason.contains("is another"));
        bench.store.put(&Path::from("out/stranger"), "result".into()).await.unwrap();
        assert!(lost(with(|part| part.staged_name = "stranger".into())).await[0].reason.contains("no checksum"));
    }

    #[tokio::test]
    async fn a_long_part_goes_up_in_pieces_and_a_damaged_one_not_at_all() {
        for memory in [None, Some(32 << 20)] {
            goes_up_in_pieces_or_not_at_all(memory).await;
        }
    }

    async fn goes_up_in_pieces_or_not_at_all(memory: Option<u64>) {
        let bench = Bench::with_memory(memory);
        let text: Vec<u8> = (0..20u32 << 20).map(|at| (at % 251) as u8).collect();
        let request = bench.prepared(7, LEASE, &text).await;
        let name = Path::from(format!("out/{}", request.parts[0].staged_name));
        let there = bench.store.get(&name).await.unwrap();
        assert_eq!(there.bytes().await.unwrap(), text);
        let source = tempfile::tempfile().unwrap();
        source.write_all_at(&text, 0).unwrap();
        for bytes in [5, 9 << 20] {
            let range = BlockRange { bytes, ..BlockRange::default() };
            let at = bench.address.child("damaged");
            let sent = upload::upload(&*bench.store, &at, &source, &range, 7, Pieces::within(memory)).await;
            assert!(matches!(sent, Err(StoreError::Checksum { .. })), "{sent:?}");
        }
        assert!(bench.store.head(&Path::from("out/damaged")).await.is_err());
    }

    #[tokio::test]
    async fn what_goes_up_for_a_job_that_has_ended_does_not_stay() {
        let bench = Bench::new();
        bench.outputs.release(7);
        let mut parts = [OutputPart { name: "part-00000.csv".into(), ..OutputPart::default() }];
        let files = PartFiles { lease: Some(tempfile::tempfile().unwrap().into()), ..PartFiles::default() };
        let ranges = [BlockRange::default()];
        let sent = bench.outputs.send(&*bench.store, &bench.address, 7, LEASE, &files, &mut parts, &ranges).await;
        assert!(matches!(sent, Err(StoreError::Ended)));
        assert_eq!(bench.names().await, [""; 0]);
    }
}
