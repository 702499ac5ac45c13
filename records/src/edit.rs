//! The edit list: what a transform answers to a batch. See [`EditWriter`] (guest) and [`Edits`] (host).

use alloc::vec::Vec;
use core::fmt;

use crate::{Header, HeaderWriter, Headers, NO_TIMESTAMP, NULL_LEN};

/// Most rows that one `KEEP` or `DROP` word can stand for; a longer run takes several words.
pub const MAX_RUN: u32 = (1 << 24) - 1;

/// Longest code of a `REJECT`, in bytes. A code is made of visible ASCII characters.
pub const MAX_CODE_LEN: usize = 64;

/// Longest message of a `REJECT`, in bytes of UTF-8.
pub const MAX_MESSAGE_LEN: usize = 4096;

/// The words of an edit list, by the value of their low 8 bits.
mod opcode {
    pub(super) const KEEP: u32 = 0;
    pub(super) const DROP: u32 = 1;
    pub(super) const SET_KEY: u32 = 2;
    pub(super) const SET_VALUE: u32 = 3;
    pub(super) const SET_HEADERS: u32 = 4;
    pub(super) const SET_TIMESTAMP: u32 = 5;
    pub(super) const ROUTE: u32 = 6;
    pub(super) const EMIT: u32 = 7;
    pub(super) const REJECT: u32 = 8;
}

fn word(opcode: u32, argument: u32) -> u32 {
    opcode | argument << 8
}

/// What an edit list may contain: the facts that [`Edits::check`] checks it against.
#[derive(Clone, Copy, Debug)]
pub struct EditBounds {
    /// Input rows of the call; the list must account for each exactly once.
    pub rows: usize,
    /// Number of outputs, `main` included: an output of this number or above was not declared.
    pub outputs: u32,
    /// Most records that may come out of the call, kept rows and emitted records together.
    pub max_records: u64,
    /// Most bytes that the list may refer to, each reference counted.
    pub max_bytes: u64,
}

/// What [`Edits::check`] counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EditCounts {
    /// Rows that go on, changed or not.
    pub kept: u64,
    /// Rows left out.
    pub dropped: u64,
    /// Rows rejected.
    pub rejected: u64,
    /// Extra records, those that a `REJECT` voids included.
    pub emitted: u64,
    /// Bytes referred to.
    pub bytes: u64,
}

/// Why an edit list was refused. Nothing of a refused list may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EditError {
    /// What is wrong.
    pub kind: EditErrorKind,
    /// The word of the operation list at which it was found.
    pub word: usize,
    /// The input row that was being described.
    pub row: usize,
}

/// What is wrong with an edit list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EditErrorKind {
    /// The low 8 bits name no operation.
    UnknownOperation(u32),
    /// The list ends inside an operation.
    Truncated,
    /// Bits of the argument that mean nothing are not zero.
    StrayArgument(u32),
    /// A run of no rows.
    EmptyRun,
    /// More rows described than came in: a row is there twice.
    TooManyRows {
        /// Rows of the call.
        rows: usize,
    },
    /// Rows without a verdict at the end of the list.
    MissingRows {
        /// Rows of the call.
        rows: usize,
        /// Rows that have a verdict.
        seen: usize,
    },
    /// Edits at the end of the list that no verdict follows.
    DanglingEdit,
    /// The same cell of a row set twice.
    SetTwice,
    /// An `EMIT` before any row's verdict, or between a row's edits and its verdict.
    MisplacedEmit,
    /// Bytes that are not inside the data.
    OutOfData {
        /// First byte.
        start: u32,
        /// Number of bytes.
        len: u32,
        /// Bytes of data in the answer.
        data: usize,
    },
    /// Bytes that should be headers and are not.
    InvalidHeaders,
    /// A timestamp below -1.
    InvalidTimestamp(i64),
    /// An output that the manifest does not declare.
    UndeclaredOutput {
        /// The output.
        output: u32,
        /// Outputs that there are.
        outputs: u32,
    },
    /// A code that is empty, too long, or not made of visible ASCII characters.
    InvalidCode,
    /// A message that is too long or not UTF-8.
    InvalidMessage,
    /// More records out than allowed.
    TooManyRecords {
        /// The limit.
        limit: u64,
    },
    /// More bytes referred to than allowed.
    TooManyBytes {
        /// The limit.
        limit: u64,
    },
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use EditErrorKind::*;
        match self.kind {
            UnknownOperation(op) => write!(f, "there is no operation {op}"),
            Truncated => write!(f, "the list ends inside an operation"),
            StrayArgument(argument) => write!(f, "an operation without argument has the argument {argument}"),
            EmptyRun => write!(f, "a run of no rows"),
            TooManyRows { rows } => write!(f, "more rows described than the {rows} that came in"),
            MissingRows { rows, seen } => write!(f, "only {seen} of {rows} rows have a verdict"),
            DanglingEdit => write!(f, "the last edits belong to no row"),
            SetTwice => write!(f, "one cell of a row is set twice"),
            MisplacedEmit => write!(f, "an emitted record does not follow the verdict of a row"),
            OutOfData { start, len, data } => {
                write!(f, "{len} bytes at {start} are not inside the {data} bytes of data")
            }
            InvalidHeaders => write!(f, "header bytes are not whole headers"),
            InvalidTimestamp(t) => write!(f, "{t} is not a timestamp"),
            UndeclaredOutput { output, outputs } => {
                write!(f, "output {output} is not one of the {outputs} declared (main is 0)")
            }
            InvalidCode => {
                write!(f, "a reject's code is not 1 to {MAX_CODE_LEN} visible ASCII characters")
            }
            InvalidMessage => {
                write!(f, "a reject's message is not UTF-8 of at most {MAX_MESSAGE_LEN} bytes")
            }
            TooManyRecords { limit } => write!(f, "more than {limit} records out"),
            TooManyBytes { limit } => write!(f, "more than {limit} bytes out"),
        }?;
        write!(f, " (word {}, row {})", self.word, self.row)
    }
}

