//! Keeps every other record by the last byte of its key, so that runs are short.

use gristmill_transform::{Context, Edit, Outcome, Record, Reject};

/// Drops records whose key ends in an odd byte.
#[gristmill_transform::record(reads(keys, values))]
pub fn filter(record: &Record<'_>, _: &Context, _: &mut Edit<'_>) -> Result<Outcome, Reject> {
    match record.key().and_then(<[u8]>::last) {
        Some(last) if last % 2 == 1 => Ok(Outcome::Drop),
        _ => Ok(Outcome::Keep),
    }
}
