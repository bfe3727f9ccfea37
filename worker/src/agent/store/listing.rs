//! Which objects a pattern means, and what they are: names, sizes and tags from the store's listing, and of formats with a header its first bytes.
use super::{
    Listed, StoreError,
    address::Address,
    client::{self, Patience, again, block, explain, version},
};
use crate::agent::{listing::compression, npy, publish::MANIFEST};
use futures::{StreamExt, TryStreamExt, stream};
use glob::{MatchOptions, Pattern};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, path::Path};
use raftwerk_kernels::png_file::{HEADER_BYTES, PngHeader};
use raftwerk_proto::v1::{Files, InputFile};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// As on a file system.
const OPTIONS: MatchOptions = MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
/// Nobody waits for an answer any more; a bucket of millions of objects would be listed for minutes.
const LONGEST: Duration = Duration::from_secs(10);
/// Small requests that a listing has under way at once.
const QUESTIONS: usize = 32;
/// An `.npy` header is shorter, and so is the part of a `.png` that says its size.
const START_BYTES: u64 = 16 << 10;

fn has_wildcard(key: &str) -> bool {
    key.contains(['*', '?', '['])
}

/// The objects that a URL means: one, all under a prefix, or those that match a pattern.
pub(crate) fn list(url: &str) -> Result<Vec<Listed>, StoreError> {
    let address = Address::parse(url)?;
    let store = client::open(&address, Patience::Question)?;
    let listing = async {
        let found = again(Patience::Question, || async {
            let found = find(&*store, &address).await?;
            without_unpublished(&*store, &address, found).await
        });
        let listed =
            stream::iter(found.await?).map(|meta| tagged(&*store, &address, meta)).buffered(QUESTIONS).try_collect::<Vec<_>>().await?;
        if listed.is_empty() { Err(StoreError::NothingMatches(url.into())) } else { Ok(listed) }
    };
    let too_long = |_| StoreError::Unreachable { url: url.into(), reason: "its listing is too long; name a narrower prefix".into() };
    block(async { tokio::time::timeout(LONGEST, listing).await.map_err(too_long)? })
}

async fn find(store: &dyn ObjectStore, address: &Address) -> Result<Vec<ObjectMeta>, StoreError> {
    if has_wildcard(&address.key) {
        let text = match address.key.ends_with("**") {
            true => format!("{}/*", address.key),
            false => address.key.clone(),
        };
        let pattern = Pattern::new(&text).map_err(|source| StoreError::Pattern { url: address.to_string(), source })?;
        // Whole parts before the first special character: stores list by prefix.
        let fixed = text.split('/').take_while(|part| !has_wildcard(part)).collect::<Vec<_>>().join("/");
        let all = under(store, &address.with_key(&fixed)).await?;
        return Ok(all.into_iter().filter(|meta| wanted(&pattern, meta)).collect());
    }
    if !address.is_prefix {
        match store.head(&client::key(address)?).await {
            Ok(meta) => return Ok(vec![meta]),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(explain(address, error)),
        }
    }
    let all = under(store, address).await?;
    let hidden = |meta: &ObjectMeta| {
        let below = meta.location.as_ref().strip_prefix(&address.key).unwrap_or_default();
        below.split('/').any(|part| part.starts_with('.'))
    };
    Ok(all.into_iter().filter(|meta| !hidden(meta)).collect())
}

/// The manifest of an output decides what of it counts, so it stays in sight until then, whatever the pattern.
fn wanted(pattern: &Pattern, meta: &ObjectMeta) -> bool {
    pattern.matches_with(meta.location.as_ref(), OPTIONS) || meta.location.filename() == Some(MANIFEST)
}

async fn under(store: &dyn ObjectStore, address: &Address) -> Result<Vec<ObjectMeta>, StoreError> {
    let prefix = (!address.key.is_empty()).then(|| client::key(address)).transpose()?;
    let mut all: Vec<ObjectMeta> = store.list(prefix.as_ref()).try_collect().await.map_err(|error| explain(address, error))?;
    // Some tools mark a "directory" by an empty object of its name.
    all.retain(|meta| Some(&meta.location) != prefix.as_ref());
    all.sort_by(|a, b| a.location.cmp(&b.location));
    Ok(all)
}

