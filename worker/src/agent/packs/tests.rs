use super::*;
use proptest::prelude::*;
use raftwerk_proto::{UPLOAD_ID_DIGITS, UPLOAD_SCHEME, file_split, file_splits};
use std::{fs, path::PathBuf, time::SystemTime};

fn file(path: String, bytes: u64) -> InputFile {
    InputFile { path, bytes, version: 7, ..InputFile::default() }
}

fn answer(listing: Vec<InputFile>) -> InputListing {
    let files = Files { patterns: vec!["/in".into()], format: "text".into(), split_bytes: 10, listing, ..Files::default() };
    InputListing { request: 3, inputs: vec![files], ..InputListing::default() }
}

fn many(count: u64) -> Vec<InputFile> {
    (0..count).map(|n| file(format!("/input/of/files/{n:05}"), n % 30)).collect()
}

/// What the scheduler grants of a listing: each pack whole.
fn granted(entries: &[InputFile]) -> Vec<Split> {
    let whole = |entry: &InputFile| Split { pack_tasks: entry.pack_tasks, file: Some(entry.clone()), ..Split::default() };
    entries.iter().map(whole).collect()
}

fn shown(splits: &[Split]) -> Vec<(String, u64, u64)> {
    splits.iter().map(|split| (split.file.as_ref().unwrap().path.clone(), split.offset, split.bytes)).collect()
}

fn one_by_one(files: &Files) -> Vec<(String, u64, u64)> {
    let of_file = |file| (0..file_splits(files, file)).map(move |n| (file.path.clone(), file_split(files, file, n)));
    files.listing.iter().flat_map(of_file).map(|(path, (offset, bytes))| (path, offset, bytes)).collect()
}

fn sha(entry: &InputFile) -> Sha {
    Sha::try_from(&entry.pack_sha256[..]).unwrap()
}

fn resolved(packs: &Arc<Packs>, splits: &[Split], files: &Files, worker: &str) -> Result<Vec<Split>, Failure> {
    loop {
        match packs.unpacked(splits.to_vec(), files) {
            Ok(splits) => return Ok(splits),
            Err(Unknown::Never(failure)) => return Err(failure),
            Err(Unknown::Absent(digest)) => packs.list_again(digest, &asked(files), worker)?,
        }
    }
}

/// A directory with files, and room for packs beside it.
struct Place {
    dir: tempfile::TempDir,
    files: Files,
}

impl Place {
    fn with(count: usize) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("in");
        fs::create_dir(&input).unwrap();
        let patterns = vec![input.to_str().unwrap().into()];
        let place = Place { dir, files: Files { patterns, format: "text".into(), split_bytes: 16, ..Files::default() } };
        (0..count).for_each(|n| place.write(&format!("{n:05}")));
        place
    }

    fn write(&self, name: &str) {
        fs::write(self.dir.path().join("in").join(name), "text").unwrap();
    }

    fn packs(&self, of: &str) -> Arc<Packs> {
        Arc::new(Packs::open(&self.dir.path().join(of)).unwrap())
    }

    /// As a worker that is asked at submit keeps it, however short it is.
    fn listed(&self, packs: &Packs) -> Vec<InputFile> {
        let mut found = listing::list(self.files.clone(), "anna").unwrap();
        packs.shelf.keep(std::mem::take(&mut found.listing), &found).unwrap()
    }
}

