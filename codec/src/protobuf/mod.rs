//! Protobuf in the Schema Registry's wire format, or bare, to Arrow columns of one message.

mod columns;
mod conflict;
mod decimal;
mod encode;
mod json;
mod numbers;
mod row;
mod scalar;
mod schema;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{Schema as ArrowSchema, SchemaRef};
use prost_reflect::MessageDescriptor;

use crate::decoded::{Cause, Decoded, Fault, Sorting};
use crate::error::{Error, ErrorKind, Result};
use crate::framing::{self, SchemaId, Value};
use crate::raw::too_large;
use columns::Message;
use conflict::conflict;
pub use encode::ProtobufEncoder;
use schema::Schema;
pub use schema::{inline_protobuf_imports, protobuf_imports};

/// How deep a message may be nested in others, by the indexes in front of a record.
const MAX_INDEXES: u64 = 128;

/// How a [`ProtobufDecoder`] reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProtobufOptions {
    /// The message that records are, by its full name or the one it has in the schema. Without it the only one
    /// of the schema.
    pub message: Option<String>,
    /// Values are messages and nothing in front: no schema id, no message indexes. By default they have both, as the Schema
    /// Registry's serialisers write them.
    pub bare: bool,
    /// A message that contains itself becomes a text of JSON where it does. By default it is refused.
    pub recursive_as_json: bool,
}

/// Decodes Protobuf messages to Arrow columns, one a field, straight from the wire.
///
/// Fields are known by their numbers, and the columns' schema reads them, as everywhere in Protobuf: what a newer writer has more
/// is left out, what an older one had not is absent. A record's own schema says which message it is; and a change that
/// the wire format does not bear, such as a number that has another type now, makes its records undecodable with
/// [`Cause::IncompatibleSchema`] instead of becoming other values.
///
/// | Protobuf | Arrow |
/// |---|---|
/// | `int32` `sint32` `sfixed32`, `int64` .. | `Int32`, `Int64` |
/// | `uint32` `fixed32`, `uint64` `fixed64` | `UInt32`, `UInt64` |
/// | `float`, `double`, `bool`, `string`, `bytes` | `Float32`, `Float64`, `Boolean`, `Utf8`, `Binary` |
/// | an enum | `Utf8`, its name; the number where the schema has no name for it |
/// | a message | `Struct` |
/// | `repeated` | `List` of items that are never null |
/// | `map` | `Map` from `Utf8`: numbers as text, as in Protobuf's JSON |
/// | `google.protobuf.Timestamp` | `Timestamp(us, UTC)`; digits below are dropped |
/// | `google.type.Date`, `google.type.TimeOfDay` | `Date32`, `Time64(us)` |
/// | `confluent.type.Decimal` whose field says its scale, in `(confluent.field_meta).params` | `Decimal128`; no digit is left out |
/// | `google.protobuf.Int64Value` and so on | nullable `Int64` and so on |
/// | `google.protobuf.Struct`, `Value`, `ListValue`, a message without fields | `Utf8`: JSON |
///
/// Nullable is what may be told apart from its default: `optional`, a member of a `oneof`, a message. All else has a default
/// where a record has none: 0, the empty text, the empty list. Of a `oneof` each member has a column of its own. What is
/// `required` has to be there. A default that a writer does not write is not told apart from what is not there: where the columns'
/// schema has made a field `optional`, the 0 of an older writer is null.
#[derive(Debug)]
pub struct ProtobufDecoder {
    reader: MessageDescriptor,
    schema: SchemaRef,
    columns: Message,
    bare: bool,
    writers: BTreeMap<SchemaId, Result<Writer, String>>,
}

#[derive(Debug)]
struct Writer {
    schema: Schema,
    /// What is in front of records that are the reader's message, if it can mean no other.
    indexes: Option<Vec<i64>>,
}

impl ProtobufDecoder {
    /// A decoder whose columns are the fields of a message of `schema`: a `.proto` file as text, without imports that do not
    /// come with Protobuf, or what [`inline_protobuf_imports`] makes of one with imports.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidSchema`] if the text is not a schema or does not have the message,
    /// [`ErrorKind::UnsupportedType`] if a field has no column. Both name what is at fault.
    pub fn new(schema: &str, options: &ProtobufOptions) -> Result<Self> {
        let reader = Schema::parse(schema)?.message(options.message.as_deref())?;
        let columns = Message::new(&reader, options.recursive_as_json)?;
        let fields = columns.fields();
        if fields.is_empty() {
            let text = format!("the message `{}` has no fields to make columns of", reader.full_name());
            return Err(Error::new(ErrorKind::InvalidSchema, text));
        }
        let schema = Arc::new(ArrowSchema::new(fields));
        Ok(Self { reader, schema, columns, bare: options.bare, writers: BTreeMap::new() })
    }

