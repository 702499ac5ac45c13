use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_cast::{CastOptions, cast_with_options};
use arrow_json::LineDelimitedWriter;
use arrow_schema::{ArrowError, DataType, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::bigquery::rows::{Form, RowsEncoder};
use crate::error::{Error, ErrorKind, Result};

/// The format of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Apache Parquet, compressed with zstd. Extension `parquet`.
    Parquet(ParquetOptions),
    /// One JSON object a line; a null field is left out. Extension `jsonl`.
    JsonLines,
    /// Messages of Arrow's IPC format for [`BigQueryStore`](crate::BigQueryStore), which alone takes it.
    BigQuery,
    /// The same of rows that change others: messages of protobuf. They end with [`CHANGE_TYPE`](crate::CHANGE_TYPE) and
    /// [`CHANGE_SEQUENCE_NUMBER`](crate::CHANGE_SEQUENCE_NUMBER). For a store with [`Mode::Cdc`](crate::Mode::Cdc) alone.
    BigQueryChanges,
}

impl Format {
    /// The file extension.
    pub fn extension(&self) -> &'static str {
        match self {
            Format::Parquet(_) => "parquet",
            Format::JsonLines => "jsonl",
            Format::BigQuery | Format::BigQueryChanges => "rows",
        }
    }

    /// Whether a store may refuse single rows of what it takes.
    pub(crate) fn is_of_rows(&self) -> bool {
        matches!(self, Format::BigQuery | Format::BigQueryChanges)
    }
}

/// A column's values are kept in a dictionary up to that size, then as they are. The library's own limit, 1 MiB, is
/// beyond a core's cache: look-ups in it cost more than they save where many values are different, and every column
/// of every open file may hold one.
const DICTIONARY_BYTES: usize = 256 << 10;

/// How Parquet files are written.
///
/// Any reader gets every type without settings: lists and maps have the names of the specification, seconds,
/// which Parquet has no type for, become milliseconds, and each column has statistics by page.
///
/// The footer says what a file is, under keys that begin with `gristmill.`: `version`, `pipeline`, `cluster`,
/// `topic`, `topic_id`, `partition`, `output`, `entry` (the first offset of the ledger entry), `first_offset`
/// and `last_offset` (of the file's own rows), `rows`, `schema_digest`, `transform_digest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParquetOptions {
    /// The zstd level, 1 to 22.
    pub zstd_level: i32,
    /// A row group is closed when its encoded data is about this many bytes. It bounds the memory of one open
    /// file.
    pub row_group_bytes: usize,
}

impl Default for ParquetOptions {
    /// zstd 1, row groups of 32 MiB.
    fn default() -> Self {
        ParquetOptions { zstd_level: 1, row_group_bytes: 32 << 20 }
    }
}

/// Encodes one file. Encoded bytes are taken out as they come.
pub(crate) enum Encoder {
    Parquet { writer: Box<ArrowWriter<Vec<u8>>>, schema: SchemaRef },
    JsonLines(LineDelimitedWriter<Vec<u8>>),
    BigQuery(Box<RowsEncoder>),
}

