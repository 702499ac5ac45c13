//! Which records or rows a transform is given: `when` of a pipeline file.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, Scalar, StringArray};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Schema};
use gristmill_records::Record;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::document::nearest;

/// A condition. What is named has to hold, all of it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct When {
    /// The topic is one of these.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub topics: Option<Vec<String>>,
    /// For a transform of records: the record has such a header.
    #[serde(default)]
    pub header: Option<HeaderCondition>,
    /// For a transform of records: whether the value is null.
    #[serde(default)]
    pub tombstone: Option<bool>,
    /// For a transform of columns: what a column holds.
    #[serde(default)]
    pub column: Option<ColumnCondition>,
    /// One of these holds.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub any: Option<Vec<When>>,
    /// This does not hold.
    #[serde(default)]
    pub not: Option<Box<When>>,
}

/// A header that a record has.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderCondition {
    /// Its name.
    pub name: String,
    /// Its value, as text; by default any.
    #[serde(default)]
    pub equals: Option<String>,
}

/// What a column holds. A null equals nothing, is in no list, and is neither above nor below anything.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 2))]
pub struct ColumnCondition {
    /// The column, as the transform is given it; a member of a struct by its dotted path, such as `customer.country`.
    pub path: String,
    /// Whether it is null.
    #[serde(default)]
    pub null: Option<bool>,
    /// It is this.
    #[serde(default)]
    pub equals: Option<Literal>,
    /// It is one of these.
    #[serde(default, rename = "in")]
    #[schemars(length(min = 1))]
    pub one_of: Option<Vec<Literal>>,
    /// It is this or above.
    #[serde(default)]
    pub at_least: Option<Literal>,
    /// It is below this.
    #[serde(default)]
    pub below: Option<Literal>,
}

/// A string, a number or a boolean, of the column's type: `DE`, `1000`, `2026-11-01T00:00:00Z`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("type" = ["string", "number", "boolean"]))]
pub struct Literal(pub Value);

/// A condition that fits what it is held against.
#[derive(Clone, Debug)]
pub(crate) enum Predicate {
    Fixed(bool),
    Header { name: Vec<u8>, equals: Option<Vec<u8>> },
    Tombstone(bool),
    Column { path: Vec<usize>, test: Test },
    All(Vec<Predicate>),
    Any(Vec<Predicate>),
    Not(Box<Predicate>),
}

#[derive(Clone, Debug)]
pub(crate) enum Test {
    Null(bool),
    OneOf(Vec<Scalar<ArrayRef>>),
    AtLeast(Scalar<ArrayRef>),
    Below(Scalar<ArrayRef>),
}

/// What a condition is held against.
#[derive(Clone, Copy)]
pub(crate) enum Of<'a> {
    Records,
    Columns(&'a Schema),
}

impl When {
    /// # Errors
    /// What it names and does not fit, in a sentence.
    pub(crate) fn of(&self, topic: &str, of: Of<'_>) -> Result<Predicate, String> {
        let mut all = Vec::new();
        if let Some(topics) = &self.topics {
            all.push(Predicate::Fixed(topics.iter().any(|t| t == topic)));
        }
        if let Some(HeaderCondition { name, equals }) = &self.header {
            of.records("header")?;
            let equals = equals.as_ref().map(|text| text.clone().into_bytes());
            all.push(Predicate::Header { name: name.clone().into_bytes(), equals });
        }
        if let Some(is) = self.tombstone {
            of.records("tombstone")?;
            all.push(Predicate::Tombstone(is));
        }
        if let Some(column) = &self.column {
            let Of::Columns(schema) = of else {
                return Err("`column` is for transforms of columns, and this one gets records: `header`, `tombstone` \
                            and `topics` are for these"
                    .into());
            };
            all.extend(column.tests(schema)?);
        }
        if let Some(any) = &self.any {
            let any: Result<_, _> = any.iter().map(|when| when.of(topic, of)).collect();
            all.push(Predicate::Any(any?));
        }
        if let Some(not) = &self.not {
            all.push(Predicate::Not(Box::new(not.of(topic, of)?)));
        }
        Ok(match all.len() {
            1 => all.swap_remove(0),
            _ => Predicate::All(all),
        })
    }
}

