//! Reads values and keeps every record: the cost of the hop and nothing else.

use gristmill_transform::{Context, Edit, Outcome, Record, Reject};

/// Keeps every record.
#[gristmill_transform::record(reads(values))]
pub fn identity(_: &Record<'_>, _: &Context, _: &mut Edit<'_>) -> Result<Outcome, Reject> {
    Ok(Outcome::Keep)
}
