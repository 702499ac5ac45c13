//! Columns of rows that the place where they go does not have.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, ListArray, RecordBatch, StructArray};
use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};

use crate::error::{Error, ErrorKind, Result};

/// The code of dead letters of rows that have a value in a column that is left out, where that is not to be.
pub const NEW_COLUMN: &str = "NEW_COLUMN";

/// What is left out of rows, and whether those that have a value there are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// By the places of fields: a column, then a field in it, and so on. Items of a list are passed through.
    places: Vec<Vec<usize>>,
    /// Their names, with dots.
    names: Vec<String>,
    refuse: bool,
}

impl LeftOut {
    /// The columns of `schema` that `is_missing` says of, by their path. A struct that would have no field left goes as a whole.
    pub(crate) fn new(schema: &Schema, refuse: bool, is_missing: impl Fn(&[&str]) -> bool) -> Option<Self> {
        let mut left_out = LeftOut { places: Vec::new(), names: Vec::new(), refuse };
        left_out.look(schema.fields(), &mut Vec::new(), &mut Vec::new(), &is_missing);
        (!left_out.places.is_empty()).then_some(left_out)
    }

    fn look<'a>(
        &mut self,
        fields: &'a Fields,
        path: &mut Vec<&'a str>,
        place: &mut Vec<usize>,
        is_missing: &impl Fn(&[&str]) -> bool,
    ) {
        for (i, field) in fields.iter().enumerate() {
            path.push(field.name());
            place.push(i);
            let known = self.places.len();
            let mut is_out = is_missing(path);
            if let (false, Some(inner)) = (is_out, members(field.data_type())) {
                self.look(inner, path, place, is_missing);
                let below = self.places[known..].iter().filter(|at| at.len() == place.len() + 1).count();
                is_out = below == inner.len();
            }
            if is_out {
                self.places.truncate(known);
                self.names.truncate(known);
                self.places.push(place.clone());
                self.names.push(path.join("."));
            }
            path.pop();
            place.pop();
        }
    }

    fn at(&self) -> Vec<&[usize]> {
        self.places.iter().map(Vec::as_slice).collect()
    }

    /// The columns that are left.
    pub(crate) fn schema(&self, of: &Schema) -> SchemaRef {
        Arc::new(Schema::new_with_metadata(fields_without(of.fields(), &self.at()), of.metadata().clone()))
    }

    /// The rows without what is left out.
    pub(crate) fn rows(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let at = self.at();
        let columns = without(rows.columns(), &at);
        RecordBatch::try_new(self.schema(rows.schema_ref()), columns).map_err(|e| {
            Error::new(ErrorKind::Encode, "columns cannot be left out of the rows").with_source(e)
        })
    }

    /// The rows that are refused: each with the column that it has a value in.
    pub(crate) fn refused(&self, rows: &RecordBatch) -> Vec<(usize, &str)> {
        if !self.refuse {
            return Vec::new();
        }
        let mut refused: Vec<Option<&str>> = vec![None; rows.num_rows()];
        for (place, name) in self.places.iter().zip(&self.names) {
            let has = has_value(rows.column(place[0]), &place[1..]);
            for (row, _) in has.iter().enumerate().filter(|(_, has)| **has) {
                refused[row].get_or_insert(name);
            }
        }
        refused.into_iter().enumerate().filter_map(|(row, name)| Some((row, name?))).collect()
    }
}

/// The fields of a struct, or of the items of a list.
fn members(data_type: &DataType) -> Option<&Fields> {
    match data_type {
        DataType::Struct(fields) => Some(fields),
        DataType::List(item) => match item.data_type() {
            DataType::Struct(fields) => Some(fields),
            _ => None,
        },
        _ => None,
    }
}

/// What of these places is inside of the field at `i`; none if it goes as a whole.
fn inside<'a>(at: &[&'a [usize]], i: usize) -> Option<Vec<&'a [usize]>> {
    let inside: Vec<&[usize]> = at.iter().filter(|at| at[0] == i).map(|at| &at[1..]).collect();
    (!inside.iter().any(|at| at.is_empty())).then_some(inside)
}

fn fields_without(fields: &Fields, at: &[&[usize]]) -> Fields {
    let left = fields.iter().enumerate().filter_map(|(i, field)| {
        let inside = inside(at, i)?;
        Some(match inside.is_empty() {
            true => field.clone(),
            false => field_without(field, &inside),
        })
    });
    left.collect()
}

fn field_without(field: &FieldRef, at: &[&[usize]]) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::List(item) => DataType::List(field_without(item, at)),
        DataType::Struct(fields) => DataType::Struct(fields_without(fields, at)),
        other => other.clone(),
    };
    Arc::new(Field::clone(field).with_data_type(data_type))
}

fn without(columns: &[ArrayRef], at: &[&[usize]]) -> Vec<ArrayRef> {
    let left = columns.iter().enumerate().filter_map(|(i, column)| {
        let inside = inside(at, i)?;
        Some(match inside.is_empty() {
            true => column.clone(),
            false => column_without(column, &inside),
        })
    });
    left.collect()
}

