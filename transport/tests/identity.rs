//! Credentials: what is signed, what is kept on disk, and what is said when it is damaged.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use raftwerk_transport::{Authority, Identity, IdentityError, Peer, PeerKind, PendingIdentity};
use rcgen::{CertificateParams, KeyPair};

fn authority() -> Authority {
    Authority::create("attic").unwrap().0
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_authority_reads_back_as_it_was_saved() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, token) = Authority::create("attic").unwrap();
    assert!(!Authority::exists(dir.path()));
    authority.save(dir.path()).unwrap();
    assert!(Authority::exists(dir.path()));
    let loaded = Authority::load(dir.path()).unwrap();
    assert_eq!(loaded.cluster(), "attic");
    assert_eq!(loaded.ca_certificate_der(), authority.ca_certificate_der());
    assert_eq!(loaded.ca_key_pkcs8_der(), authority.ca_key_pkcs8_der());
    assert!(loaded.token_matches(&token.secret));
    assert!(!loaded.token_matches(&token.secret[1..]));
    assert!(!loaded.token_matches(""));
    assert_eq!(token.ca_sha256, loaded.ca_sha256());
}

#[test]
fn an_authority_handed_over_signs_for_the_same_cluster() {
    let first = authority();
    let second =
        Authority::from_parts(first.cluster(), first.ca_certificate_der(), first.ca_key_pkcs8_der(), first.token_sha256()).unwrap();
    let pending = PendingIdentity::new().unwrap();
    let certificate = second.sign(&pending.request_der(), PeerKind::Worker, 7, "pi").unwrap();
    let identity = pending.complete("attic", &certificate, first.ca_certificate_der()).unwrap();
    assert_eq!(*identity.peer(), Peer { kind: PeerKind::Worker, id: 7, name: "pi".into() });
    assert_eq!(identity.cluster(), "attic");
}

#[test]
fn parts_of_two_authorities_are_refused() {
    let (one, other) = (authority(), authority());
    let error = Authority::from_parts("attic", one.ca_certificate_der(), other.ca_key_pkcs8_der(), one.token_sha256()).unwrap_err();
    assert!(error.to_string().contains("the CA key is damaged: it is not the key of the CA certificate"), "{error}");
    let error = Authority::from_parts("cellar", one.ca_certificate_der(), one.ca_key_pkcs8_der(), one.token_sha256()).unwrap_err();
    assert!(error.to_string().contains("it is of cluster `attic`, not of `cellar`"), "{error}");
}

#[test]
fn the_names_in_a_request_count_for_nothing() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["scheduler.raftwerk".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "raftwerk:scheduler:1:me");
    let request = params.serialize_request(&key).unwrap();
    let authority = authority();
    let certificate = authority.sign(request.der(), PeerKind::Worker, 7, "pi").unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
    assert_eq!(parsed.subject().to_string(), "O=raftwerk, CN=raftwerk:worker:7:pi");
    assert!(!parsed.is_ca());
    let names: Vec<_> =
        parsed.subject_alternative_name().unwrap().unwrap().value.general_names.iter().map(|name| name.to_string()).collect();
    assert_eq!(names, ["DNSName(worker.raftwerk)"]);
}

#[test]
fn a_request_not_signed_by_its_own_key_is_refused() {
    let mut request = PendingIdentity::new().unwrap().request_der();
    let last = request.len() - 1;
    request[last] ^= 1;
    for request in [request.as_slice(), b"", b"garbage"] {
        let refusal = authority().sign(request, PeerKind::Worker, 1, "").unwrap_err();
        assert!(matches!(refusal, IdentityError::BadRequest { .. }), "{refusal}");
    }
}

#[test]
fn nothing_is_signed_for_a_nameless_kind_or_an_unprintable_name() {
    let authority = authority();
    assert!(matches!(authority.issue(PeerKind::Anonymous, 0, ""), Err(IdentityError::Anonymous)));
    for name in ["two\nlines", " space ", &"x".repeat(254)] {
        assert!(matches!(authority.issue(PeerKind::Worker, 1, name), Err(IdentityError::BadName { .. })), "{name:?}");
    }
    assert!(matches!(Authority::create(""), Err(IdentityError::BadName { .. })));
}

#[test]
fn a_name_may_have_colons_and_any_script() {
    let identity = authority().issue(PeerKind::Worker, u64::MAX, "Küche: Regal:2").unwrap();
    assert_eq!(*identity.peer(), Peer { kind: PeerKind::Worker, id: u64::MAX, name: "Küche: Regal:2".into() });
}

#[test]
fn an_identity_reads_back_as_it_was_saved() {
    let dir = tempfile::tempdir().unwrap();
    let identity = authority().issue(PeerKind::Scheduler, 3, "s3").unwrap();
    identity.save(dir.path()).unwrap();
    let loaded = Identity::load(dir.path()).unwrap();
    assert_eq!(loaded.to_pem_bundle(), identity.to_pem_bundle());
    assert_eq!(loaded.peer(), identity.peer());
}

