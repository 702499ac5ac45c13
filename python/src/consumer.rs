//! A member of a consumer group.

use std::collections::HashMap;
use std::sync::Arc;

use gristmill::{
    Assignor, DeadLetterTopic, GroupProtocol, GroupReader, Isolation, Producer, ProducerConfig, Start,
};
use gristmill_pipeline::{DecodedRecords, ValueDecoder};
use gristmill_records::RawBatch;
use pyo3::prelude::*;
use tokio::sync::Mutex;

use crate::awaiting::{Awaited, Task};
use crate::batch::Batch;
use crate::blocking::{runtime, wait};
use crate::error::Failure;
use crate::process::OfProcess;
use crate::settings::Kafka;
use crate::value_format::{Described, Format, seconds};

/// What batches need of their consumer.
pub(crate) struct Decoding {
    format: Described,
    /// By topic; opened when its first batch is decoded: that may ask the registry.
    decoders: Mutex<HashMap<String, ValueDecoder>>,
}

impl Decoding {
    pub(crate) async fn decode(&self, records: &RawBatch) -> Result<DecodedRecords, Failure> {
        let topic: &str = records.topic();
        let mut decoders = self.decoders.lock().await;
        if !decoders.contains_key(topic) {
            let decoder = ValueDecoder::open(self.format.of(topic)).await?;
            decoders.insert(topic.to_owned(), decoder);
        }
        let decoder = decoders.get_mut(topic).expect("just put there");
        Ok(decoder.decode(records).await?)
    }
}

/// See `gristmill/consumer.py`.
#[pyclass(frozen, module = "gristmill._lib")]
pub(crate) struct Consumer {
    reader: OfProcess<Arc<GroupReader>>,
    decoding: Arc<Decoding>,
}

#[pymethods]
impl Consumer {
    #[new]
    #[pyo3(signature = (topics, settings, group_id, format, *, start, isolation, group_protocol, dead_letter_topic,
        memory_budget, batch_records, session_timeout, client_id))]
    #[expect(clippy::too_many_arguments, reason = "keywords of the Python class")]
    fn new(
        topics: Vec<String>,
        settings: Kafka,
        group_id: &str,
        format: Py<Format>,
        start: &str,
        isolation: &str,
        group_protocol: &str,
        dead_letter_topic: Option<String>,
        memory_budget: Option<usize>,
        batch_records: Option<usize>,
        session_timeout: Option<f64>,
        client_id: Option<String>,
    ) -> PyResult<Self> {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let one_of = |name: &str, given: &str, names: &str| {
            Failure::new("invalid_config", format!("{name}: {given:?} is not one of {names}"))
        };
        let mut config = settings
            .consumer(group_id, &names)
            .start(match start {
                "earliest" => Start::Earliest,
                "latest" => Start::Latest,
                "committed" => Start::Committed,
                _ => return Err(one_of("start", start, "earliest, latest, committed").into()),
            })
            .isolation(match isolation {
                "read_committed" => Isolation::ReadCommitted,
                "read_uncommitted" => Isolation::ReadUncommitted,
                _ => return Err(one_of("isolation", isolation, "read_committed, read_uncommitted").into()),
            })
            .group_protocol(match group_protocol {
                "cooperative" => GroupProtocol::Classic(Assignor::CooperativeSticky),
                "range" => GroupProtocol::Classic(Assignor::Range),
                "consumer" => GroupProtocol::Consumer,
                _ => {
                    return Err(
                        one_of("group_protocol", group_protocol, "cooperative, range, consumer").into()
                    );
                }
            });
        if let Some(bytes) = memory_budget {
            config = config.memory_budget(bytes);
        }
        if let Some(records) = batch_records {
            config = config.batch_records(records);
        }
        if let Some(timeout) = session_timeout {
            config = config.session_timeout(seconds(timeout)?);
        }
        if let Some(id) = client_id {
            config = config.client_id(id);
        }
        let config = config.build().map_err(Failure::from)?;
        let format = format.get().described().clone();
        // Consumer and producer start tasks.
        let _in = runtime().enter();
        let letters = dead_letter_topic.map(|topic| letters(&settings, &topic)).transpose()?;
        let reader = GroupReader::start(config, letters).map_err(Failure::from)?;
        let decoding = Arc::new(Decoding { format, decoders: Mutex::default() });
        Ok(Consumer { reader: OfProcess::new(Arc::new(reader)), decoding })
    }

    /// A batch, if one is ready.
    fn try_next(&self) -> PyResult<Option<Batch>> {
        let batch = self.reader()?.try_next_batch().map_err(Failure::from)?;
        Ok(batch.map(|batch| Batch::new(batch, self.decoding.clone())))
    }

    /// Waits until a batch may be there; `false` if there will be none. `timeout`: seconds.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let reader = self.reader()?.clone();
        let timeout = timeout.map(seconds).transpose()?;
        wait(py, async move {
            match timeout {
                None => reader.ready().await,
                Some(limit) => tokio::time::timeout(limit, reader.ready()).await.unwrap_or(true),
            }
        })
    }

    /// As `wait`, for asyncio. It takes nothing, so who goes away meanwhile costs nobody a batch.
    fn wait_async(&self, call_soon: Py<PyAny>, future: Py<PyAny>) -> PyResult<Task> {
        let reader = self.reader()?.clone();
        let ready = async move { Ok(reader.ready().await) };
        Ok(Awaited::new(call_soon, future).settle(ready, crate::awaiting::bool))
    }

    fn close(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        let (reader, deadline) = (self.reader()?.clone(), seconds(timeout)?);
        Ok(wait(py, async move { reader.close(deadline).await })?.map_err(Failure::from)?)
    }

    fn close_async(&self, call_soon: Py<PyAny>, future: Py<PyAny>, timeout: f64) -> PyResult<Task> {
        let (reader, deadline) = (self.reader()?.clone(), seconds(timeout)?);
        let closing = async move { Ok(reader.close(deadline).await?) };
        Ok(Awaited::new(call_soon, future).settle(closing, |py, ()| Ok(py.None())))
    }
}

impl Consumer {
    fn reader(&self) -> Result<&Arc<GroupReader>, Failure> {
        self.reader.get()
    }
}

/// Dead letters go through the same connection settings, as far as a producer has them.
fn letters(settings: &Kafka, topic: &str) -> Result<DeadLetterTopic, Failure> {
    // What a broker gave is not too large for a broker; the topic of the dead letters may allow less, and says so.
    let mut config =
        ProducerConfig::builder().bootstrap_servers(&settings.0).property("message.max.bytes", "1000000000");
    for (name, value) in &settings.1 {
        if SHARED.iter().any(|prefix| name.starts_with(prefix)) {
            config = config.property(name, value);
        }
    }
    Ok(DeadLetterTopic::new(Producer::new(config.build()?)?, topic))
}

/// Properties that speak of connections, whatever the client is for.
const SHARED: [&str; 9] = [
    "security.",
    "sasl.",
    "ssl.",
    "socket.",
    "broker.address.",
    "enable.ssl.",
    "client.dns.lookup",
    "reconnect.backoff.",
    "connections.max.idle.ms",
];