#[test]
fn a_short_listing_stays_and_a_long_one_becomes_packs() {
    let dir = tempfile::tempdir().unwrap();
    let packs = Arc::new(Packs::open(dir.path()).unwrap());
    let short = answer(many(100));
    assert_eq!(packs.packed(short.clone(), "anna"), short);
    let long = answer(many(30_000));
    let packed = packs.packed(long.clone(), "anna");
    let entries = &packed.inputs[0].listing;
    assert_eq!(entries.iter().map(|entry| entry.pack_files).collect::<Vec<_>>(), [4096, 4096, 4096, 4096, 4096, 4096, 4096, 1328]);
    assert!(packed.wire_bytes() < 1024, "{} bytes", packed.wire_bytes());
    assert_eq!(packed, packs.packed(long.clone(), "berta"), "the same on every worker");

    let expected = one_by_one(&long.inputs[0]);
    let splits = packs.unpacked(granted(entries), &asked(&long.inputs[0])).unwrap_or_default();
    assert!(shown(&splits) == expected, "{} of {} splits", splits.len(), expected.len());
    // Some of the tasks of two packs, as a lease has them.
    let (first, second) = (entries[0].pack_tasks - 3, 5);
    let lease = [
        Split { file: Some(entries[0].clone()), offset: first, pack_tasks: 3, bytes: 0 },
        Split { file: Some(entries[1].clone()), offset: 0, pack_tasks: second, bytes: 0 },
    ];
    let splits = packs.unpacked(lease.to_vec(), &long.inputs[0]).unwrap_or_default();
    assert_eq!(shown(&splits), expected[first as usize..(first + 3 + second) as usize]);
}

#[test]
fn listings_that_are_too_long_together_are_packed_and_those_with_uploads_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let packs = Packs::open(dir.path()).unwrap();
    let mut three = answer(many(10_000));
    three.inputs = vec![three.inputs[0].clone(), three.inputs[0].clone(), answer(many(10)).inputs.remove(0)];
    assert!(three.inputs[0].wire_bytes() < PACKED_FROM_BYTES);
    let packed = packs.packed(three, "anna");
    assert_eq!(packed.inputs.iter().map(|files| files.listing.len()).collect::<Vec<_>>(), [3, 3, 10]);

    let upload = format!("{UPLOAD_SCHEME}{}/a.txt", "0".repeat(UPLOAD_ID_DIGITS));
    let mut listing = many(30_000);
    listing.push(file(upload.clone(), 1));
    let kept = packs.packed(answer(listing), "anna");
    assert_eq!(kept.inputs[0].listing.len(), 30_001);
    let told = packs.packed(answer(std::iter::once(file(upload, 1)).chain(many(300_000)).collect()), "anna");
    assert!(told.input_problem.contains("300001 files"), "{}", told.input_problem);
}

#[test]
fn tasks_that_a_pack_does_not_have_are_an_error_of_the_protocol() {
    let place = Place::with(3);
    let packs = place.packs("first");
    let pack = place.listed(&packs).remove(0);
    for (offset, pack_tasks) in [(0, 4), (3, 1), (u64::MAX, 1), (1, u64::MAX)] {
        let split = Split { file: Some(pack.clone()), offset, pack_tasks, bytes: 0 };
        let Err(Unknown::Never((class, said))) = packs.unpacked(vec![split], &place.files) else { panic!("{offset} {pack_tasks}") };
        assert!(class == FailureClass::Fatal && said.contains("tasks that a pack does not have"), "{said}");
    }
    let nameless = Split { file: Some(file("a".into(), 1)), pack_tasks: 1, ..Split::default() };
    assert!(matches!(packs.unpacked(vec![nameless], &place.files), Err(Unknown::Never((FailureClass::Fatal, _)))));
}

#[test]
fn a_worker_that_has_no_packs_makes_them_again_if_the_files_are_the_same() {
    let place = Place::with(50);
    let entries = place.listed(&place.packs("first"));
    let (splits, later) = (granted(&entries), place.packs("later"));
    assert_eq!(resolved(&later, &splits, &place.files, "berta").unwrap().len(), 50);
    // A file more makes another listing; whoever has the first one goes on with it, also after a restart.
    place.write("more");
    assert_eq!(resolved(&later, &splits, &place.files, "berta").unwrap().len(), 50);
    assert_eq!(resolved(&place.packs("later"), &splits, &place.files, "berta").unwrap().len(), 50);
    let last = place.packs("last");
    let (class, said) = resolved(&last, &splits, &place.files, "carla").unwrap_err();
    assert!(class == FailureClass::Worker && said.contains("than matched when the job was submitted"), "{said}");
    assert!(said.contains("worker carla") && said.contains(&place.files.patterns[0]), "{said}");
    // Once more it would only find the same: each of a hundred leases would list a million files.
    fs::remove_file(place.dir.path().join("in/more")).unwrap();
    assert_eq!(resolved(&last, &splits, &place.files, "carla").unwrap_err(), (class, said));
    locked(&last.failed).clear();
    assert_eq!(resolved(&last, &splits, &place.files, "carla").unwrap().len(), 50);
    // And what cannot be listed is said with the reason.
    fs::remove_dir_all(place.dir.path().join("in")).unwrap();
    let (class, said) = resolved(&place.packs("blind"), &splits, &place.files, "dora").unwrap_err();
    assert!(class == FailureClass::Worker && said.contains("dora cannot list the input of the job: no file matches"), "{said}");
}

