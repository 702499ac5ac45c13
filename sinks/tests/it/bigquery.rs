//! Rows into tables of BigQuery, by the in-process fake of its Storage Write API.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::builder::{
    Date32Builder, Float64Builder, ListBuilder, MapBuilder, StringBuilder, Time64MicrosecondBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal256Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, Date32Array, Decimal128Array, Decimal256Array, Int64Array, ListArray, RecordBatch,
    StringArray, StructArray, Time32MillisecondArray, TimestampMicrosecondArray, TimestampNanosecondArray,
    TimestampSecondArray,
};
use arrow_buffer::{OffsetBuffer, i256};
use arrow_schema::{DataType, Field, Fields, Schema, TimeUnit};
use gristmill_records::{RawBatch, RawBatchBuilder};
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
        mode: Mode::ExactlyOnce,
        project: "shop".into(),
        dataset: "lake".into(),
        table: TableTemplate::parse("{topic}").unwrap(),
        streams_per_second: 1_000,
        max_tables: 3,
        primary_key: Vec::new(),
        tables: None,
        endpoint: Some(url.into()),
        rest_endpoint: None,
        gzip: false,
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
        self.builder(Mode::ExactlyOnce, failpoints).build().unwrap()
    }

    fn with_dead_letters(&self, mode: Mode) -> SinkConfig {
        let store = Arc::new(FolderStore::open(self.state.path()).unwrap());
        let letters = FileDeadLetters::new(store, "letters").unwrap();
        self.builder(mode, Failpoints::none()).dead_letters(Arc::new(letters)).build().unwrap()
    }

    fn builder(&self, mode: Mode, failpoints: Failpoints) -> SinkConfigBuilder {
        let store = BigQueryStore::new(BigQueryConfig { mode, ..config(self.bigquery.url()) }).unwrap();
        SinkConfig::builder(Arc::new(store))
            .state(Arc::new(FolderStore::open(self.state.path().join("state")).unwrap()))
            .format(Format::BigQuery)
            .rotation(Rotation { age: Duration::from_millis(1), ..Rotation::default() })
            .retry(Retry { attempts: 3, first_delay: Duration::ZERO, max_delay: Duration::ZERO })
            .failpoints(failpoints)
    }

    /// Offset, code, message and value of each dead letter, in order.
    fn letters(&self) -> Vec<(i64, String, String, String)> {
        let mut letters = Vec::new();
        let mut folders = vec![self.state.path().join("letters")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                for line in std::fs::read_to_string(path).unwrap().lines() {
                    let letter: serde_json::Value = serde_json::from_str(line).unwrap();
                    let text = |name: &str| letter[name].as_str().unwrap_or_default().to_owned();
                    let value = letter["payload"]["value"].to_string();
                    letters.push((letter["offset"].as_i64().unwrap(), text("code"), text("message"), value));
                }
            }
        }
        letters.sort();
        letters
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

