//! The SDK against a real broker: positions, starts, back-pressure, failures.

use std::time::Duration;

use gristmill::{
    Assignor, BeginAt, Completion, Consumer, ConsumerConfig, ConsumerConfigBuilder, ConsumerEvent, Delivery,
    ErrorKind, GroupProtocol, PartitionRange, PartitionStream, Producer, ProducerConfig, ProducerRecord,
    RangeReader, Start, Topics,
};
use gristmill_tests::{RealKafka, TransactionalProducer, shared_kafka, unique};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn config(kafka: &RealKafka, topic: &str) -> ConsumerConfigBuilder {
    ConsumerConfig::builder()
        .bootstrap_servers(kafka.bootstrap_servers())
        .group_id(format!("group-of-{topic}"))
        .topics([topic])
        .commit_interval(Duration::from_millis(100))
}

pub(crate) fn producer(kafka: &RealKafka) -> Producer {
    let config =
        ProducerConfig::builder().bootstrap_servers(kafka.bootstrap_servers()).build().expect("valid");
    Producer::new(config).expect("a producer")
}

/// Writes `count` records to one partition; the value is `record {n}`.
pub(crate) async fn fill(kafka: &RealKafka, topic: &str, partition: i32, count: i64) {
    let producer = producer(kafka);
    let record = |i| ProducerRecord::to(topic).partition(partition).value(format!("record {i}"));
    let report = producer.send_all((0..count).map(record)).await;
    assert!(report.is_complete(), "{:?}", report.failures().next());
    producer.close(PATIENCE).await.expect("closed");
}