impl core::error::Error for EditError {}

/// One step through a checked edit list.
#[derive(Clone, Copy, Debug)]
pub enum Edit<'a> {
    /// So many rows go on as they are.
    Keep(usize),
    /// So many rows are left out.
    Drop(usize),
    /// One row goes on, changed.
    Change(Change<'a>),
    /// An extra record, which belongs to the row before it; void where that row was rejected.
    Emit(Emit<'a>),
    /// One row is rejected.
    Reject {
        /// For machines: `MALFORMED_JSON`.
        code: &'a str,
        /// For people.
        message: &'a str,
    },
}

/// What happens to one row. `None` leaves a cell as it is; `Some(None)` makes it null.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    /// The new key.
    pub key: Option<Option<&'a [u8]>>,
    /// The new value.
    pub value: Option<Option<&'a [u8]>>,
    /// All headers anew.
    pub headers: Option<Headers<'a>>,
    /// The new timestamp in milliseconds; `Some(None)` removes it.
    pub timestamp: Option<Option<i64>>,
    /// The output; 0 is `main`.
    pub output: u32,
}

/// An extra record.
#[derive(Clone, Copy, Debug)]
pub struct Emit<'a> {
    /// The output; 0 is `main`.
    pub output: u32,
    /// The key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is null.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: Headers<'a>,
    /// Milliseconds since the Unix epoch.
    pub timestamp: Option<i64>,
}

/// Reads an edit list: first [`check`](Edits::check), then iterate.
///
/// The words may come from a hostile guest. Nothing here panics, allocates, or reads outside the two
/// slices, whatever they hold. Iterating a list that was not checked ends at the first thing that does
/// not fit.
///
/// # Grammar
///
/// A list is `u32` words: the operation in the low 8 bits, its argument in the high 24.
///
/// ```text
/// list      = { verdict { emit } }
/// verdict   = { edit } run                       edits belong to the FIRST row of the run
///           | { edit } reject                    the edits, and the emits after it, are void
/// run       = KEEP n | DROP n                    n rows, 1 <= n < 2^24
/// edit      = SET_KEY start len                  each at most once a row;
///           | SET_VALUE start len                len 0xffff_ffff = null
///           | SET_HEADERS start len              (null headers are no headers)
///           | SET_TIMESTAMP low high             milliseconds, -1 = none
///           | ROUTE output                       0 = main, the default
/// emit      = EMIT output                        belongs to the LAST row of the verdict before it,
///             key start, key len,                also where that row was dropped
///             value start, value len,
///             headers start, headers len,
///             timestamp low, timestamp high
/// reject    = REJECT code start, code len, message start, message len      one row
///
/// KEEP 0   DROP 1   SET_KEY 2   SET_VALUE 3   SET_HEADERS 4   SET_TIMESTAMP 5   ROUTE 6   EMIT 7   REJECT 8
/// ```
///
/// `start` and `len` are bytes of the data that comes with the list. The argument of an operation that
/// has none is 0. Every input row has exactly one verdict, in the order of the input.
#[derive(Clone, Copy, Debug)]
pub struct Edits<'a> {
    operations: &'a [u32],
    data: &'a [u8],
    at: usize,
    /// Rows of the run whose first row was changed.
    rest: u32,
}

