//! Directories by the values of columns, and what Parquet files say of themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampSecondArray};
use bytes::Bytes;
use gristmill_sinks::{
    Checkpoint, DirectoryTemplate, ErrorKind, Failpoints, Format, MAIN_OUTPUT, ParquetOptions, PartitionId,
    PartitionSink, RowCoord, SinkConfig, SinkConfigBuilder, SinkLimits, Store, verify,
};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::LogicalType;

use crate::memory::MemoryStore;
use crate::topic::{config, partition};

fn by_shop(store: &Arc<dyn Store>) -> SinkConfigBuilder {
    config(store)
        .format(Format::Parquet(ParquetOptions::default()))
        .directories(DirectoryTemplate::parse("shop={shop}").unwrap())
        .failpoints(Failpoints::none())
}

fn rows(shops: &[Option<&str>], first: i64) -> (RecordBatch, Vec<RowCoord>) {
    let coords: Vec<_> =
        (0..shops.len() as i64).map(|i| RowCoord { offset: first + i, sub: 0, timestamp: Some(0) }).collect();
    let offsets: Int64Array = coords.iter().map(|c| c.offset).collect::<Vec<_>>().into();
    let filling: StringArray = coords.iter().map(|c| Some(format!("{:0>200}", c.offset * 7919))).collect();
    let shops: StringArray = shops.iter().copied().collect();
    let columns: [(_, ArrayRef); 3] =
        [("shop", Arc::new(shops)), ("offset", Arc::new(offsets)), ("filling", Arc::new(filling))];
    (RecordBatch::try_from_iter(columns).unwrap(), coords)
}

async fn open(config: SinkConfigBuilder) -> PartitionSink {
    PartitionSink::open(config.build().unwrap(), partition(), 0).await.unwrap().0
}

async fn bytes(store: &Arc<dyn Store>, name: &str) -> Bytes {
    store.get(name).await.unwrap().unwrap().bytes
}

fn read(bytes: Bytes) -> ParquetRecordBatchReader {
    ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap()
}

#[tokio::test]
async fn five_hundred_directories_stay_within_the_budget_and_lose_nothing() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let limits =
        SinkLimits { open_files: 16, entry_files: 300, buffered_bytes: 256 << 10, ..SinkLimits::default() };
    let mut sink = open(by_shop(&store).limits(limits)).await;
    let mut expected: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let (mut fullest, mut entries, mut at) = (0, 0, 0);
    // Most rows go to a few shops, the others are spread: files are closed and opened again all the time.
    for delivery in 0..20i64 {
        let shops: Vec<String> = (0..250)
            .map(|i| match (delivery * 250 + i) % 3 {
                0 => format!("shop {}", i % 10),
                _ => format!("shop {}", (delivery * 251 + i * 37) % 500),
            })
            .collect();
        let (batch, coords) = rows(&shops.iter().map(|s| Some(s.as_str())).collect::<Vec<_>>(), at);
        for (shop, coord) in shops.iter().zip(&coords) {
            expected.entry(shop.clone()).or_default().push(coord.offset);
        }
        sink.append(MAIN_OUTPUT, &batch, &coords).await.unwrap();
        at += 250;
        sink.advance(at, None).unwrap();
        fullest = fullest.max(sink.buffered_bytes());
        assert!(fullest <= limits.buffered_bytes, "{fullest} bytes wait in memory");
        assert!(sink.due(Instant::now()), "more directories than open files make a checkpoint due");
        if delivery % 5 == 4 {
            assert!(matches!(sink.checkpoint().await.unwrap(), Checkpoint::Published(_)));
            entries += 1;
        }
    }
    assert_eq!((expected.len(), entries), (500, 4));
    assert!(fullest > limits.buffered_bytes / 4, "{fullest}: the budget was never put to a test");
    let mut found: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for listed in store.list("lake/orders/", None, 100_000).await.unwrap() {
        let shop = listed.name.split('/').nth(2).unwrap().strip_prefix("shop=").unwrap().to_owned();
        for batch in read(bytes(&store, &listed.name).await) {
            let batch = batch.unwrap();
            assert!(batch.column_by_name("shop").is_none(), "the path holds it");
            let offsets = batch["offset"].as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec();
            found.entry(shop.clone()).or_default().extend(offsets);
        }
    }
    found.values_mut().for_each(|offsets| offsets.sort_unstable());
    assert_eq!(found, expected);
    assert!(verify(&by_shop(&store).build().unwrap()).await.unwrap().is_sound());
}

