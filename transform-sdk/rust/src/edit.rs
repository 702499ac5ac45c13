use std::borrow::Cow;

use gristmill_records::{EditWriter, Header, Headers};

/// What happens to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on, with the edits that were made.
    Keep,
    /// It is left out. Records that were emitted for it are not.
    Drop,
}

/// A record that the transform refuses. It goes where the pipeline sends rejects, whole and unedited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    code: Cow<'static, str>,
    message: Cow<'static, str>,
}

impl Reject {
    /// `code` is for machines, such as `MISSING_FIELD`: visible ASCII, 64 characters at most, few different
    /// ones, since it is counted by. `message` is for people; it should not hold what is in the record.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Reject { code: code.into(), message: message.into() }
    }

    /// The code.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// An output of the transform. The `record` macro makes one constant for each that is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output(u32);

impl Output {
    /// The output that is always there: where the record was going, which is the pipeline's `main` unless an earlier
    /// transform sent it elsewhere.
    pub const MAIN: Output = Output(0);

    /// Output number `number`; numbers that are not declared make the runtime refuse the answer.
    pub const fn new(number: u32) -> Self {
        Output(number)
    }

    pub(crate) fn number(self) -> u32 {
        self.0
    }
}

/// Takes down what is to change about the record at hand. Nothing of it counts if the record is dropped
/// (but for records emitted) or rejected.
#[derive(Debug)]
pub struct Edit<'a> {
    pub(crate) writer: &'a mut EditWriter,
}

/// An extra record. By default it has nothing: null key and value, no headers, no timestamp.
#[derive(Debug, Clone, Copy, Default)]
pub struct Emit<'a> {
    /// The key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is null.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: &'a [Header<'a>],
    /// Milliseconds since the Unix epoch.
    pub timestamp: Option<i64>,
}

impl Edit<'_> {
    /// Sets the value.
    pub fn set_value(&mut self, value: impl AsRef<[u8]>) {
        self.writer.set_value(Some(value.as_ref()));
    }

    /// Sets the value to what `write` appends to the buffer: saves a copy. The buffer is not empty at the
    /// beginning, and `write` must not touch what is in it. Where `write` fails, return the error or set
    /// the value again.
    pub fn write_value<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        self.writer.set_value_with(write)
    }

    /// Makes the value null.
    pub fn set_null_value(&mut self) {
        self.writer.set_value(None);
    }

    /// Sets the key.
    pub fn set_key(&mut self, key: impl AsRef<[u8]>) {
        self.writer.set_key(Some(key.as_ref()));
    }

    /// Makes the key null.
    pub fn set_null_key(&mut self) {
        self.writer.set_key(None);
    }

    /// Replaces all headers.
    pub fn set_headers<'h>(&mut self, headers: impl IntoIterator<Item = Header<'h>>) {
        self.writer.set_headers(headers);
    }

    /// Adds a header after those that the record has.
    pub fn add_header(&mut self, existing: Headers<'_>, header: Header<'_>) {
        self.writer.set_headers(existing.chain([header]));
    }

    /// Sets the timestamp, in milliseconds since the Unix epoch; `None` removes it.
    pub fn set_timestamp(&mut self, timestamp: Option<i64>) {
        self.writer.set_timestamp(timestamp);
    }

    /// Sends the record to an output instead of where it was going.
    pub fn route(&mut self, output: Output) {
        self.writer.route(output.0);
    }

    /// Sends an extra record to an output. It comes after the record at hand.
    pub fn emit(&mut self, output: Output, record: Emit<'_>) {
        self.writer.emit(
            output.0,
            record.key,
            record.value,
            record.headers.iter().copied(),
            record.timestamp,
        );
    }
}
