//! What has to be found, by the topic's own word: whatever a committed reader sees in the end, and nothing else.
//!
//! Not the producers' word: a plain producer may write a record twice, a transaction may be settled while no
//! broker answers, and compaction takes what it likes.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::feeder::{Fed, Knowledge};
use super::report::Tally;
use crate::RealKafka;
use crate::orders::{Fate, Orders};
use crate::pipeline::Found;
use crate::produce::ORDER_HEADER;

const WAIT: Duration = Duration::from_secs(30);

/// A record as a committed reader sees it.
pub(super) struct Visible {
    pub(super) id: String,
    key: String,
}

/// All records of a topic that a committed reader sees, by partition and offset.
pub(super) fn visible(kafka: &RealKafka, topic: &str, partitions: i32) -> BTreeMap<(i32, i64), Visible> {
    let reader: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap_servers())
        .set("group.id", "truth")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .expect("the settings are right");
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("a valid offset");
    }
    reader.assign(&list).expect("the partitions are there");
    let mut records = BTreeMap::new();
    let mut open = partitions;
    while open > 0 {
        match reader.poll(WAIT) {
            Some(Ok(message)) => {
                let headers = message.headers().expect("every order has headers");
                let header = headers.iter().find(|h| h.key == ORDER_HEADER).expect("the order's id");
                let text = |bytes: Option<&[u8]>| {
                    String::from_utf8(bytes.unwrap_or_default().to_vec()).expect("text")
                };
                let record = Visible { id: text(header.value), key: text(message.key()) };
                records.insert((message.partition(), message.offset()), record);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => panic!("{error}"),
            None => panic!("no answer within {WAIT:?}"),
        }
    }
    records
}

/// Compares what was found with what has to be found, place by place, and gives the differences.
pub(super) fn compare(
    visible: &BTreeMap<(i32, i64), Visible>,
    fed: &Fed,
    found: &[Found],
    tally: &mut Tally,
) -> Vec<String> {
    let mut differences = Vec::new();
    let mut expected = BTreeMap::new();
    let mut seen = vec![false; fed.orders.len()];
    for (place, record) in visible {
        let number = Orders::number(&record.id).filter(|n| *n < fed.orders.len());
        let Some(number) = number else {
            differences.push(format!("the topic has {} at {place:?}, which nobody made", record.id));
            continue;
        };
        seen[number] = true;
        let (fate, known) = fed.orders[number];
        if known == Knowledge::Aborted {
            differences.push(format!("the topic shows {} of an aborted transaction", record.id));
        }
        match fate {
            Fate::Row(output) => expected.insert(*place, (output.to_owned(), record.id.clone())),
            Fate::DeadLetter(code) => {
                expected.insert(*place, ("dead_letter".to_owned(), format!("{code} {}", record.key)))
            }
            Fate::Dropped => {
                tally.dropped += 1;
                None
            }
        };
    }
    for (number, (_, known)) in fed.orders.iter().enumerate() {
        if *known == Knowledge::Acknowledged && !seen[number] {
            differences.push(format!("the topic has lost order {number}, which it had acknowledged"));
        }
    }
    for f in found {
        let (partition, offset, sub) = f.place;
        match expected.remove(&(partition, offset)) {
            Some((output, what)) if sub == 0 && output == f.output && what == f.what => {
                match f.output.as_str() {
                    "dead_letter" => tally.letters += 1,
                    _ => tally.rows += 1,
                }
            }
            Some(want) => differences.push(format!("expected {want:?}, found {f:?}")),
            None if visible.contains_key(&(partition, offset)) => {
                differences.push(format!("found twice, or though it was to be dropped: {f:?}"));
            }
            None => differences.push(format!("found, and no committed reader sees it: {f:?}")),
        }
    }
    differences.extend(expected.iter().map(|(place, want)| format!("lost: {want:?} at {place:?}")));
    tally.visible = visible.len() as u64;
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differences(visible: &[(i64, &str)], found: &[(i64, &str, &str)]) -> Vec<String> {
        let fates = [Fate::Row("main"), Fate::DeadLetter("BAD"), Fate::Dropped, Fate::Row("main")];
        let known = [Knowledge::Acknowledged, Knowledge::Unknown, Knowledge::Unknown, Knowledge::Aborted];
        let fed = Fed { orders: fates.into_iter().zip(known).collect(), ..Fed::default() };
        let visible = visible
            .iter()
            .map(|(offset, id)| ((0, *offset), Visible { id: (*id).to_owned(), key: "k".to_owned() }))
            .collect();
        let found: Vec<Found> = found
            .iter()
            .map(|(offset, output, what)| Found {
                place: (0, *offset, 0),
                output: (*output).to_owned(),
                what: (*what).to_owned(),
            })
            .collect();
        compare(&visible, &fed, &found, &mut Tally::default())
    }

    #[test]
    fn a_record_that_a_retry_wrote_twice_is_expected_twice() {
        let visible = [(0, "o-0"), (4, "o-0"), (5, "o-1"), (6, "o-2")];
        let found = [(0, "main", "o-0"), (4, "main", "o-0"), (5, "dead_letter", "BAD k")];
        assert_eq!(differences(&visible, &found), Vec::<String>::new());
    }

    #[test]
    fn each_kind_of_difference_is_told() {
        let all = [(0, "o-0"), (1, "o-1"), (2, "o-2")];
        let good = [(0, "main", "o-0"), (1, "dead_letter", "BAD k")];
        let told = |visible: &[(i64, &str)], found: &[(i64, &str, &str)], what: &str| {
            let differences = differences(visible, found);
            assert!(differences.iter().any(|d| d.starts_with(what)), "{what}: {differences:?}");
        };
        assert!(differences(&all, &good).is_empty());
        told(&all, &good[1..], "lost: ");
        told(&all, &[good[0], good[0], good[1]], "found twice");
        told(&all, &[good[0], good[1], (2, "main", "o-2")], "found twice, or though it was to be dropped");
        told(&all, &[good[0], good[1], (3, "main", "o-3")], "found, and no committed reader");
        told(&all, &[(0, "high_value", "o-0"), good[1]], "expected ");
        told(&[(0, "o-0"), (3, "o-3")], &good, "the topic shows o-3 of an aborted");
        told(&[(1, "o-1")], &good, "the topic has lost order 0");
        told(&[(0, "o-9")], &good, "the topic has o-9");
    }
}
