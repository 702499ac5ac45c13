//! One request to Cloud Storage: how often, how long, as whom, and what an answer means.

use std::mem;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_LENGTH, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode, Url, redirect};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::config::GcsConfig;
use super::credentials::{Credentials, Epoch};
use super::object::parse_crc32c;
use crate::error::{Error, ErrorKind, Result};

/// The most of the store's own message that is repeated.
const MESSAGE_CHARS: usize = 300;

/// Answers that are not an object's content are far smaller.
const MAX_JSON_BYTES: u64 = 16 << 20;

const LONGEST_PAUSE: Duration = Duration::from_secs(15);
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Repetitions that a store may make before as many requests have gone well: what keeps a struggling service
/// from being asked ever more. A request that goes well gives a tenth of a repetition back.
const RETRY_BUDGET: i64 = 500;

/// Repetitions of one request that are not charged to the budget.
const FREE_REPETITIONS: u32 = 3;

/// What a request costs: <https://cloud.google.com/storage/pricing#operations-by-class>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    A,
    B,
    Free,
}

/// What was asked of a store: what is billed, and how often it had to be asked again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcsCounters {
    /// Operations of class A: creating, listing, moving, copying.
    pub class_a: u64,
    /// Operations of class B: reading objects and their metadata.
    pub class_b: u64,
    /// Operations without a price: deleting, and the parts of an upload.
    pub free: u64,
    /// Bytes of content sent.
    pub bytes_sent: u64,
    /// Bytes of answers received.
    pub bytes_received: u64,
    /// Requests that were sent again.
    pub retries: u64,
    /// Answers 429: too many requests.
    pub throttled: u64,
    /// Times that a token was renewed after a 401.
    pub renewed: u64,
}

#[derive(Debug, Default)]
struct Counted {
    class_a: AtomicU64,
    class_b: AtomicU64,
    free: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
    retries: AtomicU64,
    throttled: AtomicU64,
    renewed: AtomicU64,
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

#[derive(Debug)]
pub(super) struct Transport {
    client: Client,
    credentials: Credentials,
    counted: Counted,
    /// In tenths of a repetition.
    budget: AtomicI64,
    retry_time: Duration,
    retry_pause: Duration,
}

/// What is asked. It has to be safe to send twice.
#[derive(Debug)]
pub(super) struct Request {
    method: Method,
    url: String,
    query: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
    body: Option<Bytes>,
    class: Class,
    /// The most bytes of an answer.
    limit: u64,
    /// A 404 is an answer whoever gives it.
    any_answer: bool,
}

impl Request {
    pub(super) fn new(method: Method, url: String, class: Class) -> Self {
        Request {
            method,
            url,
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            class,
            limit: MAX_JSON_BYTES,
            any_answer: false,
        }
    }

    pub(super) fn query(mut self, name: &'static str, value: String) -> Self {
        self.query.push((name, value));
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn body(mut self, body: Bytes) -> Self {
        self.body = Some(body);
        self
    }

    pub(super) fn answer_bytes(mut self, limit: u64) -> Self {
        self.limit = limit;
        self
    }

    /// Takes a 404 also where it does not say that it comes from Cloud Storage: a server without such a method, or an
    /// upload session that is over.
    pub(super) fn any_answer(mut self) -> Self {
        self.any_answer = true;
        self
    }

    fn is_for_content(&self) -> bool {
        self.query.iter().any(|(name, value)| *name == "alt" && value == "media")
    }

    fn changes_something(&self) -> bool {
        self.method != Method::GET
    }
}

/// An answer that asking again would not change.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    pub(super) body: Bytes,
    /// An earlier try may have been carried out already.
    pub(super) repeated: bool,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<ErrorReason>,
}

#[derive(Deserialize)]
struct ErrorReason {
    #[serde(default)]
    reason: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|e| {
            let text = format!("the answer of Cloud Storage ({}) cannot be read", self.status);
            Error::new(ErrorKind::Unsupported, text).with_source(e)
        })
    }

    /// The service's own message and reason.
    fn detail(&self) -> (String, String) {
        match serde_json::from_slice::<ErrorBody>(&self.body) {
            Ok(ErrorBody { error }) => {
                let reason = error.errors.into_iter().next().map(|e| e.reason).unwrap_or_default();
                (error.message, reason)
            }
            Err(_) => (String::from_utf8_lossy(&self.body).trim().to_owned(), String::new()),
        }
    }

    /// Whether a 404 means that the bucket is missing, not the object.
    pub(super) fn is_about_the_bucket(&self) -> bool {
        self.detail().0.to_ascii_lowercase().contains("bucket does not exist")
    }

    /// Whether a 404 is the service's own word. Of content it is text, of all else JSON.
    fn is_from_the_service(&self, for_content: bool) -> bool {
        let (message, reason) = self.detail();
        reason == "notFound"
            || (for_content && (message.starts_with("No such object") || message == "Not Found"))
    }

    /// An error for a status that cannot be helped by asking again.
    pub(super) fn error(&self, what: &str) -> Error {
        let (message, _) = self.detail();
        let message: String = message.chars().take(MESSAGE_CHARS).collect();
        let (kind, hint) = match self.status {
            StatusCode::UNAUTHORIZED => (
                ErrorKind::PermissionDenied,
                "; check the credentials: the service does not accept their token",
            ),
            StatusCode::FORBIDDEN => (
                ErrorKind::PermissionDenied,
                "; the role Storage Object User on the bucket has what is needed, if no retention policy forbids it",
            ),
            StatusCode::NOT_FOUND if self.is_about_the_bucket() => {
                (ErrorKind::NotFound, "; create the bucket, or correct its name")
            }
            StatusCode::NOT_FOUND => (ErrorKind::NotFound, ""),
            StatusCode::INSUFFICIENT_STORAGE => (ErrorKind::OutOfSpace, ""),
            _ => (ErrorKind::Unsupported, ""),
        };
        Error::new(kind, format!("{what}: the store answers {} ({message}){hint}", self.status.as_u16()))
    }
}

