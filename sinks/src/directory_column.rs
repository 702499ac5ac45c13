//! The columns that a directory template takes values from.

use std::borrow::Cow;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Fields, Schema};
use jiff::Span;
use jiff::civil::Date;

use crate::directory::{MAX_DIRECTORY_VALUE_BYTES, NULL_DIRECTORY, Segment, check_value};

/// What keeps a [`DirectoryTemplate`](crate::DirectoryTemplate) and the columns of a pipeline apart.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectoryMistake {
    /// The field that no column has, such as `customer.country`; `None` for any other mistake.
    pub missing: Option<String>,
    /// What is wrong, for people.
    pub text: String,
}

/// Why a value makes no directory. Values themselves are not shown: they are data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    Empty,
    IsNull,
    TooLong(usize),
    Control,
    Date,
}

/// The place of a field among `fields`: the index of a column, then of a field in it, and so on. A name with
/// dots in it is found too.
fn locate(fields: &Fields, path: &str) -> Option<Vec<usize>> {
    if let Some((index, _)) = fields.find(path) {
        return Some(vec![index]);
    }
    path.match_indices('.').find_map(|(dot, _)| {
        let (index, field) = fields.find(&path[..dot])?;
        let DataType::Struct(inner) = field.data_type() else { return None };
        let rest = locate(inner, &path[dot + 1..])?;
        Some(std::iter::once(index).chain(rest).collect())
    })
}

fn type_at<'a>(fields: &'a Fields, place: &[usize]) -> Option<&'a DataType> {
    let (first, rest) = place.split_first()?;
    match (fields.get(*first)?.data_type(), rest) {
        (found, []) => Some(found),
        (DataType::Struct(inner), rest) => type_at(inner, rest),
        _ => None,
    }
}

fn makes_directories(data_type: &DataType) -> bool {
    use DataType::*;
    matches!(data_type, Utf8 | LargeUtf8 | Utf8View | Boolean | Date32) || data_type.is_integer()
}

/// What values are made into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noun {
    Directory,
    Table,
}

impl Noun {
    fn name(self) -> &'static str {
        match self {
            Noun::Directory => "directory",
            Noun::Table => "table",
        }
    }
}

pub(crate) fn mistakes(segments: &[Segment], columns: &Schema, noun: Noun) -> Vec<DirectoryMistake> {
    let mut found = Vec::new();
    let mut note = |missing: Option<&str>, text: String| {
        found.push(DirectoryMistake { missing: missing.map(str::to_owned), text });
    };
    for segment in segments {
        let place = segment.field().and_then(|path| {
            let place = locate(columns.fields(), path);
            match place.as_deref().and_then(|p| type_at(columns.fields(), p)) {
                None => note(Some(path), format!("there is no column `{path}`")),
                Some(found) if !makes_directories(found) => note(
                    None,
                    format!(
                        "`{path}` is of type {found}; a {}'s name is made of a string, an integer, a boolean or a date",
                        noun.name()
                    ),
                ),
                Some(_) => {}
            }
            place
        });
        let Some(key) = segment.key() else { continue };
        for (index, column) in columns.fields().iter().enumerate() {
            // Table engines do not tell upper from lower case in names.
            if column.name().eq_ignore_ascii_case(key) && place.as_deref() != Some(&[index]) {
                let text = format!(
                    "the key `{key}` is the name of a column with another content: readers would find both, and BigQuery refuses such files; give the key another name"
                );
                note(None, text);
            }
        }
    }
    if places_left(segments, columns).is_some_and(|left| left.is_empty()) {
        let text = "every column is a directory, so that nothing is left for the files; take one field out of the template";
        note(None, text.to_owned());
    }
    found
}

/// The columns that the path does not hold already; `None` if those are all.
pub(crate) fn places_left(segments: &[Segment], columns: &Schema) -> Option<Vec<usize>> {
    let in_path = |index: usize, name: &str| {
        segments.iter().any(|s| {
            let (Some(key), Some(path)) = (s.key(), s.field()) else { return false };
            key.eq_ignore_ascii_case(name) && locate(columns.fields(), path).as_deref() == Some(&[index])
        })
    };
    let all = columns.fields().iter().enumerate();
    let left: Vec<usize> = all.filter(|(i, f)| !in_path(*i, f.name())).map(|(i, _)| i).collect();
    (left.len() < columns.fields().len()).then_some(left)
}

/// One field of all rows of a batch.
#[derive(Debug)]
pub(crate) struct Column<'a> {
    path: &'a str,
    /// The structs around the field: where one is null, so is the field.
    parents: Vec<&'a ArrayRef>,
    values: &'a ArrayRef,
}

