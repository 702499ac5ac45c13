use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::left_out::LeftOut;

/// A boxed future that may be sent to another thread; what a dyn-safe async method returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Which incarnation of an object a name stands for. A name that is deleted and created again has
/// another generation. The numbers have no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// The outcome of [`Store::create_if_absent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// This call created the object.
    Created(Generation),
    /// There was an object of that name; it was not touched.
    Exists,
}

/// The outcome of [`Store::move_if_absent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// This call moved the object.
    Moved,
    /// The staged object is gone: somebody has moved it. What became of the final name since (a user may
    /// have deleted it) does not matter.
    AlreadyMoved,
    /// The final name is taken by another object; neither was touched.
    DestinationExists,
    /// The store knows nothing of what was staged, and cannot say whether it was moved: a stream that its service has
    /// forgotten.
    Gone,
}

/// A whole object.
#[derive(Clone, Debug)]
pub struct Object {
    /// The content.
    pub bytes: Bytes,
    /// Which incarnation was read.
    pub generation: Generation,
}

/// What a listing says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The full name.
    pub name: String,
    /// Which incarnation.
    pub generation: Generation,
    /// Size in bytes.
    pub bytes: u64,
}

/// What a store knows of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Which incarnation.
    pub generation: Generation,
    /// Size in bytes.
    pub bytes: u64,
    /// CRC-32C (Castagnoli) of the content.
    pub crc32c: u32,
}

/// A finished upload under its staged name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// The staged name.
    pub name: String,
    /// Which incarnation.
    pub generation: Generation,
    /// Size in bytes.
    pub bytes: u64,
    /// CRC-32C (Castagnoli) of the content.
    pub crc32c: u32,
}

/// What is to be staged.
#[derive(Clone, Copy, Debug)]
pub struct RowsOf<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The output.
    pub output: &'a str,
    /// Their directory, if rows are divided; else empty.
    pub directory: &'a str,
    /// The rows' columns.
    pub schema: &'a arrow_schema::Schema,
}

/// What a store has answered for the rows of an upload.
#[derive(Debug, Default)]
pub struct Answered {
    /// Of so many of the first rows it is known what became of them.
    pub rows: u64,
    /// Those that it refused since it was asked last, in order.
    pub refused: Vec<RefusedRow>,
}

/// A row that a store does not take; the others of its upload are taken without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRow {
    /// Which of the rows that were appended, from 0.
    pub row: u64,
    /// Why, in the store's words.
    pub message: String,
}

