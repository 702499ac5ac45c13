//! Columns as arrow-rs arrays; `smt-runtime/tests/it/arrow.rs` has every type, in the sandbox.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    StructArray, TimestampMicrosecondArray, TimestampMillisecondArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field};
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
        "bad" => {
            let bad: BooleanArray = (0..len).map(|row| (row % 3 != 0).then_some(row % 2 == 1)).collect();
            out.reject_where(&bad, &Reject::new("ODD", "an odd number"), &batch(columns));
        }
        "too many" => {
            out.keep_rows(&batch(columns.clone()));
            out.keep_rows(&batch(columns));
        }
        "another length" => out.keep_where(&BooleanArray::from(vec![true]), &batch(columns)),
        "missing" => out.keep_rows(&batch(columns[1..].to_vec())),
        "unknown" => out.keep_rows(&batch([columns, vec![("number", read["number"].clone())]].concat())),
        "type" => out.keep_rows(&but("twice", Arc::new(Float64Array::from(vec![0.5; len])))),
        // As typed rows are read: with any zone, and with members in any order and more.
        "no zone" => {
            out.keep_rows(&but("at", Arc::new(TimestampMicrosecondArray::from(vec![5; len]))));
        }
        "members" => {
            let (left, more) = (Int64Array::from(vec![3; len]), StringArray::from(vec!["m"; len]));
            let right = Float64Array::from(vec![0.5; len]);
            let members: [(&str, ArrayRef); 3] =
                [("right", Arc::new(right)), ("more", Arc::new(more)), ("left", Arc::new(left))];
            out.keep_rows(&but("pair", Arc::new(StructArray::try_from(members.to_vec()).expect("members"))));
        }
        "unit" => out.keep_rows(&but("at", Arc::new(TimestampMillisecondArray::from(vec![0; len])))),
        "member null" => {
            let left = Int64Array::from_iter((0..len as i64).map(|n| (n != 4).then_some(n)));
            let members: [(&str, ArrayRef); 2] =
                [("left", Arc::new(left)), ("right", read["nowhere"].clone())];
            out.keep_rows(&but("pair", Arc::new(StructArray::try_from(members.to_vec()).expect("members"))));
        }
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
    let rejected = harness("bad").apply(&rows());
    let codes = rejected.iter().map(|answer| answer.rejected().map(Reject::code)).collect::<Vec<_>>();
    let odd = Some("ODD");
    assert_eq!(codes, [None, odd, None, None, None, odd, None, odd, None]);
    assert_eq!(rejected[8].kept().expect("kept").computed["twice"], 16);
    let zoneless = harness("no zone").apply(&rows());
    assert_eq!(zoneless[8].kept().expect("kept").computed["at"], 5);
    let members = harness("members").apply(&rows());
    assert_eq!(members[8].kept().expect("kept").computed["pair"], json!({"left": 3, "right": 0.5}));
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
        (
            "type",
            "the computed column twice is Float64, and was declared as Int64: it has to be of that type",
        ),
        (
            "unit",
            "the computed column at is Timestamp(ms), and was declared as Timestamp(µs, \"UTC\"): it has to be of that type",
        ),
        ("null", "9 values of the computed column twice are null: declare an `Option`"),
        ("member null", "1 values of the computed column pair.left are null: declare an `Option`"),
    ] {
        let panic = catch_unwind(AssertUnwindSafe(|| harness(what).apply(&rows()))).expect_err(what);
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(text.contains(message), "{what}: {text}");
    }
}

#[derive(Row)]
struct Price {
    cents: Option<i64>,
}

#[derive(Columns)]
struct Amount {
    #[column(add)]
    amount: i64,
    #[column(add)]
    lists: Option<Elements<i64>>,
    #[column(add)]
    outer: Option<Outer>,
}

#[derive(Compute)]
struct Outer {
    inner: Option<Inner>,
}

#[derive(Compute)]
struct Inner {
    n: i64,
}