impl When {
    /// Every topic that it names, with the pointer to it.
    pub(crate) fn topics(&self, pointer: &str, found: &mut Vec<(String, String)>) {
        for (i, topic) in self.topics.iter().flatten().enumerate() {
            found.push((format!("{pointer}/topics/{i}"), topic.clone()));
        }
        for (i, when) in self.any.iter().flatten().enumerate() {
            when.topics(&format!("{pointer}/any/{i}"), found);
        }
        if let Some(not) = &self.not {
            not.topics(&format!("{pointer}/not"), found);
        }
    }
}

impl Of<'_> {
    fn records(self, what: &str) -> Result<(), String> {
        match self {
            Of::Records => Ok(()),
            Of::Columns(_) => Err(format!(
                "`{what}` is for transforms of records, and this one gets columns: `column` and `topics` are for these"
            )),
        }
    }
}

impl ColumnCondition {
    fn tests(&self, schema: &Schema) -> Result<Vec<Predicate>, String> {
        let (path, data_type) = self.find(schema)?;
        let compares =
            [&self.equals, &self.at_least, &self.below].iter().any(|c| c.is_some()) || self.one_of.is_some();
        if self.null == Some(true) && compares {
            return Err(format!(
                "column {} is to be null and to be compared, and a null equals nothing: that never holds; name the two in \
                 `any`",
                self.path
            ));
        }
        let literal = |literal: &Literal| self.literal(literal, &data_type);
        let mut tests = Vec::new();
        tests.extend(self.null.map(Test::Null));
        let several = self.equals.iter().map(std::slice::from_ref).chain(self.one_of.as_deref());
        for values in several {
            let values: Result<_, _> = values.iter().map(literal).collect();
            tests.push(Test::OneOf(values?));
        }
        if let Some(value) = &self.at_least {
            tests.push(Test::AtLeast(literal(value)?));
        }
        if let Some(value) = &self.below {
            tests.push(Test::Below(literal(value)?));
        }
        Ok(tests.into_iter().map(|test| Predicate::Column { path: path.clone(), test }).collect())
    }

    fn find(&self, schema: &Schema) -> Result<(Vec<usize>, DataType), String> {
        let (mut fields, mut path, mut rest) = (schema.fields(), Vec::new(), self.path.as_str());
        loop {
            // A name may have dots itself: the whole rest first.
            if let Some((at, field)) = fields.find(rest) {
                path.push(at);
                return Ok((path, field.data_type().clone()));
            }
            let member = rest.match_indices('.').find_map(|(dot, _)| {
                let (at, field) = fields.find(&rest[..dot])?;
                match field.data_type() {
                    DataType::Struct(members) => Some((at, members, &rest[dot + 1..])),
                    _ => None,
                }
            });
            let Some((at, members, after)) = member else {
                if self.path.starts_with("_kafka_") {
                    return Err(format!(
                        "there is no column {}: where rows come from cannot be asked here; let the transform read it",
                        self.path
                    ));
                }
                let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
                return Err(match nearest(rest, names.iter().copied()) {
                    Some(near) => {
                        format!("there is no column {}: `{rest}` is not there, `{near}` is", self.path)
                    }
                    None => format!("there is no column {}; there are {}", self.path, names.join(", ")),
                });
            };
            path.push(at);
            (fields, rest) = (members, after);
        }
    }

    fn literal(&self, literal: &Literal, data_type: &DataType) -> Result<Scalar<ArrayRef>, String> {
        let text = match &literal.0 {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let wrong = || format!("`{text}` is not what column {} holds, which is {data_type}", self.path);
        if data_type.is_nested() {
            return Err(format!("column {} is {data_type}: only whether it is null can be asked", self.path));
        }
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let array = cast_with_options(&StringArray::from(vec![text.as_str()]), data_type, &options);
        array.map(Scalar::new).map_err(|_| wrong())
    }
}

impl Predicate {
    pub(crate) fn holds(&self, record: &Record<'_>) -> bool {
        match self {
            Predicate::Fixed(holds) => *holds,
            Predicate::Header { name, equals } => record.headers().into_iter().any(|header| {
                header.name == name.as_slice()
                    && equals.as_ref().is_none_or(|wanted| header.value == Some(wanted.as_slice()))
            }),
            Predicate::Tombstone(is) => record.value().is_none() == *is,
            Predicate::Column { .. } => false,
            Predicate::All(all) => all.iter().all(|predicate| predicate.holds(record)),
            Predicate::Any(any) => any.iter().any(|predicate| predicate.holds(record)),
            Predicate::Not(not) => !not.holds(record),
        }
    }

