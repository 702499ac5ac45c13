//! Avro in the Schema Registry's wire format to Arrow columns of one reader schema.

mod datum;
mod descriptions;
mod from_json;
mod json;
mod places;
mod schema;
mod text;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_avro::reader::{Decoder as ArrowAvro, DecoderMode, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow_select::interleave::interleave_record_batch;
use serde_json::Value as Json;

use crate::decoded::{Cause, Decoded, Fault, Sorting, isolate, remove_rows};
use crate::error::{Error, ErrorKind, Result};
use crate::field_spec::json_field;
use crate::framing::{self, SchemaId, Value};
use crate::raw::check_total;
use places::{Instead, Place};
use schema::{AvroSchemaGraph, Node, NodeId};
use text::{Replaced, Text};

/// How an [`AvroDecoder`] reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AvroOptions {
    /// A record that contains itself becomes a text of JSON where it does, and so does a union of several types. By default they are
    /// refused.
    pub recursive_as_json: bool,
}

/// Decodes Avro records that carry their writer schema's id (0x00, then four bytes, big-endian: the
/// [wire format] of the Schema Registry; or a GUID, or either in a header, see [`SchemaId`] and [`Value`]) to Arrow columns of
/// one reader schema.
///
/// Writer schemas are given by id with [`add_writer_schema`](Self::add_writer_schema);
/// [`missing_schemas`](Self::missing_schemas) says which ids a batch needs. Records of several writer
/// schemas may be mixed in one batch: all are resolved to the reader schema by Avro's rules (defaults,
/// aliases, promotions), and the order of the rows is kept.
///
/// | Avro | Arrow |
/// |---|---|
/// | `decimal` | `Decimal128`, from 39 digits `Decimal256` |
/// | `date`, `time-millis`, `time-micros` | `Date32`, `Time32(ms)`, `Time64(us)` |
/// | `timestamp-millis`, `-micros`, `-nanos` | `Timestamp(unit, UTC)` |
/// | `local-timestamp-*` | `Timestamp(unit)` without a zone |
/// | `io.debezium.time.Date`, `Time`, `MicroTime`, as Kafka Connect names them | as `date`, `time-millis`, `time-micros` |
/// | `io.debezium.time.Timestamp`, `MicroTimestamp`, `NanoTimestamp` | as `local-timestamp-*` |
/// | `enum`, `uuid` | `Utf8` |
/// | `fixed`, `duration` | `FixedSizeBinary` |
/// | `[null, T]` | nullable T |
/// | record, array, map | `Struct`, `List`, `Map` |
///
/// A union of several types besides null, and a record that contains itself, have no column. As part of a writer schema that the
/// reader schema leaves out they are read over. In a reader schema they are refused, or, as [`AvroOptions`] say, they become
/// texts of JSON, `Utf8` with the extension type `arrow.json`: what the writer wrote, without the reader's defaults inside. A value of
/// such a union is an object with one member, which has the name of its type, as in Avro's JSON encoding: `{"long": 5}`,
/// `{"shop.Card": {"number": "1"}}`. Bytes are base64, decimals texts, dates and times as ISO 8601 writes them, and numbers that JSON
/// does not have `"NaN"`, `"Infinity"`, `"-Infinity"`.
///
/// [wire format]: https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
#[derive(Debug)]
pub struct AvroDecoder {
    reader: AvroSchemaGraph,
    /// What has no column in it, and becomes JSON.
    json: BTreeSet<Place>,
    /// The reader schema with strings there.
    text: Text,
    schema: SchemaRef,
    writers: BTreeMap<SchemaId, Result<Writer, String>>,
}

#[derive(Debug)]
struct Writer {
    graph: AvroSchemaGraph,
    /// Where arrow-avro is given something else than was written.
    instead: BTreeMap<Place, Instead>,
    /// The schema of what it is given.
    text: String,
    /// Kept between batches; gone after an error, which leaves half a row in it.
    decoder: Option<ArrowAvro>,
}