#[tokio::test]
async fn a_row_without_a_directory_is_refused_before_anything_is_written() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let mut sink = open(by_shop(&store)).await;
    let (batch, coords) = rows(&[Some("a"), Some("")], 0);
    let error = sink.append(MAIN_OUTPUT, &batch, &coords).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert_eq!(
        error.to_string(),
        "the row of offset 1 has no directory: `shop` is empty, which readers of directories take for null; reject it"
    );
    let other = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    let error = sink.append(MAIN_OUTPUT, &other, &coords[..1]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    // The entry is not torn: what fits goes on.
    sink.append(MAIN_OUTPUT, &batch.slice(0, 1), &coords[..1]).await.unwrap();
    sink.advance(2, None).unwrap();
    let Checkpoint::Published(entry) = sink.checkpoint().await.unwrap() else { panic!("not published") };
    assert_eq!((entry.rows, entry.counts.written), (1, 1));
}

#[tokio::test]
async fn directories_that_some_value_could_make_too_long_are_refused_at_the_start() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let template = (0..6).map(|i| format!("k{i}={{f{i}}}")).collect::<Vec<_>>().join("/");
    let config = by_shop(&store).directories(DirectoryTemplate::parse(&template).unwrap()).build().unwrap();
    PartitionSink::open(config.clone(), PartitionId { topic: "t".into(), ..partition() }, 0).await.unwrap();
    let long = PartitionId { topic: "t".repeat(200), ..partition() };
    let error = PartitionSink::open(config, long, 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("1024 are the most"), "{error}");
}

#[tokio::test]
async fn a_parquet_file_says_where_it_comes_from() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let mut sink = open(by_shop(&store).transform_digest("abc")).await;
    for first in [0, 3] {
        let (batch, coords) = rows(&[Some("a"), None, Some("a")], first + 10);
        sink.append("refunds", &batch, &coords).await.unwrap();
        sink.advance(first + 13, None).unwrap();
    }
    let Checkpoint::Published(entry) = sink.checkpoint().await.unwrap() else { panic!("not published") };
    let name = &entry.files.iter().find(|f| f.final_name.contains("shop=a")).unwrap().final_name;
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes(&store, name).await).unwrap();
    let file = reader.metadata().file_metadata();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(file.created_by(), Some(format!("gristmill version {version}").as_str()));
    let said: BTreeMap<_, _> = file
        .key_value_metadata()
        .unwrap()
        .iter()
        .filter_map(|kv| Some((kv.key.strip_prefix("gristmill.")?, kv.value.as_deref()?)))
        .collect();
    let digest = said["schema_digest"];
    assert_eq!(digest.len(), 64);
    let topic_id = partition().topic_id_text();
    let expected = [
        ("version", version),
        ("pipeline", "test"),
        ("cluster", "cluster"),
        ("topic", "orders"),
        ("topic_id", &topic_id),
        ("partition", "3"),
        ("output", "refunds"),
        ("entry", "0"),
        ("first_offset", "10"),
        ("last_offset", "15"),
        ("rows", "4"),
        ("transform_digest", "abc"),
        ("schema_digest", digest),
    ];
    assert_eq!(said, expected.into_iter().collect());
}

#[tokio::test]
async fn seconds_are_times_in_parquet_and_stay_seconds_in_json() {
    let times: ArrayRef = Arc::new(TimestampSecondArray::from(vec![1_704_164_645]).with_timezone("UTC"));
    let batch = RecordBatch::try_from_iter([("at", times)]).unwrap();
    let coords = [RowCoord { offset: 0, sub: 0, timestamp: None }];
    for format in [Format::Parquet(ParquetOptions::default()), Format::JsonLines] {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let mut sink = open(SinkConfig::builder(store.clone()).format(format)).await;
        sink.append(MAIN_OUTPUT, &batch, &coords).await.unwrap();
        sink.advance(1, None).unwrap();
        let Checkpoint::Published(entry) = sink.checkpoint().await.unwrap() else { panic!("not published") };
        let bytes = bytes(&store, &entry.files[0].final_name).await;
        if format == Format::JsonLines {
            assert_eq!(&bytes[..], b"{\"at\":\"2024-01-02T03:04:05Z\"}\n");
            continue;
        }
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        let column = reader.parquet_schema().column(0);
        assert!(matches!(column.logical_type_ref(), Some(LogicalType::Timestamp(_))), "{column:?}");
        let index = reader.metadata().row_group(0).column(0);
        assert!(index.statistics().is_some() && index.column_index_offset().is_some());
    }
}