    /// The Arrow schema of every batch this decoder makes, whatever the writer schemas are.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Gives the decoder the writer schema with this id, as [`new`](Self::new) takes them. The same id again changes nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidSchema`] or [`ErrorKind::IncompatibleSchema`] if it does not have the message, or has it with a
    /// change that cannot be read. The id then counts as known: its records come back undecodable with
    /// [`Cause::IncompatibleSchema`].
    pub fn add_writer_schema(&mut self, id: impl Into<SchemaId>, schema: &str) -> Result<()> {
        let id = id.into();
        if self.writers.contains_key(&id) {
            return Ok(());
        }
        let made = Schema::parse(schema).and_then(|schema| {
            let name = self.reader.full_name();
            let incompatible = |text| Error::new(ErrorKind::IncompatibleSchema, text);
            let message =
                schema.named(name).ok_or_else(|| incompatible(format!("it has no message `{name}`")))?;
            if let Some(conflict) = conflict(&self.reader, &message) {
                return Err(incompatible(conflict));
            }
            let indexes = schema.indexes(&message).ok_or_else(|| {
                incompatible(format!("the message `{name}` is of an import, which records cannot name"))
            })?;
            // Where serialisers do not agree what they mean, they are looked at each time.
            let indexes = (schema.indexed(&indexes).len() == 1).then_some(indexes);
            Ok(Writer { schema, indexes })
        });
        let made = made.map_err(|e| {
            let message = format!("writer schema {id}: {e}");
            (message.clone(), Error::new(e.kind(), message).with_source(e))
        });
        match made {
            Ok(writer) => {
                self.writers.insert(id, Ok(writer));
                Ok(())
            }
            Err((message, error)) => {
                self.writers.insert(id, Err(message));
                Err(error)
            }
        }
    }

    /// The ids of writer schemas that these values need and the decoder does not have, ascending.
    pub fn missing_schemas<'a, V: Into<Value<'a>>>(
        &self,
        values: impl IntoIterator<Item = Option<V>>,
    ) -> Vec<SchemaId> {
        match self.bare {
            true => Vec::new(),
            false => framing::unknown_ids(values, |id| self.writers.contains_key(&id)),
        }
    }

    /// Decodes rows of (tag, value). No row costs another; see [`Decoded`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`] if the columns could grow beyond 2 GiB.
    pub fn decode<'a, V: Into<Value<'a>>>(
        &mut self,
        rows: impl IntoIterator<Item = (u64, Option<V>)>,
    ) -> Result<Decoded> {
        let mut sorting = Sorting::default();
        let mut total = 0u64;
        for (tag, value) in rows {
            let body = match self.message(value.map(Into::into)) {
                Ok(body) => body,
                Err(fault) => {
                    sorting.refuse(tag, fault);
                    continue;
                }
            };
            let before = total;
            match self.columns.row(body, &mut total) {
                Ok(()) => sorting.accept(tag),
                // With fewer rows before it, it may fit.
                Err(bad) if bad.is_too_large() && before > 0 => {
                    drop(self.columns.finish());
                    return Err(too_large());
                }
                Err(bad) => sorting.refuse(tag, bad.fault(self.reader.full_name())),
            }
        }
        let rows = RecordBatchOptions::new().with_row_count(Some(sorting.accepted()));
        let batch = self.columns.finish();
        let batch =
            batch.and_then(|columns| RecordBatch::try_new_with_options(self.schema.clone(), columns, &rows));
        let batch = batch.map_err(|e| {
            Error::new(ErrorKind::Internal, "the columns do not fit their schema").with_source(e)
        })?;
        Ok(sorting.finish(batch))
    }

    /// The bytes of a value that are the reader's message.
    fn message<'a>(&self, value: Option<Value<'a>>) -> Result<&'a [u8], Fault> {
        if self.bare {
            let value = framing::there(value)?.bytes;
            // No field has the number 0, so that no message begins so.
            if value.first() == Some(&0) {
                let text = "the value begins with the Schema Registry's prefix, and without a registry values are bare messages";
                return Err(Fault::new(Cause::Malformed, text));
            }
            return Ok(value);
        }
        let mut framed = framing::split(value)?;
        let id = framed.id;
        let writer = match self.writers.get(&id) {
            Some(Ok(writer)) => writer,
            Some(Err(message)) => return Err(Fault::new(Cause::IncompatibleSchema, message.clone())),
            None => return Err(framing::unknown_schema(id)),
        };
        let indexes = framed.behind(indexes)?;
        let body = framed.body;
        if writer.indexes.as_ref().is_some_and(|own| *own == indexes) {
            return Ok(body);
        }
        let meant = writer.schema.indexed(&indexes);
        let name = self.reader.full_name();
        if meant.len() == 1 && meant[0].full_name() == name {
            return Ok(body);
        }
        let other = match meant.as_slice() {
            [] => format!("a message that writer schema {id} does not have"),
            several => {
                several.iter().map(|m| format!("`{}`", m.full_name())).collect::<Vec<_>>().join(" or ")
            }
        };
        Err(Fault::new(Cause::Mismatch, format!("the record is {other}, and the columns are of `{name}`")))
    }
}

/// Which message of the schema a record is: a path of indexes, in varints with the sign in the lowest bit, their number
/// first; 0 alone is the first message.
fn indexes(at: &mut &[u8]) -> Result<Vec<i64>, Fault> {
    let malformed = |what: &str| {
        Fault::new(Cause::Malformed, format!("the message indexes behind the schema id are broken: {what}"))
    };
    let mut next = || wire::varint(at).map(wire::zigzag).map_err(malformed);
    match next()? {
        0 => Ok(vec![0]),
        count if u64::try_from(count).is_ok_and(|count| count <= MAX_INDEXES) => {
            (0..count).map(|_| next()).collect()
        }
        _ => Err(malformed("their number is not one that a serialiser writes")),
    }
}

/// What comments in a schema say of a message (the empty path) and of the fields that columns are made of, by dotted path.
///
/// # Errors
///
/// As for [`ProtobufDecoder::new`].
pub fn protobuf_descriptions(schema: &str, message: Option<&str>) -> Result<BTreeMap<String, String>> {
    let schema = Schema::parse(schema)?;
    let message = schema.message(message)?;
    // Bounds what there is to describe.
    Message::new(&message, true)?;
    Ok(schema.comments().of(&message))
}
