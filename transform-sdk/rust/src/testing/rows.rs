//! Runs a transform of typed rows natively: JSON objects in, JSON objects out, by way of the contract's layouts.

use std::collections::BTreeMap;

use gristmill_records::{Edit, EditBounds, Edits};
use serde_json::{Map, Value, json};

use super::host;
use crate::columns::private::{Answer, Binding, BoundChange, Change};
use crate::columns::{ColumnState, ColumnTransform, DataType, Field, members, subtree_end};
use crate::{Reject, log};

/// A row that came out: the columns that were computed, by name.
#[derive(Debug, Clone, PartialEq)]
pub struct OutRow {
    /// The output's name.
    pub output: &'static str,
    /// The computed columns. What is not computed is as it was.
    pub computed: Map<String, Value>,
}

/// What became of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct RowAnswer {
    /// What happened to it.
    pub verdict: RowVerdict,
    /// The extra rows that belong to it.
    pub emitted: Vec<OutRow>,
}

/// What happened to a row.
#[derive(Debug, Clone, PartialEq)]
pub enum RowVerdict {
    /// It went on, with these columns computed.
    Kept(OutRow),
    /// It was left out.
    Dropped,
    /// It was rejected.
    Rejected(Reject),
}

impl RowAnswer {
    /// The row, if it went on.
    pub fn kept(&self) -> Option<&OutRow> {
        match &self.verdict {
            RowVerdict::Kept(row) => Some(row),
            _ => None,
        }
    }

    /// The reject, if it was one.
    pub fn rejected(&self) -> Option<&Reject> {
        match &self.verdict {
            RowVerdict::Rejected(reject) => Some(reject),
            _ => None,
        }
    }

    /// Whether it was left out.
    pub fn is_dropped(&self) -> bool {
        self.verdict == RowVerdict::Dropped
    }
}

/// A configured transform of columns, on a stream that has the columns which it reads, removes, renames and replaces.
///
/// Cells are JSON: numbers, texts (also for bytes), `"12.34"` for decimals, whole numbers for dates and times in their
/// unit, arrays for lists, objects for maps and structs; what is not there is null.
pub struct RowHarness<T: ColumnTransform> {
    state: ColumnState<T>,
    fields: Vec<Field>,
    binding: Binding,
    host: host::Host,
}

impl<T: ColumnTransform> RowHarness<T> {
    /// Configures the transform; the stream is partition 0 of `test`.
    ///
    /// # Errors
    /// What the transform says to its configuration.
    pub fn new(config: Value) -> Result<Self, String> {
        let mut tree = Tree::default();
        for need in T::needs() {
            tree.add(need.path, (need.example)());
        }
        for change in T::changes() {
            match change {
                Change::Remove(path) | Change::Rename(path, _) => {
                    tree.add(path, vec![Field::leaf(DataType::Utf8, true)]);
                }
                Change::Replace(path, fields) => tree.add(path, fields),
                Change::Add(_) => {}
            }
        }
        let mut fields = Vec::new();
        tree.flatten(&mut fields);
        let mut host = host::Host::default();
        let (state, binding) =
            host::with(&mut host, || ColumnState::new(&config.to_string(), "test", 0, &fields))?;
        Ok(RowHarness { state, fields, binding, host })
    }

    /// Puts rows through and says what became of each.
    ///
    /// # Panics
    /// If a cell is not of its column's type, if the transform panics, or if its answer is not one that the host would
    /// take: the test then fails.
    pub fn apply(&mut self, rows: &[Value]) -> Vec<RowAnswer> {
        let mut words = Answer::default();
        for number in &self.binding.reads {
            let at = *number as usize;
            let path = path_of(&self.fields, at);
            let cells: Vec<Option<&Value>> = rows
                .iter()
                .map(|row| path.iter().try_fold(row, |value, name| value.get(name)))
                .map(|cell| cell.filter(|c| !c.is_null()))
                .collect();
            encode(&self.fields[at..subtree_end(&self.fields, at)], &cells, &mut words);
        }
        let answer =
            host::with(&mut self.host, || self.state.apply(rows.len(), &words.layout, &words.buffers));
        let edits = Edits::new(&answer.operations, &answer.data);
        let outputs = T::MANIFEST.outputs.len() as u32 + 1;
        let bounds = EditBounds { rows: rows.len(), outputs, max_records: u64::MAX, max_bytes: u64::MAX };
        if let Err(e) = edits.check(&bounds) {
            panic!("the host would refuse the answer: {e}");
        }
        let mut columns = computed(&self.binding, &answer.columns).into_iter();
        let none = self.binding.computed.is_empty();
        let mut next = |output: u32| OutRow {
            output: if output == 0 { "main" } else { T::MANIFEST.outputs[output as usize - 1].0 },
            computed: match none {
                true => Map::new(),
                false => columns.next().expect("a row of computed columns for each that goes on"),
            },
        };
        let mut answers: Vec<RowAnswer> = Vec::with_capacity(rows.len());
        let push = |answers: &mut Vec<RowAnswer>, verdict| {
            answers.push(RowAnswer { verdict, emitted: Vec::new() });
        };
        for edit in edits {
            match edit {
                Edit::Keep(n) => (0..n).for_each(|_| push(&mut answers, RowVerdict::Kept(next(0)))),
                Edit::Change(change) => push(&mut answers, RowVerdict::Kept(next(change.output))),
                Edit::Drop(n) => (0..n).for_each(|_| push(&mut answers, RowVerdict::Dropped)),
                Edit::Reject { code, message } => {
                    push(
                        &mut answers,
                        RowVerdict::Rejected(Reject::new(code.to_owned(), message.to_owned())),
                    );
                }
                Edit::Emit(emit) => {
                    answers.last_mut().expect("the list was checked").emitted.push(next(emit.output));
                }
            }
        }
        assert!(columns.next().is_none(), "more computed rows than rows that go on");
        answers
    }