/// Each kind of request fails once before its effect, and once after it, and is answered late.
#[tokio::test]
async fn lost_and_late_replies_and_passing_refusals_change_nothing() {
    for call in [Call::Create, Call::Append, Call::Finalize, Call::Commit] {
        for effect in [
            Effect::Refuse(Code::Unavailable),
            Effect::Refuse(Code::ResourceExhausted),
            Effect::Refuse(Code::Unauthenticated),
            Effect::LoseReply,
            Effect::Slow(Duration::from_millis(300)),
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

/// Replies that come late cost no row and double none, though the connection breaks among them; and a schema that comes with one is no
/// trouble.
#[tokio::test]
async fn late_replies_are_waited_for() {
    let place = Place::new();
    let (mut sink, _) = PartitionSink::open(place.config(Failpoints::none()), id(), 0).await.unwrap();
    hand_over(&mut sink, 0..100).await.unwrap();
    for late in [300, 50, 700] {
        place.bigquery.plan(Call::Append, Effect::Slow(Duration::from_millis(late)));
    }
    for fault in [Effect::LoseReply, Effect::Slow(Duration::from_millis(200)), Effect::Break] {
        place.bigquery.plan(Call::Append, fault);
    }
    for start in (100..4_100).step_by(100) {
        let coords: Vec<RowCoord> =
            (start..start + 100).map(|offset| RowCoord { offset, sub: 0, timestamp: None }).collect();
        sink.append(MAIN_OUTPUT, &rows(start..start + 100), &coords).await.unwrap();
        sink.advance(start + 100, None).unwrap();
        if start == 2_000 {
            // Somebody adds a column, of which the replies tell.
            place.bigquery.add_column(TABLE, "more", "STRING");
        }
    }
    sink.checkpoint().await.unwrap();
    assert_eq!(place.ids(), (0..4_100).collect::<Vec<_>>());
}

/// The fake tells of a table's new columns in the reply to the first append behind the change, and once.
#[tokio::test]
async fn the_fake_tells_of_new_columns_as_the_api_does() {
    use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::{
        AppendRowsRequest, ArrowRecordBatch, ArrowSchema,
        append_rows_request::{ArrowData, Rows},
        big_query_write_client::BigQueryWriteClient,
    };
    let bigquery = FakeBigQuery::start();
    bigquery.create_table(TABLE, columns());
    let mut stream = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), rows(0..1).schema_ref()).unwrap();
    let schema = stream.get_ref().clone();
    stream.write(&rows(0..1)).unwrap();
    let batch = stream.get_ref()[schema.len()..].to_vec();
    let request = AppendRowsRequest {
        write_stream: "projects/shop/datasets/lake/tables/orders/streams/_default".into(),
        rows: Some(Rows::ArrowRows(ArrowData {
            writer_schema: Some(ArrowSchema { serialized_schema: schema.into() }),
            rows: Some(ArrowRecordBatch { serialized_record_batch: batch.into(), ..Default::default() }),
        })),
        ..Default::default()
    };
    let channel = tonic::transport::Endpoint::from_shared(bigquery.url().to_owned()).unwrap();
    let mut client = BigQueryWriteClient::new(channel.connect().await.unwrap());
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    requests.send(request.clone()).await.unwrap();
    let received = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut replies = client.append_rows(received).await.unwrap().into_inner();
    let mut told = async || {
        let reply = replies.message().await.unwrap().unwrap();
        reply.updated_schema.map(|schema| schema.fields.into_iter().map(|f| f.name).collect::<Vec<_>>())
    };
    assert_eq!(told().await, None);
    bigquery.add_column(TABLE, "more", "STRING");
    requests.send(request.clone()).await.unwrap();
    assert_eq!(told().await, Some(vec!["id".into(), "name".into(), "more".into()]));
    requests.send(request).await.unwrap();
    assert_eq!(told().await, None);
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
    place.bigquery.refuse_rows("id", &[7], "name: too long");
    let (mut sink, _) = PartitionSink::open(place.config(Failpoints::none()), id(), 0).await.unwrap();
    let error = hand_over(&mut sink, 0..100).await.unwrap_err().to_string();
    assert!(
        error.contains("the row of offset 7 is refused") && error.contains(": name: too long"),
        "{error}"
    );
    assert!(place.ids().is_empty());

    // A sealed entry whose stream is gone is not passed over.
    let place = Place::new();
    let failing = place.config(Failpoints::in_process(Failpoint::AfterSeal, 1));
    let (mut sink, _) = PartitionSink::open(failing, id(), 0).await.unwrap();
    hand_over(&mut sink, 0..100).await.unwrap_err();
    place.bigquery.forget_streams();
    let error = PartitionSink::open(place.config(Failpoints::none()), id(), 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed);
    assert!(error.to_string().contains("it is gone: whether it was committed nobody can say"), "{error}");
    // It is known that it was committed, or an operator goes on without it.
    let proven = async |published| {
        PartitionSink::open_published(place.config(Failpoints::none()), id(), 0, Some(published)).await
    };
    assert_eq!(proven(99).await.unwrap_err().kind(), ErrorKind::Changed);
    assert_eq!(proven(100).await.unwrap().1, 100);
    let place_config = place.config(Failpoints::none());
    let ledger = survey_ledgers(&place_config).await.unwrap().whole.remove(0);
    let note = Note { kind: "skip".into(), reason: "test".into(), by: "test".into() };
    assert_eq!(skip(&place_config, &ledger, 150, &note).await.unwrap_err().kind(), ErrorKind::Changed);
    let report = verify_ledger(&place_config, ledger.clone()).await.unwrap();
    assert_eq!((report.findings.len(), report.newest_streams), (0, 1));
    repair(&place_config, &report, true, &mut Repaired::default()).await.unwrap();
    // For good.
    assert_eq!(PartitionSink::open(place_config.clone(), id(), 0).await.unwrap().1, 100);
    let skipped = skip(&place_config, &ledger, 150, &note).await.unwrap();
    assert_eq!(skipped, Skip::Sealed { first: 100, next: 150 });

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
    let map = |value: DataType| {
        let entry =
            Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", value, true)]);
        DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entry), false)), false)
    };
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
        (map(DataType::Date32), "JSON"),
        (list(list(DataType::Utf8)), "JSON"),
        (list(map(DataType::Int64)), "JSON"),
        (
            DataType::Struct(Fields::from(vec![Field::new("tags", map(DataType::Int64), true)])),
            "STRUCT<`tags` JSON>",
        ),
        (
            DataType::Struct(Fields::from(vec![Field::new("sku", DataType::Utf8, false)])),
            "STRUCT<`sku` STRING NOT NULL>",
        ),
    ] {
        assert_eq!(of(data_type.clone()).as_deref(), Ok(expected), "{data_type}");
    }
    for (data_type, why) in [
        (DataType::Decimal256(76, 39), "a BIGNUMERIC has 38 digits before the point"),
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
    assert!(names(&["id", "ID"]).unwrap_err().contains("column \"ID\" would be named as another"));
    assert!(names(&["a-b", "a.b"]).unwrap_err().contains("and `_` alone: `a_b`"));
    assert!(names(&[&"x".repeat(301)]).unwrap_err().contains("more than the 300 letters"));
    let member = Fields::from(vec![Field::new("zip code", DataType::Utf8, true)]);
    let schema = Schema::new(vec![
        Field::new("1st-order", DataType::Utf8, true),
        Field::new("größe", DataType::Int64, true),
        Field::new("address", DataType::Struct(member), true),
    ]);
    let columns = table_columns(&schema).unwrap();
    let columns: Vec<_> = columns.iter().map(|c| (c.name.as_str(), c.data_type.as_str())).collect();
    let expected = [("_1st_order", "STRING"), ("gr__e", "INT64"), ("address", "STRUCT<`zip_code` STRING>")];
    assert_eq!(columns, expected);
    assert!(names(&["_partitiontime"]).unwrap_err().contains("keeps for itself"));
}