/// One datum without its prefix, and where it stands among the accepted rows.
struct Datum<'a> {
    index: usize,
    body: Cow<'a, [u8]>,
}

impl AvroDecoder {
    /// A decoder whose columns are the fields of `reader_schema`, an Avro record schema as JSON without
    /// references to other schemas; see [`inline_avro_references`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidSchema`] if the text is not an Avro record schema,
    /// [`ErrorKind::UnsupportedType`] if a field has no Arrow column; both name the field. `UnsupportedType` too for a schema that
    /// has more than 4 MiB, or nests too deep, with each type where it is used.
    pub fn new(reader_schema: &str) -> Result<Self> {
        Self::with_options(reader_schema, &AvroOptions::default())
    }

    /// As [`new`](Self::new), with options.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new).
    pub fn with_options(reader_schema: &str, options: &AvroOptions) -> Result<Self> {
        let reader = AvroSchemaGraph::parse(reader_schema, [])?;
        if !matches!(reader.nodes[reader.root as usize], Node::Record(_)) {
            return Err(Error::new(
                ErrorKind::InvalidSchema,
                "the reader schema is not a record, so it has no fields to make columns of",
            ));
        }
        let misfits = places::misfits(&reader);
        if let Some(misfit) = misfits.first().filter(|_| !options.recursive_as_json) {
            return Err(misfit.error());
        }
        let json: BTreeSet<Place> = misfits.into_iter().map(|misfit| misfit.place).collect();
        let text = text::of_reader(&reader, |place| json.contains(place).then_some(Replaced::Text))?;
        let decoder = arrow_avro(&text.text, &text.text).map_err(|e| {
            Error::new(ErrorKind::UnsupportedType, "the reader schema has a type without an Arrow column")
                .with_source(e)
        })?;
        let fields = plain_fields(decoder.schema().fields());
        let schema = Arc::new(Schema::new(with_json(&fields, &reader, &json, reader.root)));
        Ok(Self { reader, json, text, schema, writers: BTreeMap::new() })
    }

    /// The Arrow schema of every batch this decoder makes, whatever the writer schemas are.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Gives the decoder the writer schema with this id. The same id again changes nothing, since what
    /// an id means never changes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidSchema`] or [`ErrorKind::IncompatibleSchema`] if the reader schema cannot
    /// read what this one writes; [`ErrorKind::UnsupportedType`] if it is too large, as in [`new`](Self::new). The id then counts as known: its records come back undecodable with
    /// [`Cause::IncompatibleSchema`], and the caller decides whether to go on or to stop.
    pub fn add_writer_schema(&mut self, id: impl Into<SchemaId>, schema: &str) -> Result<()> {
        let id = id.into();
        if self.writers.contains_key(&id) {
            return Ok(());
        }
        let made = AvroSchemaGraph::parse(schema, []).and_then(|graph| {
            let instead = places::of_writer(&graph, &self.reader, &self.json)?;
            let text = text::of_writer(&graph, |place| {
                Some(match instead.get(place)? {
                    Instead::Json(_) => Replaced::Text,
                    Instead::Nothing => Replaced::Null,
                })
            })?;
            let decoder = arrow_avro(&text, &self.text.text).map_err(|e| {
                let field = culprit(&text, &self.text.text);
                let field = field.map(|name| format!("field `{name}`: ")).unwrap_or_default();
                Error::new(
                    ErrorKind::IncompatibleSchema,
                    format!("it cannot be read with the reader schema: {field}{e}"),
                )
            })?;
            // Arrow's types decide in the end: a column must have one type for every writer.
            self.conform(RecordBatch::new_empty(decoder.schema())).ok_or_else(|| {
                Error::new(
                    ErrorKind::IncompatibleSchema,
                    "its columns have other types than those of the reader schema",
                )
            })?;
            Ok(Writer { graph, instead, text, decoder: Some(decoder) })
        });
        match made {
            Ok(writer) => {
                self.writers.insert(id, Ok(writer));
                Ok(())
            }
            Err(e) => {
                let message = format!("writer schema {id}: {e}");
                self.writers.insert(id, Err(message.clone()));
                Err(Error::new(e.kind(), message).with_source(e))
            }
        }
    }