fn column_without(column: &ArrayRef, at: &[&[usize]]) -> ArrayRef {
    match column.data_type() {
        DataType::List(item) => {
            let list = column.as_list::<i32>();
            let values = column_without(list.values(), at);
            let item = field_without(item, at);
            Arc::new(ListArray::new(item, list.offsets().clone(), values, list.nulls().cloned()))
        }
        DataType::Struct(fields) => {
            let members = column.as_struct();
            let left = without(members.columns(), at);
            Arc::new(StructArray::new(fields_without(fields, at), left, members.nulls().cloned()))
        }
        _ => column.clone(),
    }
}

/// Of each row, whether it has a value at that place: not null, and for a list not empty.
fn has_value(column: &ArrayRef, place: &[usize]) -> Vec<bool> {
    let of_items = |list: &ListArray, items: Vec<bool>| -> Vec<bool> {
        let row = |row: usize| {
            let range = list.value_offsets()[row] as usize..list.value_offsets()[row + 1] as usize;
            list.is_valid(row) && items[range].contains(&true)
        };
        (0..list.len()).map(row).collect()
    };
    match (column.data_type(), place) {
        (DataType::List(_), []) => {
            of_items(column.as_list(), vec![true; column.as_list::<i32>().values().len()])
        }
        (DataType::List(_), place) => {
            let list = column.as_list::<i32>();
            of_items(list, has_value(list.values(), place))
        }
        (DataType::Struct(fields), []) => {
            let members = (0..fields.len()).map(|field| has_value(column.as_struct().column(field), &[]));
            let members: Vec<Vec<bool>> = members.collect();
            (0..column.len()).map(|row| column.is_valid(row) && members.iter().any(|has| has[row])).collect()
        }
        (DataType::Struct(_), [first, rest @ ..]) => {
            let inner = has_value(column.as_struct().column(*first), rest);
            inner.into_iter().enumerate().map(|(row, has)| has && column.is_valid(row)).collect()
        }
        _ => (0..column.len()).map(|row| column.is_valid(row)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use arrow_json::ReaderBuilder;
    use serde_json::{Value, json};

    use super::*;

    fn schema() -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        let parts = |fields: Vec<Field>| DataType::Struct(fields.into());
        let item = Field::new_list_field(parts(vec![text("sku"), text("color")]), true);
        Arc::new(Schema::new(vec![
            text("id"),
            Field::new("customer", parts(vec![text("name"), text("email")]), true),
            Field::new("items", DataType::List(Arc::new(item)), true),
            Field::new("tags", DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))), true),
            Field::new("extra", parts(vec![text("a"), text("b")]), true),
        ]))
    }

    fn rows(values: &[Value]) -> RecordBatch {
        let mut decoder = ReaderBuilder::new(schema()).build_decoder().unwrap();
        decoder.serialize(values).unwrap();
        decoder.flush().unwrap().unwrap()
    }

    fn lines(rows: &RecordBatch) -> Vec<Value> {
        let mut writer = arrow_json::LineDelimitedWriter::new(Vec::new());
        writer.write(rows).unwrap();
        let bytes = writer.into_inner();
        serde_json::Deserializer::from_slice(&bytes).into_iter().map(Result::unwrap).collect()
    }

    #[test]
    fn columns_and_fields_of_structs_and_of_lists_are_left_out() {
        let missing = ["tags", "customer.email", "items.color", "extra.a", "extra.b"];
        let left_out =
            |refuse| LeftOut::new(&schema(), refuse, |path| missing.contains(&&*path.join("."))).unwrap();
        let rows = rows(&[
            json!({"id": "0", "customer": {"name": "ada"}, "items": [{"sku": "x"}], "tags": []}),
            json!({"id": "1", "customer": {"name": "bob", "email": "b@example.org"}}),
            json!({"id": "2", "items": [{"sku": "y"}, {"sku": "z", "color": "red"}]}),
            json!({"id": "3", "tags": ["new"]}),
            json!({"id": "4", "extra": {"b": "1"}}),
            json!({"id": "5", "items": [], "extra": {}}),
        ]);
        assert_eq!(left_out(false).names, ["customer.email", "items.color", "tags", "extra"]);
        assert_eq!(left_out(false).refused(&rows), []);
        let refused = left_out(true);
        let refused = refused.refused(&rows);
        assert_eq!(refused, [(1, "customer.email"), (2, "items.color"), (3, "tags"), (4, "extra")]);
        let left = left_out(true).rows(&rows).unwrap();
        assert_eq!(
            lines(&left),
            [
                json!({"id": "0", "customer": {"name": "ada"}, "items": [{"sku": "x"}]}),
                json!({"id": "1", "customer": {"name": "bob"}}),
                json!({"id": "2", "items": [{"sku": "y"}, {"sku": "z"}]}),
                json!({"id": "3"}),
                json!({"id": "4"}),
                json!({"id": "5", "items": []}),
            ]
        );
        assert_eq!(LeftOut::new(&schema(), true, |_| false), None);
    }
}