impl<'a> Column<'a> {
    pub(crate) fn find(rows: &'a RecordBatch, path: &'a str) -> Option<Self> {
        let place = locate(rows.schema_ref().fields(), path)?;
        let (first, rest) = place.split_first()?;
        let mut values = rows.columns().get(*first)?;
        let mut parents = Vec::new();
        for index in rest {
            parents.push(values);
            values = values.as_struct_opt()?.columns().get(*index)?;
        }
        Some(Column { path, parents, values })
    }

    /// The value of a row as text; `None` is null.
    pub(crate) fn value(&self, row: usize) -> Result<Option<Cow<'a, str>>, Unfit> {
        if self.values.is_null(row) || self.parents.iter().any(|p| p.is_null(row)) {
            return Ok(None);
        }
        let values = self.values;
        let text = match values.data_type() {
            DataType::Utf8 => values.as_string::<i32>().value(row).into(),
            DataType::LargeUtf8 => values.as_string::<i64>().value(row).into(),
            DataType::Utf8View => values.as_string_view().value(row).into(),
            DataType::Boolean => if values.as_boolean().value(row) { "true" } else { "false" }.into(),
            DataType::Int8 => values.as_primitive::<Int8Type>().value(row).to_string().into(),
            DataType::Int16 => values.as_primitive::<Int16Type>().value(row).to_string().into(),
            DataType::Int32 => values.as_primitive::<Int32Type>().value(row).to_string().into(),
            DataType::Int64 => values.as_primitive::<Int64Type>().value(row).to_string().into(),
            DataType::UInt8 => values.as_primitive::<UInt8Type>().value(row).to_string().into(),
            DataType::UInt16 => values.as_primitive::<UInt16Type>().value(row).to_string().into(),
            DataType::UInt32 => values.as_primitive::<UInt32Type>().value(row).to_string().into(),
            DataType::UInt64 => values.as_primitive::<UInt64Type>().value(row).to_string().into(),
            DataType::Date32 => {
                date(values.as_primitive::<Date32Type>().value(row)).ok_or(Unfit::Date)?.into()
            }
            // `mistakes` lets no other type come here.
            _ => return Ok(None),
        };
        let text: Cow<'a, str> = text;
        check_value(&text)?;
        Ok(Some(text))
    }

    pub(crate) fn explain(&self, reason: Unfit, noun: Noun) -> String {
        let path = self.path;
        match (reason, noun) {
            (Unfit::Empty, Noun::Directory) => {
                format!("`{path}` is empty, which readers of directories take for null")
            }
            (Unfit::Empty, Noun::Table) => format!("`{path}` is empty, and no part of a table's name"),
            (Unfit::IsNull, _) => format!("`{path}` is the text {NULL_DIRECTORY}, which is taken for null"),
            (Unfit::TooLong(bytes), noun) => format!(
                "`{path}` makes a {} name of {bytes} bytes, {MAX_DIRECTORY_VALUE_BYTES} are the most",
                noun.name()
            ),
            (Unfit::Control, noun) => {
                format!("`{path}` has a control character that no {} name can hold", noun.name())
            }
            (Unfit::Date, _) => format!("`{path}` is not a date of the years 1 to 9999"),
        }
    }
}

