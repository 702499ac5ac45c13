use gristmill_records::RawBatch;

use super::Rejection;
use crate::{Producer, ProducerRecord, Result};

/// Where rejected records go.
#[derive(Clone, Debug)]
pub struct DeadLetterTopic {
    producer: Producer,
    topic: String,
}

impl DeadLetterTopic {
    /// A topic, and the producer that writes to it.
    pub fn new(producer: Producer, topic: impl Into<String>) -> DeadLetterTopic {
        DeadLetterTopic { producer, topic: topic.into() }
    }

    /// Writes rows of a batch, and returns once all are acknowledged.
    pub(super) async fn send(&self, group: &str, batch: &RawBatch, rows: &[&Rejection]) -> Result<()> {
        let mut letters = Vec::with_capacity(rows.len());
        for rejection in rows {
            let Some(record) = batch.get(rejection.row) else { continue };
            let headers = context(group, batch, record.offset(), &rejection.code, &rejection.reason);
            let letter = ProducerRecord::to(&self.topic)
                .key_value(record.key().map(<[u8]>::to_vec), record.value().map(<[u8]>::to_vec))
                .timestamp(record.timestamp().unwrap_or(0))
                .headers(record.headers());
            letters
                .push(headers.into_iter().fold(letter, |letter, (name, value)| letter.header(name, value)));
        }
        self.producer.send_all(letters).await.into_result().map(drop)
    }
}

/// What Kafka Connect's `DeadLetterQueueReporter` says of a record, after its own headers. The group stands for the
/// connector; the key tells one dead letter from all others, for those who want to drop repeated ones.
fn context(
    group: &str,
    batch: &RawBatch,
    offset: i64,
    code: &str,
    reason: &str,
) -> [(&'static str, String); 10] {
    let (topic, partition) = (batch.topic().to_string(), batch.partition());
    let incarnation =
        batch.topic_id().map_or_else(|| topic.clone(), |id| uuid::Uuid::from_bytes(id).simple().to_string());
    [
        ("__connect.errors.topic", topic),
        ("__connect.errors.partition", partition.to_string()),
        ("__connect.errors.offset", offset.to_string()),
        ("__connect.errors.connector.name", group.to_owned()),
        ("__connect.errors.task.id", partition.to_string()),
        ("__connect.errors.stage", "TASK_PUT".to_owned()),
        ("__connect.errors.class.name", "gristmill.GroupReader".to_owned()),
        ("__connect.errors.exception.class.name", code.to_owned()),
        ("__connect.errors.exception.message", reason.to_owned()),
        ("gristmill.dead_letter.key", format!("{incarnation}/{partition}/{offset}/0")),
    ]
}
