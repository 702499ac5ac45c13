//! Rows that change others, by BigQuery's change data capture: by the in-process fake, which reads protobuf by the description
//! that came with it.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::builder::{Int64Builder, ListBuilder};
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, Float64Array,
    Int64Array, RecordBatch, StringArray, StructArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow_buffer::i256;
use arrow_schema::{DataType, Field, Fields, Schema};
use gristmill_sinks::fake_bigquery::{Call, Effect, FakeBigQuery};
use gristmill_sinks::*;
use serde_json::{Value, json};

const TABLE: &str = "shop.lake.orders";

fn store(bigquery: &FakeBigQuery, tables: Option<TableOptions>) -> BigQueryStore {
    BigQueryStore::new(BigQueryConfig {
        mode: Mode::Cdc,
        project: "shop".into(),
        dataset: "lake".into(),
        table: TableTemplate::parse("{topic}").unwrap(),
        streams_per_second: 1_000,
        max_tables: 3,
        primary_key: vec!["id".into()],
        tables,
        endpoint: Some(bigquery.url().into()),
        rest_endpoint: Some(bigquery.rest_url().into()),
        gzip: false,
        credentials_file: None,
    })
    .unwrap()
}

fn making() -> TableOptions {
    TableOptions { create: true, ..TableOptions::default() }
}

fn id() -> PartitionId {
    PartitionId {
        pipeline: "orders".into(),
        cluster: "c".into(),
        topic: "orders".into(),
        topic_id: [7; 16],
        partition: 0,
    }
}

/// Rows of an offset, a key, a name and a kind of change each.
fn changes(of: &[(i64, i64, &str, &str)]) -> (RecordBatch, Vec<RowCoord>) {
    let columns: [(&str, ArrayRef); 4] = [
        ("id", Arc::new(Int64Array::from_iter_values(of.iter().map(|(_, id, ..)| *id)))),
        ("name", Arc::new(StringArray::from_iter(of.iter().map(|(.., name, _)| Some(*name))))),
        (CHANGE_TYPE, Arc::new(StringArray::from_iter_values(of.iter().map(|(.., kind)| *kind)))),
        (
            CHANGE_SEQUENCE_NUMBER,
            Arc::new(StringArray::from_iter_values(of.iter().map(|(offset, ..)| format!("0/{offset:X}/0")))),
        ),
    ];
    let coords =
        of.iter().map(|(offset, ..)| RowCoord { offset: *offset, sub: 0, timestamp: None }).collect();
    (RecordBatch::try_from_iter(columns).unwrap(), coords)
}

fn own_schema() -> Schema {
    Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("name", DataType::Utf8, true)])
}

async fn sink(store: BigQueryStore, folder: &tempfile::TempDir, letters: bool) -> PartitionSink {
    let mut config = SinkConfig::builder(Arc::new(store))
        .state(Arc::new(FolderStore::open(folder.path().join("state")).unwrap()))
        .format(Format::BigQueryChanges)
        .rotation(Rotation { age: Duration::from_millis(1), ..Rotation::default() })
        .retry(Retry { attempts: 3, first_delay: Duration::ZERO, max_delay: Duration::ZERO });
    if letters {
        let store = Arc::new(FolderStore::open(folder.path()).unwrap());
        config = config.dead_letters(Arc::new(FileDeadLetters::new(store, "letters").unwrap()));
    }
    PartitionSink::open(config.build().unwrap(), id(), 0).await.unwrap().0
}

async fn hand_over(sink: &mut PartitionSink, of: &[(i64, i64, &str, &str)]) -> Result<Checkpoint> {
    let (rows, coords) = changes(of);
    sink.tally(coords.len() as u64, 0);
    sink.append(MAIN_OUTPUT, &rows, &coords).await?;
    sink.advance(of.last().unwrap().0 + 1, None)?;
    sink.checkpoint().await
}

fn names(bigquery: &FakeBigQuery) -> Vec<(i64, String)> {
    let (rows, ambiguous) = bigquery.merged_rows(TABLE);
    assert_eq!(ambiguous, 0);
    let row = |row: &serde_json::Map<String, Value>| {
        (row["id"].as_i64().unwrap(), row["name"].as_str().unwrap().to_owned())
    };
    rows.iter().map(row).collect()
}

/// Whatever is sent again, and however late.
#[tokio::test]
async fn the_newest_change_of_a_key_holds() {
    let bigquery = FakeBigQuery::start();
    bigquery.create_dataset("shop.lake");
    let tables = store(&bigquery, Some(making()));
    tables.prepare_table("orders", MAIN_OUTPUT, &own_schema(), false).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut sink = sink(tables, &folder, false).await;
    bigquery.plan(Call::Append, Effect::LoseReply);
    let first = [(0, 1, "a", "UPSERT"), (1, 2, "b", "UPSERT"), (2, 1, "c", "UPSERT"), (3, 2, "", "DELETE")];
    hand_over(&mut sink, &first).await.unwrap();
    assert_eq!(names(&bigquery), [(1, "c".to_owned())]);
    bigquery.plan(Call::Append, Effect::Break);
    hand_over(&mut sink, &[(16, 1, "d", "UPSERT"), (17, 2, "e", "UPSERT")]).await.unwrap();
    // 0/10/0 is above 0/9/0, though its text is not.
    assert_eq!(names(&bigquery), [(1, "d".to_owned()), (2, "e".to_owned())]);
}

