//! A function on a typed row, made a transform of columns.

use gristmill_records::EditWriter;

use super::compute::Answer;
use super::read::Batch;
use super::schema::{Binding, Change, Field, Need, Slot, bind};
use crate::{Config, Context, Manifest, Output, Reject};

/// The columns that a row is read from. Derive it.
pub trait Row<'a>: Sized {
    /// The columns, opened.
    #[doc(hidden)]
    type Cursors;

    #[doc(hidden)]
    fn needs() -> Vec<Need>;

    #[doc(hidden)]
    fn open(batch: &Batch<'a>) -> Self::Cursors;

    #[doc(hidden)]
    fn get(cursors: &Self::Cursors, row: usize) -> Self;
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
    fn finish(builders: &mut Self::Builders, answer: &mut Answer);
}

impl Columns for () {
    type Builders = ();

    fn changes() -> Vec<Change> {
        Vec::new()
    }

    #[inline]
    fn append_to(self, (): &mut ()) {}

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

/// A transform of columns. The [`row`](crate::row) macro implements it for a unit struct named `Transform`, in a module
/// with the name of the function.
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

/// The loop over the rows that the macro calls.
#[doc(hidden)]
pub fn each_row<'a, R: Row<'a>, T: Columns, C>(
    batch: &Batch<'a>,
    context: &'a Context<C>,
    builders: &mut T::Builders,
    edits: &mut EditWriter,
    function: impl Fn(&R, &'a Context<C>, &mut RowEdit<T>) -> Result<RowOutcome<T>, Reject>,
) {
    let cursors = R::open(batch);
    let mut edit = RowEdit { output: Output::MAIN, emitted: Vec::new() };
    for row in 0..batch.rows() {
        let outcome = function(&R::get(&cursors, row), context, &mut edit);
        let output = std::mem::replace(&mut edit.output, Output::MAIN);
        if let Err(reject) = &outcome {
            edits.reject(reject.code(), reject.message());
            edit.emitted.clear();
            continue;
        }
        for (output, _) in &edit.emitted {
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
        edit.emitted.drain(..).for_each(|(_, columns)| columns.append_to(builders));
    }
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
