//! Where a partition begins, on a cluster that is slow or refuses.

use std::time::Duration;

use gristmill::{
    Assignor, BeginAt, Consumer, ConsumerEvent, ErrorKind, Extent, GroupProtocol, MockCluster, MockRequest,
    PartitionStream, Topics,
};

use crate::consumer::{PATIENCE, begin_all, cluster, config, fill, fill_with, next};

/// A topic whose leader answers late, while everything else answers at once.
fn slow_leader(topic: &str) -> MockCluster {
    let cluster = cluster();
    cluster.create_topic(topic, 1).expect("a topic");
    cluster.set_leader(topic, 0, 3).expect("it exists");
    cluster.set_group_coordinator(&format!("group-of-{topic}"), 1).expect("it exists");
    fill(&cluster, topic, 1, 100);
    cluster.set_round_trip(3, Duration::from_millis(1_000)).expect("it exists");
    cluster
}

/// A sink takes its time to find out where it was: long enough that librdkafka would be in the middle of a
/// look-up, if it had been given one to do (it first asks for one half a second after the assignment).
async fn begin_late(consumer: &Consumer, from: BeginAt) -> PartitionStream {
    let assigned = async {
        loop {
            match consumer.next_event().await.expect("the consumer runs") {
                ConsumerEvent::Assigned(mut list) => return list.remove(0),
                ConsumerEvent::Error(error) => assert!(error.is_retryable(), "{error}"),
                other => panic!("{other:?}"),
            }
        }
    };
    let assigned = tokio::time::timeout(PATIENCE, assigned).await.expect("an assignment in time");
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assigned.begin(from)
}

async fn begins_exactly_where_it_was_told_to(topic: &str, protocol: GroupProtocol) {
    let cluster = slow_leader(topic);
    let config = config(&cluster, topic).group_protocol(protocol).build().expect("valid");
    let consumer = Consumer::start(config).expect("started");
    let mut stream = begin_late(&consumer, BeginAt::Offset(10)).await;
    let mut expected = 10;
    while expected < 100 {
        let delivery = next(&mut stream).await;
        for record in delivery.batch.iter() {
            assert_eq!(record.offset(), expected);
            expected += 1;
        }
        assert_eq!(delivery.next, expected, "nothing was passed over");
    }
    consumer.close(PATIENCE).await.expect("closed");
}

#[tokio::test]
async fn a_cooperative_member_begins_where_it_was_told_to_though_the_leader_is_slow() {
    let protocol = GroupProtocol::Classic(Assignor::CooperativeSticky);
    begins_exactly_where_it_was_told_to("slow-cooperative", protocol).await;
}

#[tokio::test]
async fn an_eager_member_begins_where_it_was_told_to_though_the_leader_is_slow() {
    begins_exactly_where_it_was_told_to("slow-eager", GroupProtocol::Classic(Assignor::Range)).await;
}

#[tokio::test]
async fn a_kip_848_member_begins_where_it_was_told_to_though_the_leader_is_slow() {
    begins_exactly_where_it_was_told_to("slow-kip848", GroupProtocol::Consumer).await;
}

#[tokio::test]
async fn a_seek_overtakes_the_question_for_the_earliest_offset() {
    let cluster = slow_leader("overtaken");
    let consumer = Consumer::start(config(&cluster, "overtaken").build().expect("valid")).expect("started");
    let mut stream = begin_late(&consumer, BeginAt::Earliest).await;
    assert!(stream.seek(BeginAt::Offset(40)));
    let mut expected = 40;
    while expected < 100 {
        let delivery = next(&mut stream).await;
        assert_eq!(delivery.batch.first_offset().unwrap_or(expected), expected);
        expected = delivery.next;
    }
    // And back, which has to ask again.
    assert!(stream.seek(BeginAt::Earliest));
    assert_eq!(next(&mut stream).await.batch.first_offset(), Some(0));
    consumer.close(PATIENCE).await.expect("closed");
}

