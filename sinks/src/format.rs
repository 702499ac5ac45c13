use std::fmt;

use arrow_array::RecordBatch;
use arrow_json::LineDelimitedWriter;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::error::{Error, ErrorKind, Result};

/// The format of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Apache Parquet, compressed with zstd. Extension `parquet`.
    Parquet(ParquetOptions),
    /// One JSON object a line; a null field is left out. Extension `jsonl`.
    JsonLines,
}

impl Format {
    /// The file extension.
    pub fn extension(&self) -> &'static str {
        match self {
            Format::Parquet(_) => "parquet",
            Format::JsonLines => "jsonl",
        }
    }
}

/// How Parquet files are written.
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
    Parquet(Box<ArrowWriter<Vec<u8>>>),
    JsonLines(LineDelimitedWriter<Vec<u8>>),
}

impl Encoder {
    pub(crate) fn new(format: &Format, schema: SchemaRef) -> Result<Self> {
        match format {
            Format::JsonLines => Ok(Encoder::JsonLines(LineDelimitedWriter::new(Vec::new()))),
            Format::Parquet(options) => {
                let level = ZstdLevel::try_new(options.zstd_level).map_err(encode)?;
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(level))
                    .set_max_row_group_bytes(Some(options.row_group_bytes))
                    .set_created_by(concat!("gristmill ", env!("CARGO_PKG_VERSION")).to_owned())
                    .build();
                let writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).map_err(encode)?;
                Ok(Encoder::Parquet(Box::new(writer)))
            }
        }
    }

    pub(crate) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        match self {
            Encoder::Parquet(writer) => writer.write(rows).map_err(encode),
            Encoder::JsonLines(writer) => writer.write(rows).map_err(encode),
        }
    }

    /// Bytes that wait inside: in an open row group, or encoded and not taken yet.
    pub(crate) fn buffered(&self) -> usize {
        match self {
            Encoder::Parquet(writer) => writer.memory_size() + writer.inner().len(),
            Encoder::JsonLines(writer) => writer.get_ref().len(),
        }
    }

    /// About how many bytes the file would have if it were closed now.
    pub(crate) fn size(&self, taken: u64) -> u64 {
        match self {
            Encoder::Parquet(writer) => (writer.bytes_written() + writer.in_progress_size()) as u64,
            Encoder::JsonLines(writer) => taken + writer.get_ref().len() as u64,
        }
    }

    /// Closes the open row group, so that all its memory can be taken out.
    pub(crate) fn flush(&mut self) -> Result<()> {
        match self {
            Encoder::Parquet(writer) => writer.flush().map_err(encode),
            Encoder::JsonLines(_) => Ok(()),
        }
    }

    /// The encoded bytes so far, if they are at least `least`.
    pub(crate) fn take(&mut self, least: usize) -> Option<Bytes> {
        let out = match self {
            Encoder::Parquet(writer) => writer.inner_mut(),
            Encoder::JsonLines(writer) => writer.get_mut(),
        };
        (!out.is_empty() && out.len() >= least).then(|| std::mem::take(out).into())
    }

    /// The rest of the file.
    pub(crate) fn finish(self) -> Result<Bytes> {
        match self {
            Encoder::Parquet(writer) => Ok(writer.into_inner().map_err(encode)?.into()),
            Encoder::JsonLines(mut writer) => {
                writer.finish().map_err(encode)?;
                Ok(writer.into_inner().into())
            }
        }
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoder({} bytes buffered)", self.buffered())
    }
}

fn encode(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Encode, "rows cannot be written in the file format").with_source(e)
}
