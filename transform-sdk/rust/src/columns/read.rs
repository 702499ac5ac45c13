//! Columns of a batch, read row by row.

use std::fmt;

use bytemuck::{AnyBitPattern, cast_slice};

use super::schema::{DataType, Field, Slot, TimeUnit, layout_words, members};

/// The columns of one call, as the contract lays them out. What the host hands over is trusted: it has checked it.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    pub(crate) rows: usize,
    pub(crate) layout: &'a [u32],
    pub(crate) buffers: &'a [u64],
    pub(crate) slots: &'a [Option<Slot>],
}

impl<'a> Batch<'a> {
    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The column of need number `need`.
    #[doc(hidden)]
    pub fn column<T: Value<'a>>(&self, need: usize) -> Column<'a, T> {
        let cursor = match &self.slots[need] {
            Some(slot) => {
                let mut nodes = Nodes { layout: &self.layout[slot.at..], buffers: self.buffers };
                let validity = nodes.begin();
                T::open(&slot.fields, validity, &mut nodes)
            }
            None => T::missing(),
        };
        Column { cursor, rows: self.rows }
    }
}

/// A column of a batch.
pub struct Column<'a, T: Value<'a>> {
    cursor: T::Cursor,
    rows: usize,
}

impl<'a, T: Value<'a>> Clone for Column<'a, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<'a, T: Value<'a>> Copy for Column<'a, T> {}

impl<'a, T: Value<'a>> Column<'a, T> {
    /// How many values it has: as many as the batch has rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The value of a row.
    ///
    /// # Panics
    /// Beyond the last row.
    #[inline]
    pub fn get(&self, row: usize) -> T {
        // A bitmap goes on after its last row, up to a whole byte.
        assert!(row < self.rows, "row {row} of {}", self.rows);
        self.value(row)
    }

    /// As `get`, of a row that there is.
    #[doc(hidden)]
    #[inline]
    pub fn value(&self, row: usize) -> T {
        T::get(&self.cursor, row)
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = T> + use<'a, T> {
        let cursor = self.cursor;
        (0..self.rows).map(move |row| T::get(&cursor, row))
    }
}

impl<'a, T: Value<'a>> Column<'a, Option<T>> {
    /// Whether there is a value in the row.
    ///
    /// # Panics
    /// Beyond the last row.
    #[inline]
    pub fn is_valid(&self, row: usize) -> bool {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        self.cursor.as_ref().is_some_and(|(validity, _)| validity.is_valid(row))
    }
}

impl<'a, T: Value<'a> + fmt::Debug> fmt::Debug for Column<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The nodes of a column, one after the other.
#[doc(hidden)]
#[derive(Debug)]
pub struct Nodes<'a> {
    layout: &'a [u32],
    buffers: &'a [u64],
}

/// The validity bitmap of a node: of no bytes if nothing is null.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Validity<'a>(pub(crate) &'a [u8]);

impl Validity<'_> {
    #[inline]
    fn is_valid(&self, row: usize) -> bool {
        self.0.is_empty() || bit(self.0, row)
    }
}

#[inline]
pub(crate) fn bit(bits: &[u8], row: usize) -> bool {
    bits[row / 8] >> (row % 8) & 1 == 1
}

impl<'a> Nodes<'a> {
    /// From a node on.
    #[cfg(feature = "arrow")]
    pub(crate) fn at(batch: &Batch<'a>, word: usize) -> Self {
        Nodes { layout: &batch.layout[word..], buffers: batch.buffers }
    }

    /// How many values the node has that comes next.
    #[cfg(feature = "arrow")]
    pub(crate) fn values(&self) -> usize {
        self.layout[0] as usize
    }

    /// Length and null count, which the cursors do not need, and the validity.
    pub(crate) fn begin(&mut self) -> Validity<'a> {
        self.layout = &self.layout[2..];
        Validity(self.buffer())
    }

    pub(crate) fn buffer<T: AnyBitPattern>(&mut self) -> &'a [T] {
        let (at, bytes) = (self.layout[0] as usize, self.layout[1] as usize);
        self.layout = &self.layout[2..];
        let words = &self.buffers[at..at + bytes.div_ceil(8)];
        &cast_slice(words)[..bytes / size_of::<T>()]
    }
}

/// Whether a struct of that subtree has a member that can be read as `T`.
#[doc(hidden)]
pub fn accepts_member<'a, T: Value<'a>>(fields: &[Field], name: &str, optional: bool) -> bool {
    match members(fields).find(|member| member[0].name == name) {
        Some(member) => (T::NULLABLE || !member[0].nullable) && T::accepts(member),
        None => optional,
    }
}

