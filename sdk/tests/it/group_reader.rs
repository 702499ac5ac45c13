//! A group as one stream of batches: what has no verdict comes again, what has one is committed.

use std::collections::BTreeMap;
use std::time::Duration;

use gristmill::{
    DeadLetterTopic, ErrorKind, GroupBatch, GroupOffsets, GroupReader, MockCluster, Producer, ProducerConfig,
    RangeReader, Rejection,
};

use crate::consumer::{PATIENCE, cluster, config, fill};

async fn next(reader: &GroupReader) -> GroupBatch {
    let batch = tokio::time::timeout(PATIENCE, reader.next_batch()).await.expect("in time");
    batch.expect("no error").expect("the reader is open")
}

fn offsets(batch: &GroupBatch) -> Vec<i64> {
    batch.records().iter().map(|record| record.offset()).collect()
}

fn start(cluster: &MockCluster, topic: &str, letters: Option<DeadLetterTopic>) -> GroupReader {
    GroupReader::start(config(cluster, topic).batch_records(10).build().expect("valid"), letters)
        .expect("started")
}

async fn committed(cluster: &MockCluster, topic: &str, partition: i32) -> Option<i64> {
    let config = config(cluster, topic).build().expect("valid");
    let offsets = GroupOffsets::new(&config).expect("a client");
    let found = offsets.committed(topic).await.expect("an answer");
    Some(found.iter().find(|offset| offset.partition == partition)?.offset)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_comes_once_if_all_are_acknowledged_and_the_group_hears_of_it() {
    let cluster = cluster();
    cluster.create_topic("orders", 4).expect("a topic");
    fill(&cluster, "orders", 4, 4_000);
    let reader = start(&cluster, "orders", None);
    let mut seen: BTreeMap<i32, i64> = BTreeMap::new();
    while seen.values().sum::<i64>() < 4_000 {
        let batch = next(&reader).await;
        assert_eq!(batch.times_delivered(), 1);
        let position = seen.entry(batch.records().partition()).or_default();
        for record in batch.records().iter() {
            assert_eq!(record.offset(), *position);
            *position += 1;
        }
        assert!(batch.ack());
        assert!(batch.ack(), "a second verdict repeats the first");
    }
    reader.close(PATIENCE).await.expect("closed");
    for partition in 0..4 {
        assert_eq!(committed(&cluster, "orders", partition).await, Some(1_000));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_let_go_of_without_a_verdict_comes_again_before_what_follows() {
    let cluster = cluster();
    cluster.create_topic("again", 1).expect("a topic");
    fill(&cluster, "again", 1, 100);
    let reader = start(&cluster, "again", None);
    let first = next(&reader).await;
    let rows = offsets(&first);
    drop(first);
    let again = next(&reader).await;
    assert_eq!((offsets(&again), again.times_delivered()), (rows.clone(), 2));
    // Of a part that has its verdict, only the rest comes.
    assert!(again.ack_rows(&[0, 2]).expect("rows that are there"));
    assert_eq!(again.rows_left(), rows.len() - 2);
    drop(again);
    let rest = next(&reader).await;
    assert_eq!(rest.times_delivered(), 3);
    let left: Vec<i64> = rows.iter().copied().filter(|o| ![rows[0], rows[2]].contains(o)).collect();
    assert_eq!(offsets(&rest), left);
    // The batch behind it has its verdict first: the group's offset waits for this one.
    let later = next(&reader).await;
    assert_eq!(offsets(&later)[0], rows.len() as i64);
    assert!(later.ack());
    let until = tokio::time::Instant::now() + PATIENCE;
    while committed(&cluster, "again", 0).await != Some(rows[1]) && tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // And goes no further.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(committed(&cluster, "again", 0).await, Some(rows[1]), "row 0 has its verdict, row 1 has not");
    assert!(rest.ack());
    let end = later.records().last_offset().expect("a record") + 1;
    reader.close(PATIENCE).await.expect("closed");
    assert_eq!(committed(&cluster, "again", 0).await, Some(end));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_before_the_first_row_without_a_verdict_is_committed() {
    let cluster = cluster();
    cluster.create_topic("part", 1).expect("a topic");
    fill(&cluster, "part", 1, 10);
    let reader = start(&cluster, "part", None);
    let batch = next(&reader).await;
    assert!(batch.ack_rows(&[4, 0, 1, 2]).expect("rows that are there"));
    reader.close(PATIENCE).await.expect("closed");
    assert_eq!(committed(&cluster, "part", 0).await, Some(3));
    assert!(!batch.ack(), "too late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_let_go_of_again_and_again_keeps_no_other_partition_from_coming() {
    let cluster = cluster();
    cluster.create_topic("poison", 2).expect("a topic");
    fill(&cluster, "poison", 2, 100);
    let reader = start(&cluster, "poison", None);
    let mut seen = 0;
    while seen < 50 {
        let batch = next(&reader).await;
        if batch.records().partition() == 1 {
            seen += batch.records().len();
            assert!(batch.ack());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_rows_lie_in_the_dead_letter_topic_before_they_are_passed() {
    let cluster = cluster();
    cluster.create_topic("payments", 1).expect("a topic");
    cluster.create_topic("payments.dead", 1).expect("a topic");
    fill(&cluster, "payments", 1, 10);
    let producer = ProducerConfig::builder().bootstrap_servers(cluster.bootstrap_servers()).build();
    let producer = Producer::new(producer.expect("valid")).expect("started");
    let reader = start(&cluster, "payments", Some(DeadLetterTopic::new(producer, "payments.dead")));
    let batch = next(&reader).await;
    assert_eq!(batch.records().len(), 10);
    let error = batch.reject(&[Rejection::new(10, "NO", "no such row")]).await.expect_err("an index too far");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let bad = |row| Rejection::new(row, "BAD_AMOUNT", "the amount is negative");
    assert!(batch.reject(&[bad(3), bad(3), bad(7)]).await.expect("delivered"));
    assert!(batch.reject(&[Rejection::new(3, "AGAIN", "it has its verdict")]).await.expect("passed over"));
    assert_eq!(batch.rows_left(), 8);
    assert!(batch.ack());
    reader.close(PATIENCE).await.expect("closed");
    let range = gristmill::PartitionRange { topic: "payments.dead".into(), partition: 0, first: 0, end: 2 };
    let config = config(&cluster, "payments.dead").build().expect("valid");
    let letters = tokio::task::spawn_blocking(move || {
        let mut reader = RangeReader::open(&config, [range]).expect("opened");
        let mut letters = Vec::new();
        while let Some(batch) = reader.next_batch().expect("read") {
            for record in batch.iter() {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let headers: BTreeMap<String, String> =
                    record.headers().map(|h| (text(h.name), text(h.value.unwrap_or_default()))).collect();
                letters.push((text(record.value().expect("a value")), headers));
            }
        }
        letters
    });
    let letters = letters.await.expect("no panic");
    let values: Vec<&str> = letters.iter().map(|(value, _)| value.as_str()).collect();
    assert_eq!(values, ["record 3", "record 7"]);
    let headers = &letters[1].1;
    assert_eq!(headers["__connect.errors.topic"], "payments");
    assert_eq!(headers["__connect.errors.offset"], "7");
    assert_eq!(headers["__connect.errors.connector.name"], "group-of-payments");
    assert_eq!(headers["__connect.errors.exception.class.name"], "BAD_AMOUNT");
    assert_eq!(headers["__connect.errors.exception.message"], "the amount is negative");
    assert_eq!(headers["gristmill.dead_letter.key"], "payments/0/7/0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_dead_letter_topic_a_reject_says_what_to_do_and_changes_nothing() {
    let cluster = cluster();
    cluster.create_topic("plain", 1).expect("a topic");
    fill(&cluster, "plain", 1, 5);
    let reader = start(&cluster, "plain", None);
    let batch = next(&reader).await;
    let error = batch.reject(&[Rejection::new(0, "BAD", "bad")]).await.expect_err("nowhere to put it");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("dead-letter topic"), "{error}");
    assert_eq!(batch.rows_left(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_closing_there_is_nothing_more_and_a_verdict_counts_for_nothing() {
    let cluster = cluster();
    cluster.create_topic("closing", 1).expect("a topic");
    fill(&cluster, "closing", 1, 40);
    let reader = start(&cluster, "closing", None);
    let held = next(&reader).await;
    reader.close(PATIENCE).await.expect("closed");
    reader.close(PATIENCE).await.expect("a second close has nothing to do");
    assert!(reader.next_batch().await.expect("no error").is_none());
    assert!(!reader.ready().await);
    assert!(!held.ack(), "its record is delivered to whoever comes next");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_waits_that_are_given_up_cost_no_record() {
    let cluster = cluster();
    cluster.create_topic("cancelled", 3).expect("a topic");
    let reader = start(&cluster, "cancelled", None);
    let mut seen: BTreeMap<i32, i64> = BTreeMap::new();
    let mut given_up = 0;
    for round in 0..200_u64 {
        if round % 20 == 0 {
            fill(&cluster, "cancelled", 3, 30);
        }
        let wait = Duration::from_micros(round * 37 % 3_000);
        match tokio::time::timeout(wait, reader.next_batch()).await {
            Err(_) => given_up += 1,
            Ok(batch) => take(&mut seen, &batch.expect("no error").expect("open")),
        }
    }
    while seen.values().sum::<i64>() < 300 {
        take(&mut seen, &next(&reader).await);
    }
    assert!(given_up >= 100, "{given_up}");
    fn take(seen: &mut BTreeMap<i32, i64>, batch: &GroupBatch) {
        let position = seen.entry(batch.records().partition()).or_default();
        for record in batch.records().iter() {
            assert_eq!(record.offset(), *position, "nothing is left out, nothing comes twice");
            *position += 1;
        }
        assert!(batch.ack());
    }
}
