//! Columns of tables as BigQuery's interfaces tell them, and how they differ from those of rows.

use std::collections::BTreeMap;

use arrow_schema::{DataType, Field};
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::{
    TableFieldSchema, table_field_schema,
};
use serde_json::{Map, Value, json};

/// Of the description of a column, in bytes: BigQuery counts characters.
const MAX_DESCRIPTION: usize = 1_024;

/// What Arrow calls texts that are [JSON](https://arrow.apache.org/docs/format/CanonicalExtensions.html#json).
const JSON_EXTENSION: &str = "arrow.json";

/// A column, with types by the names of [the REST interface](https://cloud.google.com/bigquery/docs/reference/rest/v2/tables#TableFieldSchema).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// Such as INTEGER; empty if it is not told.
    pub(crate) data_type: String,
    pub(crate) mode: Repetition,
    /// Of a RECORD.
    pub(crate) columns: Vec<Column>,
    /// What is said of it, if it is made; empty: nothing.
    pub(crate) description: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repetition {
    Nullable,
    Required,
    Repeated,
}

impl Column {
    /// Of a field, and as [BigQuery takes it](super::types).
    pub(crate) fn of(field: &Field, as_taken: &Field) -> Column {
        let item = match field.data_type() {
            DataType::List(item) => item,
            _ => field,
        };
        let (mode, of, taken) = match (field.data_type(), as_taken.data_type()) {
            (DataType::List(of), DataType::List(taken)) => {
                (Repetition::Repeated, of.data_type(), taken.data_type())
            }
            (of, taken) if field.is_nullable() => (Repetition::Nullable, of, taken),
            (of, taken) => (Repetition::Required, of, taken),
        };
        let columns = match (of, taken) {
            (DataType::Struct(of), DataType::Struct(taken)) => {
                of.iter().zip(taken).map(|(of, taken)| Column::of(of, taken)).collect()
            }
            _ => Vec::new(),
        };
        let is_json = is_json(of) || is_json_text(item);
        let data_type = if is_json { "JSON".to_owned() } else { name_of(taken) };
        let description = String::new();
        Column { name: as_taken.name().clone(), data_type, mode, columns, description }
    }

    /// As the Storage Write API tells it.
    pub(crate) fn of_storage(field: &TableFieldSchema) -> Column {
        use table_field_schema::{Mode, Type};
        let data_type = match field.r#type() {
            Type::Unspecified => "",
            Type::Int64 => "INTEGER",
            Type::Double => "FLOAT",
            Type::Bool => "BOOLEAN",
            Type::Struct => "RECORD",
            other => other.as_str_name(),
        };
        let mode = match field.mode() {
            Mode::Required => Repetition::Required,
            Mode::Repeated => Repetition::Repeated,
            _ => Repetition::Nullable,
        };
        let columns = field.fields.iter().map(Column::of_storage).collect();
        let (data_type, description) = (data_type.to_owned(), String::new());
        Column { name: field.name.clone(), data_type, mode, columns, description }
    }

    /// As the REST interface tells it.
    pub(crate) fn of_rest(field: &Value) -> Column {
        let text = |name: &str| field[name].as_str().unwrap_or_default();
        let data_type = match text("type") {
            "INT64" => "INTEGER",
            "FLOAT64" => "FLOAT",
            "BOOL" => "BOOLEAN",
            "STRUCT" => "RECORD",
            other => other,
        };
        let mode = match text("mode") {
            "REQUIRED" => Repetition::Required,
            "REPEATED" => Repetition::Repeated,
            _ => Repetition::Nullable,
        };
        Column {
            name: text("name").to_owned(),
            data_type: data_type.to_owned(),
            mode,
            columns: Column::all_of_rest(field),
            description: text("description").to_owned(),
        }
    }

    /// Puts to columns what is said of them, by the dotted path of their names in lower case.
    pub(crate) fn describe(columns: &mut [Column], of: &BTreeMap<String, String>, above: &str) {
        for column in columns {
            let path = format!("{above}{}", column.name.to_lowercase());
            if let Some(description) = of.get(&path) {
                column.description = cut(description, MAX_DESCRIPTION).to_owned();
            }
            Column::describe(&mut column.columns, of, &format!("{path}."));
        }
    }

    /// The `fields` of a schema or of a record.
    pub(crate) fn all_of_rest(of: &Value) -> Vec<Column> {
        of["fields"].as_array().map(|fields| fields.iter().map(Column::of_rest).collect()).unwrap_or_default()
    }

    pub(crate) fn to_rest(&self) -> Value {
        let mode = match self.mode {
            Repetition::Nullable => "NULLABLE",
            Repetition::Required => "REQUIRED",
            Repetition::Repeated => "REPEATED",
        };
        let mut field = Map::new();
        field.insert("name".into(), json!(self.name));
        field.insert("type".into(), json!(self.data_type));
        field.insert("mode".into(), json!(mode));
        if !self.description.is_empty() {
            field.insert("description".into(), json!(self.description));
        }
        if self.data_type == "RECORD" {
            field.insert("fields".into(), self.columns.iter().map(Column::to_rest).collect());
        }
        Value::Object(field)
    }

    /// The type in GoogleSQL, such as `ARRAY<STRUCT<sku STRING>>`.
    pub(crate) fn sql_type(&self) -> String {
        let one = match self.data_type.as_str() {
            "INTEGER" => "INT64".to_owned(),
            "FLOAT" => "FLOAT64".to_owned(),
            "BOOLEAN" => "BOOL".to_owned(),
            "RECORD" => {
                let members: Vec<String> = self.columns.iter().map(Column::sql).collect();
                format!("STRUCT<{}>", members.join(", "))
            }
            other => other.to_owned(),
        };
        if self.mode == Repetition::Repeated { format!("ARRAY<{one}>") } else { one }
    }

    /// As `CREATE TABLE` says it.
    pub(crate) fn sql(&self) -> String {
        let required = if self.mode == Repetition::Required { " NOT NULL" } else { "" };
        // A text of JSON is one of GoogleSQL.
        let described = match self.description.as_str() {
            "" => String::new(),
            text => format!(" OPTIONS (description = {})", json!(text)),
        };
        format!("`{}` {}{required}{described}", self.name, self.sql_type())
    }

    /// As it may be added to a table that has rows.
    pub(crate) fn added(&self) -> Column {
        let mode = match self.mode {
            Repetition::Required => Repetition::Nullable,
            mode => mode,
        };
        Column { mode, ..self.clone() }
    }
}

