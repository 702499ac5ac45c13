//! Columns as arrow-rs arrays; `smt-runtime/tests/it/arrow.rs` has every type, in the sandbox.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use gristmill_transform::testing::RowHarness;
use gristmill_transform::{
    Columns, Compute, Config, Context, Elements, List, Reject, Row, Rows, RowsEdit, TimestampMicros,
};
use serde_json::{Value, json};

#[derive(Row)]
struct Reading<'a> {
    number: i64,
    #[row(path = "place.name")]
    name: Option<&'a str>,
    counts: Option<List<'a, Option<i64>>>,
    at: Option<TimestampMicros>,
    #[row(optional)]
    nowhere: Option<f64>,
}

#[derive(Columns)]
struct Computed<'a> {
    #[column(replace = "place.name")]
    name: Option<&'a str>,
    #[column(add)]
    twice: i64,
    #[column(replace)]
    counts: Option<Elements<Option<i64>>>,
    #[column(replace)]
    at: Option<TimestampMicros>,
    #[column(add)]
    pair: Option<Pair>,
}

#[derive(Compute)]
struct Pair {
    left: i64,
    right: Option<f64>,
}

#[derive(serde::Deserialize, Config)]
struct Settings {
    what: String,
}

/// Answers in parts, as `what` says.
#[gristmill_transform::columns(config = Settings, outputs(other = "another"))]
fn readings<'a>(
    rows: &Rows<'a, Reading<'a>>,
    ctx: &'a Context<Settings>,
    out: &mut RowsEdit<'_, Computed<'a>>,
) {
    let read = rows.to_arrow();
    let numbers = read["number"].as_primitive::<Int64Type>();
    assert_eq!(numbers.values().to_vec(), rows.columns().number.values());
    let twice: Int64Array = numbers.unary(|n| n * 2);
    let pair = StructArray::try_from(vec![
        ("left", Arc::new(numbers.clone()) as ArrayRef),
        ("right", read["nowhere"].clone()),
    ]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        // In another order than declared.
        ("pair", Arc::new(pair.expect("two columns"))),
        ("twice", Arc::new(twice)),
        ("place.name", read["place.name"].clone()),
        ("counts", read["counts"].clone()),
        ("at", read["at"].clone()),
    ];
    let batch = |columns: Vec<(&str, ArrayRef)>| RecordBatch::try_from_iter(columns).expect("of one length");
    let but = |name: &str, array: ArrayRef| {
        let replaced =
            columns.iter().map(|(n, a)| if *n == name { (*n, array.clone()) } else { (*n, a.clone()) });
        batch(replaced.collect())
    };
    let len = rows.len();
    match ctx.config.what.as_str() {
        "parts" => {
            let all = batch(columns);
            out.keep_rows(&all.slice(0, 2));
            out.reject(Reject::new("NO", "the third"));
            out.emit(readings::OTHER, Computed { name: None, twice: -1, counts: None, at: None, pair: None });
            let odd: BooleanArray = (3..len).map(|row| (row % 3 != 0).then_some(row % 2 == 1)).collect();
            out.keep_where(&odd, &all.slice(3, len - 3));
        }
        "too many" => {
            out.keep_rows(&batch(columns.clone()));
            out.keep_rows(&batch(columns));
        }
        "another length" => out.keep_where(&BooleanArray::from(vec![true]), &batch(columns)),
        "missing" => out.keep_rows(&batch(columns[1..].to_vec())),
        "unknown" => out.keep_rows(&batch([columns, vec![("number", read["number"].clone())]].concat())),
        "type" => out.keep_rows(&but("twice", Arc::new(Float64Array::from(vec![0.5; len])))),
        "no zone" => out.keep_rows(&but("at", Arc::new(TimestampMicrosecondArray::from(vec![0; len])))),
        "null" => out.keep_rows(&but("twice", Arc::new(Int64Array::from(vec![None; len])))),
        "text" => out.keep_rows(&but("place.name", Arc::new(StringArray::from(vec!["é"; len])))),
        other => panic!("{other}"),
    }
}

fn rows() -> Vec<Value> {
    (0..9)
        .map(|n| {
            json!({
                "number": n,
                "place": if n % 4 == 3 { Value::Null } else { json!({"name": "x".repeat(n)}) },
                "counts": if n == 5 { Value::Null } else { json!([n, null]) },
                "at": n * 1_000,
            })
        })
        .collect()
}

fn harness(what: &str) -> RowHarness<readings::Transform> {
    RowHarness::new(json!({"what": what})).expect("configured")
}

#[test]
fn parts_of_arrays_are_mixed_with_verdicts_row_by_row() {
    let answers = harness("parts").apply(&rows());
    // 2 is rejected; 3 and 6 have no word on them, 4 and 8 are even.
    let kept: Vec<usize> = (0..9).filter(|row| answers[*row].kept().is_some()).collect();
    assert_eq!(kept, [0, 1, 5, 7]);
    assert_eq!(answers[2].rejected().map(Reject::code), Some("NO"));
    let computed = &answers[7].kept().expect("kept").computed;
    assert_eq!(computed["twice"], 14);
    assert_eq!(computed["name"], Value::Null);
    assert_eq!(computed["counts"], json!([7, null]));
    assert_eq!(computed["at"], 7_000);
    assert_eq!(computed["pair"], json!({"left": 7, "right": null}));
    assert_eq!(answers[5].kept().expect("kept").computed["counts"], Value::Null);
    assert_eq!(answers[5].kept().expect("kept").computed["name"], "xxxxx");
    // Emitted before the verdict on row 3, so it belongs to it, though it is dropped itself.
    assert_eq!(answers[3].emitted.len(), 1);
    assert_eq!(answers[3].emitted[0].computed["twice"], -1);
    let texts = harness("text").apply(&rows());
    assert_eq!(texts[8].kept().expect("kept").computed["name"], "é");
}

#[test]
fn what_is_not_the_declared_columns_is_said_so() {
    for (what, message) in [
        ("too many", "9 rows are kept, and 0 have no verdict yet"),
        ("another length", "9 rows are computed, and 1 are to be kept or not"),
        (
            "missing",
            "the computed column pair is not there; the transform computes place.name, twice, counts, at, pair",
        ),
        ("unknown", "the transform computes no column number; it computes place.name"),
        ("type", "the computed column twice is Float64, and declared as Int64: cast it"),
        (
            "no zone",
            "the computed column at is Timestamp(µs), and declared as Timestamp(µs, \"UTC\"): cast it",
        ),
        ("null", "9 values of the computed column twice are null: declare an `Option`"),
    ] {
        let panic = catch_unwind(AssertUnwindSafe(|| harness(what).apply(&rows()))).expect_err(what);
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(text.contains(message), "{what}: {text}");
    }
}