/// Nulls are where nobody sees them: in rows that are left out, in lists and structs that are null themselves.
#[gristmill_transform::columns(outputs(other = "another"))]
fn priced<'a>(rows: &Rows<'a, Price>, _: &Context, out: &mut RowsEdit<'_, Amount>) {
    let cents = rows.to_arrow()["cents"].clone();
    let is_there = cents.nulls().cloned();
    let elements = Int64Array::from_iter((0..rows.len() * 2).map(|n| {
        let row = n / 2;
        cents.is_valid(row).then_some(n as i64)
    }));
    let element = Arc::new(Field::new("item", DataType::Int64, true));
    let lists = ListArray::new(
        element,
        OffsetBuffer::from_lengths(vec![2; rows.len()]),
        Arc::new(elements),
        is_there.clone(),
    );
    let n = Arc::new(Field::new("n", DataType::Int64, true));
    let inner = StructArray::new(vec![n].into(), vec![cents.clone()], None);
    let field = Arc::new(Field::new("inner", inner.data_type().clone(), true));
    let outer = StructArray::new(vec![field].into(), vec![Arc::new(inner)], is_there);
    let columns: [(&str, ArrayRef); 3] =
        [("amount", cents.clone()), ("lists", Arc::new(lists)), ("outer", Arc::new(outer))];
    let columns = RecordBatch::try_from_iter(columns).expect("of one length");
    let large = cents.as_primitive::<Int64Type>().iter().map(|cents| cents.map(|cents| cents >= 1_000));
    let large: BooleanArray = large.collect();
    if rows.len() == 1 {
        out.route_rows(priced::OTHER, &columns);
    } else {
        out.keep_where(&large, &columns);
    }
}

/// Computes nothing.
#[gristmill_transform::columns]
fn large_ones<'a>(rows: &Rows<'a, Price>, _: &Context, out: &mut RowsEdit<'_>) {
    let read = rows.to_arrow();
    let large = BooleanArray::from_unary(read["cents"].as_primitive::<Int64Type>(), |cents| cents >= 1_000);
    out.keep_where(&large, &read);
}

#[test]
fn nulls_that_nobody_sees_are_none() {
    let mut harness = RowHarness::<priced::Transform>::new(json!({})).expect("configured");
    let answers = harness.apply(&[json!({"cents": 1200}), json!({"cents": 999}), json!({})]);
    let computed = &answers[0].kept().expect("kept").computed;
    let expected = json!({"amount": 1200, "lists": [0, 1], "outer": {"inner": {"n": 1200}}});
    assert_eq!(Value::Object(computed.clone()), expected);
    assert!(answers[1].is_dropped() && answers[2].is_dropped());
    let answers = harness.apply(&[json!({"cents": 5})]);
    let routed = answers[0].kept().expect("kept");
    assert_eq!((routed.output, &routed.computed["amount"]), ("other", &json!(5)));
    let panic = catch_unwind(AssertUnwindSafe(|| harness.apply(&[json!({})]))).expect_err("a null goes on");
    let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
    assert_eq!(text, "1 values of the computed column amount are null: declare an `Option`");

    let mut harness = RowHarness::<large_ones::Transform>::new(json!({})).expect("configured");
    let answers = harness.apply(&[json!({"cents": 1200}), json!({"cents": 999}), json!({})]);
    assert!(answers[0].kept().is_some() && answers[1].is_dropped() && answers[2].is_dropped());
}

#[derive(Row)]
struct Basket {
    n: i64,
}

#[derive(Columns)]
struct Item {
    #[column(add)]
    item: i64,
}

#[derive(serde::Deserialize, Config)]
struct How {
    as_arrays: bool,
}

