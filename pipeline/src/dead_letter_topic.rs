//! Dead letters to a Kafka topic, as Kafka Connect's dead letter queue has them.

use gristmill::{Producer, ProducerRecord};
use gristmill_sinks::{
    Blob, BoxFuture, DeadLetter, DeadLetterContext, DeadLetterSink, ErrorKind, dead_letter_headers,
};

/// Produces the record as it was, with its own headers, then Kafka Connect's context headers. Where the payload is
/// omitted, key and value are null.
///
/// At least once: `gristmill.dead_letter.key` tells repeated ones apart.
#[derive(Debug)]
pub(crate) struct TopicDeadLetters {
    topic: String,
    producer: Producer,
}

impl TopicDeadLetters {
    pub(crate) fn new(topic: String, producer: Producer) -> Self {
        TopicDeadLetters { topic, producer }
    }

    fn record(&self, context: DeadLetterContext<'_>, letter: &DeadLetter) -> ProducerRecord {
        let mut record = ProducerRecord::to(&self.topic);
        if let Some(payload) = &letter.payload {
            let bytes = |blob: &Option<Blob>| blob.as_ref().map(|b| b.0.to_vec());
            record = record.key_value(bytes(&payload.key), bytes(&payload.value));
            for (name, value) in &payload.headers {
                record = match value {
                    Some(value) => record.header(&name.0, value.0.to_vec()),
                    None => record.null_header(&name.0),
                };
            }
        }
        for (name, value) in dead_letter_headers(context, letter) {
            record = record.header(name, value);
        }
        record
    }
}

impl DeadLetterSink for TopicDeadLetters {
    fn deliver<'a>(
        &'a self,
        context: DeadLetterContext<'a>,
        letters: &'a [DeadLetter],
    ) -> BoxFuture<'a, gristmill_sinks::Result<()>> {
        Box::pin(async move {
            let records = letters.iter().map(|l| self.record(context, l)).collect::<Vec<_>>();
            let report = self.producer.send_all(records).await;
            match report.failures().next() {
                None => Ok(()),
                Some((index, error)) => {
                    let kind =
                        if error.is_retryable() { ErrorKind::OutcomeUnknown } else { ErrorKind::DeadLetter };
                    let offset = letters[index].offset;
                    let text = format!(
                        "the dead letter of offset {offset} was not produced to topic {}",
                        self.topic
                    );
                    Err(gristmill_sinks::Error::new(kind, text).with_source(error.clone()))
                }
            }
        })
    }
}
