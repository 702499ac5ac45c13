//! Messages to Arrow columns, straight from the wire.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, ListArray, MapArray, PrimitiveArray,
    StringArray, StructArray,
};
use arrow_buffer::{BooleanBufferBuilder, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields, TimeUnit};
use prost::Message as _;
use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

use super::schema::{MAX_DEPTH, is_json, joined, wrapped};
use super::wire::{self, Wire};
use crate::decoded::{Cause, Fault};
use crate::error::{Error, ErrorKind, Result, at_field};
use crate::field_spec::json_field;

/// Why a message does not become a row: where, by dotted path, and what.
#[derive(Debug)]
pub(super) struct Bad {
    path: String,
    cause: Cause,
    what: String,
    too_large: bool,
}

impl Bad {
    fn malformed(what: impl Into<String>) -> Bad {
        Bad { path: String::new(), cause: Cause::Malformed, what: what.into(), too_large: false }
    }

    fn mismatch(what: impl Into<String>) -> Bad {
        Bad { path: String::new(), cause: Cause::Mismatch, what: what.into(), too_large: false }
    }

    fn too_large() -> Bad {
        Bad { too_large: true, ..Bad::mismatch("its columns would take more than 2 GiB") }
    }

    /// Whether it is for the rows before it too.
    pub(super) fn is_too_large(&self) -> bool {
        self.too_large
    }

    fn within(self, name: &str) -> Bad {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{name}.{}", self.path) };
        Bad { path, ..self }
    }

    pub(super) fn fault(self, message: &str) -> Fault {
        let place = if self.path.is_empty() { String::new() } else { format!("field {}: ", self.path) };
        let what = match self.cause {
            Cause::Malformed => format!("not one message `{message}`: {place}{}", self.what),
            _ => format!("{place}{}", self.what),
        };
        Fault::new(self.cause, what)
    }
}

impl From<&'static str> for Bad {
    fn from(what: &'static str) -> Bad {
        Bad::malformed(what)
    }
}

/// Columns have 32-bit offsets.
const MAX_BYTES: u64 = i32::MAX as u64;

/// What columns a schema may make: a message in many messages is there many times.
const MAX_FIELDS: usize = 10_000;

/// The way to the columns that are being made.
struct Making {
    as_json: bool,
    /// Full names of the messages that lead here.
    open: Vec<String>,
    /// So far.
    fields: usize,
    /// By full name.
    enums: HashMap<String, Arc<Names>>,
}

impl Making {
    fn names(&mut self, of: &EnumDescriptor) -> Arc<Names> {
        let made = self.enums.entry(of.full_name().to_owned()).or_insert_with(|| Arc::new(Names::new(of)));
        made.clone()
    }
}

type Fed<T = ()> = std::result::Result<T, Bad>;

/// The columns of a message's fields. All have `rows` rows between two rows.
#[derive(Debug)]
pub(super) struct Message {
    slots: Vec<Slot>,
    /// By number, for numbers that are small.
    dense: Vec<Option<u16>>,
    others: HashMap<u32, u16>,
    /// For each oneof, which of its fields the open row has.
    choices: Vec<Option<u16>>,
    rows: usize,
    /// Bytes that a row takes at least, without what is in lists and texts.
    weight: u64,
}

#[derive(Debug)]
struct Slot {
    field: FieldRef,
    /// Which of the message's.
    oneof: Option<usize>,
    required: bool,
    column: Column,
}

#[derive(Debug)]
enum Column {
    Scalar(Scalar),
    Message {
        message: Box<Message>,
        valid: Valid,
        open: bool,
    },
    /// Dates and times, which are messages of numbers.
    Numbers(Numbers),
    /// Messages as JSON.
    Json(Json),
    List {
        item: Box<Column>,
        offsets: Vec<i32>,
        field: FieldRef,
        weight: u64,
    },
    Map {
        entries: Box<Message>,
        offsets: Vec<i32>,
    },
}

/// Which rows have a value.
#[derive(Debug)]
struct Valid(BooleanBufferBuilder);

impl Valid {
    fn new() -> Valid {
        Valid(BooleanBufferBuilder::new(0))
    }

    fn finish(&mut self) -> Option<NullBuffer> {
        let nulls = NullBuffer::new(self.0.finish());
        (nulls.null_count() > 0).then_some(nulls)
    }
}

/// How a field of one value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Bool,
    Int32,
    Sint32,
    Uint32,
    Int64,
    Sint64,
    Uint64,
    Fixed32,
    Sfixed32,
    Fixed64,
    Sfixed64,
    Float,
    Double,
    Text,
    Bytes,
    Enum,
}

#[derive(Debug)]
struct Scalar {
    form: Form,
    values: Values,
    /// None where there is always a value.
    valid: Option<Valid>,
    /// It is the one field of a message.
    wrapped: bool,
    names: Option<Arc<Names>>,
}

#[derive(Debug)]
enum Values {
    Bool(BooleanBufferBuilder),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Uint32(Vec<u32>),
    Uint64(Vec<u64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Text(Variable),
    Bytes(Variable),
}

#[derive(Debug)]
struct Variable {
    offsets: Vec<i32>,
    data: Vec<u8>,
}

/// The names of an enum's values.
#[derive(Debug)]
struct Names {
    names: HashMap<i32, Box<str>>,
    /// What is read where there is none.
    default: i32,
}

impl Names {
    fn new(of: &EnumDescriptor) -> Names {
        let mut names = HashMap::new();
        // In the order of the source: of several names of a number the first is its name.
        for value in &of.enum_descriptor_proto().value {
            names.entry(value.number()).or_insert_with(|| value.name().into());
        }
        Names { names, default: of.default_value().number() }
    }
}

impl Message {
    /// For the fields of a message that the schema describes.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedType`], with the path of the field.
    pub(super) fn new(of: &MessageDescriptor, as_json: bool) -> Result<Message> {
        Message::within(of, "", &mut Making { as_json, open: Vec::new(), fields: 0, enums: HashMap::new() })
    }

