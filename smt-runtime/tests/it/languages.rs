//! Transforms in Python and JavaScript, by way of the world `simple-transform`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow_array::builder::{Int64Builder, ListBuilder, MapBuilder, StringBuilder};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use gristmill_smt::fixtures::{FixtureOptions, run_fixtures};
use gristmill_smt::{ColumnInstance, ErrorKind, GuestToolchain, Limits, Transform, build_guest};
use serde_json::json;

use crate::support::{repository, runtime, stream};

/// Without the language's tool its tests are left out on a developer's machine, loudly; in CI they fail.
fn load(folder: &str, limits: Limits) -> Option<Transform> {
    let dir = repository().join(folder);
    let built = match build_guest(&dir) {
        Ok(built) => built,
        Err(e) if e.kind() == ErrorKind::Host && std::env::var_os("CI").is_none_or(|ci| ci != "true") => {
            eprintln!("SKIPPED: {e}");
            return None;
        }
        Err(e) => panic!("{e}"),
    };
    match dir.join("transform.py").is_file() {
        true => assert!(matches!(built.toolchain, GuestToolchain::ComponentizePy { .. })),
        false => assert!(matches!(built.toolchain, GuestToolchain::ComponentizeQjs { .. })),
    }
    Some(runtime().load_file(built.component, limits).unwrap_or_else(|e| panic!("{e}")))
}

fn python() -> Limits {
    Limits::default().with_memory(128 << 20).with_call_timeout(Duration::from_secs(10))
}

/// The same fixtures as the example in Rust.
#[test]
fn the_example_in_python_and_javascript_does_what_that_in_rust_does() {
    for (folder, limits) in [("typed-orders-js", Limits::default()), ("typed-orders-python", python())] {
        let Some(transform) = load(&format!("examples/transforms/{folder}"), limits) else { continue };
        let fixtures = repository().join("examples/transforms").join(folder).join("fixtures");
        let results = run_fixtures(&transform, &fixtures, &FixtureOptions::default()).unwrap();
        assert!(!results.is_empty());
        for result in results {
            assert!(result.is_ok(), "{folder}: {result}");
        }
        assert_eq!(transform.manifest().columns[1].path, "customer.email");
        assert!(!transform.manifest().columns[2].required);
    }
}

