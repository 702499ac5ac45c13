//! Arrow columns as the values of records: Avro with a schema id in front, or JSON.

use arrow_array::RecordBatch;
use arrow_avro::schema::{AVRO_NAME_METADATA_KEY, AvroSchema, FingerprintStrategy, SCHEMA_METADATA_KEY};
use arrow_avro::writer::format::AvroSoeFormat;
use arrow_avro::writer::{Encoder, WriterBuilder};
use arrow_schema::Schema;

use crate::error::{Error, ErrorKind, Result};
use crate::shown::json_lines;

/// The Avro schema of columns: a record with this name. Nullable fields are unions with null, null first.
///
/// # Errors
/// [`ErrorKind::UnsupportedType`] for a type that Avro does not have, such as an unsigned integer of 64 bits.
pub fn avro_schema_of(columns: &Schema, name: &str) -> Result<String> {
    let mut columns = columns.clone();
    columns.metadata.remove(SCHEMA_METADATA_KEY);
    columns.metadata.insert(AVRO_NAME_METADATA_KEY.to_owned(), name.to_owned());
    let schema = AvroSchema::try_from(&columns).map_err(|e| {
        Error::new(ErrorKind::UnsupportedType, "the columns have no Avro schema").with_source(e)
    })?;
    Ok(schema.json_string)
}

/// Encodes rows as Avro with a schema id in front, as the Schema Registry's serialisers write it: 0, the id in four bytes,
/// big-endian, the datum.
#[derive(Debug)]
pub struct AvroEncoder {
    encoder: Encoder,
}

impl AvroEncoder {
    /// For rows with these columns, by an Avro record schema without references, whose id is `id`. Fields and columns meet by
    /// name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSchema`] if the text is not such a schema, or a column has no field in it;
    /// [`ErrorKind::UnsupportedType`] if a field has no column, or one of another type.
    pub fn new(columns: &Schema, avro: &str, id: u32) -> Result<AvroEncoder> {
        let fields: Vec<String> = serde_json::from_str::<serde_json::Value>(avro)
            .ok()
            .and_then(|schema| {
                let fields = schema.get("fields")?.as_array()?;
                fields.iter().map(|field| Some(field.get("name")?.as_str()?.to_owned())).collect()
            })
            .ok_or_else(|| Error::new(ErrorKind::InvalidSchema, "the schema is not an Avro record schema"))?;
        if let Some(column) = columns.fields().iter().find(|column| !fields.contains(column.name())) {
            let text = format!(
                "the column `{}` has no field in the Avro schema, which has {}; leave the column out, or register a schema with it",
                column.name(),
                fields.join(", ")
            );
            return Err(Error::new(ErrorKind::InvalidSchema, text));
        }
        let mut columns = columns.clone();
        columns.metadata.insert(SCHEMA_METADATA_KEY.to_owned(), avro.to_owned());
        let encoder = WriterBuilder::new(columns)
            .with_fingerprint_strategy(FingerprintStrategy::Id(id))
            .build_encoder::<AvroSoeFormat>()
            .map_err(|e| {
                Error::new(ErrorKind::UnsupportedType, "the columns do not fit the Avro schema")
                    .with_source(e)
            })?;
        Ok(AvroEncoder { encoder })
    }

    /// A value for each row.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedType`] for a value that the schema has no form for, such as a null where none may be. Nothing of
    /// the batch counts then.
    pub fn encode(&mut self, rows: &RecordBatch) -> Result<Vec<Vec<u8>>> {
        let encoded = self.encoder.encode(rows);
        let values = self.encoder.flush();
        encoded.map_err(|e| {
            Error::new(ErrorKind::UnsupportedType, "a value does not fit the Avro schema").with_source(e)
        })?;
        Ok(values.iter().map(|value| value.to_vec()).collect())
    }
}

/// A JSON object for each row. Nulls are left out; decimals of more than 15 digits are texts, since most readers make floats
/// of JSON's numbers.
///
/// # Errors
/// [`ErrorKind::UnsupportedType`]: a type or a value that JSON does not have.
pub fn encode_json(rows: &RecordBatch) -> Result<Vec<Vec<u8>>> {
    let text = json_lines(rows)?;
    let mut values: Vec<Vec<u8>> = text.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    // Each line ends with a line feed; inside of texts they are escaped.
    values.pop();
    Ok(values)
}
