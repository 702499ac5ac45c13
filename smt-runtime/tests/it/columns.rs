//! Transforms of typed columns on the real runtime.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, StructArray, new_empty_array};
use arrow_buffer::{NullBuffer, i256};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow_select::concat::concat_batches;
use gristmill_smt::{AppliedColumns, ColumnInstance, ErrorKind, Kind, Limits, OutputRow, Transform};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::support::{built, repository, runtime, stream, toolchain};

pub(crate) fn guest(
    name: &str,
    cell: &'static OnceLock<Option<Vec<u8>>>,
    limits: Limits,
) -> Option<Transform> {
    let folder = repository().join("smt-runtime/tests/guests").join(name);
    let wasm = cell.get_or_init(|| toolchain().then(|| built(&folder))).as_deref()?;
    Some(runtime().load(wasm, limits).unwrap_or_else(|e| panic!("{e}")))
}

fn orders(limits: Limits) -> Option<Transform> {
    static WASM: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    guest("column-orders", &WASM, limits)
}

/// The same, written on whole columns.
fn whole() -> Option<ColumnInstance> {
    static WASM: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let transform = guest("whole-columns", &WASM, Limits::default())?;
    let config = json!({"mask": "***", "emits": 2});
    Some(transform.instantiate_columns(&stream(), &config, &schema()).unwrap_or_else(|e| panic!("{e}")))
}

#[test]
fn a_function_on_whole_columns_does_what_one_on_rows_does() {
    let (Some(mut whole), Some(mut rows)) =
        (whole(), instance(Limits::default(), json!({"mask": "***", "emits": 2})))
    else {
        return;
    };
    let what = ["keep", "drop", "route", "reject", "emit", "reject after emit", "drop and emit", ""];
    for what in [what.to_vec(), what.repeat(500), vec!["drop"; 3], vec![]] {
        let input = batch(&what);
        let (whole, rows) = (apply(&mut whole, &input), apply(&mut rows, &input));
        assert_eq!(whole.batch(), rows.batch());
        assert_eq!((whole.rows(), whole.rejects()), (rows.rows(), rows.rejects()));
    }
    // A row without a verdict, and one with two, is what breaks the call.
    for (what, message) in [("forget", "only 0 of 1 rows have a verdict"), ("twice", "a verdict on row 1")] {
        let mut all = vec!["keep"; 100];
        all[42] = what;
        let applied = apply(&mut whole, &batch(&all));
        let [reject] = applied.rejects() else { panic!("{:?}", applied.rejects()) };
        assert_eq!((reject.row, reject.code.as_str()), (42, "TRANSFORM_TRAP"));
        assert!(reject.message.contains(message), "{reject:?}");
    }
}

pub(crate) fn kinds() -> Option<Transform> {
    runtime().load(kinds_wasm()?, Limits::default()).map(Some).unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn kinds_wasm() -> Option<&'static [u8]> {
    static WASM: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let folder = repository().join("smt-runtime/tests/guests/column-kinds");
    WASM.get_or_init(|| toolchain().then(|| built(&folder))).as_deref()
}

fn customer() -> Fields {
    Fields::from(vec![
        Field::new("name", DataType::Utf8, true),
        Field::new("email", DataType::Utf8, true),
        Field::new("phone", DataType::Utf8, true),
    ])
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("do", DataType::Utf8, true),
        Field::new("customer", DataType::Struct(customer()), true),
        Field::new("internal_note", DataType::Utf8, true),
        Field::new("order_no", DataType::Utf8, true),
    ]))
}

/// Rows from id 0; the customer of every third is null.
fn batch(what: &[&str]) -> RecordBatch {
    let column = |prefix: &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..what.len()).map(|i| format!("{prefix} {i}"))))
    };
    let nulls = NullBuffer::from_iter((0..what.len()).map(|i| i % 3 != 2));
    let members = vec![column("name"), column("email"), column("phone")];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(0..what.len() as i64)),
        Arc::new(StringArray::from_iter(what.iter().map(|w| Some(*w).filter(|w| !w.is_empty())))),
        Arc::new(StructArray::new(customer(), members, Some(nulls))),
        column("note"),
        column("no"),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn offsets(batch: &RecordBatch) -> Vec<i64> {
    (100..100 + batch.num_rows() as i64).collect()
}

