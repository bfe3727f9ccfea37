//! One client per bucket. Credentials and endpoints come from the environment of the worker's process, so there is one set of them for all jobs.
use super::{StoreError, address::Address};
use futures::Future;
use object_store::{
    BackoffConfig, ClientConfigKey, Error, ObjectMeta, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    path::Path,
};
use raftwerk_proto::StoreKind;
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a store that answers with errors, or not at all, is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Patience {
    /// Somebody waits for a submit: the scheduler gives workers five seconds.
    Question,
    /// A task, or a publish: repeating it elsewhere costs more than waiting.
    Work,
}

impl Patience {
    fn retries(self) -> RetryConfig {
        let (init, max, retries, all) = match self {
            Self::Question => (50, 500, 5, 3),
            Self::Work => (100, 5_000, 20, 60),
        };
        RetryConfig {
            backoff: BackoffConfig { init_backoff: Duration::from_millis(init), max_backoff: Duration::from_millis(max), base: 2.0 },
            max_retries: retries,
            retry_timeout: Duration::from_secs(all),
        }
    }

    /// Of one request, and of connecting for it. That of work is for a piece of some megabytes.
    fn limits(self) -> [(ClientConfigKey, &'static str); 2] {
        match self {
            Self::Question => [(ClientConfigKey::Timeout, "3 seconds"), (ClientConfigKey::ConnectTimeout, "1 second")],
            Self::Work => [(ClientConfigKey::Timeout, "30 seconds"), (ClientConfigKey::ConnectTimeout, "5 seconds")],
        }
    }
}

/// By what a URL begins with: two accounts may have containers of one name.
type Clients = HashMap<(String, Patience), Arc<dyn ObjectStore>>;

static CLIENTS: LazyLock<Mutex<Clients>> = LazyLock::new(Mutex::default);

/// The client of a bucket.
pub(super) fn open(address: &Address, patience: Patience) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (address.root.clone(), patience);
    if let Some(client) = clients.get(&key) {
        return Ok(client.clone());
    }
    let client = build(address, patience).map_err(|error| StoreError::Settings {
        url: address.to_string(),
        reason: shortened(&error.to_string()),
        variables: address.place_variables(),
    })?;
    clients.insert(key, client.clone());
    Ok(client)
}

fn build(address: &Address, patience: Patience) -> object_store::Result<Arc<dyn ObjectStore>> {
    let (bucket, limits) = (&address.bucket, patience.limits());
    Ok(match address.kind {
        StoreKind::Google => {
            let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(patience.retries());
            let set = |builder: GoogleCloudStorageBuilder, (key, value)| builder.with_config(GoogleConfigKey::Client(key), value);
            Arc::new(limits.into_iter().fold(builder, set).build()?)
        }
        StoreKind::Azure => {
            let builder = of_account(MicrosoftAzureBuilder::from_env(), address).with_retry(patience.retries());
            let set = |builder: MicrosoftAzureBuilder, (key, value)| builder.with_config(AzureConfigKey::Client(key), value);
            Arc::new(limits.into_iter().fold(builder, set).build()?)
        }
        StoreKind::S3 => {
            let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(patience.retries());
            let set = |builder: AmazonS3Builder, (key, value)| builder.with_config(AmazonS3ConfigKey::Client(key), value);
            Arc::new(limits.into_iter().fold(builder, set).build()?)
        }
    })
}

/// The container, and the account where the URL names one; otherwise it is the environment's. `AZURE_ENDPOINT` says where either is.
fn of_account(builder: MicrosoftAzureBuilder, address: &Address) -> MicrosoftAzureBuilder {
    let builder = builder.with_container_name(&address.bucket);
    match address.account() {
        Some(account) if account.fabric => builder.with_account(account.name).with_use_fabric_endpoint(true),
        Some(account) => builder.with_account(account.name),
        None => builder,
    }
}

/// Repeats what the client gives up too early for us: an answer that breaks off in its body, unless it is that of an object.
pub(super) async fn again<T, F>(patience: Patience, mut work: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let (began, limit) = (Instant::now(), if patience == Patience::Question { 2 } else { 30 });
    let mut pause = Duration::from_millis(50);
    loop {
        match work().await {
            Err(error @ StoreError::Unreachable { .. }) if began.elapsed() + pause < Duration::from_secs(limit) => {
                tracing::debug!(%error, "asking again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            done => return done,
        }
    }
}

/// The key as the store's client wants it.
pub(super) fn key(address: &Address) -> Result<Path, StoreError> {
    Path::parse(&address.key).map_err(|_| StoreError::Key(address.to_string()))
}

/// File and other blocking work of the agent waits here for the network.
pub(super) fn block<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => Err(StoreError::Local(std::io::Error::other(error))),
    }
}

