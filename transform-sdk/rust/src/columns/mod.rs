//! Transforms of typed columns.

#[cfg(feature = "arrow")]
mod arrow;
mod compute;
mod read;
mod row;
mod schema;

pub use compute::{Compute, Elements, Entries};
pub use read::{
    Batch, Column, Date32, Date64, Decimal, Decimal128, Decimal256, List, Map, TimeMicros, TimeMillis,
    TimeNanos, TimeSeconds, TimestampMicros, TimestampMillis, TimestampNanos, TimestampSeconds, Value,
};
pub(crate) use row::ColumnState;
pub use row::{ColumnTransform, Columns, Row, RowEdit, RowOutcome, Rows, RowsEdit};
pub use schema::{DataType, Field, TimeUnit};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use schema::{members, subtree_end};

/// What the macros need.
pub(crate) mod private {
    pub use super::compute::{Answer, Array, ColumnBuilder, Valid};
    pub use super::read::{Nodes, Validity, accepts_member, open_member, skip_members};
    pub use super::row::{all_rows, each_row};
    pub use super::schema::{Binding, BoundChange, Change, Need};
}