fn date(days: i32) -> Option<String> {
    let days: Span = Span::new().try_days(i64::from(days)).ok()?;
    let date: Date = jiff::civil::date(1970, 1, 1).checked_add(days).ok()?;
    (date.year() >= 1).then(|| date.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_json::ReaderBuilder;
    use arrow_schema::Field;

    use super::*;
    use crate::{DirectoryTemplate, ErrorKind, RowCoord};

    fn schema() -> Schema {
        let address = Fields::from(vec![Field::new("city", DataType::Utf8, true)]);
        Schema::new(vec![
            Field::new("country", DataType::Utf8, true),
            Field::new("address", DataType::Struct(address), true),
            Field::new("shop", DataType::Int64, true),
            Field::new("paid", DataType::Boolean, true),
            Field::new("day", DataType::Date32, true),
            Field::new("price", DataType::Float64, true),
            Field::new("a.b", DataType::Utf8, true),
        ])
    }

    fn rows(lines: &[&str]) -> RecordBatch {
        let mut decoder = ReaderBuilder::new(Arc::new(schema())).build_decoder().unwrap();
        decoder.decode(lines.join("\n").as_bytes()).unwrap();
        decoder.flush().unwrap().unwrap()
    }

    fn directories(template: &str, lines: &[&str]) -> Vec<(String, Vec<u64>)> {
        let coords: Vec<_> =
            (0..lines.len() as i64).map(|offset| RowCoord { offset, sub: 0, timestamp: Some(0) }).collect();
        DirectoryTemplate::parse(template).unwrap().divide(&rows(lines), &coords).unwrap()
    }

    #[test]
    fn values_of_every_kind_make_directories_and_null_is_hives() {
        let found = directories(
            "c={country}/city={address.city}/s={shop}/p={paid}/d={day}/t=%Y",
            &[
                r#"{"country": "D/E", "address": {"city": "=%"}, "shop": -7, "paid": true, "day": "2024-02-29"}"#,
                r#"{"country": "..", "address": null, "shop": 0, "paid": false, "day": "0001-01-01"}"#,
                r#"{"address": {"city": null}}"#,
                r#"{"address": null}"#,
            ],
        );
        let null = NULL_DIRECTORY;
        assert_eq!(
            found,
            [
                ("c=%2E%2E/city=".to_owned() + null + "/s=0/p=false/d=0001-01-01/t=1970", vec![1]),
                ("c=D%2FE/city=%3D%25/s=-7/p=true/d=2024-02-29/t=1970".to_owned(), vec![0]),
                (format!("c={null}/city={null}/s={null}/p={null}/d={null}/t=1970"), vec![2, 3]),
            ]
        );
        assert_eq!(directories("k={a.b}", &[r#"{"a.b": "x"}"#])[0].0, "k=x", "a name with a dot in it");
    }

    #[test]
    fn what_would_not_come_back_from_a_path_is_named_without_showing_it() {
        let (longest, long) = ("x".repeat(128), "x".repeat(129));
        let lines: Vec<String> =
            ["", NULL_DIRECTORY, &longest, &long, &"/".repeat(43), "\u{85}secret", "ok\n"]
                .iter()
                .map(|text| serde_json::json!({ "country": text }).to_string())
                .collect();
        let rows = rows(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let template = DirectoryTemplate::parse("country={country}").unwrap();
        let unfit = template.unfit(&rows).unwrap();
        assert_eq!(unfit.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [0, 1, 3, 4, 5]);
        assert_eq!(unfit[2].1, "`country` makes a directory name of 129 bytes, 128 are the most");
        assert!(unfit.iter().all(|(_, why)| !why.contains("secret")), "{unfit:?}");
        let coords = vec![RowCoord { offset: 0, sub: 0, timestamp: None }; rows.num_rows()];
        assert_eq!(template.divide(&rows, &coords).unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn dates_that_no_calendar_has_are_named() {
        assert_eq!(date(0).as_deref(), Some("1970-01-01"));
        assert_eq!(date(2_932_896).as_deref(), Some("9999-12-31"));
        for absurd in [2_932_897, i32::MAX, i32::MIN, -719_163] {
            assert_eq!(date(absurd), None, "{absurd}");
        }
    }

    #[test]
    fn mistakes_name_the_field_and_what_readers_would_make_of_it() {
        let mistakes = |template: &str| DirectoryTemplate::parse(template).unwrap().mistakes(&schema());
        for good in ["c={country}", "country={country}", "COUNTRY={country}", "dt=%Y/city={address.city}"] {
            assert_eq!(mistakes(good), [], "{good}");
        }
        for missing in ["x={contry}", "x={address.zip}", "x={country.x}"] {
            assert!(mistakes(missing)[0].missing.is_some(), "{missing}");
        }
        for (template, part) in [
            ("x={price}", "of type Float64"),
            ("x={address}", "of type Struct"),
            ("day=%Y-%m-%d", "is the name of a column"),
            ("Country={address.city}", "is the name of a column"),
        ] {
            let found = mistakes(template);
            assert!(found.len() == 1 && found[0].text.contains(part), "{template}: {found:?}");
        }
    }

    #[test]
    fn only_what_the_path_holds_is_left_out_of_the_files() {
        let left = |template: &str| DirectoryTemplate::parse(template).unwrap().columns_of_files(&schema());
        assert_eq!(left("country={country}/s={shop}"), Some(vec![1, 2, 3, 4, 5, 6]));
        for all in ["c={country}", "city={address.city}", "%Y"] {
            assert_eq!(left(all), None, "{all}");
        }
        let one = Schema::new(vec![Field::new("country", DataType::Utf8, true)]);
        let template = DirectoryTemplate::parse("country={country}").unwrap();
        assert!(template.mistakes(&one)[0].text.contains("nothing is left"));
    }
}
