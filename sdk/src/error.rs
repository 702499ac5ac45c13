use std::fmt;
use std::sync::Arc;

/// What went wrong, as a condition that a program can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration contradicts itself, or a property does not exist.
    InvalidConfig,
    /// An argument cannot be carried by Kafka's protocol.
    InvalidArgument,
    /// No broker answered, or a connection broke. The client goes on trying.
    Unreachable,
    /// No answer within the time that was set for it.
    TimedOut,
    /// The broker refused the credentials.
    Unauthenticated,
    /// The broker knows the client, but does not allow the operation.
    Unauthorized,
    /// The topic, partition, group or subject does not exist.
    NotFound,
    /// The position is not in the partition: retention removed it, or it was never written.
    OffsetOutOfRange,
    /// The partition's log was truncated below the position (unclean leader election).
    LogTruncated,
    /// Another member or producer instance has taken this one's place.
    Fenced,
    /// The group is rebalancing or its coordinator is moving; trying again helps.
    Rebalancing,
    /// The record or batch is larger than the broker takes.
    TooLarge,
    /// The broker refused the request for a reason of its own.
    Refused,
    /// The record or the answer could not be read.
    Malformed,
    /// The client was closed.
    Closed,
    /// The client cannot go on; a new one is needed.
    Fatal,
    /// A condition that this version has no name for.
    Other,
}

/// An error of the SDK: kind, operation, and where it happened.
///
/// Cheap to clone, since one condition may be reported to several waiters. Never contains a secret or a
/// record's content.
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    detail: String,
    topic: Option<Arc<str>>,
    partition: Option<i32>,
    offset: Option<i64>,
    code: Option<i32>,
    retryable: bool,
}

/// The result of an operation of the SDK.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, operation: &'static str, detail: impl Into<String>) -> Self {
        let retryable = matches!(kind, ErrorKind::Unreachable | ErrorKind::TimedOut | ErrorKind::Rebalancing);
        Error {
            inner: Arc::new(Inner {
                kind,
                operation,
                detail: detail.into(),
                topic: None,
                partition: None,
                offset: None,
                code: None,
                retryable,
            }),
        }
    }

    fn edit(mut self, edit: impl FnOnce(&mut Inner)) -> Self {
        edit(Arc::make_mut(&mut self.inner));
        self
    }

    pub(crate) fn with_topic(self, topic: impl Into<Arc<str>>) -> Self {
        self.edit(|e| e.topic = Some(topic.into()))
    }

    pub(crate) fn with_partition(self, partition: i32) -> Self {
        self.edit(|e| e.partition = (partition >= 0).then_some(partition))
    }

    pub(crate) fn with_offset(self, offset: i64) -> Self {
        self.edit(|e| e.offset = (offset >= 0).then_some(offset))
    }

    pub(crate) fn with_detail(self, detail: impl Into<String>) -> Self {
        self.edit(|e| e.detail = detail.into())
    }

    pub(crate) fn with_code(self, code: i32) -> Self {
        self.edit(|e| e.code = Some(code))
    }

    /// The condition.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    pub(crate) fn detail(&self) -> &str {
        &self.inner.detail
    }

    /// What was being done.
    pub fn operation(&self) -> &'static str {
        self.inner.operation
    }

    /// The topic that it is about, if it is about one.
    pub fn topic(&self) -> Option<&str> {
        self.inner.topic.as_deref()
    }

    /// The partition that it is about, if it is about one.
    pub fn partition(&self) -> Option<i32> {
        self.inner.partition
    }

    /// The offset that it is about, if it is about one.
    pub fn offset(&self) -> Option<i64> {
        self.inner.offset
    }

    /// Kafka's error code (librdkafka's own codes are negative), if the error came from there.
    pub fn kafka_code(&self) -> Option<i32> {
        self.inner.code
    }

    /// Whether the same call may succeed later without a change by a person.
    pub fn is_retryable(&self) -> bool {
        self.inner.retryable
    }

    /// Whether the client that gave it is of no more use.
    pub fn is_fatal(&self) -> bool {
        matches!(self.inner.kind, ErrorKind::Fatal | ErrorKind::Fenced)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &*self.inner;
        write!(f, "cannot {}", e.operation)?;
        if let Some(topic) = &e.topic {
            write!(f, ": topic {topic}")?;
            if let Some(partition) = e.partition {
                write!(f, ", partition {partition}")?;
            }
            if let Some(offset) = e.offset {
                write!(f, ", offset {offset}")?;
            }
        }
        write!(f, ": {}", e.detail)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("code", &self.inner.code)
            .field("message", &self.to_string())
            .finish()
    }
}

impl std::error::Error for Error {}