/// An upload in progress. Nothing is visible under its name before [`StagedWrite::finish`].
///
/// Dropping it discards the upload without waiting for the store.
pub trait StagedWrite: Send + fmt::Debug {
    /// Appends bytes.
    ///
    /// Not cancel safe: after a dropped future or an error every later call fails with
    /// [`ErrorKind::Torn`](crate::ErrorKind::Torn).
    fn append(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>>;

    /// Makes the object durable and visible under its staged name, if that name is free.
    ///
    /// Not cancel safe: whether a dropped future left the object behind is unknown. Staged names are
    /// unique, so what is left behind is an orphan and nothing worse.
    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<Staged>>;

    /// Waits until the store has answered for all rows. Not cancel safe, as [`append`](Self::append). Default: stores of objects
    /// have nothing to say.
    fn settle(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// Whether what is appended is seen at once, so that it is not to be gathered first. Default: no.
    fn is_eager(&self) -> bool {
        false
    }

    /// Whether the store judges single rows, so that [`answered`](Self::answered) has to be asked. Default: no.
    fn may_refuse(&self) -> bool {
        false
    }

    /// What was answered so far. Asks nobody.
    fn answered(&mut self) -> Answered {
        Answered { rows: u64::MAX, refused: Vec::new() }
    }

    /// Columns of the rows that the place does not have: rows come without them. Default: none.
    fn left_out(&self) -> Option<&LeftOut> {
        None
    }

    /// Bytes of memory that wait to be sent. Default: none, for stores that pass on what they get.
    fn buffered(&self) -> usize {
        0
    }
}

/// A flat store of immutable objects: what the ledger needs as state store, and a sink as object store.
///
/// # What every implementation promises
/// - An object is visible with its whole content or not at all, also to listings.
/// - What a call reported as done survives a crash of the machine.
/// - `create_if_absent`, `move_if_absent` and `finish` **never replace** an object. Of any number of
///   concurrent calls for one name, at most one says that it won.
/// - A listing shows everything that was finished before it started.
/// - An error of kind `OutcomeUnknown` means that the effect may come, now or later; `Unavailable` means
///   that there is none and will be none.
///
/// Names are `/`-separated, see [`validate_name`]. Futures may be dropped at any time; the outcome of the
/// call is then unknown.
///
/// The crate's `conformance` feature exports the suite that every implementation runs.
pub trait Store: Send + Sync + fmt::Debug {
    /// Creates `name` with `bytes` unless there is such an object.
    fn create_if_absent<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<Create>>;

    /// Reads a whole object; `None` if there is none.
    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Object>>>;

    /// Size, generation and checksum of an object; `None` if there is none. May read the whole object.
    fn stat<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Stat>>>;

    /// Up to `limit` objects whose names start with `prefix` (any text, not only whole folders) and are
    /// greater than `start_after`, in byte order of their names. Fewer than `limit` means that there are no
    /// more.
    fn list<'a>(
        &'a self,
        prefix: &'a str,
        start_after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Listed>>>;

    /// Deletes an object; says whether there was one.
    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>>;

    /// Begins an upload that will be visible under `name` once it is finished. `name` is used once only.
    fn stage<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Box<dyn StagedWrite>>>;

    /// As [`Store::stage`], for rows of an output: a store of tables needs to know which. Then the name of what was staged
    /// may be another one.
    fn stage_rows<'a>(
        &'a self,
        name: &'a str,
        rows: RowsOf<'a>,
    ) -> BoxFuture<'a, Result<Box<dyn StagedWrite>>> {
        let _ = rows;
        self.stage(name)
    }

    /// Moves the staged object of that generation to its final name unless that is taken.
    ///
    /// # Errors
    /// `Changed` if the staged object is of another generation and its content is not at the final name; neither
    /// object is touched.
    fn move_if_absent<'a>(
        &'a self,
        staged: &'a str,
        generation: Generation,
        to: &'a str,
    ) -> BoxFuture<'a, Result<Move>>;
}

/// The longest object name in bytes.
pub const MAX_NAME_BYTES: usize = 1024;

/// Checks that `name` is one that every store can take: relative, at most [`MAX_NAME_BYTES`] bytes, segments
/// of 1 to 255 bytes between single `/`, none of them `.` or `..`, no control characters, no `\`.
///
/// # Errors
/// `InvalidName` with the first reason.
pub fn validate_name(name: &str) -> Result<()> {
    let refuse = |why: &str| {
        let shown: String = name.chars().take(120).collect();
        Err(Error::new(ErrorKind::InvalidName, format!("object name {shown:?} {why}")))
    };
    if name.is_empty() {
        return refuse("is empty");
    }
    if name.len() > MAX_NAME_BYTES {
        return refuse("is longer than 1024 bytes");
    }
    if name.chars().any(|c| c.is_control() || c == '\\') {
        return refuse("has a control character or a backslash");
    }
    for segment in name.split('/') {
        match segment {
            "" => return refuse("has an empty segment (it must be relative, with single slashes)"),
            "." | ".." => return refuse("has the segment `.` or `..`"),
            s if s.len() > 255 => return refuse("has a segment of more than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::validate_name;

    #[test]
    fn names_that_could_leave_the_store_are_refused() {
        for bad in ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a\0b", "a\nb", "a\\b"] {
            assert!(validate_name(bad).is_err(), "{bad:?} was taken");
        }
        assert!(validate_name(&"a".repeat(256)).is_err());
        assert!(validate_name(&["a"; 600].join("/")).is_err());
        for good in ["a", "a/b", "dt=2024-01-01/x+0.parquet", "..a/b..", "%2F", "ä/ü"] {
            validate_name(good).unwrap();
        }
    }
}
