use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::RealKafka;

const PATIENCE: Duration = Duration::from_secs(30);

/// A name that no other test uses.
pub fn unique(stem: &str) -> String {
    format!("{stem}-{:08x}", rand::random::<u32>())
}

impl RealKafka {
    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap_servers())
            .create()
            .expect("an admin client")
    }

    /// Creates a topic with these settings and waits for it.
    ///
    /// # Panics
    /// If the cluster refuses it.
    pub async fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let replicas = i32::try_from(self.node_count().min(3)).expect("at most 3");
        let topic = settings
            .iter()
            .fold(NewTopic::new(name, partitions, TopicReplication::Fixed(replicas)), |t, (k, v)| {
                t.set(k, v)
            });
        let results = self.admin().create_topics([&topic], &options()).await.expect("the cluster answers");
        for result in results {
            result.expect("the topic is created");
        }
        self.is_told(name, partitions as usize).await;
    }

    /// Waits until every node says that a topic has so many partitions, with a leader each: they hear of it after the controller
    /// has answered.
    async fn is_told(&self, name: &str, partitions: usize) {
        let (name, servers) = (name.to_owned(), self.bootstrap_servers());
        let asked = tokio::task::spawn_blocking(move || {
            let deadline = std::time::Instant::now() + PATIENCE;
            for server in servers.split(',') {
                let is_told = || {
                    // A new client asks the node that it was given.
                    let client: BaseConsumer =
                        ClientConfig::new().set("bootstrap.servers", server).create().ok()?;
                    let metadata = client.fetch_metadata(Some(&name), PATIENCE).ok()?;
                    let found = metadata.topics().first()?.partitions();
                    (found.len() == partitions && found.iter().all(|p| p.leader() >= 0)).then_some(())
                };
                while is_told().is_none() {
                    assert!(std::time::Instant::now() < deadline, "{server} does not hear of {name}");
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        asked.await.expect("told in time");
    }

    /// Gives a topic these settings, and takes away all others that it had.
    ///
    /// # Panics
    /// If the cluster refuses it.
    pub async fn configure_topic(&self, name: &str, settings: &[(&str, &str)]) {
        let change = settings
            .iter()
            .fold(AlterConfig::new(ResourceSpecifier::Topic(name)), |change, (k, v)| change.set(k, v));
        let results = self.admin().alter_configs([&change], &options()).await.expect("the cluster answers");
        for result in results {
            result.expect("the settings are taken");
        }
    }

    /// Creates a topic if its name is free already: a deleted one keeps it for a while.
    pub async fn try_create_topic(&self, name: &str, partitions: i32) -> bool {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let results = self.admin().create_topics([&topic], &options()).await.expect("the cluster answers");
        results.iter().all(Result::is_ok)
    }

    /// Deletes a topic and waits for it.
    ///
    /// # Panics
    /// If the cluster refuses it.
    pub async fn delete_topic(&self, name: &str) {
        for result in self.admin().delete_topics(&[name], &options()).await.expect("the cluster answers") {
            result.expect("the topic is deleted");
        }
    }

    /// Raises a topic's number of partitions.
    ///
    /// # Panics
    /// If the cluster refuses it.
    pub async fn grow_topic(&self, name: &str, partitions: usize) {
        let more = NewPartitions::new(name, partitions);
        for result in self.admin().create_partitions([&more], &options()).await.expect("the cluster answers")
        {
            result.expect("partitions are added");
        }
        self.is_told(name, partitions).await;
    }

    /// Deletes the records of a partition below an offset, as retention would.
    ///
    /// # Panics
    /// If the cluster refuses it.
    pub async fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before)).expect("a valid offset");
        let result = self.admin().delete_records(&list, &options()).await.expect("the cluster answers");
        for element in result.elements() {
            element.error().expect("records are deleted");
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE))
}

/// A producer with transactions, for tests. All of it blocks.
pub struct TransactionalProducer {
    producer: BaseProducer,
}

impl std::fmt::Debug for TransactionalProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransactionalProducer").finish_non_exhaustive()
    }
}

impl TransactionalProducer {
    /// Registers `id` with the cluster.
    ///
    /// # Panics
    /// If the cluster does not answer.
    pub fn new(kafka: &RealKafka, id: &str) -> Self {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", kafka.bootstrap_servers())
            .set("transactional.id", id)
            .set("linger.ms", "2")
            .create()
            .expect("a producer");
        producer.init_transactions(PATIENCE).expect("the coordinator answers");
        TransactionalProducer { producer }
    }

    /// Begins a transaction.
    ///
    /// # Panics
    /// If one is open.
    pub fn begin(&self) {
        self.producer.begin_transaction().expect("no transaction is open");
    }

    /// Writes a record in the open transaction.
    ///
    /// # Panics
    /// If no transaction is open.
    pub fn send(&self, topic: &str, partition: i32, key: Option<&[u8]>, value: &[u8]) {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition).payload(value);
        if let Some(key) = key {
            record = record.key(key);
        }
        while let Err((error, back)) = self.producer.send(record) {
            assert_eq!(
                error.rdkafka_error_code(),
                Some(rdkafka::types::RDKafkaErrorCode::QueueFull),
                "the record is accepted"
            );
            self.producer.poll(Duration::from_millis(10));
            record = back;
        }
    }

    /// Commits the open transaction.
    ///
    /// # Panics
    /// If it cannot be committed.
    pub fn commit(&self) {
        self.producer.flush(PATIENCE).expect("all written");
        self.producer.commit_transaction(PATIENCE).expect("committed");
    }

    /// Aborts the open transaction; its records are in the log, invisible to committed readers.
    ///
    /// # Panics
    /// If it cannot be aborted.
    pub fn abort(&self) {
        self.producer.flush(PATIENCE).expect("all written");
        self.producer.abort_transaction(PATIENCE).expect("aborted");
    }
}
