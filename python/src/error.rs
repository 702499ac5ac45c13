//! Errors as exceptions of the package, each with its kind and place.

use gristmill::{ErrorKind, RegistryErrorKind};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// What becomes an exception: its class follows from `kind` (see `gristmill/errors.py`).
#[derive(Clone, Debug)]
pub(crate) struct Failure(Box<Parts>);

#[derive(Clone, Debug, Default)]
struct Parts {
    kind: &'static str,
    message: String,
    retryable: bool,
    topic: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
    subject: Option<String>,
    field: Option<String>,
}

impl Failure {
    pub(crate) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Parts { kind, message: message.into(), ..Parts::default() }.into()
    }

    pub(crate) fn invalid_argument(message: impl Into<String>) -> Self {
        Failure::new("invalid_argument", message)
    }

    pub(crate) fn at(mut self, topic: &str, partition: i32, offset: i64) -> Self {
        let parts = &mut *self.0;
        (parts.topic, parts.partition, parts.offset) =
            (Some(topic.to_owned()), Some(partition), Some(offset));
        self
    }

    pub(crate) fn with_field(mut self, field: Option<String>) -> Self {
        self.0.field = field;
        self
    }

    /// As an exception that was not raised.
    pub(crate) fn exception<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let parts = &*self.0;
        let attributes = PyDict::new(py);
        attributes.set_item("retryable", parts.retryable)?;
        attributes.set_item("topic", &parts.topic)?;
        attributes.set_item("partition", parts.partition)?;
        attributes.set_item("offset", parts.offset)?;
        attributes.set_item("subject", &parts.subject)?;
        attributes.set_item("field", &parts.field)?;
        py.import("gristmill.errors")?.getattr("_of")?.call((parts.kind, &parts.message), Some(&attributes))
    }

    /// The same, said in other words.
    fn saying(mut self, message: String) -> Self {
        self.0.message = message;
        self
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl From<Parts> for Failure {
    fn from(parts: Parts) -> Self {
        Failure(Box::new(parts))
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        Python::attach(|py| match failure.exception(py) {
            Ok(exception) => PyErr::from_value(exception),
            Err(error) => error,
        })
    }
}

impl From<gristmill::Error> for Failure {
    fn from(error: gristmill::Error) -> Self {
        Parts {
            kind: match error.kind() {
                ErrorKind::InvalidConfig => "invalid_config",
                ErrorKind::InvalidArgument => "invalid_argument",
                ErrorKind::Unreachable => "unreachable",
                ErrorKind::TimedOut => "timed_out",
                ErrorKind::Unauthenticated => "unauthenticated",
                ErrorKind::Unauthorized => "unauthorized",
                ErrorKind::NotFound => "not_found",
                ErrorKind::OffsetOutOfRange => "offset_out_of_range",
                ErrorKind::LogTruncated => "log_truncated",
                ErrorKind::Fenced => "fenced",
                ErrorKind::Rebalancing => "rebalancing",
                ErrorKind::TooLarge => "too_large",
                ErrorKind::Refused => "refused",
                ErrorKind::Malformed => "malformed",
                ErrorKind::Closed => "closed",
                ErrorKind::Fatal => "fatal",
                _ => "other",
            },
            message: error.to_string(),
            retryable: error.is_retryable(),
            topic: error.topic().map(str::to_owned),
            partition: error.partition(),
            offset: error.offset(),
            subject: None,
            field: None,
        }
        .into()
    }
}

impl From<gristmill::RegistryError> for Failure {
    fn from(error: gristmill::RegistryError) -> Self {
        let kind = match error.kind() {
            RegistryErrorKind::InvalidConfig => "invalid_config",
            RegistryErrorKind::NotFound => "not_found",
            _ => "schema_registry",
        };
        let (message, retryable) = (error.to_string(), error.is_retryable());
        let subject = error.subject().map(str::to_owned);
        Parts { kind, message, retryable, subject, ..Parts::default() }.into()
    }
}

impl From<gristmill_pipeline::Error> for Failure {
    fn from(error: gristmill_pipeline::Error) -> Self {
        use gristmill_pipeline::ErrorKind;
        if let Some(kafka) = error.kafka() {
            return Failure::from(kafka.clone()).saying(error.to_string());
        }
        if let Some(registry) = error.schema_registry() {
            return Failure::from(registry.clone()).saying(error.to_string());
        }
        let kind = match error.kind() {
            ErrorKind::Config => "invalid_config",
            ErrorKind::Transform => "transform",
            ErrorKind::Decode => "decode",
            ErrorKind::Encode => "invalid_argument",
            ErrorKind::SchemaRegistry => "schema_registry",
            ErrorKind::Sink => "sink",
            ErrorKind::DeadLetter => "dead_letter",
            _ => "other",
        };
        Failure::new(kind, error.to_string())
    }
}

impl From<gristmill_smt::Error> for Failure {
    fn from(error: gristmill_smt::Error) -> Self {
        let kind = match error.kind() {
            gristmill_smt::ErrorKind::Configure => "invalid_config",
            _ => "transform",
        };
        let retryable = error.is_retryable();
        Parts { kind, message: error.to_string(), retryable, ..Parts::default() }.into()
    }
}

impl From<gristmill_codec::Error> for Failure {
    fn from(error: gristmill_codec::Error) -> Self {
        // What the columns are encoded by says it last.
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            message.push_str(&format!(": {error}"));
            cause = error.source();
        }
        Failure::invalid_argument(message)
    }
}
