//! `s3://bucket/key`, taken apart.
use super::StoreError;
use raftwerk_proto::STORE_SCHEMES;

/// Where an object or a prefix of objects is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    /// "s3", "gs", "az"
    pub(super) scheme: &'static str,
    pub(super) bucket: String,
    /// Without a slash at its beginning; of a prefix, without one at its end.
    pub(super) key: String,
    /// Whether it ended in a slash.
    pub(super) is_prefix: bool,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let scheme = STORE_SCHEMES.into_iter().find(|scheme| url.starts_with(scheme)).ok_or_else(|| StoreError::Url(url.into()))?;
        let rest = &url[scheme.len()..];
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(StoreError::Url(url.into()));
        }
        let scheme = scheme.trim_end_matches("://");
        let is_prefix = key.is_empty() || key.ends_with('/');
        Ok(Self { scheme, bucket: bucket.into(), key: key.trim_matches('/').into(), is_prefix })
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
        match self.scheme {
            "gs" => "GOOGLE_SERVICE_ACCOUNT",
            "az" => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
            _ => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for keys that expire)",
        }
    }

    /// The same for where the store is.
    pub(super) fn place_variables(&self) -> &'static str {
        match self.scheme {
            "gs" => "GOOGLE_SERVICE_ACCOUNT",
            "az" => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_ENDPOINT",
            _ => "AWS_ENDPOINT_URL and AWS_REGION",
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.bucket)?;
        if self.key.is_empty() { Ok(()) } else { write!(f, "/{}", self.key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_bucket_and_key() {
        let object = Address::parse("s3://logs/a/b.txt").unwrap();
        assert_eq!((object.scheme, object.bucket.as_str(), object.key.as_str(), object.is_prefix), ("s3", "logs", "a/b.txt", false));
        assert_eq!(object.to_string(), "s3://logs/a/b.txt");
        let prefix = Address::parse("gs://logs/a/").unwrap();
        assert_eq!((prefix.key.as_str(), prefix.is_prefix), ("a", true));
        assert_eq!(prefix.child("x").to_string(), "gs://logs/a/x");
        let bucket = Address::parse("az://logs").unwrap();
        assert_eq!((bucket.key.as_str(), bucket.is_prefix, bucket.child("x").to_string().as_str()), ("", true, "az://logs/x"));
        for wrong in ["s3://", "s3:///x", "http://a/b", "/a/b", ""] {
            assert!(matches!(Address::parse(wrong), Err(StoreError::Url(_))), "{wrong}");
        }
    }
}
