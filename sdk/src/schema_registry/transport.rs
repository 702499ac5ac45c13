//! One request to the registry: which URL, how often, how long, how much.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Certificate, Client, Identity, Method, Response, StatusCode, Url, redirect};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::config::{Credentials, RegistryConfig};
use super::error::{RegistryError, RegistryErrorKind};

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
const ACCEPTED: &str = "application/vnd.schemaregistry.v1+json, application/json;q=0.9";

/// The most of a registry's own message that is repeated.
const MESSAGE_CHARS: usize = 300;

#[derive(Debug)]
pub(super) struct Transport {
    client: Client,
    urls: Vec<Url>,
    /// Index of the URL that answered last: where the next request starts.
    preferred: AtomicUsize,
    credentials: Credentials,
    retries: u32,
    backoff: Duration,
    max_backoff: Duration,
    max_response_bytes: usize,
}

/// What is asked of the registry.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) path: &'a [&'a str],
    pub(super) query: &'a [(&'a str, &'a str)],
    /// `None`: GET. Only what may be sent twice is sent at all: registering is idempotent.
    pub(super) body: Option<&'a serde_json::Value>,
}

/// One failed try.
struct Failure {
    error: RegistryError,
    retry_after: Option<Duration>,
}

#[derive(Deserialize)]
struct ErrorBody {
    error_code: Option<i64>,
    message: Option<String>,
}

