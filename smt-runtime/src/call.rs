//! One call into one instance: what goes in, what came out, and what may go wrong.

use std::ops::Range;
use std::time::Duration;

use gristmill_records::{EditBounds, EditCounts, EditErrorKind, Edits, ROW_WORDS, RawBatch};
use wasmtime::{Store, Trap, WasmBacktrace};

use crate::applied::Segment;
use crate::contract::{Bindings, RecordBatch};
use crate::error::root_cause;
use crate::guest::Guest;
use crate::{Limits, Reads};

/// An instance that is ready for `apply`.
pub(crate) struct Worker {
    pub(crate) store: Store<Guest>,
    pub(crate) bindings: Bindings,
}

/// Why a call counts for nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The guest trapped: the trap, and what it logged last.
    Trap(String),
    /// The epoch deadline: a suspicion, not a verdict.
    Time(Duration),
    /// The fuel of a record that was alone.
    Fuel(u64),
    Memory {
        limit: u64,
        seen: u64,
    },
    Output(String),
    InvalidEdits(String),
    InvalidColumns(String),
    /// Not the guest's doing.
    Host(String),
}

impl Failure {
    /// The code under which a record is rejected for it.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Failure::Trap(_) | Failure::Host(_) => "TRANSFORM_TRAP",
            Failure::Time(_) | Failure::Fuel(_) => "TRANSFORM_FUEL",
            Failure::Memory { .. } => "TRANSFORM_MEMORY",
            Failure::Output(_) => "TRANSFORM_OUTPUT",
            Failure::InvalidEdits(_) => "TRANSFORM_INVALID_EDITS",
            Failure::InvalidColumns(_) => "TRANSFORM_INVALID_COLUMNS",
        }
    }

    pub(crate) fn message(&self) -> String {
        match self {
            Failure::Trap(text) => format!("the transform trapped: {text}"),
            Failure::Time(limit) => {
                format!("limit call_timeout of {limit:?}: the call was still running after it")
            }
            Failure::Fuel(limit) => {
                format!(
                    "limit record_fuel of {limit}: the record alone, on a fresh instance, burnt all of it"
                )
            }
            Failure::Memory { limit, seen } => {
                format!("limit memory of {limit} bytes: the transform asked for {seen} bytes")
            }
            Failure::Output(text) => text.clone(),
            Failure::InvalidEdits(text) => {
                format!("the transform answered with an invalid edit list: {text}")
            }
            Failure::InvalidColumns(text) => {
                format!("the transform answered with invalid columns: {text}")
            }
            Failure::Host(text) => text.clone(),
        }
    }

    /// It is a trap whose message says where it was.
    pub(crate) fn has_places(&self) -> bool {
        matches!(self, Failure::Trap(text) if text.contains(PLACES))
    }

    /// Never comes: what an instance is called with is chosen by its kind.
    pub(crate) fn other_kind() -> Self {
        Failure::Host("the transform is of another kind than what it is given".to_owned())
    }

    /// Reads what an error of wasmtime stands for.
    pub(crate) fn of(error: &wasmtime::Error, guest: &Guest, limits: &Limits, time: Duration) -> Self {
        let trap = error.downcast_ref::<Trap>();
        match trap {
            Some(Trap::Interrupt) => return Failure::Time(time),
            Some(Trap::OutOfFuel) => return Failure::Fuel(limits.record_fuel()),
            _ => {}
        }
        if let Some(seen) = guest.refused_memory {
            return Failure::Memory { limit: limits.memory(), seen };
        }
        let text = match trap {
            Some(Trap::StackOverflow) => "call stack exhausted".to_owned(),
            Some(trap) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
            None => root_cause(error),
        };
        if text.contains("fuel allocated for hostcalls") {
            return Failure::Output(format!(
                "limit output_bytes of {}: the transform passed more than that in one go",
                limits.output_bytes()
            ));
        }
        let text = match guest.last_words() {
            Some(words) => format!("{text} ({words})"),
            None => text,
        };
        Failure::Trap(text + &backtrace(error))
    }
}

