//! Rows on their way to a stream: messages of Arrow's IPC format, or of protobuf, the schema first, each with the number of its rows.

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, SchemaRef};
use arrow_select::filter::filter_record_batch;
use bytes::{Buf, Bytes};
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::ProtoRows;
use prost::Message as _;

use super::protobuf::{Columns, delimited, descriptor};
use super::types::{changes_schema_for, rows_for, schema_for};
use crate::error::{Error, ErrorKind, Result};

/// A request is below 10 MB, with what is around the rows.
pub(super) const MAX_MESSAGE: usize = 9 << 20;
/// Before each message: its rows and its bytes.
const HEAD: usize = 8;

/// What rows are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `ArrowRecordBatch`, and the schema.
    Arrow,
    /// `ProtoRows`, and a `DescriptorProto`: rows that say what [they do to the table](super::CHANGE_TYPE).
    Changes,
}

/// Makes messages of rows.
pub(crate) struct RowsEncoder {
    schema: SchemaRef,
    writer: Writer,
    out: Vec<u8>,
    taken: u64,
}

enum Writer {
    Arrow(Box<StreamWriter<Vec<u8>>>),
    /// The message as far as it is written.
    Protobuf(Vec<u8>),
}

impl RowsEncoder {
    pub(crate) fn new(schema: &SchemaRef, form: Form) -> Result<Self> {
        let taken = match form {
            Form::Arrow => schema_for(schema),
            Form::Changes => changes_schema_for(schema),
        };
        let schema = taken.map_err(|mistakes| {
            Error::new(ErrorKind::InvalidConfig, format!("rows do not fit BigQuery: {}", mistakes.join("; ")))
        })?;
        let writer = match form {
            Form::Arrow => {
                Writer::Arrow(Box::new(StreamWriter::try_new(Vec::new(), &schema).map_err(encode)?))
            }
            Form::Changes => {
                let fields = schema.fields().iter().map(AsRef::as_ref);
                Writer::Protobuf(descriptor("Row", fields).map_err(encode)?.encode_to_vec())
            }
        };
        let mut encoder = RowsEncoder { schema, writer, out: Vec::new(), taken: 0 };
        encoder.frame(0);
        Ok(encoder)
    }

    /// The bytes of the rows in one message.
    pub(super) fn size_of(&mut self, rows: &RecordBatch) -> Result<usize> {
        let rows = rows_for(rows, &self.schema).map_err(encode)?;
        let mut size = 0;
        match &mut self.writer {
            Writer::Arrow(writer) => {
                writer.write(&rows).map_err(encode)?;
                size = writer.get_ref().len();
                writer.get_mut().clear();
            }
            Writer::Protobuf(message) => {
                let columns = Columns::of(&rows).map_err(encode)?;
                for row in 0..rows.num_rows() {
                    delimited(1, message, |out| columns.put(row, out)).map_err(encode)?;
                    size += message.len();
                    message.clear();
                }
            }
        }
        Ok(size)
    }

