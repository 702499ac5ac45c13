//! Fields as the host tells of them, and how a transform's needs and changes are found in them.

use std::fmt;

/// The unit of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(serde::Deserialize))]
#[expect(missing_docs, reason = "the names say it")]
pub enum TimeUnit {
    Second,
    Millisecond,
    Microsecond,
    Nanosecond,
}

/// The type of a column: [Arrow's](https://arrow.apache.org/docs/format/Columnar.html).
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(serde::Deserialize))]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are Arrow's")]
pub enum DataType {
    Boolean,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Float32,
    Float64,
    Utf8,
    Binary,
    /// So many bytes.
    FixedSizeBinary(u32),
    /// Digits, and how many of them are behind the point.
    Decimal128(u8, i8),
    /// As `Decimal128`.
    Decimal256(u8, i8),
    Date32,
    Date64,
    Time32(TimeUnit),
    Time64(TimeUnit),
    /// Since the Unix epoch; with a time zone it is a point in time, without one it is what a clock showed.
    Timestamp(TimeUnit, Option<String>),
    Struct,
    List,
    Map,
}

/// As pipeline files write it.
impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = |unit: &TimeUnit| match unit {
            TimeUnit::Second => "s",
            TimeUnit::Millisecond => "ms",
            TimeUnit::Microsecond => "us",
            TimeUnit::Nanosecond => "ns",
        };
        match self {
            DataType::Boolean => f.write_str("bool"),
            DataType::Int8 => f.write_str("int8"),
            DataType::Int16 => f.write_str("int16"),
            DataType::Int32 => f.write_str("int32"),
            DataType::Int64 => f.write_str("int64"),
            DataType::Uint8 => f.write_str("uint8"),
            DataType::Uint16 => f.write_str("uint16"),
            DataType::Uint32 => f.write_str("uint32"),
            DataType::Uint64 => f.write_str("uint64"),
            DataType::Float32 => f.write_str("float32"),
            DataType::Float64 => f.write_str("float64"),
            DataType::Utf8 => f.write_str("string"),
            DataType::Binary => f.write_str("bytes"),
            DataType::FixedSizeBinary(bytes) => write!(f, "fixed({bytes})"),
            DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => write!(f, "decimal({p},{s})"),
            DataType::Date32 => f.write_str("date"),
            DataType::Date64 => f.write_str("date64"),
            DataType::Time32(u) | DataType::Time64(u) => write!(f, "time_{}", unit(u)),
            DataType::Timestamp(u, Some(_)) => write!(f, "timestamp_{}", unit(u)),
            DataType::Timestamp(u, None) => write!(f, "local_timestamp_{}", unit(u)),
            DataType::Struct => f.write_str("struct"),
            DataType::List => f.write_str("list"),
            DataType::Map => f.write_str("map"),
        }
    }
}

impl DataType {
    /// Buffers of a column of this type, the validity bitmap among them; children have their own.
    pub(crate) fn buffers(&self) -> usize {
        match self {
            DataType::Struct => 1,
            DataType::Utf8 | DataType::Binary => 3,
            _ => 2,
        }
    }
}

/// A field; in a list of fields the subtrees of its children follow it, depth first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(serde::Deserialize))]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
    /// Whether it may be null.
    pub nullable: bool,
    /// How many children it has.
    pub children: u32,
}

impl Field {
    pub(crate) fn leaf(data_type: DataType, nullable: bool) -> Self {
        Field { name: String::new(), data_type, nullable, children: 0 }
    }
}

/// Where the subtree that begins at `at` ends.
pub(crate) fn subtree_end(fields: &[Field], at: usize) -> usize {
    let children = fields.get(at).map_or(0, |f| f.children);
    (0..children).fold(at + 1, |end, _| subtree_end(fields, end))
}

/// The subtrees of the members of the struct, or of the children of another type, that `fields` begin with.
pub(crate) fn members(fields: &[Field]) -> impl Iterator<Item = &[Field]> {
    let mut at = 1;
    (0..fields.first().map_or(0, |f| f.children)).map(move |_| {
        let start = at;
        at = subtree_end(fields, start);
        &fields[start..at]
    })
}

/// Words of layout that the subtree takes.
pub(crate) fn layout_words(subtree: &[Field]) -> usize {
    subtree.iter().map(|f| 2 + 2 * f.data_type.buffers()).sum()
}

/// A column that a transform reads.
#[derive(Debug, Clone)]
pub struct Need {
    /// Its path, dotted.
    pub path: &'static str,
    /// Its type, in words.
    pub data_type: String,
    /// Whether the transform can do with a null.
    pub nullable: bool,
    /// Whether it can do without the column, which is null then.
    pub optional: bool,
    /// Whether a subtree is of that type.
    pub accepts: fn(&[Field]) -> bool,
    /// A subtree of that type.
    pub example: fn() -> Vec<Field>,
}

/// What a transform does to a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is left out.
    Remove(&'static str),
    /// It gets another name.
    Rename(&'static str, &'static str),
    /// A computed column takes its place: this subtree.
    Replace(&'static str, Vec<Field>),
    /// A computed column is added at the end.
    Add(Vec<Field>),
}

/// [`Change`] with fields by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoundChange {
    /// See [`Change::Remove`].
    Remove(u32),
    /// See [`Change::Rename`].
    Rename(u32, &'static str),
    /// See [`Change::Replace`].
    Replace(u32),
    /// See [`Change::Add`].
    Add,
}

/// What is told to the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Binding {
    /// The fields that are handed over.
    pub reads: Vec<u32>,
    /// What becomes of the fields.
    pub changes: Vec<BoundChange>,
    /// The computed fields.
    pub computed: Vec<Field>,
}

