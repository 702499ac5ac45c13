//! Columns that a transform computes, written row by row or array by array.

use std::borrow::Cow;
use std::ops::Range;

use bytemuck::{Pod, cast_slice, pod_read_unaligned, try_cast_slice};

use super::read::{
    Date32, Date64, Decimal128, TimeMicros, TimeMillis, TimeNanos, TimeSeconds, TimestampMicros,
    TimestampMillis, TimestampNanos, TimestampSeconds, Value, bit,
};
use super::schema::{DataType, Field};

/// The computed columns of an answer, as the contract lays them out.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Answer {
    pub(crate) layout: Vec<u32>,
    pub(crate) buffers: Vec<u64>,
}

impl Answer {
    pub(crate) fn buffer(&mut self, bytes: &[u8]) {
        self.layout.push(self.buffers.len() as u32);
        self.layout.push(bytes.len() as u32);
        let (whole, rest) = bytes.as_chunks::<8>();
        self.buffers.extend(whole.iter().map(|word| u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.buffers.push(u64::from_le_bytes(word));
        }
    }
}

/// Values that are there already, in Arrow's layout. It is made of what arrow-rs has, and known to be of the builder's type.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Array<'a> {
    /// Bytes, and the bit that belongs to the first value; nothing if all are valid.
    pub(crate) validity: Option<(&'a [u8], usize)>,
    /// Of truth values: the bit that belongs to the first.
    pub(crate) first_bit: usize,
    /// Offsets, one more than there are values, or nothing.
    pub(crate) offsets: &'a [i32],
    /// What the values, or the offsets, are of.
    pub(crate) values: &'a [u8],
    pub(crate) children: Vec<Array<'a>>,
}

impl<'a> Array<'a> {
    /// Of a struct.
    pub fn child(&self, number: usize) -> &Array<'a> {
        &self.children[number]
    }

    fn between(&self, values: &Range<usize>) -> Range<usize> {
        self.offsets[values.start] as usize..self.offsets[values.end] as usize
    }

    /// Parts of it, and whether their values are there: what lies under a null is nobody's.
    pub fn runs(&self, values: &Range<usize>) -> impl Iterator<Item = (bool, Range<usize>)> + use<'a> {
        let validity = self.validity;
        runs(values.clone(), move |value| validity.is_none_or(|(bytes, first)| bit(bytes, first + value)))
    }
}

/// Parts of a range that are alike.
pub(crate) fn runs(
    range: Range<usize>,
    of: impl Fn(usize) -> bool,
) -> impl Iterator<Item = (bool, Range<usize>)> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let start = at;
        let is = (start < range.end).then(|| of(start))?;
        while at < range.end && of(at) == is {
            at += 1;
        }
        Some((is, start..at))
    })
}

/// Bits; for validity, none as long as all are set.
#[derive(Debug, Default)]
struct Bits {
    bytes: Vec<u8>,
    len: usize,
}

impl Bits {
    #[inline]
    fn push(&mut self, bit: bool) {
        if self.len.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if bit {
            self.bytes[self.len / 8] |= 1 << (self.len % 8);
        }
        self.len += 1;
    }

    fn append(&mut self, bytes: &[u8], mut bits: Range<usize>) {
        // Where both begin with a byte, whole ones are copied.
        if self.len.is_multiple_of(8) && bits.start.is_multiple_of(8) {
            let whole = bits.len() / 8;
            self.bytes.extend_from_slice(&bytes[bits.start / 8..][..whole]);
            self.len += whole * 8;
            bits.start += whole * 8;
        }
        bits.for_each(|at| self.push(bit(bytes, at)));
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.len = 0;
    }
}

/// Which values are there.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Valid {
    bits: Bits,
    len: usize,
    nulls: usize,
}

impl Valid {
    /// Of the next value.
    #[inline]
    pub fn push(&mut self, valid: bool) {
        if !valid && self.nulls == 0 {
            (0..self.len).for_each(|_| self.bits.push(true));
        }
        if !valid || self.nulls > 0 {
            self.bits.push(valid);
        }
        self.nulls += usize::from(!valid);
        self.len += 1;
    }

    /// Of the next values.
    pub fn append(&mut self, from: &Array<'_>, values: &Range<usize>) {
        match from.validity {
            Some((bytes, first)) => values.clone().for_each(|value| self.push(bit(bytes, first + value))),
            None if self.nulls == 0 => self.len += values.len(),
            None => values.clone().for_each(|_| self.push(true)),
        }
    }

    /// So many that are not there.
    pub fn nulls(&mut self, count: usize) {
        (0..count).for_each(|_| self.push(false));
    }