#[test]
fn authority_and_identity_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority();
    authority.issue(PeerKind::Scheduler, 3, "s3").unwrap().save(dir.path()).unwrap();
    authority.save(dir.path()).unwrap();
    assert_eq!(Identity::load(dir.path()).unwrap().peer().id, 3);
    Authority::load(dir.path()).unwrap();
}

#[test]
fn a_bundle_reads_back_as_it_was_saved() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("contexts/attic.pem");
    let admin = authority().issue(PeerKind::Client, 0, "admin").unwrap();
    admin.save_pem_bundle(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    let loaded = Identity::load_pem_bundle(&path).unwrap();
    assert_eq!(loaded.to_pem_bundle(), admin.to_pem_bundle());
    assert_eq!((loaded.cluster(), loaded.peer()), ("attic", admin.peer()));
}

#[test]
fn only_the_owner_can_read_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("data/credentials");
    let authority = authority();
    authority.save(&dir).unwrap();
    authority.issue(PeerKind::Scheduler, 1, "s1").unwrap().save(&dir).unwrap();
    assert_eq!(mode(&dir), 0o700);
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_fix() {
    let dir = tempfile::tempdir().unwrap();
    authority().issue(PeerKind::Worker, 1, "").unwrap().save(dir.path()).unwrap();
    let key = dir.path().join("identity.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let error = Identity::load(dir.path()).unwrap_err();
    assert!(matches!(error, IdentityError::Exposed { mode: 0o644, .. }));
    assert!(error.to_string().contains(&format!("chmod 600 {}", key.display())), "{error}");
}

#[test]
fn a_damaged_or_missing_file_is_named() {
    let saved = tempfile::tempdir().unwrap();
    let authority = authority();
    authority.save(saved.path()).unwrap();
    authority.issue(PeerKind::Scheduler, 1, "s1").unwrap().save(saved.path()).unwrap();
    let load = |dir: &Path| Authority::load(dir).map(drop).and(Identity::load(dir).map(drop));

    for name in ["ca.crt", "ca.key", "token.sha256", "cluster", "identity.crt", "identity.key"] {
        let path = saved.path().join(name);
        let whole = fs::read(&path).unwrap();
        // Not in the last line of PEM text nor in the padding bits before it, which carry nothing.
        let end = if whole.len() > 100 { whole.len() - 32 } else { whole.len() - 1 };
        let swaps = (0..end).step_by(7).map(|place| {
            let mut swapped = whole.clone();
            swapped[place] = if whole[place] == b'A' { b'B' } else { b'A' };
            swapped
        });
        let cuts = [0, 1, whole.len() / 2, end].map(|length| whole[..length.min(whole.len() - 2)].to_vec());
        for damaged in cuts.into_iter().chain(swaps).chain([b"\xff\xfe".to_vec()]) {
            fs::write(&path, &damaged).unwrap();
            let error = load(saved.path()).expect_err(name);
            // A cluster file that tells another name can only be noticed by comparing it with the CA certificate.
            let culprit = if name == "cluster" && damaged != *b"\xff\xfe" { saved.path().join("ca.crt") } else { path.clone() };
            // A swapped bit inside a certificate can show as a mismatch, which names both sides.
            assert!(error.to_string().contains(&*culprit.display().to_string()), "{name}: {error}");
            assert!(matches!(error, IdentityError::Damaged { .. }), "{name}: {error:?}");
        }
        fs::remove_file(&path).unwrap();
        match load(saved.path()).expect_err(name) {
            IdentityError::Missing { path: missing } => assert_eq!(missing, path),
            other => panic!("{name}: {other}"),
        }
        fs::write(&path, &whole).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        load(saved.path()).unwrap();
    }
}

#[test]
fn an_answer_of_another_cluster_does_not_complete_an_identity() {
    let (ours, other) = (authority(), authority());
    let pending = PendingIdentity::new().unwrap();
    let certificate = other.sign(&pending.request_der(), PeerKind::Worker, 1, "").unwrap();
    let error = pending.complete("attic", &certificate, ours.ca_certificate_der()).unwrap_err();
    assert!(error.to_string().contains("not signed by the CA certificate from the scheduler"), "{error}");

    let certificate = ours.sign(&PendingIdentity::new().unwrap().request_der(), PeerKind::Worker, 1, "").unwrap();
    let error = PendingIdentity::new().unwrap().complete("attic", &certificate, ours.ca_certificate_der()).unwrap_err();
    assert!(error.to_string().contains("not the key of the certificate from the scheduler"), "{error}");
}

#[test]
fn debug_output_holds_no_key() {
    let authority = authority();
    let identity = authority.issue(PeerKind::Client, 0, "admin").unwrap();
    assert_eq!(format!("{identity:?}"), r#"Identity { cluster: "attic", peer: Peer { kind: Client, id: 0, name: "admin" }, .. }"#);
    assert!(format!("{authority:?}").starts_with(r#"Authority { cluster: "attic", ca_sha256: "#));
}