    /// For each row.
    pub(crate) fn rows(&self, rows: &RecordBatch) -> Result<BooleanBuffer, arrow_schema::ArrowError> {
        let fixed = |holds| match holds {
            true => BooleanBuffer::new_set(rows.num_rows()),
            false => BooleanBuffer::new_unset(rows.num_rows()),
        };
        Ok(match self {
            Predicate::Fixed(holds) => fixed(*holds),
            Predicate::Header { .. } | Predicate::Tombstone(_) => fixed(false),
            Predicate::Column { path, test } => test.rows(rows, path)?,
            Predicate::All(all) => all
                .iter()
                .try_fold(fixed(true), |so_far, next| next.rows(rows).map(|next| &so_far & &next))?,
            Predicate::Any(any) => any
                .iter()
                .try_fold(fixed(false), |so_far, next| next.rows(rows).map(|next| &so_far | &next))?,
            Predicate::Not(not) => !&not.rows(rows)?,
        })
    }
}

impl Test {
    fn rows(&self, rows: &RecordBatch, path: &[usize]) -> Result<BooleanBuffer, arrow_schema::ArrowError> {
        let mut array = rows.column(path[0]).clone();
        let mut nulls = array.nulls().cloned();
        for member in &path[1..] {
            array = array.as_struct().column(*member).clone();
            nulls = NullBuffer::union(nulls.as_ref(), array.nulls());
        }
        let is_valid = match nulls {
            Some(nulls) => nulls.into_inner(),
            None => BooleanBuffer::new_set(rows.num_rows()),
        };
        let holds = |compared: BooleanArray| &is_valid & compared.values();
        Ok(match self {
            Test::Null(true) => !&is_valid,
            Test::Null(false) => is_valid,
            Test::OneOf(values) => {
                let none = BooleanBuffer::new_unset(rows.num_rows());
                values.iter().try_fold(none, |so_far, value| {
                    arrow_ord::cmp::eq(&array, value).map(|equal| &so_far | &holds(equal))
                })?
            }
            Test::AtLeast(value) => holds(arrow_ord::cmp::gt_eq(&array, value)?),
            Test::Below(value) => holds(arrow_ord::cmp::lt(&array, value)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, StructArray, TimestampMillisecondArray};
    use arrow_schema::{Field, Fields, TimeUnit};
    use gristmill_records::{Header, RawBatchBuilder};
    use serde_json::json;

    use super::*;

    fn when(value: Value) -> When {
        serde_json::from_value(value).unwrap()
    }

    fn of_records(value: Value) -> Vec<bool> {
        let mut batch = RawBatchBuilder::new("orders", 0);
        batch.push(0, -1, None, Some(b"x"), [Header::new("kind", b"order")]).unwrap();
        batch.push(1, -1, None, None, [Header::new("kind", b"refund")]).unwrap();
        batch.push(2, -1, None, Some(b""), []).unwrap();
        let predicate = when(value).of("orders", Of::Records).unwrap();
        batch.build().iter().map(|record| predicate.holds(&record)).collect()
    }

    #[test]
    fn records_are_told_apart_by_headers_values_and_topics() {
        assert_eq!(of_records(json!({"header": {"name": "kind"}})), [true, true, false]);
        assert_eq!(of_records(json!({"header": {"name": "kind", "equals": "order"}})), [true, false, false]);
        assert_eq!(of_records(json!({"tombstone": true})), [false, true, false]);
        assert_eq!(of_records(json!({"tombstone": false, "header": {"name": "kind"}})), [true, false, false]);
        assert_eq!(of_records(json!({"not": {"header": {"name": "kind"}}})), [false, false, true]);
        let any = json!({"any": [{"tombstone": true}, {"header": {"name": "kind", "equals": "order"}}]});
        assert_eq!(of_records(any), [true, true, false]);
        assert_eq!(of_records(json!({"topics": ["orders", "x"]})), [true; 3]);
        assert_eq!(of_records(json!({"topics": ["x"]})), [false; 3]);
    }

    fn columns() -> RecordBatch {
        let country = Arc::new(StringArray::from(vec![Some("DE"), Some("FR"), None, Some("DE")]));
        let members: Fields = vec![Field::new("country", DataType::Utf8, true)].into();
        let nulls = Some(NullBuffer::from(vec![true, true, true, false]));
        let customer = StructArray::new(members.clone(), vec![country], nulls);
        let amount = Int64Array::from(vec![Some(-1), Some(5), Some(10), None]);
        let at = TimestampMillisecondArray::from(vec![0, 1000, 2000, 3000]).with_timezone("UTC");
        let fields = vec![
            Field::new("customer", DataType::Struct(members), true),
            Field::new("amount", DataType::Int64, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), false),
            Field::new("a.b", DataType::Int64, true),
        ];
        let columns: Vec<ArrayRef> =
            vec![Arc::new(customer), Arc::new(amount.clone()), Arc::new(at), Arc::new(amount)];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    fn of_columns(value: Value) -> Vec<bool> {
        let columns = columns();
        let predicate = when(value).of("orders", Of::Columns(columns.schema_ref())).unwrap();
        predicate.rows(&columns).unwrap().iter().collect()
    }

    #[test]
    fn rows_are_told_apart_by_what_columns_hold_and_null_is_nothing_but_null() {
        let country = |test: Value| {
            let mut column = json!({"path": "customer.country"});
            column.as_object_mut().unwrap().extend(test.as_object().unwrap().clone());
            of_columns(json!({"column": column}))
        };
        assert_eq!(country(json!({"equals": "DE"})), [true, false, false, false]);
        assert_eq!(country(json!({"in": ["DE", "FR"]})), [true, true, false, false]);
        assert_eq!(country(json!({"null": true})), [false, false, true, true]);
        assert_eq!(country(json!({"null": false, "below": "E"})), [true, false, false, false]);
        let amount = |test: Value| of_columns(json!({"column": test}));
        assert_eq!(
            amount(json!({"path": "amount", "at_least": 0, "below": 10})),
            [false, true, false, false]
        );
        assert_eq!(amount(json!({"path": "a.b", "equals": "5"})), [false, true, false, false]);
        let since = json!({"path": "at", "at_least": "1970-01-01T00:00:01Z"});
        assert_eq!(amount(since), [false, true, true, true]);
        let not = json!({"not": {"column": {"path": "amount", "at_least": 0}}});
        assert_eq!(of_columns(not), [true, false, false, true]);
        assert_eq!(of_columns(json!({"topics": ["orders"]})), [true; 4]);
    }

    #[test]
    fn what_does_not_fit_is_said_with_what_would() {
        let columns = columns();
        for (value, message) in [
            (
                json!({"column": {"path": "customer.contry", "null": true}}),
                "`contry` is not there, `country` is",
            ),
            (json!({"column": {"path": "other", "null": true}}), "there are customer, amount, at, a.b"),
            (
                json!({"column": {"path": "amount", "equals": "x"}}),
                "`x` is not what column amount holds, which is Int64",
            ),
            (json!({"column": {"path": "amount", "equals": 1.5}}), "`1.5` is not what column amount holds"),
            (json!({"column": {"path": "customer", "equals": "x"}}), "only whether it is null can be asked"),
            (
                json!({"column": {"path": "amount", "null": true, "equals": 5}}),
                "column amount is to be null and to be compared",
            ),
            (json!({"column": {"path": "_kafka_offset", "at_least": 5}}), "let the transform read it"),
            (json!({"tombstone": true}), "`tombstone` is for transforms of records"),
            (json!({"not": {"header": {"name": "x"}}}), "`header` is for transforms of records"),
        ] {
            let error = when(value.clone()).of("orders", Of::Columns(columns.schema_ref())).unwrap_err();
            assert!(error.contains(message), "{value}: {error}");
        }
        let error =
            when(json!({"column": {"path": "x", "null": true}})).of("orders", Of::Records).unwrap_err();
        assert!(error.contains("`column` is for transforms of columns"), "{error}");
    }
}