    fn within(of: &MessageDescriptor, path: &str, making: &mut Making) -> Result<Message> {
        if making.open.len() >= MAX_DEPTH {
            return Err(unsupported(path, format!("messages nest deeper than {MAX_DEPTH} levels")));
        }
        making.open.push(of.full_name().to_owned());
        making.fields += of.fields().len();
        if making.fields > MAX_FIELDS {
            return Err(unsupported(
                path,
                format!("messages in messages make more than {MAX_FIELDS} columns of it"),
            ));
        }
        let mut slots = Vec::new();
        let oneofs: Vec<String> =
            of.oneofs().filter(|oneof| !oneof.is_synthetic()).map(|oneof| oneof.name().to_owned()).collect();
        // In the order of the source.
        let mut fields: Vec<FieldDescriptor> = of.fields().collect();
        fields.sort_by_key(|field| field.path().last().copied());
        let mut numbers = Vec::new();
        for field in fields {
            if field.name().is_empty() {
                return Err(Error::new(
                    ErrorKind::InvalidSchema,
                    at_field(path, "it has a field without a name"),
                ));
            }
            let path = joined(path, field.name());
            let oneof = field.containing_oneof();
            let oneof = oneof.and_then(|oneof| oneofs.iter().position(|name| name == oneof.name()));
            let (column, data_type, nullable) = Column::new(&field, &path, making)?;
            numbers.push(field.number());
            slots.push(Slot {
                field: column.field(field.name(), data_type, nullable),
                oneof,
                required: field.is_required(),
                column,
            });
        }
        making.open.pop();
        if slots.len() > usize::from(u16::MAX) {
            return Err(unsupported(path, "a message has more fields than columns can be"));
        }
        let mut dense = Vec::new();
        let mut others = HashMap::new();
        for (slot, number) in numbers.iter().enumerate() {
            if *number < 1024 {
                let at = *number as usize;
                dense.resize(dense.len().max(at + 1), None);
                dense[at] = Some(slot as u16);
            } else {
                others.insert(*number, slot as u16);
            }
        }
        let weight = slots.iter().map(|slot| slot.column.weight()).sum::<u64>().max(1);
        Ok(Message { slots, dense, others, choices: vec![None; oneofs.len()], rows: 0, weight })
    }

    pub(super) fn fields(&self) -> Fields {
        self.slots.iter().map(|slot| slot.field.clone()).collect()
    }

    fn slot(&self, number: u32) -> Option<usize> {
        match self.dense.get(number as usize) {
            Some(slot) => slot.map(usize::from),
            None => self.others.get(&number).map(|slot| usize::from(*slot)),
        }
    }

    /// A whole row; `grown` is what the columns take in bytes. After an error it is as if there had been none.
    pub(super) fn row(&mut self, bytes: &[u8], grown: &mut u64) -> Fed {
        let (row, before) = (self.rows, *grown);
        let fed = self.feed(bytes, grown).and_then(|()| self.end_row(grown));
        if fed.is_err() {
            self.truncate(row);
            *grown = before;
        }
        fed
    }

    /// More of the open row: a field that comes again takes the place of the first, and a message adds to it.
    fn feed(&mut self, bytes: &[u8], grown: &mut u64) -> Fed {
        let row = self.rows;
        let mut at = bytes;
        while !at.is_empty() {
            let (number, wire) = wire::tag(&mut at)?;
            let Some(index) = self.slot(number) else {
                wire::skip(number, wire, &mut at)?;
                continue;
            };
            if let Some(oneof) = self.slots[index].oneof {
                let before = self.choices[oneof].replace(index as u16);
                if let Some(before) = before.map(usize::from).filter(|before| *before != index) {
                    self.slots[before].column.truncate(row);
                }
            }
            let slot = &mut self.slots[index];
            slot.column
                .accept(row, number, wire, &mut at, grown)
                .map_err(|bad| bad.within(slot.field.name()))?;
        }
        Ok(())
    }

    fn end_row(&mut self, grown: &mut u64) -> Fed {
        let row = self.rows;
        for slot in &mut self.slots {
            if slot.required && !slot.column.has(row) {
                return Err(
                    Bad::mismatch("it is required, and the record has none").within(slot.field.name())
                );
            }
            slot.column.end_row(row, grown).map_err(|bad| bad.within(slot.field.name()))?;
        }
        self.choices.fill(None);
        self.rows += 1;
        *grown += self.weight;
        // A few bytes may stand for a whole row of empty columns.
        if *grown > MAX_BYTES { Err(Bad::too_large()) } else { Ok(()) }
    }

    /// A row behind a null.
    fn nothing(&mut self) {
        for slot in &mut self.slots {
            slot.column.nothing();
        }
        self.rows += 1;
    }

    fn truncate(&mut self, rows: usize) {
        for slot in &mut self.slots {
            slot.column.truncate(rows);
        }
        self.choices.fill(None);
        self.rows = rows;
    }

