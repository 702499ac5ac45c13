use std::error::Error as StdError;
use std::fmt;

/// What went wrong in a store, a ledger or a sink.
///
/// The text says what happened, where, and what to do; [`Error::kind`] is for code. The cause, if there
/// is one, is [`std::error::Error::source`] and is not repeated in the text.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The condition behind an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration contradicts itself; the text lists every contradiction.
    InvalidConfig,
    /// An object, topic or output name that no store can take.
    InvalidName,
    /// A value or a call that breaks a rule of this API, such as an offset that goes backwards.
    Usage,
    /// Something that has to exist does not.
    NotFound,
    /// The store refuses this process.
    PermissionDenied,
    /// The store is full or over its quota.
    OutOfSpace,
    /// The store or the dead-letter target cannot be reached now; **nothing was done**.
    Unavailable,
    /// The request may or may not have been carried out: its reply was lost.
    OutcomeUnknown,
    /// The store cannot do what the protocol needs, such as a rename that never replaces.
    Unsupported,
    /// The final name of a sealed file is taken by an object that this ledger did not put there.
    DestinationTaken,
    /// A staged object is not the one that the entry names.
    Changed,
    /// A ledger object that cannot be read, or that contradicts its name.
    Corrupt,
    /// A ledger object written by a newer version.
    UnsupportedVersion,
    /// The ledger at this place belongs to another pipeline, cluster or topic.
    WrongLedger,
    /// Rows cannot be encoded in the file format.
    Encode,
    /// A dead-letter target refused a letter.
    DeadLetter,
    /// An earlier failure or a dropped future left the open entry incomplete: drop the sink and open it
    /// again; the ledger says where to go on.
    Torn,
    /// A failpoint of a test was hit.
    Injected,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; `message` says what happened, where, and what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), source: None }))
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The condition.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Unavailable | ErrorKind::OutcomeUnknown)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind).field("message", &self.0.message);
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}
