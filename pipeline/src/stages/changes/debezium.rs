//! [Debezium's envelope](https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-events): `op`,
//! and the row `before` and `after`. As JSON it may lie in a `payload` beside its schema, as Kafka Connect's JsonConverter
//! writes it.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, StructArray};
use arrow_cast::cast;
use arrow_ord::ord::make_comparator;
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, SortOptions};
use gristmill_codec::Decoded;
use serde_json::Value;

use super::super::records::Op;
use super::Pick;
use crate::error::Error;

const BEFORE: &str = "before";
const AFTER: &str = "after";
const OP: &str = "op";
const PAYLOAD: &str = "payload";
/// What stands for a value that the database did not tell, since it did not change:
/// [`unavailable.value.placeholder`](https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-toasted-values).
const UNAVAILABLE: &str = "__debezium_unavailable_value";
/// The same as texts: as it is, in base64 where JSON has bytes, of an hstore, and the UUID that is made of it.
const UNAVAILABLE_TEXTS: [&str; 4] = [
    UNAVAILABLE,
    "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==",
    r#"{"__debezium_unavailable_value":"__debezium_unavailable_value"}"#,
    "b68a35a7-17ad-35b3-af2a-ae46edb4545a",
];

/// What JSON is decoded as where rows have those columns.
pub(crate) fn json_envelope(rows: &Schema) -> SchemaRef {
    // Of a row that is gone a database may tell the key alone.
    let before: Fields =
        rows.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let fields = vec![
        Field::new(BEFORE, DataType::Struct(before), true),
        Field::new(AFTER, DataType::Struct(rows.fields().clone()), true),
        Field::new(OP, DataType::Utf8, true),
    ];
    let mut all = fields.clone();
    all.push(Field::new(PAYLOAD, DataType::Struct(fields.into()), true));
    Arc::new(Schema::new(all))
}

/// What Avro is decoded as: of an envelope's schema what matters here, since the rest (`source`, `transaction`) is costly.
///
/// # Errors
/// It is no envelope.
pub(crate) fn avro_envelope(schema: &str) -> Result<String, String> {
    let mut schema: Value = serde_json::from_str(schema).map_err(|e| e.to_string())?;
    let fields = schema.get_mut("fields").and_then(Value::as_array_mut);
    let fields = fields.ok_or("it is no record")?;
    let is_needed = |field: &Value| [BEFORE, AFTER, OP].iter().any(|name| field["name"] == *name);
    fields.retain(is_needed);
    if fields.len() < 3 {
        return Err(format!("it is no envelope of Debezium, which has `{BEFORE}`, `{AFTER}` and `{OP}`"));
    }
    Ok(schema.to_string())
}

/// The columns of envelopes that matter here.
pub(crate) fn of_envelope(columns: &Schema) -> SchemaRef {
    let fields = columns.fields().iter().filter(|field| [BEFORE, AFTER, OP].contains(&field.name().as_str()));
    Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()))
}

/// What is said of a column of rows, of what is said of one of envelopes.
pub(super) fn described((path, text): (String, String)) -> Option<(String, String)> {
    Some((path.strip_prefix(AFTER)?.strip_prefix('.')?.to_owned(), text))
}

/// The columns of rows in decoded envelopes.
pub(super) fn row_fields(envelope: &SchemaRef) -> Result<Fields, Error> {
    let part = |name: &str| match envelope.field_with_name(name).map(Field::data_type) {
        Ok(DataType::Struct(fields)) => Ok(fields.clone()),
        _ => Err(Error::config(format!(
            "`decode.changes: debezium` needs envelopes of Debezium, and values have no record `{name}`"
        ))),
    };
    let (before, after) = (part(BEFORE)?, part(AFTER)?);
    let types = |fields: &Fields| -> Vec<(String, DataType)> {
        fields.iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
    };
    if types(&before) != types(&after) {
        return Err(Error::config(format!("`{BEFORE}` and `{AFTER}` of the values have other columns")));
    }
    Ok(after)
}

/// One way that an envelope may lie in a value.
struct Envelopes<'a> {
    /// Null where it lies elsewhere.
    op: &'a StringArray,
    before: &'a StructArray,
    after: &'a StructArray,
}