    /// The columns so far; there are no rows afterwards.
    pub(super) fn finish(&mut self) -> std::result::Result<Vec<ArrayRef>, ArrowError> {
        self.rows = 0;
        // All of them, whatever becomes of one.
        let finished: Vec<_> = self.slots.iter_mut().map(|slot| slot.column.finish(&slot.field)).collect();
        finished.into_iter().collect()
    }
}

impl Column {
    /// Of a field: with its type, and whether a row may have none.
    fn new(field: &FieldDescriptor, path: &str, making: &mut Making) -> Result<(Column, DataType, bool)> {
        if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
            let entries = Message::entries(&entry, path, making)?;
            let entries_field = Field::new("entries", DataType::Struct(entries.fields()), false);
            let data_type = DataType::Map(Arc::new(entries_field), false);
            return Ok((Column::Map { entries: Box::new(entries), offsets: vec![0] }, data_type, false));
        }
        let nullable = field.supports_presence() && !field.is_required();
        if field.is_list() {
            let (item, item_type) = Column::single(&field.kind(), false, &format!("{path}[]"), making)?;
            let item_field = item.field(Field::LIST_FIELD_DEFAULT_NAME, item_type, false);
            let weight = item.weight();
            let list =
                Column::List { item: Box::new(item), offsets: vec![0], field: item_field.clone(), weight };
            return Ok((list, DataType::List(item_field), false));
        }
        let (column, data_type) = Column::single(&field.kind(), nullable, path, making)?;
        Ok((column, data_type, nullable))
    }

    fn single(kind: &Kind, nullable: bool, path: &str, making: &mut Making) -> Result<(Column, DataType)> {
        let Kind::Message(message) = kind else {
            let scalar = Scalar::new(kind, nullable, false, making);
            let data_type = scalar.data_type();
            return Ok((Column::Scalar(scalar), data_type));
        };
        if let Some(kind) = wrapped(message) {
            let scalar = Scalar::new(&kind, nullable, true, making);
            let data_type = scalar.data_type();
            return Ok((Column::Scalar(scalar), data_type));
        }
        if let Some(meaning) = Meaning::of(message) {
            return Ok((Column::Numbers(Numbers::new(meaning, nullable)), meaning.data_type()));
        }
        let recursive = making.open.iter().any(|name| name == message.full_name());
        // A message without fields says something by being there.
        let empty = message.fields().len() == 0;
        if is_json(message) || empty || (recursive && making.as_json) {
            let valid = nullable.then(Valid::new);
            let json = Json { of: message.clone(), texts: Variable::new(), valid, open: None };
            return Ok((Column::Json(json), DataType::Utf8));
        }
        if recursive {
            let what = format!(
                "the message `{}` contains itself, so it has no Arrow column; `recursive: json` makes it a text of JSON",
                message.full_name()
            );
            return Err(unsupported(path, what));
        }
        let message = Message::within(message, path, making)?;
        let data_type = DataType::Struct(message.fields());
        Ok((Column::Message { message: Box::new(message), valid: Valid::new(), open: false }, data_type))
    }

    /// The field of such a column.
    fn field(&self, name: &str, data_type: DataType, nullable: bool) -> FieldRef {
        Arc::new(match self {
            Column::Json(_) => json_field(name, nullable),
            _ => Field::new(name, data_type, nullable),
        })
    }

    fn weight(&self) -> u64 {
        match self {
            Column::Scalar(scalar) => scalar.weight(),
            Column::Message { message, .. } => message.weight + 1,
            Column::Numbers(_) => 9,
            Column::Json(_) | Column::List { .. } | Column::Map { .. } => 5,
        }
    }

    /// The value of the open row, or one more of them, or more of it.
    #[inline]
    fn accept(&mut self, row: usize, number: u32, wire: Wire, at: &mut &[u8], grown: &mut u64) -> Fed {
        match self {
            Column::Scalar(scalar) => scalar.accept(row, wire, at, grown),
            Column::Message { message, open, .. } => {
                *open = true;
                message.feed(inside(number, wire, at)?, grown)
            }
            Column::Numbers(numbers) => numbers.feed(inside(number, wire, at)?),
            Column::Json(json) => {
                let open = json.open.get_or_insert_with(|| DynamicMessage::new(json.of.clone()));
                let part = inside(number, wire, at)?;
                open.merge(part)
                    .map_err(|_| Bad::malformed(format!("it is not one message `{}`", json.of.full_name())))
            }
            Column::List { item, weight, .. } => {
                if let (Column::Scalar(scalar), Wire::Length) = (&mut **item, wire)
                    && scalar.is_packable()
                {
                    let mut packed = wire::length(at)?;
                    let one = scalar.wire();
                    while !packed.is_empty() {
                        scalar.accept(scalar.len(), one, &mut packed, grown)?;
                        *grown += *weight;
                        if *grown > MAX_BYTES {
                            return Err(Bad::too_large());
                        }
                    }
                    return Ok(());
                }
                *grown += *weight;
                let row = item.len();
                item.accept(row, number, wire, at, grown)?;
                item.end_row(row, grown)
            }
            Column::Map { entries, .. } => {
                entries.feed(inside(number, wire, at)?, grown)?;
                entries.slots.iter_mut().for_each(|slot| slot.column.open());
                entries.end_row(grown)
            }
        }
    }

    /// Gives the open row an empty message, if it has none.
    fn open(&mut self) {
        match self {
            Column::Message { open, .. } => *open = true,
            Column::Numbers(numbers) => drop(numbers.open.get_or_insert_default()),
            Column::Json(json) => {
                json.open.get_or_insert_with(|| DynamicMessage::new(json.of.clone()));
            }
            Column::Scalar(_) | Column::List { .. } | Column::Map { .. } => {}
        }
    }