    /// What was logged so far.
    pub fn logs(&self) -> &[(log::Level, String)] {
        &self.host.logs
    }

    /// What was counted so far.
    pub fn counters(&self) -> &BTreeMap<String, u64> {
        &self.host.counters
    }

    /// What was observed so far.
    pub fn observations(&self) -> &BTreeMap<String, Vec<f64>> {
        &self.host.observations
    }
}

/// The columns of a stream, made up of paths.
#[derive(Default)]
struct Tree {
    members: Vec<(String, Node)>,
}

enum Node {
    Leaf(Vec<Field>),
    Struct(Tree),
}

impl Tree {
    fn add(&mut self, path: &str, fields: Vec<Field>) {
        let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
        let node = match self.members.iter().position(|(n, _)| n == name) {
            Some(i) => &mut self.members[i].1,
            None => {
                let node = match rest {
                    None => Node::Leaf(fields.clone()),
                    Some(_) => Node::Struct(Tree::default()),
                };
                self.members.push((name.to_owned(), node));
                &mut self.members.last_mut().expect("just pushed").1
            }
        };
        if let (Node::Struct(tree), Some(rest)) = (node, rest) {
            tree.add(rest, fields);
        }
    }

    fn flatten(&self, fields: &mut Vec<Field>) {
        for (name, node) in &self.members {
            let at = fields.len();
            match node {
                Node::Leaf(leaf) => fields.extend(leaf.iter().cloned()),
                Node::Struct(tree) => {
                    let children = tree.members.len() as u32;
                    fields.push(Field { children, ..Field::leaf(DataType::Struct, true) });
                    tree.flatten(fields);
                }
            }
            fields[at].name.clone_from(name);
        }
    }
}

fn path_of(fields: &[Field], number: usize) -> Vec<String> {
    let (mut path, mut at) = (Vec::new(), 0);
    while at <= number {
        let end = subtree_end(fields, at);
        if number >= end {
            at = end;
            continue;
        }
        path.push(fields[at].name.clone());
        if at == number {
            break;
        }
        at += 1;
    }
    path
}

fn encode(fields: &[Field], cells: &[Option<&Value>], words: &mut Answer) {
    encode_within(fields, cells, &|_| true, words);
}