/// A number for the content of an object: of the tag that the store gives it, or else of when it was written and how long it is. Equal in every build
/// and on every worker, for it goes into the log with the listing (FNV-1a).
pub(super) fn version(meta: &ObjectMeta) -> u64 {
    let text = match &meta.e_tag {
        Some(tag) => tag.trim_start_matches("W/").trim_matches('"').to_owned(),
        None => format!("{}-{}", meta.last_modified.timestamp_millis(), meta.size),
    };
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What an error of the client means for whoever asked.
pub(super) fn explain(address: &Address, error: Error) -> StoreError {
    let url = address.to_string();
    let text = error.to_string();
    let code = tagged(&text, "Code").unwrap_or_default();
    let reason = match tagged(&text, "Message") {
        Some(message) if !code.is_empty() => format!("{code}: {message}"),
        _ if !code.is_empty() => code.to_owned(),
        _ => shortened(&text),
    };
    let denied = |reason: String| StoreError::Denied {
        url: address.to_string(),
        bucket: address.bucket.clone(),
        key: address.key.clone(),
        reason,
        variables: address.variables(),
    };
    const REFUSALS: [&str; 6] =
        ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed"];
    const SETTINGS: [&str; 3] = ["AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"];
    match error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => denied(reason),
        _ if REFUSALS.contains(&code) => denied(reason),
        _ if ["NoSuchBucket", "InvalidBucketName", "ContainerNotFound"].contains(&code) => {
            StoreError::NoBucket { url, bucket: address.bucket.clone(), variables: address.place_variables() }
        }
        Error::NotFound { .. } => StoreError::NotFound(url),
        Error::InvalidPath { .. } => StoreError::Key(url),
        Error::Precondition { .. } => StoreError::Changed(url),
        // The object has become shorter than its listing says.
        _ if code == "InvalidRange" || text.contains("416 Range Not Satisfiable") => StoreError::Changed(url),
        _ if SETTINGS.contains(&code) || text.contains("incorrectly configured region") => {
            StoreError::Settings { url, reason, variables: address.place_variables() }
        }
        _ if text.contains("scheme is not allowed") => {
            let reason = "the endpoint is plain http, which is refused unless AWS_ALLOW_HTTP=true".into();
            StoreError::Settings { url, reason, variables: "AWS_ENDPOINT_URL and AWS_ALLOW_HTTP" }
        }
        // The last place where keys are looked for is the machine's own service for them, by these paths.
        _ if ["169.254.", "/latest/api/token", "/latest/meta-data/", "/computeMetadata/"].iter().any(|place| text.contains(place)) => {
            denied("the process has no keys in its environment, and its machine has no role that gives some".into())
        }
        _ => StoreError::Unreachable { url, reason },
    }
}

/// The text of an element of the XML that stores explain themselves with.
fn tagged<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inside, _)| inside)
}

/// One line that a person reads; a store may answer with a page.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 400;
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::FailureClass;

    fn generic(text: &str) -> Error {
        Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn the_account_is_that_of_the_url_or_else_that_of_the_environment() {
        let settings = |url: &str| {
            let environment = MicrosoftAzureBuilder::new().with_account("env").with_access_key("a2V5");
            let builder = of_account(environment, &Address::parse(url).unwrap());
            let of = |key| builder.get_config_value(&key).unwrap_or_default();
            let fabric = of(AzureConfigKey::UseFabricEndpoint) == "true";
            (of(AzureConfigKey::AccountName), of(AzureConfigKey::ContainerName), fabric, of(AzureConfigKey::AccessKey))
        };
        let expected = |account: &str, fabric| (account.to_owned(), "c".to_owned(), fabric, "a2V5".to_owned());
        for url in ["az://c/k", "azure://c/k", "adl://c/k", "abfs://c/k", "abfss://c/k"] {
            assert_eq!(settings(url), expected("env", false), "{url}");
        }
        assert_eq!(settings("abfss://c@acc.dfs.core.windows.net/k"), expected("acc", false));
        assert_eq!(settings("az://c@acc.blob.core.windows.net/k"), expected("acc", false));
        assert_eq!(settings("abfs://c@work.dfs.fabric.microsoft.com/k"), expected("work", true));
    }

    #[test]
    fn two_accounts_with_containers_of_one_name_are_two_stores() {
        raftwerk_transport::install_crypto();
        let of = |url: &str| build(&Address::parse(url).unwrap(), Patience::Question).unwrap().to_string();
        let [one, other] = ["one", "other"].map(|account| of(&format!("abfss://c@{account}.dfs.core.windows.net/k")));
        assert!(one.contains("one") && other.contains("other") && one != other, "{one} {other}");
    }

    #[test]
    fn an_error_names_bucket_key_and_what_to_set() {
        let address = Address::parse("s3://logs/a/b.txt").unwrap();
        let body = "403 Forbidden: <?xml?><Error><Code>AccessDenied</Code><Message>no entry</Message></Error>";
        let denied = explain(&address, generic(body));
        let said = denied.to_string();
        for part in ["s3://logs/a/b.txt", "bucket `logs`", "key `a/b.txt`", "AccessDenied: no entry", "AWS_ACCESS_KEY_ID"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert_eq!(denied.class(), FailureClass::Worker);
        let gone = explain(&address, generic("404: <Error><Code>NoSuchBucket</Code></Error>"));
        assert!(gone.to_string().contains("no bucket `logs`") && gone.to_string().contains("AWS_ENDPOINT_URL"), "{gone}");
        let changed = explain(&address, generic("<Code>InvalidRange</Code>"));
        assert_eq!((changed.class(), changed.retryable()), (FailureClass::Fatal, false));
        let away = explain(&address, generic(&"503 Slow Down ".repeat(100)));
        assert_eq!((away.class(), away.retryable()), (FailureClass::Task, true));
        assert!(away.to_string().len() < 500, "{away}");
    }
}
