//! A topic that is made up, a sink that reads it, and a reader of the final files that knows nothing of the
//! ledger.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{Int64Array, RecordBatch, StringArray, UInt32Array};
use gristmill_sinks::{
    DirectoryTemplate, FileDeadLetters, Format, MAIN_OUTPUT, PartitionId, PartitionSink, RejectedRecord,
    Retry, RowCoord, SinkConfig, SinkConfigBuilder, Stage, Store,
};

pub(crate) fn partition() -> PartitionId {
    PartitionId {
        pipeline: "test".into(),
        cluster: "cluster".into(),
        topic: "orders".into(),
        topic_id: [9; 16],
        partition: 3,
    }
}

/// JSON lines below `lake`, dead letters below `dead`, directories by day, retries without waiting.
pub(crate) fn config(store: &Arc<dyn Store>) -> SinkConfigBuilder {
    let dead_letters = FileDeadLetters::new(store.clone(), "dead").unwrap();
    let no_wait = Duration::ZERO;
    SinkConfig::builder(store.clone())
        .prefix("lake")
        .format(Format::JsonLines)
        .directories(DirectoryTemplate::parse("dt=%Y-%m-%d").unwrap())
        .dead_letters(Arc::new(dead_letters))
        .retry(Retry { attempts: 5, first_delay: no_wait, max_delay: no_wait })
}

/// What becomes of the record at an offset: every 7th is rejected, every 5th becomes two rows, every 11th is
/// dropped.
pub(crate) fn rows_of(offset: i64) -> u32 {
    match offset {
        o if o % 7 == 3 => 0,
        o if o % 11 == 4 => 0,
        o if o % 5 == 0 => 2,
        _ => 1,
    }
}

pub(crate) fn is_rejected(offset: i64) -> bool {
    offset % 7 == 3
}

pub(crate) fn timestamp_of(offset: i64) -> Option<i64> {
    // Some records have no timestamp, days change often.
    (offset % 13 != 0).then_some(1_704_000_000_000 + offset % 3 * 86_400_000)
}

pub(crate) fn batch(coords: &[RowCoord]) -> RecordBatch {
    let offsets: Int64Array = coords.iter().map(|c| c.offset).collect::<Vec<_>>().into();
    let subs: UInt32Array = coords.iter().map(|c| c.sub).collect::<Vec<_>>().into();
    let text: StringArray = coords.iter().map(|c| Some(format!("order-{}", c.offset))).collect();
    RecordBatch::try_from_iter([
        ("offset", Arc::new(offsets) as _),
        ("sub", Arc::new(subs) as _),
        ("text", Arc::new(text) as _),
    ])
    .unwrap()
}

/// Hands the records from `from` to `to` to the sink, as one delivery of the consumer.
pub(crate) async fn feed(sink: &mut PartitionSink, from: i64, to: i64) -> gristmill_sinks::Result<()> {
    let mut coords = Vec::new();
    for offset in from..to {
        coords.extend((0..rows_of(offset)).map(|sub| RowCoord {
            offset,
            sub,
            timestamp: timestamp_of(offset),
        }));
        if is_rejected(offset) {
            sink.reject(rejected(offset))?;
        }
    }
    sink.tally(
        (to - from) as u64,
        (from..to).filter(|o| rows_of(*o) == 0 && !is_rejected(*o)).count() as u64,
    );
    sink.append(MAIN_OUTPUT, &batch(&coords), &coords).await?;
    sink.advance(to, Some(1))
}

pub(crate) fn rejected(offset: i64) -> RejectedRecord {
    RejectedRecord {
        offset,
        sub: 0,
        stage: Stage::Transform,
        transform: Some(0),
        due_from: None,
        code: "bad".into(),
        message: format!("order {offset} is bad"),
        key: None,
        value: Some(format!("secret-{offset}").into()),
        headers: vec![("trace".into(), Some(vec![0xff, offset as u8].into()))],
        timestamp: timestamp_of(offset),
    }
}

/// How often each (offset, sub) is in the JSON-lines objects below `prefix`, state excluded.
pub(crate) async fn read_back(store: &Arc<dyn Store>, prefix: &str) -> BTreeMap<(i64, i64), u32> {
    let mut found = BTreeMap::new();
    for listed in store.list(&format!("{prefix}/"), None, 1_000_000).await.unwrap() {
        if listed.name.split('/').any(|s| s.starts_with(['_', '.'])) {
            continue;
        }
        let bytes = store.get(&listed.name).await.unwrap().unwrap().bytes;
        for line in bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            let row: serde_json::Value = serde_json::from_slice(line).unwrap();
            *found.entry((row["offset"].as_i64().unwrap(), row["sub"].as_i64().unwrap())).or_default() += 1;
        }
    }
    found
}

/// Fails unless the final files hold the rows of offsets 0 to `next` exactly once each, and the dead letters
/// its rejects.
pub(crate) async fn assert_exactly_once(store: &Arc<dyn Store>, next: i64) {
    assert_exactly_once_but(store, next, &[]).await;
}

/// The same, but for the rows of some offsets whose files a user has deleted.
pub(crate) async fn assert_exactly_once_but(store: &Arc<dyn Store>, next: i64, deleted: &[(i64, i64)]) {
    let rows = (0..next).flat_map(|o| (0..i64::from(rows_of(o))).map(move |s| (o, s)));
    let expected: BTreeMap<_, u32> = rows.filter(|r| !deleted.contains(r)).map(|r| (r, 1)).collect();
    assert_eq!(read_back(store, "lake").await, expected);
    let expected: BTreeMap<_, u32> = (0..next).filter(|o| is_rejected(*o)).map(|o| ((o, 0), 1)).collect();
    assert_eq!(read_back(store, "dead").await, expected);
}