fn of_all_kinds() -> RecordBatch {
    let utc = Some(Arc::from("UTC"));
    let mut fields = vec![];
    let mut columns: Vec<ArrayRef> = vec![];
    let mut add = |name: &str, column: ArrayRef| {
        fields.push(Field::new(name, column.data_type().clone(), true));
        columns.push(column);
    };
    macro_rules! integers {
        ($($name:literal $array:ident $native:ty),*) => {
            $(add($name, Arc::new(arrow_array::$array::from(vec![Some(<$native>::MIN), None, Some(<$native>::MAX), Some(7)])));)*
        };
    }
    add("bool", Arc::new(arrow_array::BooleanArray::from(vec![Some(true), None, Some(false), None])));
    integers!("int8" Int8Array i8, "int16" Int16Array i16, "int32" Int32Array i32, "int64" Int64Array i64,
        "uint8" UInt8Array u8, "uint16" UInt16Array u16, "uint32" UInt32Array u32, "uint64" UInt64Array u64);
    add(
        "float32",
        Arc::new(arrow_array::Float32Array::from(vec![Some(0.1), None, Some(f32::MIN), Some(-0.0)])),
    );
    let f64s = vec![Some(0.1), None, Some(f64::MAX), Some(f64::NEG_INFINITY)];
    add("float64", Arc::new(arrow_array::Float64Array::from(f64s)));
    add("string", Arc::new(StringArray::from(vec![Some(""), None, Some("Zoë 🌾\n\"\0"), Some("a")])));
    let bytes: Vec<Option<&[u8]>> = vec![Some(b""), None, Some(b"\x00\xff"), Some(b"a")];
    add("bytes", Arc::new(arrow_array::BinaryArray::from(bytes)));
    let decimals = vec![Some(-999_999_999_999_999_999i128), None, Some(999_999_999_999_999_999), Some(5)];
    let decimals = arrow_array::Decimal128Array::from(decimals).with_precision_and_scale(18, 2).unwrap();
    add("decimal", Arc::new(decimals));
    // Years 1 and 9999, which is what Python's dates have.
    add(
        "date",
        Arc::new(arrow_array::Date32Array::from(vec![Some(-719_162), None, Some(2_932_896), Some(-1)])),
    );
    macro_rules! timestamps {
        ($($name:literal $array:ident $per_second:literal),*) => {
            $({
                let values = vec![Some(-62_135_596_800 * $per_second), None, Some(253_402_300_799 * $per_second), Some(-1)];
                add($name, Arc::new(arrow_array::$array::from(values).with_timezone_opt(utc.clone())));
            })*
        };
    }
    timestamps!("timestamp_s" TimestampSecondArray 1, "timestamp_ms" TimestampMillisecondArray 1_000,
        "timestamp_us" TimestampMicrosecondArray 1_000_000);
    let nanoseconds = vec![Some(i64::MIN), None, Some(i64::MAX), Some(-1)];
    add(
        "timestamp_ns",
        Arc::new(arrow_array::TimestampNanosecondArray::from(nanoseconds).with_timezone_opt(utc.clone())),
    );
    let mut lists = ListBuilder::new(StringBuilder::new());
    lists.append_value([Some("a"), None, Some("]\"")]);
    lists.append_null();
    lists.append_value([None::<&str>; 0]);
    lists.append_value([Some("")]);
    let lists = lists.finish();
    add("list", Arc::new(lists));
    let mut maps = MapBuilder::new(
        Some(arrow_array::builder::MapFieldNames {
            entry: "entries".into(),
            key: "key".into(),
            value: "value".into(),
        }),
        StringBuilder::new(),
        Int64Builder::new(),
    );
    for row in [Some(vec![("a", Some(1)), ("b", None)]), None, Some(vec![]), Some(vec![("", Some(-1))])] {
        for (key, value) in row.iter().flatten() {
            maps.keys().append_value(key);
            maps.values().append_option(*value);
        }
        maps.append(row.is_some()).unwrap();
    }
    add("map", Arc::new(maps.finish()));
    // More digits than a double has.
    let price = || arrow_array::builder::Decimal128Builder::new().with_precision_and_scale(38, 4).unwrap();
    let mut prices = ListBuilder::new(price());
    prices.append_value([Some(99_999_999_999_999_999_999_999_999_999_999_999_999), None, Some(-1)]);
    prices.append_null();
    prices.append_value([None::<i128>; 0]);
    prices.append_value([Some(12_345_678_901_234_567_890_123)]);
    add("prices", Arc::new(prices.finish()));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// Extremes, nulls and what is nested, in whole batches and cut ones.
#[test]
fn values_of_every_type_come_back_as_they_went_in() {
    let batch = of_all_kinds();
    let offsets: Vec<i64> = (0..batch.num_rows() as i64).collect();
    for (folder, limits) in [("kinds-js", Limits::default()), ("kinds-python", python())] {
        let Some(transform) = load(&format!("smt-runtime/tests/guests/{folder}"), limits) else { continue };
        let mut instance = transform.instantiate_columns(&stream(), &json!({}), &batch.schema()).unwrap();
        for (start, rows) in [(0, 4), (2, 2), (1, 1), (0, 0)] {
            let part = batch.slice(start, rows);
            let applied = instance.apply(&part, &offsets[start..start + rows]).unwrap();
            assert!(applied.rejects().is_empty(), "{folder}: {:?}", applied.rejects());
            for (i, field) in part.schema().fields().iter().enumerate() {
                let (before, after) = (part.column(i), applied.batch().column(i));
                assert_eq!(before.data_type(), after.data_type(), "{folder}: {}", field.name());
                assert_eq!(before.as_ref(), after.as_ref(), "{folder}: {}", field.name());
            }
        }
    }
}

fn texts(values: &[Option<&str>]) -> RecordBatch {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, true)]));
    RecordBatch::try_new(schema, vec![Arc::new(StringArray::from(values.to_vec()))]).unwrap()
}

fn hostile() -> Option<&'static Transform> {
    static TRANSFORM: OnceLock<Option<Transform>> = OnceLock::new();
    let limits = Limits::default()
        .with_memory(16 << 20)
        .with_output_bytes(1 << 20)
        .with_call_timeout(Duration::from_millis(200))
        .with_max_reject_ratio(1.0)
        .with_record_fuel(200_000_000);
    TRANSFORM.get_or_init(|| load("smt-runtime/tests/guests/simple-hostile", limits)).as_ref()
}

fn assert_works(instance: &mut ColumnInstance) {
    let applied = instance.apply(&texts(&[Some("fine"); 5]), &[0; 5]).unwrap();
    assert_eq!((applied.kept(), applied.rejects().len()), (5, 0), "{:?}", applied.rejects());
}

