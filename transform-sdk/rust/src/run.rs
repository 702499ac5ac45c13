use gristmill_records::{EditWriter, Record, Rows};

use crate::{Config, Edit, NoConfig, Outcome, Reject};

/// What a transform knows besides the record.
#[derive(Debug)]
pub struct Context<C = NoConfig> {
    /// The configuration.
    pub config: C,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
}

/// What a transform says of itself. The `record` macro writes it.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What it does.
    pub description: &'static str,
    /// Name and description of each output besides `main`.
    pub outputs: &'static [Declared],
    /// What it reads.
    pub reads: Reads,
}

/// Name and description of an output.
pub type Declared = (&'static str, &'static str);

/// Which parts of a record are handed over; the others read as null, empty or absent.
#[derive(Debug, Clone, Copy, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Reads {
    pub keys: bool,
    pub values: bool,
    pub headers: bool,
    pub timestamps: bool,
    pub offsets: bool,
}

/// A transform of records. The `record` macro implements it for a unit struct named `Transform`, in a
/// module with the name of the function.
pub trait Transform: 'static {
    /// Its configuration.
    type Config: Config;

    /// What it is.
    const MANIFEST: Manifest;

    /// What it does to one record.
    ///
    /// # Errors
    /// A [`Reject`], which goes where the pipeline sends rejects.
    fn apply(
        record: &Record<'_>,
        context: &Context<Self::Config>,
        out: &mut Edit<'_>,
    ) -> Result<Outcome, Reject>;
}

/// A configured transform.
pub(crate) struct State<T: Transform> {
    context: Context<T::Config>,
    writer: EditWriter,
    /// Sizes of the last answer, which the next will resemble.
    last: (usize, usize),
}

impl<T: Transform> State<T> {
    pub(crate) fn new(config: &str, topic: &str, partition: u32) -> Result<Self, String> {
        let config: T::Config = serde_json::from_str(config).map_err(|e| e.to_string())?;
        config.check()?;
        let context = Context { config, topic: topic.to_owned(), partition };
        Ok(State { context, writer: EditWriter::new(), last: (0, 0) })
    }

    /// The answer to a batch: operations and data.
    pub(crate) fn apply(&mut self, rows: Rows<'_>) -> (Vec<u32>, Vec<u8>) {
        let writer = &mut self.writer;
        writer.reserve(self.last.0, self.last.1);
        for record in rows.iter() {
            match T::apply(&record, &self.context, &mut Edit { writer }) {
                Ok(Outcome::Keep) => writer.keep(),
                Ok(Outcome::Drop) => writer.drop_row(),
                Err(reject) => writer.reject(reject.code(), reject.message()),
            }
        }
        let answer = writer.finish();
        self.last = (answer.0.len(), answer.1.len());
        answer
    }
}

/// A transform called as an ordinary function, for benchmarks to compare with.
pub struct Native<T: Transform>(State<T>);

impl<T: Transform> Native<T> {
    /// Configured.
    pub fn new(config: &str) -> Result<Self, String> {
        State::new(config, "native", 0).map(Native)
    }

    /// The edit list for `rows`.
    pub fn apply(&mut self, rows: Rows<'_>) -> (Vec<u32>, Vec<u8>) {
        self.0.apply(rows)
    }
}