    /// The ids of writer schemas that these values need and the decoder does not have, ascending.
    pub fn missing_schemas<'a, V: Into<Value<'a>>>(
        &self,
        values: impl IntoIterator<Item = Option<V>>,
    ) -> Vec<SchemaId> {
        framing::unknown_ids(values, |id| self.writers.contains_key(&id))
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
        let mut groups: BTreeMap<SchemaId, Vec<Datum<'a>>> = BTreeMap::new();
        let mut accepted = 0;
        let mut total = 0u64;
        for (tag, value) in rows {
            match self.datum(value.map(Into::into)) {
                Err(fault) => sorting.refuse(tag, fault),
                Ok((id, body, items)) => {
                    let grown = (items + 1).saturating_mul(self.text.weight);
                    let own = grown.saturating_add(body.len() as u64);
                    if check_total(own).is_err() {
                        let what = "its columns might have more than 2 GiB: it has many items, and the schema long defaults or symbols";
                        sorting.refuse(tag, Fault::new(Cause::Mismatch, what));
                        continue;
                    }
                    total = total.saturating_add(own);
                    check_total(total)?;
                    sorting.accept(tag);
                    groups.entry(id).or_default().push(Datum { index: accepted, body });
                    accepted += 1;
                }
            }
        }

        let mut batches = Vec::with_capacity(groups.len());
        // Per accepted row: its batch and its row there, or nothing if it was withdrawn.
        let mut places: Vec<Option<(usize, usize)>> = vec![None; accepted];
        let mut faults: Vec<(usize, Fault)> = Vec::new();
        for (id, mut data) in groups {
            let batch = match self.columns(id, &data) {
                Ok(batch) => batch,
                Err(_) => {
                    let mut withdraw = |data: &mut Vec<Datum<'a>>, refused: Vec<(usize, String)>| {
                        let bad: Vec<usize> = refused.iter().map(|(i, _)| *i).collect();
                        for (i, message) in refused {
                            faults.push((data[i].index, resolution_fault(id, message)));
                        }
                        remove_rows(data, &bad);
                    };
                    let refused = self.refused(id, &data);
                    withdraw(&mut data, refused);
                    if self.columns(id, &data).is_err() {
                        // What shows only when columns are finished.
                        let bad = isolate(data.len(), |range| self.columns(id, &data[range]).is_ok());
                        let refused = bad
                            .into_iter()
                            .map(|i| (i, self.columns(id, &data[i..=i]).err().unwrap_or_default()))
                            .collect();
                        withdraw(&mut data, refused);
                    }
                    self.columns(id, &data).map_err(|message| {
                        Error::new(
                            ErrorKind::Internal,
                            format!("rows of writer schema {id} that fit one by one do not fit together: {message}"),
                        )
                    })?
                }
            };
            for (row, datum) in data.iter().enumerate() {
                places[datum.index] = Some((batches.len(), row));
            }
            batches.push(batch);
        }
        faults.sort_by_key(|(index, _)| *index);
        sorting.withdraw(faults);

