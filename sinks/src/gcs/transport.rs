//! One request to Cloud Storage: how often, how long, as whom, and what an answer means.

use std::mem;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Client, Method, Response, Url, redirect};

use super::answer::{Answer, shown};
use super::config::GcsConfig;
use super::credentials::{Credentials, Epoch};
use crate::error::{Error, ErrorKind, Result};

/// Answers that are not an object's content are far smaller.
const MAX_JSON_BYTES: u64 = 16 << 20;

/// What is read of an answer that is an error; the rest is left out.
const MAX_ERROR_BYTES: u64 = 64 << 10;

const LONGEST_PAUSE: Duration = Duration::from_secs(15);

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
    endpoint: Url,
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
        let endpoint = Url::parse(&settings.endpoint).map_err(|e| {
            Error::new(ErrorKind::InvalidConfig, "the endpoint is not an address").with_source(e)
        })?;
        Ok(Transport {
            client,
            endpoint,
            credentials: Credentials::new(settings)?,
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

    /// Where a request goes: an address, or one relative to the endpoint's, as an upload's session may be.
    ///
    /// The token and the content go to the endpoint and to Google, wherever an answer says that a session is.
    fn address(&self, request: &Request) -> Result<Url, Failure> {
        // Neither text shows the address itself, which may hold the secret of an upload session.
        let url = self.endpoint.join(&request.url).map_err(|e| {
            Failure::new(ErrorKind::Unsupported, format!("the store names an upload by no address: {e}"))
        })?;
        let is_googles =
            url.scheme() == "https" && url.host_str().is_some_and(|h| h.ends_with(".googleapis.com"));
        if url.origin() == self.endpoint.origin() || is_googles {
            return Ok(url);
        }
        let text = format!(
            "the store at {} names {} for an upload, and nothing is sent to another host; correct the `endpoint`, \
             or the address that the server believes to have",
            self.endpoint.origin().ascii_serialization(),
            url.origin().ascii_serialization()
        );
        Err(Failure::new(ErrorKind::Unsupported, text))
    }

    /// One try.
    pub(super) async fn once(&self, request: &Request) -> Result<Answer, Failure> {
        let mut url = self.address(request)?;
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
            let untrusted = e.is_connect() && is_about_a_certificate(&e);
            let what = if e.is_timeout() {
                "did not answer in time"
            } else if untrusted {
                "cannot be reached: its certificate is not trusted; name the certificate of its authority in `ca_file`"
            } else if e.is_connect() {
                "cannot be reached"
            } else {
                "broke off the connection"
            };
            let mut failure = Failure::new(kind, String::new());
            // The address may hold the secret of an upload session.
            failure.error = Error::new(kind, format!("Cloud Storage {what}")).with_source(e.without_url());
            (failure.retry, failure.effect_unknown) = (!untrusted, unknown);
            failure
        };
        let response = send.send().await.map_err(broken)?;
        let (status, headers) = (response.status(), response.headers().clone());
        // Of an error, the status says what to do.
        let is_error = status.is_client_error() || status.is_server_error();
        let limit = if is_error { MAX_ERROR_BYTES } else { request.limit };
        let body = self.body(response, limit, is_error).await.map_err(|e| match e {
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
            let message = shown(&answer.detail().0);
            let status = answer.status.as_u16();
            let mut failure =
                Failure::new(kind, format!("Cloud Storage answers {status} ({message})")).passing();
            failure.retry_after = answer.retry_after();
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
            200 if request.is_for_content() && !answer.matches_its_checksum() => {
                let text = "what Cloud Storage sent is not what its checksum says".to_owned();
                Err(Failure::new(ErrorKind::Unavailable, text).passing())
            }
            _ => {
                refill();
                Ok(answer)
            }
        }
    }

    /// The body of an answer; of one that is longer than `limit`, the beginning if that will do.
    async fn body(&self, mut response: Response, limit: u64, beginning: bool) -> Result<Bytes, Body> {
        if !beginning && response.content_length().is_some_and(|n| n > limit) {
            return Err(Body::TooLong);
        }
        let mut whole = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(Body::Broken)? {
            add(&self.counted.bytes_received, chunk.len() as u64);
            let room = limit - whole.len() as u64;
            if chunk.len() as u64 > room {
                if !beginning {
                    return Err(Body::TooLong);
                }
                whole.extend_from_slice(&chunk[..room as usize]);
                break;
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

/// TLS libraries tell it in words only.
fn is_about_a_certificate(error: &reqwest::Error) -> bool {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
    causes.take(16).any(|e| e.to_string().contains("certificate"))
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