/// Values come out as they went in; one that does not fit is an error and never another value.
#[tokio::test]
async fn values_are_kept_or_refused() {
    let place = Place::new();
    // Digits that the emulator does not keep, and null lists that hide values, also inside of a struct.
    let large =
        Decimal256Array::from(vec![i256::from_string("12345678901234567890123456789012345678").unwrap(); 2])
            .with_precision_and_scale(50, 20)
            .unwrap();
    let hidden = |valid: [bool; 2]| {
        let field = Arc::new(Field::new_list_field(DataType::Int64, true));
        let values = Arc::new(Int64Array::from(vec![1, 2, 3]));
        ListArray::new(field, OffsetBuffer::from_lengths([1, 2]), values, Some(valid.to_vec().into()))
    };
    let member = Arc::new(Field::new("list", hidden([true; 2]).data_type().clone(), true));
    let inside = StructArray::from(vec![(member, Arc::new(hidden([false, true])) as ArrayRef)]);
    let amounts = Decimal128Array::from(vec![Some(12_345), None]).with_precision_and_scale(10, 2).unwrap();
    let times = TimestampNanosecondArray::from(vec![1_793_491_200_000_000_000, 0]).with_timezone("UTC");
    let batch = RecordBatch::try_from_iter([
        ("amount", Arc::new(amounts) as ArrayRef),
        ("at", Arc::new(times) as ArrayRef),
        ("large", Arc::new(large.clone()) as ArrayRef),
        ("list", Arc::new(hidden([true, false])) as ArrayRef),
        ("inside", Arc::new(inside) as ArrayRef),
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
    let kept = found.column(2).as_primitive::<Decimal256Type>();
    assert_eq!(
        (kept.value_as_string(1).as_str(), kept.scale()),
        ("123456789012345678.90123456789012345678000000000000000000", 38)
    );
    let lists = |array: &ArrayRef| {
        let lists = array.as_list::<i32>();
        assert_eq!(lists.null_count(), 0);
        lists
            .iter()
            .map(|list| list.unwrap().as_primitive::<Int64Type>().values().to_vec())
            .collect::<Vec<_>>()
    };
    assert_eq!(lists(found.column(3)), [vec![1], vec![]]);
    assert_eq!(lists(found.column(4).as_struct().column(0)), [vec![], vec![2, 3]]);
}

/// Records `record N`, at the offsets of their rows.
fn records(ids: std::ops::Range<i64>) -> RawBatch {
    let mut records = RawBatchBuilder::new("orders", 0);
    for id in ids {
        records.push(id, id, None, Some(format!("record {id}").as_bytes()), []).unwrap();
    }
    records.build()
}

/// Appends in pieces, as the consumer hands over, and leaves it open.
async fn append_with_records(
    sink: &mut PartitionSink,
    ids: std::ops::Range<i64>,
    piece: usize,
) -> Result<()> {
    for start in ids.clone().step_by(piece) {
        let part = start..(start + piece as i64).min(ids.end);
        let coords: Vec<RowCoord> =
            part.clone().map(|offset| RowCoord { offset, sub: 0, timestamp: None }).collect();
        sink.tally(coords.len() as u64, 0);
        sink.originate(records(part.clone()));
        sink.append(MAIN_OUTPUT, &rows(part.clone()), &coords).await?;
        sink.advance(part.end, None)?;
    }
    Ok(())
}

/// In one request and in many on their way, alone, neighbours and whole requests: each refused row is a dead letter with its
/// record and BigQuery's words, and each other row is in the table once.
#[tokio::test]
async fn rows_that_bigquery_refuses_are_dead_letters_and_the_others_are_delivered() {
    let bad: Vec<i64> = [0, 1, 49, 50, 777, 4_999].into_iter().chain(2_000..2_050).collect();
    for (mode, piece) in [(Mode::ExactlyOnce, 50), (Mode::ExactlyOnce, 5_000), (Mode::AtLeastOnce, 50)] {
        let place = Place::new();
        place.bigquery.refuse_rows("id", &bad, "id: not wanted");
        let config = place.with_dead_letters(mode);
        let (mut sink, _) = PartitionSink::open(config, id(), 0).await.unwrap();
        append_with_records(&mut sink, 0..5_000, piece).await.unwrap();
        let Checkpoint::Published(published) = sink.checkpoint().await.unwrap() else { panic!("published") };
        let expected: Vec<i64> = (0..5_000).filter(|id| !bad.contains(id)).collect();
        assert_eq!(place.ids(), expected, "{mode:?} {piece}");
        assert_eq!(published.rows, expected.len() as u64);
        assert_eq!(published.counts.written, published.rows);
        assert_eq!(published.counts.rejected.get(ROW_REFUSED), Some(&(bad.len() as u64)));
        let letters = place.letters();
        let mut sorted = bad.clone();
        sorted.sort_unstable();
        assert_eq!(letters.iter().map(|letter| letter.0).collect::<Vec<_>>(), sorted);
        for (offset, code, message, value) in letters {
            assert_eq!((code.as_str(), message.as_str()), (ROW_REFUSED, "id: not wanted"));
            assert!(value.contains(&format!("record {offset}")), "{value}");
        }
    }
    // A server that ends a connection whose request it refuses, whatever else is on its way there.
    let place = Place::new();
    place.bigquery.refuse_rows("id", &[3, 99], "no");
    place.bigquery.hang_up();
    let (mut sink, _) =
        PartitionSink::open(place.with_dead_letters(Mode::ExactlyOnce), id(), 0).await.unwrap();
    append_with_records(&mut sink, 0..100, 10).await.unwrap();
    sink.checkpoint().await.unwrap();
    assert_eq!(place.ids(), (0..100).filter(|id| ![3, 99].contains(id)).collect::<Vec<_>>());
    assert_eq!(place.letters().len(), 2);
    // Of which nothing is left, there is nothing to commit.
    let place = Place::new();
    place.bigquery.refuse_rows("id", &(0..10).collect::<Vec<_>>(), "no");
    let (mut sink, _) =
        PartitionSink::open(place.with_dead_letters(Mode::ExactlyOnce), id(), 0).await.unwrap();
    append_with_records(&mut sink, 0..10, 5).await.unwrap();
    let Checkpoint::Published(published) = sink.checkpoint().await.unwrap() else { panic!("published") };
    assert_eq!((published.files.len(), published.rejects, place.letters().len()), (0, 10, 10));
}

/// A request that was on its way on a broken connection could be taken at its old offset after those before it have moved: the
/// entry is begun again, and nothing is lost or doubled.
#[tokio::test]
async fn refused_rows_after_a_broken_connection_begin_the_entry_again() {
    begins_again(Effect::BreakAfter(9), true).await;
    for effect in [Effect::Break, Effect::ExtraFields, Effect::Refuse(Code::Unavailable)] {
        begins_again(effect, false).await;
    }
}

async fn begins_again(effect: Effect, is_sure: bool) {
    let place = Place::new();
    place.bigquery.refuse_rows("id", &[3], "no");
    place.bigquery.plan(Call::Append, effect);
    let config = place.with_dead_letters(Mode::ExactlyOnce);
    let (mut sink, _) = PartitionSink::open(config.clone(), id(), 0).await.unwrap();
    let failed = async {
        append_with_records(&mut sink, 0..500, 50).await?;
        sink.checkpoint().await
    };
    match failed.await {
        // Nothing behind the refused row was out yet.
        Ok(_) if !is_sure => {}
        Ok(_) => panic!("rows were moved whose earlier places are not known"),
        Err(error) => {
            assert!(error.to_string().contains("begun again with another stream"), "{error}");
            assert!(error.is_retryable(), "{error}");
            let (mut sink, next) = PartitionSink::open(config, id(), 0).await.unwrap();
            assert_eq!(next, 0);
            append_with_records(&mut sink, 0..500, 50).await.unwrap();
            sink.checkpoint().await.unwrap();
        }
    }
    assert_eq!(place.ids(), (0..500).filter(|id| *id != 3).collect::<Vec<_>>());
    assert_eq!(place.letters().len(), 1);
}

/// Rows are seen before their entry is sealed; who dies leaves some twice, and loses none.
#[tokio::test]
async fn at_least_once_rows_are_seen_at_once_and_none_is_lost() {
    let place = Place::new();
    let config = |failpoints| place.builder(Mode::AtLeastOnce, failpoints).build().unwrap();
    let failing = config(Failpoints::in_process(Failpoint::AfterStage, 2));
    let (mut sink, _) = PartitionSink::open(failing, id(), 0).await.unwrap();
    append_with_records(&mut sink, 0..100, 10).await.unwrap();
    for _ in 0..1_500 {
        if place.ids().len() == 100 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(place.ids(), (0..100).collect::<Vec<_>>());
    sink.checkpoint().await.unwrap();
    assert_eq!(place.ids(), (0..100).collect::<Vec<_>>());
    place.bigquery.plan(Call::Append, Effect::LoseReply);
    append_with_records(&mut sink, 100..200, 100).await.unwrap();
    assert_eq!(sink.checkpoint().await.unwrap_err().kind(), ErrorKind::Injected);
    let (mut sink, next) = PartitionSink::open(config(Failpoints::none()), id(), 0).await.unwrap();
    assert_eq!(next, 100);
    append_with_records(&mut sink, 100..200, 100).await.unwrap();
    sink.checkpoint().await.unwrap();
    // A lost reply, and a crash before the seal: each says the same rows once more.
    let expected: Vec<i64> = (0..100).chain((100..200).flat_map(|id| [id; 3])).collect();
    assert_eq!(place.ids(), expected);
    assert_eq!(place.bigquery.streams(), (0, 0));
}

/// Values that BigQuery has not, in columns, structs and lists, and rows beyond a request.
#[test]
fn rows_that_no_table_can_hold_are_found_before_they_are_sent() {
    let day = |day: i64| day * 86_400_000_000;
    let times = TimestampMicrosecondArray::from(vec![
        Some(day(-719_162)),
        Some(day(-719_162) - 1),
        Some(day(2_932_897) - 1),
        Some(day(2_932_897)),
        None,
    ]);
    let days = Date32Array::from(vec![Some(-719_162), Some(0), Some(2_932_896), Some(0), Some(2_932_897)]);
    let seconds = TimestampSecondArray::from(vec![0, 0, i64::MAX, 0, i64::MIN]);
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("at", Arc::new(times) as ArrayRef, true),
        ("day", Arc::new(days) as ArrayRef, true),
        ("s", Arc::new(seconds) as ArrayRef, true),
    ])
    .unwrap();
    let found = misfits(&batch, false).unwrap();
    let rows: Vec<(usize, &str)> = found.iter().map(|misfit| (misfit.row, misfit.code)).collect();
    assert_eq!(rows, [1, 2, 3, 4].map(|row| (row, "TIME_OUT_OF_RANGE")));
    assert!(found[0].why.starts_with("column at holds a time"), "{found:?}");
    assert!(found[3].why.starts_with("column day"), "{found:?}");

    // Inside of lists of structs; what lies behind a null list is not looked at.
    let inner = Date32Array::from(vec![0, 2_932_897, 0, 2_932_897]);
    let fields = Fields::from(vec![Field::new("day", DataType::Date32, false)]);
    let item = StructArray::new(fields.clone(), vec![Arc::new(inner)], None);
    let list = ListArray::new(
        Arc::new(Field::new_list_field(DataType::Struct(fields), true)),
        OffsetBuffer::from_lengths([1, 2, 1]),
        Arc::new(item),
        Some(vec![true, true, false].into()),
    );
    let names =
        ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("items", Arc::new(list) as ArrayRef, true),
        ("names", Arc::new(names) as ArrayRef, true),
    ])
    .unwrap();
    let found = misfits(&batch, false).unwrap();
    let rows: Vec<(usize, &str)> = found.iter().map(|misfit| (misfit.row, misfit.code)).collect();
    assert_eq!(rows, [(0, "NULL_IN_LIST"), (1, "TIME_OUT_OF_RANGE")]);
    assert!(found[1].why.contains("items.day"), "{found:?}");

    // What becomes JSON may hold nulls, and neither NaN nor the year 10000.
    let mut map = MapBuilder::new(None, StringBuilder::new(), Float64Builder::new());
    for value in [Some(0.5), Some(f64::NAN), None, Some(f64::INFINITY)] {
        map.keys().append_value("a");
        map.values().append_option(value);
        map.append(true).unwrap();
    }
    let mut days = ListBuilder::new(ListBuilder::new(Date32Builder::new()));
    for day in [Some(2_932_897), Some(2), None, Some(1)] {
        days.values().values().append_option(day);
        days.values().append(true);
        days.append(true);
    }
    let batch = RecordBatch::try_from_iter([
        ("map", Arc::new(map.finish()) as ArrayRef),
        ("days", Arc::new(days.finish()) as ArrayRef),
    ])
    .unwrap();
    let found = misfits(&batch, false).unwrap();
    let rows: Vec<(usize, &str)> = found.iter().map(|misfit| (misfit.row, misfit.code)).collect();
    assert_eq!(rows, [(0, "TIME_OUT_OF_RANGE"), (1, "NOT_IN_JSON"), (3, "NOT_IN_JSON")]);

    // A day ends; in JSON it would be a text about an error.
    let mut clocks = ListBuilder::new(ListBuilder::new(Time64MicrosecondBuilder::new()));
    for micros in [0, 86_399_999_999, 86_400_000_000, -1] {
        clocks.values().values().append_value(micros);
        clocks.values().append(true);
        clocks.append(true);
    }
    let plain = Time32MillisecondArray::from(vec![0, 86_400_000, 0, 0]);
    let batch = RecordBatch::try_from_iter([
        ("clocks", Arc::new(clocks.finish()) as ArrayRef),
        ("plain", Arc::new(plain) as ArrayRef),
    ])
    .unwrap();
    let found = misfits(&batch, false).unwrap();
    let rows: Vec<(usize, &str)> = found.iter().map(|misfit| (misfit.row, misfit.code)).collect();
    assert_eq!(rows, [1, 2, 3].map(|row| (row, "TIME_OUT_OF_RANGE")));

    // Six times as large as a text of JSON.
    let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for text in ["\u{1}".repeat(2 << 20), "x".repeat(2 << 20)] {
        map.keys().append_value("a");
        map.values().append_value(text);
        map.append(true).unwrap();
    }
    let batch = RecordBatch::try_from_iter([("map", Arc::new(map.finish()) as ArrayRef)]).unwrap();
    let found = misfits(&batch, false).unwrap();
    let rows: Vec<(usize, &str)> = found.iter().map(|misfit| (misfit.row, misfit.code)).collect();
    assert_eq!(rows, [(0, "ROW_TOO_LARGE")]);

    let texts =
        StringArray::from_iter_values(["a".into(), "b".repeat(10 << 20), "c".into(), "d".repeat(10 << 20)]);
    let batch = RecordBatch::try_from_iter([("text", Arc::new(texts) as ArrayRef)]).unwrap();
    let found = misfits(&batch, false).unwrap();
    let rows: Vec<(usize, &str)> = found.iter().map(|misfit| (misfit.row, misfit.code)).collect();
    assert_eq!(rows, [(1, "ROW_TOO_LARGE"), (3, "ROW_TOO_LARGE")]);
}

