//! local-bigquery, an emulator of BigQuery that nobody of Gristmill has written, as a process: tables are made over its REST
//! interface, rows written by its storage interface, and read back by its queries.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::builder::{
    Date32Builder, Int64Builder, ListBuilder, MapBuilder, StringBuilder, StructBuilder,
};
use arrow_array::*;
use arrow_schema::{DataType, Field, Fields, Schema};
use gristmill_sinks::*;
use serde_json::{Value, json};

/// The Python that has it; `make test` makes one where there is CPython 3.13.
const PYTHON: &str = "GRISTMILL_LOCAL_BIGQUERY";

struct LocalBigQuery {
    process: Child,
    rest: String,
    storage: String,
    folder: tempfile::TempDir,
}

impl LocalBigQuery {
    /// Starts it with an empty dataset `shop.lake`. `None`, with a note, where it is not there and this is not CI.
    async fn start() -> Option<LocalBigQuery> {
        let Some(python) = std::env::var(PYTHON).ok().filter(|p| !p.is_empty()) else {
            assert!(!std::env::var("CI").is_ok_and(|v| v == "true"), "{PYTHON} is not set");
            eprintln!("SKIPPED: {PYTHON} is not set; `make test` sets it where there is CPython 3.13");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (rest, storage) = (port(), port());
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/bigquery_emulator.py"))
            .args([rest.to_string(), storage.to_string()])
            .arg(folder.path().join("data"))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("the emulator starts");
        let url = |port| format!("http://127.0.0.1:{port}");
        let emulator = LocalBigQuery { process, rest: url(rest), storage: url(storage), folder };
        let deadline = Instant::now() + Duration::from_secs(60);
        while reqwest::get(format!("{}/bigquery/v2/projects/shop/datasets", emulator.rest)).await.is_err() {
            assert!(Instant::now() < deadline, "it does not answer: {}", emulator.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Some(emulator)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn store(&self, mode: Mode) -> BigQueryStore {
        BigQueryStore::new(BigQueryConfig {
            mode,
            project: "shop".into(),
            dataset: "lake".into(),
            table: TableTemplate::parse("{topic}").unwrap(),
            streams_per_second: 1_000,
            max_tables: 3,
            primary_key: Vec::new(),
            tables: Some(TableOptions {
                create: true,
                new_columns: NewColumns::Add,
                ..TableOptions::default()
            }),
            endpoint: Some(self.storage.clone()),
            rest_endpoint: Some(self.rest.clone()),
            gzip: false,
            credentials_file: None,
        })
        .unwrap()
    }

    fn config(&self, mode: Mode, failpoints: Failpoints) -> SinkConfig {
        SinkConfig::builder(Arc::new(self.store(mode)))
            .state(Arc::new(FolderStore::open(self.folder.path().join("state")).unwrap()))
            .format(Format::BigQuery)
            .rotation(Rotation { age: Duration::from_millis(1), ..Rotation::default() })
            .retry(Retry { attempts: 3, first_delay: Duration::ZERO, max_delay: Duration::ZERO })
            .failpoints(failpoints)
            .build()
            .unwrap()
    }

    /// The cells of each row of a query, as the REST interface gives them.
    async fn query(&self, sql: &str) -> Vec<Vec<Value>> {
        let body = json!({"query": sql, "useLegacySql": false, "formatOptions": {"useInt64Timestamp": true}});
        let url = format!("{}/bigquery/v2/projects/shop/queries", self.rest);
        let answer = reqwest::Client::new().post(url).json(&body).send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["jobComplete"] == true, "{answer}");
        let rows = answer["rows"].as_array().cloned().unwrap_or_else(|| panic!("{answer}\n{}", self.log()));
        let cells = |row: &Value| row["f"].as_array().unwrap().iter().map(|cell| cell["v"].clone()).collect();
        rows.iter().map(cells).collect()
    }
}

impl Drop for LocalBigQuery {
    fn drop(&mut self) {
        // Its own end, for what it started: its input is closed.
        if let Some(mut input) = self.process.stdin.take() {
            let _ = input.flush();
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn id(topic: &str) -> PartitionId {
    PartitionId {
        pipeline: topic.into(),
        cluster: "c".into(),
        topic: topic.into(),
        topic_id: [7; 16],
        partition: 0,
    }
}

async fn hand_over(sink: &mut PartitionSink, rows: &RecordBatch, first: i64) -> Result<Checkpoint> {
    let count = rows.num_rows() as i64;
    let coords: Vec<RowCoord> =
        (first..first + count).map(|offset| RowCoord { offset, sub: 0, timestamp: None }).collect();
    sink.append(MAIN_OUTPUT, rows, &coords).await?;
    sink.advance(first + count, None)?;
    sink.checkpoint().await
}

fn numbers(ids: std::ops::Range<i64>) -> RecordBatch {
    RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from_iter_values(ids)) as ArrayRef)]).unwrap()
}

/// A writer dies at each step of the protocol; each row is found once by a query. With `at_least_once` none is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_independent_emulator_has_each_row_once_through_crashes() {
    let Some(emulator) = LocalBigQuery::start().await else { return };
    // Where rows are seen at once there is nothing to move.
    let points = [Failpoint::AfterStage, Failpoint::AfterSeal, Failpoint::BeforeCommit, Failpoint::AfterMove];
    for (mode, topic) in [(Mode::ExactlyOnce, "once"), (Mode::AtLeastOnce, "at_least_once")] {
        let rows = numbers(0..1);
        let note =
            emulator.store(mode).prepare_table(topic, MAIN_OUTPUT, rows.schema_ref(), false).await.unwrap();
        assert!(matches!(note, TableNote::New(_)), "{note:?}");
        let points = &points[..if mode == Mode::ExactlyOnce { 4 } else { 3 }];
        for (at, point) in points.iter().copied().enumerate() {
            let config = emulator.config(mode, Failpoints::none());
            let (mut sink, first) = PartitionSink::open(config, id(topic), 0).await.unwrap();
            // What was sealed before the last crash is there.
            assert_eq!(first, at as i64 * 200 - if at > 0 { 100 } else { 0 }, "{point:?}");
            hand_over(&mut sink, &numbers(first..first + 100), first).await.unwrap();
            let failing = emulator.config(mode, Failpoints::in_process(point, 1));
            let (mut sink, first) = PartitionSink::open(failing, id(topic), 0).await.unwrap();
            let error = hand_over(&mut sink, &numbers(first..first + 100), first).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Injected, "{error}");
        }
        let config = emulator.config(mode, Failpoints::none());
        let (mut sink, first) = PartitionSink::open(config, id(topic), 0).await.unwrap();
        hand_over(&mut sink, &numbers(first..1_000), first).await.unwrap();
        let query = format!("SELECT COUNT(*), COUNT(DISTINCT id), MIN(id), MAX(id) FROM `shop.lake.{topic}`");
        let found: Vec<i64> =
            emulator.query(&query).await[0].iter().map(|v| v.as_str().unwrap().parse().unwrap()).collect();
        assert_eq!(found[1..], [1_000, 0, 999], "{topic}");
        match mode {
            Mode::ExactlyOnce => assert_eq!(found[0], 1_000),
            _ => assert!(found[0] > 1_000, "{found:?}"),
        }
    }
}