/// A member of the struct whose members come next in `nodes`, opened.
#[doc(hidden)]
pub fn open_member<'a, T: Value<'a>>(fields: &[Field], nodes: &Nodes<'a>, name: &str) -> T::Cursor {
    let mut words = 0;
    for member in members(fields) {
        if member[0].name == name {
            let mut nodes = Nodes { layout: &nodes.layout[words..], buffers: nodes.buffers };
            let validity = nodes.begin();
            return T::open(member, validity, &mut nodes);
        }
        words += layout_words(member);
    }
    T::missing()
}

/// Goes past the members of the struct.
#[doc(hidden)]
pub fn skip_members(fields: &[Field], nodes: &mut Nodes<'_>) {
    nodes.layout = &nodes.layout[members(fields).map(layout_words).sum::<usize>()..];
}

/// A type that a field of a row may have. See [`Row`](derive@crate::Row) for those that there are; derive it on a struct
/// whose fields are of these types to read a column that is a struct, such as the elements of a list.
pub trait Value<'a>: Sized {
    /// The column, opened.
    #[doc(hidden)]
    type Cursor: Copy;

    /// Whether it can be null.
    #[doc(hidden)]
    const NULLABLE: bool = false;

    /// In words.
    #[doc(hidden)]
    fn describe() -> String {
        Self::example().first().map_or_else(String::new, |f| f.data_type.to_string())
    }

    /// Whether a column of that subtree can be read as this.
    #[doc(hidden)]
    fn accepts(fields: &[Field]) -> bool {
        fields.first().map(|f| &f.data_type) == Self::example().first().map(|f| &f.data_type)
    }

    /// A subtree that can be read as this.
    #[doc(hidden)]
    fn example() -> Vec<Field>;

    #[doc(hidden)]
    fn open(fields: &[Field], validity: Validity<'a>, nodes: &mut Nodes<'a>) -> Self::Cursor;

    /// A column that is not there.
    #[doc(hidden)]
    fn missing() -> Self::Cursor {
        unreachable!("only what may be null may be missing")
    }

    #[doc(hidden)]
    fn get(cursor: &Self::Cursor, row: usize) -> Self;
}

impl<'a, T: Value<'a>> Value<'a> for Option<T> {
    type Cursor = Option<(Validity<'a>, T::Cursor)>;

    const NULLABLE: bool = true;

    fn describe() -> String {
        T::describe()
    }

    fn accepts(fields: &[Field]) -> bool {
        T::accepts(fields)
    }

    fn example() -> Vec<Field> {
        let mut fields = T::example();
        fields[0].nullable = true;
        fields
    }

    fn open(fields: &[Field], validity: Validity<'a>, nodes: &mut Nodes<'a>) -> Self::Cursor {
        Some((validity, T::open(fields, validity, nodes)))
    }

    fn missing() -> Self::Cursor {
        None
    }

    #[inline]
    fn get(cursor: &Self::Cursor, row: usize) -> Self {
        match cursor {
            Some((validity, inner)) if validity.is_valid(row) => Some(T::get(inner, row)),
            _ => None,
        }
    }
}

macro_rules! plain {
    ($($ty:ty: $data_type:expr;)*) => {$(
        impl<'a> Value<'a> for $ty {
            type Cursor = &'a [$ty];

            fn example() -> Vec<Field> {
                vec![Field::leaf($data_type, false)]
            }

            fn open(_: &[Field], _: Validity<'a>, nodes: &mut Nodes<'a>) -> Self::Cursor {
                nodes.buffer()
            }

            #[inline]
            fn get(cursor: &Self::Cursor, row: usize) -> Self {
                cursor[row]
            }
        }

        impl<'a> Column<'a, $ty> {
            /// All of them.
            pub fn values(&self) -> &'a [$ty] {
                &self.cursor[..self.rows]
            }
        }

        impl<'a> Column<'a, Option<$ty>> {
            /// All of them, anything where [`is_valid`](Self::is_valid) says no; none if there is no such column.
            pub fn values(&self) -> Option<&'a [$ty]> {
                self.cursor.map(|(_, values)| &values[..self.rows])
            }
        }
    )*};
}