/// Each row has as many items as its number's last digit says; those of 7 are rejected, those of 4 left out, and those of 5 routed.
#[gristmill_transform::columns(config = How, outputs(items = "their items", fives = "fives"))]
fn unpacked<'a>(rows: &Rows<'a, Basket>, ctx: &'a Context<How>, out: &mut RowsEdit<'_, Item>) {
    let numbers = rows.columns().n.values();
    let items = |n: i64| (0..n % 10).map(move |item| n * 100 + item);
    let items_of = |range: std::ops::Range<usize>, start: usize| -> (RecordBatch, Vec<usize>) {
        let of: Vec<usize> = range
            .clone()
            .flat_map(|row| vec![row - start; usize::try_from(numbers[row] % 10).expect("not negative")])
            .collect();
        let items: Int64Array = range.flat_map(|row| items(numbers[row])).collect();
        (RecordBatch::try_from_iter([("item", Arc::new(items) as ArrayRef)]).expect("a column"), of)
    };
    if !ctx.config.as_arrays {
        for row in rows.iter() {
            items(row.n).for_each(|item| out.emit(unpacked::ITEMS, Item { item }));
            match row.n % 10 {
                7 => out.reject(Reject::new("SEVEN", "seven")),
                4 => out.drop_row(),
                5 => out.route(unpacked::FIVES, Item { item: -row.n }),
                _ => out.keep(Item { item: -row.n }),
            }
        }
        return;
    }
    // The second half is known once the first has its verdicts.
    let half = rows.len() / 2;
    let own: Int64Array = numbers.iter().map(|n| -n).collect();
    let own = RecordBatch::try_from_iter([("item", Arc::new(own) as ArrayRef)]).expect("a column");
    for part in [0..half, half..rows.len()] {
        let (items, of) = items_of(part.clone(), part.start);
        out.emit_rows(unpacked::ITEMS, &items, &of);
        for row in part {
            match numbers[row] % 10 {
                7 => {
                    let seven = BooleanArray::from(vec![true]);
                    out.reject_where(&seven, &Reject::new("SEVEN", "seven"), &own.slice(row, 1));
                }
                4 => out.drop_row(),
                5 => out.route_rows(unpacked::FIVES, &own.slice(row, 1)),
                // One by one, and several at once where they follow each other.
                6 => out.keep(Item { item: -numbers[row] }),
                0 => {
                    let run = numbers[row..].iter().take_while(|n| *n % 10 < 4).count().min(rows.len() - row);
                    let run = if row < half { run.min(half - row) } else { run };
                    out.keep_rows(&own.slice(row, run));
                }
                // Kept with the 0 before it.
                1..4 if row > 0 && numbers[row - 1] % 10 < numbers[row] % 10 && row != half => {}
                _ => out.keep_rows(&own.slice(row, 1)),
            }
        }
    }
}

#[test]
fn rows_emitted_as_arrays_are_those_emitted_one_by_one() {
    let rows: Vec<Value> = (0..57).map(|n| json!({"n": n})).collect();
    for count in [0, 1, 7, 20, 57] {
        let [one_by_one, arrays] = [false, true].map(|as_arrays| {
            let mut harness =
                RowHarness::<unpacked::Transform>::new(json!({"as_arrays": as_arrays})).unwrap();
            format!("{:#?}", harness.apply(&rows[..count]))
        });
        assert_eq!(one_by_one, arrays, "{count}");
        assert!(count < 9 || one_by_one.contains("SEVEN"));
    }
}

/// Says what is emitted in a way that is wrong.
#[gristmill_transform::columns(config = Settings, outputs(items = "their items"))]
fn wrong<'a>(rows: &Rows<'a, Basket>, ctx: &'a Context<Settings>, out: &mut RowsEdit<'_, Item>) {
    let items = |items: Vec<Option<i64>>| {
        let nullable = Arc::new(Int64Array::from(items)) as ArrayRef;
        RecordBatch::try_from_iter([("item", nullable)]).expect("a column")
    };
    match ctx.config.what.as_str() {
        "length" => out.emit_rows(wrong::ITEMS, &items(vec![Some(1)]), &[0, 1]),
        "order" => out.emit_rows(wrong::ITEMS, &items(vec![Some(1), Some(2)]), &[1, 0]),
        "beyond" => out.emit_rows(wrong::ITEMS, &items(vec![Some(1)]), &[rows.len()]),
        _ => out.emit_rows(wrong::ITEMS, &items(vec![None, Some(1)]), &[0, 1]),
    }
    rows.iter().for_each(|row| match row.n {
        // What is void may be null.
        0 if ctx.config.what == "void" => out.reject(Reject::new("NO", "no")),
        n => out.keep(Item { item: n }),
    });
}