impl<'a> Edits<'a> {
    /// Looks at a list, without checking it.
    pub fn new(operations: &'a [u32], data: &'a [u8]) -> Self {
        Edits { operations, data, at: 0, rest: 0 }
    }

    /// Checks the whole list against the grammar and `bounds`.
    ///
    /// # Errors
    /// The first thing that is wrong. The work is at most proportional to the words plus `bounds.max_bytes`.
    pub fn check(&self, bounds: &EditBounds) -> Result<EditCounts, EditError> {
        let mut checker = Checker {
            edits: *self,
            bounds,
            counts: EditCounts::default(),
            row: 0,
            set: 0,
            any_verdict: false,
        };
        match checker.run() {
            Ok(()) => Ok(checker.counts),
            Err((word, kind)) => Err(EditError { kind, word, row: checker.row }),
        }
    }

    fn words<const N: usize>(&self) -> Option<&'a [u32; N]> {
        self.operations.get(self.at + 1..)?.first_chunk::<N>()
    }

    fn bytes(&self, start: u32, len: u32) -> Option<Option<&'a [u8]>> {
        if len == NULL_LEN {
            return Some(None);
        }
        Some(Some(self.data.get(start as usize..)?.get(..len as usize)?))
    }

    fn headers(&self, start: u32, len: u32) -> Option<Headers<'a>> {
        Some(Headers::from_encoded(self.bytes(start, len)?.unwrap_or_default()))
    }

    fn text(&self, start: u32, len: u32) -> Option<&'a str> {
        core::str::from_utf8(self.bytes(start, len)??).ok()
    }
}

fn millis(low: u32, high: u32) -> i64 {
    (u64::from(low) | u64::from(high) << 32) as i64
}

impl<'a> Iterator for Edits<'a> {
    type Item = Edit<'a>;

    fn next(&mut self) -> Option<Edit<'a>> {
        if self.rest > 0 {
            return Some(Edit::Keep(core::mem::take(&mut self.rest) as usize));
        }
        let mut change = Change::default();
        let mut changed = false;
        loop {
            let first = *self.operations.get(self.at)?;
            let argument = first >> 8;
            match first & 0xff {
                opcode::KEEP => {
                    self.at += 1;
                    if !changed {
                        return Some(Edit::Keep(argument as usize));
                    }
                    self.rest = argument.checked_sub(1)?;
                    return Some(Edit::Change(change));
                }
                opcode::DROP => {
                    self.at += 1;
                    return Some(Edit::Drop(argument as usize));
                }
                opcode::REJECT => {
                    let &[code, code_len, message, message_len] = self.words()?;
                    let code = self.text(code, code_len)?;
                    let message = self.text(message, message_len)?;
                    self.at += 5;
                    return Some(Edit::Reject { code, message });
                }
                opcode::EMIT => {
                    let &[key, key_len, value, value_len, headers, headers_len, low, high] = self.words()?;
                    let emit = Emit {
                        output: argument,
                        key: self.bytes(key, key_len)?,
                        value: self.bytes(value, value_len)?,
                        headers: self.headers(headers, headers_len)?,
                        timestamp: Some(millis(low, high)).filter(|t| *t != NO_TIMESTAMP),
                    };
                    self.at += 9;
                    return Some(Edit::Emit(emit));
                }
                opcode::ROUTE => {
                    change.output = argument;
                    self.at += 1;
                }
                set => {
                    let &[a, b] = self.words()?;
                    match set {
                        opcode::SET_KEY => change.key = Some(self.bytes(a, b)?),
                        opcode::SET_VALUE => change.value = Some(self.bytes(a, b)?),
                        opcode::SET_HEADERS => change.headers = Some(self.headers(a, b)?),
                        opcode::SET_TIMESTAMP => {
                            change.timestamp = Some(Some(millis(a, b)).filter(|t| *t != NO_TIMESTAMP));
                        }
                        _ => return None,
                    }
                    self.at += 3;
                }
            }
            changed = true;
        }
    }
}