        let batch = match batches.as_slice() {
            [] => RecordBatch::new_empty(self.schema.clone()),
            [batch] => batch.clone(),
            several => {
                let several: Vec<&RecordBatch> = several.iter().collect();
                let order: Vec<(usize, usize)> = places.into_iter().flatten().collect();
                interleave_record_batch(&several, &order).map_err(|e| {
                    Error::new(ErrorKind::Internal, "the columns of several writer schemas cannot be joined")
                        .with_source(e)
                })?
            }
        };
        Ok(sorting.finish(batch))
    }

    /// Schema id, body, and number of array and map items of a value that is one whole datum.
    fn datum<'a>(&self, value: Option<Value<'a>>) -> Result<(SchemaId, Cow<'a, [u8]>, u64), Fault> {
        let framing::Framed { id, body, .. } = framing::split(value)?;
        let writer = match self.writers.get(&id) {
            Some(Ok(writer)) => writer,
            Some(Err(message)) => return Err(Fault::new(Cause::IncompatibleSchema, message.clone())),
            None => return Err(framing::unknown_schema(id)),
        };
        let items = datum::check(&writer.graph, body).map_err(|fault| {
            Fault::new(Cause::Malformed, format!("not one datum of writer schema {id}: {fault}"))
        })?;
        if writer.instead.is_empty() {
            return Ok((id, body.into(), items));
        }
        let body = json::with_texts(&writer.graph, &writer.instead, body).map_err(|fault| {
            let what = fault.what;
            Fault::new(Cause::Mismatch, format!("a datum of writer schema {id} does not fit JSON: {what}"))
        })?;
        Ok((id, body.into(), items))
    }

    /// All data of one writer as columns of the reader schema, or why not.
    fn columns(&mut self, id: SchemaId, data: &[Datum<'_>]) -> Result<RecordBatch, String> {
        if data.is_empty() {
            return Ok(RecordBatch::new_empty(self.schema.clone()));
        }
        let Some(Ok(writer)) = self.writers.get_mut(&id) else {
            return Err("its schema is gone".into());
        };
        let mut decoder = match writer.decoder.take() {
            Some(decoder) => decoder,
            None => arrow_avro(&writer.text, &self.text.text)?,
        };
        for datum in data {
            let consumed = decoder.decode(&datum.body).map_err(|e| e.to_string())?;
            if consumed != datum.body.len() {
                return Err("it was not read to its end".into());
            }
        }
        let batch = decoder.flush().map_err(|e| e.to_string())?.ok_or("no rows came of it")?;
        writer.decoder = Some(decoder);
        if batch.num_rows() != data.len() {
            return Err("not as many rows came of it".into());
        }
        self.conform(batch).ok_or_else(|| "its values do not fit the columns".into())
    }

    /// The data that arrow-avro refuses one by one, by their index, found in one pass.
    fn refused(&self, id: SchemaId, data: &[Datum<'_>]) -> Vec<(usize, String)> {
        let mut refused = Vec::new();
        let Some(Ok(writer)) = self.writers.get(&id) else { return refused };
        let mut kept = None;
        for (i, datum) in data.iter().enumerate() {
            // After a refusal half a row is left in the decoder, so it is of no more use.
            let Some(mut decoder) = kept.take().or_else(|| arrow_avro(&writer.text, &self.text.text).ok())
            else {
                return refused;
            };
            match decoder.decode(&datum.body) {
                Ok(consumed) if consumed == datum.body.len() => kept = Some(decoder),
                Ok(_) => refused.push((i, "it was not read to its end".into())),
                Err(e) => refused.push((i, e.to_string())),
            }
        }
        refused
    }

    /// The same rows under exactly the schema that this decoder promises.
    fn conform(&self, batch: RecordBatch) -> Option<RecordBatch> {
        if batch.num_columns() != self.schema.fields().len() {
            return None;
        }
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let columns: Option<Vec<ArrayRef>> = batch
            .columns()
            .iter()
            .zip(self.schema.fields())
            .map(|(column, field)| {
                if column.data_type() == field.data_type() {
                    return Some(column.clone());
                }
                if !same_shape(column.data_type(), field.data_type()) {
                    return None;
                }
                cast_with_options(column, field.data_type(), &options).ok()
            })
            .collect();
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns?, &rows).ok()
    }
}

