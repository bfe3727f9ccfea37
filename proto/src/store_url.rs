//! URLs of objects in stores, taken apart: whoever checks one, asks a store or explains one means the same by it.
//!
//! ```text
//! s3://bucket/key                                      s3a is another name for it
//! gs://bucket/key
//! az://container/key                                   azure, adl, abfs and abfss are other names for it: the account comes from the environment
//! abfss://container@account.dfs.core.windows.net/key   the account is in the URL (az, abfs and abfss)
//! ```

/// Whose protocol a store speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StoreKind {
    /// Amazon's S3 and its kin.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage, and Microsoft's stores that speak its protocol.
    Azure,
}

const SCHEMES: [(&str, StoreKind); 8] = [
    ("s3://", StoreKind::S3),
    ("s3a://", StoreKind::S3),
    ("gs://", StoreKind::Google),
    ("az://", StoreKind::Azure),
    ("azure://", StoreKind::Azure),
    ("adl://", StoreKind::Azure),
    ("abfs://", StoreKind::Azure),
    ("abfss://", StoreKind::Azure),
];

/// What URLs of objects begin with.
pub const STORE_SCHEMES: [&str; SCHEMES.len()] = {
    let mut schemes = [""; SCHEMES.len()];
    let mut at = 0;
    while at < SCHEMES.len() {
        schemes[at] = SCHEMES[at].0;
        at += 1;
    }
    schemes
};

/// Hosts of Azure accounts that a URL may name, and whether they are those of Fabric. No other host is ever sent a signature.
const HOSTS: [(&str, bool); 4] = [
    ("dfs.core.windows.net", false),
    ("blob.core.windows.net", false),
    ("dfs.fabric.microsoft.com", true),
    ("blob.fabric.microsoft.com", true),
];

/// An Azure account that a URL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreAccount<'a> {
    pub name: &'a str,
    /// Of Microsoft Fabric (OneLake), which listens elsewhere.
    pub fabric: bool,
}

/// The parts of a URL; the key is as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreUrl<'a> {
    pub kind: StoreKind,
    /// Scheme, bucket and account, as they stand there: "s3://bucket".
    pub root: &'a str,
    /// Called container by Azure.
    pub bucket: &'a str,
    pub account: Option<StoreAccount<'a>>,
    /// Behind the first slash; may be empty.
    pub key: &'a str,
}

/// Whether this is the URL of an object, or of a prefix of objects, in a store, and no path.
pub fn is_store_url(text: &str) -> bool {
    STORE_SCHEMES.iter().any(|scheme| text.starts_with(scheme))
}

/// Takes a URL apart.
///
/// # Errors
/// What it should look like, in words, when it has no known scheme, no bucket, or an account at a host that is not Azure's.
pub fn parse_store_url(url: &str) -> Result<StoreUrl<'_>, String> {
    let Some((scheme, kind)) = SCHEMES.into_iter().find(|(scheme, _)| url.starts_with(scheme)) else {
        return Err(format!("`{url}` names no object in a store; it would begin with one of {}", STORE_SCHEMES.join(", ")));
    };
    let rest = &url[scheme.len()..];
    let (authority, key) = rest.split_once('/').unwrap_or((rest, ""));
    let (bucket, host) = match authority.split_once('@') {
        Some((bucket, host)) => (bucket, Some(host)),
        None => (authority, None),
    };
    let account = host.map(|host| account_at(host).filter(|_| takes_account(scheme)));
    if account == Some(None) {
        let hosts: Vec<String> = HOSTS.iter().map(|(host, _)| format!("ACCOUNT.{host}")).collect();
        return Err(format!(
            "`{url}` names no account that is known; write abfss://container@ACCOUNT.dfs.core.windows.net/key (an account may be {})",
            hosts.join(", ")
        ));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    // A point in a container's name would be an account that was written without its container.
    let dotted = kind == StoreKind::Azure && bucket.contains('.');
    if bucket.is_empty() || dotted || !bucket.bytes().all(plain) {
        return Err(match kind {
            StoreKind::Azure => format!(
                "`{url}` names no container; write az://container/key, or abfss://container@ACCOUNT.dfs.core.windows.net/key, with letters, digits, `-` and `_` in the container"
            ),
            _ => format!("`{url}` names no bucket; write {scheme}bucket/key, with letters, digits, `-`, `.` and `_` in the bucket"),
        });
    }
    Ok(StoreUrl { kind, root: &url[..scheme.len() + authority.len()], bucket, account: account.flatten(), key })
}

fn takes_account(scheme: &str) -> bool {
    ["az://", "abfs://", "abfss://"].contains(&scheme)
}

fn account_at(host: &str) -> Option<StoreAccount<'_>> {
    let (name, rest) = host.split_once('.')?;
    let (_, fabric) = HOSTS.into_iter().find(|(known, _)| *known == rest)?;
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    plain.then_some(StoreAccount { name, fabric })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> Option<(StoreKind, &str, &str, Option<&str>, &str)> {
        parse_store_url(url).ok().map(|url| (url.kind, url.root, url.bucket, url.account.map(|account| account.name), url.key))
    }

    #[test]
    fn a_url_is_scheme_bucket_account_and_key() {
        use StoreKind::{Azure, Google, S3};
        assert_eq!(parts("s3://logs/a/b.txt"), Some((S3, "s3://logs", "logs", None, "a/b.txt")));
        assert_eq!(parts("s3a://my.logs/"), Some((S3, "s3a://my.logs", "my.logs", None, "")));
        assert_eq!(parts("gs://logs"), Some((Google, "gs://logs", "logs", None, "")));
        for scheme in ["az", "azure", "adl", "abfs", "abfss"] {
            let (url, root) = (format!("{scheme}://c/a@b"), format!("{scheme}://c"));
            assert_eq!(parts(&url), Some((Azure, root.as_str(), "c", None, "a@b")), "the key may have an @");
        }
        for host in ["dfs.core.windows.net", "blob.core.windows.net", "dfs.fabric.microsoft.com", "blob.fabric.microsoft.com"] {
            let (url, root) = (format!("abfss://c@acc.{host}/a/b"), format!("abfss://c@acc.{host}"));
            assert_eq!(parts(&url), Some((Azure, root.as_str(), "c", Some("acc"), "a/b")));
            assert_eq!(parse_store_url(&url).unwrap().account.unwrap().fabric, host.contains("fabric"));
        }
        for wrong in
            ["s3://", "s3:///x", "S3://b/x", "http://a/b", "/a/b", "", "s3://a b/c", "s3://b@acc.dfs.core.windows.net/c", "gs://u@b/c"]
        {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }

    /// A job file that somebody else wrote must not lead a worker's signatures to a host of theirs.
    #[test]
    fn an_account_is_one_of_azures() {
        let hosts = [
            "acc.example.com",
            "acc.dfs.core.windows.net.example.com",
            "dfs.core.windows.net",
            ".dfs.core.windows.net",
            "a.b.dfs.core.windows.net",
            "acc.dfs.core.windows.net:8443",
            "acc.z1.dfs.fabric.microsoft.com",
            "u@acc.dfs.core.windows.net",
            "",
        ];
        for host in hosts {
            let refused = parse_store_url(&format!("abfss://c@{host}/x")).map(drop);
            assert!(refused.is_err_and(|error| error.contains("abfss://container@ACCOUNT.dfs.core.windows.net/key")), "{host}");
        }
        let forgotten = parse_store_url("abfss://acc.dfs.core.windows.net/c/x").unwrap_err();
        assert!(forgotten.contains("names no container"), "{forgotten}");
    }
}
