//! What a schema makes of values, apart from how it says it.

use std::collections::{HashMap, HashSet};

use arrow_schema::{DataType, Field, Fields};

use super::unsupported;
use crate::error::{Result, joined};
use crate::field_spec::{json_field, map_of};

/// What a schema makes of values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shape {
    pub(super) kind: Kind,
    /// It may be null.
    pub(super) nullable: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// Null alone, or nothing.
    Null,
    /// No one type, and why.
    Any(String),
    /// One of several types, objects among them.
    Several,
    Value(Written, DataType),
    List(Box<Shape>),
    Map(Box<Shape>),
    Object {
        fields: Vec<(String, Shape)>,
        required: HashSet<String>,
    },
}

/// How JSON has a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Written {
    Text,
    Integer,
    Number,
    Boolean,
}

impl Kind {
    pub(super) fn has_members(&self) -> bool {
        matches!(self, Kind::Object { .. } | Kind::Map(_))
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Kind::Null => "null",
            Kind::Any(_) | Kind::Several => "of no one type, which is not written from columns",
            Kind::Value(Written::Text, DataType::Timestamp(..)) => "a `date-time`",
            Kind::Value(Written::Text, DataType::Date32) => "a `date`",
            Kind::Value(Written::Text, _) => "a `string`",
            Kind::Value(Written::Integer, _) => "an `integer`",
            Kind::Value(Written::Number, _) => "a `number`",
            Kind::Value(Written::Boolean, _) => "a `boolean`",
            Kind::List(_) => "an `array`",
            Kind::Map(_) | Kind::Object { .. } => "an `object`",
        }
    }
}

impl Shape {
    pub(super) fn any(why: impl Into<String>) -> Shape {
        Shape { kind: Kind::Any(why.into()), nullable: true }
    }

    pub(super) fn null() -> Shape {
        Shape { kind: Kind::Null, nullable: true }
    }

    /// The column of it.
    fn field(&self, name: &str, path: &str, nullable: bool, as_json: bool) -> Result<Field> {
        let nullable = nullable || self.nullable;
        Ok(match &self.kind {
            Kind::Null if as_json => json_field(name, true),
            Kind::Null => return Err(unsupported(path, "it is always null")),
            Kind::Any(_) | Kind::Several if as_json => json_field(name, nullable),
            Kind::Any(why) => return Err(unsupported(path, why)),
            Kind::Several => return Err(unsupported(path, SEVERAL)),
            Kind::Value(_, data_type) => Field::new(name, data_type.clone(), nullable),
            Kind::List(item) => {
                let item =
                    item.field(Field::LIST_FIELD_DEFAULT_NAME, &format!("{path}[]"), false, as_json)?;
                Field::new_list(name, item, nullable)
            }
            Kind::Map(value) => {
                let value = value.field("value", &format!("{path}[]"), false, as_json)?;
                Field::new(name, map_of(value), nullable)
            }
            Kind::Object { fields, required } => {
                Field::new_struct(name, arrow_fields(path, fields, required, as_json)?, nullable)
            }
        })
    }

    /// What is one of two.
    pub(super) fn or(self, other: Shape) -> Shape {
        let nullable = self.nullable || other.nullable;
        let kind = match (self.kind, other.kind) {
            (Kind::Null, kind) | (kind, Kind::Null) => kind,
            (own, other) if own == other => own,
            (Kind::Several, _) | (_, Kind::Several) => Kind::Several,
            (Kind::Any(why), other) | (other, Kind::Any(why)) if !other.has_members() => Kind::Any(why),
            (Kind::List(own), Kind::List(other)) => Kind::List(Box::new(own.or(*other))),
            (Kind::Map(own), Kind::Map(other)) => Kind::Map(Box::new(own.or(*other))),
            (Kind::Value(own, _), Kind::Value(other, _)) => match (own, other) {
                (Written::Integer, Written::Number) | (Written::Number, Written::Integer) => {
                    Kind::Value(Written::Number, DataType::Float64)
                }
                // Of texts, one that is a time and another are texts.
                (Written::Text, Written::Text) => Kind::Value(Written::Text, DataType::Utf8),
                _ => Kind::Any(SEVERAL.into()),
            },
            (Kind::Object { fields: own, required: a }, Kind::Object { fields: other, required: b }) => {
                // One of them alone has it: then it may not be there.
                let required = a.intersection(&b).cloned().collect();
                Kind::Object { fields: union(own, other, Shape::or), required }
            }
            (own, other) if own.has_members() || other.has_members() => Kind::Several,
            _ => Kind::Any(SEVERAL.into()),
        };
        Shape { kind, nullable }
    }

    /// What is both at once.
    pub(super) fn and(self, other: Shape) -> Shape {
        let nullable = self.nullable && other.nullable;
        let kind = match (self.kind, other.kind) {
            (Kind::Any(_), kind) | (kind, Kind::Any(_)) => kind,
            (own, other) if own == other => own,
            // What the objects among them have must not be lost.
            (Kind::Several, other) | (other, Kind::Several) if !other.has_members() => other,
            (Kind::Several, _) | (_, Kind::Several) => Kind::Several,
            (Kind::List(own), Kind::List(other)) => Kind::List(Box::new(own.and(*other))),
            (Kind::Map(own), Kind::Map(other)) => Kind::Map(Box::new(own.and(*other))),
            (Kind::Value(a, own), Kind::Value(b, other)) => match (a, b) {
                (Written::Integer, Written::Number) => Kind::Value(a, own),
                (Written::Number, Written::Integer) => Kind::Value(b, other),
                (Written::Text, Written::Text) if own == DataType::Utf8 => Kind::Value(b, other),
                (Written::Text, Written::Text) if other == DataType::Utf8 => Kind::Value(a, own),
                _ => at_once(),
            },
            (Kind::Object { fields: own, required: a }, Kind::Object { fields: other, required: b }) => {
                let required = a.union(&b).cloned().collect();
                Kind::Object { fields: union(own, other, Shape::and), required }
            }
            // Its members are any others besides.
            (Kind::Object { fields, required }, Kind::Map(_))
            | (Kind::Map(_), Kind::Object { fields, required }) => Kind::Object { fields, required },
            _ => at_once(),
        };
        Shape { kind, nullable }
    }
}

const SEVERAL: &str = "it may have one of several types";

fn at_once() -> Kind {
    Kind::Any("it has to be of several types at once".into())
}

/// The fields of both; of those that both have, what `both` makes of them.
fn union(
    own: Vec<(String, Shape)>,
    other: Vec<(String, Shape)>,
    both: impl Fn(Shape, Shape) -> Shape,
) -> Vec<(String, Shape)> {
    let mut places: HashMap<String, usize> =
        own.iter().enumerate().map(|(i, (name, _))| (name.clone(), i)).collect();
    let mut fields = own;
    for (name, shape) in other {
        match places.get(&name) {
            Some(place) => {
                let own = std::mem::replace(&mut fields[*place].1, Shape::null());
                fields[*place].1 = both(own, shape);
            }
            None => {
                places.insert(name.clone(), fields.len());
                fields.push((name, shape));
            }
        }
    }
    fields
}

pub(super) fn arrow_fields(
    path: &str,
    fields: &[(String, Shape)],
    required: &HashSet<String>,
    as_json: bool,
) -> Result<Fields> {
    let fields = fields
        .iter()
        .map(|(name, shape)| shape.field(name, &joined(path, name), !required.contains(name), as_json));
    fields.collect::<Result<Vec<Field>>>().map(Fields::from)
}
