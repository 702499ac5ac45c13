//! Arrow columns as the values of records: Avro with a schema id in front, or JSON.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int32Array, ListArray, MapArray, RecordBatch, RecordBatchOptions,
    StringArray, StructArray,
};
use arrow_avro::schema::{
    AVRO_ENUM_SYMBOLS_METADATA_KEY, AVRO_NAME_METADATA_KEY, AvroSchema, FingerprintStrategy,
    SCHEMA_METADATA_KEY,
};
use arrow_avro::writer::format::AvroSoeFormat;
use arrow_avro::writer::{Encoder, WriterBuilder};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};

use crate::avro::{Texts, arrow_avro};
use crate::error::{Error, ErrorKind, Result, joined};
use crate::json_schema::Writing;
use crate::shown::json_lines;
use crate::{framing, json_schema};

/// The Avro schema of columns: a record with this name. Nullable fields are unions with null, null first.
///
/// # Errors
/// [`ErrorKind::UnsupportedType`] for a type that Avro does not have, such as an unsigned integer of 64 bits.
pub fn avro_schema_of(columns: &Schema, name: &str) -> Result<String> {
    let mut columns = columns.clone();
    columns.metadata.remove(SCHEMA_METADATA_KEY);
    columns.metadata.insert(AVRO_NAME_METADATA_KEY.to_owned(), name.to_owned());
    let schema = AvroSchema::try_from(&columns).map_err(|e| {
        Error::new(ErrorKind::UnsupportedType, "the columns have no Avro schema").with_source(e)
    })?;
    Ok(schema.json_string)
}

/// Encodes rows as Avro with a schema id in front, as the Schema Registry's serialisers write it: 0, the id in four bytes,
/// big-endian, the datum.
#[derive(Debug)]
pub struct AvroEncoder {
    encoder: Encoder,
    /// As arrow-avro takes them.
    schema: SchemaRef,
    columns: Vec<Fit>,
    /// Where columns are texts of JSON.
    texts: Option<Texts>,
}

/// How a column becomes one that arrow-avro takes: it writes enums from dictionaries of exactly their symbols.
#[derive(Debug)]
enum Fit {
    AsItIs,
    /// The symbols, in order.
    Enum(ArrayRef),
    /// As the type of the field, which has to have each value.
    Cast,
    /// Of the items, or of the entries.
    List(Box<Fit>),
    Struct(Vec<Fit>),
}

impl AvroEncoder {
    /// For rows with these columns, by an Avro record schema without references, whose id is `id`. Fields and columns meet by
    /// name. What has no column, a union of several types or a record that contains itself, is written from texts of JSON, as
    /// [`AvroOptions::recursive_as_json`](crate::AvroOptions) makes them; a member that is left out is null, if it may be.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSchema`] if the text is not such a schema, or a column has no field in it;
    /// [`ErrorKind::UnsupportedType`] if a field has no column, or one of another type.
    pub fn new(columns: &Schema, avro: &str, id: u32) -> Result<AvroEncoder> {
        let fields: Vec<String> = serde_json::from_str::<serde_json::Value>(avro)
            .ok()
            .and_then(|schema| {
                let fields = schema.get("fields")?.as_array()?;
                fields.iter().map(|field| Some(field.get("name")?.as_str()?.to_owned())).collect()
            })
            .ok_or_else(|| Error::new(ErrorKind::InvalidSchema, "the schema is not an Avro record schema"))?;
        if let Some(column) = columns.fields().iter().find(|column| !fields.contains(column.name())) {
            let text = format!(
                "the column `{}` has no field in the Avro schema, which has {}; leave the column out, or register a schema with it",
                column.name(),
                fields.join(", ")
            );
            return Err(Error::new(ErrorKind::InvalidSchema, text));
        }
        let texts = Texts::of(avro)?;
        let avro = texts.as_ref().map_or(avro, Texts::schema);
        let native = arrow_avro(avro, avro).map_err(|e| Error::new(ErrorKind::InvalidSchema, e))?.schema();
        let (fits, fields) = fit_all(native.fields(), columns.fields(), "")?;
        let mut metadata = columns.metadata().clone();
        metadata.insert(SCHEMA_METADATA_KEY.to_owned(), avro.to_owned());
        let schema = Schema::new_with_metadata(fields, metadata);
        let encoder = WriterBuilder::new(schema.clone())
            .with_fingerprint_strategy(FingerprintStrategy::Id(id))
            .build_encoder::<AvroSoeFormat>()
            .map_err(|e| {
                Error::new(ErrorKind::UnsupportedType, "the columns do not fit the Avro schema")
                    .with_source(e)
            })?;
        Ok(AvroEncoder { encoder, schema: Arc::new(schema), columns: fits, texts })
    }

