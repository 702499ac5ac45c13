//! Tables of BigQuery that are made and changed for their rows, by the in-process fake.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields, Schema, TimeUnit};
use gristmill_sinks::fake_bigquery::{Call, Effect, FakeBigQuery};
use gristmill_sinks::*;
use serde_json::{Value, json};
use tonic::Code;

const TABLE: &str = "shop.lake.orders";

fn config(bigquery: &FakeBigQuery, tables: Option<TableOptions>) -> BigQueryConfig {
    BigQueryConfig {
        mode: Mode::ExactlyOnce,
        project: "shop".into(),
        dataset: "lake".into(),
        table: TableTemplate::parse("{topic}").unwrap(),
        streams_per_second: 1_000,
        max_tables: 3,
        primary_key: Vec::new(),
        tables,
        endpoint: Some(bigquery.url().into()),
        rest_endpoint: Some(bigquery.rest_url().into()),
        gzip: false,
        credentials_file: None,
    }
}

fn store(bigquery: &FakeBigQuery, tables: TableOptions) -> BigQueryStore {
    BigQueryStore::new(config(bigquery, Some(tables))).unwrap()
}

/// A partition that is written to those tables.
struct Partition {
    sink: PartitionSink,
    offset: i64,
    config: SinkConfig,
    folder: tempfile::TempDir,
}

impl Partition {
    async fn of(store: Arc<BigQueryStore>, directories: Option<DirectoryTemplate>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = Arc::new(FolderStore::open(folder.path()).unwrap());
        let mut config = SinkConfig::builder(store).state(state.clone()).format(Format::BigQuery);
        if let Some(directories) = directories {
            config = config.directories(directories);
        }
        let config = config.dead_letters(Arc::new(FileDeadLetters::new(state, "letters").unwrap()));
        let config = config.build().unwrap();
        let id = PartitionId {
            pipeline: "orders".into(),
            cluster: "c".into(),
            topic: "orders".into(),
            topic_id: [7; 16],
            partition: 0,
        };
        let (sink, _) = PartitionSink::open(config.clone(), id, 0).await.unwrap();
        Partition { sink, offset: 0, config, folder }
    }

    async fn append(&mut self, rows: &RecordBatch) -> Result<()> {
        let coords = (0..rows.num_rows() as i64)
            .map(|row| RowCoord { offset: self.offset + row, sub: 0, timestamp: None })
            .collect::<Vec<_>>();
        self.offset += rows.num_rows() as i64;
        self.sink.append(MAIN_OUTPUT, rows, &coords).await?;
        self.sink.advance(self.offset, None)
    }

    async fn publish(&mut self) {
        let published = self.sink.checkpoint_in_any_case().await.unwrap();
        assert!(matches!(published, Checkpoint::Published(_)), "{published:?}");
    }

    /// Offsets, codes and messages.
    async fn letters(&self) -> Vec<(i64, String, String)> {
        let ledger = list_ledgers(&self.config).await.unwrap().remove(0);
        let mut letters = Vec::new();
        for entry in read_entries(&self.config, &ledger, 0, 100).await.unwrap() {
            letters.extend(dead_letters_of(&self.config, &entry).await.unwrap());
        }
        assert!(self.folder.path().join("letters").exists() || letters.is_empty());
        letters.into_iter().map(|letter| (letter.offset, letter.code, letter.message)).collect()
    }
}

