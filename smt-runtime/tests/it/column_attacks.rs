//! Attacks through the columns that a guest answers: each costs the row that it is about, and nothing else.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use gristmill_smt::{ColumnInstance, ErrorKind, Limits};
use serde_json::json;

use crate::support::{built, repository, runtime, stream, toolchain};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]))
}

fn instance(attack: &str) -> Option<Result<ColumnInstance, gristmill_smt::Error>> {
    instance_on(attack, &schema(), Limits::default())
}

fn instance_on(
    attack: &str,
    schema: &SchemaRef,
    limits: Limits,
) -> Option<Result<ColumnInstance, gristmill_smt::Error>> {
    static WASM: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let folder = repository().join("smt-runtime/tests/guests/column-hostile");
    let wasm = WASM.get_or_init(|| toolchain().then(|| built(&folder))).as_deref()?;
    let limits = limits.with_call_timeout(Duration::from_millis(300)).with_record_fuel(50_000_000);
    let transform = runtime().load(wasm, limits).unwrap_or_else(|e| panic!("{e}"));
    Some(transform.instantiate_columns(&stream(), &json!({"attack": attack}), schema))
}

fn batch(ids: impl IntoIterator<Item = i64>) -> RecordBatch {
    RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from_iter_values(ids))]).unwrap()
}

/// A row among 100 attacks: it is rejected alone, and the next batch is whole.
fn attacked(attack: &str, code: &str, message: &str) {
    let Some(instance) = instance(attack) else { return };
    let mut instance = instance.unwrap_or_else(|e| panic!("{attack}: {e}"));
    let started = Instant::now();
    let ids: Vec<i64> = (0..100).map(|i| if i == 42 { 666 } else { i }).collect();
    let offsets: Vec<i64> = (500..600).collect();
    let applied = instance.apply(&batch(ids), &offsets).unwrap_or_else(|e| panic!("{attack}: {e}"));
    let [reject] = applied.rejects() else { panic!("{attack}: {:?}", applied.rejects()) };
    assert_eq!((reject.row, reject.offset, reject.code.as_str()), (42, 542, code), "{attack}: {reject:?}");
    assert!(reject.message.contains(message), "{attack}: {reject:?}");
    let kept = applied.batch().column(0).as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(kept, (0..100).filter(|i| *i != 42).collect::<Vec<_>>(), "{attack}");
    let whole = instance.apply(&batch(0..10), &[0; 10]).unwrap_or_else(|e| panic!("{attack}: {e}"));
    assert_eq!((whole.kept(), whole.batch().num_columns()), (10, 4), "{attack}: the next batch");
    // Seven halvings of at most 300 ms each, compiling the build that judges, and a busy machine.
    assert!(started.elapsed() < Duration::from_secs(60), "{attack}: {:?}", started.elapsed());
}

macro_rules! attacks {
    ($($name:ident: $attack:literal => $code:literal, $message:literal;)*) => {$(
        #[test]
        fn $name() {
            attacked($attack, $code, $message);
        }
    )*};
}

attacks! {
    a_column_too_short: "a column too short" => "TRANSFORM_INVALID_COLUMNS", "column number: 0 rows, 1 go on";
    a_column_too_long: "a column too long" => "TRANSFORM_INVALID_COLUMNS", "column text: 2 rows, 1 go on";
    a_length_of_four_billion: "a length of four billion" => "TRANSFORM_INVALID_COLUMNS", "4294967295 rows";
    a_list_of_four_billion: "a list of four billion" => "TRANSFORM_INVALID_COLUMNS", "4294967295 rows";
    items_of_four_billion: "items of four billion" => "TRANSFORM_INVALID_COLUMNS", "column list: ";
    an_offset_behind_the_bytes: "an offset behind the bytes" => "TRANSFORM_INVALID_COLUMNS", "column text: ";
    an_offset_below_zero: "an offset below zero" => "TRANSFORM_INVALID_COLUMNS", "column text: ";
    list_offsets_behind_the_items: "list offsets behind the items" => "TRANSFORM_INVALID_COLUMNS", "column list: ";
    a_buffer_outside: "a buffer outside" => "TRANSFORM_INVALID_COLUMNS", "are not inside the";
    a_buffer_that_ends_outside: "a buffer that ends outside" => "TRANSFORM_INVALID_COLUMNS", "are not inside the";
    a_buffer_too_short: "a buffer too short" => "TRANSFORM_INVALID_COLUMNS", "a buffer of 4 bytes that should have 8";
    offsets_that_end_within_one: "offsets that end within one" => "TRANSFORM_INVALID_COLUMNS", "a buffer of 5 bytes";
    no_offsets: "no offsets" => "TRANSFORM_INVALID_COLUMNS", "column text: ";
    text_that_is_none: "text that is none" => "TRANSFORM_INVALID_COLUMNS", "column text: ";
    a_null_count_without_a_bitmap: "a null count without a bitmap" => "TRANSFORM_INVALID_COLUMNS", "1 nulls and no bitmap";
    a_null_count_that_lies: "a null count that lies" => "TRANSFORM_INVALID_COLUMNS", "column number: ";
    nulls_where_none_may_be: "nulls where none may be" => "TRANSFORM_INVALID_COLUMNS", "column text: 1 nulls where none may be";
    nulls_in_a_list_where_none_may_be: "nulls in a list where none may be" => "TRANSFORM_INVALID_COLUMNS", "column list: ";
    a_bitmap_too_short: "a bitmap too short" => "TRANSFORM_INVALID_COLUMNS", "nulls and no bitmap";
    a_layout_that_ends_early: "a layout that ends early" => "TRANSFORM_INVALID_COLUMNS", "the layout ends inside a column";
    no_layout: "no layout" => "TRANSFORM_INVALID_COLUMNS", "the layout ends inside a column";
    a_layout_that_does_not_end: "a layout that does not end" => "TRANSFORM_INVALID_COLUMNS", "1 words of layout after the last column";
    no_buffers: "no buffers" => "TRANSFORM_INVALID_COLUMNS", "are not inside the 0 words of buffers";
    no_operations: "no operations" => "TRANSFORM_INVALID_EDITS", "only 0 of 1 rows have a verdict";
    more_rows_than_came: "more rows than came" => "TRANSFORM_INVALID_EDITS", "more rows described than the 1";
    a_value_set: "a value set" => "TRANSFORM_INVALID_EDITS", "does not set key, value";
    a_key_set: "a key set" => "TRANSFORM_INVALID_EDITS", "does not set key, value";
    a_timestamp_set: "a timestamp set" => "TRANSFORM_INVALID_EDITS", "does not set key, value";
    a_row_emitted_without_columns: "a row emitted without columns" => "TRANSFORM_INVALID_COLUMNS", "1 rows, 2 go on";
    a_row_emitted_with_a_value: "a row emitted with a value" => "TRANSFORM_INVALID_EDITS", "of an emitted record";
    a_huge_answer: "a huge answer" => "TRANSFORM_OUTPUT", "limit output_bytes";
    a_trap: "a trap" => "TRANSFORM_TRAP", "unreachable";
    a_loop: "a loop" => "TRANSFORM_FUEL", "burnt all of it";
    a_hoard: "a hoard" => "TRANSFORM_MEMORY", "limit memory";
}

