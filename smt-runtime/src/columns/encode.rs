//! Columns into the words of a call, in the [Arrow columnar format](https://arrow.apache.org/docs/format/Columnar.html).

use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow_schema::DataType;

/// Buffers begin at multiples of so many words.
const ALIGN_WORDS: usize = 8;

/// Layout and buffers of a call; kept from call to call for its memory.
#[derive(Debug, Default)]
pub(crate) struct Words {
    pub(crate) layout: Vec<u32>,
    pub(crate) buffers: Vec<u64>,
}

impl Words {
    /// Takes the rows of the arrays; the nulls of each are those given, not its own.
    pub(super) fn fill(&mut self, columns: &[(ArrayRef, Option<NullBuffer>)], rows: &Range<usize>) {
        self.layout.clear();
        self.buffers.clear();
        for (array, nulls) in columns {
            let (array, nulls) = match rows.start == 0 && rows.end == array.len() {
                true => (array.clone(), nulls.clone()),
                false => (
                    array.slice(rows.start, rows.len()),
                    nulls.as_ref().map(|n| n.slice(rows.start, rows.len())),
                ),
            };
            self.node(&array, nulls.as_ref());
        }
    }

    fn node(&mut self, array: &ArrayRef, nulls: Option<&NullBuffer>) {
        let nulls = nulls.filter(|n| n.null_count() > 0);
        self.layout.push(array.len() as u32);
        self.layout.push(nulls.map_or(0, |n| n.null_count() as u32));
        match nulls {
            Some(nulls) => self.bits(nulls.inner()),
            None => self.bytes(&[]),
        }
        match array.data_type() {
            DataType::Boolean => self.bits(array.as_boolean().values()),
            DataType::Utf8 => {
                let strings = array.as_string::<i32>();
                self.variable(strings.offsets(), strings.values());
            }
            DataType::Binary => {
                let binary = array.as_binary::<i32>();
                self.variable(binary.offsets(), binary.values());
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                self.child(list.offsets(), list.values());
            }
            DataType::Map(..) => {
                let map = array.as_map();
                self.child(map.offsets(), &(std::sync::Arc::new(map.entries().clone()) as ArrayRef));
            }
            DataType::Struct(_) => {
                for member in array.as_struct().columns() {
                    self.node(member, member.nulls());
                }
            }
            // Values of a fixed width.
            _ => {
                let data = array.to_data();
                let width = match array.data_type() {
                    DataType::FixedSizeBinary(width) => *width as usize,
                    plain => plain.primitive_width().unwrap_or_default(),
                };
                let (from, to) = (data.offset() * width, (data.offset() + data.len()) * width);
                let values = data.buffers().first().map(|b| b.as_slice()).unwrap_or_default();
                self.bytes(values.get(from..to).unwrap_or_default());
            }
        }
    }

    fn child(&mut self, offsets: &OffsetBuffer<i32>, values: &ArrayRef) {
        let (first, last) = self.offsets(offsets);
        let values = values.slice(first, last - first);
        self.node(&values, values.nulls());
    }

    fn variable(&mut self, offsets: &OffsetBuffer<i32>, values: &[u8]) {
        let (first, last) = self.offsets(offsets);
        self.bytes(&values[first..last]);
    }

    /// From 0; says where what they point to begins and ends.
    fn offsets(&mut self, offsets: &OffsetBuffer<i32>) -> (usize, usize) {
        let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
        self.begin(offsets.len() * 4);
        let word = |pair: &[i32]| {
            let second = pair.get(1).map_or(0, |o| o - first);
            u64::from((pair[0] - first) as u32) | u64::from(second as u32) << 32
        };
        self.buffers.extend(offsets.chunks(2).map(word));
        (first as usize, last as usize)
    }

    fn bits(&mut self, bits: &BooleanBuffer) {
        self.bytes(bits.sliced().get(..bits.len().div_ceil(8)).unwrap_or_default());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.begin(bytes.len());
        let (whole, rest) = bytes.as_chunks::<8>();
        self.buffers.extend(whole.iter().map(|word| u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.buffers.push(u64::from_le_bytes(word));
        }
    }

    fn begin(&mut self, bytes: usize) {
        if bytes > 0 {
            self.buffers.resize(self.buffers.len().next_multiple_of(ALIGN_WORDS), 0);
        }
        self.layout.push(self.buffers.len() as u32);
        self.layout.push(bytes as u32);
    }
}

/// About how many bytes all rows of the arrays take.
pub(super) fn bytes_of<'a>(columns: impl IntoIterator<Item = &'a ArrayRef>) -> u64 {
    let bytes = |array: &ArrayRef| array.to_data().get_slice_memory_size().unwrap_or(usize::MAX) as u64;
    columns.into_iter().map(bytes).sum()
}

/// Bytes of the values of these rows, offsets and nulls left aside.
pub(super) fn bytes_in(array: &dyn Array, rows: Range<usize>) -> u64 {
    let between = |offsets: &OffsetBuffer<i32>| offsets[rows.start] as usize..offsets[rows.end] as usize;
    let fixed = |width: usize| (width * rows.len()) as u64;
    match array.data_type() {
        DataType::Boolean => fixed(1),
        DataType::Utf8 => between(array.as_string::<i32>().offsets()).len() as u64,
        DataType::Binary => between(array.as_binary::<i32>().offsets()).len() as u64,
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            bytes_in(list.values(), between(list.offsets()))
        }
        DataType::Map(..) => {
            let map = array.as_map();
            bytes_in(map.entries(), between(map.offsets()))
        }
        DataType::Struct(_) => {
            array.as_struct().columns().iter().map(|member| bytes_in(member, rows.clone())).sum()
        }
        DataType::FixedSizeBinary(width) => fixed(*width as usize),
        plain => fixed(plain.primitive_width().unwrap_or_default()),
    }
}