#[test]
fn rows_that_cannot_be_emitted_are_said_so() {
    let rows = [json!({"n": 0}), json!({"n": 1})];
    let apply = |what: &str| {
        let mut harness = RowHarness::<wrong::Transform>::new(json!({"what": what})).unwrap();
        catch_unwind(AssertUnwindSafe(|| harness.apply(&rows)))
    };
    for (what, message) in [
        ("length", "1 rows are emitted, and 2 are said whose they are"),
        ("order", "the rows that others are emitted for do not ascend"),
        ("beyond", "a row is emitted for row 2 of 2 that have no verdict yet"),
        ("null", "1 values of the computed column item are null: declare an `Option`"),
    ] {
        let panic = apply(what).expect_err(what);
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or_default();
        assert_eq!(text, message, "{what}");
    }
    let answers = apply("void").expect("a null that is void");
    assert!(answers[0].rejected().is_some() && answers[1].emitted.len() == 1);
}

/// A part is kept where, one is rejected where, and one is routed; rows are emitted for any of them, in both ways.
#[gristmill_transform::columns(config = How, outputs(items = "their items", fives = "fives"))]
fn mixed<'a>(rows: &Rows<'a, Basket>, ctx: &'a Context<How>, out: &mut RowsEdit<'_, Item>) {
    let numbers = rows.columns().n.values();
    let draw =
        |n: i64, what: i64| (n.wrapping_mul(2_654_435_761).wrapping_add(what * 40_503) >> 7).rem_euclid(5);
    let items = |n: i64| (0..draw(n, 1)).map(move |item| n * 10 + item);
    let fives = |n: i64| (0..draw(n, 2) - 2).map(move |item| n * 1_000 + item);
    let is_bad = |n: i64| draw(n, 3) < 2;
    let (first, second) = (rows.len() / 3, 2 * rows.len() / 3);
    let marked = |out: &mut RowsEdit<'_, Item>| out.emit(mixed::ITEMS, Item { item: -7 });
    if !ctx.config.as_arrays {
        for (row, n) in numbers.iter().copied().enumerate() {
            items(n).for_each(|item| out.emit(mixed::ITEMS, Item { item }));
            fives(n).for_each(|item| out.emit(mixed::FIVES, Item { item }));
            if row == first || row == second {
                marked(out);
            }
            match (row < first, row < second, is_bad(n)) {
                (true, _, true) => out.drop_row(),
                (false, true, true) => out.reject(Reject::new("BAD", "bad")),
                (false, false, _) => out.route(mixed::FIVES, Item { item: -n }),
                _ => out.keep(Item { item: -n }),
            }
        }
        return;
    }
    let batch = |items: Vec<i64>| {
        let items = Arc::new(Int64Array::from(items)) as ArrayRef;
        RecordBatch::try_from_iter([("item", items)]).expect("a column")
    };
    let all = |of: &dyn Fn(i64) -> Vec<i64>| {
        let whose =
            numbers.iter().enumerate().flat_map(|(row, n)| vec![row; of(*n).len()]).collect::<Vec<_>>();
        (batch(numbers.iter().flat_map(|n| of(*n)).collect()), whose)
    };
    let (of_items, whose) = all(&|n| items(n).collect());
    out.emit_rows(mixed::ITEMS, &of_items, &whose);
    let (of_fives, whose) = all(&|n| fives(n).collect());
    out.emit_rows(mixed::FIVES, &of_fives, &whose);
    let own = batch(numbers.iter().map(|n| -n).collect());
    let bad: Vec<bool> = numbers.iter().map(|n| is_bad(*n)).collect();
    let keep: Vec<bool> = bad[..first].iter().map(|bad| !bad).collect();
    out.keep_where(&keep.into(), &own.slice(0, first));
    marked(out);
    let reject = Reject::new("BAD", "bad");
    out.reject_where(&bad[first..second].to_vec().into(), &reject, &own.slice(first, second - first));
    marked(out);
    out.route_rows(mixed::FIVES, &own.slice(second, rows.len() - second));
}

#[test]
fn parts_of_all_kinds_with_rows_emitted_among_them_are_those_of_a_loop() {
    for start in 0..20 {
        for count in [3, 4, 9, 101] {
            let rows: Vec<Value> = (0..count).map(|n| json!({"n": n + start * 1_000})).collect();
            let [one_by_one, arrays] = [false, true].map(|as_arrays| {
                let mut harness =
                    RowHarness::<mixed::Transform>::new(json!({"as_arrays": as_arrays})).unwrap();
                format!("{:#?}", harness.apply(&rows))
            });
            assert_eq!(one_by_one, arrays, "{start} {count}");
        }
    }
}