fn adding() -> TableOptions {
    TableOptions { create: true, new_columns: NewColumns::Add, ..TableOptions::default() }
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
    let relaxing = store(
        &bigquery,
        TableOptions {
            relax_columns: true,
            create: true,
            new_columns: NewColumns::Add,
            ..TableOptions::default()
        },
    );
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
    let plain = BigQueryConfig { rest_endpoint: None, ..config(&bigquery, None) };
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
    let mut partition = Partition::of(store.clone(), None).await;
    let name: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let fields = Fields::from(vec![Field::new("name", DataType::Utf8, false)]);
    let customer: ArrayRef = Arc::new(StructArray::new(fields, vec![name.clone()], None));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let batches = [
        RecordBatch::try_from_iter([("id", ids.clone())]).unwrap(),
        RecordBatch::try_from_iter([("id", ids.clone()), ("name", name)]).unwrap(),
        RecordBatch::try_from_iter([("id", ids), ("customer", customer)]).unwrap(),
    ];
    for batch in &batches {
        prepare(&store, batch.schema_ref()).await.unwrap();
        for _ in 0..3 {
            bigquery.plan(Call::Append, Effect::ExtraFields);
        }
        partition.append(batch).await.unwrap();
        partition.publish().await;
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
    let mut partition = Partition::of(tables.clone(), None).await;
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let strict = RecordBatch::try_from_iter([("id", ids), ("name", names.clone())]).unwrap();
    prepare(&tables, &strict.schema()).await.unwrap();
    // It was made, and this end has not heard of it.
    bigquery.hide(TABLE, 1);
    partition.append(&strict).await.unwrap();
    // Relaxed, and shown as it was for a while.
    bigquery.lag(2);
    let without = RecordBatch::try_from_iter([("name", names)]).unwrap();
    prepare(&tables, &without.schema()).await.unwrap();
    assert_eq!(bigquery.table(TABLE)["schema"]["fields"][0]["mode"], "NULLABLE");
    partition.append(&without).await.unwrap();
    // A project that is not there is no quarrel about a table.
    let options = TableOptions { dataset_location: Some("EU".into()), ..adding() };
    let nowhere = BigQueryConfig { project: "shopp".into(), ..config(&bigquery, Some(options)) };
    bigquery.create_project("shop");
    let nowhere = BigQueryStore::new(nowhere).unwrap();
    let error = prepare(&nowhere, &orders()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("dataset lake of BigQuery cannot be made: "), "{error}");
}

fn batch(ids: &[i64], columns: &[(&str, &[Option<&str>])]) -> RecordBatch {
    let mut all: Vec<(&str, ArrayRef)> = vec![("id", Arc::new(Int64Array::from(ids.to_vec())))];
    all.extend(columns.iter().map(|(name, values)| {
        let values: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
        (*name, values)
    }));
    RecordBatch::try_from_iter_with_nullable(
        all.into_iter().map(|(name, values)| (name, values, name != "id")),
    )
    .unwrap()
}

/// In each table the ids, and what the column `note` has, if there is one.
fn found(bigquery: &FakeBigQuery, table: &str) -> Vec<(i64, Option<String>)> {
    let mut found = Vec::new();
    for rows in bigquery.rows(table) {
        let ids = rows.column_by_name("id").unwrap().as_primitive::<Int64Type>();
        for row in 0..rows.num_rows() {
            let note = rows.column_by_name("note").map(|notes| notes.as_string::<i32>());
            let note = note.filter(|notes| notes.is_valid(row)).map(|notes| notes.value(row).to_owned());
            found.push((ids.value(row), note));
        }
    }
    found.sort();
    found
}

/// What a table lacks is left out of its rows, or the rows that have a value there are dead letters; once it has the column, rows do.
#[tokio::test]
async fn columns_that_a_table_lacks_are_left_out_or_their_rows_refused() {
    for new_columns in [NewColumns::Ignore, NewColumns::Reject] {
        let bigquery = FakeBigQuery::start();
        bigquery.create_dataset("shop.lake");
        let before = batch(&[1], &[]);
        prepare(&store(&bigquery, adding()), &before.schema()).await.unwrap();
        let options = TableOptions { new_columns, ..TableOptions::default() };
        let tables = Arc::new(store(&bigquery, options));
        let rows = batch(&[1, 2, 3], &[("note", &[None, Some("new"), None])]);
        let rejects = new_columns == NewColumns::Reject;
        let note = TableNote::LeavesOut { columns: vec!["note".into()], rejects };
        assert_eq!(prepare(&tables, &rows.schema()).await.unwrap(), note);
        let mut partition = Partition::of(tables.clone(), None).await;
        partition.append(&rows).await.unwrap();
        partition.publish().await;
        let without = |ids: &[i64]| ids.iter().map(|id| (*id, None)).collect::<Vec<_>>();
        let (delivered, letters) = match rejects {
            true => (without(&[1, 3]), vec![1]),
            false => (without(&[1, 2, 3]), Vec::new()),
        };
        assert_eq!(found(&bigquery, TABLE), delivered);
        let refused = partition.letters().await;
        assert_eq!(refused.iter().map(|letter| letter.0).collect::<Vec<_>>(), letters);
        let why = "column note has a value, and the table does not have it";
        assert!(refused.iter().all(|letter| letter.1 == NEW_COLUMN && letter.2 == why), "{refused:?}");

        // All rows of an append, and of an entry.
        let all = batch(&[4], &[("note", &[Some("new")])]);
        partition.append(&all).await.unwrap();
        partition.publish().await;
        assert_eq!(found(&bigquery, TABLE).len(), if rejects { 2 } else { 4 });

        // Somebody adds the column: the next entry has it.
        prepare(&store(&bigquery, adding()), &rows.schema()).await.unwrap();
        partition.append(&batch(&[5], &[("note", &[Some("there")])])).await.unwrap();
        partition.publish().await;
        assert_eq!(found(&bigquery, TABLE).last().unwrap(), &(5, Some("there".into())));
    }

    // Whoever makes no tables says the statement.
    let bigquery = FakeBigQuery::start();
    bigquery.create_dataset("shop.lake");
    let options = TableOptions { create: false, ..adding() };
    let error = prepare(&store(&bigquery, options), &orders()).await.unwrap_err().to_string();
    assert!(error.contains("there is no table shop.lake.orders in BigQuery: CREATE TABLE"), "{error}");
}

/// Values of rows name tables, which are made when their first row comes, get columns that come later, and are no more than is allowed.
#[tokio::test]
async fn values_of_rows_part_them_into_tables() {
    let bigquery = FakeBigQuery::start();
    bigquery.create_dataset("shop.lake");
    let table = TableTemplate::parse("{topic}_{country}").unwrap();
    let directories = table.directories();
    let named = BigQueryConfig { table, ..config(&bigquery, Some(adding())) };
    let tables = Arc::new(BigQueryStore::new(named.clone()).unwrap());
    assert_eq!(tables.name_of("orders", MAIN_OUTPUT), "shop.lake.orders_{country}");
    let mut partition = Partition::of(tables, directories.clone()).await;
    let rows = batch(&[1, 2, 3, 4], &[("country", &[Some("DE"), None, Some("FR"), Some("DE")])]);
    partition.append(&rows).await.unwrap();
    partition.publish().await;
    let ids = |country: &str| -> Vec<i64> {
        let table = format!("shop.lake.orders_{country}");
        found(&bigquery, &table).into_iter().map(|(id, _)| id).collect()
    };
    assert_eq!((ids("DE"), ids("FR"), ids("null")), (vec![1, 4], vec![3], vec![2]));
    let columns = bigquery.table("shop.lake.orders_DE")["schema"]["fields"].as_array().unwrap().len();
    assert_eq!(columns, 2, "the column that names the table is in it");

    // A column comes; the interface shows it late.
    bigquery.lag(1);
    let rows = batch(&[5, 6], &[("country", &[Some("FR"), Some("FR")]), ("note", &[Some("x"), None])]);
    partition.append(&rows).await.unwrap();
    partition.publish().await;
    let notes = found(&bigquery, "shop.lake.orders_FR");
    assert_eq!(notes, [(3, None), (5, Some("x".into())), (6, None)]);

    let error = partition.append(&batch(&[7], &[("country", &[Some("IT")])])).await.unwrap_err().to_string();
    assert!(error.contains("rows name more than 3 tables, shop.lake.orders_IT is one more"), "{error}");

    // Without `tables` they have to be there.
    let tables = Arc::new(BigQueryStore::new(BigQueryConfig { tables: None, ..named }).unwrap());
    let mut partition = Partition::of(tables, directories).await;
    partition.append(&batch(&[8], &[("country", &[Some("DE")])])).await.unwrap();
    let error = partition.append(&batch(&[9], &[("country", &[Some("IT")])])).await.unwrap_err().to_string();
    assert!(error.contains("there is no table shop.lake.orders_IT in BigQuery: CREATE TABLE"), "{error}");
}

/// Tables that are there already have the key that changes need, are of one topic, and count.
#[tokio::test]
async fn tables_that_rows_name_are_made_sure_of_though_they_are_there() {
    let bigquery = FakeBigQuery::start();
    let table = TableTemplate::parse("{topic}_{country}").unwrap();
    let columns = |key: &[&str]| {
        let column =
            |name: &str| TableColumn { name: name.into(), data_type: String::new(), required: false };
        for country in ["DE", "FR", "IT", "eu_x"] {
            let name = format!("shop.lake.orders_{country}");
            bigquery.create_table_with_key(&name, ["id", "country"].map(column).to_vec(), key);
        }
    };
    let cdc = BigQueryConfig {
        mode: Mode::Cdc,
        primary_key: vec!["country".into(), "id".into()],
        table: table.clone(),
        max_tables: 2,
        ..config(&bigquery, None)
    };
    let rows = schema(&[
        ("id", DataType::Int64, true),
        ("country", DataType::Utf8, true),
        (CHANGE_TYPE, DataType::Utf8, false),
        (CHANGE_SEQUENCE_NUMBER, DataType::Utf8, false),
    ]);
    let store = BigQueryStore::new(cdc).unwrap();
    let stage = async |topic: &str, directory: &str| {
        let rows = RowsOf { topic, output: MAIN_OUTPUT, directory, schema: &rows };
        store.stage_rows("", rows).await.map(|_| ()).map_err(|error| error.to_string())
    };
    columns(&["id"]);
    let error = stage("orders", "DE").await.unwrap_err();
    assert!(error.contains("another primary key (id)"), "{error}");
    columns(&["id", "country"]);
    stage("orders", "DE").await.unwrap();
    stage("orders", "eu_x").await.unwrap();
    stage("orders", "DE").await.unwrap();
    let error = stage("orders_eu", "x").await.unwrap_err();
    assert!(
        error.contains("rows of orders and of orders_eu name the same table, shop.lake.orders_eu_x"),
        "{error}"
    );
    let error = stage("orders", "IT").await.unwrap_err();
    assert!(error.contains("rows name more than 2 tables, shop.lake.orders_IT is one more"), "{error}");
}