    /// Whether the open row has a value.
    fn has(&self, row: usize) -> bool {
        match self {
            Column::Message { open, .. } => *open,
            Column::Numbers(numbers) => numbers.open.is_some(),
            Column::Json(json) => json.open.is_some(),
            Column::Scalar(scalar) => scalar.len() > row,
            Column::List { .. } | Column::Map { .. } => true,
        }
    }

    fn len(&self) -> usize {
        match self {
            Column::Scalar(scalar) => scalar.len(),
            Column::Message { message, .. } => message.rows,
            Column::Numbers(numbers) => numbers.values.len(),
            Column::Json(json) => json.texts.len(),
            Column::List { offsets, .. } | Column::Map { offsets, .. } => offsets.len() - 1,
        }
    }

    fn end_row(&mut self, row: usize, grown: &mut u64) -> Fed {
        match self {
            Column::Scalar(scalar) => {
                if scalar.len() == row {
                    scalar.absent();
                }
            }
            Column::Message { message, valid, open } => {
                valid.0.append(*open);
                match std::mem::take(open) {
                    true => message.end_row(grown)?,
                    false => message.nothing(),
                }
            }
            Column::Numbers(numbers) => numbers.end_row()?,
            Column::Json(json) => json.end_row(grown)?,
            Column::List { item, offsets, .. } => offsets.push(item.len() as i32),
            Column::Map { entries, offsets, .. } => {
                let from = offsets[row] as usize;
                if entries.rows - from > 1 && entries.has_twice(from) {
                    return Err(Bad::mismatch("the map has a key twice"));
                }
                offsets.push(entries.rows as i32);
            }
        }
        Ok(())
    }

    fn nothing(&mut self) {
        match self {
            Column::Scalar(scalar) => scalar.absent(),
            Column::Message { message, valid, .. } => {
                valid.0.append(false);
                message.nothing();
            }
            Column::Numbers(numbers) => numbers.push(None),
            Column::Json(json) => json.push(None),
            Column::List { offsets, .. } | Column::Map { offsets, .. } => {
                offsets.push(*offsets.last().expect("there is a first offset"));
            }
        }
    }

    fn truncate(&mut self, rows: usize) {
        match self {
            Column::Scalar(scalar) => scalar.truncate(rows),
            Column::Message { message, valid, open } => {
                message.truncate(rows);
                valid.0.truncate(rows);
                *open = false;
            }
            Column::Numbers(numbers) => {
                numbers.values.truncate(rows);
                numbers.valid.iter_mut().for_each(|valid| valid.0.truncate(rows));
                numbers.open = None;
            }
            Column::Json(json) => {
                json.texts.truncate(rows);
                json.valid.iter_mut().for_each(|valid| valid.0.truncate(rows));
                json.open = None;
            }
            Column::List { item, offsets, .. } => {
                offsets.truncate(rows + 1);
                item.truncate(offsets[offsets.len() - 1] as usize);
            }
            Column::Map { entries, offsets, .. } => {
                offsets.truncate(rows + 1);
                entries.truncate(offsets[offsets.len() - 1] as usize);
            }
        }
    }

    fn finish(&mut self, field: &FieldRef) -> std::result::Result<ArrayRef, ArrowError> {
        Ok(match self {
            Column::Scalar(scalar) => scalar.finish()?,
            Column::Message { message, valid, .. } => {
                let (fields, columns) = (message.fields(), message.finish()?);
                Arc::new(StructArray::try_new(fields, columns, valid.finish())?)
            }
            Column::Numbers(numbers) => numbers.finish(),
            Column::Json(json) => {
                let nulls = json.valid.as_mut().and_then(Valid::finish);
                Arc::new(json.texts.finish_text(nulls)?)
            }
            Column::List { item, offsets, field, .. } => {
                let values = item.finish(field)?;
                Arc::new(ListArray::try_new(field.clone(), taken_offsets(offsets), values, None)?)
            }
            Column::Map { entries, offsets, .. } => {
                let DataType::Map(entries_field, _) = field.data_type() else {
                    return Err(ArrowError::SchemaError("a map is no map".into()));
                };
                let columns = entries.finish()?;
                let entries = StructArray::try_new(entries.fields(), columns, None)?;
                Arc::new(MapArray::try_new(
                    entries_field.clone(),
                    taken_offsets(offsets),
                    entries,
                    None,
                    false,
                )?)
            }
        })
    }
}

impl Message {
    /// The columns `key`, always a text, and `value` of a map.
    fn entries(entry: &MessageDescriptor, path: &str, making: &mut Making) -> Result<Message> {
        let mut message = Message::within(entry, path, making)?;
        // Source has them so; descriptions may say anything.
        message.slots.sort_by_key(|slot| slot.field.name() != "key");
        let is_key = |slot: &Slot| match &slot.column {
            Column::Scalar(scalar) => {
                !scalar.wrapped
                    && !matches!(scalar.form, Form::Float | Form::Double | Form::Bytes | Form::Enum)
            }
            _ => false,
        };
        let numbers = (entry.get_field_by_name("key"), entry.get_field_by_name("value"));
        let numbers = (numbers.0.map(|field| field.number()), numbers.1.map(|field| field.number()));
        if message.slots.len() != 2 || numbers != (Some(1), Some(2)) || !is_key(&message.slots[0]) {
            let text = at_field(path, "it is a map whose entries are no key and value");
            return Err(Error::new(ErrorKind::InvalidSchema, text));
        }
        message.dense = vec![None, Some(0), Some(1)];
        for (slot, name) in message.slots.iter_mut().zip(["key", "value"]) {
            // An entry without a key or a value has the default.
            if let Column::Scalar(scalar) = &mut slot.column {
                scalar.valid = None;
                if name == "key" {
                    scalar.as_text();
                }
            }
            let data_type = match &slot.column {
                Column::Scalar(scalar) => scalar.data_type(),
                _ => slot.field.data_type().clone(),
            };
            slot.field = slot.column.field(name, data_type, false);
        }
        Ok(message)
    }