/// A try that failed in passing, or for good.
pub(super) struct Failure {
    pub(super) error: Error,
    retry: bool,
    /// The request may have been carried out, or may be yet.
    pub(super) effect_unknown: bool,
    /// The token that was refused.
    unauthorized: Option<Epoch>,
    retry_after: Option<Duration>,
}

impl Failure {
    fn new(kind: ErrorKind, text: String) -> Self {
        Failure {
            error: Error::new(kind, text),
            retry: false,
            effect_unknown: false,
            unauthorized: None,
            retry_after: None,
        }
    }

    fn passing(mut self) -> Self {
        self.retry = true;
        self
    }
}

impl Transport {
    pub(super) fn new(config: &GcsConfig) -> Result<Self> {
        let settings = &config.0;
        let mut client = Client::builder()
            .timeout(settings.request_timeout)
            .connect_timeout(Duration::from_secs(10))
            .redirect(redirect::Policy::none())
            .user_agent(concat!("gristmill/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &settings.ca_file {
            let bad = |e: String| {
                let text = format!("the certificates in {} cannot be used: {e}", path.display());
                Error::new(ErrorKind::InvalidConfig, text)
            };
            let pem = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| bad(e.to_string()))?;
            if certificates.is_empty() {
                return Err(bad("there is none".into()));
            }
            for certificate in certificates {
                client = client.add_root_certificate(certificate);
            }
        }
        let client = client.build().map_err(|e| {
            Error::new(ErrorKind::InvalidConfig, "the HTTP client cannot be made").with_source(e)
        })?;
        Ok(Transport {
            client,
            credentials: Credentials::new(settings.credentials.clone())?,
            counted: Counted::default(),
            budget: AtomicI64::new(RETRY_BUDGET * 10),
            retry_time: settings.retry_time,
            retry_pause: settings.retry_pause,
        })
    }

