//! Reads a column of every type, and answers with what it has read.

mod kinds;

use gristmill_transform::{Context, Reject, RowEdit, RowOutcome};
use kinds::{All, Same};

/// Answers with what it has read.
#[gristmill_transform::row]
pub fn column_kinds<'a>(
    all: &All<'a>,
    _: &Context,
    _: &mut RowEdit<Same<'a>>,
) -> Result<RowOutcome<Same<'a>>, Reject> {
    Ok(RowOutcome::Keep((*all).into()))
}
