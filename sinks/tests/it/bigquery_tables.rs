//! Tables of BigQuery that are made and changed for their rows, by the in-process fake.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields, Schema, TimeUnit};
use gristmill_sinks::fake_bigquery::{Call, Effect, FakeBigQuery};
use gristmill_sinks::*;
use serde_json::{Value, json};
use tonic::Code;

const TABLE: &str = "shop.lake.orders";

fn store(bigquery: &FakeBigQuery, tables: TableOptions) -> BigQueryStore {
    BigQueryStore::new(BigQueryConfig {
        mode: Mode::ExactlyOnce,
        project: "shop".into(),
        dataset: "lake".into(),
        table: "{topic}".into(),
        primary_key: Vec::new(),
        tables: Some(tables),
        endpoint: Some(bigquery.url().into()),
        rest_endpoint: Some(bigquery.rest_url().into()),
        gzip: false,
        credentials_file: None,
    })
    .unwrap()
}

fn adding() -> TableOptions {
    TableOptions { add_columns: true, ..TableOptions::default() }
}

fn schema(fields: &[(&str, DataType, bool)]) -> Schema {
    let fields =
        fields.iter().map(|(name, data_type, nullable)| Field::new(*name, data_type.clone(), *nullable));
    Schema::new(fields.collect::<Vec<_>>())
}

fn orders() -> Schema {
    let customer = Fields::from(vec![Field::new("email", DataType::Utf8, true)]);
    schema(&[
        ("id", DataType::Int64, false),
        ("at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
        ("customer", DataType::Struct(customer), true),
        ("tags", DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))), true),
    ])
}

async fn prepare(store: &BigQueryStore, rows: &Schema) -> Result<TableNote> {
    store.prepare_table("orders", MAIN_OUTPUT, rows, false).await
}

/// With all that is said of it; who looks before sees the statement and finds nothing made.
#[tokio::test]
async fn a_table_that_is_missing_is_made_as_the_options_say() {
    let bigquery = FakeBigQuery::start();
    let options = TableOptions {
        partition: Some(Partitioning {
            column: Some("at".into()),
            by: Granularity::Day,
            expire: Some(Duration::from_secs(90 * 86_400)),
            require_filter: true,
        }),
        cluster: vec!["id".into()],
        labels: [("team".to_owned(), "shop".to_owned())].into(),
        kms_key: Some("projects/shop/locations/eu/keyRings/k/cryptoKeys/c".into()),
        dataset_location: Some("EU".into()),
        ..adding()
    };
    let store = store(&bigquery, options);
    let ddl = "CREATE TABLE `shop.lake.orders` (`id` INT64 NOT NULL, `at` TIMESTAMP, `customer` STRUCT<`email` STRING>, `tags` \
               ARRAY<STRING>) PARTITION BY TIMESTAMP_TRUNC(`at`, DAY) CLUSTER BY `id` OPTIONS (partition_expiration_days = 90, \
               require_partition_filter = TRUE, labels = [(\"team\", \"shop\")], kms_key_name = \
               \"projects/shop/locations/eu/keyRings/k/cryptoKeys/c\");";
    let planned = store.prepare_table("orders", MAIN_OUTPUT, &orders(), true).await.unwrap();
    assert_eq!(planned, TableNote::New(ddl.into()));
    assert_eq!(bigquery.table(TABLE), Value::Null);

    assert_eq!(prepare(&store, &orders()).await.unwrap(), planned);
    let mut made = bigquery.table(TABLE);
    made.as_object_mut().unwrap().remove("etag");
    let field =
        |name: &str, data_type: &str, mode: &str| json!({"name": name, "type": data_type, "mode": mode});
    let mut customer = field("customer", "RECORD", "NULLABLE");
    customer["fields"] = json!([field("email", "STRING", "NULLABLE")]);
    let expected = json!({
        "tableReference": {"projectId": "shop", "datasetId": "lake", "tableId": "orders"},
        "schema": {"fields": [
            field("id", "INTEGER", "REQUIRED"), field("at", "TIMESTAMP", "NULLABLE"), customer, field("tags", "STRING", "REPEATED"),
        ]},
        "timePartitioning": {"type": "DAY", "field": "at", "expirationMs": "7776000000"},
        "requirePartitionFilter": true,
        "clustering": {"fields": ["id"]},
        "labels": {"team": "shop"},
        "encryptionConfiguration": {"kmsKeyName": "projects/shop/locations/eu/keyRings/k/cryptoKeys/c"},
    });
    assert_eq!(made, expected);
    assert_eq!(prepare(&store, &orders()).await.unwrap(), TableNote::Fits);
}

