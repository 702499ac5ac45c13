//! The SDK while brokers of a three-node cluster are killed and frozen.

use std::collections::BTreeMap;
use std::time::Duration;

use gristmill::{BeginAt, Consumer, ConsumerEvent, ProducerRecord};
use gristmill_tests::{RealKafka, unique};

use crate::sdk::{PATIENCE, begin_all, config, producer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_and_a_frozen_broker_cost_no_record_and_repeat_none() {
    let Some(kafka) = RealKafka::start(3) else { return };
    let topic = unique("failures");
    kafka.create_topic(&topic, 3, &[]).await;
    let consumer = Consumer::start(config(&kafka, &topic).build().expect("valid")).expect("started");
    let streams = begin_all(&consumer, 3, BeginAt::Group).await;
    let readers: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            tokio::spawn(async move {
                let mut values = Vec::new();
                while let Some(delivery) = stream.next().await {
                    for record in delivery.batch.iter() {
                        let text = std::str::from_utf8(record.value().expect("a value")).expect("digits");
                        values.push(text.parse::<i64>().expect("a number"));
                    }
                    let last = values.len() == 2_000;
                    stream.complete(delivery.token);
                    if last {
                        break;
                    }
                }
                (stream.partition(), values)
            })
        })
        .collect();
    let producer = producer(&kafka);
    let mut pending = Vec::new();
    for i in 0..6_000_i64 {
        match i {
            1_500 => kafka.kill(1),
            3_000 => kafka.restart(1),
            4_000 => kafka.pause(2),
            5_000 => kafka.resume(2),
            _ => {}
        }
        let partition = i32::try_from(i % 3).expect("small");
        let record = ProducerRecord::to(&topic).partition(partition).value(i.to_string());
        pending.push((partition, producer.enqueue(record).await.expect("room")));
        if i % 100 == 99 {
            // Requests in flight at every fault, and time for the fault to be felt.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    for (partition, delivery) in pending {
        let delivered =
            tokio::time::timeout(3 * PATIENCE, delivery).await.expect("in time").expect("delivered");
        let next = next.entry(partition).or_default();
        assert_eq!(delivered.offset, *next, "once, and in the order of sending");
        *next += 1;
    }
    for reader in readers {
        let (partition, values) =
            tokio::time::timeout(3 * PATIENCE, reader).await.expect("read in time").expect("no panic");
        let expected: Vec<_> = (0..2_000).map(|n| n * 3 + i64::from(partition)).collect();
        assert!(values == expected, "partition {partition}: each once and in order");
    }
    consumer.close(PATIENCE).await.expect("closed");
    while let Some(event) = consumer.next_event().await {
        match event {
            ConsumerEvent::Lost(list) => panic!("{list:?}"),
            ConsumerEvent::Error(error) => assert!(!error.is_fatal(), "{error}"),
            _ => {}
        }
    }
    producer.close(PATIENCE).await.expect("closed");
}