/// The next error that is not merely a delay.
async fn error(consumer: &Consumer) -> gristmill::Error {
    let wait = async {
        loop {
            match consumer.next_event().await.expect("the consumer runs") {
                ConsumerEvent::Error(error) if error.is_retryable() => {}
                ConsumerEvent::Error(error) => return error,
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("an error in time")
}

#[tokio::test]
async fn after_an_error_a_partition_stands_still_until_it_is_sought() {
    let cluster = cluster();
    cluster.create_topic("hole", 1).expect("a topic");
    fill(&cluster, "hole", 1, 100);
    let consumer = Consumer::start(config(&cluster, "hole").build().expect("valid")).expect("started");
    // CORRUPT_MESSAGE, before anything is fetched.
    cluster.fail_next(MockRequest::Fetch, &[2]);
    let mut stream = begin_all(&consumer, 1, BeginAt::Offset(5)).await.remove(0);
    let told = error(&consumer).await;
    assert_eq!((told.kind(), told.topic(), told.partition()), (ErrorKind::Malformed, Some("hole"), Some(0)));
    // librdkafka goes on fetching behind the error; none of it may come.
    let behind = tokio::time::timeout(Duration::from_millis(1_500), stream.next()).await;
    assert!(behind.is_err(), "{behind:?}");
    assert!(stream.seek(BeginAt::Offset(5)));
    let mut expected = 5;
    while expected < 100 {
        let delivery = next(&mut stream).await;
        assert_eq!(delivery.batch.first_offset().unwrap_or(expected), expected);
        expected = delivery.next;
    }
    consumer.close(PATIENCE).await.expect("closed");
}

#[tokio::test]
async fn what_lies_behind_an_error_in_the_queue_is_not_delivered() {
    let cluster = cluster();
    cluster.create_topic("behind", 1).expect("a topic");
    fill_with(&cluster, "behind", 1, 400, &[("batch.num.messages", "4")], |i| format!("{i:01000}"));
    let config = config(&cluster, "behind").memory_budget(64 << 10).expected_partitions(1);
    let consumer = Consumer::start(config.build().expect("valid")).expect("started");
    // The first answers go to the stream, which then has enough. CORRUPT_MESSAGE waits in librdkafka's queue,
    // and so do records that are fetched after it.
    cluster.fail_next(MockRequest::Fetch, &[0, 0, 0, 2]);
    let mut stream = begin_all(&consumer, 1, BeginAt::Offset(0)).await.remove(0);
    tokio::time::sleep(Duration::from_millis(2_000)).await;
    let mut position = 0;
    let told = error(&consumer);
    tokio::pin!(told);
    let told = loop {
        tokio::select! {
            told = &mut told => break told,
            delivery = stream.next() => position = delivery.expect("assigned").next,
        }
    };
    while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_millis(300), stream.next()).await {
        position = delivery.next;
    }
    assert_eq!(told.kind(), ErrorKind::Malformed);
    assert_eq!(Some(position), told.offset(), "delivered up to the error, and no further");
    assert!(stream.seek(BeginAt::Offset(position)));
    while position < 400 {
        let delivery = next(&mut stream).await;
        assert_eq!(delivery.batch.first_offset().unwrap_or(position), position);
        position = delivery.next;
    }
    consumer.close(PATIENCE).await.expect("closed");
}

async fn goes_on_after_an_offset_that_is_not_there(topic: &str, protocol: GroupProtocol) {
    let cluster = cluster();
    cluster.create_topic(topic, 2).expect("a topic");
    fill(&cluster, topic, 2, 200);
    let config = config(&cluster, topic).group_protocol(protocol).build().expect("valid");
    let consumer = Consumer::start(config).expect("started");
    let mut streams = begin_all(&consumer, 2, BeginAt::Offset(5_000)).await;
    for _ in 0..2 {
        assert_eq!(error(&consumer).await.kind(), ErrorKind::OffsetOutOfRange);
    }
    for stream in &mut streams {
        assert!(stream.seek(BeginAt::Offset(99)));
        assert_eq!(next(stream).await.batch.first_offset(), Some(99));
    }
    consumer.close(PATIENCE).await.expect("closed");
}

#[tokio::test]
async fn a_cooperative_member_goes_on_after_an_offset_that_is_not_there() {
    let protocol = GroupProtocol::Classic(Assignor::CooperativeSticky);
    goes_on_after_an_offset_that_is_not_there("range-cooperative", protocol).await;
}

#[tokio::test]
async fn an_eager_member_goes_on_after_an_offset_that_is_not_there() {
    let protocol = GroupProtocol::Classic(Assignor::Range);
    goes_on_after_an_offset_that_is_not_there("range-eager", protocol).await;
}

#[tokio::test]
async fn a_stream_with_an_end_gives_everything_before_it_and_nothing_behind_it() {
    let cluster = cluster();
    cluster.create_topic("bounded", 1).expect("a topic");
    fill(&cluster, "bounded", 1, 5_000);
    let consumer = Consumer::start(config(&cluster, "bounded").build().expect("valid")).expect("started");
    let stream = begin_all(&consumer, 1, BeginAt::Offset(1_100)).await.remove(0);
    let mut stream = stream.until(3_333);
    for _ in 0..2 {
        let mut expected = 1_100;
        while expected < 3_333 {
            let delivery = next(&mut stream).await;
            for record in delivery.batch.iter() {
                assert_eq!(record.offset(), expected);
                expected += 1;
            }
            assert_eq!(delivery.next, expected, "a token completes no more than was given");
        }
        let more = tokio::time::timeout(Duration::from_millis(300), stream.next()).await;
        assert!(more.is_err(), "nothing comes behind the end: {more:?}");
        assert!(stream.seek(BeginAt::Offset(1_100)), "and a seek reads up to it again");
    }
    consumer.close(PATIENCE).await.expect("closed");
}

#[tokio::test]
async fn topics_are_described_without_joining_a_group() {
    let cluster = cluster();
    cluster.create_topic("described", 2).expect("a topic");
    fill(&cluster, "described", 2, 11);
    let topics = Topics::connect(&config(&cluster, "described").build().expect("valid")).expect("a client");
    let extents = topics.extents("described").await.expect("an answer");
    assert_eq!(extents, [Extent { earliest: 0, end: 6 }, Extent { earliest: 0, end: 5 }]);
    assert!(!topics.cluster_id().await.expect("an answer").is_empty());
}
