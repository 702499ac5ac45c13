//! Many partitions with many directories share one budget of memory.

use std::sync::Arc;
use std::time::Instant;

use arrow_array::{Int64Array, RecordBatch, StringArray};
use gristmill_sinks::fake_gcs::FakeGcs;
use gristmill_sinks::{
    Checkpoint, DirectoryTemplate, Failpoints, GcsConfig, GcsCredentials, GcsStore, MAIN_OUTPUT, PartitionId,
    PartitionSink, RowCoord, SinkConfig, Store, verify,
};

/// An open Parquet file alone holds about 80 KB.
const BUDGET: usize = 8 << 20;

fn rows(at: i64, count: i64) -> (RecordBatch, Vec<RowCoord>) {
    let text: StringArray = (at..at + count)
        // Does not compress.
        .map(|i| {
            Some(
                (0..8)
                    .map(|n| format!("{:016x}", (i * 8 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64)))
                    .collect::<String>(),
            )
        })
        .collect();
    let batch = RecordBatch::try_from_iter([
        ("offset", Arc::new(Int64Array::from_iter_values(at..at + count)) as _),
        ("text", Arc::new(text) as _),
    ]);
    // Forty days, one after the other: forty directories.
    let day = 86_400_000;
    let coord = |offset: i64| RowCoord { offset, sub: 0, timestamp: Some((offset % 40) * day) };
    (batch.unwrap(), (at..at + count).map(coord).collect())
}

#[tokio::test]
async fn twelve_partitions_with_forty_directories_stay_within_one_budget() {
    let gcs = FakeGcs::start();
    gcs.create_bucket("lake");
    let settings = GcsConfig::builder("lake").endpoint(gcs.url()).credentials(GcsCredentials::Anonymous);
    let store: Arc<dyn Store> = Arc::new(GcsStore::open(settings.build().unwrap()).unwrap());
    let config = SinkConfig::builder(store)
        .directories(DirectoryTemplate::parse("dt=%Y-%m-%d").unwrap())
        .memory(BUDGET)
        .failpoints(Failpoints::none())
        .build()
        .unwrap();
    let mut sinks = Vec::new();
    for partition in 0..12 {
        let id = PartitionId {
            pipeline: "p".into(),
            cluster: "c".into(),
            topic: "orders".into(),
            topic_id: [7; 16],
            partition,
        };
        sinks.push(PartitionSink::open(config.clone(), id, 0).await.unwrap().0);
    }
    let (mut fullest, mut early) = (0, 0);
    for round in 0..6 {
        for n in 0..sinks.len() {
            let at = round * 1000;
            let (batch, coords) = rows(at, 1000);
            sinks[n].append(MAIN_OUTPUT, &batch, &coords).await.unwrap();
            sinks[n].advance(at + 1000, None).unwrap();
            let held: usize = sinks.iter().map(PartitionSink::buffered_bytes).sum();
            // Another one gives back what is too much when it is looked at next.
            assert!(held <= BUDGET * 3 / 2, "{held} bytes wait in memory");
            fullest = fullest.max(held);
            for sink in &mut sinks {
                if sink.due(Instant::now()) {
                    assert!(matches!(sink.checkpoint().await.unwrap(), Checkpoint::Published(_)));
                    early += 1;
                }
            }
        }
    }
    assert!(fullest > BUDGET / 2 && early > 0, "{fullest}, {early}: the budget was never put to a test");
    for sink in &mut sinks {
        sink.checkpoint().await.unwrap();
        assert_eq!((sink.first(), sink.buffered_bytes()), (6_000, 0));
    }
    let report = verify(&config).await.unwrap();
    assert!(report.is_sound());
    assert_eq!(report.ledgers.iter().map(|l| l.rows).sum::<u64>(), 12 * 6_000);
}
