//! What four transforms of Kafka Connect do one after the other to a Struct, over columns: `Filter` (by a field, if
//! there is one: headers are no columns), `ReplaceField`, `MaskField` and `InsertField` (the record's time). For
//! `make bench-transform`, which runs those four beside it.

use gristmill_transform::{Columns, Context, Reject, Row, RowEdit, RowOutcome, TimestampMillis};

#[derive(Row)]
pub struct Order {
    #[row(optional)]
    test: Option<bool>,
    #[row(path = "_kafka_timestamp")]
    time: Option<TimestampMillis>,
}

#[derive(Columns)]
pub struct Computed {
    #[column(replace)]
    card: Option<&'static str>,
    #[column(add)]
    received_at: Option<TimestampMillis>,
}

/// Drops test orders; leaves out, renames and masks fields of the others, and adds the record's time.
#[gristmill_transform::row(
    remove("ip", "user_agent", "session"),
    rename("order_id" = "id", "amount_cents" = "amount")
)]
pub fn four_smts_columns(
    order: &Order,
    _: &Context,
    _: &mut RowEdit<Computed>,
) -> Result<RowOutcome<Computed>, Reject> {
    if order.test == Some(true) {
        return Ok(RowOutcome::Drop);
    }
    Ok(RowOutcome::Keep(Computed { card: Some(""), received_at: order.time }))
}
