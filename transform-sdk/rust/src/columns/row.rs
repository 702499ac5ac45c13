//! A function on a typed row, made a transform of columns.

use std::ops::Range;

use gristmill_records::EditWriter;

use super::compute::{Answer, Array};
use super::read::Batch;
use super::schema::{Binding, Change, Field, Need, Slot, bind};
use crate::{Config, Context, Manifest, Output, Reject};

/// The columns that a row is read from. Derive it.
pub trait Row<'a>: Sized {
    /// The columns: a struct that has a [`Column`](crate::Column) for each field of the row, under its name.
    type Columns;

    #[doc(hidden)]
    fn needs() -> Vec<Need>;

    #[doc(hidden)]
    fn open(batch: &Batch<'a>) -> Self::Columns;

    #[doc(hidden)]
    fn get(columns: &Self::Columns, row: usize) -> Self;
}

/// The columns that a transform computes. Derive it; `()` are none.
pub trait Columns {
    #[doc(hidden)]
    type Builders: Default;

    #[doc(hidden)]
    fn changes() -> Vec<Change>;

    #[doc(hidden)]
    fn append_to(self, builders: &mut Self::Builders);

    #[doc(hidden)]
    fn append_arrays(builders: &mut Self::Builders, from: &[Array<'_>], parts: &[Range<usize>]);

    #[doc(hidden)]
    fn finish(builders: &mut Self::Builders, answer: &mut Answer);
}

impl Columns for () {
    type Builders = ();

    fn changes() -> Vec<Change> {
        Vec::new()
    }

    #[inline]
    fn append_to(self, (): &mut ()) {}

    fn append_arrays((): &mut (), _: &[Array<'_>], _: &[Range<usize>]) {}

    fn finish((): &mut (), _: &mut Answer) {}
}

/// What happens to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOutcome<T = ()> {
    /// It goes on, with these columns computed.
    Keep(T),
    /// It is left out. Rows that were emitted for it are not.
    Drop,
}

/// Takes down where a row goes, and what extra rows come after it. Nothing of it counts if the row is rejected; where
/// it goes does not if it is dropped.
#[derive(Debug)]
pub struct RowEdit<T = ()> {
    output: Output,
    emitted: Vec<(Output, T)>,
}

impl<T> RowEdit<T> {
    /// Sends the row to an output instead of where it was going.
    pub fn route(&mut self, output: Output) {
        self.output = output;
    }

    /// Sends an extra row to an output. It comes after the row at hand and has its columns, but for those that are
    /// computed.
    pub fn emit(&mut self, output: Output, columns: T) {
        self.emitted.push((output, columns));
    }
}

/// The rows of a call, as typed columns.
pub struct Rows<'a, R: Row<'a>> {
    columns: R::Columns,
    len: usize,
    #[cfg(feature = "arrow")]
    batch: Batch<'a>,
}

impl<'a, R: Row<'a>> Rows<'a, R> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A row.
    ///
    /// # Panics
    /// Beyond the last.
    #[inline]
    pub fn get(&self, row: usize) -> R {
        assert!(row < self.len, "row {row} of {}", self.len);
        R::get(&self.columns, row)
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = R> {
        (0..self.len).map(|row| R::get(&self.columns, row))
    }

    /// Their columns.
    pub fn columns(&self) -> &R::Columns {
        &self.columns
    }

    /// A copy of their columns as arrow-rs arrays, by the path that each is read from: `batch["customer.email"]`. Their types are
    /// those of the stream, in what a row's type leaves open: a timestamp's zone, the scale of a `Decimal`, more members of a
    /// struct. An optional column that there is not is all null. Needs the feature `arrow`.
    #[cfg(feature = "arrow")]
    pub fn to_arrow(&self) -> arrow_array::RecordBatch {
        super::arrow::record_batch(&self.batch, &R::needs())
    }
}

impl<'a, R: Row<'a>> std::fmt::Debug for Rows<'a, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Takes down what becomes of the rows of a call: a verdict for each, in their order.
#[derive(Debug)]
pub struct RowsEdit<'e, T: Columns = ()> {
    builders: &'e mut T::Builders,
    edits: &'e mut EditWriter,
    /// For the row whose verdict comes next.
    emitted: Vec<(Output, T)>,
    #[cfg(feature = "arrow")]
    extras: Vec<super::arrow::Extra>,
    rows: usize,
    next: usize,
}

impl<T: Columns> RowsEdit<'_, T> {
    /// The next row goes on, with these columns computed.
    pub fn keep(&mut self, columns: T) {
        self.decide(Ok(RowOutcome::Keep(columns)), Output::MAIN);
    }

    /// The next row goes on to this output, with these columns computed.
    pub fn route(&mut self, output: Output, columns: T) {
        self.decide(Ok(RowOutcome::Keep(columns)), output);
    }

    /// The next row is left out. Rows that were emitted for it are not.
    pub fn drop_row(&mut self) {
        self.decide(Ok(RowOutcome::Drop), Output::MAIN);
    }

    /// The next row is rejected; rows that were emitted for it are void.
    pub fn reject(&mut self, reject: Reject) {
        self.decide(Err(reject), Output::MAIN);
    }

    /// Sends an extra row to an output, for the row whose verdict comes next. It comes after that row and has its columns,
    /// but for those that are computed.
    pub fn emit(&mut self, output: Output, columns: T) {
        self.emitted.push((output, columns));
    }

    /// Sends extra rows to an output, one for each of `columns`, which has the columns that are computed as for
    /// [`keep_rows`](Self::keep_rows). `of` says for each which row it is emitted for, counted from the one whose verdict comes next,
    /// in ascending order: what `arrow-select`'s `take` would be told to repeat the others by. They come after that row, before what
    /// [`emit`](Self::emit) sends for it, and are void if it is rejected. Needs the feature `arrow`.
    ///
    /// # Panics
    /// If `of` has another length, does not ascend, or names a row that there is not; if `columns` are not the computed columns, as for
    /// [`keep_rows`](Self::keep_rows).
    #[cfg(feature = "arrow")]
    pub fn emit_rows(&mut self, output: Output, columns: &arrow_array::RecordBatch, of: &[usize]) {
        let (asked, left) = (columns.num_rows(), self.rows - self.next);
        assert!(asked == of.len(), "{asked} rows are emitted, and {} are said whose they are", of.len());
        assert!(of.is_sorted(), "the rows that others are emitted for do not ascend");
        if let Some(row) = of.last() {
            assert!(*row < left, "a row is emitted for row {row} of {left} that have no verdict yet");
            let of = of.iter().map(|row| self.next + row).collect();
            self.extras.push(super::arrow::Extra::new(output, columns, T::changes(), of));
        }
    }

    /// The next rows go on, one for each of `columns`, which has the columns that are computed, by their names, or by the paths of
    /// those that they replace. What was emitted belongs to the first of these rows. Needs the feature `arrow`.
    ///
    /// # Panics
    /// If these are not the computed columns, each of its declared type and without nulls where it declares none, or if there are
    /// not as many rows left. A timestamp may have any zone or none, a struct more members than were declared.
    #[cfg(feature = "arrow")]
    pub fn keep_rows(&mut self, columns: &arrow_array::RecordBatch) {
        self.route_rows(Output::MAIN, columns);
    }

    /// As [`keep_rows`](Self::keep_rows), to this output. Needs the feature `arrow`.
    ///
    /// # Panics
    /// As [`keep_rows`](Self::keep_rows).
    #[cfg(feature = "arrow")]
    pub fn route_rows(&mut self, output: Output, columns: &arrow_array::RecordBatch) {
        self.keep_parts(columns, output, [(true, 0..columns.num_rows())], None);
    }

    /// As [`keep_rows`](Self::keep_rows) where `keep` is true; where it is false or null, a row is left out, whatever was computed for
    /// it. Both have a value for each of these rows, as a comparison of columns has. A transform that computes nothing gives
    /// the rows that it has read. Needs the feature `arrow`.
    ///
    /// # Panics
    /// As [`keep_rows`](Self::keep_rows), and if the two are not of one length.
    #[cfg(feature = "arrow")]
    pub fn keep_where(&mut self, keep: &arrow_array::BooleanArray, columns: &arrow_array::RecordBatch) {
        use arrow_array::Array as _;
        let (rows, len) = (columns.num_rows(), keep.len());
        assert!(rows == len, "{rows} rows are computed, and {len} are to be kept or not");
        let is_kept = |row: usize| keep.is_valid(row) && keep.value(row);
        self.keep_parts(columns, Output::MAIN, super::compute::runs(0..len, is_kept), None);
    }

    /// As [`keep_rows`](Self::keep_rows), but that rows are rejected where `bad` is true, whatever was computed for them. Where it is null,
    /// they go on. Needs the feature `arrow`.
    ///
    /// # Panics
    /// As [`keep_where`](Self::keep_where).
    #[cfg(feature = "arrow")]
    pub fn reject_where(
        &mut self,
        bad: &arrow_array::BooleanArray,
        why: &Reject,
        columns: &arrow_array::RecordBatch,
    ) {
        use arrow_array::Array as _;
        let (rows, len) = (columns.num_rows(), bad.len());
        assert!(rows == len, "{rows} rows are computed, and {len} are to be rejected or not");
        let is_kept = |row: usize| bad.is_null(row) || !bad.value(row);
        let parts = super::compute::runs(0..len, is_kept);
        self.keep_parts(columns, Output::MAIN, parts, Some(why));
    }

    /// Rows that go on, and others that are rejected or, without a reason, left out.
    #[cfg(feature = "arrow")]
    fn keep_parts(
        &mut self,
        columns: &arrow_array::RecordBatch,
        output: Output,
        parts: impl IntoIterator<Item = (bool, Range<usize>)>,
        otherwise: Option<&Reject>,
    ) {
        let (asked, left) = (columns.num_rows(), self.rows - self.next);
        assert!(asked <= left, "{asked} rows are kept, and {left} have no verdict yet");
        let changes = T::changes();
        let computed = match changes.is_empty() {
            true => Vec::new(),
            false => super::arrow::computed(columns, changes),
        };
        let arrays: Vec<Array<'_>> = computed.iter().map(super::arrow::Computed::view).collect();
        // Column by column, not part by part: parts may be single rows.
        let mut kept: Vec<Range<usize>> = Vec::new();
        let append = |builders: &mut T::Builders, kept: &mut Vec<Range<usize>>| {
            T::append_arrays(builders, &arrays, kept);
            kept.clear();
        };
        for (is_kept, rows) in parts {
            if is_kept {
                computed.iter().for_each(|column| column.check(&rows));
            }
            let mut start = rows.start;
            while start < rows.end {
                // Up to the next for which something is emitted, or that one alone.
                let plain = if self.emitted.is_empty() { self.before_extras() } else { 0 };
                let rows = start..rows.end.min(start + plain.max(1));
                start = rows.end;
                if plain == 0 {
                    append(self.builders, &mut kept);
                    match (is_kept, otherwise) {
                        (true, _) => {
                            self.next += 1;
                            let own = std::slice::from_ref(&rows);
                            self.keep_with_extras(output, |to| T::append_arrays(to, &arrays, own));
                        }
                        (false, Some(why)) => self.reject(why.clone()),
                        (false, None) => self.drop_row(),
                    }
                    continue;
                }
                self.next += rows.len();
                for _ in rows.clone() {
                    match (is_kept, otherwise) {
                        (true, _) => {
                            if output != Output::MAIN {
                                self.edits.route(output.number());
                            }
                            self.edits.keep();
                        }
                        (false, Some(why)) => self.edits.reject(why.code(), why.message()),
                        (false, None) => self.edits.drop_row(),
                    }
                }
                if is_kept {
                    kept.push(rows);
                }
            }
        }
        append(self.builders, &mut kept);
    }

    /// How many rows come before the next for which rows are emitted as arrays.
    #[cfg(feature = "arrow")]
    fn before_extras(&self) -> usize {
        let due = self.extras.iter().filter_map(super::arrow::Extra::due);
        due.min().unwrap_or(self.rows) - self.next
    }

    /// The row before `next` goes on, and then all that is emitted for it.
    #[cfg(feature = "arrow")]
    fn keep_with_extras(&mut self, output: Output, append: impl FnOnce(&mut T::Builders)) {
        self.end_with_extras(append, |edits| {
            if output != Output::MAIN {
                edits.route(output.number());
            }
            edits.keep();
        });
    }

    /// The same, whatever becomes of the row itself.
    #[cfg(feature = "arrow")]
    fn end_with_extras(
        &mut self,
        append: impl FnOnce(&mut T::Builders),
        verdict: impl FnOnce(&mut EditWriter),
    ) {
        let row = self.next - 1;
        append(self.builders);
        for extra in &mut self.extras {
            let rows = extra.take(row);
            rows.clone().for_each(|_| self.edits.emit(extra.output.number(), None, None, [], None));
            extra.append::<T>(self.builders, rows);
        }
        self.extras.retain(|extra| extra.due().is_some());
        for (output, columns) in self.emitted.drain(..) {
            self.edits.emit(output.number(), None, None, [], None);
            columns.append_to(self.builders);
        }
        verdict(self.edits);
    }

    fn decide(&mut self, outcome: Result<RowOutcome<T>, Reject>, output: Output) {
        assert!(self.next < self.rows, "a verdict on row {}, there are {} rows", self.next, self.rows);
        #[cfg(feature = "arrow")]
        let has_extras = self.before_extras() == 0;
        self.next += 1;
        #[cfg(feature = "arrow")]
        if has_extras {
            match outcome {
                Ok(RowOutcome::Keep(columns)) => {
                    self.keep_with_extras(output, |builders| columns.append_to(builders));
                }
                Ok(RowOutcome::Drop) => self.end_with_extras(|_| {}, EditWriter::drop_row),
                Err(reject) => {
                    self.edits.reject(reject.code(), reject.message());
                    self.emitted.clear();
                    for extra in &mut self.extras {
                        let _void = extra.take(self.next - 1);
                    }
                    self.extras.retain(|extra| extra.due().is_some());
                }
            }
            return;
        }
        take_down(self.builders, self.edits, outcome, output, &mut self.emitted);
    }
}

/// A transform of columns. The macros [`row`](macro@crate::row) and [`columns`](macro@crate::columns) implement it for a unit
/// struct named `Transform`, in a module with the name of the function.
pub trait ColumnTransform: 'static {
    /// Its configuration.
    type Config: Config;

