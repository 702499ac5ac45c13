use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gristmill::{
    BeginAt, Completion, Consumer, ConsumerConfig, ConsumerEvent, ErrorKind, GroupProtocol, MockCluster,
    MockRequest, PartitionStream, TopicIds,
};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Writes `count` records round-robin over `partitions`; the value is the record's number. As long as they are
/// few, the records of a partition are fetched at once.
pub(crate) fn fill(cluster: &MockCluster, topic: &str, partitions: i32, count: usize) {
    fill_with(cluster, topic, partitions, count, &[], |i| format!("record {i}"));
}

pub(crate) fn fill_with(
    cluster: &MockCluster,
    topic: &str,
    partitions: i32,
    count: usize,
    properties: &[(&str, &str)],
    value: impl Fn(usize) -> String,
) {
    let mut config = ClientConfig::new();
    // Also on a busy machine a partition's records lie in one record batch, which comes as a whole: it is sent when it is full.
    let full = count.div_ceil(partitions.max(1) as usize).max(1);
    config.set("bootstrap.servers", cluster.bootstrap_servers()).set("linger.ms", "5000");
    config.set("batch.num.messages", full.to_string());
    for (key, value) in properties {
        config.set(*key, *value);
    }
    let producer: BaseProducer = config.create().expect("a producer");
    for i in 0..count {
        let value = value(i);
        let record = BaseRecord::<(), [u8]>::to(topic)
            .partition(i32::try_from(i).expect("few") % partitions)
            .payload(value.as_bytes());
        producer.send(record).map_err(|(e, _)| e).expect("room in the queue");
    }
    producer.flush(PATIENCE).expect("all written");
}

/// How long it takes to drop the one that takes least: who waits does so each time, and a busy machine does not.
pub(crate) fn quickest<T, const N: usize>(all: [T; N]) -> Duration {
    let times = all.into_iter().map(|one| {
        let began = Instant::now();
        drop(one);
        began.elapsed()
    });
    times.min().expect("some")
}

pub(crate) fn config(cluster: &MockCluster, topic: &str) -> gristmill::ConsumerConfigBuilder {
    ConsumerConfig::builder()
        .bootstrap_servers(cluster.bootstrap_servers())
        .group_id(format!("group-of-{topic}"))
        .topics([topic])
        .topic_ids(TopicIds::NotAvailable)
}