/// Of an output of ours only what its manifest names: beside it may lie what attempts left that were not accepted. A manifest itself is no data.
async fn without_unpublished(
    store: &dyn ObjectStore,
    address: &Address,
    mut found: Vec<ObjectMeta>,
) -> Result<Vec<ObjectMeta>, StoreError> {
    // One that is named alone is meant.
    if !has_wildcard(&address.key) && found.len() == 1 && found[0].location.as_ref() == address.key {
        return Ok(found);
    }
    let manifests: Vec<Path> =
        found.iter().filter(|meta| meta.location.filename() == Some(MANIFEST)).map(|meta| meta.location.clone()).collect();
    for manifest in manifests {
        let at = address.with_key(manifest.as_ref());
        let Some(named) = super::output::manifest_at(store, &at).await?.as_ref().and_then(part_names) else {
            // Somebody else's file of that name: it counts if the pattern says so.
            let pattern = Pattern::new(&address.key).ok().filter(|_| has_wildcard(&address.key));
            found.retain(|meta| meta.location != manifest || pattern.as_ref().is_none_or(|p| p.matches_with(manifest.as_ref(), OPTIONS)));
            continue;
        };
        let parent = manifest.parent().unwrap_or_default();
        found.retain(|meta| {
            meta.location.parent().unwrap_or_default() != parent || meta.location.filename().is_some_and(|name| named.contains(name))
        });
    }
    Ok(found)
}

/// The objects that a manifest of ours names.
fn part_names(manifest: &Value) -> Option<HashSet<String>> {
    let ours = manifest["cluster"].is_string() && manifest["job"].is_u64();
    let names = manifest["parts"].as_array().into_iter().flatten().filter_map(|part| part["name"].as_str().map(str::to_owned));
    ours.then(|| names.collect())
}

/// With the tag of its content: some stores leave it out of listings.
async fn tagged(store: &dyn ObjectStore, address: &Address, meta: ObjectMeta) -> Result<Listed, StoreError> {
    let at = address.with_key(meta.location.as_ref());
    let meta = match meta.e_tag {
        Some(_) => meta,
        None => store.head(&meta.location).await.map_err(|error| explain(&at, error))?,
    };
    Ok(Listed { url: at.to_string(), bytes: meta.size, version: version(&meta) })
}

/// What the scheduler is told of an object that is input of this format.
pub(crate) fn describe(object: &Listed, files: &Files) -> Result<InputFile, StoreError> {
    let mut input = InputFile { path: object.url.clone(), bytes: object.bytes, version: object.version, ..InputFile::default() };
    let wrong = |reason: String| StoreError::Content { url: object.url.clone(), format: files.format.clone(), reason };
    if let Some(with) = compression(files, &object.url) {
        let start = read(&object.url, 0, object.bytes.min(4))?;
        with.check_start(&start).map_err(|error| wrong(error.to_string()))?;
        input.compression = with.name().into();
    }
    match files.format.as_str() {
        // Of files of columns the end is looked at, of many at once.
        "text" | "csv" | "jsonl" | "parquet" | "arrow" => {}
        "records" => {
            input.record_bytes = files.record_bytes;
            if files.bad_records == 0 && !object.bytes.is_multiple_of(u64::from(files.record_bytes.max(1))) {
                return Err(wrong(format!("its {} bytes are no whole number of records of {} bytes", object.bytes, files.record_bytes)));
            }
        }
        "npy" | "npy-rows" => {
            let start = read(&object.url, 0, START_BYTES.min(object.bytes))?;
            let header = npy::read_header(&mut start.as_slice(), object.bytes);
            let header = if files.format == "npy-rows" { header.and_then(npy::NpyHeader::by_rows) } else { header };
            let header = header.map_err(|error| wrong(error.to_string()))?;
            input.data_offset = header.data_offset;
            input.record_bytes = header.record_bytes;
            input.dtype = header.dtype.into();
        }
        "png" => {
            let start = read(&object.url, 0, (HEADER_BYTES as u64).min(object.bytes))?;
            PngHeader::read(&start).map_err(|error| wrong(error.to_string()))?;
            input.record_bytes = u32::try_from(object.bytes).map_err(|_| wrong("it is a file of 4 GiB or more".into()))?;
        }
        _ => return Err(wrong("such files are read from file systems alone; copy it there".into())),
    }
    Ok(input)
}

/// The first bytes of an object, fewer if it has fewer.
pub(crate) fn head(url: &str, bytes: usize) -> Result<Vec<u8>, StoreError> {
    let address = Address::parse(url)?;
    let size = block(async {
        let store = client::open(&address, Patience::Question)?;
        store.head(&client::key(&address)?).await.map_err(|error| explain(&address, error)).map(|meta| meta.size)
    })?;
    read(url, 0, size.min(bytes as u64))
}

