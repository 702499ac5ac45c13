//! Rows that the sink cannot hold.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use gristmill_codec::times_without_text;
use gristmill_sinks::{DirectoryTemplate, Misfit, misfits};

use crate::error::Error;

/// What the sink asks of rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fits {
    pub(crate) directories: Option<DirectoryTemplate>,
    /// Files hold times as texts.
    pub(crate) times_as_text: bool,
    pub(crate) bigquery: bool,
    /// Rows are those of [`Destination::Table`](super::changes::Destination::Table).
    pub(crate) changes: bool,
}

/// A row that is put aside.
#[derive(Debug)]
pub(super) struct Unfit {
    pub(super) row: usize,
    pub(super) code: &'static str,
    pub(super) why: String,
}

impl Fits {
    /// Those that do not, each once, in order.
    pub(super) fn unfit(&self, rows: &RecordBatch) -> Result<Vec<Unfit>, Error> {
        let mut unfit = BTreeMap::new();
        let mut note = |row, code, why| {
            unfit.entry(row).or_insert(Unfit { row, code, why });
        };
        if self.times_as_text {
            for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
                for row in times_without_text(column) {
                    let name = field.name();
                    let why = format!(
                        "column {name} holds a time that is beyond what JSON lines can say; Parquet can"
                    );
                    note(row, "TIME_OUT_OF_RANGE", why);
                }
            }
        }
        if let Some(template) = &self.directories {
            for (row, why) in template.unfit(rows).map_err(Error::sink)? {
                note(row, "DIRECTORY_VALUE", why);
            }
        }
        if self.bigquery {
            for Misfit { row, code, why, .. } in misfits(rows, self.changes).map_err(Error::config)? {
                note(row, code, why);
            }
        }
        Ok(unfit.into_values().collect())
    }
}