#[tokio::test]
async fn changes_that_bigquery_refuses_are_dead_letters() {
    let bigquery = FakeBigQuery::start();
    bigquery.create_table_with_key(TABLE, table_columns(&own_schema()).unwrap(), &["id"]);
    bigquery.refuse_rows("id", &[2], "no such customer");
    let folder = tempfile::tempdir().unwrap();
    let mut sink = sink(store(&bigquery, None), &folder, true).await;
    let of = [(0, 1, "a", "UPSERT"), (1, 2, "b", "UPSERT"), (2, 3, "c", "UPSERT")];
    let Checkpoint::Published(published) = hand_over(&mut sink, &of).await.unwrap() else { panic!() };
    assert_eq!((published.rows, published.rejects), (2, 1));
    assert_eq!(names(&bigquery), [(1, "a".to_owned()), (3, "c".to_owned())]);
}

/// More rows than a request has room for.
#[tokio::test]
async fn large_rows_go_in_several_requests() {
    let bigquery = FakeBigQuery::start();
    bigquery.create_table_with_key(TABLE, table_columns(&own_schema()).unwrap(), &["id"]);
    let folder = tempfile::tempdir().unwrap();
    let mut sink = sink(store(&bigquery, None), &folder, false).await;
    let name = "x".repeat(3 << 20);
    let of: Vec<_> = (0..7).map(|offset| (offset, offset, name.as_str(), "UPSERT")).collect();
    hand_over(&mut sink, &of).await.unwrap();
    assert_eq!(names(&bigquery).len(), 7);
    let name = "x".repeat(9 << 20);
    let (rows, _) = changes(&[(7, 7, &name, "UPSERT"), (8, 8, "small", "UPSERT")]);
    let found = misfits(&rows, true).unwrap();
    assert_eq!(
        found.iter().map(|misfit| (misfit.row, misfit.code)).collect::<Vec<_>>(),
        [(0, "ROW_TOO_LARGE")]
    );
}

/// Each type that a column has, as protobuf says it.
#[tokio::test]
async fn values_of_every_type_arrive() {
    let list = |nulls: bool| {
        let mut list = ListBuilder::new(Int64Builder::new());
        list.append_value([Some(1), Some(-2)]);
        if nulls {
            list.append_null()
        } else {
            list.append_value([])
        };
        Arc::new(list.finish()) as ArrayRef
    };
    let members = Fields::from(vec![
        Field::new("sku", DataType::Utf8, true),
        Field::new("at", DataType::Time64(arrow_schema::TimeUnit::Microsecond), true),
    ]);
    let line = StructArray::new(
        members,
        vec![
            Arc::new(StringArray::from(vec![Some("s-1"), None])),
            Arc::new(Time64MicrosecondArray::from(vec![Some(3_600_000_001), None])),
        ],
        Some(vec![true, false].into()),
    );
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(vec![1, 2]))),
        ("yes", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("many", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None]))),
        ("real", Arc::new(Float64Array::from(vec![Some(-0.5), None]))),
        ("raw", Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\0\xff"), None]))),
        ("day", Arc::new(Date32Array::from(vec![Some(-1), None]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), None]).with_timezone("UTC"))),
        ("local", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_500_000), None]))),
        (
            "price",
            Arc::new(
                Decimal128Array::from(vec![Some(-1_205), None]).with_precision_and_scale(18, 2).unwrap(),
            ),
        ),
        (
            "huge",
            Arc::new(
                Decimal256Array::from(vec![Some(i256::from_i128(i128::MAX)), None])
                    .with_precision_and_scale(60, 30)
                    .unwrap(),
            ),
        ),
        ("line", Arc::new(line)),
        ("numbers", list(false)),
    ];
    // A name that no column has there.
    columns.push(("Zahl 1", Arc::new(Int64Array::from(vec![Some(7), None]))));
    let own = RecordBatch::try_from_iter_with_nullable(
        columns.iter().cloned().map(|(name, array)| (name, array, name != "id")),
    )
    .unwrap();
    let mut all = columns;
    all.push((CHANGE_TYPE, Arc::new(StringArray::from(vec!["UPSERT", "UPSERT"]))));
    all.push((CHANGE_SEQUENCE_NUMBER, Arc::new(StringArray::from(vec!["0/0/0", "0/1/0"]))));
    let rows =
        RecordBatch::try_from_iter_with_nullable(all.into_iter().map(|(name, array)| {
            (name, array, !["id", CHANGE_TYPE, CHANGE_SEQUENCE_NUMBER].contains(&name))
        }))
        .unwrap();
    let bigquery = FakeBigQuery::start();
    bigquery.create_dataset("shop.lake");
    let tables = store(&bigquery, Some(making()));
    tables.prepare_table("orders", MAIN_OUTPUT, &own.schema(), false).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut sink = sink(tables, &folder, false).await;
    let coords: Vec<_> = (0..2).map(|offset| RowCoord { offset, sub: 0, timestamp: None }).collect();
    sink.append(MAIN_OUTPUT, &rows, &coords).await.unwrap();
    sink.advance(2, None).unwrap();
    sink.checkpoint().await.unwrap();
    let (found, _) = bigquery.merged_rows(TABLE);
    let expected = json!([
        {
            "id": 1, "yes": true, "many": "18446744073709551615", "real": -0.5, "raw": "AP8=", "day": "1969-12-31",
            "at": "1969-12-31T23:59:59.999999Z", "local": "1970-01-01T00:00:01.5", "price": "-12.05",
            "huge": "170141183.460469231731687303715884105727", "line": {"sku": "s-1", "at": "01:00:00.000001"},
            "numbers": [1, -2], "Zahl_1": 7
        },
        {
            "id": 2, "yes": null, "many": null, "real": null, "raw": null, "day": null, "at": null, "local": null,
            "price": null, "huge": null, "line": null, "numbers": [], "Zahl_1": null
        }
    ]);
    assert_eq!(serde_json::to_value(found).unwrap(), expected);
}