/// Google's front ends take so many requests on one connection, and let those beyond wait.
#[tokio::test]
async fn more_appends_are_open_than_one_connection_takes() {
    let bigquery = FakeBigQuery::start_with(60);
    bigquery.create_table(TABLE, columns());
    let state = tempfile::tempdir().unwrap();
    let store = Arc::new(BigQueryStore::new(config(bigquery.url())).unwrap());
    let mut sinks = Vec::new();
    for partition in 0..130 {
        let config = SinkConfig::builder(store.clone())
            .state(Arc::new(FolderStore::open(state.path()).unwrap()))
            .format(Format::BigQuery)
            .rotation(Rotation { age: Duration::from_millis(1), ..Rotation::default() });
        let id = PartitionId { partition, ..id() };
        let (mut sink, _) = PartitionSink::open(config.build().unwrap(), id, 0).await.unwrap();
        let names = StringArray::from_iter_values((0..20).map(|_| "x".repeat(100_000)));
        let of: [(&str, ArrayRef); 2] =
            [("id", Arc::new(Int64Array::from_iter_values(0..20))), ("name", Arc::new(names))];
        let coords: Vec<RowCoord> =
            (0..20).map(|offset| RowCoord { offset, sub: 0, timestamp: None }).collect();
        let append = sink.append(MAIN_OUTPUT, &RecordBatch::try_from_iter(of).unwrap(), &coords).await;
        append.unwrap();
        sink.advance(20, None).unwrap();
        sinks.push(sink);
    }
    for sink in &mut sinks {
        tokio::time::timeout(Duration::from_secs(30), sink.checkpoint()).await.unwrap().unwrap();
    }
    assert_eq!(bigquery.streams(), (130, 130));
}

