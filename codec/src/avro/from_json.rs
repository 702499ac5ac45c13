//! Texts of JSON as the values that they stand for: what `json.rs` has written becomes a datum again.

use std::collections::BTreeSet;

use arrow_array::types::{Decimal256Type, DecimalType};
use arrow_buffer::i256;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::datum::{Walk, check};
use super::json::{count, long, pass};
use super::places::{Place, may_be_null, name};
use super::schema::{AvroSchemaGraph, Node, NodeId};

/// How deep values may nest, as when they are read.
const MAX_DEPTH: usize = 64;
/// Bytes of a datum: a few of JSON may leave out many members that are null.
const MAX_BYTES: usize = 64 << 20;
/// What the names of members begin with by which serde_json tells its own kinds of values.
const PRIVATE: &[u8] = b"$serde_json::private::";

/// Why a text is none of its type; where, from the inside.
pub(super) struct Unfit {
    what: String,
    path: Vec<String>,
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path: Vec<&str> = self.path.iter().rev().map(String::as_str).collect();
        if !path.is_empty() {
            write!(f, "field {}: ", path.join("."))?;
        }
        f.write_str(&self.what)
    }
}

type Fitted = Result<(), Unfit>;

fn unfit<T>(what: impl Into<String>) -> Result<T, Unfit> {
    Err(Unfit { what: what.into(), path: Vec::new() })
}

fn within(name: &str) -> impl Fn(Unfit) -> Unfit + '_ {
    move |mut unfit| {
        unfit.path.push(name.to_owned());
        unfit
    }
}

/// The datum of the schema, of one that has texts in these places.
pub(super) fn datum(
    graph: &AvroSchemaGraph,
    places: &BTreeSet<Place>,
    bytes: &[u8],
) -> Result<Vec<u8>, Unfit> {
    let mut writing = Writing { graph, places, walk: Walk::new(graph, bytes), copied: 0, out: Vec::new() };
    writing.value(graph.root)?;
    writing.copy();
    if writing.copied != bytes.len() {
        return Err(no_datum());
    }
    // Nothing is written that would not be read.
    match check(graph, &writing.out) {
        Ok(_) => Ok(writing.out),
        Err(fault) => unfit(format!("what it stands for would not be read: {}", fault.what)),
    }
}

struct Writing<'a> {
    graph: &'a AvroSchemaGraph,
    places: &'a BTreeSet<Place>,
    /// Through the datum with texts.
    walk: Walk<'a>,
    /// Up to here, it is in `out`.
    copied: usize,
    out: Vec<u8>,
}

impl Writing<'_> {
    fn copy(&mut self) {
        self.out.extend_from_slice(&self.walk.bytes[self.copied..self.walk.at]);
        self.copied = self.walk.at;
    }

    fn value(&mut self, id: NodeId) -> Fitted {
        let graph = self.graph;
        match &graph.nodes[id as usize] {
            Node::Array(item) => self.blocks(|this| this.place((id, 0), *item)),
            Node::Map(item) => self.blocks(|this| {
                this.walk.sized().map_err(broken)?;
                this.place((id, 0), *item)
            }),
            Node::Union(branches) => {
                let branch = self.walk.long().map_err(broken)?;
                let branch = usize::try_from(branch).ok().and_then(|branch| branches.get(branch));
                self.value(*branch.ok_or_else(no_datum)?)
            }
            Node::Record(fields) => fields
                .iter()
                .enumerate()
                .try_for_each(|(i, (name, of))| self.place((id, i), *of).map_err(within(name))),
            node => pass(&mut self.walk, node).map_err(broken),
        }
    }

    /// Blocks without their sizes in bytes, which may change.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Fitted) -> Fitted {
        loop {
            self.copy();
            let count = count(&mut self.walk).map_err(broken)?;
            self.copied = self.walk.at;
            long(&mut self.out, count as i64);
            if count == 0 {
                return Ok(());
            }
            (0..count).try_for_each(|_| item(self))?;
        }
    }

    fn place(&mut self, place: Place, of: NodeId) -> Fitted {
        if !self.places.contains(&place) {
            return self.value(of);
        }
        self.copy();
        let json = match may_be_null(self.graph, of) && self.walk.long().map_err(broken)? == 0 {
            true => Value::Null,
            false => {
                let text = self.walk.sized().map_err(broken)?;
                if text.windows(PRIVATE.len()).any(|part| part == PRIVATE) {
                    return unfit("the text has a name that is serde_json's own");
                }
                serde_json::from_slice(text).or_else(|e| unfit(format!("the text is not JSON: {e}")))?
            }
        };
        self.copied = self.walk.at;
        write(self.graph, of, &json, 0, &mut self.out)
    }
}