struct Checker<'a, 'b> {
    edits: Edits<'a>,
    bounds: &'b EditBounds,
    counts: EditCounts,
    row: usize,
    /// Bit per SET operation seen since the last verdict.
    set: u32,
    any_verdict: bool,
}

type Refused = (usize, EditErrorKind);

impl Checker<'_, '_> {
    fn run(&mut self) -> Result<(), Refused> {
        while let Some(&first) = self.edits.operations.get(self.edits.at) {
            let (op, argument) = (first & 0xff, first >> 8);
            let words = match op {
                opcode::KEEP | opcode::DROP => {
                    if argument == 0 {
                        return Err(self.refuse(EditErrorKind::EmptyRun));
                    }
                    self.verdict(argument as usize)?;
                    if op == opcode::KEEP {
                        self.counts.kept += u64::from(argument);
                        self.records()?;
                    } else {
                        self.counts.dropped += u64::from(argument);
                    }
                    1
                }
                opcode::SET_KEY | opcode::SET_VALUE | opcode::SET_HEADERS | opcode::SET_TIMESTAMP => {
                    self.set(op)?;
                    self.no_argument(argument)?;
                    let &[a, b] = self.words()?;
                    match op {
                        opcode::SET_HEADERS => self.headers(a, b)?,
                        opcode::SET_TIMESTAMP => self.timestamp(a, b)?,
                        _ => _ = self.bytes(a, b)?,
                    }
                    3
                }
                opcode::ROUTE => {
                    self.set(op)?;
                    self.output(argument)?;
                    1
                }
                opcode::EMIT => {
                    if self.set != 0 || !self.any_verdict {
                        return Err(self.refuse(EditErrorKind::MisplacedEmit));
                    }
                    self.output(argument)?;
                    let &[key, key_len, value, value_len, headers, headers_len, low, high] = self.words()?;
                    self.bytes(key, key_len)?;
                    self.bytes(value, value_len)?;
                    self.headers(headers, headers_len)?;
                    self.timestamp(low, high)?;
                    self.counts.emitted += 1;
                    self.records()?;
                    9
                }
                opcode::REJECT => {
                    self.no_argument(argument)?;
                    let &[code, code_len, message, message_len] = self.words()?;
                    let code = self.bytes(code, code_len)?.unwrap_or_default();
                    if code.is_empty() || code.len() > MAX_CODE_LEN || !code.iter().all(u8::is_ascii_graphic)
                    {
                        return Err(self.refuse(EditErrorKind::InvalidCode));
                    }
                    match self.bytes(message, message_len)? {
                        Some(m) if m.len() <= MAX_MESSAGE_LEN && core::str::from_utf8(m).is_ok() => {}
                        _ => return Err(self.refuse(EditErrorKind::InvalidMessage)),
                    }
                    self.verdict(1)?;
                    self.counts.rejected += 1;
                    5
                }
                _ => return Err(self.refuse(EditErrorKind::UnknownOperation(op))),
            };
            self.edits.at += words;
        }
        if self.set != 0 {
            return Err(self.refuse(EditErrorKind::DanglingEdit));
        }
        if self.row != self.bounds.rows {
            return Err(self.refuse(EditErrorKind::MissingRows { rows: self.bounds.rows, seen: self.row }));
        }
        Ok(())
    }

    fn refuse(&self, kind: EditErrorKind) -> Refused {
        (self.edits.at, kind)
    }

    fn words<const N: usize>(&self) -> Result<&[u32; N], Refused> {
        self.edits.words().ok_or_else(|| self.refuse(EditErrorKind::Truncated))
    }

    fn no_argument(&self, argument: u32) -> Result<(), Refused> {
        if argument == 0 { Ok(()) } else { Err(self.refuse(EditErrorKind::StrayArgument(argument))) }
    }

    fn verdict(&mut self, rows: usize) -> Result<(), Refused> {
        if rows > self.bounds.rows - self.row {
            return Err(self.refuse(EditErrorKind::TooManyRows { rows: self.bounds.rows }));
        }
        self.row += rows;
        self.set = 0;
        self.any_verdict = true;
        Ok(())
    }

    fn set(&mut self, op: u32) -> Result<(), Refused> {
        if self.set & (1 << op) != 0 {
            return Err(self.refuse(EditErrorKind::SetTwice));
        }
        self.set |= 1 << op;
        Ok(())
    }

