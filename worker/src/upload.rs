//! What an upload is called: after what it holds, so that the same files are the same upload whoever brings them, and however often.

use raftwerk_proto::UPLOAD_ID_DIGITS;
use raftwerk_proto::v1::{UploadFile, UploadManifest};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Files of one upload. Each has a place in the job's record and in every listing of it.
pub const MAX_UPLOAD_FILES: usize = 1_000;
/// Bytes of one upload. Every worker that runs a task of the job takes all of it; more belongs on shared storage or in an object store.
pub const MAX_UPLOAD_BYTES: u64 = 64 << 30;
/// Bytes of a file's name.
const MAX_NAME_BYTES: usize = 4096;
/// Bytes in one message. Large enough that messages cost little, small enough that progress is told often on a slow line.
pub const UPLOAD_PIECE_BYTES: usize = 512 << 10;

/// A file of an upload and the SHA-256 of what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedFile {
    pub name: String,
    pub bytes: u64,
    pub sha256: [u8; 32],
}

/// Why files are no upload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadRefusal {
    #[error("an upload has at least one file")]
    Empty,
    #[error("{0} files are more than the {MAX_UPLOAD_FILES} that one upload takes; put small files together")]
    Files(usize),
    #[error(
        "{0} bytes are more than the {MAX_UPLOAD_BYTES} (64 GiB) that one upload takes; lay them on storage that the workers share, or in an object store"
    )]
    Bytes(u64),
    #[error("the name {0:?} cannot be that of an uploaded file: names have 1 to {MAX_NAME_BYTES} bytes and no control characters")]
    Name(String),
    #[error("{0} is named twice")]
    Twice(String),
}

/// Puts the files in order and gives them their id.
pub fn manifest(files: &mut [HashedFile]) -> Result<UploadManifest, UploadRefusal> {
    files.sort_by(|a, b| Path::new(&a.name).cmp(Path::new(&b.name)));
    let listed = files.iter().map(|file| UploadFile { name: file.name.clone(), bytes: file.bytes }).collect();
    let manifest = UploadManifest { id: id(files), files: listed };
    check(&manifest)?;
    Ok(manifest)
}

/// Whether this can be an upload at all, whatever it holds.
pub(crate) fn check(manifest: &UploadManifest) -> Result<(), UploadRefusal> {
    let files = &manifest.files;
    if files.is_empty() {
        return Err(UploadRefusal::Empty);
    }
    if files.len() > MAX_UPLOAD_FILES {
        return Err(UploadRefusal::Files(files.len()));
    }
    let fits = |name: &str| !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.chars().any(char::is_control);
    if let Some(file) = files.iter().find(|file| !fits(&file.name)) {
        return Err(UploadRefusal::Name(file.name.clone()));
    }
    let bytes = bytes(manifest);
    if bytes > MAX_UPLOAD_BYTES {
        return Err(UploadRefusal::Bytes(bytes));
    }
    // In order, so that equal names stand side by side.
    match files.windows(2).find(|pair| Path::new(&pair[0].name) >= Path::new(&pair[1].name)) {
        Some(pair) => Err(UploadRefusal::Twice(pair[1].name.clone())),
        None => Ok(()),
    }
}

/// Of all its files.
pub fn bytes(manifest: &UploadManifest) -> u64 {
    manifest.files.iter().map(|file| file.bytes).fold(0, u64::saturating_add)
}

/// As the protocol has it; see `UploadManifest`.
pub(crate) fn id(files: &[HashedFile]) -> String {
    let mut whole = Sha256::new();
    for file in files {
        whole.update((file.name.len() as u64).to_le_bytes());
        whole.update(file.name.as_bytes());
        whole.update(file.bytes.to_le_bytes());
        whole.update(file.sha256);
    }
    let digits = whole.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    digits[..UPLOAD_ID_DIGITS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> HashedFile {
        HashedFile { name: name.into(), bytes: text.len() as u64, sha256: Sha256::digest(text).into() }
    }

    #[test]
    fn an_upload_is_called_after_names_and_content_alone() {
        let of = |files: &[(&str, &str)]| {
            let mut files: Vec<HashedFile> = files.iter().map(|(name, text)| file(name, text)).collect();
            manifest(&mut files).unwrap().id
        };
        let usual = of(&[("/a", "x"), ("/b", "y")]);
        assert_eq!(usual, of(&[("/b", "y"), ("/a", "x")]), "whatever the order");
        assert!(raftwerk_proto::is_upload_id(&usual));
        for other in [[("/a", "x"), ("/b", "z")], [("/a", "y"), ("/b", "x")], [("/a", "x"), ("/c", "y")], [("/", "ax"), ("/b", "y")]] {
            assert_ne!(usual, of(&other));
        }
    }

    #[test]
    fn what_cannot_be_an_upload_is_refused_with_the_reason() {
        let refusal = |mut files: Vec<HashedFile>| manifest(&mut files).unwrap_err();
        assert_eq!(refusal(vec![]), UploadRefusal::Empty);
        assert_eq!(refusal(vec![file("/a", "x"), file("/a", "y")]), UploadRefusal::Twice("/a".into()));
        assert_eq!(refusal(vec![file("/a\n", "")]), UploadRefusal::Name("/a\n".into()));
        assert!(refusal(vec![file("", "")]).to_string().contains("1 to 4096 bytes"));
        let large = HashedFile { bytes: MAX_UPLOAD_BYTES, ..file("/b", "") };
        assert!(refusal(vec![file("/a", "x"), large]).to_string().contains("64 GiB"));
        let many = (0..=MAX_UPLOAD_FILES).map(|n| file(&format!("/{n}"), "")).collect();
        assert_eq!(refusal(many), UploadRefusal::Files(1001));
    }
}