    /// Begins a node of the answer, and is empty again.
    pub fn finish(&mut self, answer: &mut Answer) {
        answer.layout.push(self.len as u32);
        answer.layout.push(self.nulls as u32);
        answer.buffer(&self.bits.bytes);
        self.bits.clear();
        (self.len, self.nulls) = (0, 0);
    }
}

/// What a column is written to.
#[doc(hidden)]
pub trait ColumnBuilder: Default {
    /// Appends a part of what is there already.
    fn append(&mut self, from: &Array<'_>, values: Range<usize>);

    /// Appends so many nulls.
    fn nulls(&mut self, count: usize);

    /// Appends the column to the answer, and is empty again.
    fn finish(&mut self, answer: &mut Answer);
}

/// A type that a field of computed columns may have. See [`Columns`](derive@crate::Columns) for those that there are; derive
/// it on a struct whose fields are of these types to compute a column that is a struct.
pub trait Compute {
    #[doc(hidden)]
    type Builder: ColumnBuilder;

    #[doc(hidden)]
    fn fields() -> Vec<Field>;

    #[doc(hidden)]
    fn append_to(self, builder: &mut Self::Builder);

    #[doc(hidden)]
    fn push_null(builder: &mut Self::Builder);
}

impl<T: Compute> Compute for Option<T> {
    type Builder = T::Builder;

    fn fields() -> Vec<Field> {
        let mut fields = T::fields();
        fields[0].nullable = true;
        fields
    }

    #[inline]
    fn append_to(self, builder: &mut Self::Builder) {
        match self {
            Some(value) => value.append_to(builder),
            None => T::push_null(builder),
        }
    }

    fn push_null(builder: &mut Self::Builder) {
        T::push_null(builder);
    }
}

/// Values of a fixed width.
#[doc(hidden)]
#[derive(Debug)]
pub struct Values<T> {
    valid: Valid,
    values: Vec<T>,
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Values { valid: Valid::default(), values: Vec::new() }
    }
}

impl<T: Pod> ColumnBuilder for Values<T> {
    fn append(&mut self, from: &Array<'_>, values: Range<usize>) {
        self.valid.append(from, &values);
        let width = size_of::<T>();
        let bytes = &from.values[values.start * width..values.end * width];
        match try_cast_slice(bytes) {
            Ok(values) => self.values.extend_from_slice(values),
            Err(_) => self.values.extend(bytes.chunks_exact(width).map(pod_read_unaligned::<T>)),
        }
    }

    fn nulls(&mut self, count: usize) {
        self.valid.nulls(count);
        self.values.resize(self.values.len() + count, T::zeroed());
    }

    fn finish(&mut self, answer: &mut Answer) {
        self.valid.finish(answer);
        answer.buffer(cast_slice(&self.values));
        self.values.clear();
    }
}

macro_rules! fixed {
    ($($ty:ty as $plain:ty: $value:expr;)*) => {$(
        impl Compute for $ty {
            type Builder = Values<$plain>;

            fn fields() -> Vec<Field> {
                <$ty as Value<'_>>::example()
            }

            #[inline]
            fn append_to(self, builder: &mut Self::Builder) {
                let value: fn($ty) -> $plain = $value;
                builder.valid.push(true);
                builder.values.push(value(self));
            }

            fn push_null(builder: &mut Self::Builder) {
                builder.valid.push(false);
                builder.values.push(Default::default());
            }
        }
    )*};
}

fixed! {
    i8 as i8: |v| v;
    i16 as i16: |v| v;
    i32 as i32: |v| v;
    i64 as i64: |v| v;
    u8 as u8: |v| v;
    u16 as u16: |v| v;
    u32 as u32: |v| v;
    u64 as u64: |v| v;
    f32 as f32: |v| v;
    f64 as f64: |v| v;
    Date32 as i32: |v| v.0;
    Date64 as i64: |v| v.0;
    TimeSeconds as i32: |v| v.0;
    TimeMillis as i32: |v| v.0;
    TimeMicros as i64: |v| v.0;
    TimeNanos as i64: |v| v.0;
    TimestampSeconds as i64: |v| v.0;
    TimestampMillis as i64: |v| v.0;
    TimestampMicros as i64: |v| v.0;
    TimestampNanos as i64: |v| v.0;
}

impl<const P: u8, const S: i8> Compute for Decimal128<P, S> {
    type Builder = Values<i128>;

    fn fields() -> Vec<Field> {
        <Self as Value<'_>>::example()
    }

    #[inline]
    fn append_to(self, builder: &mut Self::Builder) {
        builder.valid.push(true);
        builder.values.push(self.0);
    }

    fn push_null(builder: &mut Self::Builder) {
        builder.valid.push(false);
        builder.values.push(0);
    }
}

/// Truth values.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Flags {
    valid: Valid,
    bits: Bits,
}