#[test]
fn a_damaged_pack_is_not_believed() {
    let place = Place::with(5);
    let packs = place.packs("first");
    let entries = place.listed(&packs);
    let at = packs.shelf.path(&sha(&entries[0]));
    let whole = fs::read(&at).unwrap();
    let mut turned = whole.clone();
    turned[40] ^= 1;
    for damaged in [&turned[..], &whole[..whole.len() - 1], b""] {
        fs::write(&at, damaged).unwrap();
        packs.shelf.forget_loaded();
        assert!(packs.shelf.find(sha(&entries[0])).is_none() && !at.exists());
        assert_eq!(resolved(&packs, &granted(&entries), &place.files, "anna").unwrap().len(), 5);
        assert_eq!(fs::read(&at).unwrap(), whole);
    }
    // Listed once more for another job it is whole as well.
    fs::write(&at, b"").unwrap();
    place.listed(&packs);
    assert_eq!(fs::read(&at).unwrap(), whole);
}

#[test]
fn what_has_not_been_read_for_longest_goes_first_and_half_a_pack_goes_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut shelf = Shelf::open(dir.path()).unwrap();
    let path = |shelf: &Shelf, digest: &Sha| -> PathBuf { shelf.path(digest) };
    let keep = |shelf: &Shelf, n: u64| -> Sha {
        let digest = sha(&shelf.keep(vec![file("/a".into(), n)], &Files::default()).unwrap()[0]);
        let old = SystemTime::now() - Duration::from_secs(100 - n);
        fs::File::options().write(true).open(path(shelf, &digest)).unwrap().set_modified(old).unwrap();
        digest
    };
    let mut digests: Vec<Sha> = (1..5).map(|n| keep(&shelf, n)).collect();
    let one = path(&shelf, &digests[0]).metadata().unwrap().len();
    shelf.forget_loaded();
    assert!(shelf.find(digests[0]).is_some(), "which makes it the newest");
    shelf.kept_bytes = 3 * one;
    digests.push(keep(&shelf, 5));
    assert_eq!(digests.iter().map(|digest| path(&shelf, digest).exists()).collect::<Vec<_>>(), [true, false, false, true, true]);
    // One that is longer than what is kept stays whole: somebody is about to read it.
    shelf.kept_bytes = one;
    let entries = shelf.keep(many(3 * 4096), &Files::default()).unwrap();
    assert!(entries.len() == 3 && entries.iter().all(|entry| path(&shelf, &sha(entry)).exists()));
    assert!(digests.iter().all(|digest| !path(&shelf, digest).exists()));

    let half = shelf.dir().join("00ff.0123456789abcdef.half");
    fs::write(&half, "half").unwrap();
    assert!(half.exists());
    Shelf::open(dir.path()).unwrap();
    assert!(!half.exists() && path(&shelf, &sha(&entries[0])).exists());
}

#[test]
fn a_listing_that_cannot_be_kept_leaves_nothing_and_is_said_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let packs = Packs::open(dir.path()).unwrap();
    // The second pack has no place: a directory is there.
    let second = {
        let other = tempfile::tempdir().unwrap();
        let entries = Shelf::open(other.path()).unwrap().keep(many(10_000), &Files::default()).unwrap();
        packs.shelf.path(&sha(&entries[1]))
    };
    fs::create_dir(&second).unwrap();
    let long: Vec<InputFile> = many(10_000);
    assert!(packs.shelf.keep(long, &Files::default()).is_err());
    let left: Vec<PathBuf> = fs::read_dir(packs.shelf.dir()).unwrap().map(|found| found.unwrap().path()).collect();
    assert_eq!(left, std::slice::from_ref(&second));
    fs::remove_dir(&second).unwrap();
    fs::remove_dir(packs.shelf.dir()).unwrap();
    let told = packs.packed(answer(many(30_000)), "anna");
    assert!(told.error.contains("worker anna cannot keep a long listing in ") && told.inputs.is_empty(), "{told:?}");
    assert_eq!((told.request, told.input_problem.as_str()), (3, ""), "another worker may");
}