/// `is_asked` says which cells are there at all: the others are in a struct that is null.
fn encode_within(
    fields: &[Field],
    cells: &[Option<&Value>],
    is_asked: &dyn Fn(usize) -> bool,
    words: &mut Answer,
) {
    let field = &fields[0];
    let nulls = cells.iter().filter(|c| c.is_none()).count();
    let is_missing = cells.iter().enumerate().any(|(i, cell)| cell.is_none() && is_asked(i));
    assert!(field.nullable || !is_missing, "column {} is null and may not be", field.name);
    let wrong = |cell: &Value| -> ! { panic!("column {}: {cell} is no {}", field.name, field.data_type) };
    words.layout.extend([cells.len() as u32, nulls as u32]);
    let bits = |set: &dyn Fn(&Option<&Value>) -> bool| {
        let mut bytes = vec![0u8; cells.len().div_ceil(8)];
        cells.iter().enumerate().filter(|(_, c)| set(c)).for_each(|(i, _)| bytes[i / 8] |= 1 << (i % 8));
        bytes
    };
    words.buffer(&if nulls > 0 { bits(&|c| c.is_some()) } else { Vec::new() });
    let lengths = |of: &dyn Fn(&Value) -> usize| {
        let mut end = 0i32;
        let mut offsets = vec![0i32];
        for cell in cells {
            end += cell.map_or(0, |c| of(c) as i32);
            offsets.push(end);
        }
        offsets.iter().flat_map(|o| o.to_le_bytes()).collect::<Vec<u8>>()
    };
    let text = |cell: &Value| cell.as_str().unwrap_or_else(|| wrong(cell)).to_owned();
    match &field.data_type {
        DataType::Boolean => {
            let set = |c: &Option<&Value>| c.is_some_and(|c| c.as_bool().unwrap_or_else(|| wrong(c)));
            words.buffer(&bits(&set));
        }
        DataType::Utf8 | DataType::Binary => {
            words.buffer(&lengths(&|c| text(c).len()));
            let all: String = cells.iter().flatten().map(|c| text(c)).collect();
            words.buffer(all.as_bytes());
        }
        DataType::List => {
            let elements = |c: &Value| c.as_array().unwrap_or_else(|| wrong(c)).clone();
            words.buffer(&lengths(&|c| elements(c).len()));
            let all: Vec<Value> = cells.iter().flatten().flat_map(|c| elements(c)).collect();
            let all: Vec<_> = all.iter().map(|c| Some(c).filter(|c| !c.is_null())).collect();
            encode(&fields[1..], &all, words);
        }
        DataType::Map => {
            let entries = |c: &Value| c.as_object().unwrap_or_else(|| wrong(c)).clone();
            words.buffer(&lengths(&|c| entries(c).len()));
            let entry = |(key, value)| json!({"key": key, "value": value});
            let all: Vec<Value> = cells.iter().flatten().flat_map(|c| entries(c)).map(entry).collect();
            encode(&fields[1..], &all.iter().map(Some).collect::<Vec<_>>(), words);
        }
        DataType::Struct => {
            for child in members(fields) {
                let member = |c: &Option<&'_ Value>| c.and_then(|c| c.get(&child[0].name).cloned());
                let all: Vec<Option<Value>> = cells.iter().map(member).collect();
                let all: Vec<_> = all.iter().map(|c| c.as_ref().filter(|c| !c.is_null())).collect();
                encode_within(child, &all, &|i| cells[i].is_some(), words);
            }
        }
        DataType::FixedSizeBinary(bytes) => {
            let mut all = Vec::new();
            for cell in cells {
                let value = cell.map_or_else(|| vec![0; *bytes as usize], |c| text(c).into_bytes());
                assert_eq!(value.len(), *bytes as usize, "column {}: another width", field.name);
                all.extend(value);
            }
            words.buffer(&all);
        }
        plain => {
            let number = |c: &Value| integer(c, plain).unwrap_or_else(|| wrong(c));
            let mut all: Vec<u8> = Vec::new();
            for cell in cells {
                match plain {
                    DataType::Float32 => {
                        let value = cell.map_or(0.0, |c| c.as_f64().unwrap_or_else(|| wrong(c)));
                        all.extend((value as f32).to_le_bytes());
                    }
                    DataType::Float64 => {
                        let value = cell.map_or(0.0, |c| c.as_f64().unwrap_or_else(|| wrong(c)));
                        all.extend(value.to_le_bytes());
                    }
                    DataType::Decimal256(..) => {
                        let value = cell.map_or(0, number);
                        all.extend(value.to_le_bytes());
                        all.extend((value >> 127).to_le_bytes());
                    }
                    _ => all.extend(&cell.map_or(0, number).to_le_bytes()[..width(plain)]),
                }
            }
            words.buffer(&all);
        }
    }
}

fn width(plain: &DataType) -> usize {
    match plain {
        DataType::Int8 | DataType::Uint8 => 1,
        DataType::Int16 | DataType::Uint16 => 2,
        DataType::Int32 | DataType::Uint32 | DataType::Float32 | DataType::Date32 | DataType::Time32(_) => 4,
        DataType::Decimal128(..) => 16,
        DataType::Decimal256(..) => 32,
        _ => 8,
    }
}

/// A whole number, or a decimal times ten to the power of its scale.
fn integer(cell: &Value, data_type: &DataType) -> Option<i128> {
    let (DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale)) = data_type else {
        return cell.as_i64().map(i128::from).or_else(|| cell.as_u64().map(i128::from));
    };
    let text = cell.as_str()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let scale = usize::try_from(*scale).ok().filter(|scale| *scale >= fraction.len())?;
    format!("{whole}{fraction:0<scale$}").parse().ok()
}

