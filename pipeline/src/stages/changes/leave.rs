//! Changes as rows for a sink.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use arrow_select::nullif::nullif;
use gristmill_sinks::{CHANGE_SEQUENCE_NUMBER, CHANGE_TYPE};

use super::super::fits::Unfit;
use super::super::kafka_columns::KAFKA_COLUMNS;
use super::super::records::{Leaving, Op};
use crate::error::Error;

/// Debezium's own name for it where it flattens its events.
pub(crate) const OP_COLUMN: &str = "__op";

/// What a row is where it goes.
#[derive(Clone, Debug, Default)]
pub(crate) enum Destination {
    /// A row.
    #[default]
    Rows,
    /// A row that says what was done to another: all of them are kept.
    History,
    /// It is done to the row with the key.
    Table { key: Vec<String> },
}

/// The numbers of a partition's records: [epoch](crate::epochs), offset, and which of its rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sequence {
    /// From the oldest on.
    pub(crate) epochs: Vec<PartitionEpoch>,
}

/// An epoch as one partition sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartitionEpoch {
    /// From which offset on.
    pub(crate) first: i64,
    pub(crate) number: u64,
    /// How many the topic has.
    pub(crate) partitions: usize,
}

impl Sequence {
    fn epoch(&self, offset: i64) -> Option<&PartitionEpoch> {
        self.epochs.iter().rev().find(|epoch| epoch.first <= offset)
    }

    fn number(&self, record: &Leaving<'_>) -> String {
        let epoch = self.epoch(record.offset).map_or(0, |epoch| epoch.number);
        format!("{epoch:X}/{:X}/{:X}", record.offset, record.sub)
    }

    /// How many partitions the topic had when a record came.
    pub(super) fn partitions(&self, offset: i64) -> usize {
        self.epoch(offset).map_or(1, |epoch| epoch.partitions)
    }
}

impl Destination {
    /// The columns that rows have there.
    pub(crate) fn schema(&self, rows: SchemaRef) -> SchemaRef {
        match self {
            Destination::Rows => rows,
            Destination::History => {
                let mut fields = rows.fields().to_vec();
                fields.push(Arc::new(Field::new(OP_COLUMN, DataType::Utf8, false)));
                Arc::new(Schema::new_with_metadata(fields, rows.metadata().clone()))
            }
            // Of a row that is gone there is the key alone.
            Destination::Table { key } => {
                let fields = rows.fields().iter();
                let fields = fields.map(|field| {
                    let nullable = !is_key(key, field.name());
                    Arc::new(field.as_ref().clone().with_nullable(nullable))
                });
                let fields: Vec<_> = fields.collect();
                Arc::new(Schema::new_with_metadata(fields, rows.metadata().clone()))
            }
        }
    }

    /// Rows that cannot be told apart from others.
    pub(in super::super) fn unfit(&self, rows: &RecordBatch) -> Vec<Unfit> {
        let Destination::Table { key } = self else { return Vec::new() };
        let mut unfit = Vec::new();
        for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
            if is_key(key, field.name()) && column.null_count() > 0 {
                let rows = (0..rows.num_rows()).filter(|row| column.is_null(*row));
                let why = format!("column `{}` of the primary key is null", field.name());
                unfit.extend(rows.map(|row| Unfit { row, code: "KEY_NULL", why: why.clone() }));
            }
        }
        unfit.sort_by_key(|unfit| unfit.row);
        unfit.dedup_by_key(|unfit| unfit.row);
        unfit
    }

    /// The rows as they go there; none of them is [unfit](Self::unfit).
    pub(in super::super) fn rows(
        &self,
        rows: RecordBatch,
        of: &[Leaving<'_>],
        sequence: &Sequence,
    ) -> Result<RecordBatch, Error> {
        let schema = self.schema(rows.schema());
        let mut columns = rows.columns().to_vec();
        let mut fields = schema.fields().to_vec();
        match self {
            Destination::Rows => return Ok(rows),
            Destination::History => {
                columns.push(Arc::new(StringArray::from_iter_values(of.iter().map(|r| r.op.as_str()))));
            }
            Destination::Table { key } => {
                let is_gone = BooleanArray::from_iter(of.iter().map(|r| Some(r.op == Op::Delete)));
                if is_gone.true_count() > 0 {
                    // What else is told of a row that is gone must not keep it.
                    for (field, column) in fields.iter().zip(&mut columns) {
                        if !is_key(key, field.name()) && !KAFKA_COLUMNS.contains(&field.name().as_str()) {
                            *column = nullif(column, &is_gone).map_err(Error::arrow)?;
                        }
                    }
                }
                let kinds = of.iter().map(|r| if r.op == Op::Delete { "DELETE" } else { "UPSERT" });
                let ends: [(&str, ArrayRef); 2] = [
                    (CHANGE_TYPE, Arc::new(StringArray::from_iter_values(kinds))),
                    (
                        CHANGE_SEQUENCE_NUMBER,
                        Arc::new(StringArray::from_iter_values(of.iter().map(|r| sequence.number(r)))),
                    ),
                ];
                for (name, column) in ends {
                    fields.push(Arc::new(Field::new(name, DataType::Utf8, false)));
                    columns.push(column);
                }
            }
        }
        let schema = Schema::new_with_metadata(fields, schema.metadata().clone());
        RecordBatch::try_new(Arc::new(schema), columns).map_err(Error::arrow)
    }
}

/// As BigQuery compares names.
fn is_key(key: &[String], name: &str) -> bool {
    key.iter().any(|key| key.eq_ignore_ascii_case(name))
}
