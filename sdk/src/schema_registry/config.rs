use std::fmt;
use std::time::Duration;

use reqwest::Url;

use super::error::{RegistryError, RegistryErrorKind};

/// How to reach a Schema Registry, and how long to believe its answers.
///
/// Made with [`RegistryConfig::builder`]. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    pub(super) urls: Vec<Url>,
    pub(super) credentials: Credentials,
    pub(super) ca_pem: Option<Pem>,
    pub(super) identity: Option<(Pem, Pem)>,
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) retries: u32,
    pub(super) backoff: Duration,
    pub(super) max_backoff: Duration,
    pub(super) latest_ttl: Duration,
    pub(super) not_found_ttl: Duration,
    pub(super) max_stale: Duration,
    pub(super) cache_entries: usize,
    pub(super) max_response_bytes: usize,
}

#[derive(Clone)]
pub(super) enum Credentials {
    None,
    Basic { user: String, password: String },
    Bearer(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::None => "none",
            Credentials::Basic { .. } => "basic (redacted)",
            Credentials::Bearer(_) => "bearer (redacted)",
        })
    }
}

#[derive(Clone)]
pub(super) struct Pem(pub(super) Vec<u8>);

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(redacted)")
    }
}

impl RegistryConfig {
    /// A builder with the defaults that its methods name.
    pub fn builder() -> RegistryConfigBuilder {
        RegistryConfigBuilder {
            urls: Vec::new(),
            basic: None,
            bearer: None,
            ca_pem: None,
            identity: None,
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(4),
            retries: 3,
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(10),
            latest_ttl: Duration::from_secs(300),
            not_found_ttl: Duration::from_secs(5),
            max_stale: Duration::from_secs(24 * 3600),
            cache_entries: 1000,
            max_response_bytes: 8 * 1024 * 1024,
        }
    }
}

/// Builds a [`RegistryConfig`]; [`build`](Self::build) reports every contradiction at once.
#[derive(Clone)]
pub struct RegistryConfigBuilder {
    urls: Vec<String>,
    basic: Option<(String, String)>,
    bearer: Option<String>,
    ca_pem: Option<Pem>,
    identity: Option<(Pem, Pem)>,
    timeout: Duration,
    connect_timeout: Duration,
    retries: u32,
    backoff: Duration,
    max_backoff: Duration,
    latest_ttl: Duration,
    not_found_ttl: Duration,
    max_stale: Duration,
    cache_entries: usize,
    max_response_bytes: usize,
}

impl fmt::Debug for RegistryConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL that has not been checked may have a password in it.
        f.debug_struct("RegistryConfigBuilder").field("urls", &self.urls.len()).finish_non_exhaustive()
    }
}

