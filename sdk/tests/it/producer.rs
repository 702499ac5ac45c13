use std::time::{Duration, Instant};

use gristmill::{
    ErrorKind, MockCluster, MockRequest, Producer, ProducerConfig, ProducerConfigBuilder, ProducerRecord,
};

use crate::consumer::quickest;

const PATIENCE: Duration = Duration::from_secs(30);

fn cluster(topic: &str) -> MockCluster {
    let cluster = MockCluster::start(1).expect("a mock cluster");
    cluster.create_topic(topic, 1).expect("a topic");
    cluster
}

fn config(cluster: &MockCluster) -> ProducerConfigBuilder {
    ProducerConfig::builder().bootstrap_servers(cluster.bootstrap_servers())
}

fn start(config: ProducerConfigBuilder) -> Producer {
    Producer::new(config.build().expect("valid")).expect("a producer")
}

#[tokio::test]
async fn records_lie_in_the_order_of_sending_though_requests_fail() {
    let cluster = cluster("order");
    // The mock looks at no sequence: with one request at a time, what is tried again has none to be overtaken by.
    let config = config(&cluster).linger(Duration::from_millis(20)).property("max.in.flight", "1");
    let producer = start(config.property("batch.num.messages", "100"));
    // NOT_ENOUGH_REPLICAS and NOT_LEADER: tried again by the idempotent producer.
    cluster.fail_next(MockRequest::Produce, &[0, 19, 19, 6, 0, 19, 0, 6]);
    let first = producer.send(ProducerRecord::to("order").value("0")).await.expect("delivered");
    assert_eq!(first.offset, 0);
    let mut pending = Vec::new();
    for i in 1..500 {
        pending
            .push(producer.enqueue(ProducerRecord::to("order").value(format!("{i}"))).await.expect("room"));
    }
    for (i, delivery) in pending.into_iter().enumerate() {
        assert_eq!(delivery.await.expect("delivered").offset, i64::try_from(i + 1).expect("few"));
    }
    producer.close(PATIENCE).await.expect("closed");
}

#[tokio::test]
async fn a_full_buffer_makes_the_sender_wait() {
    let cluster = cluster("full");
    let producer = start(config(&cluster).max_buffered_records(50));
    cluster.set_round_trip(1, Duration::from_millis(20)).expect("it exists");
    let records = (0..2_000).map(|i| ProducerRecord::to("full").value(format!("{i}")));
    let report = producer.send_all(records).await;
    assert!(report.is_complete(), "{:?}", report.failures().next());
    assert_eq!(report.outcomes().len(), 2_000);
    producer.close(PATIENCE).await.expect("closed");
}

#[tokio::test]
async fn flush_waits_for_every_report() {
    let cluster = cluster("flush");
    let producer =
        start(config(&cluster).linger(Duration::from_secs(60)).delivery_timeout(Duration::from_secs(120)));
    let pending = producer.enqueue(ProducerRecord::to("flush").value("x")).await.expect("room");
    producer.flush(PATIENCE).await.expect("flushed long before it would linger out");
    assert_eq!(producer.buffered(), 0);
    assert_eq!(pending.await.expect("delivered").offset, 0);
    producer.close(PATIENCE).await.expect("closed");
}

#[tokio::test]
async fn closing_gives_up_in_time_and_every_record_gets_its_report() {
    let cluster = cluster("down");
    let producer = start(config(&cluster));
    producer.send(ProducerRecord::to("down").value("first")).await.expect("delivered");
    cluster.set_broker_up(1, false).expect("it exists");
    let pending = producer.enqueue(ProducerRecord::to("down").value("second")).await.expect("room");
    let clone = producer.clone();
    let began = Instant::now();
    let flush = producer.flush(Duration::from_millis(300)).await.expect_err("the broker is down");
    assert_eq!(flush.kind(), ErrorKind::TimedOut);
    let error = producer.close(Duration::from_millis(500)).await.expect_err("one record is given up");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(pending.await.expect_err("given up").kind(), ErrorKind::Closed);
    let error =
        clone.send(ProducerRecord::to("down").value("third")).await.expect_err("closed for all clones");
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_record_that_is_too_large_is_refused_at_once() {
    let cluster = cluster("large");
    let producer = start(config(&cluster));
    let error = producer.send(ProducerRecord::to("large").value(vec![0; 2_000_000])).await.expect_err("2 MB");
    assert_eq!((error.kind(), error.topic()), (ErrorKind::TooLarge, Some("large")));
    let error = producer.send(ProducerRecord::to("la\0rge").value("x")).await.expect_err("a NUL byte");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    producer.close(PATIENCE).await.expect("closed");
}

#[tokio::test]
async fn dropping_does_not_wait_and_still_delivers() {
    let cluster = cluster("drop");
    let mut producers = Vec::new();
    let mut pending = Vec::new();
    for _ in 0..3 {
        let producer = start(config(&cluster).linger(Duration::from_millis(200)));
        pending.push(producer.enqueue(ProducerRecord::to("drop").value("x")).await.expect("room"));
        producers.push(producer);
    }
    let producers: [Producer; 3] = producers.try_into().expect("three");
    assert!(quickest(producers) < Duration::from_millis(100));
    for delivery in pending {
        delivery.await.expect("delivered in the background");
    }
}
