//! Rows into tables of BigQuery, by the in-process fake of its Storage Write API.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::{
    ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use arrow_schema::{DataType, Field, Fields, Schema, TimeUnit};
use gristmill_sinks::fake_bigquery::{Call, Effect, FakeBigQuery};
use gristmill_sinks::*;
use tonic::Code;

const TABLE: &str = "shop.lake.orders";

fn rows(ids: std::ops::Range<i64>) -> RecordBatch {
    let names = StringArray::from_iter_values(ids.clone().map(|id| format!("order {id}")));
    let columns: [(&str, ArrayRef); 2] =
        [("id", Arc::new(Int64Array::from_iter_values(ids))), ("name", Arc::new(names))];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn columns() -> Vec<TableColumn> {
    table_columns(rows(0..1).schema_ref()).unwrap()
}

fn config(url: &str) -> BigQueryConfig {
    BigQueryConfig {
        project: "shop".into(),
        dataset: "lake".into(),
        table: "{topic}".into(),
        endpoint: Some(url.into()),
        credentials_file: None,
    }
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

struct Place {
    bigquery: FakeBigQuery,
    state: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let bigquery = FakeBigQuery::start();
        bigquery.create_table(TABLE, columns());
        Place { bigquery, state: tempfile::tempdir().unwrap() }
    }

    fn config(&self, failpoints: Failpoints) -> SinkConfig {
        let store = BigQueryStore::new(config(self.bigquery.url())).unwrap();
        SinkConfig::builder(Arc::new(store))
            .state(Arc::new(FolderStore::open(self.state.path()).unwrap()))
            .format(Format::BigQuery)
            .rotation(Rotation { age: Duration::from_millis(1), ..Rotation::default() })
            .retry(Retry { attempts: 3, first_delay: Duration::ZERO, max_delay: Duration::ZERO })
            .failpoints(failpoints)
            .build()
            .unwrap()
    }

    /// What a query sees of `id`, in order.
    fn ids(&self) -> Vec<i64> {
        let mut ids: Vec<i64> = Vec::new();
        for batch in self.bigquery.rows(TABLE) {
            let column = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
            ids.extend(column.values());
        }
        ids.sort_unstable();
        ids
    }
}

async fn hand_over(sink: &mut PartitionSink, ids: std::ops::Range<i64>) -> Result<Checkpoint> {
    let coords: Vec<RowCoord> =
        ids.clone().map(|offset| RowCoord { offset, sub: 0, timestamp: None }).collect();
    sink.tally(coords.len() as u64, 0);
    sink.append(MAIN_OUTPUT, &rows(ids.clone()), &coords).await?;
    sink.advance(ids.end, None)?;
    sink.checkpoint().await
}

/// Nothing is seen before the seal, everything once after it.
#[tokio::test]
async fn rows_are_in_the_table_once_their_entry_is_sealed() {
    let place = Place::new();
    let (mut sink, next) = PartitionSink::open(place.config(Failpoints::none()), id(), 0).await.unwrap();
    assert_eq!(next, 0);
    let coords: Vec<RowCoord> = (0..500).map(|offset| RowCoord { offset, sub: 0, timestamp: None }).collect();
    sink.append(MAIN_OUTPUT, &rows(0..500), &coords).await.unwrap();
    sink.advance(500, None).unwrap();
    assert!(place.ids().is_empty());
    let Checkpoint::Published(published) = sink.checkpoint().await.unwrap() else {
        panic!("it is published")
    };
    assert_eq!((published.next, published.rows), (500, 500));
    assert!(published.files[0].staged.starts_with("projects/shop/datasets/lake/tables/orders/streams/"));
    assert_eq!(place.ids(), (0..500).collect::<Vec<_>>());
    hand_over(&mut sink, 500..700).await.unwrap();
    assert_eq!(place.ids(), (0..700).collect::<Vec<_>>());
}

/// At each step of the protocol a writer dies, and the next one goes on where the ledger says; also where a server does not
/// say plainly that a stream is committed.
#[tokio::test]
async fn a_writer_that_dies_at_any_step_leaves_each_row_once() {
    let points = [Failpoint::AfterStage, Failpoint::AfterSeal, Failpoint::AfterMove, Failpoint::BeforeCommit];
    for (point, is_vague) in points.into_iter().flat_map(|point| [(point, false), (point, true)]) {
        let place = Place::new();
        if is_vague {
            place.bigquery.be_vague();
        }
        let failing = place.config(Failpoints::in_process(point, 2));
        let (mut sink, _) = PartitionSink::open(failing, id(), 0).await.unwrap();
        hand_over(&mut sink, 0..100).await.unwrap();
        let error = hand_over(&mut sink, 100..200).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Injected, "{point:?}: {error}");
        drop(sink);
        let (mut sink, next) = PartitionSink::open(place.config(Failpoints::none()), id(), 0).await.unwrap();
        assert_eq!(next, if point == Failpoint::AfterStage { 100 } else { 200 }, "{point:?}");
        hand_over(&mut sink, next..300).await.unwrap();
        assert_eq!(place.ids(), (0..300).collect::<Vec<_>>(), "{point:?}");
    }
}