/// Extra rows repeat columns that the guest has not even seen.
#[test]
fn emitted_rows_that_repeat_too_much_of_what_passes_cost_the_row() {
    let text = Field::new("body", DataType::Utf8, false);
    let list = Field::new("list_of_the_host", DataType::new_list(DataType::Int64, false), false);
    let schema =
        Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false), text.clone(), list.clone()]));
    let ids = || Arc::new(Int64Array::from_iter_values([1, 2, 666])) as ArrayRef;
    for (texts, items) in [(400 << 10, 1), (1, 50 << 10)] {
        let bodies = (0..3).map(|i| "b".repeat(if i == 2 { texts } else { 1 }));
        let offsets = OffsetBuffer::from_lengths([1, 1, items]);
        let item = Arc::new(Field::new_list_field(DataType::Int64, false));
        let lists = ListArray::new(item, offsets, Arc::new(Int64Array::from(vec![7; items + 2])), None);
        let columns = vec![ids(), Arc::new(StringArray::from_iter_values(bodies)), Arc::new(lists)];
        let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let Some(instance) = instance_on("a row emitted 99 times", &schema, Limits::default()) else {
            return;
        };
        let applied = instance.unwrap().apply(&batch, &[10, 11, 12]).unwrap();
        let [reject] = applied.rejects() else { panic!("{:?}", applied.rejects()) };
        assert_eq!((reject.row, reject.code.as_str()), (2, "TRANSFORM_OUTPUT"));
        let why =
            "limit output_bytes of 33554432: emitted rows repeat more than that of the columns that pass";
        assert_eq!(reject.message, why);
        assert_eq!((applied.batch().num_rows(), applied.emitted()), (2, 0));
    }
    // As many that repeat little are fine.
    let Some(instance) = instance("a row emitted 99 times") else { return };
    let applied = instance.unwrap().apply(&batch([1, 2, 666]), &[10, 11, 12]).unwrap();
    assert_eq!((applied.rejects().len(), applied.batch().num_rows(), applied.emitted()), (0, 102, 99));
}

#[test]
fn columns_that_share_their_bytes_count_each() {
    let schema = schema();
    for (most, rejects) in [(2 << 20, 0), (900 << 10, 1)] {
        let limits = Limits::default().with_output_bytes(most);
        let Some(instance) = instance_on("the same bytes for several columns", &schema, limits) else {
            return;
        };
        let applied = instance.unwrap().apply(&batch([666]), &[7]).unwrap();
        assert_eq!(applied.rejects().len(), rejects, "{:?}", applied.rejects());
        if let [reject] = applied.rejects() {
            assert_eq!(reject.code, "TRANSFORM_INVALID_COLUMNS");
            assert!(
                reject.message.contains("limit output_bytes of 921600: its buffers overlap"),
                "{reject:?}"
            );
        }
    }
}

#[test]
fn an_offset_that_does_not_begin_at_zero_is_what_arrow_allows_or_is_refused() {
    let Some(instance) = instance("a first offset that is not zero") else { return };
    let mut instance = instance.unwrap();
    let applied = instance.apply(&batch([666, 1, 2]), &[0, 1, 2]).unwrap();
    applied.batch().columns().iter().for_each(|c| c.to_data().validate_full().unwrap());
    assert_eq!(applied.kept() + applied.rejects().len(), 3);
}

#[test]
fn a_binding_that_makes_no_sense_is_refused_at_once() {
    for (attack, message) in [
        ("too many fields", "it computes 200000 fields, 10000 are allowed"),
        ("a type without an end", "is nested deeper than 32 levels"),
        ("children that overflow", "ends before a field's children"),
        ("a time zone that is none", "the time zone \"Mars/Olympus\", which is none: there are names"),
        ("a name of megabytes", "is not 1 to 255 bytes"),
        ("a field that is not there", "it reads field 4294967295, there are 1"),
    ] {
        let Some(instance) = instance(attack) else { return };
        let error = instance.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configure, "{attack}");
        assert!(error.to_string().contains(message), "{attack}: {error}");
        assert!(error.to_string().len() < 500, "{attack}: the text is {} long", error.to_string().len());
    }
}