/// What a guest of plain values may answer: the poison alone is rejected, the others go on, the next batch works.
#[test]
fn an_answer_that_makes_no_sense_rejects_what_it_was_given_for() {
    let Some(transform) = hostile() else { return };
    let mut wrong = Vec::new();
    for (attack, code, message) in [
        ("too-few-verdicts", "TRANSFORM_INVALID_EDITS", "0 of 1 rows"),
        ("no-verdicts", "TRANSFORM_INVALID_EDITS", "0 of 1 rows"),
        ("too-many-verdicts", "TRANSFORM_INVALID_EDITS", "more rows described than the 1"),
        ("emit-first", "TRANSFORM_INVALID_EDITS", "a row is emitted before the first verdict"),
        ("emit-without-values", "TRANSFORM_INVALID_COLUMNS", "column narrow: 1 values, 2 rows go on"),
        ("emit-bomb", "TRANSFORM_OUTPUT", "limit output_records_per_row of 100"),
        ("unknown-output", "TRANSFORM_INVALID_EDITS", "output 7"),
        ("output-out-of-range", "TRANSFORM_INVALID_EDITS", "output 16777215"),
        ("too-few-values", "TRANSFORM_INVALID_COLUMNS", "column narrow: 0 values, 1 rows go on"),
        ("too-many-values", "TRANSFORM_INVALID_COLUMNS", "column narrow: 2 values, 1 rows go on"),
        ("too-few-columns", "TRANSFORM_INVALID_COLUMNS", "3 columns, it computes 4"),
        ("narrow-integer", "TRANSFORM_INVALID_COLUMNS", "column narrow: value 0: 128 does not fit int8"),
        ("null-where-none-may-be", "TRANSFORM_INVALID_COLUMNS", "column name: 1 nulls where none may be"),
        ("decimal-of-too-many-digits", "TRANSFORM_INVALID_COLUMNS", "column price: value 0:"),
        ("decimal-that-is-none", "TRANSFORM_INVALID_COLUMNS", "column price: value 0:"),
        ("list-that-is-no-json", "TRANSFORM_INVALID_COLUMNS", "column tags: value 0 is not JSON"),
        ("list-of-another-type", "TRANSFORM_INVALID_COLUMNS", "column tags: value 0:"),
        ("list-that-ends-its-document", "TRANSFORM_INVALID_COLUMNS", "column tags: value 0 is not JSON"),
        ("huge-text", "TRANSFORM_OUTPUT", "limit output_bytes of 1048576"),
        ("throws", "TRANSFORM_TRAP", "Error: on purpose"),
        ("throws-nothing-much", "TRANSFORM_TRAP", "thrown: null"),
        ("loops", "TRANSFORM_FUEL", "limit record_fuel of 200000000"),
        ("hoards", "TRANSFORM_MEMORY", "limit memory of 16777216 bytes"),
        ("recurses", "TRANSFORM_TRAP", ""),
    ] {
        let config = json!({"attack": attack});
        let rows = texts(&[Some("fine"), None, Some("poison"), Some("fine")]);
        let mut instance = transform.instantiate_columns(&stream(), &config, &rows.schema()).unwrap();
        let applied = instance.apply(&rows, &[10, 11, 12, 13]).unwrap_or_else(|e| panic!("{attack}: {e}"));
        let is_as_said = match applied.rejects() {
            [reject] => {
                (reject.row, reject.offset, reject.code.as_str()) == (2, 12, code)
                    && reject.message.contains(message)
            }
            _ => false,
        };
        if !is_as_said {
            wrong.push(format!("{attack}: {:?}", applied.rejects()));
        }
        assert_eq!(applied.rows().iter().map(|r| r.row).collect::<Vec<_>>(), [0, 1, 3], "{attack}");
        assert_works(&mut instance);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_binding_that_makes_no_sense_is_refused_with_what_is_wrong() {
    let Some(transform) = hostile() else { return };
    for (attack, message) in [
        ("reads-nothing-there", "there is no column texd; the nearest is text"),
        ("reads-as-another-type", "column text is string, the transform reads it as int64"),
        ("reads-as-not-null", "column text may be null, the transform reads it as string not null"),
        ("reads-twice", "it reads the field text twice"),
        ("removes-nothing-there", "there is no column nobody to remove; there are text"),
        ("removes-nothing-often", "there is no column nobody0 to remove; there are text; "),
        ("removes-too-much", "it names 20005 columns, 10000 are allowed"),
        ("removes-all", "it removes all columns"),
        ("renames-to-nothing", "a name in the output is not 1 to 255 bytes"),
        ("renames-to-another", "the output would have two fields narrow"),
        ("adds-no-type", "the computed column narrow: `int46` is not a type; did you mean `int16`?"),
        ("adds-a-struct", "the computed column narrow: `struct` is not a type"),
        ("adds-a-name-twice", "the output would have two fields text"),
        ("replaces-nothing-there", "there is no column texd to replace; the nearest is text"),
        ("replaces-and-removes", "it changes the field text twice"),
    ] {
        let config = json!({"attack": attack});
        let error = transform.instantiate_columns(&stream(), &config, &texts(&[]).schema()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configure, "{attack}");
        assert!(error.to_string().contains(message), "{attack}: {error}");
        assert!(error.to_string().len() < 2_500, "{attack}: the text is {} long", error.to_string().len());
    }
}

/// A column that is optional and not there is null, and one of a type that only can be read reaches the guest.
#[test]
fn columns_that_are_missing_or_of_another_type_are_told_at_the_start() {
    let Some(transform) = load("examples/transforms/typed-orders-js", Limits::default()) else { return };
    let utf8 = |name: &str| Field::new(name, DataType::Utf8, true);
    let schema = |amount: DataType| {
        let customer = DataType::Struct(vec![utf8("email"), utf8("card")].into());
        let created = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        Arc::new(Schema::new(vec![
            Field::new("amount_cents", amount, false),
            Field::new("customer", customer, true),
            Field::new("created_at", created, true),
        ]))
    };
    let config = json!({"high_value_cents": 100});
    let wrong = transform.instantiate_columns(&stream(), &config, &schema(DataType::Int32)).unwrap_err();
    let text = wrong.to_string();
    assert!(
        text.contains("column amount_cents is int32, the transform reads it as int64 not null"),
        "{text}"
    );
    let schema = schema(DataType::Int64);
    let mut instance = transform.instantiate_columns(&stream(), &config, &schema).unwrap();
    let columns = schema.fields().iter().map(|field| match field.name().as_str() {
        "amount_cents" => Arc::new(arrow_array::Int64Array::from(vec![99, 100])) as ArrayRef,
        _ => new_null_array(field.data_type(), 2),
    });
    let batch = RecordBatch::try_new(schema.clone(), columns.collect()).unwrap();
    let applied = instance.apply(&batch, &[0, 1]).unwrap();
    let outputs: Vec<_> = applied.rows().iter().map(|row| row.output).collect();
    assert_eq!(outputs, [0, 1], "{:?}", applied.rejects());
    let out: Vec<_> = applied.batch().schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(out, ["amount_cents", "customer", "ordered_at", "email_domain", "received_at"]);
}

/// Interpreters take microseconds a row: a large batch goes in by parts, each well within the time of a call.
#[test]
fn a_large_batch_goes_into_a_script_by_parts() {
    let Some(transform) = hostile() else { return };
    let rows = texts(&vec![Some("fine"); 2_500]);
    let mut instance =
        transform.instantiate_columns(&stream(), &json!({"attack": "none"}), &rows.schema()).unwrap();
    let applied = instance.apply(&rows, &vec![0; 2_500]).unwrap();
    assert_eq!((applied.kept(), applied.stats().calls, applied.stats().failed_calls), (2_500, 3, 0));
}

#[test]
fn a_folder_that_holds_no_transform_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let text = build_guest(folder.path()).unwrap_err().to_string();
    assert!(text.contains("there is no Cargo.toml, transform.py or transform.js"), "{text}");
    for (file, code, message) in [
        ("transform.js", "import { nothing } from \"gristmill-transform\";\n", "nothing"),
        ("transform.js", "export default 5 +;\n", "unexpected token in expression"),
        ("transform.py", "from gristmill_transform import nothing\n", "cannot import name 'nothing'"),
        ("transform.py", "x = 1\n", "transform.py has 0 transforms"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(file), code).unwrap();
        let error = build_guest(folder.path()).unwrap_err();
        if error.kind() == ErrorKind::Host && std::env::var_os("CI").is_none_or(|ci| ci != "true") {
            eprintln!("SKIPPED: {error}");
            continue;
        }
        assert_eq!(error.kind(), ErrorKind::Load, "{error}");
        assert!(error.to_string().contains(message), "{file} {code}: {error}");
    }
}