/// Two owners of one partition: the one that seals first has its rows in the table, the other's stream is never committed.
#[tokio::test]
async fn of_two_writers_one_has_its_rows_in_the_table() {
    let place = Place::new();
    let (mut one, _) = PartitionSink::open(place.config(Failpoints::none()), id(), 0).await.unwrap();
    let (mut other, _) = PartitionSink::open(place.config(Failpoints::none()), id(), 0).await.unwrap();
    hand_over(&mut one, 0..100).await.unwrap();
    let adopted = hand_over(&mut other, 0..150).await.unwrap();
    assert_eq!(adopted, Checkpoint::Adopted { next: 100 });
    assert_eq!(place.ids(), (0..100).collect::<Vec<_>>());
    assert_eq!(place.bigquery.streams(), (2, 1));
    hand_over(&mut other, 100..150).await.unwrap();
    assert_eq!(place.ids(), (0..150).collect::<Vec<_>>());
}

/// Each kind of request fails once before its effect, and once after it.
#[tokio::test]
async fn lost_replies_and_passing_refusals_change_nothing() {
    for call in [Call::Create, Call::Append, Call::Finalize, Call::Commit] {
        for effect in [
            Effect::Refuse(Code::Unavailable),
            Effect::Refuse(Code::ResourceExhausted),
            Effect::Refuse(Code::Unauthenticated),
            Effect::LoseReply,
        ] {
            let place = Place::new();
            let (mut sink, _) = PartitionSink::open(place.config(Failpoints::none()), id(), 0).await.unwrap();
            hand_over(&mut sink, 0..100).await.unwrap();
            place.bigquery.plan(call, effect.clone());
            hand_over(&mut sink, 100..200).await.unwrap_or_else(|e| panic!("{call:?} {effect:?}: {e}"));
            assert_eq!(place.ids(), (0..200).collect::<Vec<_>>(), "{call:?} {effect:?}");
        }
    }
}

/// Many requests wait for their replies when the connection breaks: what was taken is not taken again.
#[tokio::test]
async fn a_connection_that_breaks_among_many_requests_is_made_again_where_it_was() {
    let place = Place::new();
    let (mut sink, _) = PartitionSink::open(place.config(Failpoints::none()), id(), 0).await.unwrap();
    for _ in 0..3 {
        place.bigquery.plan(Call::Append, Effect::LoseReply);
        place.bigquery.plan(Call::Append, Effect::Refuse(Code::Aborted));
    }
    for start in (0..20_000).step_by(100) {
        let coords: Vec<RowCoord> =
            (start..start + 100).map(|offset| RowCoord { offset, sub: 0, timestamp: None }).collect();
        sink.append(MAIN_OUTPUT, &rows(start..start + 100), &coords).await.unwrap();
        sink.advance(start + 100, None).unwrap();
    }
    sink.checkpoint().await.unwrap();
    assert_eq!(place.ids(), (0..20_000).collect::<Vec<_>>());
}

/// What BigQuery will never take stops the partition with its own words; nothing of the entry is seen.
#[tokio::test]
async fn what_is_refused_for_good_says_what_to_do() {
    let place = Place::new();
    place.bigquery.plan(Call::Append, Effect::BadRow(7, "name: too long".into()));
    let (mut sink, _) = PartitionSink::open(place.config(Failpoints::none()), id(), 0).await.unwrap();
    let error = hand_over(&mut sink, 0..100).await.unwrap_err().to_string();
    assert!(error.contains("refuses 1 of 100 rows") && error.contains("row 7: name: too long"), "{error}");
    assert!(place.ids().is_empty());

    // A sealed entry whose stream is gone is not passed over.
    let place = Place::new();
    let failing = place.config(Failpoints::in_process(Failpoint::AfterSeal, 1));
    let (mut sink, _) = PartitionSink::open(failing, id(), 0).await.unwrap();
    hand_over(&mut sink, 0..100).await.unwrap_err();
    place.bigquery.forget_streams();
    let error = PartitionSink::open(place.config(Failpoints::none()), id(), 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("never committed, and it is gone"), "{error}");

    // No table, and one without a column.
    let bigquery = FakeBigQuery::start();
    let store = BigQueryStore::new(config(bigquery.url())).unwrap();
    let check = async || store.check_table("orders", MAIN_OUTPUT, rows(0..1).schema_ref()).await;
    let error = check().await.unwrap_err().to_string();
    assert!(
        error.ends_with("CREATE TABLE `shop.lake.orders` (`id` INT64 NOT NULL, `name` STRING NOT NULL);"),
        "{error}"
    );
    bigquery.create_table(TABLE, columns()[..1].to_vec());
    let error = check().await.unwrap_err().to_string();
    assert!(error.ends_with("ALTER TABLE `shop.lake.orders` ADD COLUMN `name` STRING;"), "{error}");
    bigquery.create_table(TABLE, columns());
    check().await.unwrap();
}