fn envelopes(batch: &RecordBatch) -> Result<Vec<Envelopes<'_>>, Error> {
    let payload = batch.column_by_name(PAYLOAD).and_then(|payload| payload.as_struct_opt());
    let top = Envelopes::of(|name| batch.column_by_name(name));
    let inner = payload.and_then(|payload| Envelopes::of(|name| payload.column_by_name(name)));
    let all: Vec<_> = top.into_iter().chain(inner).collect();
    if all.is_empty() {
        return Err(Error::config("values are no envelopes of Debezium".to_owned()));
    }
    Ok(all)
}

impl<'a> Envelopes<'a> {
    fn of(column: impl Fn(&str) -> Option<&'a ArrayRef>) -> Option<Self> {
        Some(Envelopes {
            op: column(OP)?.as_string_opt()?,
            before: column(BEFORE)?.as_struct_opt()?,
            after: column(AFTER)?.as_struct_opt()?,
        })
    }
}

/// The columns of rows: `before` and `after`, of each way that envelopes lie in values.
pub(super) fn forms(batch: &RecordBatch) -> Result<Vec<Vec<ArrayRef>>, Error> {
    let envelopes = envelopes(batch)?;
    let parts = envelopes.iter().flat_map(|envelopes| [envelopes.before, envelopes.after]);
    Ok(parts.map(|part| part.columns().to_vec()).collect())
}

/// What each envelope does; `is_alone` says of a record whether its partition was the topic's only one. Where rows are told apart by a key, values that are not there would be written over others.
pub(super) fn picks(
    values: &Decoded,
    key: &[String],
    in_place: bool,
    is_alone: impl Fn(usize) -> bool,
    refused: &mut Vec<(usize, String, String)>,
) -> Result<Vec<Pick>, Error> {
    let envelopes = envelopes(&values.batch)?;
    let mut picks = Vec::with_capacity(values.rows.len());
    let changed: Vec<_> =
        envelopes.iter().map(|envelopes| key_changes(envelopes, key)).collect::<Result<_, _>>()?;
    let lacking: Vec<Vec<Option<&str>>> = envelopes
        .iter()
        .map(|envelopes| match in_place {
            true => unavailable(envelopes.after.fields(), envelopes.after.columns()),
            false => Vec::new(),
        })
        .collect();
    for (row, of) in values.rows.iter().enumerate() {
        let mut refuse = |code: &str, why: String| refused.push((*of as usize, code.to_owned(), why));
        let Some(at) = envelopes.iter().position(|envelopes| envelopes.op.is_valid(row)) else {
            refuse("NO_CHANGE", format!("the value is no envelope of Debezium: it has no `{OP}`"));
            continue;
        };
        let (before, after) = (Some((at * 2, row)), Some((at * 2 + 1, row)));
        let envelope = &envelopes[at];
        let op = match envelope.op.value(row) {
            "c" => Op::Create,
            "u" => Op::Update,
            "r" => Op::Read,
            "d" => {
                picks.push(Pick::of(*of, Op::Delete, before.filter(|_| envelope.before.is_valid(row))));
                continue;
            }
            "t" => {
                refuse("TRUNCATED", "the table was truncated, which is no change of a row".to_owned());
                continue;
            }
            other => {
                let other: String = other.chars().take(10).collect();
                refuse("NO_CHANGE", format!("`{OP}` is {other:?}, which is no change of a row"));
                continue;
            }
        };
        if envelope.after.is_null(row) {
            refuse("NO_CHANGE", format!("`{OP}` is {:?}, and `{AFTER}` is null", op.as_str()));
            continue;
        }
        if let Some(name) = lacking[at].get(row).copied().flatten() {
            refuse(super::UNAVAILABLE, why_unavailable(name));
            continue;
        }
        if in_place && op == Op::Update && changed[at].iter().any(|is_changed| is_changed(row)) {
            if !is_alone(*of as usize) {
                let why = "the key has changed within one record, and other changes of the old key may lie in another partition";
                refuse("KEY_CHANGED", why.to_owned());
                continue;
            }
            picks.push(Pick { sub: 1, ..Pick::of(*of, Op::Delete, before) });
        }
        picks.push(Pick::of(*of, op, after));
    }
    Ok(picks)
}

type IsChanged = Box<dyn Fn(usize) -> bool>;

