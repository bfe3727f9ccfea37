//! The files of uploads in the answer to a submit: they are looked at where they lie here, and named as the job names them.
use super::Uploads;
use crate::agent::listing;
use raftwerk_proto::v1::{Files, InputListing, ListInputs};
use raftwerk_proto::{UPLOAD_SCHEME, is_store_url, shown_path, upload_path};
use std::{collections::BTreeMap, path::Path};

impl Uploads {
    pub(crate) fn listing(&self, mut request: ListInputs, worker: &str) -> InputListing {
        let mut names = BTreeMap::new();
        for pattern in request.inputs.iter_mut().flat_map(|files| &mut files.patterns).filter(|pattern| pattern.starts_with(UPLOAD_SCHEME))
        {
            match self.pattern(pattern) {
                Ok(place) => {
                    names.insert(place.clone(), std::mem::replace(pattern, place));
                }
                Err(error) => return InputListing { request: request.request, error, ..InputListing::default() },
            }
        }
        let listing = listing::answer(request, worker);
        if names.is_empty() { listing } else { named(listing, &names) }
    }

    /// Where it lies. Somebody is about to read it, so it stays for a while.
    fn pattern(&self, pattern: &str) -> Result<String, String> {
        let (id, _) = upload_path(pattern).ok_or_else(|| format!("'{pattern}' names no file of an upload"))?;
        self.store.touch(id);
        let place = self.store.place(pattern)?.ok_or_else(|| format!("'{pattern}' names no file of an upload"))?;
        place.to_str().map(str::to_owned).ok_or_else(|| format!("{} is not UTF-8", place.display()))
    }
}

/// With the names of the files in place of where they lie. They stand where files of these names would, whichever worker answers.
fn named(mut listing: InputListing, names: &BTreeMap<String, String>) -> InputListing {
    for Files { patterns, listing, .. } in &mut listing.inputs {
        patterns.iter_mut().for_each(|pattern| {
            names.get(pattern.as_str()).into_iter().for_each(|name| pattern.clone_from(name));
        });
        listing.iter_mut().for_each(|file| {
            names.get(&file.path).into_iter().for_each(|name| file.path.clone_from(name));
        });
        listing.sort_by(|a, b| {
            let order = |path| (is_store_url(path), Path::new(shown_path(path)));
            order(&a.path).cmp(&order(&b.path))
        });
    }
    for text in [&mut listing.error, &mut listing.input_problem, &mut listing.output_problem] {
        for (place, name) in names {
            *text = text.replace(place, shown_path(name));
        }
    }
    listing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{
        results::store::ResultStore,
        room::{DiskLimits, Room},
        shuffle::store::ShuffleStore,
        uploads::store::{UploadStore, tests::held},
    };
    use raftwerk_proto::v1::TableFormat;
    use raftwerk_transport::{Authority, PeerKind};
    use std::sync::Arc;

    fn uploads(dir: &Path) -> Uploads {
        let store = Arc::new(UploadStore::open(dir).unwrap());
        let (shuffle, results) = (Arc::new(ShuffleStore::open(dir).unwrap()), Arc::new(ResultStore::open(dir).unwrap()));
        let room = Arc::new(Room::new(DiskLimits::default(), dir.to_owned(), shuffle, results, store.clone()));
        let identity = Authority::create("uploads").unwrap().0.issue(PeerKind::Worker, 1, "one").unwrap();
        Uploads::new(store, room, identity, tokio::sync::mpsc::unbounded_channel().0)
    }

    #[test]
    fn uploaded_files_are_listed_by_their_names_and_as_files_of_those_names_would_be() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = uploads(dir.path());
        let manifest = held(&uploads.store, &[("/z/b.csv", "city,amount\nOslo,1\n"), ("/z/a.csv", "city,amount\n")]);
        let shared = dir.path().join("shared.csv");
        std::fs::write(&shared, "city,amount\n").unwrap();
        let shared = shared.to_str().unwrap().to_owned();
        let patterns: Vec<String> = manifest.files.iter().map(|file| format!("upload:{}/{}", manifest.id, file.name)).collect();
        let listing = |patterns: &[String], columns: &[&str]| {
            let columns = columns.iter().map(|name| (*name).to_owned()).collect();
            let table = TableFormat { separator: 44, header: true, columns, ..TableFormat::default() };
            let files = Files { patterns: patterns.to_vec(), format: "csv".into(), table: Some(table), ..Files::default() };
            uploads.listing(ListInputs { inputs: vec![files], ..ListInputs::default() }, "anna")
        };
        let mut all = patterns.clone();
        all.reverse();
        all.push(shared.clone());
        let found = listing(&all, &["city"]);
        assert_eq!(found.error, "");
        let paths: Vec<&str> = found.inputs[0].listing.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, [shared.as_str(), &patterns[0], &patterns[1]], "by name");
        assert_eq!(found.inputs[0].patterns, all);
        let versions = |found: &InputListing| found.inputs[0].listing.iter().map(|file| (file.version, file.bytes)).collect::<Vec<_>>();
        assert_eq!(versions(&listing(&patterns, &["city"])), versions(&found)[1..]);
        let said = listing(&patterns, &["town"]).input_problem;
        assert!(said.starts_with("/z/a.csv: ") && !said.contains("uploads/"), "{said}");
        let other = format!("upload:{}/words.txt", "0".repeat(32));
        assert!(listing(std::slice::from_ref(&other), &[]).error.contains("does not lie on this worker"));
        assert!(listing(&["upload:words.txt".into()], &[]).error.contains("names no file of an upload"));
    }
}