/// A schema that has types without a column, and how rows with texts of JSON there become its datums.
#[derive(Debug)]
pub(crate) struct Texts {
    graph: AvroSchemaGraph,
    places: BTreeSet<Place>,
    schema: String,
}

impl Texts {
    /// Nothing for a schema whose types all have columns.
    pub(crate) fn of(schema: &str) -> Result<Option<Texts>> {
        let graph = AvroSchemaGraph::parse(schema, [])?;
        let places: BTreeSet<Place> =
            places::misfits(&graph).into_iter().map(|misfit| misfit.place).collect();
        if places.is_empty() {
            return Ok(None);
        }
        let schema = text::of_writer(&graph, |place| places.contains(place).then_some(Replaced::Text))?;
        Ok(Some(Texts { graph, places, schema }))
    }

    /// The schema with strings instead.
    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// Of a datum with texts the datum of the schema itself, or why a text is none of its type.
    pub(crate) fn datum(&self, with_texts: &[u8]) -> Result<Vec<u8>, String> {
        from_json::datum(&self.graph, &self.places, with_texts).map_err(|unfit| unfit.to_string())
    }
}

/// Puts referenced schemas into an Avro schema that refers to them by full name, each at its first use.
///
/// `references` are the schema texts in any order, those that references refer to included. The result is
/// self-contained. Attributes that are not Avro's, and the logical types `uuid` and `duration` are
/// left out.
///
/// # Errors
///
/// [`ErrorKind::InvalidSchema`] if a text is not a schema or a name is defined nowhere.
pub fn inline_avro_references<'a>(
    schema: &str,
    references: impl IntoIterator<Item = &'a str>,
) -> Result<String> {
    Ok(AvroSchemaGraph::parse(schema, references)?.text)
}

/// What a schema says, in `doc`, of itself (the empty path) and of the fields that columns are made of, by dotted path. What is inside
/// of a list has the list's path.
///
/// # Errors
///
/// [`ErrorKind::InvalidSchema`].
pub fn avro_descriptions(schema: &str) -> Result<BTreeMap<String, String>> {
    Ok(descriptions::descriptions(&AvroSchemaGraph::parse(schema, [])?))
}

/// What arrow-avro says about one datum quotes it at times, so only its class is passed on.
fn resolution_fault(id: SchemaId, message: String) -> Fault {
    let lower = message.to_ascii_lowercase();
    let what = if lower.contains("enum") {
        "it has an enum symbol that the reader schema does not have, and no default for it"
    } else if lower.contains("union") || lower.contains("branch") {
        "it has a union branch that the reader schema cannot read"
    } else if lower.contains("null") {
        "it has a null where the reader schema has none"
    } else {
        "it has a value that the reader schema cannot hold"
    };
    Fault::new(
        Cause::Mismatch,
        format!("a datum of writer schema {id} does not fit the reader schema: {what}"),
    )
}

/// A decoder of bare data that one writer schema wrote.
pub(crate) fn arrow_avro(writer: &str, reader: &str) -> Result<ArrowAvro, String> {
    // Which id the store calls it by does not matter: the prefix is read here, not there.
    let fingerprint = Fingerprint::Id(0);
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(fingerprint, AvroSchema::new(writer.to_owned())).map_err(|e| e.to_string())?;
    ReaderBuilder::new()
        .with_writer_schema_store(store)
        .with_reader_schema(AvroSchema::new(reader.to_owned()))
        .with_active_fingerprint(fingerprint)
        .with_decoder_mode(DecoderMode::UnframedDatum)
        .with_batch_size(i32::MAX as usize)
        .build_decoder()
        .map_err(|e| e.to_string())
}

