//! The one data type that all parts of Gristmill share: [`RawBatch`], the undecoded records of **one**
//! Kafka topic partition in offset order, and the memory layouts in which a WebAssembly guest sees it.
//!
//! The crate is `no_std` (with `alloc`) and depends on `bytes` alone, so guests link it too.
//!
//! # Layout
//!
//! A batch is three arenas and a fixed-stride index into them. What a transform does not read is not
//! copied into it: each arena enters a guest as one `memcpy`, or not at all.
//!
//! ```text
//!             word 0     1        2      3        4       5
//! index row i ┌────────┬────────┬──────┬────────┬───────┬────────┐   6 × u32, little-endian,
//!             │key     │key     │value │value   │headers│headers │   stride [`ROW_WORDS`]
//!             │start   │len     │start │len     │start  │len     │
//!             └───┬────┴────────┴──┬───┴────────┴──┬────┴────────┘
//!                 ▼                ▼               ▼
//! keys     [k0 k1 k2 …]   values [v0 v1 v2 …]   headers [h0 h1 h2 …]     byte arenas, each < 4 GiB
//!
//! offsets    [i64; n]   strictly increasing, gaps allowed (compaction, aborted transactions)
//! timestamps [i64; n]   milliseconds since the Unix epoch, -1 = no timestamp
//! ```
//!
//! A key or value length of [`NULL_LEN`] means *null*, which is distinct from empty (length 0)
//! everywhere. The headers of a record are a sequence of
//!
//! ```text
//! ┌─────────┬──────────┬──────┬───────┐
//! │name len │value len │ name │ value │   lengths u32 little-endian; value len NULL_LEN = null
//! └─────────┴──────────┴──────┴───────┘
//! ```
//!
//! in the order in which Kafka delivered them; names may repeat, and a name is bytes that need not be
//! UTF-8. A record without headers has headers length 0.
//!
//! What a transform answers to a batch is an edit list: see [`Edits`] for its grammar.
#![no_std]
#![deny(missing_docs)]

extern crate alloc;

mod batch;
mod edit;
mod headers;
mod record;

pub use batch::{PushError, RawBatch, RawBatchBuilder};
pub use edit::{
    Change, Edit, EditBounds, EditCounts, EditError, EditErrorKind, EditWriter, Edits, Emit, MAX_CODE_LEN,
    MAX_MESSAGE_LEN, MAX_RUN,
};
pub use headers::{Header, HeaderWriter, Headers};
pub use record::{Record, Rows};

/// Words in one row of the index.
pub const ROW_WORDS: usize = 6;

/// The length that stands for null in the index and in the header arena.
pub const NULL_LEN: u32 = u32::MAX;

/// The timestamp of a record that has none, as in Kafka's record format.
pub const NO_TIMESTAMP: i64 = -1;