#[test]
fn each_output_has_a_table_of_its_own() {
    let config = config("http://127.0.0.1:1");
    assert_eq!(config.table_of("shop.orders-v2", "main"), "shop_orders_v2");
    assert_eq!(config.table_of("orders", "high-value"), "orders_high_value");
    let config = BigQueryConfig { table: "raw_{output}_{topic}".into(), ..config };
    assert_eq!(config.table_of("orders", "main"), "raw_main_orders");
}

/// The table of types in the docs is made of this.
#[test]
fn types_are_bigquerys_or_refused() {
    let of = |data_type: DataType| {
        let schema = Schema::new(vec![Field::new("c", data_type, true)]);
        table_columns(&schema)
            .map(|columns| columns[0].data_type.clone())
            .map_err(|mistakes| mistakes.join("; "))
    };
    let utc = || Some("UTC".into());
    let list = |item: DataType| DataType::List(Arc::new(Field::new_list_field(item, true)));
    for (data_type, expected) in [
        (DataType::Boolean, "BOOL"),
        (DataType::UInt32, "INT64"),
        (DataType::UInt64, "NUMERIC"),
        (DataType::Float32, "FLOAT64"),
        (DataType::Decimal128(38, 9), "NUMERIC"),
        (DataType::Decimal128(38, 10), "BIGNUMERIC"),
        (DataType::Decimal128(30, 0), "BIGNUMERIC"),
        (DataType::Decimal128(5, -2), "NUMERIC"),
        (DataType::Utf8, "STRING"),
        (DataType::FixedSizeBinary(16), "BYTES"),
        (DataType::Date32, "DATE"),
        (DataType::Time32(TimeUnit::Millisecond), "TIME"),
        (DataType::Timestamp(TimeUnit::Millisecond, utc()), "TIMESTAMP"),
        (DataType::Timestamp(TimeUnit::Nanosecond, None), "DATETIME"),
        (list(DataType::Utf8), "ARRAY<STRING>"),
        (
            DataType::Struct(Fields::from(vec![Field::new("sku", DataType::Utf8, false)])),
            "STRUCT<`sku` STRING NOT NULL>",
        ),
    ] {
        assert_eq!(of(data_type.clone()).as_deref(), Ok(expected), "{data_type}");
    }
    for (data_type, why) in [
        (DataType::Decimal256(76, 39), "a BIGNUMERIC has 38 digits before the point"),
        (list(list(DataType::Utf8)), "a list of lists"),
        (DataType::Null, "which the BigQuery sink cannot take"),
    ] {
        let refused = of(data_type).unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
    let names = |names: &[&str]| {
        let fields: Vec<Field> = names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
        table_columns(&Schema::new(fields)).map(|_| ()).map_err(|mistakes| mistakes.join("; "))
    };
    names(&["id", "_kafka_offset", "Name"]).unwrap();
    assert!(names(&["1st"]).unwrap_err().contains("\"1st\" cannot be named so"));
    assert!(names(&["id", "ID"]).unwrap_err().contains("differs from another in the case"));
    assert!(names(&["_partitiontime"]).unwrap_err().contains("keeps for itself"));
}

/// Values come out as they went in; one that does not fit is an error and never another value.
#[tokio::test]
async fn values_are_kept_or_refused() {
    let place = Place::new();
    let amounts = Decimal128Array::from(vec![Some(12_345), None]).with_precision_and_scale(10, 2).unwrap();
    let times = TimestampNanosecondArray::from(vec![1_793_491_200_000_000_000, 0]).with_timezone("UTC");
    let batch = RecordBatch::try_from_iter([
        ("amount", Arc::new(amounts) as ArrayRef),
        ("at", Arc::new(times) as ArrayRef),
    ])
    .unwrap();
    place.bigquery.create_table(TABLE, table_columns(batch.schema_ref()).unwrap());
    let (mut sink, _) = PartitionSink::open(place.config(Failpoints::none()), id(), 0).await.unwrap();
    let coords: Vec<RowCoord> = (0..2).map(|offset| RowCoord { offset, sub: 0, timestamp: None }).collect();
    sink.append(MAIN_OUTPUT, &batch, &coords).await.unwrap();
    sink.advance(2, None).unwrap();
    sink.checkpoint().await.unwrap();
    let found = place.bigquery.rows(TABLE).remove(0);
    let amounts = found.column(0).as_any().downcast_ref::<Decimal128Array>().unwrap();
    assert_eq!((amounts.value_as_string(0).as_str(), amounts.scale()), ("123.450000000", 9));
    assert_eq!(found.column(0).null_count(), 1);
    assert_eq!(found.column(1).data_type(), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
}