    pub(crate) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        let rows = rows_for(rows, &self.schema).map_err(encode)?;
        self.add(&rows)
    }

    fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let too_large = || {
            let text = "a row has more than the 9 MiB that one request to BigQuery may have";
            Error::new(ErrorKind::Encode, text)
        };
        match &mut self.writer {
            Writer::Arrow(writer) => {
                writer.write(rows).map_err(encode)?;
                if writer.get_ref().len() <= MAX_MESSAGE {
                    self.frame(rows.num_rows() as u32);
                    return Ok(());
                }
                writer.get_mut().clear();
                if rows.num_rows() == 1 {
                    return Err(too_large());
                }
                let half = rows.num_rows() / 2;
                self.add(&rows.slice(0, half))?;
                self.add(&rows.slice(half, rows.num_rows() - half))
            }
            Writer::Protobuf(_) => {
                let columns = Columns::of(rows).map_err(encode)?;
                let (mut row_bytes, mut gathered) = (Vec::new(), 0);
                for row in 0..rows.num_rows() {
                    row_bytes.clear();
                    delimited(1, &mut row_bytes, |out| columns.put(row, out)).map_err(encode)?;
                    if row_bytes.len() > MAX_MESSAGE {
                        return Err(too_large());
                    }
                    if self.message().len() + row_bytes.len() > MAX_MESSAGE {
                        self.frame(std::mem::take(&mut gathered));
                    }
                    self.message().extend_from_slice(&row_bytes);
                    gathered += 1;
                }
                self.frame(gathered);
                Ok(())
            }
        }
    }

    fn message(&mut self) -> &mut Vec<u8> {
        match &mut self.writer {
            Writer::Arrow(writer) => writer.get_mut(),
            Writer::Protobuf(message) => message,
        }
    }

    /// Takes the message that was written last.
    fn frame(&mut self, rows: u32) {
        let message = match &mut self.writer {
            Writer::Arrow(writer) => writer.get_mut(),
            Writer::Protobuf(message) => message,
        };
        self.out.extend(rows.to_le_bytes());
        self.out.extend((message.len() as u32).to_le_bytes());
        self.out.append(message);
    }

    pub(crate) fn buffered(&self) -> usize {
        self.out.len()
    }

    pub(crate) fn size(&self) -> u64 {
        self.taken + self.out.len() as u64
    }

    pub(crate) fn take(&mut self, least: usize) -> Option<Bytes> {
        let enough = !self.out.is_empty() && self.out.len() >= least;
        enough.then(|| {
            self.taken += self.out.len() as u64;
            std::mem::take(&mut self.out).into()
        })
    }

    pub(crate) fn finish(self) -> Bytes {
        self.out.into()
    }
}

/// A message: how many rows it has, none if it is the schema.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) rows: u32,
    pub(super) bytes: Bytes,
}

/// The messages of whole frames.
///
/// # Errors
/// `Usage`: it is not what [`RowsEncoder`] makes.
pub(super) fn messages(mut frames: Bytes) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    while !frames.is_empty() {
        if frames.len() < HEAD {
            return Err(broken());
        }
        let (rows, len) = (frames.get_u32_le(), frames.get_u32_le() as usize);
        if frames.len() < len {
            return Err(broken());
        }
        messages.push(Message { rows, bytes: frames.split_to(len) });
    }
    Ok(messages)
}

/// The message with those of its rows alone that stay.
pub(super) fn without(form: Form, schema: &Bytes, message: &Message, stays: &[bool]) -> Result<Message> {
    if form == Form::Changes {
        let mut rows = ProtoRows::decode(message.bytes.clone()).map_err(|_| broken())?;
        let mut stays = stays.iter();
        rows.serialized_rows.retain(|_| stays.next().copied().unwrap_or(true));
        let count = rows.serialized_rows.len() as u32;
        return Ok(Message { rows: count, bytes: rows.encode_to_vec().into() });
    }
    let stream = schema.clone().chain(message.bytes.clone());
    let mut reader = StreamReader::try_new(stream.reader(), None).map_err(encode)?;
    let Some(rows) = reader.next() else { return Err(broken()) };
    let rows = filter_record_batch(&rows.map_err(encode)?, &stays.to_vec().into()).map_err(encode)?;
    let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref()).map_err(encode)?;
    writer.get_mut().clear();
    writer.write(&rows).map_err(encode)?;
    Ok(Message { rows: rows.num_rows() as u32, bytes: std::mem::take(writer.get_mut()).into() })
}

fn broken() -> Error {
    Error::new(ErrorKind::Usage, "a BigQuery stream takes the rows of the format BigQuery alone")
}

fn encode(e: ArrowError) -> Error {
    Error::new(ErrorKind::Encode, format!("rows do not fit the types of BigQuery: {e}"))
}
