use std::fmt;

/// Why a transform could not be loaded, started or applied.
///
/// The text says what happened, where, and what to do. It never holds a value of the transform's
/// configuration that its schema marks as secret.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// The condition behind an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The component is not one that this runtime runs: not a component, imports something that is not
    /// offered, another version of the contract, a manifest that makes no sense.
    Load,
    /// The configuration does not fit the manifest's schema, or the transform refused it, or trapped in
    /// `configure`. Permanent: the same configuration fails again.
    Configure,
    /// A limit was reached that stands for the whole batch, or limits that contradict each other.
    Limit,
    /// The share of rejected rows says that the transform, not the data, is broken.
    Breaker,
    /// The host's own trouble: no free instance slot, a cache directory that others can write.
    Host,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into() }
    }

    pub(crate) fn load(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Load, message)
    }

    pub(crate) fn host(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Host, message)
    }

    pub(crate) fn limit(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Limit, message)
    }

    pub(crate) fn within(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// The condition.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later without anybody changing anything: only where the host
    /// itself was short of something.
    pub fn is_retryable(&self) -> bool {
        self.kind == ErrorKind::Host
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// The outermost reason in a chain of wasmtime errors is often "error while executing"; people need the
/// innermost.
pub(crate) fn root_cause(error: &wasmtime::Error) -> String {
    error.root_cause().to_string()
}
