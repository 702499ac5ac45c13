use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::store::validate_name;

/// Google's own address of Cloud Storage.
const ENDPOINT: &str = "https://storage.googleapis.com";

/// What tokens are asked to be good for; the roles decide what may be done.
pub(super) const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// Chunks of a resumable upload are multiples of it: a rule of the API.
pub(super) const CHUNK_UNIT: usize = 256 << 10;

/// Who a store acts as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GcsCredentials {
    /// Application Default Credentials: the file that `GOOGLE_APPLICATION_CREDENTIALS` names, else the one that
    /// `gcloud auth application-default login` wrote, else the metadata server of the machine (GKE, Compute
    /// Engine, Cloud Run).
    #[default]
    Default,
    /// A file of one of the types `external_account` (workload identity federation: a projected token of
    /// Kubernetes, an AWS role on EC2, ECS, Fargate and EKS), `impersonated_service_account`, `service_account` and
    /// `authorized_user`. It is read again when it has changed.
    ///
    /// For an AWS role, the keys are those of the environment (`AWS_ACCESS_KEY_ID`), else those of the container
    /// (ECS, Fargate, and EKS with Pod Identity set `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` or `_FULL_URI`; there
    /// `AWS_REGION` has to be set too), else those of the machine (EC2).
    File(PathBuf),
    /// No credentials, for emulators.
    Anonymous,
}

/// How a [`GcsStore`](crate::GcsStore) reaches its bucket. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GcsConfig(pub(super) Arc<Settings>);

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) bucket: String,
    pub(super) staging: Option<(String, String)>,
    pub(super) endpoint: String,
    pub(super) credentials: GcsCredentials,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) upload_part_bytes: usize,
    pub(super) request_timeout: Duration,
    pub(super) retry_time: Duration,
    pub(super) retry_pause: Duration,
    pub(super) probe_prefix: String,
    pub(super) credentials_check_every: Duration,
}

impl GcsConfig {
    /// A store in that bucket.
    pub fn builder(bucket: impl Into<String>) -> GcsConfigBuilder {
        GcsConfigBuilder {
            bucket: bucket.into(),
            staging: None,
            endpoint: ENDPOINT.into(),
            credentials: GcsCredentials::default(),
            ca_file: None,
            upload_part_bytes: 2 << 20,
            request_timeout: Duration::from_secs(60),
            retry_time: Duration::from_secs(120),
            retry_pause: Duration::from_millis(200),
            probe_prefix: "_gristmill".into(),
            credentials_check_every: Duration::from_secs(10),
        }
    }
}

/// Builds a [`GcsConfig`].
#[derive(Debug)]
#[must_use]
pub struct GcsConfigBuilder {
    bucket: String,
    staging: Option<(String, String)>,
    endpoint: String,
    credentials: GcsCredentials,
    ca_file: Option<PathBuf>,
    upload_part_bytes: usize,
    request_timeout: Duration,
    retry_time: Duration,
    retry_pause: Duration,
    probe_prefix: String,
    credentials_check_every: Duration,
}

impl GcsConfigBuilder {
    /// Keeps the objects whose names begin with `prefix` (the staged ones) in another bucket. Then files are
    /// copied at publishing (`objects.rewrite`) instead of moved, and between locations that takes time and costs.
    pub fn staging_bucket(mut self, bucket: impl Into<String>, prefix: impl Into<String>) -> Self {
        self.staging = Some((bucket.into(), prefix.into()));
        self
    }

