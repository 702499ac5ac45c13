//! Record keys as columns.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_cast::{CastOptions, can_cast_types, cast_with_options};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use arrow_select::interleave::interleave;
use gristmill::SchemaType;
use gristmill_codec::{Decoder, SchemaId, Value};

use super::super::records::Leaving;
use super::super::{DecoderPlan, decode_code};
use crate::error::Error;

/// How keys become columns.
#[derive(Clone, Debug)]
pub(crate) enum KeyPlan {
    /// By a schema.
    Schema(DecoderPlan),
    /// Objects of those fields; also within a `payload`, as Kafka Connect's JsonConverter writes them.
    Json(SchemaRef),
    /// The key is the text of one value.
    Text(SchemaRef),
}

/// Those of one partition.
#[derive(Debug)]
pub(super) enum Keys {
    /// With the language of the schemas that they name.
    Schema(Box<Decoder>, &'static SchemaType),
    /// What comes out, and what decodes both forms.
    Json(SchemaRef, Box<Decoder>),
    Text(SchemaRef),
}

impl KeyPlan {
    pub(super) fn open(&self) -> Result<Keys, Error> {
        Ok(match self {
            KeyPlan::Schema(plan) => Keys::Schema(Box::new(plan.open()?), plan.language()),
            KeyPlan::Json(schema) => {
                let nullable = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
                let mut fields: Vec<Field> = nullable.collect();
                let own = Arc::new(Schema::new(fields.clone()));
                if own.field_with_name(PAYLOAD).is_err() {
                    fields.push(Field::new(PAYLOAD, DataType::Struct(fields.clone().into()), true));
                }
                Keys::Json(own, Box::new(DecoderPlan::Json(Arc::new(Schema::new(fields))).open()?))
            }
            KeyPlan::Text(schema) => Keys::Text(schema.clone()),
        })
    }

    /// Keys that are text, for the one column of `schema`.
    ///
    /// # Errors
    /// What is wrong with the columns, in one sentence.
    pub(crate) fn text(schema: SchemaRef) -> Result<Self, String> {
        let [field] = schema.fields().as_ref() else {
            return Err(format!(
                "a key of `text` is one value, and `fields` names {}: name one column",
                schema.fields().len()
            ));
        };
        match field.data_type().is_nested() || !can_cast_types(&DataType::Utf8, field.data_type()) {
            true => {
                Err(format!("a text cannot be {}, which column `{}` is", field.data_type(), field.name()))
            }
            false => Ok(KeyPlan::Text(schema)),
        }
    }
}

/// Columns as they are at the top or, where there is one, in the payload.
fn in_one_form(schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch, Error> {
    let Some(payload) = rows.column_by_name(PAYLOAD).and_then(|payload| payload.as_struct_opt()) else {
        return Ok(rows.clone());
    };
    let Some(inner) = payload.nulls().filter(|nulls| nulls.null_count() < rows.num_rows()) else {
        let top: Vec<usize> = (0..schema.fields().len()).collect();
        return match payload.nulls() {
            Some(_) => rows.project(&top).map_err(Error::arrow),
            None => RecordBatch::try_new(schema.clone(), payload.columns().to_vec()).map_err(Error::arrow),
        };
    };
    let at: Vec<(usize, usize)> =
        (0..rows.num_rows()).map(|row| (usize::from(inner.is_valid(row)), row)).collect();
    let columns = (0..schema.fields().len())
        .map(|column| interleave(&[rows.column(column).as_ref(), payload.column(column).as_ref()], &at));
    let columns = columns.collect::<Result<Vec<_>, _>>().map_err(Error::arrow)?;
    RecordBatch::try_new(schema.clone(), columns).map_err(Error::arrow)
}

const PAYLOAD: &str = "payload";

type Undecodable = (usize, String, String);

impl Keys {
    pub(super) fn schema(&self) -> SchemaRef {
        match self {
            Keys::Schema(decoder, _) => decoder.schema(),
            Keys::Json(schema, _) | Keys::Text(schema) => schema.clone(),
        }
    }

    /// Of the schemas that keys name.
    pub(super) fn language(&self) -> &'static SchemaType {
        match self {
            Keys::Schema(_, language) => language,
            Keys::Json(..) | Keys::Text(_) => &SchemaType::Json,
        }
    }

    pub(super) fn missing_schemas<'a>(&self, keys: impl Iterator<Item = Option<Value<'a>>>) -> Vec<SchemaId> {
        match self {
            Keys::Schema(decoder, _) => decoder.missing_schemas(keys),
            Keys::Json(..) | Keys::Text(_) => Vec::new(),
        }
    }

    pub(super) fn add_writer_schema(&mut self, id: SchemaId, schema: &str) -> gristmill_codec::Result<()> {
        match self {
            Keys::Schema(decoder, _) => decoder.add_writer_schema(id, schema),
            Keys::Json(..) | Keys::Text(_) => Ok(()),
        }
    }

    /// Columns, which record each row is of, and those whose key does not decode.
    pub(super) fn decode(
        &mut self,
        leaving: &[Leaving<'_>],
    ) -> Result<(RecordBatch, Vec<u64>, Vec<Undecodable>), Error> {
        match self {
            Keys::Schema(decoder, _) | Keys::Json(_, decoder) => {
                let keys = leaving.iter().enumerate().map(|(i, record)| (i as u64, record.key_to_decode()));
                let decoded = decoder.decode(keys).map_err(Error::decode)?;
                let bad = decoded.undecodable.into_iter();
                let bad = bad.map(|bad| {
                    (bad.row as usize, decode_code(bad.cause), format!("the key: {}", bad.reason))
                });
                let bad = bad.collect();
                let batch = match self {
                    Keys::Json(schema, _) => in_one_form(schema, &decoded.batch)?,
                    _ => decoded.batch,
                };
                Ok((batch, decoded.rows, bad))
            }
            Keys::Text(schema) => {
                let texts =
                    leaving.iter().map(|record| record.key.and_then(|key| std::str::from_utf8(key).ok()));
                let texts: ArrayRef = Arc::new(StringArray::from_iter(texts));
                let field = schema.field(0);
                let options = CastOptions { safe: true, ..CastOptions::default() };
                let values = cast_with_options(&texts, field.data_type(), &options).map_err(Error::arrow)?;
                let nullable = Arc::new(Schema::new(vec![field.clone().with_nullable(true)]));
                let all = RecordBatch::try_new(nullable, vec![values.clone()]).map_err(Error::arrow)?;
                let good = arrow_array::BooleanArray::from_iter(
                    (0..values.len()).map(|row| Some(values.is_valid(row))),
                );
                let rows = (0..values.len() as u64).filter(|row| values.is_valid(*row as usize)).collect();
                let bad =
                    (0..values.len()).filter(|row| values.is_null(*row)).map(|row| match leaving[row].key {
                        None => (row, "DECODE_NULL_VALUE".to_owned(), "the key is null".to_owned()),
                        Some(_) => {
                            let text = format!(
                                "the key is no text of {}, which column `{}` is",
                                field.data_type(),
                                field.name()
                            );
                            (row, "DECODE_MISMATCH".to_owned(), text)
                        }
                    });
                let bad = bad.collect();
                Ok((filter_record_batch(&all, &good).map_err(Error::arrow)?, rows, bad))
            }
        }
    }
}