/// Functions that a trap went through, innermost first, where the component has names: of the author's, with their lines if
/// there is DWARF.
fn backtrace(error: &wasmtime::Error) -> String {
    let Some(frames) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    let mut shown: Vec<String> = Vec::new();
    for frame in frames.frames().iter().take(MAX_FRAMES) {
        // What was inlined here, then the function itself.
        for symbol in frame.symbols() {
            let file = symbol.file().unwrap_or_default();
            let is_ours = !file.is_empty() && !FOREIGN.iter().any(|part| file.contains(part));
            if let (true, Some(line)) = (is_ours, symbol.line()) {
                let name = symbol.name().map_or_else(String::new, |name| format!("{name} "));
                shown.push(format!("{name}at {file}:{line}"));
            }
        }
        if frame.symbols().is_empty()
            && let Some(name) = frame.func_name()
        {
            shown.push(name.to_owned());
        }
    }
    shown.dedup();
    shown.truncate(MAX_SHOWN_FRAMES);
    match shown.is_empty() {
        true => String::new(),
        false => format!("{PLACES}{}", shown.join(", called by ")),
    }
}

const PLACES: &str = "; in ";
const MAX_FRAMES: usize = 40;
const MAX_SHOWN_FRAMES: usize = 5;
/// Paths of code that is not the author's.
const FOREIGN: [&str; 3] = ["/rustc/", "/library/", "crates/"];

/// What every call of a transform is made and measured by.
pub(crate) struct Terms<'a> {
    pub(crate) reads: Reads,
    pub(crate) outputs: u32,
    pub(crate) limits: &'a Limits,
}

/// One call: which rows, and when it is over.
pub(crate) struct Call {
    pub(crate) rows: Range<usize>,
    pub(crate) time: Duration,
    pub(crate) ticks: u64,
}

/// What a transform is given: rows, and how a range of them goes through a call.
pub(crate) trait Input {
    fn rows(&self) -> usize;

    fn offset(&self, row: usize) -> i64;

    /// Where a call that begins at row `start` ends, so that it holds `room` bytes at most, or one row.
    fn end_of_call(&self, start: usize, room: u64, reads: Reads) -> usize;

    /// Gives `rows` to the guest and checks the answer.
    fn call(
        &mut self,
        worker: &mut Worker,
        terms: &Terms<'_>,
        call: &Call,
    ) -> Result<(Segment, EditCounts), Failure>;
}

impl Worker {
    /// After a failure the instance must not be used again.
    pub(crate) fn call(
        &mut self,
        input: &mut impl Input,
        terms: &Terms<'_>,
        call: Call,
    ) -> Result<(Segment, EditCounts), Failure> {
        self.store.set_epoch_deadline(call.ticks);
        self.store.data_mut().begin_call();
        input.call(self, terms, &call)
    }
}

/// Checks an edit list against what the call allows.
pub(crate) fn check_edits(edits: &Edits<'_>, rows: usize, terms: &Terms<'_>) -> Result<EditCounts, Failure> {
    let limits = terms.limits;
    let bounds = EditBounds {
        rows,
        outputs: terms.outputs,
        max_records: rows as u64 * u64::from(limits.output_records_per_row()),
        max_bytes: limits.output_bytes(),
    };
    edits.check(&bounds).map_err(|e| match e.kind {
        EditErrorKind::TooManyRecords { limit } => Failure::Output(format!(
            "limit output_records_per_row of {}: {rows} rows gave more than {limit} records",
            limits.output_records_per_row(),
        )),
        EditErrorKind::TooManyBytes { limit } => {
            Failure::Output(format!("limit output_bytes of {limit}: the records refer to more than that"))
        }
        _ => Failure::InvalidEdits(e.to_string()),
    })
}

pub(crate) fn bytes_of(operations: &[u32], data: &[u8]) -> u64 {
    (size_of_val(operations) + data.len()) as u64
}

/// Raw records for a transform of records.
pub(crate) struct Records<'a> {
    pub(crate) batch: &'a RawBatch,
    pub(crate) scratch: &'a mut Vec<u32>,
}