    fn bytes(&mut self, start: u32, len: u32) -> Result<Option<&[u8]>, Refused> {
        if len != NULL_LEN {
            self.counts.bytes += u64::from(len);
            if self.counts.bytes > self.bounds.max_bytes {
                return Err(self.refuse(EditErrorKind::TooManyBytes { limit: self.bounds.max_bytes }));
            }
        }
        let data = self.edits.data.len();
        self.edits.bytes(start, len).ok_or_else(|| self.refuse(EditErrorKind::OutOfData { start, len, data }))
    }

    fn headers(&mut self, start: u32, len: u32) -> Result<(), Refused> {
        let valid = Headers::from_encoded(self.bytes(start, len)?.unwrap_or_default()).is_valid();
        if valid { Ok(()) } else { Err(self.refuse(EditErrorKind::InvalidHeaders)) }
    }

    fn timestamp(&self, low: u32, high: u32) -> Result<(), Refused> {
        let t = millis(low, high);
        if t >= NO_TIMESTAMP { Ok(()) } else { Err(self.refuse(EditErrorKind::InvalidTimestamp(t))) }
    }

    fn output(&self, output: u32) -> Result<(), Refused> {
        let outputs = self.bounds.outputs;
        if output < outputs {
            Ok(())
        } else {
            Err(self.refuse(EditErrorKind::UndeclaredOutput { output, outputs }))
        }
    }

    fn records(&self) -> Result<(), Refused> {
        let limit = self.bounds.max_records;
        if self.counts.kept + self.counts.emitted > limit {
            return Err(self.refuse(EditErrorKind::TooManyRecords { limit }));
        }
        Ok(())
    }
}

/// Writes an edit list row by row: the guest's side of [`Edits`].
///
/// Set and emit what belongs to a row, then give its verdict: [`keep`](EditWriter::keep),
/// [`drop_row`](EditWriter::drop_row) or [`reject`](EditWriter::reject). Runs of rows that are kept or
/// dropped become one word.
///
/// # Panics
/// Methods that take bytes panic when the data of one batch would reach 4 GiB, which a guest's memory
/// cannot hold.
#[derive(Debug, Default)]
pub struct EditWriter {
    operations: Vec<u32>,
    data: Vec<u8>,
    /// The run that is being collected, not yet in `operations`.
    run: u32,
    run_op: u32,
    /// Of the row at hand.
    key: Option<(u32, u32)>,
    value: Option<(u32, u32)>,
    headers: Option<(u32, u32)>,
    timestamp: Option<i64>,
    output: u32,
    edited: bool,
    emits: Vec<u32>,
    /// Where the data of the row at hand begins.
    mark: usize,
}

impl EditWriter {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes room for so many words and bytes of data.
    pub fn reserve(&mut self, words: usize, bytes: usize) {
        self.operations.reserve(words);
        self.data.reserve(bytes);
    }

    /// Sets the row's key; `None` is null.
    pub fn set_key(&mut self, key: Option<&[u8]>) {
        self.key = Some(self.put(key));
        self.edited = true;
    }

    /// Sets the row's value; `None` is null.
    pub fn set_value(&mut self, value: Option<&[u8]>) {
        self.value = Some(self.put(value));
        self.edited = true;
    }