    pub(super) fn counters(&self) -> GcsCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.counted;
        GcsCounters {
            class_a: read(&c.class_a),
            class_b: read(&c.class_b),
            free: read(&c.free),
            bytes_sent: read(&c.bytes_sent),
            bytes_received: read(&c.bytes_received),
            retries: read(&c.retries),
            throttled: read(&c.throttled),
            renewed: read(&c.renewed),
        }
    }

    pub(super) fn key_age(&self) -> Option<Duration> {
        self.credentials.key_age()
    }

    /// Sends a request until there is an answer that repeating cannot change.
    ///
    /// # Errors
    /// `Unavailable` if the request was never carried out, `OutcomeUnknown` if it may have been;
    /// `PermissionDenied` without usable credentials.
    pub(super) async fn send(&self, request: &Request) -> Result<Answer> {
        let mut patience = self.patience();
        loop {
            match self.once(request).await {
                Ok(mut answer) => {
                    answer.repeated = patience.effect_unknown;
                    return Ok(answer);
                }
                Err(failure) => patience.pause(failure).await?,
            }
        }
    }

    pub(super) fn patience(&self) -> Patience<'_> {
        Patience {
            transport: self,
            until: Instant::now() + self.retry_time,
            failures: 0,
            effect_unknown: false,
            renewed: false,
        }
    }

    /// An answer that makes no sense, and may at the next try.
    pub(super) fn odd(&self, text: String) -> Failure {
        Failure { effect_unknown: true, ..Failure::new(ErrorKind::OutcomeUnknown, text).passing() }
    }

    /// One try.
    pub(super) async fn once(&self, request: &Request) -> Result<Answer, Failure> {
        let mut url = Url::parse(&request.url).map_err(|e| {
            // Not the address itself: it may hold the secret of an upload session.
            Failure::new(ErrorKind::Unsupported, format!("the store named an address that is none: {e}"))
        })?;
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        let (mut headers, epoch) = self.credentials.headers().await.map_err(|e| {
            let failure = Failure::new(e.kind(), String::new());
            let retry = e.is_retryable();
            Failure { error: e, retry, ..failure }
        })?;
        for (name, value) in &request.headers {
            let value = value.parse().map_err(|_| {
                Failure::new(ErrorKind::InvalidName, format!("{value:?} cannot stand in a header"))
            })?;
            headers.insert(*name, value);
        }
        let body = request.body.clone().unwrap_or_default();
        if request.changes_something() {
            headers.insert(CONTENT_LENGTH, body.len().into());
        }
        let class = match request.class {
            Class::A => &self.counted.class_a,
            Class::B => &self.counted.class_b,
            Class::Free => &self.counted.free,
        };
        add(class, 1);
        add(&self.counted.bytes_sent, body.len() as u64);
        let mut send = self.client.request(request.method.clone(), url).headers(headers);
        if !body.is_empty() {
            send = send.body(body);
        }
        let broken = |e: reqwest::Error| {
            let unknown = request.changes_something() && !e.is_connect() && !e.is_builder();
            let kind = if unknown { ErrorKind::OutcomeUnknown } else { ErrorKind::Unavailable };
            let what = if e.is_timeout() {
                "did not answer in time"
            } else if e.is_connect() {
                "cannot be reached"
            } else {
                "broke off the connection"
            };
            // The address may hold the secret of an upload session.
            let mut failure = Failure::new(kind, String::new()).passing();
            failure.error = Error::new(kind, format!("Cloud Storage {what}")).with_source(e.without_url());
            failure.effect_unknown = unknown;
            failure
        };
        let response = send.send().await.map_err(broken)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.body(response, request.limit).await.map_err(|e| match e {
            Body::Broken(e) => broken(e),
            Body::TooLong => {
                let text = format!("the answer of Cloud Storage is longer than {} bytes", request.limit);
                Failure::new(ErrorKind::Unsupported, text)
            }
        })?;
        let answer = Answer { status, headers, body, repeated: false };
        self.judge(request, answer, epoch)
    }

    /// Whether the answer is one to act on, or asks to be asked again.
    fn judge(&self, request: &Request, answer: Answer, epoch: Epoch) -> Result<Answer, Failure> {
        let failure = |kind| {
            let (message, _) = answer.detail();
            let message: String = message.chars().take(MESSAGE_CHARS).collect();
            let status = answer.status.as_u16();
            let mut failure =
                Failure::new(kind, format!("Cloud Storage answers {status} ({message})")).passing();
            failure.retry_after = answer
                .header(RETRY_AFTER.as_str())
                .and_then(|s| s.trim().parse().ok())
                .map(|s| Duration::from_secs(s).min(LONGEST_RETRY_AFTER));
            failure
        };
        let refill = || {
            let full = RETRY_BUDGET * 10;
            let _ =
                self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |b| (b < full).then(|| b + 1));
        };
        match answer.status.as_u16() {
            401 => {
                let mut failure = failure(ErrorKind::PermissionDenied);
                failure.error = answer.error("Cloud Storage refuses the request");
                (failure.unauthorized, failure.retry) = (Some(epoch), false);
                Err(failure)
            }
            429 => {
                add(&self.counted.throttled, 1);
                Err(failure(ErrorKind::Unavailable))
            }
            // The older form of 429.
            403 if matches!(answer.detail().1.as_str(), "rateLimitExceeded" | "userRateLimitExceeded") => {
                add(&self.counted.throttled, 1);
                Err(failure(ErrorKind::Unavailable))
            }
            // What was sent did not arrive as it was.
            400 if request.body.is_some() && answer.detail().0.to_ascii_lowercase().contains("crc32c") => {
                Err(failure(ErrorKind::Unavailable))
            }
            408 | 500 | 502 | 503 | 504 => {
                // A server that fails may have done it all the same.
                let unknown = request.changes_something();
                let kind = if unknown { ErrorKind::OutcomeUnknown } else { ErrorKind::Unavailable };
                let mut failure = failure(kind);
                failure.effect_unknown = unknown;
                Err(failure)
            }
            // A gateway that has lost its way knows nothing of objects.
            404 if !request.any_answer && !answer.is_from_the_service(request.is_for_content()) => {
                let unknown = request.changes_something();
                let kind = if unknown { ErrorKind::OutcomeUnknown } else { ErrorKind::Unavailable };
                let mut failure = failure(kind);
                failure.effect_unknown = unknown;
                Err(failure)
            }
            200 if request.is_for_content() && !matches_its_checksum(&answer) => {
                let text = "what Cloud Storage sent is not what its checksum says".to_owned();
                Err(Failure::new(ErrorKind::Unavailable, text).passing())
            }
            _ => {
                refill();
                Ok(answer)
            }
        }
    }

    async fn body(&self, mut response: Response, limit: u64) -> Result<Bytes, Body> {
        if response.content_length().is_some_and(|n| n > limit) {
            return Err(Body::TooLong);
        }
        let mut whole = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(Body::Broken)? {
            add(&self.counted.bytes_received, chunk.len() as u64);
            if (whole.len() + chunk.len()) as u64 > limit {
                return Err(Body::TooLong);
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }
}

enum Body {
    Broken(reqwest::Error),
    TooLong,
}

/// An object's content comes with its checksum in `x-goog-hash: crc32c=..`; what is no content has none.
fn matches_its_checksum(answer: &Answer) -> bool {
    let told = answer.headers.get_all("x-goog-hash").iter().filter_map(|v| v.to_str().ok());
    let told = told.flat_map(|v| v.split(',')).find_map(|v| v.trim().strip_prefix("crc32c="));
    match told.and_then(parse_crc32c) {
        Some(crc) => crc32c::crc32c(&answer.body) == crc,
        None => true,
    }
}

/// How long a request is tried again: by time, and by the budget of all requests of the store.
pub(super) struct Patience<'a> {
    transport: &'a Transport,
    until: Instant,
    failures: u32,
    /// Some try may have been carried out.
    pub(super) effect_unknown: bool,
    renewed: bool,
}