fn instance(limits: Limits, config: Value) -> Option<ColumnInstance> {
    Some(orders(limits)?.instantiate_columns(&stream(), &config, &schema()).unwrap_or_else(|e| panic!("{e}")))
}

pub(crate) fn apply(instance: &mut ColumnInstance, batch: &RecordBatch) -> AppliedColumns {
    let applied = instance.apply(batch, &offsets(batch)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(applied.kept() + applied.dropped() + applied.rejects().len(), batch.num_rows());
    assert_eq!(applied.rows().len(), applied.batch().num_rows());
    applied
}

fn texts(batch: &RecordBatch, name: &str) -> Vec<Option<String>> {
    let column = batch.column_by_name(name).unwrap().as_string::<i32>();
    column.iter().map(|t| t.map(str::to_owned)).collect()
}

fn emails(batch: &RecordBatch) -> Vec<Option<String>> {
    let customers = batch.column_by_name("customer").unwrap().as_struct();
    let column = customers.column_by_name("email").unwrap().as_string::<i32>();
    (0..batch.num_rows())
        .map(|i| (customers.is_valid(i) && column.is_valid(i)).then(|| column.value(i).to_owned()))
        .collect()
}

fn numbers(batch: &RecordBatch, name: &str) -> Vec<i64> {
    batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec()
}

#[test]
fn it_says_what_it_is_and_what_it_needs() {
    let Some(transform) = orders(Limits::default()) else { return };
    assert_eq!(transform.kind(), Kind::Columns);
    let needs: Vec<_> =
        transform.manifest().columns.iter().map(|c| (c.path.as_str(), c.data_type.as_str())).collect();
    assert_eq!(needs, [("id", "int64"), ("do", "string"), ("customer.email", "string")]);
    let error = transform.instantiate(&stream(), &json!({})).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configure);
    assert!(
        error.to_string().ends_with("it is a transform of columns, and it is used on records"),
        "{error}"
    );
}

#[test]
fn columns_are_replaced_added_removed_and_renamed_and_the_others_are_as_they_were() {
    let Some(mut instance) = instance(Limits::default(), json!({"mask": "***"})) else { return };
    let names: Vec<_> = instance.output_schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["id", "do", "customer", "number", "twice"]);
    let input = batch(&["", "keep", "", "keep"]);
    let applied = apply(&mut instance, &input);
    let out = applied.batch();
    assert_eq!(out.schema_ref(), instance.output_schema());
    assert_eq!(numbers(out, "twice"), [0, 2, 4, 6]);
    assert_eq!(texts(out, "number"), texts(&input, "order_no"));
    let masked = Some("***".to_owned());
    assert_eq!(emails(out), [masked.clone(), masked.clone(), None, masked]);
    let customer = out.column_by_name("customer").unwrap().as_struct();
    assert_eq!(customer.column_names(), ["name", "email"]);
    assert_eq!(customer.nulls(), input.column(2).nulls());
    assert_eq!(applied.metrics().counters["rows"], 4);
}

