//! `s3://bucket/key`, taken apart.
use super::StoreError;
use raftwerk_proto::{StoreAccount, StoreKind, parse_store_url};

/// Where an object or a prefix of objects is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) kind: StoreKind,
    /// "s3://bucket", as it was written: URLs of listed objects begin like the pattern that named them.
    pub(super) root: String,
    pub(super) bucket: String,
    /// The name of the account and whether it is one of Fabric, if the URL says so itself.
    account: Option<(String, bool)>,
    /// Without a slash at its beginning; of a prefix, without one at its end.
    pub(super) key: String,
    /// Whether it ended in a slash.
    pub(super) is_prefix: bool,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let parts = parse_store_url(url).map_err(|reason| StoreError::Url { url: url.into(), reason })?;
        Ok(Self {
            kind: parts.kind,
            root: parts.root.into(),
            bucket: parts.bucket.into(),
            account: parts.account.map(|account| (account.name.into(), account.fabric)),
            key: parts.key.trim_matches('/').into(),
            is_prefix: parts.key.is_empty() || parts.key.ends_with('/'),
        })
    }

    pub(super) fn account(&self) -> Option<StoreAccount<'_>> {
        self.account.as_ref().map(|(name, fabric)| StoreAccount { name, fabric: *fabric })
    }

    /// Another object of the same bucket.
    pub(super) fn with_key(&self, key: &str) -> Self {
        Self { key: key.into(), is_prefix: false, ..self.clone() }
    }

    pub(super) fn child(&self, name: &str) -> Self {
        self.with_key(&if self.key.is_empty() { name.to_owned() } else { format!("{}/{name}", self.key) })
    }

    /// What whoever runs the worker sets to let it in.
    pub(super) fn variables(&self) -> &'static str {
        match self.kind {
            StoreKind::Google => "GOOGLE_SERVICE_ACCOUNT",
            StoreKind::Azure => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (those of this account)",
            StoreKind::S3 => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for keys that expire)",
        }
    }

    /// The same for where the store is.
    pub(super) fn place_variables(&self) -> &'static str {
        match self.kind {
            StoreKind::Google => "GOOGLE_SERVICE_ACCOUNT",
            StoreKind::Azure => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_ENDPOINT",
            StoreKind::S3 => "AWS_ENDPOINT_URL and AWS_REGION",
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.root)?;
        if self.key.is_empty() { Ok(()) } else { write!(f, "/{}", self.key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_bucket_and_key() {
        let object = Address::parse("s3://logs/a/b.txt").unwrap();
        assert_eq!((object.kind, object.bucket.as_str(), object.key.as_str(), object.is_prefix), (StoreKind::S3, "logs", "a/b.txt", false));
        assert_eq!(object.to_string(), "s3://logs/a/b.txt");
        let prefix = Address::parse("gs://logs/a/").unwrap();
        assert_eq!((prefix.key.as_str(), prefix.is_prefix), ("a", true));
        assert_eq!(prefix.child("x").to_string(), "gs://logs/a/x");
        let bucket = Address::parse("az://logs").unwrap();
        assert_eq!((bucket.key.as_str(), bucket.is_prefix, bucket.child("x").to_string().as_str()), ("", true, "az://logs/x"));
        let wrong = Address::parse("http://a/b").unwrap_err();
        assert!(matches!(&wrong, StoreError::Url { url, .. } if url == "http://a/b"), "{wrong}");
    }

    #[test]
    fn the_account_of_a_url_stays_in_the_urls_of_its_objects() {
        let prefix = Address::parse("abfss://logs@acc.dfs.core.windows.net/a/").unwrap();
        assert_eq!(prefix.account(), Some(StoreAccount { name: "acc", fabric: false }));
        assert_eq!(prefix.child("x").to_string(), "abfss://logs@acc.dfs.core.windows.net/a/x");
        assert_eq!(Address::parse(&prefix.child("x").to_string()).unwrap(), prefix.child("x"));
        assert_ne!(prefix, Address::parse("abfss://logs@other.dfs.core.windows.net/a/").unwrap());
    }
}
