use std::fmt;
use std::sync::Arc;

/// What went wrong with the Schema Registry, as a condition that a program can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RegistryErrorKind {
    /// The configuration contradicts itself.
    InvalidConfig,
    /// An argument that no registry can be asked about, such as an empty subject.
    InvalidArgument,
    /// The schema, subject or version does not exist.
    NotFound,
    /// The registry refused the credentials, or asks for some (401).
    Unauthenticated,
    /// The registry knows the client and does not allow the operation (403).
    Unauthorized,
    /// The registry refused the schema as incompatible with the subject's earlier versions (409).
    Incompatible,
    /// The registry refused the schema as invalid (422).
    InvalidSchema,
    /// The registry has no capacity at the moment (429).
    RateLimited,
    /// The registry answered with a failure of its own (5xx).
    ServerFailure,
    /// No registry could be reached, or the connection broke.
    Unreachable,
    /// No answer in the time that was set for it.
    TimedOut,
    /// The answer is not what a Schema Registry answers.
    Malformed,
    /// The answer is larger than allowed.
    TooLarge,
    /// The schema's references are missing, circular, or nested too deep.
    InvalidReferences,
    /// The schema has rules for readers (or encryption) that are not run here, so its records would be
    /// read wrongly.
    UnsupportedRules,
    /// Any other refusal (4xx).
    Refused,
    /// The look-up was cut short because the tokio runtime is shutting down.
    Interrupted,
}

/// A failed operation on the Schema Registry: the condition, which registry, what was asked for, and what
/// to do.
///
/// Cheap to clone, since one answer may go to many waiters. Never contains a secret.
#[derive(Clone)]
pub struct RegistryError {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: RegistryErrorKind,
    detail: String,
    asked: Option<String>,
    subject: Option<String>,
    url: Option<String>,
    status: Option<u16>,
    code: Option<i64>,
}

impl RegistryError {
    pub(super) fn new(kind: RegistryErrorKind, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self {
            inner: Arc::new(Inner {
                kind,
                detail,
                asked: None,
                subject: None,
                url: None,
                status: None,
                code: None,
            }),
        }
    }

    fn edit(mut self, edit: impl FnOnce(&mut Inner)) -> Self {
        edit(Arc::make_mut(&mut self.inner));
        self
    }

    pub(super) fn at(self, url: impl Into<String>) -> Self {
        self.edit(|e| e.url = Some(url.into()))
    }

    pub(super) fn with_status(self, status: u16) -> Self {
        self.edit(|e| e.status = Some(status))
    }

    pub(super) fn with_code(self, code: i64) -> Self {
        self.edit(|e| e.code = Some(code))
    }

    /// Says what was asked for, unless that is known already (the innermost is the most precise).
    pub(super) fn about(self, asked: impl Into<String>) -> Self {
        self.edit(|e| {
            e.asked.get_or_insert_with(|| asked.into());
        })
    }

    /// Says which subject it is about.
    pub(super) fn of_subject(self, subject: &str) -> Self {
        self.edit(|e| e.subject = Some(subject.to_owned()))
    }

    /// The condition.
    pub fn kind(&self) -> RegistryErrorKind {
        self.inner.kind
    }

    /// What was asked for, such as `schema id 7` or `subject orders-value, latest version`.
    pub fn asked(&self) -> Option<&str> {
        self.inner.asked.as_deref()
    }

    /// The subject that it is about, if it is about one.
    pub fn subject(&self) -> Option<&str> {
        self.inner.subject.as_deref()
    }

    /// The registry's base URL, without credentials.
    pub fn url(&self) -> Option<&str> {
        self.inner.url.as_deref()
    }

    /// The HTTP status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        self.inner.status
    }

    /// The registry's own error code, such as 40403, if the answer had one.
    pub fn registry_code(&self) -> Option<i64> {
        self.inner.code
    }

    /// Whether the same call may succeed later without a change by a person. What is retryable has been
    /// retried already as often as configured.
    pub fn is_retryable(&self) -> bool {
        use RegistryErrorKind::*;
        matches!(self.kind(), RateLimited | ServerFailure | Unreachable | TimedOut | Interrupted)
    }

    /// What a person can do about it.
    fn advice(&self) -> Option<&'static str> {
        use RegistryErrorKind::*;
        Some(match self.kind() {
            NotFound => "check that this is the registry, and the context, that the producer registers with",
            Unauthenticated => "check the registry's user and password, or its token",
            Unauthorized => "ask for read access to the subject",
            Incompatible => "change the schema so that it fits the subject's compatibility level",
            RateLimited | ServerFailure => "the registry may recover by itself; see its log if it does not",
            Unreachable | TimedOut => "check the registry's URL, and that it can be reached from here",
            Malformed => "check that the URL is that of a Schema Registry, not of a proxy or a web page",
            UnsupportedRules => {
                "disable the rule, or read the topic with a client that runs it; going on would give wrong values"
            }
            _ => return None,
        })
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &*self.inner;
        f.write_str("schema registry")?;
        if let Some(url) = &e.url {
            write!(f, " {url}")?;
        }
        if let Some(asked) = &e.asked {
            write!(f, ": {asked}")?;
        }
        write!(f, ": {}", e.detail)?;
        match (e.status, e.code) {
            (Some(status), Some(code)) => write!(f, " (status {status}, registry error {code})")?,
            (Some(status), None) => write!(f, " (status {status})")?,
            _ => {}
        }
        if let Some(advice) = self.advice() {
            write!(f, "; {advice}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryError")
            .field("kind", &self.inner.kind)
            .field("status", &self.inner.status)
            .field("code", &self.inner.code)
            .field("message", &self.to_string())
            .finish()
    }
}

impl std::error::Error for RegistryError {}