/// Where a need's column is in a batch.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// Its first word of layout.
    pub(crate) at: usize,
    pub(crate) fields: Vec<Field>,
}

/// Finds what a transform wants in the fields that there are.
///
/// # Errors
/// Everything that is missing or of another type, in sentences.
pub(crate) fn bind(
    fields: &[Field],
    needs: &[Need],
    changes: Vec<Change>,
) -> Result<(Binding, Vec<Option<Slot>>), String> {
    let mut wrong = Vec::new();
    let mut binding = Binding::default();
    let mut slots = Vec::with_capacity(needs.len());
    let mut read: Vec<(usize, usize)> = Vec::new();
    let mut words = 0;
    for need in needs {
        let Some((at, nullable)) = find(fields, need.path) else {
            if !need.optional {
                wrong.push(missing(fields, need.path, ""));
            }
            slots.push(None);
            continue;
        };
        let subtree = &fields[at..subtree_end(fields, at)];
        if !(need.accepts)(subtree) {
            let found = described(subtree);
            wrong.push(format!(
                "column {} is {found}, the transform reads it as {}",
                need.path, need.data_type
            ));
        } else if nullable && !need.nullable {
            wrong.push(format!(
                "column {} may be null, the transform reads it as {}: it has to be an `Option`, or the column `not null`",
                need.path, need.data_type
            ));
        }
        let start = match read.iter().find(|(field, _)| *field == at) {
            Some((_, start)) => *start,
            None => {
                let start = words;
                words += layout_words(subtree);
                read.push((at, start));
                binding.reads.push(at as u32);
                start
            }
        };
        slots.push(Some(Slot { at: start, fields: subtree.to_vec() }));
    }
    for change in changes {
        let mut place = |path: &'static str, wanted: &str| match find(fields, path) {
            Some((at, _)) => at as u32,
            None => {
                // Else it was said of what is read already.
                if !needs.iter().any(|need| !need.optional && need.path == path) {
                    wrong.push(missing(fields, path, wanted));
                }
                0
            }
        };
        binding.changes.push(match change {
            Change::Remove(path) => BoundChange::Remove(place(path, " to remove")),
            Change::Rename(path, name) => BoundChange::Rename(place(path, " to rename"), name),
            Change::Replace(path, mut subtree) => {
                let at = place(path, " to replace");
                if let (Some(root), Some(field)) = (subtree.first_mut(), fields.get(at as usize)) {
                    root.name.clone_from(&field.name);
                }
                binding.computed.extend(subtree);
                BoundChange::Replace(at)
            }
            Change::Add(subtree) => {
                binding.computed.extend(subtree);
                BoundChange::Add
            }
        });
    }
    if wrong.is_empty() { Ok((binding, slots)) } else { Err(wrong.join("; ")) }
}

fn described(subtree: &[Field]) -> String {
    match (&subtree[0].data_type, subtree.get(1)) {
        (DataType::List, Some(_)) => format!("list<{}>", described(&subtree[1..])),
        (DataType::Struct, Some(_)) => {
            let member = |member: &[Field]| format!("{}: {}", member[0].name, described(member));
            format!("struct<{}>", members(subtree).map(member).collect::<Vec<_>>().join(", "))
        }
        (DataType::Map, Some(_)) if subtree.len() > 3 => format!("map<{}>", described(&subtree[3..])),
        (data_type, _) => data_type.to_string(),
    }
}

/// The number of a field by its path, and whether it or what it is in may be null. A name may have dots itself.
fn find(fields: &[Field], path: &str) -> Option<(usize, bool)> {
    find_in(fields, 0, fields.len(), path)
}

fn find_in(fields: &[Field], mut at: usize, end: usize, path: &str) -> Option<(usize, bool)> {
    while at < end {
        let (field, next) = (&fields[at], subtree_end(fields, at));
        if field.name == path {
            return Some((at, field.nullable));
        }
        let rest = path.strip_prefix(field.name.as_str()).and_then(|rest| rest.strip_prefix('.'));
        if let (Some(rest), DataType::Struct) = (rest, &field.data_type)
            && let Some((found, nullable)) = find_in(fields, at + 1, next, rest)
        {
            return Some((found, nullable || field.nullable));
        }
        at = next;
    }
    None
}

/// That there is no such column, `wanted` for something, and the nearest.
fn missing(fields: &[Field], path: &str, wanted: &str) -> String {
    let mut paths = Vec::new();
    collect(fields, 0, fields.len(), "", &mut paths);
    let nearest = paths.iter().map(|p| (distance(p, path), p)).min();
    match nearest {
        Some((steps, nearest)) if steps <= 2 + path.len() / 4 => {
            format!("there is no column {path}{wanted}; the nearest is {nearest}")
        }
        _ => {
            paths.truncate(20);
            format!("there is no column {path}{wanted}; there are {}", paths.join(", "))
        }
    }
}

fn collect(fields: &[Field], mut at: usize, end: usize, prefix: &str, paths: &mut Vec<String>) {
    while at < end {
        let next = subtree_end(fields, at);
        let path = format!("{prefix}{}", fields[at].name);
        if fields[at].data_type == DataType::Struct {
            collect(fields, at + 1, next, &format!("{path}."), paths);
        }
        paths.push(path);
        at = next;
    }
}

/// Insertions, deletions and replacements between two names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