/// What arrow-avro has written is a datum.
fn broken(_: impl Sized) -> Unfit {
    no_datum()
}

fn no_datum() -> Unfit {
    Unfit { what: "the columns make no datum".to_owned(), path: Vec::new() }
}

/// A value as its type is written.
fn write(graph: &AvroSchemaGraph, id: NodeId, json: &Value, depth: usize, out: &mut Vec<u8>) -> Fitted {
    if depth > MAX_DEPTH {
        return unfit(format!("it nests deeper than {MAX_DEPTH} levels"));
    }
    if out.len() > MAX_BYTES {
        return unfit(format!("it has more than {MAX_BYTES} bytes"));
    }
    let depth = depth + 1;
    let about = graph.about(id);
    let logical = about.and_then(|about| about.logical.as_deref());
    let wanted = |what: &str| unfit(format!("it is {}, and {what} is wanted", kind(json)));
    match &graph.nodes[id as usize] {
        Node::Open | Node::Null => match json {
            Value::Null => {}
            _ => return wanted("null"),
        },
        Node::Boolean => match json {
            Value::Bool(value) => out.push((*value).into()),
            _ => return wanted("a boolean"),
        },
        node @ (Node::Int | Node::Long) => {
            let number = match (logical, json) {
                (Some(logical), Value::String(text)) if is_time(logical) => time(logical, text),
                (Some(logical), _) if is_time(logical) => return wanted("a text of a date or time"),
                (_, json) => json.as_i64(),
            };
            match number {
                Some(number) if *node == Node::Long || i32::try_from(number).is_ok() => long(out, number),
                _ if logical.is_some_and(is_time) => {
                    return unfit(format!("the text is no `{}`", logical.unwrap_or_default()));
                }
                _ => {
                    return wanted(if *node == Node::Int {
                        "an integer of 32 bits"
                    } else {
                        "an integer of 64 bits"
                    });
                }
            }
        }
        node @ (Node::Float | Node::Double) => {
            let is_float = *node == Node::Float;
            let number = match json {
                // Once more from its text: a double between would be another number of 32 bits, or without end.
                Value::Number(number) if is_float => {
                    number.to_string().parse().ok().map(|n: f32| f64::from(n))
                }
                Value::Number(number) => number.as_f64(),
                Value::String(text) => match text.as_str() {
                    "NaN" => Some(f64::NAN),
                    "Infinity" => Some(f64::INFINITY),
                    "-Infinity" => Some(f64::NEG_INFINITY),
                    _ => None,
                },
                _ => None,
            };
            match number.filter(|number| number.is_finite() || json.is_string()) {
                Some(number) if is_float => out.extend((number as f32).to_le_bytes()),
                Some(number) => out.extend(number.to_le_bytes()),
                None => return wanted(if is_float { "a number of 32 bits" } else { "a number of 64 bits" }),
            }
        }
        Node::String => match json {
            Value::String(text) => sized(out, text.as_bytes()),
            _ => return wanted("a text"),
        },
        node @ (Node::Bytes | Node::Fixed(_)) => {
            let bytes = json.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
            match (node, bytes) {
                (Node::Fixed(size), Some(bytes)) if bytes.len() == *size => out.extend(bytes),
                (Node::Bytes, Some(bytes)) => sized(out, &bytes),
                (Node::Fixed(size), _) => return wanted(&format!("{size} bytes in base64")),
                _ => return wanted("bytes in base64"),
            }
        }
        Node::Decimal { fixed, precision } => {
            let scale = about.map_or(0, |about| about.scale);
            let digits = json.as_str().and_then(|text| decimal(text, *precision, scale));
            let Some(digits) = digits else {
                return wanted(&format!(
                    "a text of a decimal of {precision} digits, {scale} behind the point"
                ));
            };
            let least = shortest(&digits);
            match fixed {
                None => sized(out, least),
                Some(size) => {
                    // The type holds all numbers of its precision.
                    let sign = if least[0] & 0x80 == 0 { 0 } else { 0xff };
                    out.extend(std::iter::repeat_n(sign, size.saturating_sub(least.len())));
                    out.extend(least);
                }
            }
        }
        Node::Enum(_) => {
            let symbols = about.map(|about| about.symbols.as_slice()).unwrap_or_default();
            match symbols.iter().position(|symbol| json == symbol.as_str()) {
                Some(symbol) => long(out, symbol as i64),
                None => return wanted(&format!("one of {}", symbols.join(", "))),
            }
        }
        Node::Array(item) => {
            let Value::Array(items) = json else { return wanted("an array") };
            block(out, items.len(), items, |value, out| write(graph, *item, value, depth, out))?;
        }
        Node::Map(item) => {
            let Value::Object(entries) = json else { return wanted("an object") };
            block(out, entries.len(), entries, |(key, value), out| {
                sized(out, key.as_bytes());
                write(graph, *item, value, depth, out).map_err(within(key))
            })?;
        }
        Node::Union(branches) => union(graph, branches, json, depth, out)?,
        Node::Record(fields) => {
            let Value::Object(members) = json else { return wanted("an object") };
            if let Some(other) = members.keys().find(|key| fields.iter().all(|(name, _)| name != *key)) {
                let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
                return unfit(format!("there is no field `{other}`; there are {}", names.join(", ")));
            }
            for (name, of) in fields {
                let member = match members.get(name) {
                    Some(member) => member,
                    None if may_be_null(graph, *of) => &Value::Null,
                    None => return unfit("it is not there").map_err(within(name)),
                };
                write(graph, *of, member, depth, out).map_err(within(name))?;
            }
        }
    }
    Ok(())
}

