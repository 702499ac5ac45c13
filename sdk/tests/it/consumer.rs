use std::collections::BTreeMap;
use std::time::Duration;

use gristmill::{BeginAt, Consumer, ConsumerConfig, ConsumerEvent, MockCluster, PartitionStream, TopicIds};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

const PATIENCE: Duration = Duration::from_secs(30);

/// Writes `count` records round-robin over `partitions`; the value is the record's number.
fn fill(cluster: &MockCluster, topic: &str, partitions: i32, count: usize) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("linger.ms", "5")
        .create()
        .expect("a producer");
    for i in 0..count {
        let value = format!("record {i}");
        let record = BaseRecord::<(), [u8]>::to(topic)
            .partition(i32::try_from(i).expect("few") % partitions)
            .payload(value.as_bytes());
        producer.send(record).map_err(|(e, _)| e).expect("room in the queue");
    }
    producer.flush(PATIENCE).expect("all written");
}

fn config(cluster: &MockCluster, topic: &str) -> gristmill::ConsumerConfigBuilder {
    ConsumerConfig::builder()
        .bootstrap_servers(cluster.bootstrap_servers())
        .group_id(format!("group-of-{topic}"))
        .topics([topic])
        .topic_ids(TopicIds::NotAvailable)
}

async fn begin_all(consumer: &Consumer, partitions: usize, from: BeginAt) -> Vec<PartitionStream> {
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

fn cluster() -> MockCluster {
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