    /// Whether a key is there twice among the entries from a row on.
    fn has_twice(&self, from: usize) -> bool {
        let Some(Slot { column: Column::Scalar(Scalar { values: Values::Text(keys), .. }), .. }) =
            self.slots.first()
        else {
            return false;
        };
        let mut seen = HashSet::new();
        (from..self.rows).any(|row| !seen.insert(keys.get(row)))
    }
}

fn taken_offsets(offsets: &mut Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(offsets, vec![0])))
}

fn unsupported(path: &str, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::UnsupportedType, at_field(path, what))
}

/// The bytes of a message.
#[inline]
fn inside<'a>(number: u32, wire: Wire, at: &mut &'a [u8]) -> Fed<&'a [u8]> {
    match wire {
        Wire::Length => Ok(wire::length(at)?),
        Wire::Group => Ok(wire::group(number, at)?),
        other => Err(another(other, Wire::Length)),
    }
}

fn another(got: Wire, expected: Wire) -> Bad {
    Bad::mismatch(format!("it is written as {}, where the schema has {}", got.name(), expected.name()))
}

impl Variable {
    fn new() -> Variable {
        Variable { offsets: vec![0], data: Vec::new() }
    }

    fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    fn push(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
        self.offsets.push(self.data.len() as i32);
    }