/// The next event that is no retryable error.
pub(crate) async fn event(consumer: &Consumer) -> ConsumerEvent {
    let next = async {
        loop {
            match consumer.next_event().await.expect("the consumer runs") {
                ConsumerEvent::Error(error) if error.is_retryable() => {}
                event => return event,
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await.expect("an event in time")
}

pub(crate) async fn begin_all(consumer: &Consumer, partitions: usize, from: BeginAt) -> Vec<PartitionStream> {
    let mut streams: Vec<PartitionStream> = Vec::new();
    while streams.len() < partitions {
        match event(consumer).await {
            ConsumerEvent::Assigned(list) => streams.extend(list.into_iter().map(|p| p.begin(from))),
            other => panic!("{other:?}"),
        }
    }
    streams.sort_by_key(PartitionStream::partition);
    streams
}

async fn begin_one(consumer: &Consumer, from: BeginAt) -> PartitionStream {
    begin_all(consumer, 1, from).await.remove(0)
}

pub(crate) async fn next(stream: &mut PartitionStream) -> Delivery {
    tokio::time::timeout(PATIENCE, stream.next()).await.expect("a delivery in time").expect("still assigned")
}

/// Reads until the position is `end`; gives the values.
async fn read_to(stream: &mut PartitionStream, end: i64) -> Vec<String> {
    let mut values = Vec::new();
    loop {
        let delivery = next(stream).await;
        values.extend(
            delivery
                .batch
                .iter()
                .map(|r| String::from_utf8_lossy(r.value().unwrap_or_default()).into_owned()),
        );
        let reached = delivery.next;
        assert_eq!(stream.complete(delivery.token), Completion::Done);
        assert!(reached <= end, "{reached} is past {end}");
        if reached == end {
            return values;
        }
    }
}

#[tokio::test]
async fn trailing_control_records_and_aborted_records_are_inside_the_position() {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("transactions");
    kafka.create_topic(&topic, 1, &[]).await;
    let id = topic.clone();
    tokio::task::spawn_blocking(move || {
        let producer = TransactionalProducer::new(kafka, &id);
        for (round, commit) in [true, false, true, false].into_iter().enumerate() {
            producer.begin();
            for i in 0..10 {
                producer.send(&id, 0, None, format!("{round}.{i}").as_bytes());
            }
            if commit { producer.commit() } else { producer.abort() }
        }
    })
    .await
    .expect("written");
    let consumer = Consumer::start(config(kafka, &topic).build().expect("valid")).expect("started");
    let mut stream = begin_one(&consumer, BeginAt::Group).await;
    // Four times ten records and a marker.
    let values = read_to(&mut stream, 44).await;
    let expected: Vec<_> = [0, 2].iter().flat_map(|r| (0..10).map(move |i| format!("{r}.{i}"))).collect();
    assert_eq!(values, expected);
    consumer.close(PATIENCE).await.expect("closed");
    // What was committed is the position, markers included: a successor has nothing to read.
    let consumer = Consumer::start(config(kafka, &topic).build().expect("valid")).expect("started");
    match event(&consumer).await {
        ConsumerEvent::Assigned(list) => assert_eq!(list[0].group_offset, Some(44)),
        other => panic!("{other:?}"),
    }
    consumer.close(PATIENCE).await.expect("closed");
}

#[tokio::test]
async fn gaps_that_compaction_leaves_are_passed() {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("compacted");
    let settings = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("segment.ms", "200"),
        ("min.compaction.lag.ms", "0"),
    ];
    kafka.create_topic(&topic, 1, &settings).await;
    let producer = producer(kafka);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let mut written = 0;
    // The cleaner runs on closed segments in its own time: write until a reader sees fewer than were written.
    for attempt in 0.. {
        assert!(tokio::time::Instant::now() < deadline, "the cleaner has done nothing");
        for i in 0..200 {
            let record =
                ProducerRecord::to(&topic).partition(0).key(format!("key {}", i % 5)).value(format!("{i}"));
            producer.send(record).await.expect("written");
            written += 1;
        }
        let group = format!("{topic}-{attempt}");
        let consumer =
            Consumer::start(config(kafka, &topic).group_id(group).build().expect("valid")).expect("started");
        let mut stream = begin_one(&consumer, BeginAt::Earliest).await;
        let seen = read_to(&mut stream, written).await.len();
        consumer.close(PATIENCE).await.expect("closed");
        if i64::try_from(seen).expect("few") < written {
            break;
        }
    }
    producer.close(PATIENCE).await.expect("closed");
}

#[tokio::test]
async fn a_partition_that_is_not_drained_is_bounded_and_stops_nobody() {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("backpressure");
    kafka.create_topic(&topic, 2, &[]).await;
    // Brokers do not split a producer's batch: small ones, so that limits show.
    let producer = ProducerConfig::builder()
        .bootstrap_servers(kafka.bootstrap_servers())
        .property("batch.size", "100000")
        .build()
        .expect("valid");
    let producer = Producer::new(producer).expect("a producer");
    let count = 4_000_i64;
    for partition in 0..2 {
        let record = |i: i64| {
            let mut value = i.to_be_bytes().to_vec();
            // Not compressible, or the broker's bytes would not be the client's.
            value.extend((0..1250).flat_map(|w| ((w * 2_654_435_761_u64) ^ i as u64).to_le_bytes()));
            ProducerRecord::to(&topic).partition(partition).value(value)
        };
        assert!(producer.send_all((0..count).map(record)).await.is_complete());
    }
    let share = 4 << 20;
    let consumer = Consumer::start(
        config(kafka, &topic)
            .memory_budget(2 * share)
            .expected_partitions(2)
            .property("statistics.interval.ms", "100")
            .build()
            .expect("valid"),
    )
    .expect("started");
    let mut streams = begin_all(&consumer, 2, BeginAt::Group).await;
    let mut idle = streams.remove(0);
    let mut busy = streams.remove(0);
    assert_eq!(read_to(&mut busy, count).await.len(), 4_000);
    // 40 MB were read from one partition; of the other, prefetch and stream stay inside its share.
    let statistics = consumer.statistics().expect("statistics are on");
    let statistics: serde_json::Value = serde_json::from_str(&statistics).expect("JSON");
    let queued = statistics["topics"][&topic]["partitions"]["0"]["fetchq_size"].as_u64().expect("a number");
    assert!(queued > 0, "it does prefetch");
    assert!(queued <= (share / 4 + share / 8) as u64, "{queued} bytes are prefetched");
    // And nothing of it was lost or thrown away.
    let mut expected = 0;
    while expected < count {
        let delivery = next(&mut idle).await;
        for record in delivery.batch.iter() {
            assert_eq!(record.offset(), expected);
            assert_eq!(record.value().and_then(|v| v.first_chunk::<8>()), Some(&expected.to_be_bytes()));
            expected += 1;
        }
    }
    consumer.close(PATIENCE).await.expect("closed");
    producer.close(PATIENCE).await.expect("closed");
}

#[tokio::test]
async fn a_slow_reader_is_not_expelled() {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("slow");
    kafka.create_topic(&topic, 1, &[]).await;
    fill(kafka, &topic, 0, 100).await;
    let consumer = Consumer::start(
        config(kafka, &topic)
            .group_protocol(GroupProtocol::Classic(Assignor::Range))
            .session_timeout(Duration::from_secs(3))
            .property("heartbeat.interval.ms", "300")
            .property("max.poll.interval.ms", "3000")
            .build()
            .expect("valid"),
    )
    .expect("started");
    let mut stream = begin_one(&consumer, BeginAt::Group).await;
    let delivery = next(&mut stream).await;
    // Nothing may happen for three times the limits.
    let quiet = tokio::time::timeout(Duration::from_secs(9), event(&consumer)).await;
    assert!(quiet.is_err(), "{quiet:?}");
    let end = delivery.next;
    assert_eq!(stream.complete(delivery.token), Completion::Done);
    consumer.close(PATIENCE).await.expect("closed");
    let consumer = Consumer::start(config(kafka, &topic).build().expect("valid")).expect("started");
    match event(&consumer).await {
        ConsumerEvent::Assigned(list) => assert_eq!(list[0].group_offset, Some(end)),
        other => panic!("{other:?}"),
    }
    consumer.close(PATIENCE).await.expect("closed");
}

async fn an_offset_is_gone(protocol: GroupProtocol) {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("gone");
    kafka.create_topic(&topic, 1, &[]).await;
    fill(kafka, &topic, 0, 100).await;
    kafka.delete_records(&topic, 0, 50).await;
    let consumer = Consumer::start(config(kafka, &topic).group_protocol(protocol).build().expect("valid"))
        .expect("started");
    let mut stream = begin_one(&consumer, BeginAt::Offset(10)).await;
    let error = match event(&consumer).await {
        ConsumerEvent::Error(error) => error,
        other => panic!("{other:?}"),
    };
    assert!(!error.is_retryable());
    assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
    assert_eq!((error.topic(), error.partition(), error.offset()), (Some(&*topic), Some(0), Some(10)));
    let text = error.to_string();
    assert!(text.contains(&format!("topic {topic}, partition 0, offset 10")), "{text}");
    // The person decides: go on after the gap.
    assert!(stream.seek(BeginAt::Earliest));
    let values = read_to(&mut stream, 100).await;
    assert_eq!(values.first().map(String::as_str), Some("record 50"));
    consumer.close(PATIENCE).await.expect("closed");
}

#[tokio::test]
async fn an_offset_that_is_gone_is_an_error_that_names_it() {
    an_offset_is_gone(GroupProtocol::Classic(Assignor::CooperativeSticky)).await;
}

#[tokio::test]
async fn an_offset_that_is_gone_is_an_error_under_the_eager_protocol_too() {
    an_offset_is_gone(GroupProtocol::Classic(Assignor::Range)).await;
}

#[tokio::test]
async fn latest_begins_at_the_end_once_and_new_partitions_at_their_beginning() {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("latest");
    kafka.create_topic(&topic, 1, &[]).await;
    fill(kafka, &topic, 0, 20).await;
    let config = || {
        config(kafka, &topic)
            .start(Start::Latest)
            .property("topic.metadata.refresh.interval.ms", "300")
            .build()
            .expect("valid")
    };
    let consumer = Consumer::start(config()).expect("started");
    let stream = begin_one(&consumer, BeginAt::Group).await;
    drop(stream);
    consumer.close(PATIENCE).await.expect("closed");
    // The end was committed though nothing was read: what came meanwhile is not skipped.
    fill(kafka, &topic, 0, 5).await;
    kafka.grow_topic(&topic, 2).await;
    fill(kafka, &topic, 1, 7).await;
    let consumer = Consumer::start(config()).expect("started");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match event(&consumer).await {
            ConsumerEvent::Assigned(list) => {
                for partition in list {
                    let (number, group_offset) = (partition.partition, partition.group_offset);
                    let mut stream = partition.begin(BeginAt::Group);
                    let read = read_to(&mut stream, [25, 7][usize::try_from(number).expect("small")]).await;
                    seen.push((number, group_offset, read.len()));
                }
            }
            ConsumerEvent::Revoked(_) => {}
            other => panic!("{other:?}"),
        }
    }
    seen.sort();
    assert_eq!(seen, [(0, Some(20), 5), (1, None, 7)]);
    consumer.close(PATIENCE).await.expect("closed");
}

#[tokio::test]
async fn a_start_that_wants_a_committed_offset_does_not_invent_one() {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("committed");
    kafka.create_topic(&topic, 1, &[]).await;
    fill(kafka, &topic, 0, 20).await;
    let config = || config(kafka, &topic).start(Start::Committed).build().expect("valid");
    let consumer = Consumer::start(config()).expect("started");
    let mut stream = begin_one(&consumer, BeginAt::Group).await;
    match event(&consumer).await {
        ConsumerEvent::Error(error) => assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange, "{error}"),
        other => panic!("{other:?}"),
    }
    // An explicit place is fine, and is committed once something before it counts as done.
    assert!(stream.seek(BeginAt::Offset(12)));
    assert_eq!(read_to(&mut stream, 20).await.len(), 8);
    consumer.close(PATIENCE).await.expect("closed");
    let consumer = Consumer::start(config()).expect("started");
    match event(&consumer).await {
        ConsumerEvent::Assigned(list) => assert_eq!(list[0].group_offset, Some(20)),
        other => panic!("{other:?}"),
    }
    consumer.close(PATIENCE).await.expect("closed");
}