/// 2,000 partitions of three members that are restarted in turn, with a quota for new streams that they exceed: each row is there once,
/// and nobody gives up.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_2000_partitions_outlasts_the_quota_of_new_streams() {
    const PARTITIONS: i32 = 2_000;
    let bigquery = FakeBigQuery::start();
    bigquery.create_table(TABLE, columns());
    // Few are saved up, so that the quota is met at any speed.
    bigquery.limit_streams(20, 400);
    let folder = tempfile::tempdir().unwrap();
    let state: Arc<dyn Store> = Arc::new(FolderStore::open(folder.path()).unwrap());
    let store = || Arc::new(BigQueryStore::new(config(bigquery.url())).unwrap());
    let sinks = |store: Arc<BigQueryStore>| {
        let config = SinkConfig::builder(store).state(state.clone()).format(Format::BigQuery);
        config.memory(1 << 30).failpoints(Failpoints::none()).build().unwrap()
    };
    // Each member has a third, appends, and dies before it seals or does not.
    let run = async |config: SinkConfig, member: i32, from: i64, dies: bool| {
        let mut partitions = tokio::task::JoinSet::new();
        for partition in (0..PARTITIONS).filter(|partition| partition % 3 == member) {
            let config = config.clone();
            partitions.spawn(async move {
                let id = PartitionId { partition, ..id() };
                let (mut sink, next) = PartitionSink::open(config, id, 0).await.unwrap();
                assert_eq!(next, from);
                let coords = [RowCoord { offset: from, sub: 0, timestamp: None }];
                let row = i64::from(partition) * 10 + from;
                sink.append(MAIN_OUTPUT, &rows(row..row + 1), &coords).await.unwrap();
                sink.advance(from + 1, None).unwrap();
                if !dies {
                    sink.checkpoint_in_any_case().await.unwrap();
                }
            });
        }
        while let Some(done) = partitions.join_next().await {
            done.unwrap();
        }
    };
    let members = [(); 3].map(|()| sinks(store()));
    let all = async |from, dies| {
        tokio::join!(
            run(members[0].clone(), 0, from, dies),
            run(members[1].clone(), 1, from, dies),
            run(members[2].clone(), 2, from, dies)
        )
    };
    all(0, false).await;
    for member in 0..3 {
        run(members[member as usize].clone(), member, 1, true).await;
        run(sinks(store()), member, 1, false).await;
    }
    let mut found: Vec<i64> = Vec::new();
    for rows in bigquery.rows(TABLE) {
        found.extend(rows.column_by_name("id").unwrap().as_primitive::<Int64Type>().values());
    }
    found.sort_unstable();
    let expected: Vec<i64> = (0..i64::from(PARTITIONS)).flat_map(|p| [p * 10, p * 10 + 1]).collect();
    assert!(found == expected, "{} rows", found.len());
    assert!(bigquery.refused_streams() > 10, "{}", bigquery.refused_streams());
}