    fn get(&self, row: usize) -> &[u8] {
        &self.data[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    fn truncate(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        self.data.truncate(self.offsets[self.offsets.len() - 1] as usize);
    }

    fn finish_text(&mut self, nulls: Option<NullBuffer>) -> std::result::Result<StringArray, ArrowError> {
        let data = std::mem::take(&mut self.data);
        StringArray::try_new(taken_offsets(&mut self.offsets), data.into(), nulls)
    }

    fn finish_bytes(&mut self, nulls: Option<NullBuffer>) -> std::result::Result<BinaryArray, ArrowError> {
        let data = std::mem::take(&mut self.data);
        BinaryArray::try_new(taken_offsets(&mut self.offsets), data.into(), nulls)
    }
}

impl Scalar {
    fn new(kind: &Kind, nullable: bool, wrapped: bool, making: &mut Making) -> Scalar {
        let names = kind.as_enum().map(|of| making.names(of));
        let (form, values) = match kind {
            Kind::Bool => (Form::Bool, Values::Bool(BooleanBufferBuilder::new(0))),
            Kind::Int32 => (Form::Int32, Values::Int32(Vec::new())),
            Kind::Sint32 => (Form::Sint32, Values::Int32(Vec::new())),
            Kind::Sfixed32 => (Form::Sfixed32, Values::Int32(Vec::new())),
            Kind::Int64 => (Form::Int64, Values::Int64(Vec::new())),
            Kind::Sint64 => (Form::Sint64, Values::Int64(Vec::new())),
            Kind::Sfixed64 => (Form::Sfixed64, Values::Int64(Vec::new())),
            Kind::Uint32 => (Form::Uint32, Values::Uint32(Vec::new())),
            Kind::Fixed32 => (Form::Fixed32, Values::Uint32(Vec::new())),
            Kind::Uint64 => (Form::Uint64, Values::Uint64(Vec::new())),
            Kind::Fixed64 => (Form::Fixed64, Values::Uint64(Vec::new())),
            Kind::Float => (Form::Float, Values::Float(Vec::new())),
            Kind::Double => (Form::Double, Values::Double(Vec::new())),
            Kind::Bytes => (Form::Bytes, Values::Bytes(Variable::new())),
            Kind::Enum(_) => (Form::Enum, Values::Text(Variable::new())),
            Kind::String | Kind::Message(_) => (Form::Text, Values::Text(Variable::new())),
        };
        Scalar { form, values, valid: nullable.then(Valid::new), wrapped, names }
    }

    /// Makes texts of numbers.
    fn as_text(&mut self) {
        self.values = Values::Text(Variable::new());
    }

    fn data_type(&self) -> DataType {
        match &self.values {
            Values::Bool(_) => DataType::Boolean,
            Values::Int32(_) => DataType::Int32,
            Values::Int64(_) => DataType::Int64,
            Values::Uint32(_) => DataType::UInt32,
            Values::Uint64(_) => DataType::UInt64,
            Values::Float(_) => DataType::Float32,
            Values::Double(_) => DataType::Float64,
            Values::Text(_) => DataType::Utf8,
            Values::Bytes(_) => DataType::Binary,
        }
    }

    fn weight(&self) -> u64 {
        match &self.values {
            Values::Bool(_) => 1,
            Values::Int32(_) | Values::Uint32(_) | Values::Float(_) => 5,
            Values::Int64(_) | Values::Uint64(_) | Values::Double(_) => 9,
            Values::Text(_) | Values::Bytes(_) => 5,
        }
    }

    fn len(&self) -> usize {
        match &self.values {
            Values::Bool(values) => values.len(),
            Values::Int32(values) => values.len(),
            Values::Int64(values) => values.len(),
            Values::Uint32(values) => values.len(),
            Values::Uint64(values) => values.len(),
            Values::Float(values) => values.len(),
            Values::Double(values) => values.len(),
            Values::Text(values) | Values::Bytes(values) => values.len(),
        }
    }

    fn truncate(&mut self, rows: usize) {
        match &mut self.values {
            Values::Bool(values) => values.truncate(rows),
            Values::Int32(values) => values.truncate(rows),
            Values::Int64(values) => values.truncate(rows),
            Values::Uint32(values) => values.truncate(rows),
            Values::Uint64(values) => values.truncate(rows),
            Values::Float(values) => values.truncate(rows),
            Values::Double(values) => values.truncate(rows),
            Values::Text(values) | Values::Bytes(values) => values.truncate(rows),
        }
        if let Some(valid) = &mut self.valid {
            valid.0.truncate(rows);
        }
    }

    fn wire(&self) -> Wire {
        match self.form {
            Form::Fixed32 | Form::Sfixed32 | Form::Float => Wire::Fixed32,
            Form::Fixed64 | Form::Sfixed64 | Form::Double => Wire::Fixed64,
            Form::Text | Form::Bytes => Wire::Length,
            _ => Wire::Varint,
        }
    }

    fn is_packable(&self) -> bool {
        !self.wrapped && self.wire() != Wire::Length
    }

    /// The value of a row, in the place of one that is there.
    #[inline]
    fn accept(&mut self, row: usize, wire: Wire, at: &mut &[u8], grown: &mut u64) -> Fed {
        if !self.wrapped {
            return self.read(row, wire, at, grown);
        }
        let mut inner = inside(1, wire, at)?;
        while !inner.is_empty() {
            match wire::tag(&mut inner)? {
                (1, wire) => self.read(row, wire, &mut inner, grown)?,
                (number, wire) => wire::skip(number, wire, &mut inner)?,
            }
        }
        if self.len() == row {
            self.default();
            self.present();
        }
        Ok(())
    }

    #[inline]
    fn read(&mut self, row: usize, wire: Wire, at: &mut &[u8], grown: &mut u64) -> Fed {
        if wire != self.wire() {
            return Err(another(wire, self.wire()));
        }
        if self.len() > row {
            self.truncate(row);
        }
        match (&mut self.values, self.form) {
            (Values::Bool(values), _) => values.append(wire::varint(at)? != 0),
            (Values::Int32(values), Form::Sint32) => values.push(wire::zigzag32(wire::varint(at)?)),
            (Values::Int32(values), Form::Sfixed32) => values.push(i32::from_le_bytes(wire::fixed(at)?)),
            (Values::Int32(values), _) => values.push(wire::varint(at)? as i32),
            (Values::Int64(values), Form::Sint64) => values.push(wire::zigzag(wire::varint(at)?)),
            (Values::Int64(values), Form::Sfixed64) => values.push(i64::from_le_bytes(wire::fixed(at)?)),
            (Values::Int64(values), _) => values.push(wire::varint(at)? as i64),
            (Values::Uint32(values), Form::Fixed32) => values.push(u32::from_le_bytes(wire::fixed(at)?)),
            (Values::Uint32(values), _) => values.push(wire::varint(at)? as u32),
            (Values::Uint64(values), Form::Fixed64) => values.push(u64::from_le_bytes(wire::fixed(at)?)),
            (Values::Uint64(values), _) => values.push(wire::varint(at)?),
            (Values::Float(values), _) => values.push(f32::from_le_bytes(wire::fixed(at)?)),
            (Values::Double(values), _) => values.push(f64::from_le_bytes(wire::fixed(at)?)),
            (Values::Bytes(values), _) => {
                let bytes = wire::length(at)?;
                *grown += bytes.len() as u64;
                values.push(bytes);
            }
            (Values::Text(values), form) => {
                let number = match form {
                    Form::Text => {
                        let bytes = wire::length(at)?;
                        if let Err(fault) = std::str::from_utf8(bytes) {
                            return Err(Bad::malformed(format!(
                                "it is not UTF-8 text: invalid at byte {}",
                                fault.valid_up_to()
                            )));
                        }
                        *grown += bytes.len() as u64;
                        values.push(bytes);
                        self.present();
                        return Ok(());
                    }
                    Form::Fixed32 => i128::from(u32::from_le_bytes(wire::fixed(at)?)),
                    Form::Sfixed32 => i128::from(i32::from_le_bytes(wire::fixed(at)?)),
                    Form::Fixed64 => i128::from(u64::from_le_bytes(wire::fixed(at)?)),
                    Form::Sfixed64 => i128::from(i64::from_le_bytes(wire::fixed(at)?)),
                    Form::Sint32 => i128::from(wire::zigzag32(wire::varint(at)?)),
                    Form::Sint64 => i128::from(wire::zigzag(wire::varint(at)?)),
                    Form::Int64 => i128::from(wire::varint(at)? as i64),
                    Form::Uint32 => i128::from(wire::varint(at)? as u32),
                    Form::Uint64 => i128::from(wire::varint(at)?),
                    Form::Bool => i128::from(wire::varint(at)? != 0),
                    _ => i128::from(wire::varint(at)? as i32),
                };
                let before = values.data.len();
                push_text(values, form, self.names.as_deref(), number);
                *grown += (values.data.len() - before) as u64;
            }
        }
        self.present();
        Ok(())
    }

    #[inline]
    fn present(&mut self) {
        if let Some(valid) = &mut self.valid {
            valid.0.append(true);
        }
    }

    /// What Protobuf says of a field that is not there.
    fn default(&mut self) {
        match &mut self.values {
            Values::Bool(values) => values.append(false),
            Values::Int32(values) => values.push(0),
            Values::Int64(values) => values.push(0),
            Values::Uint32(values) => values.push(0),
            Values::Uint64(values) => values.push(0),
            Values::Float(values) => values.push(0.0),
            Values::Double(values) => values.push(0.0),
            Values::Text(values) if self.form != Form::Text => {
                let default = self.names.as_ref().map_or(0, |names| names.default);
                push_text(values, self.form, self.names.as_deref(), default.into());
            }
            Values::Text(values) | Values::Bytes(values) => values.push(b""),
        }
    }

    /// A row without a value.
    fn absent(&mut self) {
        match &mut self.valid {
            Some(valid) => {
                valid.0.append(false);
                match &mut self.values {
                    Values::Text(values) | Values::Bytes(values) => values.push(b""),
                    _ => self.default(),
                }
            }
            None => self.default(),
        }
    }

    fn finish(&mut self) -> std::result::Result<ArrayRef, ArrowError> {
        let nulls = self.valid.as_mut().and_then(Valid::finish);
        fn numbers<P: ArrowPrimitiveType>(
            values: &mut Vec<P::Native>,
            nulls: Option<NullBuffer>,
        ) -> std::result::Result<ArrayRef, ArrowError> {
            let values = ScalarBuffer::from(std::mem::take(values));
            Ok(Arc::new(PrimitiveArray::<P>::try_new(values, nulls)?))
        }
        match &mut self.values {
            Values::Bool(values) => Ok(Arc::new(BooleanArray::new(values.finish(), nulls))),
            Values::Int32(values) => numbers::<Int32Type>(values, nulls),
            Values::Int64(values) => numbers::<Int64Type>(values, nulls),
            Values::Uint32(values) => numbers::<UInt32Type>(values, nulls),
            Values::Uint64(values) => numbers::<UInt64Type>(values, nulls),
            Values::Float(values) => numbers::<Float32Type>(values, nulls),
            Values::Double(values) => numbers::<Float64Type>(values, nulls),
            Values::Text(values) => Ok(Arc::new(values.finish_text(nulls)?)),
            Values::Bytes(values) => Ok(Arc::new(values.finish_bytes(nulls)?)),
        }
    }
}

/// A number as text: the name of an enum's value, and its digits where it has none, as in Protobuf's JSON.
fn push_text(values: &mut Variable, form: Form, names: Option<&Names>, number: i128) {
    let name = names.and_then(|of| of.names.get(&i32::try_from(number).ok()?));
    match (name, form) {
        (Some(name), _) => values.push(name.as_bytes()),
        (None, Form::Bool) => values.push(if number == 0 { b"false" } else { b"true" }),
        (None, _) => values.push(number.to_string().as_bytes()),
    }
}

/// What the numbers of a message mean together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// `google.protobuf.Timestamp`: seconds since 1970 and nanoseconds.
    Timestamp,
    /// `google.type.Date`: year, month, day.
    Date,
    /// `google.type.TimeOfDay`: hours, minutes, seconds, nanoseconds.
    TimeOfDay,
}

impl Meaning {
    pub(super) fn of(message: &MessageDescriptor) -> Option<Meaning> {
        match message.full_name() {
            "google.protobuf.Timestamp" => Some(Meaning::Timestamp),
            "google.type.Date" => Some(Meaning::Date),
            "google.type.TimeOfDay" => Some(Meaning::TimeOfDay),
            _ => None,
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Meaning::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Meaning::Date => DataType::Date32,
            Meaning::TimeOfDay => DataType::Time64(TimeUnit::Microsecond),
        }
    }

