//! A group's offsets from outside the group, and the mark that commits carry.

use std::time::Duration;

use gristmill::{BeginAt, Consumer, ConsumerEvent, ErrorKind, GroupOffset, GroupOffsets};

use crate::consumer::{PATIENCE, cluster, config, fill, next};

async fn assigned(consumer: &Consumer) -> Vec<gristmill::AssignedPartition> {
    let assigned = async {
        loop {
            match consumer.next_event().await.expect("the consumer runs") {
                ConsumerEvent::Assigned(list) => return list,
                ConsumerEvent::Error(error) => assert!(error.is_retryable(), "{error}"),
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, assigned).await.expect("an assignment in time")
}

#[tokio::test]
async fn commits_carry_the_partitions_mark_also_the_first_and_the_last() {
    let cluster = cluster();
    cluster.create_topic("marked", 1).expect("a topic");
    fill(&cluster, "marked", 1, 20);
    let group = GroupOffsets::new(&config(&cluster, "marked").build().expect("valid")).expect("started");
    assert_eq!(group.committed("marked").await.expect("it answers"), []);

    let consumer = Consumer::start(config(&cluster, "marked").build().expect("valid")).expect("started");
    let partition = assigned(&consumer).await.remove(0);
    assert_eq!((partition.group_offset, &partition.group_metadata), (None, &None));
    // The start is committed at once, since the group has nothing.
    let mut stream = partition.commit_metadata("the mark").begin(BeginAt::Offset(5));
    let committed = |offset| [GroupOffset { partition: 0, offset, metadata: Some("the mark".into()) }];
    let first = async {
        while group.committed("marked").await.expect("it answers") != committed(5) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, first).await.expect("the start is committed");
    let delivery = next(&mut stream).await;
    let end = delivery.next;
    stream.complete(delivery.token);
    consumer.close(PATIENCE).await.expect("closed");
    assert_eq!(group.committed("marked").await.expect("it answers"), committed(end));
}

#[tokio::test]
async fn offsets_are_set_while_the_group_is_empty_and_refused_while_it_is_not() {
    let cluster = cluster();
    cluster.create_topic("set", 2).expect("a topic");
    fill(&cluster, "set", 2, 10);
    let group = GroupOffsets::new(&config(&cluster, "set").build().expect("valid")).expect("started");
    let wanted = |offset| {
        vec![
            GroupOffset { partition: 0, offset, metadata: Some("by hand".into()) },
            GroupOffset { partition: 1, offset: offset + 1, metadata: None },
        ]
    };
    group.set("set", wanted(3)).await.expect("the group is empty");
    assert_eq!(group.committed("set").await.expect("it answers"), wanted(3));
    assert_eq!(group.watermarks("set", 0).await.expect("it answers").0, 0);

    let consumer = Consumer::start(config(&cluster, "set").build().expect("valid")).expect("started");
    let partitions = assigned(&consumer).await;
    let mut told: Vec<_> =
        partitions.iter().map(|p| (p.partition, p.group_offset, p.group_metadata.as_deref())).collect();
    told.sort_unstable();
    assert_eq!(told, [(0, Some(3), Some("by hand")), (1, Some(4), None)]);
    let error = group.set("set", wanted(7)).await.expect_err("the group has a member");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("stop every process of it first"), "{error}");
    assert_eq!(group.committed("set").await.expect("it answers"), wanted(3));
    consumer.close(PATIENCE).await.expect("closed");
}
