//! Messages to Arrow columns, straight from the wire.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow_array::{ArrayRef, ListArray, MapArray, StructArray};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields};
use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};

use super::decimal::{Decimals, Digits};
use super::json::Json;
use super::numbers::{Meaning, Numbers};
use super::row::{Bad, Fed, MAX_BYTES, inside};
use super::scalar::{Form, Names, Scalar, Valid, Values, Variable, taken_offsets};
use super::schema::{MAX_DEPTH, is_json, wrapped};
use super::wire::{self, Wire};
use crate::error::{Error, ErrorKind, Result, at_field, joined};
use crate::field_spec::json_field;

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
    /// Of an enum, if it is one.
    fn names(&mut self, kind: &Kind) -> Option<Arc<Names>> {
        let of = kind.as_enum()?;
        let made = self.enums.entry(of.full_name().to_owned()).or_insert_with(|| Arc::new(Names::new(of)));
        Some(made.clone())
    }
}

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
    Decimals(Decimals),
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
            let (item, item_type) = Column::single(field, false, &format!("{path}[]"), making)?;
            let item_field = item.field(Field::LIST_FIELD_DEFAULT_NAME, item_type, false);
            let weight = item.weight();
            let list =
                Column::List { item: Box::new(item), offsets: vec![0], field: item_field.clone(), weight };
            return Ok((list, DataType::List(item_field), false));
        }
        let (column, data_type) = Column::single(field, nullable, path, making)?;
        Ok((column, data_type, nullable))
    }

    fn single(
        field: &FieldDescriptor,
        nullable: bool,
        path: &str,
        making: &mut Making,
    ) -> Result<(Column, DataType)> {
        let kind = field.kind();
        let Kind::Message(message) = &kind else {
            let scalar = Scalar::new(&kind, nullable, false, making.names(&kind));
            let data_type = scalar.data_type();
            return Ok((Column::Scalar(scalar), data_type));
        };
        if let Some(digits) = Digits::of(field) {
            return Ok((Column::Decimals(Decimals::new(digits, nullable)), digits.data_type()));
        }
        if let Some(kind) = wrapped(message) {
            let scalar = Scalar::new(&kind, nullable, true, making.names(&kind));
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
            Column::Decimals(_) => 17,
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
            Column::Decimals(decimals) => decimals.feed(inside(number, wire, at)?),
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
            Column::Decimals(decimals) => _ = decimals.open.get_or_insert_default(),
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
            Column::Decimals(decimals) => decimals.open.is_some(),
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
            Column::Decimals(decimals) => decimals.values.len(),
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
            Column::Decimals(decimals) => decimals.end_row()?,
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
            Column::Decimals(decimals) => decimals.push(None),
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
            Column::Decimals(decimals) => decimals.truncate(rows),
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
            Column::Decimals(decimals) => decimals.finish()?,
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

fn unsupported(path: &str, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::UnsupportedType, at_field(path, what))
}