/// A value of several types is an object with the name of its own; null is null.
fn union(
    graph: &AvroSchemaGraph,
    branches: &[NodeId],
    json: &Value,
    depth: usize,
    out: &mut Vec<u8>,
) -> Fitted {
    let is_null = |id: &NodeId| graph.nodes[*id as usize] == Node::Null;
    let null = branches.iter().position(is_null);
    let others: Vec<usize> = (0..branches.len()).filter(|branch| Some(*branch) != null).collect();
    if let (Value::Null, Some(null)) = (json, null) {
        long(out, null as i64);
        return Ok(());
    }
    if let [only] = others[..] {
        long(out, only as i64);
        return write(graph, branches[only], json, depth, out);
    }
    let tagged = json.as_object().filter(|object| object.len() == 1);
    let tagged = tagged.and_then(|object| object.iter().next());
    let found = tagged.and_then(|(tag, value)| {
        Some((others.iter().copied().find(|branch| name(graph, branches[*branch]) == tag)?, tag, value))
    });
    let Some((branch, tag, value)) = found else {
        let names: Vec<&str> = others.iter().map(|branch| name(graph, branches[*branch])).collect();
        return unfit(format!(
            "a value of several types is an object with the name of its type, such as {{\"{}\": ..}}; these are {}",
            names.first().copied().unwrap_or_default(),
            names.join(", ")
        ));
    };
    long(out, branch as i64);
    write(graph, branches[branch], value, depth, out).map_err(within(tag))
}

/// One block of all items, and the end.
fn block<T>(
    out: &mut Vec<u8>,
    count: usize,
    items: impl IntoIterator<Item = T>,
    mut item: impl FnMut(T, &mut Vec<u8>) -> Fitted,
) -> Fitted {
    if count > 0 {
        long(out, count as i64);
        items.into_iter().try_for_each(|value| item(value, out))?;
    }
    long(out, 0);
    Ok(())
}

fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