#[test]
fn every_row_is_kept_dropped_routed_rejected_or_has_others_after_it() {
    let Some(mut instance) = instance(Limits::default(), json!({"emits": 2})) else { return };
    let what = ["keep", "drop", "route", "reject", "emit", "reject after emit", "drop and emit", ""];
    let input = batch(&what);
    let applied = apply(&mut instance, &input);
    let row = |row, sub, output| OutputRow { row, sub, output };
    assert_eq!(
        applied.rows(),
        [row(0, 0, 0), row(2, 0, 1), row(4, 0, 0), row(4, 1, 1), row(4, 2, 1), row(6, 1, 1), row(7, 0, 0)]
    );
    let out = applied.batch();
    assert_eq!(numbers(out, "id"), [0, 2, 4, 4, 4, 6, 7]);
    assert_eq!(numbers(out, "twice"), [0, 4, 8, -1, -2, -1, 14]);
    let rejects: Vec<_> = applied.rejects().iter().map(|r| (r.row, r.offset, r.code.as_str())).collect();
    assert_eq!(rejects, [(3, 103, "NOT_WANTED"), (5, 105, "NOT_WANTED")]);
    assert_eq!((applied.kept(), applied.dropped(), applied.emitted()), (4, 2, 3));
    // Without emitted rows it is another way to the same.
    let input = batch(&["drop", "keep", "reject", "route"]);
    let applied = apply(&mut instance, &input);
    assert_eq!(numbers(applied.batch(), "id"), [1, 3]);
    assert_eq!(texts(applied.batch(), "number"), [Some("no 1".into()), Some("no 3".into())]);
    assert_eq!(applied.rows(), [row(1, 0, 0), row(3, 0, 1)]);
    // And nothing at all.
    let applied = apply(&mut instance, &batch(&["drop", "drop"]));
    assert_eq!((applied.batch().num_rows(), applied.dropped()), (0, 2));
    let applied = apply(&mut instance, &batch(&[]));
    assert_eq!(applied.batch().num_rows(), 0);
    assert_eq!(applied.batch().schema_ref(), instance.output_schema());
}

#[test]
fn a_row_that_breaks_the_transform_is_rejected_alone_with_few_calls() {
    let limits = Limits::default().with_call_timeout(Duration::from_millis(300)).with_record_fuel(50_000_000);
    let Some(mut instance) = instance(limits, json!({})) else { return };
    for (what, code, message) in
        [("panic", "TRANSFORM_TRAP", "it asks for a panic"), ("loop", "TRANSFORM_FUEL", "burnt all of it")]
    {
        let mut all = vec!["keep"; 4096];
        all[1234] = what;
        let applied = apply(&mut instance, &batch(&all));
        let [reject] = applied.rejects() else { panic!("{:?}", applied.rejects()) };
        assert_eq!((reject.row, reject.offset, reject.code.as_str()), (1234, 1334, code));
        assert!(reject.message.contains(message), "{reject:?}");
        let wanted: Vec<i64> = (0..4096).filter(|i| *i != 1234).collect();
        assert_eq!(numbers(applied.batch(), "id"), wanted);
        assert_eq!(numbers(applied.batch(), "twice"), wanted.iter().map(|i| i * 2).collect::<Vec<_>>());
        // One call for the whole, two for each halving of 4,096 at the most.
        assert!(applied.stats().calls <= 1 + 2 * 12 + 1, "{:?}", applied.stats());
        assert_eq!(apply(&mut instance, &batch(&["keep"; 3])).kept(), 3, "the next batch works");
    }
}

#[test]
fn what_is_missing_or_of_another_type_is_said_with_the_nearest_name() {
    let Some(transform) = orders(Limits::default()) else { return };
    let refused = |fields: Vec<Field>| {
        let schema = Arc::new(Schema::new(fields));
        let error = transform.instantiate_columns(&stream(), &json!({}), &schema).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configure);
        error.to_string()
    };
    let with = |change: fn(&mut Vec<Field>)| {
        let mut fields: Vec<Field> = schema().fields().iter().map(|f| f.as_ref().clone()).collect();
        change(&mut fields);
        refused(fields)
    };
    let text = with(|f| f[3] = Field::new("internal_notes", DataType::Utf8, true));
    assert!(
        text.contains("there is no column internal_note to remove; the nearest is internal_notes"),
        "{text}"
    );
    let text = with(|f| f[0] = Field::new("id", DataType::Utf8, false));
    assert!(text.contains("column id is string, the transform reads it as int64"), "{text}");
    let text = with(|f| f[0] = Field::new("id", DataType::Int64, true));
    assert!(text.contains("column id may be null, the transform reads it as int64"), "{text}");
    let text = with(|f| f[2] = Field::new("customer", DataType::Utf8, true));
    assert!(text.contains("there is no column customer.email"), "{text}");
    let text = with(|f| f.push(Field::new("twice", DataType::Utf8, true)));
    assert!(text.contains("the output would have two fields twice"), "{text}");
}

