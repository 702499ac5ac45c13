//! Arrow's fields as the contract writes them, flat and depth first, and back.

use std::sync::Arc;

use arrow_array::timezone::Tz;
use arrow_schema::{DataType, Field, FieldRef, Fields, TimeUnit};

use crate::contract::columns;

/// How deep fields may nest.
const MAX_DEPTH: usize = 32;
/// Fields that a transform may name in one list.
pub(super) const MAX_FIELDS: usize = 10_000;
const MAX_NAME: usize = 255;
const MAX_TIMEZONE: usize = 64;
const MAX_FIXED_WIDTH: u32 = 1 << 16;

/// Where a field is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Positions, level by level.
    pub(super) path: Vec<usize>,
    /// The dotted name, for people.
    pub(super) name: String,
    /// Inside a list or a map, where nothing can be read or changed by itself.
    pub(super) inside: bool,
}

/// The contract's list of `fields`, and where each of it is.
///
/// # Errors
/// The first field of a type that transforms cannot take.
pub(super) fn flatten(fields: &Fields) -> Result<(Vec<columns::Field>, Vec<Place>), String> {
    let mut flat = Flat::default();
    for (i, field) in fields.iter().enumerate() {
        flat.add(field, &Place { path: vec![i], name: field.name().clone(), inside: false })?;
    }
    Ok((flat.fields, flat.places))
}

#[derive(Default)]
struct Flat {
    fields: Vec<columns::Field>,
    places: Vec<Place>,
}

impl Flat {
    fn add(&mut self, field: &Field, place: &Place) -> Result<(), String> {
        if place.path.len() > MAX_DEPTH {
            return Err(format!("column {} is nested deeper than {MAX_DEPTH} levels", place.name));
        }
        let data_type = contract_type(field.data_type()).ok_or_else(|| {
            format!("column {} is of type {}, which transforms cannot take", place.name, field.data_type())
        })?;
        let children: &[FieldRef] = match field.data_type() {
            DataType::Struct(fields) => fields,
            DataType::List(child) | DataType::Map(child, _) => std::slice::from_ref(child),
            _ => &[],
        };
        self.fields.push(columns::Field {
            name: field.name().clone(),
            data_type,
            nullable: field.is_nullable(),
            children: children.len() as u32,
        });
        self.places.push(place.clone());
        for (i, child) in children.iter().enumerate() {
            let inside = place.inside || !matches!(field.data_type(), DataType::Struct(_));
            let mut path = place.path.clone();
            path.push(i);
            self.add(child, &Place { path, name: format!("{}.{}", place.name, child.name()), inside })?;
        }
        Ok(())
    }
}

/// Arrow's fields of a list that a guest wrote.
///
/// # Errors
/// The first thing that makes no sense.
pub(super) fn unflatten(flat: &[columns::Field]) -> Result<Vec<FieldRef>, String> {
    if flat.len() > MAX_FIELDS {
        return Err(format!("it computes {} fields, {MAX_FIELDS} are allowed", flat.len()));
    }
    let mut rest = flat.iter();
    let mut fields = Vec::new();
    while !rest.as_slice().is_empty() {
        fields.push(next_field(&mut rest, 1)?);
    }
    Ok(fields)
}

fn next_field(rest: &mut std::slice::Iter<'_, columns::Field>, depth: usize) -> Result<FieldRef, String> {
    let field = rest.next().ok_or("the list of computed fields ends before a field's children")?;
    let name = &field.name;
    let shown = || name.chars().take(60).collect::<String>();
    if depth > MAX_DEPTH {
        return Err(format!("the computed field {:?} is nested deeper than {MAX_DEPTH} levels", shown()));
    }
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(format!(
            "the name of the computed field {:?} is not 1 to {MAX_NAME} bytes without control characters",
            shown()
        ));
    }
    let wrong = |what: String| format!("the computed field {:?} {what}", shown());
    let mut children = Vec::new();
    for _ in 0..field.children {
        children.push(next_field(rest, depth + 1)?);
    }
    let count = children.len();
    let data_type = match (arrow_type(&field.data_type).map_err(wrong)?, count) {
        (Shape::Plain(data_type), 0) => data_type,
        (Shape::Struct, 1..) => {
            for (i, child) in children.iter().enumerate() {
                if children[..i].iter().any(|c| c.name() == child.name()) {
                    return Err(wrong(format!("has two members {:?}", child.name())));
                }
            }
            DataType::Struct(children.into())
        }
        (Shape::List, 1) => DataType::List(children.swap_remove(0)),
        (Shape::Map, 1) => {
            let entries = children.swap_remove(0);
            let is_map = match entries.data_type() {
                DataType::Struct(f) => f.len() == 2 && !f[0].is_nullable() && !entries.is_nullable(),
                _ => false,
            };
            if !is_map {
                return Err(wrong(
                    "is a map whose child is not a struct of key and value, neither it nor the key nullable"
                        .into(),
                ));
            }
            DataType::Map(entries, false)
        }
        (_, count) => return Err(wrong(format!("has {count} children, which its type does not have"))),
    };
    Ok(Arc::new(Field::new(name, data_type, field.nullable)))
}

enum Shape {
    Plain(DataType),
    Struct,
    List,
    Map,
}