/// Rows could not be told apart.
#[tokio::test]
async fn a_table_needs_the_primary_key() {
    let bigquery = FakeBigQuery::start();
    let check = async |options: Option<TableOptions>| {
        let store = store(&bigquery, options);
        store.prepare_table("orders", MAIN_OUTPUT, &own_schema(), false).await
    };
    let missing = check(None).await.unwrap_err().to_string();
    let statement = "CREATE TABLE `shop.lake.orders` (`id` INT64 NOT NULL, `name` STRING, PRIMARY KEY (`id`) NOT ENFORCED);";
    assert!(missing.contains(statement), "{missing}");
    for options in [None, Some(making())] {
        bigquery.create_table(TABLE, table_columns(&own_schema()).unwrap());
        let none = check(options.clone()).await.unwrap_err().to_string();
        assert!(none.contains("has no primary key"), "{none}");
        assert!(
            none.contains("ALTER TABLE `shop.lake.orders` ADD PRIMARY KEY (`id`) NOT ENFORCED;"),
            "{none}"
        );
        bigquery.create_table_with_key(TABLE, table_columns(&own_schema()).unwrap(), &["name"]);
        let other = check(options.clone()).await.unwrap_err().to_string();
        assert!(other.contains("another primary key (name)"), "{other}");
        bigquery.create_table_with_key(TABLE, table_columns(&own_schema()).unwrap(), &["ID"]);
        assert_eq!(check(options).await.unwrap(), TableNote::Fits);
    }
}

/// Every deletion would be refused: it has the key alone.
#[tokio::test]
async fn a_table_that_wants_more_than_the_key_is_refused() {
    let bigquery = FakeBigQuery::start();
    let mut columns = table_columns(&own_schema()).unwrap();
    columns[1].required = true;
    bigquery.create_table_with_key(TABLE, columns, &["id"]);
    for options in [None, Some(making())] {
        let tables = store(&bigquery, options);
        let error = tables.prepare_table("orders", MAIN_OUTPUT, &own_schema(), false).await.unwrap_err();
        assert!(error.to_string().contains("ALTER COLUMN `name` DROP NOT NULL;"), "{error}");
    }
    let options = TableOptions { relax_columns: true, ..making() };
    let tables = store(&bigquery, Some(options));
    tables.prepare_table("orders", MAIN_OUTPUT, &own_schema(), false).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut sink = sink(tables, &folder, false).await;
    hand_over(&mut sink, &[(0, 1, "a", "UPSERT"), (1, 1, "", "DELETE")]).await.unwrap();
    assert_eq!(names(&bigquery), []);
}

#[tokio::test]
async fn a_table_is_made_with_its_key_and_staleness() {
    let bigquery = FakeBigQuery::start();
    bigquery.create_dataset("shop.lake");
    let options = TableOptions { max_staleness: Some(Duration::from_secs(5_400)), ..making() };
    let tables = store(&bigquery, Some(options));
    let dry = tables.prepare_table("orders", MAIN_OUTPUT, &own_schema(), true).await.unwrap();
    let TableNote::New(statement) = dry else { panic!("{dry:?}") };
    assert!(statement.contains("PRIMARY KEY (`id`) NOT ENFORCED)"), "{statement}");
    assert!(statement.contains("OPTIONS (max_staleness = INTERVAL '1:30:0' HOUR TO SECOND);"), "{statement}");
    tables.prepare_table("orders", MAIN_OUTPUT, &own_schema(), false).await.unwrap();
    let table = bigquery.table(TABLE);
    assert_eq!(table["tableConstraints"], json!({"primaryKey": {"columns": ["id"]}}));
    assert_eq!(table["maxStaleness"], "0-0 0 1:30:0");
    let schema = Schema::new(vec![Field::new("id", DataType::Float64, false)]);
    let wrong = tables.prepare_table("orders", MAIN_OUTPUT, &schema, true).await.unwrap_err().to_string();
    assert!(wrong.contains("column `id` is FLOAT64, which no primary key has"), "{wrong}");
}