plain! {
    i8: DataType::Int8;
    i16: DataType::Int16;
    i32: DataType::Int32;
    i64: DataType::Int64;
    u8: DataType::Uint8;
    u16: DataType::Uint16;
    u32: DataType::Uint32;
    u64: DataType::Uint64;
    f32: DataType::Float32;
    f64: DataType::Float64;
}

macro_rules! times {
    ($($(#[$doc:meta])* $name:ident($ty:ty): $data_type:expr, if $pattern:pat => ;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $ty);

        impl<'a> Value<'a> for $name {
            type Cursor = &'a [$ty];

            fn accepts(fields: &[Field]) -> bool {
                matches!(fields.first().map(|f| &f.data_type), Some($pattern))
            }

            fn example() -> Vec<Field> {
                vec![Field::leaf($data_type, false)]
            }

            fn open(_: &[Field], _: Validity<'a>, nodes: &mut Nodes<'a>) -> Self::Cursor {
                nodes.buffer()
            }

            #[inline]
            fn get(cursor: &Self::Cursor, row: usize) -> Self {
                $name(cursor[row])
            }
        }
    )*};
}

fn utc(unit: TimeUnit) -> DataType {
    DataType::Timestamp(unit, Some("UTC".into()))
}

times! {
    /// Days since the Unix epoch.
    Date32(i32): DataType::Date32, if DataType::Date32 =>;
    /// Milliseconds since the Unix epoch, of whole days.
    Date64(i64): DataType::Date64, if DataType::Date64 =>;
    /// Seconds since midnight.
    TimeSeconds(i32): DataType::Time32(TimeUnit::Second), if DataType::Time32(TimeUnit::Second) =>;
    /// Milliseconds since midnight.
    TimeMillis(i32): DataType::Time32(TimeUnit::Millisecond), if DataType::Time32(TimeUnit::Millisecond) =>;
    /// Microseconds since midnight.
    TimeMicros(i64): DataType::Time64(TimeUnit::Microsecond), if DataType::Time64(TimeUnit::Microsecond) =>;
    /// Nanoseconds since midnight.
    TimeNanos(i64): DataType::Time64(TimeUnit::Nanosecond), if DataType::Time64(TimeUnit::Nanosecond) =>;
    /// Seconds since the Unix epoch; read from a timestamp with or without a time zone, computed in UTC.
    TimestampSeconds(i64): utc(TimeUnit::Second), if DataType::Timestamp(TimeUnit::Second, _) =>;
    /// Milliseconds since the Unix epoch; read from a timestamp with or without a time zone, computed in UTC.
    TimestampMillis(i64): utc(TimeUnit::Millisecond), if DataType::Timestamp(TimeUnit::Millisecond, _) =>;
    /// Microseconds since the Unix epoch; read from a timestamp with or without a time zone, computed in UTC.
    TimestampMicros(i64): utc(TimeUnit::Microsecond), if DataType::Timestamp(TimeUnit::Microsecond, _) =>;
    /// Nanoseconds since the Unix epoch; read from a timestamp with or without a time zone, computed in UTC.
    TimestampNanos(i64): utc(TimeUnit::Nanosecond), if DataType::Timestamp(TimeUnit::Nanosecond, _) =>;
}

impl<'a> Value<'a> for bool {
    type Cursor = &'a [u8];

    fn example() -> Vec<Field> {
        vec![Field::leaf(DataType::Boolean, false)]
    }

    fn open(_: &[Field], _: Validity<'a>, nodes: &mut Nodes<'a>) -> Self::Cursor {
        nodes.buffer()
    }

    #[inline]
    fn get(cursor: &Self::Cursor, row: usize) -> Self {
        bit(cursor, row)
    }
}

#[inline]
fn between<'a>((offsets, bytes): &(&'a [i32], &'a [u8]), row: usize) -> &'a [u8] {
    &bytes[offsets[row] as usize..offsets[row + 1] as usize]
}

impl<'a> Value<'a> for &'a [u8] {
    type Cursor = (&'a [i32], &'a [u8]);

    fn example() -> Vec<Field> {
        vec![Field::leaf(DataType::Binary, false)]
    }

    fn open(_: &[Field], _: Validity<'a>, nodes: &mut Nodes<'a>) -> Self::Cursor {
        (nodes.buffer(), nodes.buffer())
    }

    #[inline]
    fn get(cursor: &Self::Cursor, row: usize) -> Self {
        between(cursor, row)
    }
}