fn computed(binding: &Binding, answer: &Answer) -> Vec<Map<String, Value>> {
    let mut layout = answer.layout.iter().map(|w| *w as usize);
    let mut rows: Vec<Map<String, Value>> = Vec::new();
    let mut at = 0;
    let changes = &binding.changes;
    let count = changes.iter().filter(|c| matches!(c, BoundChange::Replace(_) | BoundChange::Add)).count();
    for _ in 0..count {
        let end = subtree_end(&binding.computed, at);
        let fields = &binding.computed[at..end];
        for (i, cell) in decode(fields, &mut layout, &answer.buffers).into_iter().enumerate() {
            if rows.len() <= i {
                rows.push(Map::new());
            }
            rows[i].insert(fields[0].name.clone(), cell);
        }
        at = end;
    }
    rows
}

fn decode(fields: &[Field], layout: &mut impl Iterator<Item = usize>, buffers: &[u64]) -> Vec<Value> {
    let bytes = |layout: &mut dyn Iterator<Item = usize>| -> Vec<u8> {
        let (at, len) = (layout.next().expect("a buffer"), layout.next().expect("a buffer"));
        let words = &buffers[at..at + len.div_ceil(8)];
        words.iter().flat_map(|w| w.to_le_bytes()).take(len).collect()
    };
    let (rows, _) = (layout.next().expect("a length"), layout.next().expect("a null count"));
    let validity = bytes(layout);
    let bit = |bits: &[u8], i: usize| bits[i / 8] >> (i % 8) & 1 == 1;
    let offsets = |layout: &mut dyn Iterator<Item = usize>| -> Vec<usize> {
        bytes(layout).as_chunks::<4>().0.iter().map(|o| u32::from_le_bytes(*o) as usize).collect()
    };
    let cells: Vec<Value> = match &fields[0].data_type {
        DataType::Boolean => {
            let bits = bytes(layout);
            (0..rows).map(|i| json!(bit(&bits, i))).collect()
        }
        DataType::Utf8 | DataType::Binary => {
            let (offsets, data) = (offsets(layout), bytes(layout));
            offsets.windows(2).map(|w| json!(String::from_utf8_lossy(&data[w[0]..w[1]]))).collect()
        }
        DataType::List => {
            let offsets = offsets(layout);
            let elements = decode(&fields[1..], layout, buffers);
            offsets.windows(2).map(|w| json!(elements[w[0]..w[1]])).collect()
        }
        DataType::Map => {
            let offsets = offsets(layout);
            let entries = decode(&fields[1..], layout, buffers);
            let entry = |entry: &Value| {
                let key = match &entry["key"] {
                    Value::String(key) => key.clone(),
                    other => other.to_string(),
                };
                (key, entry["value"].clone())
            };
            let map = |w: &[usize]| entries[w[0]..w[1]].iter().map(entry).collect::<Map<_, _>>();
            offsets.windows(2).map(|w| Value::Object(map(w))).collect()
        }
        DataType::Struct => {
            let mut cells = vec![Map::new(); rows];
            for member in members(fields) {
                let values = decode(member, layout, buffers);
                for (cell, value) in cells.iter_mut().zip(values) {
                    cell.insert(member[0].name.clone(), value);
                }
            }
            cells.into_iter().map(Value::Object).collect()
        }
        plain => {
            let data = bytes(layout);
            let width = match plain {
                DataType::FixedSizeBinary(width) => *width as usize,
                plain => width(plain),
            };
            data.chunks(width).map(|cell| plain_cell(plain, cell)).collect()
        }
    };
    let valid = |i: usize| validity.is_empty() || bit(&validity, i);
    cells.into_iter().enumerate().map(|(i, cell)| if valid(i) { cell } else { Value::Null }).collect()
}

fn plain_cell(data_type: &DataType, cell: &[u8]) -> Value {
    let mut wide = [0; 16];
    wide[..cell.len()].copy_from_slice(cell);
    let unsigned = u128::from_le_bytes(wide);
    let unused = 128 - 8 * cell.len() as u32;
    let signed = (unsigned << unused) as i128 >> unused;
    match data_type {
        DataType::FixedSizeBinary(_) => json!(String::from_utf8_lossy(cell)),
        DataType::Float32 => json!(f32::from_bits(unsigned as u32)),
        DataType::Float64 => json!(f64::from_bits(unsigned as u64)),
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 | DataType::Uint64 => json!(unsigned as u64),
        DataType::Decimal128(_, scale) if *scale > 0 => {
            let (sign, digits) = (if signed < 0 { "-" } else { "" }, signed.unsigned_abs().to_string());
            let scale = *scale as usize;
            let digits = format!("{digits:0>width$}", width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            json!(format!("{sign}{whole}.{fraction}"))
        }
        DataType::Decimal128(..) => json!(signed.to_string()),
        _ => json!(signed as i64),
    }
}