    #[doc(hidden)]
    type Builders: Default;

    /// What it is.
    const MANIFEST: Manifest;

    #[doc(hidden)]
    fn needs() -> Vec<Need>;

    #[doc(hidden)]
    fn changes() -> Vec<Change>;

    #[doc(hidden)]
    fn apply<'a>(
        batch: &Batch<'a>,
        context: &'a Context<Self::Config>,
        builders: &mut Self::Builders,
        edits: &mut EditWriter,
    );

    #[doc(hidden)]
    fn finish(builders: &mut Self::Builders, answer: &mut Answer);
}

/// The loop over the rows that the macro of rows calls.
#[doc(hidden)]
pub fn each_row<'a, R: Row<'a>, T: Columns, C>(
    batch: &Batch<'a>,
    context: &'a Context<C>,
    builders: &mut T::Builders,
    edits: &mut EditWriter,
    function: impl Fn(&R, &'a Context<C>, &mut RowEdit<T>) -> Result<RowOutcome<T>, Reject>,
) {
    let columns = R::open(batch);
    let mut edit = RowEdit { output: Output::MAIN, emitted: Vec::new() };
    for row in 0..batch.rows() {
        let outcome = function(&R::get(&columns, row), context, &mut edit);
        let output = std::mem::replace(&mut edit.output, Output::MAIN);
        take_down(builders, edits, outcome, output, &mut edit.emitted);
    }
}

/// The call that the macro of columns makes.
#[doc(hidden)]
pub fn all_rows<'a, R: Row<'a>, T: Columns, C>(
    batch: &Batch<'a>,
    context: &'a Context<C>,
    builders: &mut T::Builders,
    edits: &mut EditWriter,
    function: impl Fn(&Rows<'a, R>, &'a Context<C>, &mut RowsEdit<'_, T>),
) {
    let rows = Rows {
        columns: R::open(batch),
        len: batch.rows(),
        #[cfg(feature = "arrow")]
        batch: *batch,
    };
    let mut edit = RowsEdit {
        builders,
        edits,
        emitted: Vec::new(),
        #[cfg(feature = "arrow")]
        extras: Vec::new(),
        rows: rows.len,
        next: 0,
    };
    function(&rows, context, &mut edit);
    assert!(edit.next == edit.rows, "only {} of {} rows have a verdict", edit.next, edit.rows);
    assert!(edit.emitted.is_empty(), "a row is emitted after the last verdict");
}

/// The verdict on the next row, and its columns.
#[inline]
fn take_down<T: Columns>(
    builders: &mut T::Builders,
    edits: &mut EditWriter,
    outcome: Result<RowOutcome<T>, Reject>,
    output: Output,
    emitted: &mut Vec<(Output, T)>,
) {
    if let Err(reject) = &outcome {
        edits.reject(reject.code(), reject.message());
        emitted.clear();
        return;
    }
    for (output, _) in &*emitted {
        edits.emit(output.number(), None, None, [], None);
    }
    if let Ok(RowOutcome::Keep(columns)) = outcome {
        if output != Output::MAIN {
            edits.route(output.number());
        }
        columns.append_to(builders);
        edits.keep();
    } else {
        edits.drop_row();
    }
    emitted.drain(..).for_each(|(_, columns)| columns.append_to(builders));
}

/// A transform that is bound to the columns of its stream.
pub(crate) struct ColumnState<T: ColumnTransform> {
    context: Context<T::Config>,
    slots: Vec<Option<Slot>>,
    builders: T::Builders,
    edits: EditWriter,
    /// Words of the last answer, which the next will resemble.
    last: usize,
}

/// The answer to a batch.
#[derive(Debug)]
pub(crate) struct ColumnAnswer {
    pub(crate) operations: Vec<u32>,
    pub(crate) data: Vec<u8>,
    pub(crate) columns: Answer,
}

impl<T: ColumnTransform> ColumnState<T> {
    /// Configured and bound to `fields`.
    pub(crate) fn new(
        config: &str,
        topic: &str,
        partition: u32,
        fields: &[Field],
    ) -> Result<(Self, Binding), String> {
        let config: T::Config = serde_json::from_str(config).map_err(|e| e.to_string())?;
        config.check()?;
        let (binding, slots) = bind(fields, &T::needs(), T::changes())?;
        let context = Context { config, topic: topic.to_owned(), partition };
        let (builders, edits) = (T::Builders::default(), EditWriter::new());
        Ok((ColumnState { context, slots, builders, edits, last: 0 }, binding))
    }

    pub(crate) fn apply(&mut self, rows: usize, layout: &[u32], buffers: &[u64]) -> ColumnAnswer {
        let batch = Batch { rows, layout, buffers, slots: &self.slots };
        T::apply(&batch, &self.context, &mut self.builders, &mut self.edits);
        let mut columns = Answer { layout: Vec::new(), buffers: Vec::with_capacity(self.last) };
        T::finish(&mut self.builders, &mut columns);
        self.last = columns.buffers.len();
        let (operations, data) = self.edits.finish();
        ColumnAnswer { operations, data, columns }
    }
}