impl ColumnBuilder for Flags {
    fn append(&mut self, from: &Array<'_>, values: Range<usize>) {
        self.valid.append(from, &values);
        self.bits.append(from.values, from.first_bit + values.start..from.first_bit + values.end);
    }

    fn nulls(&mut self, count: usize) {
        self.valid.nulls(count);
        (0..count).for_each(|_| self.bits.push(false));
    }

    fn finish(&mut self, answer: &mut Answer) {
        self.valid.finish(answer);
        answer.buffer(&self.bits.bytes);
        self.bits.clear();
    }
}

impl Compute for bool {
    type Builder = Flags;

    fn fields() -> Vec<Field> {
        <Self as Value<'_>>::example()
    }

    #[inline]
    fn append_to(self, builder: &mut Self::Builder) {
        builder.valid.push(true);
        builder.bits.push(self);
    }

    fn push_null(builder: &mut Self::Builder) {
        builder.valid.push(false);
        builder.bits.push(false);
    }
}

/// Texts and bytes.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Variable {
    valid: Valid,
    offsets: Offsets,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Offsets(Vec<i32>);

impl Default for Offsets {
    fn default() -> Self {
        Offsets(vec![0])
    }
}

impl Offsets {
    #[inline]
    fn push(&mut self, end: usize) {
        self.0.push(i32::try_from(end).expect("a guest has less than 2 GiB"));
    }

    /// Those of a part of an array, moved to where that part is put.
    fn append(&mut self, from: &Array<'_>, values: &Range<usize>) {
        let (start, to) = (from.offsets[values.start], self.0[self.0.len() - 1]);
        let ends = &from.offsets[values.start + 1..=values.end];
        self.0
            .extend(ends.iter().map(|end| to.checked_add(end - start).expect("a guest has less than 2 GiB")));
    }

    /// So many without anything.
    fn again(&mut self, count: usize) {
        let end = self.0[self.0.len() - 1];
        self.0.resize(self.0.len() + count, end);
    }

    fn finish(&mut self, answer: &mut Answer) {
        answer.buffer(cast_slice(&self.0));
        self.0.truncate(1);
    }
}

impl Variable {
    #[inline]
    fn push(&mut self, bytes: Option<&[u8]>) {
        self.valid.push(bytes.is_some());
        self.bytes.extend_from_slice(bytes.unwrap_or_default());
        self.offsets.push(self.bytes.len());
    }
}

impl ColumnBuilder for Variable {
    fn append(&mut self, from: &Array<'_>, values: Range<usize>) {
        for (is_there, values) in from.runs(&values) {
            if !is_there {
                self.nulls(values.len());
                continue;
            }
            self.valid.append(from, &values);
            self.offsets.append(from, &values);
            self.bytes.extend_from_slice(&from.values[from.between(&values)]);
        }
    }

    fn nulls(&mut self, count: usize) {
        self.valid.nulls(count);
        self.offsets.again(count);
    }

    fn finish(&mut self, answer: &mut Answer) {
        self.valid.finish(answer);
        self.offsets.finish(answer);
        answer.buffer(&self.bytes);
        self.bytes.clear();
    }
}

macro_rules! variable {
    ($($ty:ty: $data_type:expr;)*) => {$(
        impl Compute for $ty {
            type Builder = Variable;

            fn fields() -> Vec<Field> {
                vec![Field::leaf($data_type, false)]
            }

            #[inline]
            fn append_to(self, builder: &mut Self::Builder) {
                let bytes: &[u8] = self.as_ref();
                builder.push(Some(bytes));
            }

            fn push_null(builder: &mut Self::Builder) {
                builder.push(None);
            }
        }
    )*};
}

variable! {
    &str: DataType::Utf8;
    String: DataType::Utf8;
    &[u8]: DataType::Binary;
    Vec<u8>: DataType::Binary;
    Cow<'_, [u8]>: DataType::Binary;
}

impl Compute for Cow<'_, str> {
    type Builder = Variable;

    fn fields() -> Vec<Field> {
        <&str as Compute>::fields()
    }

    #[inline]
    fn append_to(self, builder: &mut Self::Builder) {
        builder.push(Some(self.as_bytes()));
    }

    fn push_null(builder: &mut Self::Builder) {
        builder.push(None);
    }
}

/// Values of `N` bytes.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Fixed<const N: usize> {
    valid: Valid,
    bytes: Vec<u8>,
}

impl<const N: usize> ColumnBuilder for Fixed<N> {
    fn append(&mut self, from: &Array<'_>, values: Range<usize>) {
        self.valid.append(from, &values);
        self.bytes.extend_from_slice(&from.values[values.start * N..values.end * N]);
    }

    fn nulls(&mut self, count: usize) {
        self.valid.nulls(count);
        self.bytes.resize(self.bytes.len() + count * N, 0);
    }

