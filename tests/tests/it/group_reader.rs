//! A group as one stream of batches, on a real broker: what moves to another member.

use std::collections::BTreeMap;

use gristmill::{Assignor, GroupBatch, GroupProtocol, GroupReader};
use gristmill_tests::{RealKafka, shared_kafka, unique};

use crate::sdk::{PATIENCE, config, fill};

async fn next(reader: &GroupReader) -> GroupBatch {
    let batch = tokio::time::timeout(PATIENCE, reader.next_batch()).await.expect("in time");
    batch.expect("no error").expect("the reader is open")
}

fn start(kafka: &RealKafka, topic: &str, protocol: GroupProtocol) -> GroupReader {
    let config = config(kafka, topic).group_protocol(protocol).batch_records(10).build().expect("valid");
    GroupReader::start(config, None).expect("started")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_after_the_partition_has_gone_counts_for_nothing_and_says_so() {
    let Some(kafka) = shared_kafka() else { return };
    for protocol in [GroupProtocol::Classic(Assignor::CooperativeSticky), GroupProtocol::Consumer] {
        let topic = unique("moving");
        kafka.create_topic(&topic, 2, &[]).await;
        for partition in 0..2 {
            fill(kafka, &topic, partition, 40).await;
        }
        let reader = start(kafka, &topic, protocol);
        let mut held = BTreeMap::new();
        while held.len() < 2 {
            let batch = next(&reader).await;
            held.entry(batch.records().partition()).or_insert(batch);
        }
        let second = start(kafka, &topic, protocol);
        // One partition moves, and begins where the group is: at its first record.
        let moved = next(&second).await;
        let partition = moved.records().partition();
        assert_eq!(moved.records().first_offset(), Some(0));
        assert!(!held[&partition].ack(), "it is the other member's");
        assert!(held[&(1 - partition)].ack());
        assert!(moved.ack());
        reader.close(PATIENCE).await.expect("closed");
        second.close(PATIENCE).await.expect("closed");
    }
}