#[tokio::test]
async fn a_topic_that_is_created_again_has_another_id() {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("recreated");
    kafka.create_topic(&topic, 1, &[]).await;
    let consumer = Consumer::start(config(kafka, &topic).build().expect("valid")).expect("started");
    let before = match event(&consumer).await {
        ConsumerEvent::Assigned(list) => list[0].topic_id.expect("a real broker has ids"),
        other => panic!("{other:?}"),
    };
    assert_eq!(consumer.topic_id(&topic).await.expect("asked again"), before);
    kafka.delete_topic(&topic).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !kafka.try_create_topic(&topic, 1).await {
        assert!(tokio::time::Instant::now() < deadline, "the name is not free");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    loop {
        match consumer.topic_id(&topic).await {
            Ok(id) if id != before => break,
            // The broker that is asked may not have heard yet.
            other => assert!(tokio::time::Instant::now() < deadline, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let missing = consumer.topic_id("no-such-topic").await.expect_err("it does not exist");
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
    assert!(!consumer.cluster_id().await.expect("told").is_empty());
    consumer.close(PATIENCE).await.expect("closed");
}

#[tokio::test]
async fn null_and_empty_and_headers_survive_the_round_trip() {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("headers");
    kafka.create_topic(&topic, 1, &[]).await;
    let producer = producer(kafka);
    let records = [
        ProducerRecord::to(&topic),
        ProducerRecord::to(&topic).key("").value(""),
        ProducerRecord::to(&topic)
            .key("k")
            .value("v")
            .header("twice", "1")
            .null_header("twice")
            .header("empty", "")
            .header(b"not utf-8 \xff", b"\x00\x01".as_slice())
            .timestamp(1_234),
    ];
    let report = producer.send_all(records).await;
    let offsets: Vec<_> = report.into_result().expect("all written").iter().map(|d| d.offset).collect();
    assert_eq!(offsets, [0, 1, 2]);
    producer.close(PATIENCE).await.expect("closed");
    let consumer = Consumer::start(config(kafka, &topic).build().expect("valid")).expect("started");
    let mut stream = begin_one(&consumer, BeginAt::Group).await;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let delivery = next(&mut stream).await;
        assert_eq!(delivery.batch.topic_id(), stream.topic_id());
        assert!(delivery.batch.leader_epoch().is_some());
        for record in delivery.batch.iter() {
            let own = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            let headers: Vec<_> = record.headers().map(|h| (h.name.to_vec(), own(h.value))).collect();
            seen.push((own(record.key()), own(record.value()), headers, record.timestamp()));
        }
    }
    assert_eq!((&seen[0].0, &seen[0].1), (&None, &None));
    assert_eq!((&seen[1].0, &seen[1].1), (&Some(vec![]), &Some(vec![])));
    assert_eq!(seen[2].3, Some(1_234));
    let expected: Vec<(Vec<u8>, Option<Vec<u8>>)> = vec![
        (b"twice".to_vec(), Some(b"1".to_vec())),
        (b"twice".to_vec(), None),
        (b"empty".to_vec(), Some(vec![])),
        (b"not utf-8 \xff".to_vec(), Some(vec![0, 1])),
    ];
    assert_eq!(seen[2].2, expected);
    consumer.close(PATIENCE).await.expect("closed");
}

#[tokio::test]
async fn send_all_tells_what_became_of_each_record() {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("reports");
    kafka.create_topic(&topic, 1, &[("max.message.bytes", "10000")]).await;
    let producer = producer(kafka);
    // Each in a request of its own, or the broker refuses what shares a batch with the large one.
    let mut outcomes = Vec::new();
    for size in [10, 20_000, 30] {
        let bytes: Vec<u8> = (0..size).map(|_| rand::random()).collect();
        outcomes.push(producer.send(ProducerRecord::to(&topic).value(bytes)).await);
    }
    assert_eq!(outcomes[0].as_ref().expect("small").offset, 0);
    assert_eq!(outcomes[1].as_ref().expect_err("too large for the topic").kind(), ErrorKind::TooLarge);
    assert_eq!(outcomes[2].as_ref().expect("small").offset, 1);
    let records = (0..5).map(|i| {
        let partition = if i == 3 { 99 } else { 0 };
        ProducerRecord::to(&topic).partition(partition).value("x")
    });
    let report = producer.send_all(records).await;
    let failed: Vec<_> = report.failures().map(|(i, e)| (i, e.kind())).collect();
    assert_eq!(failed, [(3, ErrorKind::NotFound)]);
    assert!(!report.is_complete());
    producer.close(PATIENCE).await.expect("closed");
}

/// Aborted records and markers at the end of a range, ranges within a partition, and more partitions than one: each record
/// once, and then the end.
#[tokio::test]
async fn ranges_are_read_once_without_a_group_and_end() {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("ranges");
    kafka.create_topic(&topic, 3, &[]).await;
    fill(kafka, &topic, 0, 1_000).await;
    let id = topic.clone();
    tokio::task::spawn_blocking(move || {
        let producer = TransactionalProducer::new(kafka, &id);
        for (round, commit) in [true, false].into_iter().enumerate() {
            producer.begin();
            for i in 0..10 {
                producer.send(&id, 1, None, format!("{round}.{i}").as_bytes());
            }
            if commit { producer.commit() } else { producer.abort() }
        }
    })
    .await
    .expect("written");
    let config = config(kafka, &topic).build().expect("valid");
    let topics = Topics::connect(&config).expect("connected");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let extents = topics.extents(&topic).await.expect("told");
        let ends: Vec<i64> = extents.iter().map(|extent| extent.end).collect();
        if ends == [1_000, 22, 0] {
            break;
        }
        // The marker of the last transaction comes after its producer has its answer.
        assert!(tokio::time::Instant::now() < deadline, "{ends:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let name: std::sync::Arc<str> = topic.as_str().into();
    let range = |partition, first, end| PartitionRange { topic: name.clone(), partition, first, end };
    // From the middle to before the end; all, of which the last half is aborted; nothing.
    let ranges = vec![range(0, 500, 990), range(1, 0, 22), range(2, 0, 0)];
    let read = |ranges: Vec<PartitionRange>| {
        let config = config.clone();
        tokio::task::spawn_blocking(move || {
            let mut reader = RangeReader::open(&config, ranges).expect("opened");
            let mut values: [Vec<String>; 3] = Default::default();
            while let Some(batch) = reader.next_batch().expect("read") {
                let partition = usize::try_from(batch.partition()).expect("a number");
                let text =
                    |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
                values[partition].extend(batch.iter().map(|record| text(record.value())));
            }
            assert!(reader.next_batch().expect("still at its end").is_none());
            values
        })
    };
    let [plain, transactional, none] = read(ranges).await.expect("no panic");
    assert_eq!(plain, (500..990).map(|i| format!("record {i}")).collect::<Vec<_>>());
    assert_eq!(transactional, (0..10).map(|i| format!("0.{i}")).collect::<Vec<_>>());
    assert_eq!(none.len(), 0);
    // A range of aborted records alone, and of nothing at all.
    let [_, transactional, _] = read(vec![range(1, 12, 20)]).await.expect("no panic");
    assert_eq!(transactional.len(), 0);
    read(Vec::new()).await.expect("no panic");
    // Past the end there is nothing to come; it is said, and not waited for.
    let impatient = config_with_patience(kafka, &topic);
    let beyond = range(2, 5, 9);
    let error = tokio::task::spawn_blocking(move || {
        let mut reader = RangeReader::open(&impatient, [beyond]).expect("opened");
        reader.next_batch().expect_err("there is no such offset")
    });
    let error = error.await.expect("no panic");
    assert!(matches!(error.kind(), ErrorKind::OffsetOutOfRange | ErrorKind::TimedOut), "{error}");
}

fn config_with_patience(kafka: &RealKafka, topic: &str) -> ConsumerConfig {
    config(kafka, topic).lookup_timeout(Duration::from_secs(3)).build().expect("valid")
}