impl Patience<'_> {
    /// Waits before the next try, or gives up with the failure's error.
    pub(super) async fn pause(&mut self, failure: Failure) -> Result<()> {
        self.effect_unknown |= failure.effect_unknown;
        let transport = self.transport;
        if let Some(epoch) = failure.unauthorized
            && !mem::replace(&mut self.renewed, true)
            && transport.credentials.renew(epoch)
        {
            add(&transport.counted.renewed, 1);
            return Ok(());
        }
        if !failure.retry {
            return Err(failure.error);
        }
        self.failures += 1;
        let longest =
            transport.retry_pause.saturating_mul(1 << (self.failures - 1).min(16)).min(LONGEST_PAUSE);
        let pause =
            longest.mul_f64(rand::random_range(0.5..1.0)).max(failure.retry_after.unwrap_or_default());
        let in_time = Instant::now() + pause <= self.until;
        // The first repetitions are everybody's due: an outage before must not make the next hiccup a failure.
        let affordable = self.failures <= FREE_REPETITIONS
            || (in_time
                && transport
                    .budget
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |b| (b >= 10).then(|| b - 10))
                    .is_ok());
        if !in_time || !affordable {
            let kind = if self.effect_unknown { ErrorKind::OutcomeUnknown } else { failure.error.kind() };
            let text = format!("gave up after {} tries: {}", self.failures, failure.error);
            return Err(Error::new(kind, text).with_source(failure.error));
        }
        add(&transport.counted.retries, 1);
        tracing::debug!(error = %failure.error, failures = self.failures, ?pause, "asking Cloud Storage again");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer {
            status,
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
            repeated: false,
        }
    }

    #[test]
    fn only_the_services_own_word_says_that_an_object_is_not_there() {
        let own = r#"{"error": {"code": 404, "message": "No such object: lake/a", "errors": [{"reason": "notFound"}]}}"#;
        assert!(answer(404, own).is_from_the_service(false));
        assert!(answer(404, "No such object: lake/a").is_from_the_service(true));
        // Of a gateway, a load balancer, a server that does not know the method.
        for body in
            ["", "Not Found", "<html>404</html>", r#"{"message": "no route"}"#, "No such object: lake/a"]
        {
            assert!(!answer(404, body).is_from_the_service(false), "{body}");
        }
        assert!(!answer(404, "<html>404</html>").is_from_the_service(true));
    }
}