/// The first field that is at fault by itself: arrow-avro does not name it.
fn culprit(writer: &str, reader: &str) -> Option<String> {
    let mut writer: Json = serde_json::from_str(writer).ok()?;
    let mut reader: Json = serde_json::from_str(reader).ok()?;
    let (written, read) = (writer.get_mut("fields")?.take(), reader.get_mut("fields")?.take());
    let alone = |record: &Json, field: &Json| {
        let mut record = record.clone();
        record["fields"] = Json::Array(vec![field.clone()]);
        record.to_string()
    };
    let is_sound = |schema: &str| arrow_avro(schema, schema).is_ok();
    read.as_array()?.iter().find_map(|field| {
        let name = field.get("name")?.as_str()?;
        let other = written.as_array()?.iter().find(|other| other["name"] == name)?;
        let (writer, reader) = (alone(&writer, other), alone(&reader, field));
        // A type may be defined in a field before: then it is not a schema by itself, and proves nothing.
        let at_fault = arrow_avro(&writer, &reader).is_err() && is_sound(&writer) && is_sound(&reader);
        at_fault.then(|| name.to_owned())
    })
}

/// The fields that are promised for those that arrow-avro makes: without metadata and dictionaries, and
/// UTC by name.
fn plain_fields(fields: &Fields) -> Fields {
    fields.iter().map(plain_field).collect()
}

fn plain_field(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Dictionary(_, values) => (**values).clone(),
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some("UTC".into())),
        DataType::List(element) => DataType::List(plain_field(element)),
        DataType::Map(entries, sorted) => DataType::Map(plain_field(entries), *sorted),
        DataType::Struct(fields) => DataType::Struct(plain_fields(fields)),
        other => other.clone(),
    };
    Arc::new(Field::new(field.name(), data_type, field.is_nullable()))
}

/// The columns of a record, those of them marked that are texts of JSON.
fn with_json(fields: &Fields, given: &AvroSchemaGraph, json: &BTreeSet<Place>, record: NodeId) -> Fields {
    let Node::Record(members) = &given.nodes[record as usize] else { return fields.clone() };
    let places = members.iter().enumerate().map(|(i, (_, of))| ((record, i), *of));
    fields.iter().zip(places).map(|(field, place)| marked(field, given, json, place)).collect()
}

fn marked(
    field: &FieldRef,
    given: &AvroSchemaGraph,
    json: &BTreeSet<Place>,
    (place, of): (Place, NodeId),
) -> FieldRef {
    if json.contains(&place) {
        return Arc::new(json_field(field.name(), field.is_nullable()));
    }
    let [of] = places::types(given, of)[..] else { return field.clone() };
    let data_type = match (field.data_type(), &given.nodes[of as usize]) {
        (DataType::List(element), Node::Array(item)) => {
            DataType::List(marked(element, given, json, ((of, 0), *item)))
        }
        (DataType::Map(entries, sorted), Node::Map(item)) => match entries.data_type() {
            DataType::Struct(entry) if entry.len() == 2 => {
                let value = marked(&entry[1], given, json, ((of, 0), *item));
                let entry = DataType::Struct([entry[0].clone(), value].into_iter().collect());
                DataType::Map(Arc::new(entries.as_ref().clone().with_data_type(entry)), *sorted)
            }
            _ => return field.clone(),
        },
        (DataType::Struct(members), Node::Record(_)) => DataType::Struct(with_json(members, given, json, of)),
        _ => return field.clone(),
    };
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}

/// Whether two types differ in nothing but what [`plain_field`] and [`with_json`] changes and nullability, so that a cast
/// between them can lose nothing.
fn same_shape(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Dictionary(_, values), to) => **values == *to,
        (DataType::Timestamp(a, Some(_)), DataType::Timestamp(b, Some(_))) => a == b,
        (DataType::List(a), DataType::List(b)) | (DataType::Map(a, _), DataType::Map(b, _)) => {
            same_shape(a.data_type(), b.data_type())
        }
        (DataType::Struct(a), DataType::Struct(b)) => {
            a.len() == b.len()
                && a.iter()
                    .zip(b)
                    .all(|(a, b)| a.name() == b.name() && same_shape(a.data_type(), b.data_type()))
        }
        (a, b) => a == b,
    }
}