#[test]
fn parts_of_a_batch_that_is_too_large_for_a_call_fit_together_again() {
    let Some(mut instance) = instance(Limits::default(), json!({"emits": 1})) else { return };
    let what: Vec<&str> = (0..60_000).map(|i| ["keep", "emit", "drop"][i % 7 % 3]).collect();
    let input = batch(&what);
    let applied = apply(&mut instance, &input);
    assert!(applied.stats().calls > 1, "{:?}", applied.stats());
    let mut ids = Vec::new();
    let mut twice = Vec::new();
    for (i, what) in what.iter().enumerate().filter(|(_, w)| **w != "drop") {
        ids.push(i as i64);
        twice.push(2 * i as i64);
        if *what == "emit" {
            ids.push(i as i64);
            twice.push(-1);
        }
    }
    assert_eq!(numbers(applied.batch(), "id"), ids);
    assert_eq!(numbers(applied.batch(), "twice"), twice);
}

pub(crate) fn all_kinds() -> Fields {
    let utc = || Some("UTC".into());
    let deeper = Fields::from(vec![Field::new("flag", DataType::Boolean, true)]);
    let inner = Fields::from(vec![
        Field::new("text", DataType::Utf8, true),
        Field::new("deeper", DataType::Struct(deeper), true),
    ]);
    let entries = Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Int64, true),
    ]);
    let tags = Field::new_list("tags", Field::new("item", DataType::Utf8, false), true);
    let line = Fields::from(vec![
        Field::new("sku", DataType::Utf8, false),
        Field::new("count", DataType::Int64, true),
        tags,
    ]);
    let named_lines = Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Struct(line.clone()), true),
    ]);
    let longs = DataType::List(Arc::new(Field::new("item", DataType::Int64, false)));
    Fields::from(vec![
        Field::new("flag", DataType::Boolean, true),
        Field::new("i8", DataType::Int8, true),
        Field::new("i16", DataType::Int16, true),
        Field::new("i32", DataType::Int32, true),
        Field::new("i64", DataType::Int64, false),
        Field::new("u8", DataType::UInt8, true),
        Field::new("u16", DataType::UInt16, true),
        Field::new("u32", DataType::UInt32, true),
        Field::new("u64", DataType::UInt64, true),
        Field::new("f32", DataType::Float32, true),
        Field::new("f64", DataType::Float64, true),
        Field::new("text", DataType::Utf8, true),
        Field::new("bytes", DataType::Binary, true),
        Field::new("fixed", DataType::FixedSizeBinary(3), true),
        Field::new("decimal", DataType::Decimal128(38, 2), true),
        Field::new("large_decimal", DataType::Decimal256(76, 4), true),
        Field::new("date", DataType::Date32, true),
        Field::new("date64", DataType::Date64, true),
        Field::new("time_s", DataType::Time32(TimeUnit::Second), true),
        Field::new("time_ms", DataType::Time32(TimeUnit::Millisecond), true),
        Field::new("time_us", DataType::Time64(TimeUnit::Microsecond), true),
        Field::new("time_ns", DataType::Time64(TimeUnit::Nanosecond), true),
        Field::new("at_s", DataType::Timestamp(TimeUnit::Second, utc()), true),
        Field::new("at_ms", DataType::Timestamp(TimeUnit::Millisecond, utc()), true),
        Field::new("at_us", DataType::Timestamp(TimeUnit::Microsecond, utc()), true),
        Field::new("at_ns", DataType::Timestamp(TimeUnit::Nanosecond, utc()), true),
        Field::new("inner", DataType::Struct(inner), true),
        Field::new_list("texts", Field::new("item", DataType::Utf8, true), true),
        Field::new("lists", DataType::List(Arc::new(Field::new("item", longs, false))), true),
        Field::new(
            "counts",
            DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false),
            true,
        ),
        Field::new_list("lines", Field::new("item", DataType::Struct(line.clone()), true), true),
        Field::new("first_line", DataType::Struct(line.clone()), true),
        Field::new(
            "lines_by_name",
            DataType::Map(Arc::new(Field::new("entries", DataType::Struct(named_lines), false)), false),
            true,
        ),
    ])
}