/// For each column of the key: whether it is another after than before, where both are told.
fn key_changes(envelopes: &Envelopes<'_>, key: &[String]) -> Result<Vec<IsChanged>, Error> {
    let mut changes: Vec<IsChanged> = Vec::new();
    for name in key {
        let (Some(old), Some(new)) =
            (envelopes.before.column_by_name(name), envelopes.after.column_by_name(name))
        else {
            continue;
        };
        let compare = make_comparator(old, new, SortOptions::default()).map_err(Error::arrow)?;
        let (before, old) = (envelopes.before.nulls().cloned(), old.clone());
        changes.push(Box::new(move |row| {
            let is_told = before.as_ref().is_none_or(|nulls| nulls.is_valid(row)) && old.is_valid(row);
            is_told && compare(row, row).is_ne()
        }));
    }
    Ok(changes)
}

/// For each row: a column that stands for what was not told, if there is one.
pub(super) fn unavailable<'a>(fields: &'a Fields, columns: &[ArrayRef]) -> Vec<Option<&'a str>> {
    let rows = columns.first().map_or(0, |column| column.len());
    let mut lacking = vec![None; rows];
    for (field, column) in fields.iter().zip(columns) {
        let is_found = unavailable_in(column);
        for (row, _) in is_found.iter().enumerate().filter(|(_, is)| **is) {
            lacking[row] = Some(field.name().as_str());
        }
    }
    lacking
}

pub(super) fn why_unavailable(column: &str) -> String {
    format!(
        "the database did not tell column `{column}`, since it has not changed, and the row would be written without it: let it \
         tell all (REPLICA IDENTITY FULL)"
    )
}

fn is_unavailable(text: &str) -> bool {
    // In a column of JSON it is a text of JSON.
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    UNAVAILABLE_TEXTS.contains(&inner.unwrap_or(text))
}

/// Which values stand for others, in the forms in which Debezium's connectors write that.
fn unavailable_in(array: &ArrayRef) -> Vec<bool> {
    let texts = |texts: &StringArray| -> Vec<bool> {
        texts.iter().map(|text| text.is_some_and(is_unavailable)).collect()
    };
    match array.data_type() {
        DataType::Utf8 => texts(array.as_string()),
        DataType::Binary => {
            array.as_binary::<i32>().iter().map(|value| value == Some(UNAVAILABLE.as_bytes())).collect()
        }
        DataType::Struct(_) => {
            let parent = array.as_struct();
            let mut found = vec![false; parent.len()];
            for member in parent.columns() {
                let member = unavailable_in(member);
                found
                    .iter_mut()
                    .zip(member)
                    .enumerate()
                    .for_each(|(row, (found, is))| *found |= is && parent.is_valid(row));
            }
            found
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let elements = unavailable_in(list.values());
            // The text as numbers, a byte each.
            let numbers =
                cast(list.values(), &DataType::Float64).ok().filter(|_| list.value_type().is_numeric());
            let numbers = numbers.as_ref().map(|numbers| numbers.as_primitive::<Float64Type>());
            let of_row = |row: usize| {
                let (from, to) = (list.offsets()[row] as usize, list.offsets()[row + 1] as usize);
                let is_text = numbers.is_some_and(|numbers| {
                    let bytes = UNAVAILABLE.bytes().map(f64::from);
                    (from..to)
                        .map(|at| if numbers.is_valid(at) { numbers.value(at) } else { f64::NAN })
                        .eq(bytes)
                });
                list.is_valid(row) && (is_text || elements[from..to].contains(&true))
            };
            (0..list.len()).map(of_row).collect()
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let names = map.keys().as_string_opt::<i32>().map(texts);
            let values = unavailable_in(map.values());
            let of_row = |row: usize| {
                let (from, to) = (map.offsets()[row] as usize, map.offsets()[row + 1] as usize);
                let is_named = names.as_ref().is_some_and(|names| names[from..to].contains(&true));
                map.is_valid(row) && (is_named || values[from..to].contains(&true))
            };
            (0..map.len()).map(of_row).collect()
        }
        _ => vec![false; array.len()],
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ChangePlan, Kind};

    #[test]
    fn columns_of_rows_are_described_as_those_of_after() {
        let said = ["", "after", "after.id", "after.customer.name", "afterwards", "before.id", "op"];
        let said = said.iter().map(|path| ((*path).to_owned(), format!("of {path}"))).collect();
        let plan = ChangePlan { kind: Kind::Debezium, key: None, primary_key: Vec::new() };
        let found: Vec<String> = plan.descriptions(said).into_keys().collect();
        assert_eq!(found, ["customer.name", "id"]);
    }
}