/// A column of texts that are JSON.
fn as_json(name: &str) -> Field {
    let extension = ("ARROW:extension:name".to_owned(), "arrow.json".to_owned());
    Field::new(name, DataType::Utf8, true).with_metadata(arrow_schema::Metadata::from_iter([extension]))
}

/// Every type of the table in the docs, with its ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_each_type_come_back_from_a_query_as_they_went_in() {
    let Some(emulator) = LocalBigQuery::start().await else { return };
    let day = 86_400_000_000_i64;
    let mut members = StructBuilder::from_fields(
        Fields::from(vec![Field::new("sku", DataType::Utf8, false), Field::new("n", DataType::Int64, true)]),
        3,
    );
    for (sku, n) in [("a", Some(1)), ("ü", None), ("", Some(-1))] {
        members.field_builder::<StringBuilder>(0).unwrap().append_value(sku);
        members.field_builder::<Int64Builder>(1).unwrap().append_option(n);
        members.append(true);
    }
    let mut texts = ListBuilder::new(StringBuilder::new());
    texts.append_value([Some("x"), Some("y")]);
    texts.append_null();
    texts.append_value(Vec::<Option<&str>>::new());
    let mut map = MapBuilder::new(None, StringBuilder::new(), Date32Builder::new());
    map.keys().append_value("a\"b");
    map.values().append_value(1);
    map.keys().append_value("n");
    map.values().append_null();
    map.append(true).unwrap();
    map.append(true).unwrap();
    map.append(false).unwrap();
    let mut lists = ListBuilder::new(ListBuilder::new(Int64Builder::new()));
    lists.values().append_value([Some(1), None]);
    lists.values().append_null();
    lists.append(true);
    lists.append(true);
    lists.append_null();
    // Texts that are JSON already, by themselves and in what becomes JSON.
    let mut of_json = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new())
        .with_values_field(as_json("values"));
    for json in [Some("{\"x\":[1,\"y\"]}"), None] {
        of_json.keys().append_value("k");
        of_json.values().append_option(json);
        of_json.append(true).unwrap();
    }
    of_json.append(true).unwrap();
    let decimal = |values: [Option<i128>; 3], p, s| -> ArrayRef {
        Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(p, s).unwrap())
    };
    let utc = |values: [Option<i64>; 3]| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values.to_vec()).with_timezone("UTC"))
    };
    // Each column: its values, and how a query gives them.
    let cells: Vec<(&str, ArrayRef, [Value; 3])> = vec![
        ("id", Arc::new(Int64Array::from(vec![0, 1, 2])), [json!("0"), json!("1"), json!("2")]),
        (
            "bool",
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
            [json!("true"), json!("false"), Value::Null],
        ),
        (
            "i8",
            Arc::new(Int8Array::from(vec![i8::MIN, 0, i8::MAX])),
            [json!("-128"), json!("0"), json!("127")],
        ),
        (
            "i64",
            Arc::new(Int64Array::from(vec![i64::MIN, 0, i64::MAX])),
            [json!(i64::MIN.to_string()), json!("0"), json!(i64::MAX.to_string())],
        ),
        (
            "u32",
            Arc::new(UInt32Array::from(vec![Some(0), None, Some(u32::MAX)])),
            [json!("0"), Value::Null, json!("4294967295")],
        ),
        (
            "u64",
            Arc::new(UInt64Array::from(vec![0, 1, u64::MAX])),
            [json!("0"), json!("1"), json!("18446744073709551615")],
        ),
        (
            "f32",
            Arc::new(Float32Array::from(vec![0.5, -2.0, 1024.0])),
            [json!("0.5"), json!("-2.0"), json!("1024.0")],
        ),
        (
            "f64",
            Arc::new(Float64Array::from(vec![Some(0.1), None, Some(-1e300)])),
            [json!("0.1"), Value::Null, json!("-1e+300")],
        ),
        (
            "numeric",
            decimal([Some(12_345), Some(-1), None], 10, 2),
            [json!("123.45"), json!("-0.01"), Value::Null],
        ),
        (
            "numeric_end",
            decimal([Some(10_i128.pow(38) - 1), Some(1 - 10_i128.pow(38)), Some(1)], 38, 9),
            [
                json!("99999999999999999999999999999.999999999"),
                json!("-99999999999999999999999999999.999999999"),
                json!("0.000000001"),
            ],
        ),
        (
            "bignumeric",
            // The emulator keeps no digits beyond those of a NUMERIC.
            decimal([Some(10_i128.pow(37)), Some(-10_i128.pow(11)), None], 38, 20),
            [json!("100000000000000000"), json!("-0.000000001"), Value::Null],
        ),
        (
            "string",
            Arc::new(StringArray::from(vec![Some("ä\"\\\n\u{1F980}"), Some(""), None])),
            [json!("ä\"\\\n\u{1F980}"), json!(""), Value::Null],
        ),
        (
            "bytes",
            Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), Some(b""), None])),
            [json!("AP8="), json!(""), Value::Null],
        ),
        (
            "date",
            Arc::new(Date32Array::from(vec![-719_162, 0, 2_932_896])),
            [json!("0001-01-01"), json!("1970-01-01"), json!("9999-12-31")],
        ),
        (
            "time",
            Arc::new(Time32MillisecondArray::from(vec![Some(0), Some(86_399_999), None])),
            [json!("00:00:00"), json!("23:59:59.999000"), Value::Null],
        ),
        (
            "timestamp",
            utc([Some(-719_162 * day), Some(1_793_491_200_123_456), Some(2_932_897 * day - 1)]),
            [
                json!((-719_162 * day).to_string()),
                json!("1793491200123456"),
                json!((2_932_897 * day - 1).to_string()),
            ],
        ),
        (
            "nanos",
            Arc::new(
                TimestampNanosecondArray::from(vec![Some(1_793_491_200_123_456_789), Some(-1), None])
                    .with_timezone("UTC"),
            ),
            [json!("1793491200123456"), json!("0"), Value::Null],
        ),
        (
            "datetime",
            Arc::new(TimestampMillisecondArray::from(vec![Some(1_793_491_200_123), Some(0), None])),
            [json!("2026-11-01T00:00:00.123000"), json!("1970-01-01T00:00:00"), Value::Null],
        ),
        (
            "item",
            Arc::new(members.finish()),
            [
                json!({"f": [{"v": "a"}, {"v": "1"}]}),
                json!({"f": [{"v": "ü"}, {"v": null}]}),
                json!({"f": [{"v": ""}, {"v": "-1"}]}),
            ],
        ),
        (
            "map",
            Arc::new(map.finish()),
            [json!(r#"{"a\"b":"1970-01-02","n":null}"#), json!("{}"), Value::Null],
        ),
        (
            "json",
            Arc::new(StringArray::from(vec![Some("{\"a\":[1,null]}"), Some("\"text\""), None])),
            [json!("{\"a\":[1,null]}"), json!("\"text\""), Value::Null],
        ),
        (
            "of_json",
            Arc::new(of_json.finish()),
            [json!("{\"k\":{\"x\":[1,\"y\"]}}"), json!("{\"k\":null}"), json!("{}")],
        ),
        ("lists", Arc::new(lists.finish()), [json!("[[1,null],null]"), json!("[]"), Value::Null]),
        ("tags", Arc::new(texts.finish()), [json!([{"v": "x"}, {"v": "y"}]), json!([]), json!([])]),
    ];
    let fields = cells.iter().map(|(name, column, _)| match *name {
        "json" => as_json(name),
        name => Field::new(name, column.data_type().clone(), name != "id"),
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let rows =
        RecordBatch::try_new(schema, cells.iter().map(|(_, column, _)| column.clone()).collect()).unwrap();
    assert_eq!(misfits(&rows, false).unwrap(), []);
    let store = emulator.store(Mode::AtLeastOnce);
    store.prepare_table("types", MAIN_OUTPUT, rows.schema_ref(), false).await.unwrap();
    let config = emulator.config(Mode::AtLeastOnce, Failpoints::none());
    let (mut sink, _) = PartitionSink::open(config, id("types"), 0).await.unwrap();
    let done = hand_over(&mut sink, &rows, 0).await.unwrap();
    assert!(matches!(&done, Checkpoint::Published(published) if published.rows == 3), "{done:?}");
    let found = emulator.query("SELECT * FROM `shop.lake.types` ORDER BY id").await;
    let mut wrong = Vec::new();
    for (at, (name, _, expected)) in cells.iter().enumerate() {
        let found: Vec<&Value> = found.iter().map(|row| &row[at]).collect();
        if found != expected.iter().collect::<Vec<_>>() {
            wrong.push(format!("{name}: {found:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // The types are those of the docs, and another start finds the table as it is.
    let note = store.prepare_table("types", MAIN_OUTPUT, rows.schema_ref(), false).await.unwrap();
    assert_eq!(note, TableNote::Fits);
    let types = emulator.query("SELECT column_name, data_type FROM `shop.lake`.INFORMATION_SCHEMA.COLUMNS WHERE table_name = 'types' ORDER BY ordinal_position").await;
    let types: Vec<(String, String)> = types
        .iter()
        .map(|row| (row[0].as_str().unwrap().to_owned(), row[1].as_str().unwrap().to_owned()))
        .collect();
    let expected: Vec<(String, String)> = table_columns(rows.schema_ref())
        .unwrap()
        .into_iter()
        .map(|column| (column.name, column.data_type.replace('`', "").replace(" NOT NULL", "")))
        .collect();
    assert_eq!(types, expected);

    // A column that comes later is added under the table's ETag, and rows have it.
    let more = Fields::from(
        rows.schema()
            .fields()
            .iter()
            .cloned()
            .chain([Arc::new(Field::new("later", DataType::Date32, true))])
            .collect::<Vec<_>>(),
    );
    let note = store.prepare_table("types", MAIN_OUTPUT, &Schema::new(more), false).await.unwrap();
    assert_eq!(note, TableNote::Changes("ALTER TABLE `shop.lake.types` ADD COLUMN `later` DATE;".into()));
    let later = RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from(vec![3])) as ArrayRef, false),
        ("later", Arc::new(Date32Array::from(vec![19_000])) as ArrayRef, true),
    ])
    .unwrap();
    hand_over(&mut sink, &later, 3).await.unwrap();
    let found = emulator.query("SELECT later FROM `shop.lake.types` WHERE id = 3").await;
    assert_eq!(found, [[json!("2022-01-08")]]);
}