fn read(url: &str, offset: u64, bytes: u64) -> Result<Vec<u8>, StoreError> {
    Ok(read_all(vec![(url.to_owned(), offset, bytes)])?.pop().unwrap_or_default())
}

/// Short ranges of objects, several at once.
pub(crate) fn read_all(ranges: Vec<(String, u64, u64)>) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut clients: BTreeMap<String, Arc<dyn ObjectStore>> = BTreeMap::new();
    let mut wanted = Vec::with_capacity(ranges.len());
    for (url, offset, bytes) in ranges {
        let address = Address::parse(&url)?;
        let client = match clients.get(&address.root) {
            Some(client) => client.clone(),
            None => client::open(&address, Patience::Question)?,
        };
        clients.insert(address.root.clone(), client.clone());
        wanted.push((client, address, offset..offset.saturating_add(bytes)));
    }
    block(async {
        let reads = wanted.into_iter().map(|(client, address, range)| async move {
            if range.is_empty() {
                return Ok(Vec::new());
            }
            let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
            again(Patience::Question, || async {
                let got = client.get_opts(&client::key(&address)?, options.clone()).await.map_err(|error| explain(&address, error))?;
                got.bytes().await.map(|bytes| bytes.to_vec()).map_err(|error| explain(&address, error))
            })
            .await
        });
        stream::iter(reads).buffered(QUESTIONS).try_collect().await
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    async fn bucket(names: &[(&str, &str)]) -> InMemory {
        let store = InMemory::new();
        for (name, text) in names {
            store.put(&Path::from(*name), (*text).to_owned().into()).await.unwrap();
        }
        store
    }

    async fn found(store: &InMemory, url: &str) -> Vec<String> {
        let address = Address::parse(url).unwrap();
        let found = find(store, &address).await.unwrap();
        let found = without_unpublished(store, &address, found).await.unwrap();
        found.iter().map(|meta| meta.location.to_string()).collect()
    }

    #[tokio::test]
    async fn names_prefixes_and_patterns_mean_what_they_mean_on_a_file_system() {
        let names = ["a.txt", "b.log", ".h.txt", "sub/c.txt", "sub/deep/d.txt", "sub/.git/e.txt", "subway/f.txt"].map(|name| (name, "x"));
        let store = bucket(&names).await;
        assert_eq!(found(&store, "s3://b/a.txt").await, ["a.txt"]);
        assert_eq!(found(&store, "s3://b/*.txt").await, ["a.txt"]);
        assert_eq!(found(&store, "s3://b/**/*.txt").await, ["a.txt", "sub/c.txt", "sub/deep/d.txt", "subway/f.txt"]);
        assert_eq!(found(&store, "s3://b/sub").await, ["sub/c.txt", "sub/deep/d.txt"]);
        assert_eq!(found(&store, "s3://b/sub/").await, ["sub/c.txt", "sub/deep/d.txt"]);
        assert_eq!(found(&store, "s3://b/sub/**").await, ["sub/c.txt", "sub/deep/d.txt"]);
        assert_eq!(found(&store, "s3://b/s*/?.txt").await, ["sub/c.txt", "subway/f.txt"]);
        assert_eq!(found(&store, "s3://b/.*.txt").await, [".h.txt"]);
        assert_eq!(found(&store, "s3://b").await, ["a.txt", "b.log", "sub/c.txt", "sub/deep/d.txt", "subway/f.txt"]);
        assert_eq!(found(&store, "s3://b/nothing").await, [""; 0]);
    }

    #[tokio::test]
    async fn of_an_output_counts_what_its_manifest_names() {
        let ours = r#"{"cluster": "c", "job": 1, "parts": [{"name": "part-0-x.csv"}]}"#;
        let store = bucket(&[
            ("out/part-0-x.csv", "right"),
            ("out/part-0-y.csv", "of an attempt that was not accepted"),
            ("out/manifest.json", ours),
            ("web/manifest.json", "{}"),
            ("web/a.csv", "x"),
        ])
        .await;
        assert_eq!(found(&store, "s3://b/out/").await, ["out/part-0-x.csv"]);
        assert_eq!(found(&store, "s3://b/out/*.csv").await, ["out/part-0-x.csv"]);
        assert_eq!(found(&store, "s3://b/out/manifest.json").await, ["out/manifest.json"], "one that is named is meant");
        assert_eq!(found(&store, "s3://b/web").await, ["web/a.csv", "web/manifest.json"], "nothing of ours");
        assert_eq!(found(&store, "s3://b/*/*.csv").await, ["out/part-0-x.csv", "web/a.csv"]);
    }
}
