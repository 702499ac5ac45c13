//! Two members of a group, under each of the three protocols.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gristmill::{
    Assignor, BeginAt, Consumer, ConsumerEvent, GroupProtocol, PartitionStream, ProducerRecord,
    RevokedPartition,
};
use gristmill_tests::{RealKafka, shared_kafka, unique};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::sdk::{PATIENCE, config, producer};

const PARTITIONS: i32 = 6;
const RECORDS: i64 = 60_000;

/// What one member saw: for each partition and epoch where it began, and the offsets in order.
type Seen = BTreeMap<(i32, u64), (Option<i64>, Vec<i64>)>;

#[derive(Default)]
struct Log {
    seen: Seen,
    gone: HashSet<(i32, u64)>,
    lost: usize,
    late: Vec<String>,
}

/// Which records anybody has seen.
#[derive(Clone)]
struct Progress(watch::Sender<HashSet<(i32, i64)>>);

impl Progress {
    fn note(&self, partition: i32, offsets: impl Iterator<Item = i64>) {
        self.0.send_modify(|seen| seen.extend(offsets.map(|o| (partition, o))));
    }

    async fn reaches(&self, count: i64) {
        let count = usize::try_from(count).expect("positive");
        let mut seen = self.0.subscribe();
        let reached = seen.wait_for(|seen| seen.len() >= count);
        tokio::time::timeout(2 * PATIENCE, reached).await.expect("progress in time").expect("it lives");
    }
}

struct Member {
    /// Batches that it has completed.
    completed: watch::Receiver<usize>,
    /// Partitions that it was given so far.
    given: watch::Receiver<usize>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Log>,
}

/// Runs a member that completes what it gets, a little slowly, until it is stopped.
fn member(kafka: &RealKafka, topic: &str, protocol: GroupProtocol, progress: Progress) -> Member {
    let config = config(kafka, topic).group_protocol(protocol).batch_records(20).build().expect("valid");
    let (stop, mut stopped) = watch::channel(false);
    let (count, completed) = watch::channel(0);
    let (give, given) = watch::channel(0);
    let task = tokio::spawn(async move {
        let consumer = Consumer::start(config).expect("started");
        let log = Arc::new(Mutex::new(Log::default()));
        let mut readers = Vec::new();
        loop {
            let event = tokio::select! {
                event = consumer.next_event() => event.expect("the consumer runs"),
                _ = stopped.wait_for(|s| *s) => break,
            };
            match event {
                ConsumerEvent::Assigned(list) => {
                    give.send_modify(|n| *n += list.len());
                    for partition in list {
                        let key = (partition.partition, partition.epoch);
                        let begins = partition.group_offset;
                        log.lock().expect("no panic").seen.insert(key, (begins, Vec::new()));
                        let stream = partition.begin(BeginAt::Group);
                        readers.push(tokio::spawn(read(
                            stream,
                            log.clone(),
                            progress.clone(),
                            count.clone(),
                        )));
                    }
                }
                ConsumerEvent::Revoked(list) => note_gone(&log, &list),
                ConsumerEvent::Lost(list) => {
                    note_gone(&log, &list);
                    log.lock().expect("no panic").lost += list.len();
                }
                ConsumerEvent::Error(error) => assert!(error.is_retryable(), "{error}"),
                // Refused in the middle of a rebalance: tried again, or delivered again.
                ConsumerEvent::CommitFailed(error) => assert!(error.is_retryable(), "{error}"),
                other => panic!("{other:?}"),
            }
        }
        consumer.close(PATIENCE).await.expect("closed");
        for reader in readers {
            reader.await.expect("no panic");
        }
        Arc::into_inner(log).expect("all readers ended").into_inner().expect("no panic")
    });
    Member { completed, given, stop, task }
}

fn note_gone(log: &Mutex<Log>, list: &[RevokedPartition]) {
    log.lock().expect("no panic").gone.extend(list.iter().map(|p| (p.partition, p.epoch)));
}

