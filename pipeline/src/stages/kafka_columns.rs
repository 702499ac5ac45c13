//! Where a row comes from, as columns beside its own.

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

use gristmill_records::RawBatch;

use super::records::{Leaving, Op};
use crate::error::Error;

/// The columns that say where a row comes from, which stand behind its own.
pub const KAFKA_COLUMNS: [&str; 5] =
    ["_kafka_partition", "_kafka_offset", "_kafka_sub", "_kafka_timestamp", "_kafka_key"];

/// `schema` with Kafka's columns after its own.
pub(crate) fn kafka_schema(schema: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    fields.extend([
        Arc::new(Field::new("_kafka_partition", DataType::Int32, false)),
        Arc::new(Field::new("_kafka_offset", DataType::Int64, false)),
        Arc::new(Field::new("_kafka_sub", DataType::Int32, false)),
        Arc::new(Field::new(
            "_kafka_timestamp",
            DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            true,
        )),
        Arc::new(Field::new("_kafka_key", DataType::Binary, true)),
    ]);
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// `rows` with them; `of` says where each row comes from.
pub(super) fn with_kafka_columns(
    rows: &RecordBatch,
    partition: i32,
    of: &[Leaving<'_>],
) -> Result<RecordBatch, Error> {
    let schema = kafka_schema(&rows.schema());
    let mut columns = rows.columns().to_vec();
    let added: [ArrayRef; 5] = [
        Arc::new(Int32Array::from_value(partition, of.len())),
        Arc::new(Int64Array::from_iter_values(of.iter().map(|r| r.offset))),
        Arc::new(Int32Array::from_iter_values(of.iter().map(|r| i32::try_from(r.sub).unwrap_or(i32::MAX)))),
        Arc::new(TimestampMillisecondArray::from_iter(of.iter().map(|r| r.timestamp)).with_timezone("UTC")),
        Arc::new(BinaryArray::from_iter(of.iter().map(|r| r.key))),
    ];
    columns.extend(added);
    RecordBatch::try_new(schema, columns).map_err(Error::arrow)
}

/// `rows` with them; `records` are those of the batch that they were decoded from.
pub(crate) fn with_kafka_columns_of(
    rows: &RecordBatch,
    batch: &RawBatch,
    records: &[usize],
) -> Result<RecordBatch, Error> {
    let of: Vec<Leaving<'_>> = records
        .iter()
        .filter_map(|row| batch.get(*row))
        .map(|r| {
            let (offset, timestamp) = (r.offset(), r.timestamp());
            let (key, value, headers, op) = (r.key(), r.value(), r.headers(), Op::default());
            Leaving { row: r.row(), sub: 0, output: 0, offset, timestamp, key, value, headers, op }
        })
        .collect();
    with_kafka_columns(rows, batch.partition(), &of)
}

/// `schema` without them.
pub(super) fn own_schema(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<Arc<Field>> =
        schema.fields().iter().filter(|f| !KAFKA_COLUMNS.contains(&f.name().as_str())).cloned().collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// One that a transform has made of `before` where there was none: Gristmill's would be beside it.
pub(crate) fn kafka_column_of_its_own<'a>(before: &Schema, after: &'a Schema) -> Option<&'a str> {
    let names = after.fields().iter().map(|field| field.name().as_str());
    names.into_iter().find(|name| KAFKA_COLUMNS.contains(name) && before.field_with_name(name).is_err())
}

/// `rows` without them.
pub(super) fn without_kafka_columns(rows: &RecordBatch) -> Result<RecordBatch, Error> {
    let schema = rows.schema_ref();
    let others: Vec<usize> = (0..rows.num_columns())
        .filter(|i| !KAFKA_COLUMNS.contains(&schema.field(*i).name().as_str()))
        .collect();
    rows.project(&others).map_err(Error::arrow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_that_a_transform_names_as_those_of_kafka_is_found() {
        let schema = |names: &[&str]| {
            Schema::new(names.iter().map(|name| Field::new(*name, DataType::Int64, true)).collect::<Vec<_>>())
        };
        let before = schema(&["id", "_kafka_sub"]);
        assert_eq!(
            kafka_column_of_its_own(&before, &schema(&["id", "_kafka_offset"])),
            Some("_kafka_offset")
        );
        assert_eq!(kafka_column_of_its_own(&before, &schema(&["_kafka_sub", "_kafka_other"])), None);
    }
}