/// One random row of a field; put together they make a column.
fn cell(rng: &mut SmallRng, field: &Field) -> ArrayRef {
    use arrow_array::*;
    if field.is_nullable() && rng.random_bool(0.25) {
        return new_null_array(field.data_type(), 1);
    }
    let text = |rng: &mut SmallRng| "aä€𝄞".chars().cycle().take(rng.random_range(0..9)).collect::<String>();
    let small = |rng: &mut SmallRng| rng.random_range(0..80_000i32);
    match field.data_type() {
        DataType::Boolean => Arc::new(BooleanArray::from(vec![rng.random::<bool>()])),
        DataType::Int8 => Arc::new(Int8Array::from(vec![rng.random::<i8>()])),
        DataType::Int16 => Arc::new(Int16Array::from(vec![rng.random::<i16>()])),
        DataType::Int32 => Arc::new(Int32Array::from(vec![rng.random::<i32>()])),
        DataType::Int64 => Arc::new(Int64Array::from(vec![rng.random::<i64>()])),
        DataType::UInt8 => Arc::new(UInt8Array::from(vec![rng.random::<u8>()])),
        DataType::UInt16 => Arc::new(UInt16Array::from(vec![rng.random::<u16>()])),
        DataType::UInt32 => Arc::new(UInt32Array::from(vec![rng.random::<u32>()])),
        DataType::UInt64 => Arc::new(UInt64Array::from(vec![rng.random::<u64>()])),
        DataType::Float32 => Arc::new(Float32Array::from(vec![rng.random::<f32>()])),
        DataType::Float64 => Arc::new(Float64Array::from(vec![rng.random::<f64>()])),
        DataType::Utf8 => Arc::new(StringArray::from(vec![text(rng)])),
        DataType::Binary => Arc::new(BinaryArray::from_vec(vec![text(rng).as_bytes()])),
        DataType::FixedSizeBinary(_) => {
            let bytes: [u8; 3] = rng.random();
            Arc::new(FixedSizeBinaryArray::try_from_iter([bytes].iter()).unwrap())
        }
        DataType::Decimal128(p, s) => {
            let array = Decimal128Array::from(vec![i128::from(rng.random::<i64>()) * 1_000_000_007]);
            Arc::new(array.with_precision_and_scale(*p, *s).unwrap())
        }
        DataType::Decimal256(p, s) => {
            let array = Decimal256Array::from(vec![i256::from_i128(i128::from(rng.random::<i64>()))]);
            Arc::new(array.with_precision_and_scale(*p, *s).unwrap())
        }
        DataType::Date32 => Arc::new(Date32Array::from(vec![small(rng)])),
        DataType::Date64 => Arc::new(Date64Array::from(vec![i64::from(small(rng)) * 86_400_000])),
        DataType::Time32(TimeUnit::Second) => Arc::new(Time32SecondArray::from(vec![small(rng)])),
        DataType::Time32(_) => Arc::new(Time32MillisecondArray::from(vec![small(rng)])),
        DataType::Time64(TimeUnit::Microsecond) => {
            Arc::new(Time64MicrosecondArray::from(vec![i64::from(small(rng))]))
        }
        DataType::Time64(_) => Arc::new(Time64NanosecondArray::from(vec![i64::from(small(rng))])),
        DataType::Timestamp(unit, _) => {
            let value = vec![rng.random::<i64>()];
            match unit {
                TimeUnit::Second => Arc::new(TimestampSecondArray::from(value).with_timezone("UTC")),
                TimeUnit::Millisecond => {
                    Arc::new(TimestampMillisecondArray::from(value).with_timezone("UTC"))
                }
                TimeUnit::Microsecond => {
                    Arc::new(TimestampMicrosecondArray::from(value).with_timezone("UTC"))
                }
                TimeUnit::Nanosecond => Arc::new(TimestampNanosecondArray::from(value).with_timezone("UTC")),
            }
        }
        DataType::Struct(fields) => {
            let members = fields.iter().map(|f| cell(rng, f)).collect();
            Arc::new(StructArray::new(fields.clone(), members, None))
        }
        DataType::List(item) => {
            let elements = column(rng, item);
            let offsets = arrow_buffer::OffsetBuffer::from_lengths([elements.len()]);
            Arc::new(ListArray::new(item.clone(), offsets, elements, None))
        }
        DataType::Map(entries, _) => {
            let DataType::Struct(fields) = entries.data_type() else { unreachable!() };
            let rows = rng.random_range(0..4);
            let members = fields.iter().map(|f| repeated(rng, f, rows)).collect();
            let offsets = arrow_buffer::OffsetBuffer::from_lengths([rows]);
            let values = StructArray::new(fields.clone(), members, None);
            Arc::new(MapArray::new(entries.clone(), offsets, values, None, false))
        }
        other => unreachable!("{other}"),
    }
}