fn kind(json: &Value) -> &'static str {
    match json {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Whether `json.rs` writes numbers of a logical type as texts.
fn is_time(logical: &str) -> bool {
    matches!(logical, "date" | "time-millis" | "time-micros")
        || logical.starts_with("timestamp-")
        || logical.starts_with("local-timestamp-")
}

/// Exactly what a text of ISO 8601 stands for; none if it is no such text, has a year beyond 0 to 9999, or is finer than the type.
/// By hand, since jiff's parsers take more than is meant: a date for a time, an offset that they drop, the second 60.
fn time(logical: &str, text: &str) -> Option<i64> {
    const DAY: i128 = 86_400_000_000_000;
    let (what, unit) = logical.rsplit_once('-').unwrap_or((logical, ""));
    let at = |text: &str| {
        let (date, time) = text.split_once('T')?;
        Some(i128::from(day(date)?) * DAY + clock(time)?)
    };
    let nanos = match what {
        "date" => return day(text),
        "time" => clock(text)?,
        "timestamp" => match text.strip_suffix('Z') {
            Some(text) => at(text)?,
            None => {
                let (text, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
                let sign = match offset.as_bytes()[0] {
                    b'+' => 1,
                    b'-' => -1,
                    _ => return None,
                };
                at(text)? - sign * clock(&format!("{}:00", &offset[1..]))?
            }
        },
        _ => at(text)?,
    };
    let nanos_each = match unit {
        "millis" => 1_000_000,
        "micros" => 1_000,
        "nanos" => 1,
        _ => return None,
    };
    (nanos % nanos_each == 0).then(|| i64::try_from(nanos / nanos_each).ok())?
}

/// Days since 1970 of `yyyy-mm-dd`.
fn day(text: &str) -> Option<i64> {
    let [year, month, day] = numbers(text, [4, 2, 2], b'-')?;
    let date = jiff::civil::Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?;
    Some((date - jiff::civil::date(1970, 1, 1)).get_days().into())
}

/// Nanoseconds of `hh:mm:ss`, with digits behind a point or without.
fn clock(text: &str) -> Option<i128> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, digits)) => (whole, Some(digits)),
        None => (text, None),
    };
    let [hours, minutes, seconds] = numbers(whole, [2, 2, 2], b':')?;
    let nanos: i128 = match fraction {
        None => 0,
        Some(digits) if (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{digits:0<9}").parse().ok()?
        }
        Some(_) => return None,
    };
    let is_time = hours < 24 && minutes < 60 && seconds < 60;
    is_time.then(|| {
        i128::from(i64::from(hours) * 3_600 + i64::from(minutes) * 60 + i64::from(seconds)) * 1_000_000_000
            + nanos
    })
}

/// Three numbers of so many digits, with a byte between them.
fn numbers(text: &str, widths: [usize; 3], between: u8) -> Option<[i16; 3]> {
    let parts: Vec<&str> = text.split(char::from(between)).collect();
    let parts: [&str; 3] = parts.try_into().ok()?;
    let mut numbers = [0; 3];
    for ((part, width), number) in parts.into_iter().zip(widths).zip(&mut numbers) {
        if part.len() != width || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    Some(numbers)
}

/// Digits, with a point at most, as a number of the type; none if it has others.
fn decimal(text: &str, precision: u8, scale: u8) -> Option<[u8; 32]> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty()
        || !is_digits(whole)
        || !is_digits(fraction)
        || digits.ends_with('.')
        || fraction.len() > usize::from(scale)
    {
        return None;
    }
    let unscaled = format!("{whole}{fraction:0<width$}", width = usize::from(scale));
    let unscaled = unscaled.trim_start_matches('0');
    if unscaled.len() > usize::from(precision.min(Decimal256Type::MAX_PRECISION)) {
        return None;
    }
    let number = i256::from_string(if unscaled.is_empty() { "0" } else { unscaled })?;
    let number = if text.starts_with('-') { number.wrapping_neg() } else { number };
    Some(number.to_be_bytes())
}

/// As few bytes as tell the sign.
fn shortest(bytes: &[u8; 32]) -> &[u8] {
    let is_sign = |at: usize| bytes[at] == if bytes[at + 1] & 0x80 == 0 { 0 } else { 0xff };
    let from = (0..31).take_while(|at| is_sign(*at)).count();
    &bytes[from..]
}