    /// A value for each row.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedType`] for a value that the schema has no form for, such as a null where none may be. Nothing of
    /// the batch counts then.
    pub fn encode(&mut self, rows: &RecordBatch) -> Result<Vec<Vec<u8>>> {
        let fitting = self.columns.iter().zip(rows.columns()).zip(self.schema.fields());
        let columns =
            fitting.map(|((fit, column), field)| fit.apply(column, field)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let rows =
            RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(unfit)?;
        let encoded = self.encoder.encode(&rows);
        let values = self.encoder.flush();
        encoded.map_err(unfit)?;
        let Some(texts) = &self.texts else {
            return Ok(values.iter().map(|value| value.to_vec()).collect());
        };
        let of_schema = |value: &[u8]| {
            let (front, datum) = value.split_at(framing::PREFIX.min(value.len()));
            let datum = texts.datum(datum).map_err(|why| {
                Error::new(ErrorKind::UnsupportedType, format!("a value does not fit the Avro schema: {why}"))
            })?;
            Ok([front, &datum].concat())
        };
        values.iter().map(|value| of_schema(&value)).collect()
    }
}

fn unfit(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::UnsupportedType, "a value does not fit the Avro schema").with_source(error)
}

/// For the fields given, by name, as arrow-avro would read them.
fn fit_all(native: &Fields, given: &Fields, path: &str) -> Result<(Vec<Fit>, Fields)> {
    let each = given.iter().map(|field| match native.iter().find(|native| native.name() == field.name()) {
        Some(native) => fit(native, field, &joined(path, field.name())),
        None => Ok((Fit::AsItIs, field.clone())),
    });
    let (fits, fields): (Vec<Fit>, Vec<FieldRef>) = each.collect::<Result<Vec<_>>>()?.into_iter().unzip();
    Ok((fits, fields.into()))
}

fn fit(native: &FieldRef, given: &FieldRef, path: &str) -> Result<(Fit, FieldRef)> {
    let with = |data_type: DataType| Arc::new(Field::clone(given).with_data_type(data_type));
    Ok(match (native.data_type(), given.data_type()) {
        (DataType::Dictionary(..), DataType::Utf8) => {
            let symbols = native.metadata().get(AVRO_ENUM_SYMBOLS_METADATA_KEY);
            let symbols: Vec<String> =
                symbols.and_then(|symbols| serde_json::from_str(symbols).ok()).unwrap_or_default();
            let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
            (Fit::Enum(Arc::new(StringArray::from(symbols))), with(dictionary))
        }
        (DataType::List(native), DataType::List(item)) => {
            let (of_item, item) = fit(native, item, &format!("{path}[]"))?;
            (Fit::List(Box::new(of_item)), with(DataType::List(item)))
        }
        (DataType::Map(native, _), DataType::Map(entries, sorted)) => {
            // Their fields meet by place: what they are called is each library's own.
            let (DataType::Struct(theirs), DataType::Struct(ours)) =
                (native.data_type(), entries.data_type())
            else {
                return Ok((Fit::AsItIs, given.clone()));
            };
            let pairs =
                theirs.iter().zip(ours).map(|(native, field)| fit(native, field, &format!("{path}[]")));
            let (fits, fields): (Vec<Fit>, Vec<FieldRef>) =
                pairs.collect::<Result<Vec<_>>>()?.into_iter().unzip();
            let entries = Field::clone(entries).with_data_type(DataType::Struct(fields.into()));
            (Fit::List(Box::new(Fit::Struct(fits))), with(DataType::Map(Arc::new(entries), *sorted)))
        }
        (DataType::Struct(native), DataType::Struct(fields)) => {
            let (fits, fields) = fit_all(native, fields, path)?;
            (Fit::Struct(fits), with(DataType::Struct(fields)))
        }
        (native, data_type) => match taken_as(native, data_type) {
            Some(Taken::AsItIs) => (Fit::AsItIs, given.clone()),
            Some(Taken::Cast(to)) => (Fit::Cast, with(to)),
            None => {
                let text = format!("the column `{path}` is {data_type}, and the field takes {native}");
                return Err(Error::new(ErrorKind::UnsupportedType, text));
            }
        },
    })
}