    /// The numbers of a value of a column; none if the type does not have it.
    pub(super) fn parts(self, column: &dyn Array, row: usize) -> Option<[i64; 4]> {
        let parts = match (self, column.data_type()) {
            (Meaning::Timestamp, DataType::Timestamp(unit, _)) => {
                let (value, in_a_second) = match unit {
                    TimeUnit::Second => (column.as_primitive::<TimestampSecondType>().value(row), 1),
                    TimeUnit::Millisecond => {
                        (column.as_primitive::<TimestampMillisecondType>().value(row), 1_000)
                    }
                    TimeUnit::Microsecond => {
                        (column.as_primitive::<TimestampMicrosecondType>().value(row), 1_000_000)
                    }
                    TimeUnit::Nanosecond => {
                        (column.as_primitive::<TimestampNanosecondType>().value(row), 1_000_000_000)
                    }
                };
                let nanos = value.rem_euclid(in_a_second) * (1_000_000_000 / in_a_second);
                [value.div_euclid(in_a_second), nanos, 0, 0]
            }
            (Meaning::Date, _) => {
                let days = column.as_primitive::<Date32Type>().value(row);
                let day = jiff::Span::new().try_days(days).ok()?;
                let date = jiff::civil::date(1970, 1, 1).checked_add(day).ok()?;
                [date.year().into(), date.month().into(), date.day().into(), 0]
            }
            _ => {
                let nanos = column.as_primitive::<Time64NanosecondType>().value(row);
                let seconds = nanos.div_euclid(1_000_000_000);
                [seconds / 3600, seconds / 60 % 60, seconds % 60, nanos.rem_euclid(1_000_000_000)]
            }
        };
        self.value(parts).is_ok().then_some(parts)
    }