pub(crate) async fn begin_all(consumer: &Consumer, partitions: usize, from: BeginAt) -> Vec<PartitionStream> {
    let mut streams = Vec::new();
    let wait = async {
        while streams.len() < partitions {
            match consumer.next_event().await.expect("the consumer runs") {
                ConsumerEvent::Assigned(list) => streams.extend(list.into_iter().map(|p| p.begin(from))),
                ConsumerEvent::Error(error) => assert!(error.is_retryable(), "{error}"),
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("an assignment in time");
    streams
}

pub(crate) fn cluster() -> MockCluster {
    let cluster = MockCluster::start(3).expect("a mock cluster");
    cluster.set_group_rebalance_delay(Duration::from_millis(50));
    cluster
}

#[tokio::test]
async fn every_record_comes_once_and_in_order() {
    let cluster = cluster();
    cluster.create_topic("orders", 4).expect("a topic");
    fill(&cluster, "orders", 4, 10_000);
    let consumer = Consumer::start(config(&cluster, "orders").build().expect("valid")).expect("started");
    let mut seen: BTreeMap<i32, i64> = BTreeMap::new();
    for mut stream in begin_all(&consumer, 4, BeginAt::Group).await {
        let mut next = 0;
        while next < 2_500 {
            let delivery =
                tokio::time::timeout(PATIENCE, stream.next()).await.expect("in time").expect("assigned");
            for record in delivery.batch.iter() {
                assert_eq!(record.offset(), next);
                let number = next * 4 + i64::from(stream.partition());
                assert_eq!(record.value(), Some(format!("record {number}").as_bytes()));
                next += 1;
            }
            assert_eq!(delivery.next, next);
            stream.complete(delivery.token);
        }
        seen.insert(stream.partition(), next);
    }
    assert_eq!(seen.len(), 4);
    consumer.close(PATIENCE).await.expect("closed in time");
}

pub(crate) async fn next(stream: &mut PartitionStream) -> gristmill::Delivery {
    tokio::time::timeout(PATIENCE, stream.next()).await.expect("in time").expect("still assigned")
}

/// What the group has, as another client is told.
fn group_offset(cluster: &MockCluster, topic: &str) -> Offset {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", format!("group-of-{topic}"))
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, 0);
    let list = client.committed_offsets(list, PATIENCE).expect("the cluster answers");
    list.elements()[0].offset()
}

#[tokio::test]
async fn a_commit_that_is_refused_is_tried_again() {
    let cluster = cluster();
    cluster.create_topic("refused", 1).expect("a topic");
    fill(&cluster, "refused", 1, 100);
    let consumer = Consumer::start(
        config(&cluster, "refused").commit_interval(Duration::from_millis(20)).build().expect("valid"),
    )
    .expect("started");
    let mut stream = begin_all(&consumer, 1, BeginAt::Group).await.remove(0);
    // Neither is retried by librdkafka: REBALANCE_IN_PROGRESS and GROUP_AUTHORIZATION_FAILED.
    cluster.fail_next(MockRequest::OffsetCommit, &[27, 30, 27]);
    let mut end = 0;
    while end < 100 {
        let delivery = next(&mut stream).await;
        end = delivery.next;
        stream.complete(delivery.token);
    }
    let mut kinds = Vec::new();
    while kinds.len() < 3 {
        match tokio::time::timeout(PATIENCE, consumer.next_event()).await.expect("in time").expect("it runs")
        {
            ConsumerEvent::CommitFailed(error) => kinds.push(error.kind()),
            ConsumerEvent::Error(error) => assert!(error.is_retryable(), "{error}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(kinds, [ErrorKind::Rebalancing, ErrorKind::Unauthorized, ErrorKind::Rebalancing]);
    consumer.close(PATIENCE).await.expect("closed, and the commit stored");
    assert_eq!(group_offset(&cluster, "refused"), Offset::Offset(100));
}

#[tokio::test]
async fn what_is_complete_is_committed_at_close_and_nothing_else() {
    let cluster = cluster();
    cluster.create_topic("close", 1).expect("a topic");
    fill(&cluster, "close", 1, 100);
    // The interval is far away: only `close` commits.
    let consumer = Consumer::start(
        config(&cluster, "close")
            .batch_records(10)
            .commit_interval(Duration::from_secs(600))
            .build()
            .expect("valid"),
    )
    .expect("started");
    let mut stream = begin_all(&consumer, 1, BeginAt::Group).await.remove(0);
    let first = next(&mut stream).await;
    let _open = next(&mut stream).await;
    let third = next(&mut stream).await;
    let boundary = first.next;
    stream.complete(first.token);
    stream.complete(third.token);
    consumer.close(PATIENCE).await.expect("closed");
    assert!(stream.next().await.is_none(), "the stream has ended");
    consumer.close(PATIENCE).await.expect("a second close has nothing to do");
    loop {
        match consumer.next_event().await {
            None | Some(ConsumerEvent::Revoked(_)) => break,
            Some(ConsumerEvent::Error(error)) if error.is_retryable() => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(group_offset(&cluster, "close"), Offset::Offset(boundary));
}

#[tokio::test]
async fn a_seek_starts_an_epoch_in_which_old_tokens_mean_nothing() {
    let cluster = cluster();
    cluster.create_topic("seek", 1).expect("a topic");
    fill(&cluster, "seek", 1, 1_000);
    let consumer = Consumer::start(config(&cluster, "seek").batch_records(100).build().expect("valid"))
        .expect("started");
    let mut stream = begin_all(&consumer, 1, BeginAt::Offset(500)).await.remove(0);
    let before = next(&mut stream).await;
    assert_eq!(before.batch.first_offset(), Some(500));
    let epoch = stream.epoch();
    assert!(stream.seek(BeginAt::Offset(250)));
    assert!(stream.epoch() > epoch);
    let after = next(&mut stream).await;
    assert_eq!(after.batch.first_offset(), Some(250));
    assert_eq!(stream.complete(before.token), Completion::Stale);
    assert_eq!(stream.complete(after.token.clone()), Completion::Done);
    assert_eq!(stream.complete(after.token), Completion::Repeated);
    assert_eq!(consumer.stale_completions(), 1);
    consumer.close(PATIENCE).await.expect("closed");
}

#[tokio::test]
async fn nothing_is_delivered_before_begin() {
    let cluster = cluster();
    cluster.create_topic("begin", 2).expect("a topic");
    fill(&cluster, "begin", 2, 200);
    let consumer = Consumer::start(config(&cluster, "begin").build().expect("valid")).expect("started");
    let mut assigned = loop {
        match tokio::time::timeout(PATIENCE, consumer.next_event()).await.expect("in time") {
            Some(ConsumerEvent::Assigned(list)) => break list,
            Some(ConsumerEvent::Error(error)) => assert!(error.is_retryable(), "{error}"),
            other => panic!("{other:?}"),
        }
    };
    assigned.sort_by_key(|p| p.partition);
    let waiting = assigned.remove(0);
    let mut running = assigned.remove(0).begin(BeginAt::Group);
    while next(&mut running).await.next < 100 {}
    // The other was held back for as long as it took, and has lost nothing by it.
    let mut late = waiting.begin(BeginAt::Group);
    assert_eq!(next(&mut late).await.batch.first_offset(), Some(0));
    consumer.close(PATIENCE).await.expect("closed");
}

#[tokio::test]
async fn closing_and_dropping_do_not_wait_for_a_cluster_that_is_gone() {
    let cluster = cluster();
    cluster.create_topic("gone", 1).expect("a topic");
    fill(&cluster, "gone", 1, 10);
    let start = || Consumer::start(config(&cluster, "gone").build().expect("valid")).expect("started");
    let consumer = start();
    let mut stream = begin_all(&consumer, 1, BeginAt::Group).await.remove(0);
    let delivery = next(&mut stream).await;
    let dropped = [start(), start(), start()];
    for broker in 1..=3 {
        cluster.set_broker_up(broker, false).expect("it exists");
    }
    stream.complete(delivery.token);
    assert!(quickest(dropped) < Duration::from_millis(100));
    let began = Instant::now();
    let error = consumer.close(Duration::from_secs(2)).await.expect_err("nobody answers");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn kip_848_works_on_the_mock_cluster_too() {
    let cluster = cluster();
    cluster.create_topic("kip848", 2).expect("a topic");
    fill(&cluster, "kip848", 2, 1_000);
    let config = config(&cluster, "kip848").group_protocol(GroupProtocol::Consumer).build().expect("valid");
    let consumer = Consumer::start(config).expect("started");
    for mut stream in begin_all(&consumer, 2, BeginAt::Group).await {
        while next(&mut stream).await.next < 500 {}
    }
    consumer.close(PATIENCE).await.expect("closed");
}