/// Columns and members of structs are added as ones that may be null, what is said of the others stays, and nothing is taken away.
#[tokio::test]
async fn columns_that_a_table_lacks_are_added_and_the_others_stay_as_they_are() {
    let bigquery = FakeBigQuery::start();
    bigquery.create_dataset("shop.lake");
    let adding = store(&bigquery, adding());
    let old = schema(&[
        ("id", DataType::Int64, false),
        ("customer", DataType::Struct(Fields::from(vec![Field::new("email", DataType::Utf8, false)])), true),
        ("gone", DataType::Utf8, true),
    ]);
    prepare(&adding, &old).await.unwrap();
    let customer = Fields::from(vec![
        Field::new("email", DataType::Utf8, true),
        Field::new("name", DataType::Utf8, false),
    ]);
    let new = schema(&[
        ("ID", DataType::Int64, true),
        ("customer", DataType::Struct(customer), true),
        ("note", DataType::Utf8, false),
    ]);

    // Where it is not to be done, the statements are told.
    let error = prepare(&store(&bigquery, TableOptions::default()), &new).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let text = error.to_string();
    assert!(
        text.ends_with(
            "lacks columns of the rows: -- in shop.lake.orders, field `name` of type STRING in customer; ALTER TABLE \
             `shop.lake.orders` ADD COLUMN `note` STRING;"
        ),
        "{text}"
    );

    // Replies are lost, and somebody else is faster once.
    for _ in 0..2 {
        bigquery.plan(Call::Rest, Effect::Refuse(Code::Unavailable));
    }
    bigquery.plan(Call::Rest, Effect::LoseReply);
    bigquery.lag(2);
    let TableNote::Changes(statements) = prepare(&adding, &new).await.unwrap() else { panic!("it changes") };
    assert!(statements.contains("ADD COLUMN `note` STRING"), "{statements}");
    let table = bigquery.table(TABLE);
    let fields = table["schema"]["fields"].as_array().unwrap();
    let names: Vec<&str> = fields.iter().map(|field| field["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["id", "customer", "gone", "note"]);
    assert_eq!(fields[3]["mode"], "NULLABLE");
    assert_eq!(
        (&fields[0]["mode"], &fields[1]["fields"][0]["mode"]),
        (&json!("REQUIRED"), &json!("REQUIRED"))
    );
    assert_eq!(fields[1]["fields"][1], json!({"name": "name", "type": "STRING", "mode": "NULLABLE"}));
    assert_eq!(prepare(&adding, &new).await.unwrap(), TableNote::Fits);

    // Only where it is asked for do columns lose what they want.
    let relaxing =
        store(&bigquery, TableOptions { relax_columns: true, add_columns: true, ..TableOptions::default() });
    let without_id = schema(&[("note", DataType::Utf8, false)]);
    let text = prepare(&adding, &without_id).await.unwrap_err().to_string();
    assert!(
        text.ends_with(
            "that the rows do not have: ALTER TABLE `shop.lake.orders` ALTER COLUMN `id` DROP NOT NULL;"
        ),
        "{text}"
    );
    prepare(&relaxing, &new).await.unwrap();
    let table = bigquery.table(TABLE);
    let fields = &table["schema"]["fields"];
    assert_eq!(
        (&fields[0]["mode"], &fields[1]["fields"][0]["mode"]),
        (&json!("NULLABLE"), &json!("NULLABLE"))
    );
    prepare(&adding, &without_id).await.unwrap();
}

/// A column of another type is never coerced, whatever the options say.
#[tokio::test]
async fn a_column_of_another_type_is_refused() {
    let bigquery = FakeBigQuery::start();
    bigquery.create_dataset("shop.lake");
    let store = store(&bigquery, TableOptions { relax_columns: true, ..adding() });
    let local = DataType::Timestamp(TimeUnit::Microsecond, None);
    let inner = DataType::Struct(Fields::from(vec![Field::new("n", DataType::Int64, true)]));
    prepare(&store, &schema(&[("a", DataType::Utf8, true), ("at", local, true), ("s", inner, true)]))
        .await
        .unwrap();
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let inner = DataType::Struct(Fields::from(vec![Field::new("n", DataType::Float64, true)]));
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    let rows = schema(&[("a", list, true), ("at", utc, true), ("s", inner, true)]);
    let error = prepare(&store, &rows).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let text = error.to_string();
    for part in [
        "column a is STRING in the table and ARRAY<STRING> in the rows",
        "column at is DATETIME in the table and TIMESTAMP in the rows",
        "column s.n is INT64 in the table and FLOAT64 in the rows",
    ] {
        assert!(text.contains(part), "{text}");
    }
    // The same without the REST interface.
    let plain = BigQueryConfig {
        mode: Mode::ExactlyOnce,
        project: "shop".into(),
        dataset: "lake".into(),
        table: "{topic}".into(),
        primary_key: Vec::new(),
        tables: None,
        endpoint: Some(bigquery.url().into()),
        rest_endpoint: None,
        gzip: false,
        credentials_file: None,
    };
    let text = prepare(&BigQueryStore::new(plain).unwrap(), &rows).await.unwrap_err().to_string();
    assert!(text.contains("column s.n is INT64 in the table"), "{text}");
}

#[tokio::test]
async fn what_cannot_be_made_says_why() {
    let bigquery = FakeBigQuery::start();
    let error = prepare(&store(&bigquery, adding()), &orders()).await.unwrap_err().to_string();
    assert!(
        error.contains("there is no dataset shop.lake") && error.contains("CREATE SCHEMA `shop.lake`"),
        "{error}"
    );
    let wrong = |column: &str, by| {
        let partition = Partitioning { column: Some(column.into()), by, ..Partitioning::default() };
        TableOptions { partition: Some(partition), ..adding() }
    };
    let clustered =
        |names: &[&str]| TableOptions { cluster: names.iter().map(|n| (*n).into()).collect(), ..adding() };
    for (options, why) in [
        (wrong("nothing", Granularity::Day), "there is no column `nothing` to partition by"),
        (wrong("id", Granularity::Day), "column `id` is INT64, and tables are partitioned by"),
        (clustered(&["tags"]), "column `tags` is ARRAY<STRING>, by which no table is clustered"),
        (clustered(&["id", "id", "id", "id", "id"]), "by 4 columns at most"),
    ] {
        let error = prepare(&store(&bigquery, options), &orders()).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

/// A table that was made or changed is shown late by the storage interface, and some of its ends later still: rows wait.
#[tokio::test]
async fn rows_wait_until_bigquery_knows_the_columns() {
    let bigquery = FakeBigQuery::start();
    bigquery.create_dataset("shop.lake");
    bigquery.lag(1);
    let store = Arc::new(store(&bigquery, adding()));
    let state = tempfile::tempdir().unwrap();
    let config = SinkConfig::builder(store.clone())
        .state(Arc::new(FolderStore::open(state.path()).unwrap()))
        .format(Format::BigQuery)
        .build()
        .unwrap();
    let id = PartitionId {
        pipeline: "orders".into(),
        cluster: "c".into(),
        topic: "orders".into(),
        topic_id: [7; 16],
        partition: 0,
    };
    let (mut sink, _) = PartitionSink::open(config, id, 0).await.unwrap();
    let name: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let fields = Fields::from(vec![Field::new("name", DataType::Utf8, false)]);
    let customer: ArrayRef = Arc::new(StructArray::new(fields, vec![name.clone()], None));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let batches = [
        RecordBatch::try_from_iter([("id", ids.clone())]).unwrap(),
        RecordBatch::try_from_iter([("id", ids.clone()), ("name", name)]).unwrap(),
        RecordBatch::try_from_iter([("id", ids), ("customer", customer)]).unwrap(),
    ];
    for (offset, batch) in batches.iter().enumerate() {
        prepare(&store, batch.schema_ref()).await.unwrap();
        for _ in 0..3 {
            bigquery.plan(Call::Append, Effect::ExtraFields);
        }
        let offset = offset as i64;
        sink.append(MAIN_OUTPUT, batch, &[RowCoord { offset, sub: 0, timestamp: None }]).await.unwrap();
        sink.advance(offset + 1, None).unwrap();
        sink.checkpoint_in_any_case().await.unwrap();
    }
    assert_eq!(bigquery.rows(TABLE).iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
}

/// A table that may hold nulls now, and one that was just made: an end that does not know yet is asked again.
#[tokio::test]
async fn an_end_that_lags_behind_a_change_is_asked_again() {
    let bigquery = FakeBigQuery::start();
    bigquery.create_dataset("shop.lake");
    let options = TableOptions { relax_columns: true, ..adding() };
    let tables = Arc::new(store(&bigquery, options));
    let state = tempfile::tempdir().unwrap();
    let config = SinkConfig::builder(tables.clone())
        .state(Arc::new(FolderStore::open(state.path()).unwrap()))
        .format(Format::BigQuery)
        .build()
        .unwrap();
    let id = PartitionId {
        pipeline: "orders".into(),
        cluster: "c".into(),
        topic: "orders".into(),
        topic_id: [7; 16],
        partition: 0,
    };
    let (mut sink, _) = PartitionSink::open(config, id, 0).await.unwrap();
    let mut offset = 0;
    let mut append = async |rows: RecordBatch| {
        let rows = sink.append(MAIN_OUTPUT, &rows, &[RowCoord { offset, sub: 0, timestamp: None }]).await;
        offset += 1;
        rows
    };
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let strict = RecordBatch::try_from_iter([("id", ids), ("name", names.clone())]).unwrap();
    prepare(&tables, &strict.schema()).await.unwrap();
    // It was made, and this end has not heard of it.
    bigquery.hide(TABLE, 1);
    append(strict).await.unwrap();
    // Relaxed, and shown as it was for a while.
    bigquery.lag(2);
    let without = RecordBatch::try_from_iter([("name", names)]).unwrap();
    prepare(&tables, &without.schema()).await.unwrap();
    assert_eq!(bigquery.table(TABLE)["schema"]["fields"][0]["mode"], "NULLABLE");
    append(without).await.unwrap();
    // A project that is not there is no quarrel about a table.
    let nowhere = BigQueryConfig {
        mode: Mode::ExactlyOnce,
        project: "shopp".into(),
        dataset: "lake".into(),
        table: "{topic}".into(),
        primary_key: Vec::new(),
        tables: Some(TableOptions { dataset_location: Some("EU".into()), ..adding() }),
        endpoint: Some(bigquery.url().into()),
        rest_endpoint: Some(bigquery.rest_url().into()),
        gzip: false,
        credentials_file: None,
    };
    bigquery.create_project("shop");
    let nowhere = BigQueryStore::new(nowhere).unwrap();
    let error = prepare(&nowhere, &orders()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("dataset lake of BigQuery cannot be made: "), "{error}");
}
