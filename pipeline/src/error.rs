use std::fmt;

use crate::document::Problems;

/// Records name a schema, and there is none to ask for it.
pub(crate) const NO_REGISTRY: &str = "records name their schema by its id: `schema_registry` is needed";

/// What stopped a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The pipeline file, or something it names, is wrong.
    Config,
    /// Kafka could not be read.
    Source,
    /// The transform is broken, not only a record of it.
    Transform,
    /// Values cannot be decoded at all; a single bad record is a dead letter, not an error.
    Decode,
    /// Rows do not fit the schema that they are to be written with.
    Encode,
    /// The Schema Registry did not give a schema that records need.
    SchemaRegistry,
    /// Files or the ledger could not be written or do not fit together.
    Sink,
    /// A dead letter could not be delivered, or there is no place for one.
    DeadLetter,
    /// The status server could not start.
    Status,
}

/// Why a pipeline stopped.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// Opening the partition's ledger again may help.
    passing: bool,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), source: None, passing: false }
    }

    fn with(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Error { kind, message: message.into(), source: Some(source.into()), passing: false }
    }

    pub(crate) fn config(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Config, message)
    }

    pub(crate) fn source(error: gristmill::Error) -> Self {
        let text = match error.kind() {
            gristmill::ErrorKind::Unauthorized => {
                "Kafka does not allow it; grant the user in `source.kafka.properties` Read and Describe on the topics, Read \
                 on the group, and Write and Describe on the topic of the dead letters"
            }
            _ => "reading from Kafka failed",
        };
        Error::with(ErrorKind::Source, text, error)
    }

    /// The same, while a partition is at work: what may pass is waited for, as a store's failure is.
    pub(crate) fn source_at_work(error: gristmill::Error) -> Self {
        let passing = error.is_retryable();
        Error { passing, ..Error::source(error) }
    }

    pub(crate) fn unreachable(servers: &str, error: gristmill::Error) -> Self {
        let text = match error.kind() {
            gristmill::ErrorKind::Unauthenticated => format!(
                "the brokers at {servers} refuse the credentials; check the `sasl.` properties in \
                 `source.kafka.properties`, and with TLS the `ssl.` ones"
            ),
            _ => format!(
                "no broker at {servers} (`source.kafka.bootstrap_servers`) has answered; check the address, and \
                 `security.protocol` in `properties`"
            ),
        };
        Error::with(ErrorKind::Source, text, error)
    }

    pub(crate) fn transform(error: gristmill_smt::Error) -> Self {
        Error::with(ErrorKind::Transform, "the transform failed", error)
    }

    pub(crate) fn decode(error: gristmill_codec::Error) -> Self {
        Error::with(ErrorKind::Decode, "values cannot be decoded", error)
    }

    pub(crate) fn encode(error: gristmill_codec::Error) -> Self {
        Error::with(ErrorKind::Encode, "rows cannot be encoded", error)
    }

    pub(crate) fn arrow(error: arrow_schema::ArrowError) -> Self {
        Error::with(ErrorKind::Decode, "columns do not fit together", error)
    }

    pub(crate) fn registry(what: impl fmt::Display, error: gristmill::RegistryError) -> Self {
        Error::with(ErrorKind::SchemaRegistry, what.to_string(), error)
    }

    pub(crate) fn sink(error: gristmill_sinks::Error) -> Self {
        let passing = error.is_retryable() || error.kind() == gristmill_sinks::ErrorKind::Torn;
        Error { passing, ..Error::with(ErrorKind::Sink, "writing failed", error) }
    }

    pub(crate) fn status(address: std::net::SocketAddr, error: std::io::Error) -> Self {
        Error::with(
            ErrorKind::Status,
            format!(
                "cannot serve metrics on {address}; name another address in `http.listen`, or end what listens there"
            ),
            error,
        )
    }

    /// Says what the error means instead of what failed.
    pub(crate) fn because(mut self, what: &str) -> Self {
        self.message = what.to_owned();
        self
    }

    /// Puts what it is about in front of the message.
    pub(crate) fn about(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Puts the partition in front of the message.
    pub(crate) fn of_partition(mut self, topic: &str, partition: i32) -> Self {
        self.message = format!("{topic}-{partition}: {}", self.message);
        self
    }

    /// Whether opening the partition's ledger again, which settles what is in doubt, may help.
    pub(crate) fn is_passing(&self) -> bool {
        self.passing
    }

    /// The error of Kafka's client that it came from, if it did.
    pub fn kafka(&self) -> Option<&gristmill::Error> {
        self.source.as_ref()?.downcast_ref()
    }

    /// The error of the Schema Registry's client that it came from, if it did.
    pub fn schema_registry(&self) -> Option<&gristmill::RegistryError> {
        self.source.as_ref()?.downcast_ref()
    }

    /// What stopped the pipeline.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// The message and all its causes on one line.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut cause = self.source.as_deref().map(|e| e as &dyn std::error::Error);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Error {}

impl From<Problems> for Error {
    fn from(problems: Problems) -> Self {
        Error::config(problems.to_string())
    }
}
