use crate::{Headers, NO_TIMESTAMP, NULL_LEN, ROW_WORDS};

/// A borrowed batch: the index, the arenas and the per-row columns as slices.
///
/// It is what both a host's [`RawBatch`](crate::RawBatch) and a guest's linear memory look like. An arena or
/// column that was not handed over is empty; a cell in it then reads as null (see [`Record`]).
#[derive(Clone, Copy, Debug, Default)]
pub struct Rows<'a> {
    /// [`ROW_WORDS`] words a row.
    pub index: &'a [u32],
    /// The key arena.
    pub keys: &'a [u8],
    /// The value arena.
    pub values: &'a [u8],
    /// The header arena.
    pub headers: &'a [u8],
    /// One timestamp a row, or empty.
    pub timestamps: &'a [i64],
    /// One offset a row, or empty.
    pub offsets: &'a [i64],
}

impl<'a> Rows<'a> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.index.len() / ROW_WORDS
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Row `i`, if there is one.
    pub fn get(&self, i: usize) -> Option<Record<'a>> {
        let cells = self.index.get(i * ROW_WORDS..)?.first_chunk::<ROW_WORDS>()?;
        Some(Record { rows: *self, cells, row: i })
    }

    /// All rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'a>> + use<'a> {
        let rows = *self;
        let (chunks, _) = rows.index.as_chunks::<ROW_WORDS>();
        chunks.iter().enumerate().map(move |(row, cells)| Record { rows, cells, row })
    }
}

/// One record of a batch, borrowed.
///
/// Accessors never panic: an index cell that points outside its arena (which only happens where the
/// arena was not handed over) reads as null.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    rows: Rows<'a>,
    cells: &'a [u32; ROW_WORDS],
    row: usize,
}

fn cell(arena: &[u8], start: u32, len: u32) -> Option<&[u8]> {
    if len == NULL_LEN {
        return None;
    }
    arena.get(start as usize..)?.get(..len as usize)
}

impl<'a> Record<'a> {
    /// The row's number in its batch.
    pub fn row(&self) -> usize {
        self.row
    }

    /// The key; `None` is null.
    pub fn key(&self) -> Option<&'a [u8]> {
        cell(self.rows.keys, self.cells[0], self.cells[1])
    }

    /// The value; `None` is null, a tombstone in a compacted topic.
    pub fn value(&self) -> Option<&'a [u8]> {
        cell(self.rows.values, self.cells[2], self.cells[3])
    }

    /// Whether the value is null. Known from the index alone, also where values were not handed over.
    pub fn is_tombstone(&self) -> bool {
        self.cells[3] == NULL_LEN
    }

    /// The headers, in Kafka's order.
    pub fn headers(&self) -> Headers<'a> {
        Headers::from_encoded(cell(self.rows.headers, self.cells[4], self.cells[5]).unwrap_or_default())
    }

    /// Milliseconds since the Unix epoch, if the record has a timestamp.
    pub fn timestamp(&self) -> Option<i64> {
        self.rows.timestamps.get(self.row).copied().filter(|t| *t != NO_TIMESTAMP)
    }

    /// The record's offset in its partition; -1 where offsets were not handed over.
    pub fn offset(&self) -> i64 {
        self.rows.offsets.get(self.row).copied().unwrap_or(-1)
    }
}