impl Input for Records<'_> {
    fn rows(&self) -> usize {
        self.batch.len()
    }

    fn offset(&self, row: usize) -> i64 {
        self.batch.rows().offsets.get(row).copied().unwrap_or(-1)
    }

    fn end_of_call(&self, start: usize, room: u64, reads: Reads) -> usize {
        let batch = self.batch;
        if start == 0 && batch.byte_size() as u64 <= room {
            return batch.len();
        }
        let mut bytes = 0;
        (start..batch.len())
            .find(|row| {
                bytes += row_bytes(batch, *row, reads);
                bytes > room
            })
            .unwrap_or(batch.len())
    }

    fn call(
        &mut self,
        worker: &mut Worker,
        terms: &Terms<'_>,
        call: &Call,
    ) -> Result<(Segment, EditCounts), Failure> {
        let input = input(self.batch, &call.rows, terms.reads, self.scratch);
        let Bindings::Records(bindings) = &worker.bindings else { return Err(Failure::other_kind()) };
        let answer = bindings
            .call_apply(&mut worker.store, input)
            .map_err(|e| Failure::of(&e, worker.store.data(), terms.limits, call.time))?;
        let counts = check_edits(&Edits::new(&answer.operations, &answer.data), call.rows.len(), terms)?;
        let (operations, data) = (answer.operations, answer.data);
        // What is made of the records holds each reference anew.
        let bytes = bytes_of(&operations, &data).max(counts.bytes);
        Ok((Segment { first_row: call.rows.start, operations, data, columns: Vec::new(), bytes }, counts))
    }
}

/// The arenas that are read, cut to the rows of the call. A whole batch goes in as it is; a part of one
/// gets an index of its own, since cells are positions in the arena.
#[inline]
fn input<'a>(
    batch: &'a RawBatch,
    range: &std::ops::Range<usize>,
    reads: Reads,
    scratch: &'a mut Vec<u32>,
) -> RecordBatch<'a> {
    let all = batch.rows();
    let whole = range.start == 0 && range.end == all.len();
    let mut base = [0u32; 3];
    let mut arenas = [all.keys, all.values, all.headers];
    let mut index = all.index;
    if !whole {
        for (i, arena) in arenas.iter_mut().enumerate() {
            let start =
                |row: usize| all.index.get(row * ROW_WORDS + 2 * i).map_or(arena.len(), |s| *s as usize);
            let (from, to) = (start(range.start), start(range.end));
            *arena = arena.get(from..to).unwrap_or_default();
            base[i] = from as u32;
        }
        scratch.clear();
        for row in all.index[range.start * ROW_WORDS..range.end * ROW_WORDS].as_chunks::<ROW_WORDS>().0 {
            let [k, kl, v, vl, h, hl] = *row;
            scratch.extend_from_slice(&[
                k.wrapping_sub(base[0]),
                kl,
                v.wrapping_sub(base[1]),
                vl,
                h.wrapping_sub(base[2]),
                hl,
            ]);
        }
        index = scratch;
    }
    RecordBatch {
        count: range.len() as u32,
        index,
        keys: if reads.keys { arenas[0] } else { &[] },
        values: if reads.values { arenas[1] } else { &[] },
        headers: if reads.headers { arenas[2] } else { &[] },
        timestamps: if reads.timestamps { &all.timestamps[range.clone()] } else { &[] },
        offsets: if reads.offsets { &all.offsets[range.clone()] } else { &[] },
    }
}

/// Bytes that one row brings into the guest.
fn row_bytes(batch: &RawBatch, row: usize, reads: Reads) -> u64 {
    let index = batch.rows().index;
    let Some(cells) = index.get(row * ROW_WORDS..(row + 1) * ROW_WORDS) else { return 0 };
    let len =
        |read: bool, len: u32| if read && len != gristmill_records::NULL_LEN { u64::from(len) } else { 0 };
    let columns = 8 * (u64::from(reads.timestamps) + u64::from(reads.offsets));
    4 * ROW_WORDS as u64
        + columns
        + len(reads.keys, cells[1])
        + len(reads.values, cells[3])
        + len(reads.headers, cells[5])
}