/// How a column that is no list, map or struct is written as a field's type.
enum Taken {
    AsItIs,
    /// As this type, which has to have each value.
    Cast(DataType),
}

/// None where it would be written as something else: arrow-avro writes what a column has, whatever the field is.
fn taken_as(native: &DataType, given: &DataType) -> Option<Taken> {
    use DataType as T;
    /// What Avro writes in one way.
    #[derive(PartialEq)]
    enum Kind {
        Bool,
        Number,
        Float,
        Double,
        Decimal,
        Sized,
        Fixed(i32),
    }
    let kind = |data_type: &DataType| match data_type {
        T::Boolean => Some(Kind::Bool),
        T::Float32 => Some(Kind::Float),
        T::Float64 => Some(Kind::Double),
        T::Decimal128(..) | T::Decimal256(..) => Some(Kind::Decimal),
        T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Binary | T::LargeBinary | T::BinaryView => {
            Some(Kind::Sized)
        }
        T::FixedSizeBinary(bytes) => Some(Kind::Fixed(*bytes)),
        other if other.is_integer() || (other.is_temporal() && !matches!(other, T::Interval(_))) => {
            Some(Kind::Number)
        }
        _ => None,
    };
    Some(match (native, given) {
        (native, given) if native == given => Taken::AsItIs,
        // A zone says how a time is shown.
        (T::Timestamp(unit, _), T::Timestamp(given, _)) if unit == given => Taken::AsItIs,
        (T::Timestamp(unit, _), T::Timestamp(_, zone)) => Taken::Cast(T::Timestamp(*unit, zone.clone())),
        (T::Time32(_) | T::Time64(_), T::Time32(_) | T::Time64(_)) | (T::Date32, T::Date64) => {
            Taken::Cast(native.clone())
        }
        (T::Int32 | T::Int64, given) if given.is_integer() => Taken::Cast(native.clone()),
        (T::Float64, T::Float32) => Taken::Cast(T::Float64),
        // The number that is written.
        (T::Date32 | T::Time32(_), T::Int32)
        | (T::Int32, T::Date32 | T::Time32(_))
        | (T::Time64(_) | T::Timestamp(..), T::Int64)
        | (T::Int64, T::Time64(_) | T::Timestamp(..)) => Taken::AsItIs,
        (
            T::Decimal128(precision, scale) | T::Decimal256(precision, scale),
            T::Decimal128(own, of) | T::Decimal256(own, of),
        ) => match (of.cmp(scale), own <= precision) {
            (std::cmp::Ordering::Equal, true) => Taken::AsItIs,
            (std::cmp::Ordering::Greater, _) => return None,
            _ => Taken::Cast(native.clone()),
        },
        (native, given) => match (kind(native), kind(given)) {
            (Some(Kind::Sized), Some(Kind::Sized)) => Taken::AsItIs,
            // UUIDs are texts to Avro.
            (Some(Kind::Fixed(_)), Some(Kind::Sized)) | (Some(Kind::Sized), Some(Kind::Fixed(_))) => {
                Taken::AsItIs
            }
            (Some(_), Some(_)) => return None,
            _ => Taken::AsItIs,
        },
    })
}

impl Fit {
    /// The column as `field` has it.
    fn apply(&self, column: &ArrayRef, field: &FieldRef) -> Result<ArrayRef> {
        Ok(match (self, field.data_type()) {
            (Fit::Enum(symbols), _) => {
                let known: HashMap<&str, i32> =
                    symbols.as_string::<i32>().iter().flatten().zip(0..).collect();
                let key = |text: &str| {
                    known.get(text).copied().ok_or_else(|| {
                        let names: Vec<&str> = symbols.as_string::<i32>().iter().flatten().collect();
                        let text = format!(
                            "the column `{}` holds a text that is no symbol of the enum: {}",
                            field.name(),
                            names.join(", ")
                        );
                        Error::new(ErrorKind::UnsupportedType, text)
                    })
                };
                let keys = column.as_string::<i32>().iter().map(|text| text.map(key).transpose());
                let keys: Int32Array = keys.collect::<Result<_>>()?;
                Arc::new(DictionaryArray::try_new(keys, symbols.clone()).map_err(unfit)?)
            }
            (Fit::Cast, data_type) => {
                let options = CastOptions { safe: false, ..CastOptions::default() };
                let cast =
                    |column: &ArrayRef, to: &DataType| cast_with_options(column, to, &options).map_err(unfit);
                let made = cast(column, data_type)?;
                // Floats become wider, and a NaN has many forms.
                if !data_type.is_floating() && &cast(&made, column.data_type())? != column {
                    let text =
                        format!("the column `{}` holds a value that {data_type} does not have", field.name());
                    return Err(Error::new(ErrorKind::UnsupportedType, text));
                }
                made
            }
            (Fit::List(of_item), DataType::List(item)) => {
                let list = column.as_list::<i32>();
                let values = of_item.apply(list.values(), item)?;
                let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
                Arc::new(ListArray::try_new(item.clone(), offsets, values, nulls).map_err(unfit)?)
            }
            (Fit::List(of_entries), DataType::Map(entries, sorted)) => {
                let map = column.as_map();
                let all: ArrayRef = Arc::new(map.entries().clone());
                let all = of_entries.apply(&all, entries)?.as_struct().clone();
                let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
                Arc::new(MapArray::try_new(entries.clone(), offsets, all, nulls, *sorted).map_err(unfit)?)
            }
            (Fit::Struct(fits), DataType::Struct(fields)) => {
                let parent = column.as_struct();
                let fitting = fits.iter().zip(parent.columns()).zip(fields);
                let columns = fitting.map(|((fit, column), field)| fit.apply(column, field));
                let columns = columns.collect::<Result<Vec<_>>>()?;
                Arc::new(
                    StructArray::try_new(fields.clone(), columns, parent.nulls().cloned()).map_err(unfit)?,
                )
            }
            _ => column.clone(),
        })
    }
}