impl<'a> Value<'a> for &'a str {
    type Cursor = (&'a [i32], &'a [u8]);

    fn example() -> Vec<Field> {
        vec![Field::leaf(DataType::Utf8, false)]
    }

    fn open(_: &[Field], _: Validity<'a>, nodes: &mut Nodes<'a>) -> Self::Cursor {
        (nodes.buffer(), nodes.buffer())
    }

    #[inline]
    fn get(cursor: &Self::Cursor, row: usize) -> Self {
        let bytes = between(cursor, row);
        debug_assert!(std::str::from_utf8(bytes).is_ok());
        // SAFETY: the column is Arrow's utf8, whose values are UTF-8. A `Batch` is made by this crate alone: in a component of
        // what the host has checked, and the component's memory is the host's anyhow; natively of the harness's texts.
        unsafe { std::str::from_utf8_unchecked(bytes) }
    }
}

impl<'a, const N: usize> Value<'a> for &'a [u8; N] {
    type Cursor = &'a [u8];

    fn example() -> Vec<Field> {
        vec![Field::leaf(DataType::FixedSizeBinary(N as u32), false)]
    }

    fn open(_: &[Field], _: Validity<'a>, nodes: &mut Nodes<'a>) -> Self::Cursor {
        nodes.buffer()
    }

    #[inline]
    fn get(cursor: &Self::Cursor, row: usize) -> Self {
        cursor[row * N..].first_chunk().expect("a value has its type's width")
    }
}

/// A decimal of the type `decimal(P,S)`: the number times ten to the power of `S`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal128<const P: u8, const S: i8>(pub i128);

/// A decimal of up to 38 digits and any scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decimal {
    /// The number times ten to the power of `scale`.
    pub unscaled: i128,
    /// How many digits are behind the point.
    pub scale: i8,
}

/// A decimal of up to 76 digits and any scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decimal256 {
    /// The lower half of the number times ten to the power of `scale`, in two's complement.
    pub low: u128,
    /// The upper half.
    pub high: i128,
    /// How many digits are behind the point.
    pub scale: i8,
}

#[inline]
fn pair(words: &[u64], at: usize) -> u128 {
    u128::from(words[at]) | u128::from(words[at + 1]) << 64
}

impl<'a, const P: u8, const S: i8> Value<'a> for Decimal128<P, S> {
    type Cursor = &'a [u64];

    fn example() -> Vec<Field> {
        vec![Field::leaf(DataType::Decimal128(P, S), false)]
    }

    fn open(_: &[Field], _: Validity<'a>, nodes: &mut Nodes<'a>) -> Self::Cursor {
        nodes.buffer()
    }

    #[inline]
    fn get(cursor: &Self::Cursor, row: usize) -> Self {
        Decimal128(pair(cursor, row * 2) as i128)
    }
}