fn column(rng: &mut SmallRng, field: &Field) -> ArrayRef {
    let rows = rng.random_range(0..4);
    repeated(rng, field, rows)
}

pub(crate) fn repeated(rng: &mut SmallRng, field: &Field, rows: usize) -> ArrayRef {
    let cells: Vec<ArrayRef> = (0..rows).map(|_| cell(rng, field)).collect();
    let cells: Vec<&dyn Array> = cells.iter().map(AsRef::as_ref).collect();
    match cells.is_empty() {
        true => new_empty_array(field.data_type()),
        false => arrow_select::concat::concat(&cells).unwrap(),
    }
}

/// As text, so that what lies under a null does not count.
fn shown(batch: &RecordBatch, name: &str) -> String {
    let column = batch.column_by_name(name).unwrap();
    format!("{column:?}")
}

#[test]
fn what_a_guest_reads_of_every_type_is_what_there_is_and_so_is_what_it_computes() {
    let Some(transform) = kinds() else { return };
    let schema = Arc::new(Schema::new(all_kinds()));
    let mut instance =
        transform.instantiate_columns(&stream(), &json!({}), &schema).unwrap_or_else(|e| panic!("{e}"));
    let rng = &mut SmallRng::seed_from_u64(7);
    for round in 0..40 {
        let rows = rng.random_range(1..40);
        let columns = all_kinds().iter().map(|f| repeated(rng, f, rows)).collect();
        let whole = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let input = whole.slice(rng.random_range(0..rows), 0).slice(0, 0);
        let skip = rng.random_range(0..rows);
        let input = match round % 2 {
            0 => whole.slice(skip, rows - skip),
            _ => concat_batches(&schema, [&input, &whole]).unwrap(),
        };
        let applied = apply(&mut instance, &input);
        assert_eq!(applied.rejects(), []);
        let out = applied.batch();
        for (i, field) in schema.fields().iter().enumerate() {
            assert_eq!(out.schema().field(i), field.as_ref());
            let same = match field.name().as_str() {
                // Members under a null struct are null once they were read.
                "inner" => shown(out, "inner") == shown(&input, "inner"),
                name => out.column_by_name(name) == input.column_by_name(name),
            };
            assert!(same, "{}: {:?} is not {:?}", field.name(), out.column(i), input.column(i));
        }
        let (decimals, large) = (
            input.column(14).as_primitive::<Decimal128Type>(),
            input.column(15).as_primitive::<Decimal256Type>(),
        );
        let unscaled: Vec<_> = decimals.iter().map(|d| d.map(|d| format!("{d}e-2"))).collect();
        assert_eq!(texts(out, "unscaled"), unscaled);
        let low: Vec<_> = large.iter().map(|d| d.map(|d| d.to_i128().unwrap() as u64)).collect();
        let found: Vec<_> =
            out.column_by_name("large_low").unwrap().as_primitive::<UInt64Type>().iter().collect();
        assert_eq!(found, low);
        let counts = input.column_by_name("counts").unwrap().as_map();
        let sums: Vec<_> = (0..input.num_rows())
            .map(|i| {
                counts.is_valid(i).then(|| {
                    let entries = counts.value(i);
                    let values = entries.column(1).as_primitive::<Int64Type>().iter();
                    values.fold(0i64, |sum, n| sum.wrapping_add(n.unwrap_or(0)))
                })
            })
            .collect();
        let found: Vec<_> =
            out.column_by_name("sum_of_counts").unwrap().as_primitive::<Int64Type>().iter().collect();
        assert_eq!(found, sums);
        assert_eq!(out.column_by_name("nowhere").unwrap().null_count(), input.num_rows());
    }
}