impl RegistryConfigBuilder {
    /// Adds a URL of the registry, such as `https://registry.example:8081`. A path is kept, so
    /// `http://host/apis/ccompat/v7` works. Several URLs are tried in turn, the one that answered last
    /// first. At least one.
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.urls.push(url.into());
        self
    }

    /// Adds several URLs; see [`url`](Self::url).
    pub fn urls<S: Into<String>>(mut self, urls: impl IntoIterator<Item = S>) -> Self {
        self.urls.extend(urls.into_iter().map(Into::into));
        self
    }

    /// User and password (or API key and secret) for HTTP basic authentication.
    pub fn basic_auth(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.basic = Some((user.into(), password.into()));
        self
    }

    /// A bearer token. It is sent as it is and not refreshed.
    pub fn bearer_token(mut self, token: impl Into<String>) -> Self {
        self.bearer = Some(token.into());
        self
    }

    /// A certificate authority (PEM) to trust besides the system's.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_pem = Some(Pem(pem.into()));
        self
    }

    /// A client certificate and its PKCS #8 key (PEM), for mutual TLS.
    pub fn client_identity_pem(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((Pem(certificate.into()), Pem(key.into())));
        self
    }

    /// Time for one request and its whole answer. Default 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Time to connect. Default 4 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How often all URLs are tried again after an overload, a server's failure or a broken connection.
    /// Default 3, at most 20; 0 turns retries off.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Wait before the first retry, doubled each time up to `most`; a random part of up to half of it is
    /// taken off. A `Retry-After` of the registry is obeyed, up to `most`. Default 100 ms, 10 s.
    pub fn backoff(mut self, first: Duration, most: Duration) -> Self {
        self.backoff = first;
        self.max_backoff = most;
        self
    }

    /// How long an answer to "latest version" is believed. Default 5 min. What an id means never changes,
    /// so ids are remembered until they are displaced.
    pub fn latest_ttl(mut self, ttl: Duration) -> Self {
        self.latest_ttl = ttl;
        self
    }

    /// How long "there is no such schema" is believed. Default 5 s: long enough that a flood of records
    /// with an unknown id is no flood of requests, short enough that a schema registered now is found
    /// soon.
    pub fn not_found_ttl(mut self, ttl: Duration) -> Self {
        self.not_found_ttl = ttl;
        self
    }

    /// How old an answer to "latest version" may be that is still used while the registry fails.
    /// Default 24 h; zero turns it off.
    pub fn max_stale(mut self, age: Duration) -> Self {
        self.max_stale = age;
        self
    }

    /// How many schemas and how many subjects are remembered. Default 1,000 each; the longest unused goes.
    pub fn cache_entries(mut self, entries: usize) -> Self {
        self.cache_entries = entries;
        self
    }

    /// The largest answer that is read. Default 8 MiB.
    pub fn max_response_bytes(mut self, bytes: usize) -> Self {
        self.max_response_bytes = bytes;
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    ///
    /// [`RegistryErrorKind::InvalidConfig`] with a sentence for each mistake. Certificates are checked by
    /// [`SchemaRegistry::new`](super::SchemaRegistry::new).
    pub fn build(self) -> Result<RegistryConfig, RegistryError> {
        let mut mistakes = Vec::new();
        let mut urls = Vec::new();
        if self.urls.is_empty() {
            mistakes.push("no URL is set".to_owned());
        }
        for (i, text) in self.urls.iter().enumerate() {
            // The text is not repeated: whatever does not parse may have a password in it.
            match Url::parse(text.trim()) {
                Err(e) => mistakes.push(format!("URL {} is not one ({e})", i + 1)),
                Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                    mistakes.push(format!("URL {} is neither http nor https", i + 1));
                }
                Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                    mistakes
                        .push(format!("URL {} has credentials in it; set them as user and password", i + 1));
                }
                Ok(url) if url.query().is_some() || url.fragment().is_some() => {
                    mistakes.push(format!("URL {} has a query or fragment; leave it out", i + 1));
                }
                Ok(url) => urls.push(url),
            }
        }
        if self.basic.is_some() && self.bearer.is_some() {
            mistakes.push("both a password and a bearer token are set; set one".to_owned());
        }
        if self
            .bearer
            .as_deref()
            .is_some_and(|token| token.is_empty() || token.contains(|c: char| !c.is_ascii_graphic()))
        {
            mistakes
                .push("the bearer token is empty or has characters that no HTTP header can carry".to_owned());
        }
        for (name, time) in [("timeout", self.timeout), ("connect timeout", self.connect_timeout)] {
            if time.is_zero() {
                mistakes.push(format!("the {name} is zero"));
            }
        }
        if self.retries > 20 {
            mistakes.push(format!("{} retries are more than 20", self.retries));
        }
        if self.backoff > self.max_backoff {
            mistakes.push("the first backoff is longer than the longest".to_owned());
        }
        if self.cache_entries == 0 {
            mistakes.push("the cache has no entries; leave it at least 1".to_owned());
        }
        if self.max_response_bytes == 0 {
            mistakes.push("the largest answer is 0 bytes".to_owned());
        }
        if !mistakes.is_empty() {
            return Err(RegistryError::new(RegistryErrorKind::InvalidConfig, mistakes.join("; ")));
        }
        let credentials = match (self.basic, self.bearer) {
            (Some((user, password)), _) => Credentials::Basic { user, password },
            (None, Some(token)) => Credentials::Bearer(token),
            (None, None) => Credentials::None,
        };
        Ok(RegistryConfig {
            urls,
            credentials,
            ca_pem: self.ca_pem,
            identity: self.identity,
            timeout: self.timeout,
            connect_timeout: self.connect_timeout,
            retries: self.retries,
            backoff: self.backoff,
            max_backoff: self.max_backoff,
            latest_ttl: self.latest_ttl,
            not_found_ttl: self.not_found_ttl,
            max_stale: self.max_stale,
            cache_entries: self.cache_entries,
            max_response_bytes: self.max_response_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contradiction_is_reported_at_once() {
        let error = RegistryConfig::builder()
            .url("ftp://x")
            .url("http://me:hunter2@x")
            .url("hunter2 hunter2")
            .basic_auth("me", "hunter2")
            .bearer_token("hunter 2")
            .timeout(Duration::ZERO)
            .retries(99)
            .build()
            .unwrap_err();
        assert_eq!(error.kind(), RegistryErrorKind::InvalidConfig);
        let text = error.to_string();
        for part in
            ["URL 1", "URL 2", "URL 3", "both a password", "no HTTP header", "timeout is zero", "99 retries"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn debug_shows_no_secret() {
        let builder =
            RegistryConfig::builder().url("http://registry:8081").client_identity_pem("hunter2", "hunter2");
        for builder in [builder.clone().basic_auth("me", "hunter2"), builder.bearer_token("hunter2")] {
            assert!(!format!("{builder:?}").contains("hunter2"));
            let shown = format!("{:?}", builder.build().unwrap());
            assert!(!shown.contains("hunter2") && shown.contains("registry"), "{shown}");
        }
    }
}