    /// Sets the row's value to what `write` appends to the buffer that it is given. It must only append.
    pub fn set_value_with<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let start = self.data.len();
        let result = write(&mut self.data);
        self.value = Some(self.span(start));
        self.edited = true;
        result
    }

    /// Replaces all headers of the row.
    pub fn set_headers<'h>(&mut self, headers: impl IntoIterator<Item = Header<'h>>) {
        self.headers = Some(self.put_headers(headers));
        self.edited = true;
    }

    /// Sets the row's timestamp in milliseconds; `None` removes it.
    pub fn set_timestamp(&mut self, timestamp: Option<i64>) {
        self.timestamp = Some(timestamp.unwrap_or(NO_TIMESTAMP));
        self.edited = true;
    }

    /// Sends the row to an output; 0 is `main`. Outputs of 2^24 and above do not exist and are refused by
    /// every host; they are written as 2^24 - 1.
    pub fn route(&mut self, output: u32) {
        self.output = output.min(MAX_RUN);
        self.edited = true;
    }

    /// Adds an extra record that belongs to the row at hand.
    pub fn emit<'h>(
        &mut self,
        output: u32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = Header<'h>>,
        timestamp: Option<i64>,
    ) {
        let key = self.put(key);
        let value = self.put(value);
        let headers = self.put_headers(headers);
        let timestamp = timestamp.unwrap_or(NO_TIMESTAMP) as u64;
        self.emits.extend_from_slice(&[
            word(opcode::EMIT, output.min(MAX_RUN)),
            key.0,
            key.1,
            value.0,
            value.1,
            headers.0,
            headers.1,
            timestamp as u32,
            (timestamp >> 32) as u32,
        ]);
    }

    /// Verdict: the row goes on, with its edits.
    #[inline]
    pub fn keep(&mut self) {
        if self.edited {
            self.flush_run();
            self.write_edits();
        }
        self.extend_run(opcode::KEEP);
        self.end_row();
    }

    /// Verdict: the row is left out. Its edits are void, its extra records are not.
    #[inline]
    pub fn drop_row(&mut self) {
        if self.edited && self.emits.is_empty() {
            self.data.truncate(self.mark);
        }
        self.clear_edits();
        self.extend_run(opcode::DROP);
        self.end_row();
    }

    /// Verdict: the row is rejected; its edits and extra records are void. A code's characters that are
    /// not visible ASCII become `_`; code and message are cut to [`MAX_CODE_LEN`] and [`MAX_MESSAGE_LEN`].
    pub fn reject(&mut self, code: &str, message: &str) {
        self.clear_edits();
        self.emits.clear();
        self.data.truncate(self.mark);
        self.flush_run();
        let start = self.data.len();
        let visible = |c: char| if c.is_ascii_graphic() { c as u8 } else { b'_' };
        self.data.extend(code.chars().take(MAX_CODE_LEN).map(visible));
        if self.data.len() == start {
            self.data.push(b'_');
        }
        let code = self.span(start);
        let message = self.put(Some(&message.as_bytes()[..floor_char_boundary(message, MAX_MESSAGE_LEN)]));
        self.operations.extend_from_slice(&[word(opcode::REJECT, 0), code.0, code.1, message.0, message.1]);
        self.mark = self.data.len();
    }

    /// The list and its data, and leaves an empty writer behind. Edits of a row without a verdict are lost.
    pub fn finish(&mut self) -> (Vec<u32>, Vec<u8>) {
        self.flush_run();
        self.clear_edits();
        self.emits.clear();
        self.mark = 0;
        (core::mem::take(&mut self.operations), core::mem::take(&mut self.data))
    }

    #[inline]
    fn extend_run(&mut self, op: u32) {
        if self.run_op != op || self.run == MAX_RUN {
            self.flush_run();
        }
        self.run_op = op;
        self.run += 1;
    }

    fn flush_run(&mut self) {
        if self.run > 0 {
            self.operations.push(word(self.run_op, self.run));
            self.run = 0;
        }
    }

    #[inline]
    fn end_row(&mut self) {
        if !self.emits.is_empty() {
            self.flush_run();
            self.operations.append(&mut self.emits);
        }
        self.mark = self.data.len();
    }

    fn clear_edits(&mut self) {
        self.key = None;
        self.value = None;
        self.headers = None;
        self.timestamp = None;
        self.output = 0;
        self.edited = false;
    }

    fn write_edits(&mut self) {
        let sets = [
            (opcode::SET_KEY, self.key),
            (opcode::SET_VALUE, self.value),
            (opcode::SET_HEADERS, self.headers),
        ];
        for (op, span) in sets {
            if let Some((start, len)) = span {
                self.operations.extend_from_slice(&[word(op, 0), start, len]);
            }
        }
        if let Some(t) = self.timestamp {
            let t = t as u64;
            self.operations.extend_from_slice(&[word(opcode::SET_TIMESTAMP, 0), t as u32, (t >> 32) as u32]);
        }
        if self.output != 0 {
            self.operations.push(word(opcode::ROUTE, self.output));
        }
        self.clear_edits();
    }

    fn put(&mut self, bytes: Option<&[u8]>) -> (u32, u32) {
        let start = self.data.len();
        match bytes {
            Some(bytes) => {
                self.data.extend_from_slice(bytes);
                self.span(start)
            }
            None => (0, NULL_LEN),
        }
    }

    fn put_headers<'h>(&mut self, headers: impl IntoIterator<Item = Header<'h>>) -> (u32, u32) {
        let start = self.data.len();
        let mut writer = HeaderWriter::new(&mut self.data);
        for header in headers {
            writer.push(header);
        }
        self.span(start)
    }

    fn span(&self, start: usize) -> (u32, u32) {
        assert!(self.data.len() < NULL_LEN as usize, "the data of one batch is under 4 GiB");
        (start as u32, (self.data.len() - start) as u32)
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0)
}