    /// Another address than Google's: a private endpoint or an emulator, such as `http://127.0.0.1:4443`.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = url.into();
        self
    }

    /// Who the store acts as. Default: [`GcsCredentials::Default`].
    pub fn credentials(mut self, credentials: GcsCredentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// A PEM file with certificates of authorities that are trusted besides the system's, for the endpoint. Not for
    /// the services that issue tokens: those are Google's (or the credentials file names them), and only the
    /// system's authorities vouch for them.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// How many bytes of a large upload go in one request, a multiple of 256 KiB. Every open file holds up to that
    /// many in memory. Larger is faster on a long line. Default: 2 MiB.
    pub fn upload_part_bytes(mut self, bytes: usize) -> Self {
        self.upload_part_bytes = bytes;
        self
    }

    /// How long one request may take. Default: 60 s.
    pub fn request_timeout(mut self, time: Duration) -> Self {
        self.request_timeout = time;
        self
    }

    /// How long a request that fails in passing is tried again. Default: 120 s.
    pub fn retry_time(mut self, time: Duration) -> Self {
        self.retry_time = time;
        self
    }

    /// The pause before the first repetition; it doubles each time up to 15 s, and up to half of it is left out at
    /// random. Default: 200 ms.
    pub fn retry_pause(mut self, pause: Duration) -> Self {
        self.retry_pause = pause;
        self
    }

    /// Where the objects go that [`GcsStore::probe`](crate::GcsStore::probe) makes and deletes. Default:
    /// `_gristmill`.
    pub fn probe_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.probe_prefix = prefix.into();
        self
    }

    /// How often a file with credentials is looked at, and read again if it has changed. One that cannot be used,
    /// such as one that is half written, is told in the log, and the former credentials are kept. Default: 10 s.
    pub fn credentials_check_every(mut self, time: Duration) -> Self {
        self.credentials_check_every = time;
        self
    }

    /// Checks everything at once.
    ///
    /// # Errors
    /// `InvalidConfig` with one sentence for each mistake.
    pub fn build(self) -> Result<GcsConfig> {
        let mut wrong = Vec::new();
        for bucket in
            [Some(&self.bucket), self.staging.as_ref().map(|(bucket, _)| bucket)].into_iter().flatten()
        {
            if let Err(why) = check_bucket(bucket) {
                wrong.push(format!("{bucket:?} is not a bucket's name: {why}"));
            }
        }
        if let Some((_, prefix)) = &self.staging
            && prefix.is_empty()
        {
            wrong.push("a staging bucket for every name leaves the bucket itself empty".to_owned());
        }
        let endpoint = self.endpoint.trim_end_matches('/').to_owned();
        match reqwest::Url::parse(&endpoint) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {}
            _ => wrong.push(format!("the endpoint {endpoint:?} is not an http or https address")),
        }
        if self.upload_part_bytes == 0 || !self.upload_part_bytes.is_multiple_of(CHUNK_UNIT) {
            wrong.push(format!(
                "an upload part of {} bytes is not a multiple of 256 KiB",
                self.upload_part_bytes
            ));
        }
        if self.upload_part_bytes > 1 << 30 {
            wrong.push("an upload part of more than 1 GiB does not fit in memory".to_owned());
        }
        if self.request_timeout.is_zero() {
            wrong.push("a request cannot be done in no time".to_owned());
        }
        if let Err(e) = validate_name(&self.probe_prefix) {
            wrong.push(format!("the probe's prefix is not usable: {e}"));
        }
        if !wrong.is_empty() {
            let text = format!("Cloud Storage cannot be set up: {}", wrong.join("; "));
            return Err(Error::new(ErrorKind::InvalidConfig, text));
        }
        Ok(GcsConfig(Arc::new(Settings {
            bucket: self.bucket,
            staging: self.staging,
            endpoint,
            credentials: self.credentials,
            ca_file: self.ca_file,
            upload_part_bytes: self.upload_part_bytes,
            request_timeout: self.request_timeout,
            retry_time: self.retry_time,
            retry_pause: self.retry_pause,
            probe_prefix: self.probe_prefix,
            credentials_check_every: self.credentials_check_every,
        })))
    }
}

/// The naming rules of buckets that matter for an address: <https://cloud.google.com/storage/docs/buckets#naming>.
fn check_bucket(name: &str) -> std::result::Result<(), &'static str> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    let outer = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.starts_with("gs://") {
        return Err("leave out `gs://`; what follows the bucket is the prefix");
    }
    if !(3..=222).contains(&name.len()) {
        return Err("it has 3 to 63 characters, with dots up to 222");
    }
    if !name.chars().all(legal) {
        return Err("it has only lower-case letters, digits, `-`, `_` and `.`");
    }
    if !name.starts_with(outer) || !name.ends_with(outer) {
        return Err("it begins and ends with a letter or a digit");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_told_at_once() {
        let error = GcsConfig::builder("gs://Lake")
            .endpoint("storage.googleapis.com")
            .upload_part_bytes(100_000)
            .request_timeout(Duration::ZERO)
            .build()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        for part in ["leave out `gs://`", "not an http", "multiple of 256 KiB", "no time"] {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
        GcsConfig::builder("lake.example-1").endpoint("http://127.0.0.1:9/").build().unwrap();
    }
}