/// Encodes rows as JSON objects: decimals of more than 15 digits are texts, since most readers make floats of JSON's numbers.
#[derive(Debug, Clone)]
pub struct JsonEncoder {
    id: Option<u32>,
    writing: Option<Writing>,
}

impl JsonEncoder {
    /// For objects by themselves; nulls are left out.
    pub fn plain() -> JsonEncoder {
        JsonEncoder { id: None, writing: None }
    }

    /// For rows with these columns by a JSON Schema, with its id in front, as the Schema Registry's serialisers write them, or without.
    /// Each column has to be a property of its type, and what is required has to be there; what else the schema asks of values is not
    /// looked at. A null is written where a property is required and may be null; if another may be left out and not be null, none
    /// is, and one that is required is refused.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSchema`] if the text is not such a schema, or with the column that does not fit it;
    /// [`ErrorKind::UnsupportedType`] for a column of another type.
    pub fn of_schema<'a>(
        columns: &Schema,
        schema: &str,
        references: impl IntoIterator<Item = (&'a str, &'a str)>,
        id: Option<u32>,
    ) -> Result<JsonEncoder> {
        let writing = json_schema::writing(columns, schema, references)?;
        Ok(JsonEncoder { id, writing: Some(writing) })
    }

    /// A value for each row.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedType`]: a type or a value that JSON, or the schema, does not have.
    pub fn encode(&self, rows: &RecordBatch) -> Result<Vec<Vec<u8>>> {
        if let Some(why) = self.writing.as_ref().and_then(|writing| writing.unfit(rows)) {
            return Err(Error::new(ErrorKind::UnsupportedType, why));
        }
        for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
            if !is_finite(column) {
                let text = format!(
                    "the column `{}`: JSON has no number that is not one, and none without end",
                    field.name()
                );
                return Err(Error::new(ErrorKind::UnsupportedType, text));
            }
        }
        let text = json_lines(rows, self.writing.as_ref().is_some_and(|writing| writing.nulls))?;
        let value = |line: &[u8]| match self.id {
            Some(id) => framing::framed(id, &[], line),
            None => line.to_vec(),
        };
        let mut values: Vec<Vec<u8>> = text.split(|b| *b == b'\n').map(value).collect();
        // Each line ends with a line feed; inside of texts they are escaped.
        values.pop();
        Ok(values)
    }
}

/// Whether floats in a column are numbers of JSON: others would be written as null.
fn is_finite(column: &ArrayRef) -> bool {
    match column.data_type() {
        DataType::Float32 => {
            column.as_primitive::<Float32Type>().iter().flatten().all(|number| number.is_finite())
        }
        DataType::Float64 => {
            column.as_primitive::<Float64Type>().iter().flatten().all(|number| number.is_finite())
        }
        DataType::Struct(_) => column.as_struct().columns().iter().all(is_finite),
        DataType::List(_) => is_finite(column.as_list::<i32>().values()),
        DataType::LargeList(_) => is_finite(column.as_list::<i64>().values()),
        DataType::Map(..) => is_finite(column.as_map().values()),
        _ => true,
    }
}