fn arrow_type(of: &columns::DataType) -> Result<Shape, String> {
    use columns::DataType as C;
    let decimal = |d: &columns::DecimalType, most: u8| match d.precision {
        p if p == 0 || p > most || d.scale.unsigned_abs() > p => Err(format!(
            "has no decimal({p}, {}): 1 to {most} digits, a scale of no more than these",
            d.scale
        )),
        p => Ok((p, d.scale)),
    };
    Ok(Shape::Plain(match of {
        C::Boolean => DataType::Boolean,
        C::Int8 => DataType::Int8,
        C::Int16 => DataType::Int16,
        C::Int32 => DataType::Int32,
        C::Int64 => DataType::Int64,
        C::Uint8 => DataType::UInt8,
        C::Uint16 => DataType::UInt16,
        C::Uint32 => DataType::UInt32,
        C::Uint64 => DataType::UInt64,
        C::Float32 => DataType::Float32,
        C::Float64 => DataType::Float64,
        C::Utf8 => DataType::Utf8,
        C::Binary => DataType::Binary,
        C::FixedSizeBinary(width @ 1..=MAX_FIXED_WIDTH) => DataType::FixedSizeBinary(*width as i32),
        C::FixedSizeBinary(width) => {
            return Err(format!("is of {width} bytes, 1 to {MAX_FIXED_WIDTH} are allowed"));
        }
        C::Decimal128(d) => decimal(d, 38).map(|(p, s)| DataType::Decimal128(p, s))?,
        C::Decimal256(d) => decimal(d, 76).map(|(p, s)| DataType::Decimal256(p, s))?,
        C::Date32 => DataType::Date32,
        C::Date64 => DataType::Date64,
        C::Time32(unit) => match arrow_unit(*unit) {
            unit @ (TimeUnit::Second | TimeUnit::Millisecond) => DataType::Time32(unit),
            _ => return Err("is a time32, which is of seconds or milliseconds".into()),
        },
        C::Time64(unit) => match arrow_unit(*unit) {
            unit @ (TimeUnit::Microsecond | TimeUnit::Nanosecond) => DataType::Time64(unit),
            _ => return Err("is a time64, which is of microseconds or nanoseconds".into()),
        },
        C::Timestamp(t) => {
            let zone = match &t.timezone {
                Some(zone) if zone.is_empty() || zone.len() > MAX_TIMEZONE || zone.parse::<Tz>().is_err() => {
                    let shown: String = zone.chars().take(MAX_TIMEZONE).collect();
                    return Err(format!(
                        "has the time zone {shown:?}, which is none: there are names such as \"Europe/Berlin\", and \
                         offsets such as \"+01:00\""
                    ));
                }
                zone => zone.as_deref().map(Arc::from),
            };
            DataType::Timestamp(arrow_unit(t.unit), zone)
        }
        C::Struct => return Ok(Shape::Struct),
        C::List => return Ok(Shape::List),
        C::Map => return Ok(Shape::Map),
    }))
}

fn contract_type(of: &DataType) -> Option<columns::DataType> {
    use columns::DataType as C;
    let decimal = |precision, scale| columns::DecimalType { precision, scale };
    Some(match of {
        DataType::Boolean => C::Boolean,
        DataType::Int8 => C::Int8,
        DataType::Int16 => C::Int16,
        DataType::Int32 => C::Int32,
        DataType::Int64 => C::Int64,
        DataType::UInt8 => C::Uint8,
        DataType::UInt16 => C::Uint16,
        DataType::UInt32 => C::Uint32,
        DataType::UInt64 => C::Uint64,
        DataType::Float32 => C::Float32,
        DataType::Float64 => C::Float64,
        DataType::Utf8 => C::Utf8,
        DataType::Binary => C::Binary,
        DataType::FixedSizeBinary(width) => C::FixedSizeBinary(u32::try_from(*width).ok()?),
        DataType::Decimal128(p, s) => C::Decimal128(decimal(*p, *s)),
        DataType::Decimal256(p, s) => C::Decimal256(decimal(*p, *s)),
        DataType::Date32 => C::Date32,
        DataType::Date64 => C::Date64,
        DataType::Time32(unit) => C::Time32(contract_unit(*unit)),
        DataType::Time64(unit) => C::Time64(contract_unit(*unit)),
        DataType::Timestamp(unit, zone) => C::Timestamp(columns::TimestampType {
            unit: contract_unit(*unit),
            timezone: zone.as_deref().map(str::to_owned),
        }),
        DataType::Struct(_) => C::Struct,
        DataType::List(_) => C::List,
        DataType::Map(..) => C::Map,
        _ => return None,
    })
}

fn arrow_unit(unit: columns::TimeUnit) -> TimeUnit {
    match unit {
        columns::TimeUnit::Second => TimeUnit::Second,
        columns::TimeUnit::Millisecond => TimeUnit::Millisecond,
        columns::TimeUnit::Microsecond => TimeUnit::Microsecond,
        columns::TimeUnit::Nanosecond => TimeUnit::Nanosecond,
    }
}

fn contract_unit(unit: TimeUnit) -> columns::TimeUnit {
    match unit {
        TimeUnit::Second => columns::TimeUnit::Second,
        TimeUnit::Millisecond => columns::TimeUnit::Millisecond,
        TimeUnit::Microsecond => columns::TimeUnit::Microsecond,
        TimeUnit::Nanosecond => columns::TimeUnit::Nanosecond,
    }
}
