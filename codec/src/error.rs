//! What can be wrong with a schema or a whole call; a row that cannot be decoded is not an error.

use std::error::Error as StdError;
use std::fmt;

/// A specialised `Result` for this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a decoder could not be made, or a whole call of `decode` could not be answered.
///
/// A single record that cannot be decoded is **not** an error: it comes back as
/// [`Undecodable`](crate::Undecodable) and the others go on.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The condition behind an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The text is not a schema: broken JSON, an unknown type, a name that nothing defines.
    InvalidSchema,
    /// Two schemas that are valid on their own do not fit together: what one writes, the other cannot read.
    IncompatibleSchema,
    /// A valid type that has no Arrow column here, such as a recursive record.
    UnsupportedType,
    /// More bytes in one call than a column with 32-bit offsets can hold: decode fewer rows at once.
    TooLarge,
    /// The decoder answered with something that contradicts its own promises: a defect, not bad data.
    Internal,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The condition, for code that decides what to do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later without a change: never, since decoding does no I/O.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

/// What is wrong, with the field that it is about.
pub(crate) fn at_field(path: &str, message: impl fmt::Display) -> String {
    if path.is_empty() { message.to_string() } else { format!("field {path}: {message}") }
}

/// The path of a member.
pub(crate) fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