    fn finish(&mut self, answer: &mut Answer) {
        self.valid.finish(answer);
        answer.buffer(&self.bytes);
        self.bytes.clear();
    }
}

impl<const N: usize> Compute for [u8; N] {
    type Builder = Fixed<N>;

    fn fields() -> Vec<Field> {
        <&[u8; N] as Value<'_>>::example()
    }

    #[inline]
    fn append_to(self, builder: &mut Self::Builder) {
        builder.valid.push(true);
        builder.bytes.extend_from_slice(&self);
    }

    fn push_null(builder: &mut Self::Builder) {
        builder.valid.push(false);
        builder.bytes.extend_from_slice(&[0; N]);
    }
}

/// The elements of a computed list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Elements<T>(pub Vec<T>);

/// Lists.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Lists<B> {
    valid: Valid,
    offsets: Offsets,
    elements: B,
    count: usize,
}

impl<B: ColumnBuilder> ColumnBuilder for Lists<B> {
    fn append(&mut self, from: &Array<'_>, values: Range<usize>) {
        for (is_there, values) in from.runs(&values) {
            if !is_there {
                self.nulls(values.len());
                continue;
            }
            let elements = from.between(&values);
            self.valid.append(from, &values);
            self.offsets.append(from, &values);
            self.count += elements.len();
            self.elements.append(from.child(0), elements);
        }
    }

    fn nulls(&mut self, count: usize) {
        self.valid.nulls(count);
        self.offsets.again(count);
    }

    fn finish(&mut self, answer: &mut Answer) {
        self.valid.finish(answer);
        self.offsets.finish(answer);
        self.elements.finish(answer);
        self.count = 0;
    }
}

impl<T: Compute> Compute for Elements<T> {
    type Builder = Lists<T::Builder>;

    fn fields() -> Vec<Field> {
        let mut fields = vec![Field { children: 1, ..Field::leaf(DataType::List, false) }];
        fields.extend(T::fields());
        fields[1].name = "item".into();
        fields
    }

    fn append_to(self, builder: &mut Self::Builder) {
        builder.valid.push(true);
        builder.count += self.0.len();
        self.0.into_iter().for_each(|element| element.append_to(&mut builder.elements));
        builder.offsets.push(builder.count);
    }

    fn push_null(builder: &mut Self::Builder) {
        builder.valid.push(false);
        builder.offsets.push(builder.count);
    }
}

/// The entries of a computed map, in the order in which they are to be read. A key must not come twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entries<K, V>(pub Vec<(K, V)>);

/// Maps.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Maps<K, V> {
    valid: Valid,
    offsets: Offsets,
    keys: K,
    values: V,
    count: usize,
}

impl<K: ColumnBuilder, V: ColumnBuilder> ColumnBuilder for Maps<K, V> {
    fn append(&mut self, from: &Array<'_>, values: Range<usize>) {
        for (is_there, values) in from.runs(&values) {
            if !is_there {
                self.nulls(values.len());
                continue;
            }
            let entries = from.between(&values);
            self.valid.append(from, &values);
            self.offsets.append(from, &values);
            self.count += entries.len();
            self.keys.append(from.child(0), entries.clone());
            self.values.append(from.child(1), entries);
        }
    }

    fn nulls(&mut self, count: usize) {
        self.valid.nulls(count);
        self.offsets.again(count);
    }

    fn finish(&mut self, answer: &mut Answer) {
        self.valid.finish(answer);
        self.offsets.finish(answer);
        // The struct of the entries, of which none is null.
        answer.layout.extend([self.count as u32, 0]);
        answer.buffer(&[]);
        self.keys.finish(answer);
        self.values.finish(answer);
        self.count = 0;
    }
}

impl<K: Compute, V: Compute> Compute for Entries<K, V> {
    type Builder = Maps<K::Builder, V::Builder>;

    fn fields() -> Vec<Field> {
        let mut fields = vec![
            Field { children: 1, ..Field::leaf(DataType::Map, false) },
            Field { name: "entries".into(), children: 2, ..Field::leaf(DataType::Struct, false) },
        ];
        fields.extend(K::fields());
        fields[2].name = "key".into();
        let value = fields.len();
        fields.extend(V::fields());
        fields[value].name = "value".into();
        fields
    }

    fn append_to(self, builder: &mut Self::Builder) {
        builder.valid.push(true);
        builder.count += self.0.len();
        for (key, value) in self.0 {
            key.append_to(&mut builder.keys);
            value.append_to(&mut builder.values);
        }
        builder.offsets.push(builder.count);
    }

    fn push_null(builder: &mut Self::Builder) {
        builder.valid.push(false);
        builder.offsets.push(builder.count);
    }
}