async fn read(
    mut stream: PartitionStream,
    log: Arc<Mutex<Log>>,
    progress: Progress,
    count: watch::Sender<usize>,
) {
    let key = (stream.partition(), stream.epoch());
    loop {
        // Asked before the call: a call that starts after the revocation was told must give nothing.
        let gone = log.lock().expect("no panic").gone.contains(&key);
        let Some(delivery) = stream.next().await else { return };
        {
            let mut log = log.lock().expect("no panic");
            if gone {
                log.late.push(format!("{key:?} at {}", delivery.next));
            }
            let offsets: Vec<_> = delivery.batch.iter().map(|r| r.offset()).collect();
            progress.note(key.0, offsets.iter().copied());
            log.seen.get_mut(&key).expect("noted at the assignment").1.extend(offsets);
        }
        stream.complete(delivery.token);
        count.send_modify(|n| *n += 1);
        // Work, so that rebalances find records in flight.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn two_members(protocol: GroupProtocol) {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("rebalance");
    kafka.create_topic(&topic, PARTITIONS, &[]).await;
    let producer = producer(kafka);
    let records = (0..RECORDS).map(|i| {
        let partition = i32::try_from(i % i64::from(PARTITIONS)).expect("small");
        ProducerRecord::to(&topic).partition(partition).value(i.to_string())
    });
    assert!(producer.send_all(records).await.is_complete());
    producer.close(PATIENCE).await.expect("closed");

    let progress = Progress(watch::Sender::new(HashSet::new()));
    let first = member(kafka, &topic, protocol, progress.clone());
    progress.reaches(RECORDS / 10).await;
    let mut second = member(kafka, &topic, protocol, progress.clone());
    let enough = second.completed.wait_for(|n| *n >= 200);
    drop(tokio::time::timeout(PATIENCE, enough).await.expect("the second gets its share").expect("it runs"));
    second.stop.send(true).expect("it runs");
    let second = second.task.await.expect("no panic");
    // The first takes over, and nothing is missing.
    progress.reaches(RECORDS).await;
    first.stop.send(true).expect("it runs");
    let first = first.task.await.expect("no panic");

    for (name, log) in [("first", &first), ("second", &second)] {
        assert_eq!(log.late, Vec::<String>::new(), "{name}: nothing after a revoke");
        assert_eq!(log.lost, 0, "{name}: nothing was taken away");
        for ((partition, epoch), (begins, offsets)) in &log.seen {
            let Some(start) = offsets.first() else { continue };
            assert_eq!(*start, begins.unwrap_or(0), "{name}: partition {partition}, epoch {epoch}");
            let gap = offsets.windows(2).find(|w| w[1] != w[0] + 1);
            assert_eq!(gap, None, "{name}: partition {partition}, epoch {epoch}");
        }
    }
    assert!(!first.gone.is_empty(), "there was a rebalance");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn range_loses_and_repeats_nothing() {
    two_members(GroupProtocol::Classic(Assignor::Range)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cooperative_sticky_loses_and_repeats_nothing() {
    two_members(GroupProtocol::Classic(Assignor::CooperativeSticky)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kip_848_loses_and_repeats_nothing() {
    two_members(GroupProtocol::Consumer).await;
}

/// librdkafka resumes after a rebalance from what it takes for the last consumed record: the event for the end of
/// a partition must not count as one, or the record that is written there next is skipped.
async fn at_the_end(protocol: GroupProtocol) {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("end");
    kafka.create_topic(&topic, PARTITIONS, &[]).await;
    let producer = producer(kafka);
    let round = |n: i64| {
        let topic = &topic;
        (0..PARTITIONS).map(move |p| ProducerRecord::to(topic).partition(p).value(n.to_string()))
    };
    let progress = Progress(watch::Sender::new(HashSet::new()));
    let first = member(kafka, &topic, protocol, progress.clone());
    let mut others = Vec::new();
    for n in 0..4 {
        assert!(producer.send_all(round(n)).await.is_complete());
        // Everybody is at the end of every partition; then the assignment changes, and the next is written.
        progress.reaches((n + 1) * i64::from(PARTITIONS)).await;
        let mut other = member(kafka, &topic, protocol, progress.clone());
        let given = other.given.wait_for(|n| *n > 0);
        drop(tokio::time::timeout(PATIENCE, given).await.expect("it gets a share").expect("it runs"));
        others.push(other);
        if others.len() == 2 {
            let gone = others.remove(0);
            gone.stop.send(true).expect("it runs");
            gone.task.await.expect("no panic");
        }
    }
    for member in others.into_iter().chain([first]) {
        member.stop.send(true).expect("it runs");
        assert_eq!(member.task.await.expect("no panic").late, Vec::<String>::new());
    }
    producer.close(PATIENCE).await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cooperative_rebalance_at_the_end_of_a_partition_skips_nothing() {
    at_the_end(GroupProtocol::Classic(Assignor::CooperativeSticky)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kip_848_rebalance_at_the_end_of_a_partition_skips_nothing() {
    at_the_end(GroupProtocol::Consumer).await;
}