/// The worker that answered first decides; the others are still listing when the first tasks come.
#[test]
fn a_task_waits_for_the_listing_that_is_being_made_for_its_submit() {
    let place = Place::with(5);
    let entries = place.listed(&place.packs("faster"));
    let packs = place.packs("slower");
    let request = ListInputs { request: 9, inputs: vec![place.files.clone()], ..ListInputs::default() };
    let (began, begun) = std::sync::mpsc::channel();
    let (go, may_go) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let (packs, place) = (&packs, &place);
        scope.spawn(move || {
            packs.answer(request, "anna", |request| {
                began.send(()).unwrap();
                may_go.recv().unwrap();
                place.listed(packs);
                InputListing { request: request.request, ..InputListing::default() }
            })
        });
        begun.recv().unwrap();
        // It could not be listed now.
        let elsewhere = place.dir.path().join("elsewhere");
        fs::rename(place.dir.path().join("in"), &elsewhere).unwrap();
        let waiting = scope.spawn(|| packs.list_again(sha(&entries[0]), &asked(&place.files), "anna"));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished());
        fs::rename(&elsewhere, place.dir.path().join("in")).unwrap();
        go.send(()).unwrap();
        assert_eq!(waiting.join().unwrap(), Ok(()));
    });
    assert!(locked(&packs.under_way).is_empty());
}

#[test]
fn a_long_lease_is_opened_in_pieces() {
    let pack = |offset, pack_tasks| Split {
        file: Some(InputFile { path: "p".into(), pack_files: 4096, ..InputFile::default() }),
        offset,
        pack_tasks,
        bytes: 0,
    };
    let plain = |path: &str| Split { file: Some(file(path.into(), 1)), ..Split::default() };
    let splits = [plain("a"), plain("b"), pack(7, 10_000), pack(0, 1), plain("c")];
    let cut: Vec<Vec<(u64, u64)>> =
        pieces(&splits).map(|piece| piece.iter().map(|split| (split.offset, split.pack_tasks)).collect()).collect();
    assert_eq!(cut, [vec![(0, 0), (0, 0)], vec![(7, 4096)], vec![(4103, 4096)], vec![(8199, 1808)], vec![(0, 1)], vec![(0, 0)]]);
    assert_eq!(tasks_of(&splits), 10_004);
    assert_eq!(pieces(&splits).map(|piece| tasks_of(&piece)).sum::<u64>(), 10_004);
    assert_eq!(tasks_of(&[pack(0, u64::MAX), plain("a")]), u64::MAX);
}

proptest! {
    #[test]
    fn every_task_of_a_pack_is_one_split_of_its_files(
        sizes in prop::collection::vec(0u64..40, 1..30),
        split_bytes in 1u64..20,
        from in 0u64..50,
        count in 1u64..50,
    ) {
        let listing: Vec<InputFile> = sizes.iter().enumerate().map(|(n, bytes)| file(format!("{n:02}"), *bytes)).collect();
        let files = Files { split_bytes, listing: listing.clone(), ..Files::default() };
        let expected = one_by_one(&files);
        let entry = pack::entry(&listing, [1; 32], &files);
        prop_assert_eq!((entry.pack_tasks, entry.pack_files, entry.bytes), (expected.len() as u64, sizes.len() as u64, sizes.iter().sum()));
        let wanted = Split { file: Some(entry), offset: from, pack_tasks: count, bytes: 0 };
        let found = ranges(&listing, &asked(&files), &wanted);
        match found {
            Some(splits) => prop_assert_eq!(shown(&splits), &expected[from as usize..(from + count) as usize]),
            None => prop_assert!(from + count > expected.len() as u64),
        }
    }
}