impl Transport {
    pub(super) fn new(config: &RegistryConfig) -> Result<Self, RegistryError> {
        let bad = |what: &str, e: reqwest::Error| {
            RegistryError::new(RegistryErrorKind::InvalidConfig, format!("{what}: {}", e.without_url()))
        };
        let mut client = Client::builder()
            .timeout(config.timeout)
            .connect_timeout(config.connect_timeout)
            .redirect(redirect::Policy::limited(3))
            .user_agent(concat!("gristmill/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = &config.ca_pem {
            let certificate =
                Certificate::from_pem(&pem.0).map_err(|e| bad("the CA certificate cannot be read", e))?;
            client = client.add_root_certificate(certificate);
        }
        if let Some((certificate, key)) = &config.identity {
            let identity = Identity::from_pkcs8_pem(&certificate.0, &key.0)
                .map_err(|e| bad("the client certificate and its PKCS #8 key cannot be read", e))?;
            client = client.identity(identity);
        }
        Ok(Self {
            client: client.build().map_err(|e| bad("the HTTP client cannot be made", e))?,
            urls: config.urls.clone(),
            preferred: AtomicUsize::new(0),
            credentials: config.credentials.clone(),
            retries: config.retries,
            backoff: config.backoff,
            max_backoff: config.max_backoff,
            max_response_bytes: config.max_response_bytes,
        })
    }

    /// Sends a request until there is an answer that repeating cannot change.
    ///
    /// Every URL is tried in turn; what fails in passing (429, 5xx, no connection, no answer) goes to the
    /// next URL, and after the last one, after a wait, to the first again.
    pub(super) async fn send<T: DeserializeOwned>(&self, request: &Request<'_>) -> Result<T, RegistryError> {
        let mut attempt = 0;
        loop {
            let first = self.preferred.load(Ordering::Relaxed);
            let mut wait: Option<Duration> = None;
            let mut last = None;
            for i in 0..self.urls.len() {
                let index = (first + i) % self.urls.len();
                match self.try_once(&self.urls[index], request).await {
                    Ok(answer) => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    Err(failure) if !failure.error.is_retryable() => return Err(failure.error),
                    Err(failure) => {
                        wait = wait.max(failure.retry_after);
                        last = Some(failure.error);
                    }
                }
            }
            let error =
                last.unwrap_or_else(|| RegistryError::new(RegistryErrorKind::InvalidConfig, "no URL is set"));
            if attempt >= self.retries {
                return Err(error);
            }
            let wait = wait.map_or_else(|| self.pause(attempt), |wait| wait.min(self.max_backoff));
            tracing::debug!(%error, attempt, ?wait, "asking the schema registry again");
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    /// Doubles with each attempt, less a random part, so that many clients do not come back together.
    fn pause(&self, attempt: u32) -> Duration {
        let full = self.backoff.saturating_mul(2u32.saturating_pow(attempt)).min(self.max_backoff);
        let random = RandomState::new().hash_one(attempt) as u32;
        full.mul_f64(1.0 - 0.5 * f64::from(random) / f64::from(u32::MAX))
    }

    async fn try_once<T: DeserializeOwned>(&self, base: &Url, request: &Request<'_>) -> Result<T, Failure> {
        let fail = |kind, detail: String| Failure {
            error: RegistryError::new(kind, detail).at(shown(base)),
            retry_after: None,
        };
        let mut url = base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(request.path);
        }
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(request.query);
        }
        let method = if request.body.is_some() { Method::POST } else { Method::GET };
        let mut call = self.client.request(method, url).header(ACCEPT, ACCEPTED);
        if let Some(body) = request.body {
            call = call.header(CONTENT_TYPE, MEDIA_TYPE).body(body.to_string());
        }
        call = match &self.credentials {
            Credentials::None => call,
            Credentials::Basic { user, password } => call.basic_auth(user, Some(password)),
            Credentials::Bearer(token) => call.bearer_auth(token),
        };
        let response = call.send().await.map_err(|e| transport_failure(base, e))?;
        let status = response.status();
        let retry_after = retry_after(&response);
        let body = self.read(base, response).await;
        if status.is_success() {
            let body = body?;
            return serde_json::from_slice(&body).map_err(|e| {
                // serde's message may quote the answer; position and category do not.
                let what = format!(
                    "the answer of {} bytes is not the JSON of a Schema Registry ({:?} error at line {} column {})",
                    body.len(),
                    e.classify(),
                    e.line(),
                    e.column()
                );
                Failure { error: RegistryError::new(RegistryErrorKind::Malformed, what).at(shown(base)).with_status(status.as_u16()), retry_after: None }
            });
        }
        // An error's body is a courtesy: without one the status alone says enough.
        let said = body.ok().and_then(|body| serde_json::from_slice::<ErrorBody>(&body).ok());
        let detail = match said.as_ref().and_then(|said| said.message.as_deref()) {
            Some(message) if !message.is_empty() => clean(message),
            _ => status.canonical_reason().unwrap_or("refused").to_ascii_lowercase(),
        };
        let mut failure = fail(kind_of(status), detail);
        failure.error = failure.error.with_status(status.as_u16());
        if let Some(code) = said.and_then(|said| said.error_code) {
            failure.error = failure.error.with_code(code);
        }
        failure.retry_after = retry_after;
        Err(failure)
    }

    async fn read(&self, base: &Url, mut response: Response) -> Result<Vec<u8>, Failure> {
        let too_large = || Failure {
            error: RegistryError::new(
                RegistryErrorKind::TooLarge,
                format!("the answer is larger than {} bytes", self.max_response_bytes),
            )
            .at(shown(base)),
            retry_after: None,
        };
        if response.content_length().is_some_and(|length| length > self.max_response_bytes as u64) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| transport_failure(base, e))? {
            if body.len() + chunk.len() > self.max_response_bytes {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn kind_of(status: StatusCode) -> RegistryErrorKind {
    match status.as_u16() {
        401 => RegistryErrorKind::Unauthenticated,
        403 => RegistryErrorKind::Unauthorized,
        404 => RegistryErrorKind::NotFound,
        408 => RegistryErrorKind::TimedOut,
        409 => RegistryErrorKind::Incompatible,
        422 => RegistryErrorKind::InvalidSchema,
        429 => RegistryErrorKind::RateLimited,
        500.. => RegistryErrorKind::ServerFailure,
        _ => RegistryErrorKind::Refused,
    }
}

fn transport_failure(base: &Url, e: reqwest::Error) -> Failure {
    let (kind, detail) = if e.is_timeout() {
        (RegistryErrorKind::TimedOut, "no answer in time".to_owned())
    } else if e.is_redirect() {
        (RegistryErrorKind::Refused, "redirected too often".to_owned())
    } else {
        // The cause ("connection refused") is at the end of the chain; the front repeats the URL.
        let e = e.without_url();
        let mut cause: &dyn std::error::Error = &e;
        while let Some(source) = cause.source() {
            cause = source;
        }
        (RegistryErrorKind::Unreachable, clean(&cause.to_string()))
    };
    Failure { error: RegistryError::new(kind, detail).at(shown(base)), retry_after: None }
}

fn retry_after(response: &Response) -> Option<Duration> {
    // The other form, a date, is not used by registries and needs a trusted clock.
    let seconds: u64 = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn shown(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

/// A stranger's message on one line, of a bounded length.
fn clean(message: &str) -> String {
    let mut out: String =
        message.chars().take(MESSAGE_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if message.chars().nth(MESSAGE_CHARS).is_some() {
        out.push('…');
    }
    out.trim_end_matches(['.', ' ']).to_owned()
}