    /// The value of a column.
    fn value(self, parts: [i64; 4]) -> Fed<i64> {
        let outside = || Bad::mismatch(format!("it is outside of what a {} may be", self.name()));
        let within = |part: i64, most: i64| (0..=most).contains(&part);
        match self {
            // From the year 1 to 9999, as the type is described.
            Meaning::Timestamp => {
                let [seconds, nanos, ..] = parts;
                let known = (-62_135_596_800..=253_402_300_799).contains(&seconds);
                (known && within(nanos, 999_999_999)).then(|| seconds * 1_000_000 + nanos / 1000)
            }
            Meaning::Date => {
                let [year, month, day, _] = parts.map(|part| i16::try_from(part).unwrap_or(-1));
                let date = match (i8::try_from(month), i8::try_from(day)) {
                    (Ok(month), Ok(day)) if within(i64::from(year), 9999) && year > 0 => {
                        jiff::civil::Date::new(year, month, day).ok()
                    }
                    _ => None,
                };
                date.map(|date| i64::from((date - jiff::civil::date(1970, 1, 1)).get_days()))
            }
            Meaning::TimeOfDay => {
                let [hours, minutes, seconds, nanos] = parts;
                let known = within(hours, 23) && within(minutes, 59) && within(seconds, 59);
                (known && within(nanos, 999_999_999))
                    .then(|| ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + nanos / 1000)
            }
        }
        .ok_or_else(outside)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Meaning::Timestamp => "Timestamp, the years 1 to 9999",
            Meaning::Date => "whole date",
            Meaning::TimeOfDay => "time of a day",
        }
    }
}

#[derive(Debug)]
struct Numbers {
    meaning: Meaning,
    values: Vec<i64>,
    valid: Option<Valid>,
    open: Option<[i64; 4]>,
}

impl Numbers {
    fn new(meaning: Meaning, nullable: bool) -> Numbers {
        Numbers { meaning, values: Vec::new(), valid: nullable.then(Valid::new), open: None }
    }

    fn feed(&mut self, mut at: &[u8]) -> Fed {
        let parts = self.open.get_or_insert_default();
        while !at.is_empty() {
            match wire::tag(&mut at)? {
                (number @ 1..=4, Wire::Varint) => {
                    let part = wire::varint(&mut at)? as i64;
                    // Seconds since 1970 have 64 bits, all others 32.
                    let wide = self.meaning == Meaning::Timestamp && number == 1;
                    parts[number as usize - 1] = if wide { part } else { i64::from(part as i32) };
                }
                (1..=4, other) => return Err(another(other, Wire::Varint)),
                (number, wire) => wire::skip(number, wire, &mut at)?,
            }
        }
        Ok(())
    }

    fn end_row(&mut self) -> Fed {
        let value = self.open.take().map(|parts| self.meaning.value(parts)).transpose()?;
        self.push(value);
        Ok(())
    }

    fn push(&mut self, value: Option<i64>) {
        self.values.push(value.unwrap_or_default());
        if let Some(valid) = &mut self.valid {
            valid.0.append(value.is_some());
        }
    }

    fn finish(&mut self) -> ArrayRef {
        let nulls = self.valid.as_mut().and_then(Valid::finish);
        let values = std::mem::take(&mut self.values);
        match self.meaning {
            Meaning::Timestamp => Arc::new(
                PrimitiveArray::<TimestampMicrosecondType>::new(values.into(), nulls).with_timezone("UTC"),
            ),
            Meaning::Date => {
                let days: Vec<i32> = values.iter().map(|days| *days as i32).collect();
                Arc::new(PrimitiveArray::<Date32Type>::new(days.into(), nulls))
            }
            Meaning::TimeOfDay => {
                Arc::new(PrimitiveArray::<Time64MicrosecondType>::new(values.into(), nulls))
            }
        }
    }
}

#[derive(Debug)]
struct Json {
    of: MessageDescriptor,
    texts: Variable,
    valid: Option<Valid>,
    /// Of the open row: a message that comes again is added.
    open: Option<DynamicMessage>,
}

impl Json {
    fn end_row(&mut self, grown: &mut u64) -> Fed {
        let text = self.open.take().map(|message| {
            // Names of enums may be long.
            let mut written = Bounded(Vec::new());
            if serde_json::to_writer(&mut written, &message).is_err() {
                return Err(Bad::mismatch(match written.0.len() >= MAX_JSON {
                    true => "its JSON would have more than 64 MiB",
                    false => "it has no form in Protobuf's JSON",
                }));
            }
            let value = serde_json::from_slice::<serde_json::Value>(&written.0);
            let sorted = value.map(|mut value| {
                // The entries of maps come in any order.
                value.sort_all_objects();
                value.to_string()
            });
            sorted.map_err(|_| Bad::mismatch("it nests too deep for JSON"))
        });
        let text = text.transpose()?;
        *grown += text.as_ref().map_or(0, String::len) as u64;
        self.push(text.as_deref());
        Ok(())
    }

    fn push(&mut self, text: Option<&str>) {
        self.texts.push(text.unwrap_or_default().as_bytes());
        if let Some(valid) = &mut self.valid {
            valid.0.append(text.is_some());
        }
    }
}

/// Bytes of one JSON text.
const MAX_JSON: usize = 64 << 20;

/// Takes so many at most.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        match self.0.len() < MAX_JSON {
            true => Ok(bytes.len()),
            false => Err(std::io::Error::other("too long")),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
