//! What can be known of Kafka before the first record: that it answers and lets us in, and has the topics.

use std::time::{Duration, Instant};

use gristmill::{Consumer, ConsumerEvent};
use tokio::time::timeout;

use crate::error::{Error, ErrorKind};

/// How long a topic that was just created may take to be known by the broker that is asked.
const TOPIC_LAG: Duration = Duration::from_secs(3);
/// How long a cluster that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(250);

/// The cluster's id, as soon as a broker has told it.
///
/// Called before anybody else takes the consumer's events: of a failure they say more than that nobody answered.
pub(crate) async fn cluster(consumer: &Consumer, servers: &str) -> Result<String, Error> {
    match consumer.cluster_id().await {
        Ok(id) => Ok(id),
        Err(silence) => Err(Error::unreachable(servers, reason(consumer).await.unwrap_or(silence))),
    }
}

/// What librdkafka has met with so far: a refused password rather than a connection, and that rather than a count of
/// brokers that are down.
async fn reason(consumer: &Consumer) -> Option<gristmill::Error> {
    let mut best = None;
    while let Ok(Some(event)) = timeout(Duration::ZERO, consumer.next_event()).await {
        let ConsumerEvent::Error(error) = event else { continue };
        if error.kind() == gristmill::ErrorKind::Unauthenticated {
            return Some(error);
        }
        best.get_or_insert(error);
    }
    best
}

/// Fails unless the topics are there and this user may know it: those that are read, and that of the dead letters.
pub(crate) async fn topics_are_there(
    consumer: &Consumer,
    topics: &[String],
    dead_letters: Option<&str>,
) -> Result<(), Error> {
    let read = topics.iter().map(|topic| (topic.as_str(), "source.kafka.topics"));
    for (topic, field) in read.chain(dead_letters.map(|topic| (topic, "dead_letters.topic"))) {
        is_there(consumer, topic, field).await?;
    }
    Ok(())
}

async fn is_there(consumer: &Consumer, topic: &str, field: &str) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        let error = match consumer.topic_id(topic).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let missing = error.kind() == gristmill::ErrorKind::NotFound;
        let patience = match error.is_retryable() {
            true => ASK_AGAIN,
            false if missing => TOPIC_LAG,
            false => Duration::ZERO,
        };
        if started.elapsed() < patience {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        if missing {
            let text = format!("there is no topic `{topic}`; create it, or correct `{field}`");
            return Err(Error::new(ErrorKind::Source, text));
        }
        return Err(Error::source(error));
    }
}