impl Encoder {
    pub(crate) fn new(format: &Format, schema: SchemaRef) -> Result<Self> {
        match format {
            Format::JsonLines => Ok(Encoder::JsonLines(LineDelimitedWriter::new(Vec::new()))),
            Format::BigQuery => Ok(Encoder::BigQuery(Box::new(RowsEncoder::new(&schema, Form::Arrow)?))),
            Format::BigQueryChanges => {
                Ok(Encoder::BigQuery(Box::new(RowsEncoder::new(&schema, Form::Changes)?)))
            }
            Format::Parquet(options) => {
                let level = ZstdLevel::try_new(options.zstd_level).map_err(encode)?;
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(level))
                    .set_max_row_group_bytes(Some(options.row_group_bytes))
                    .set_dictionary_page_size_limit(DICTIONARY_BYTES)
                    .set_statistics_enabled(EnabledStatistics::Page)
                    .set_coerce_types(true)
                    // The form that readers know to take apart.
                    .set_created_by(concat!("gristmill version ", env!("CARGO_PKG_VERSION")).to_owned())
                    .build();
                let schema = in_parquet(&schema);
                let writer =
                    ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties)).map_err(encode)?;
                Ok(Encoder::Parquet { writer: Box::new(writer), schema })
            }
        }
    }

    pub(crate) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        match self {
            Encoder::Parquet { writer, schema } => {
                let rows = converted(rows, schema).map_err(encode)?;
                writer.write(rows.as_ref()).map_err(encode)
            }
            Encoder::JsonLines(writer) => writer.write(rows).map_err(encode),
            Encoder::BigQuery(encoder) => encoder.write(rows),
        }
    }

    /// Bytes that wait inside: in an open row group, or encoded and not taken yet.
    pub(crate) fn buffered(&self) -> usize {
        match self {
            Encoder::Parquet { writer, .. } => writer.memory_size() + writer.inner().len(),
            Encoder::JsonLines(writer) => writer.get_ref().len(),
            Encoder::BigQuery(encoder) => encoder.buffered(),
        }
    }

    /// About how many bytes the file would have if it were closed now.
    pub(crate) fn size(&self, taken: u64) -> u64 {
        match self {
            Encoder::Parquet { writer, .. } => (writer.bytes_written() + writer.in_progress_size()) as u64,
            Encoder::JsonLines(writer) => taken + writer.get_ref().len() as u64,
            Encoder::BigQuery(encoder) => encoder.size(),
        }
    }

    /// Closes the open row group, so that all its memory can be taken out.
    pub(crate) fn flush(&mut self) -> Result<()> {
        match self {
            Encoder::Parquet { writer, .. } => writer.flush().map_err(encode),
            Encoder::JsonLines(_) | Encoder::BigQuery(_) => Ok(()),
        }
    }

    /// The encoded bytes so far, if they are at least `least`.
    pub(crate) fn take(&mut self, least: usize) -> Option<Bytes> {
        let out = match self {
            Encoder::Parquet { writer, .. } => writer.inner_mut(),
            Encoder::JsonLines(writer) => writer.get_mut(),
            Encoder::BigQuery(encoder) => return encoder.take(least),
        };
        (!out.is_empty() && out.len() >= least).then(|| std::mem::take(out).into())
    }

    /// The rest of the file. `facts` are what it says of itself, in formats that have a place for it.
    pub(crate) fn finish(self, facts: &[(&'static str, String)]) -> Result<Bytes> {
        match self {
            Encoder::Parquet { mut writer, .. } => {
                for (key, value) in facts {
                    writer.append_key_value_metadata(KeyValue::new((*key).to_owned(), value.clone()));
                }
                Ok(writer.into_inner().map_err(encode)?.into())
            }
            Encoder::JsonLines(mut writer) => {
                writer.finish().map_err(encode)?;
                Ok(writer.into_inner().into())
            }
            Encoder::BigQuery(encoder) => Ok(encoder.finish()),
        }
    }
}

/// The schema with milliseconds for seconds: Parquet has no type for those, and a reader would see numbers.
fn in_parquet(schema: &SchemaRef) -> SchemaRef {
    fn field(of: &FieldRef) -> FieldRef {
        let data_type = data_type(of.data_type());
        if data_type == *of.data_type() {
            return of.clone();
        }
        Arc::new(of.as_ref().clone().with_data_type(data_type))
    }
    fn data_type(of: &DataType) -> DataType {
        match of {
            DataType::Timestamp(TimeUnit::Second, zone) => {
                DataType::Timestamp(TimeUnit::Millisecond, zone.clone())
            }
            DataType::Time32(TimeUnit::Second) => DataType::Time32(TimeUnit::Millisecond),
            DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
            DataType::List(item) => DataType::List(field(item)),
            DataType::LargeList(item) => DataType::LargeList(field(item)),
            DataType::FixedSizeList(item, size) => DataType::FixedSizeList(field(item), *size),
            DataType::Map(entries, sorted) => DataType::Map(field(entries), *sorted),
            other => other.clone(),
        }
    }
    let fields: Fields = schema.fields().iter().map(field).collect();
    if fields == *schema.fields() {
        return schema.clone();
    }
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The rows with the types of `schema`. Never a null for a value that does not fit.
fn converted<'a>(
    rows: &'a RecordBatch,
    schema: &SchemaRef,
) -> std::result::Result<Cow<'a, RecordBatch>, ArrowError> {
    if rows.schema_ref().fields() == schema.fields() {
        return Ok(Cow::Borrowed(rows));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let columns = rows.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| cast_with_options(column, field.data_type(), &options));
    Ok(Cow::Owned(RecordBatch::try_new(schema.clone(), columns.collect::<std::result::Result<_, _>>()?)?))
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoder({} bytes buffered)", self.buffered())
    }
}

fn encode(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Encode, "rows cannot be written in the file format").with_source(e)
}