impl<'a> Value<'a> for Decimal {
    type Cursor = (&'a [u64], i8);

    fn describe() -> String {
        "a decimal of up to 38 digits".into()
    }

    fn accepts(fields: &[Field]) -> bool {
        matches!(fields.first().map(|f| &f.data_type), Some(DataType::Decimal128(..)))
    }

    fn example() -> Vec<Field> {
        vec![Field::leaf(DataType::Decimal128(38, 2), false)]
    }

    fn open(fields: &[Field], _: Validity<'a>, nodes: &mut Nodes<'a>) -> Self::Cursor {
        let scale = match fields[0].data_type {
            DataType::Decimal128(_, scale) => scale,
            _ => 0,
        };
        (nodes.buffer(), scale)
    }

    #[inline]
    fn get((words, scale): &Self::Cursor, row: usize) -> Self {
        Decimal { unscaled: pair(words, row * 2) as i128, scale: *scale }
    }
}

impl<'a> Value<'a> for Decimal256 {
    type Cursor = (&'a [u64], i8);

    fn describe() -> String {
        "a decimal of 39 to 76 digits".into()
    }

    fn accepts(fields: &[Field]) -> bool {
        matches!(fields.first().map(|f| &f.data_type), Some(DataType::Decimal256(..)))
    }

    fn example() -> Vec<Field> {
        vec![Field::leaf(DataType::Decimal256(76, 2), false)]
    }

    fn open(fields: &[Field], _: Validity<'a>, nodes: &mut Nodes<'a>) -> Self::Cursor {
        let scale = match fields[0].data_type {
            DataType::Decimal256(_, scale) => scale,
            _ => 0,
        };
        (nodes.buffer(), scale)
    }

    #[inline]
    fn get((words, scale): &Self::Cursor, row: usize) -> Self {
        Decimal256 { low: pair(words, row * 4), high: pair(words, row * 4 + 2) as i128, scale: *scale }
    }
}

/// The elements of a list.
pub struct List<'a, T: Value<'a>> {
    elements: T::Cursor,
    start: usize,
    len: usize,
}

// Whatever its elements are, it only says where they are.
impl<'a, T: Value<'a>> Clone for List<'a, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<'a, T: Value<'a>> Copy for List<'a, T> {}

impl<'a, T: Value<'a>> List<'a, T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Element number `i`.
    pub fn get(&self, i: usize) -> Option<T> {
        (i < self.len).then(|| T::get(&self.elements, self.start + i))
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = T> + use<'a, T> {
        let elements = self.elements;
        (self.start..self.start + self.len).map(move |row| T::get(&elements, row))
    }
}

impl<'a, T: Value<'a> + fmt::Debug> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T: Value<'a>> Value<'a> for List<'a, T> {
    type Cursor = (&'a [i32], T::Cursor);

    fn describe() -> String {
        format!("list<{}>", T::describe())
    }

    fn accepts(fields: &[Field]) -> bool {
        let [list, element, ..] = fields else { return false };
        list.data_type == DataType::List && (T::NULLABLE || !element.nullable) && T::accepts(&fields[1..])
    }

    fn example() -> Vec<Field> {
        let mut fields = vec![Field { children: 1, ..Field::leaf(DataType::List, false) }];
        fields.extend(T::example());
        fields[1].name = "item".into();
        fields
    }

    fn open(fields: &[Field], _: Validity<'a>, nodes: &mut Nodes<'a>) -> Self::Cursor {
        let offsets = nodes.buffer();
        let validity = nodes.begin();
        (offsets, T::open(&fields[1..], validity, nodes))
    }

    #[inline]
    fn get((offsets, elements): &Self::Cursor, row: usize) -> Self {
        let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
        List { elements: *elements, start, len: end - start }
    }
}

/// The entries of a map, in the order in which they were written.
pub struct Map<'a, K: Value<'a>, V: Value<'a>> {
    keys: List<'a, K>,
    values: List<'a, V>,
}

impl<'a, K: Value<'a>, V: Value<'a>> Clone for Map<'a, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<'a, K: Value<'a>, V: Value<'a>> Copy for Map<'a, K, V> {}

impl<'a, K: Value<'a>, V: Value<'a>> Map<'a, K, V> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.len == 0
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = (K, V)> + use<'a, K, V> {
        self.keys.iter().zip(self.values.iter())
    }
}

impl<'a, K: Value<'a> + fmt::Debug, V: Value<'a> + fmt::Debug> fmt::Debug for Map<'a, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a, K: Value<'a>, V: Value<'a>> Value<'a> for Map<'a, K, V> {
    type Cursor = (&'a [i32], K::Cursor, V::Cursor);

    fn describe() -> String {
        format!("map<{}> with keys of {}", V::describe(), K::describe())
    }

    fn accepts(fields: &[Field]) -> bool {
        let Some(value) = Some(super::schema::subtree_end(fields, 2)).filter(|v| *v < fields.len()) else {
            return false;
        };
        fields[0].data_type == DataType::Map
            && K::accepts(&fields[2..value])
            && (V::NULLABLE || !fields[value].nullable)
            && V::accepts(&fields[value..])
    }

    fn example() -> Vec<Field> {
        let mut fields = vec![
            Field { children: 1, ..Field::leaf(DataType::Map, false) },
            Field { name: "entries".into(), children: 2, ..Field::leaf(DataType::Struct, false) },
        ];
        fields.extend(K::example());
        fields[2].name = "key".into();
        let value = fields.len();
        fields.extend(V::example());
        fields[value].name = "value".into();
        fields
    }

    fn open(fields: &[Field], _: Validity<'a>, nodes: &mut Nodes<'a>) -> Self::Cursor {
        let offsets = nodes.buffer();
        nodes.begin();
        let validity = nodes.begin();
        let keys = K::open(&fields[2..], validity, nodes);
        let validity = nodes.begin();
        let value = super::schema::subtree_end(fields, 2);
        (offsets, keys, V::open(&fields[value..], validity, nodes))
    }

    #[inline]
    fn get((offsets, keys, values): &Self::Cursor, row: usize) -> Self {
        let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
        let len = end - start;
        Map { keys: List { elements: *keys, start, len }, values: List { elements: *values, start, len } }
    }
}