/// The beginning of a text, of so many bytes at most.
pub(super) fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// Whether texts are JSON.
pub(super) fn is_json_text(field: &Field) -> bool {
    field.extension_type_name() == Some(JSON_EXTENSION)
}

/// Whether values go into a column of JSON, as texts: GoogleSQL has neither maps nor lists of lists.
pub(super) fn is_json(data_type: &DataType) -> bool {
    match data_type {
        DataType::Map(..) => true,
        DataType::List(item) => matches!(item.data_type(), DataType::List(_) | DataType::Map(..)),
        _ => false,
    }
}

fn name_of(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Utf8 => "STRING",
        DataType::Binary => "BYTES",
        DataType::Int64 => "INTEGER",
        DataType::Float64 => "FLOAT",
        DataType::Decimal128(..) => "NUMERIC",
        DataType::Decimal256(..) => "BIGNUMERIC",
        DataType::Date32 => "DATE",
        DataType::Time64(_) => "TIME",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP",
        DataType::Timestamp(_, None) => "DATETIME",
        DataType::Struct(_) => "RECORD",
        other => return other.to_string(),
    };
    name.to_owned()
}

/// How a table is not what rows need.
#[derive(Debug, Default)]
pub(crate) struct Differences {
    /// What the table lacks: the path of the record that lacks it, empty for the table itself, and the column.
    pub(crate) missing: Vec<(Vec<String>, Column)>,
    /// Columns that want a value, and rows that have none of them ever.
    pub(crate) never_given: Vec<String>,
    /// Columns that want a value, of which rows may have none.
    pub(crate) strict: Vec<String>,
    /// A sentence for each column of another type.
    pub(crate) other_type: Vec<String>,
}

impl Differences {
    /// Names are compared without their case, as BigQuery does.
    pub(crate) fn between(found: &[Column], wanted: &[Column]) -> Differences {
        let mut differences = Differences::default();
        differences.compare(&mut Vec::new(), found, wanted);
        differences
    }

    fn compare(&mut self, path: &mut Vec<String>, found: &[Column], wanted: &[Column]) {
        let dotted = |path: &[String], name: &str| [path, &[name.to_owned()]].concat().join(".");
        for column in wanted {
            let Some(there) = found.iter().find(|there| there.name.eq_ignore_ascii_case(&column.name)) else {
                self.missing.push((path.clone(), column.clone()));
                continue;
            };
            let name = dotted(path, &column.name);
            if !there.data_type.is_empty() && !holds(there, column) {
                self.other_type.push(format!(
                    "column {name} is {} in the table and {} in the rows",
                    there.sql_type(),
                    column.sql_type()
                ));
                continue;
            }
            if there.mode == Repetition::Required && column.mode == Repetition::Nullable {
                self.strict.push(name);
            }
            if !column.columns.is_empty() && !there.columns.is_empty() {
                path.push(there.name.clone());
                self.compare(path, &there.columns, &column.columns);
                path.pop();
            }
        }
        for there in found.iter().filter(|there| there.mode == Repetition::Required) {
            if !wanted.iter().any(|column| column.name.eq_ignore_ascii_case(&there.name)) {
                self.never_given.push(dotted(path, &there.name));
            }
        }
    }
}

/// Whether a column takes the values of another as they are. Where BigQuery's documentation gives no answer: no, but for texts.
fn holds(there: &Column, column: &Column) -> bool {
    const OWN: [&str; 12] = [
        "BOOLEAN",
        "INTEGER",
        "FLOAT",
        "NUMERIC",
        "BIGNUMERIC",
        "BYTES",
        "DATE",
        "TIME",
        "DATETIME",
        "TIMESTAMP",
        "RECORD",
        "STRING",
    ];
    let is_repeated = |column: &Column| column.mode == Repetition::Repeated;
    let is_text = match column.data_type.as_str() {
        "STRING" => !OWN.contains(&there.data_type.as_str()),
        "JSON" => there.data_type == "STRING",
        _ => false,
    };
    is_repeated(there) == is_repeated(column) && (there.data_type == column.data_type || is_text)
}
