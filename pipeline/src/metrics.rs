//! What a running pipeline counts, and its text form for Prometheus.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gristmill_sinks::GcsStore;
use gristmill_smt::Histogram;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// The label of a counter of rejects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RejectLabels {
    /// `transform`, `decode` or `write`.
    pub stage: &'static str,
    /// The reject's code.
    pub code: String,
}

/// The labels of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TopicPartitionLabels {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
}

/// The label of what a transform costs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TransformLabels {
    /// The transform's name.
    pub transform: String,
}

/// The labels of the records that a transform decided on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct VerdictLabels {
    /// The transform's name.
    pub transform: String,
    /// `kept`, `dropped`, `emitted`, `rejected`, or `passed_by` for what its `when` kept from it.
    pub verdict: &'static str,
}

/// The labels of a component that was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReloadLabels {
    /// The transform's name.
    pub transform: String,
    /// `taken` or `refused`.
    pub result: &'static str,
}

/// The labels of the records that a transform rejected.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TransformRejectLabels {
    /// The transform's name.
    pub transform: String,
    /// The reject's code.
    pub code: String,
}

/// The label of a counter of guest metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct GuestLabels {
    /// The transform's name.
    pub transform: String,
    /// The name that the transform gave.
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    class: &'static str,
}

type Seconds = Counter<f64, AtomicU64>;

/// Counters of one pipeline. All only grow, but for the gauges.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Records taken from Kafka.
    pub records_in: Counter,
    /// Bytes of those records.
    pub bytes_in: Counter,
    /// Rows in published files.
    pub rows_written: Counter,
    /// Records that the transform dropped.
    pub records_dropped: Counter,
    /// Records that were set aside.
    pub records_rejected: Family<RejectLabels, Counter>,
    /// Dead letters delivered.
    pub dead_letters: Counter,
    /// Files published.
    pub files: Counter,
    /// Bytes of published files.
    pub file_bytes: Counter,
    /// Ledger entries sealed and published.
    pub checkpoints: Counter,
    /// Entries of another owner that were taken over.
    pub entries_adopted: Counter,
    /// Entries whose publishing was done, or done again, after a restart.
    pub entries_republished: Counter,
    /// Entries recognised as our own after their reply was lost.
    pub entries_recognised: Counter,
    /// Time inside a transform, checks of its answers included.
    pub transform_seconds: Family<TransformLabels, Seconds>,
    /// The same of all transforms together; not told to Prometheus, which can add.
    pub transforms_seconds: Seconds,
    /// Time in which values became columns.
    pub decode_seconds: Seconds,
    /// Time in which rows went into open files: encoded, compressed, and handed to the store.
    pub write_seconds: Seconds,
    /// Time in which checkpoints were taken: files closed, the entry sealed, files published.
    pub checkpoint_seconds: Seconds,
    /// Calls into a transform.
    pub transform_calls: Family<TransformLabels, Counter>,
    /// Calls that trapped, timed out or were refused.
    pub transform_failures: Family<TransformLabels, Counter>,
    /// What a transform decided on.
    pub transform_records: Family<VerdictLabels, Counter>,
    /// The most memory that one instance of a transform had.
    pub transform_memory: Family<TransformLabels, Gauge>,
    /// What a transform rejected, by code.
    pub transform_rejects: Family<TransformRejectLabels, Counter>,
    /// Components that were replaced while the pipeline ran.
    pub reloads: Family<ReloadLabels, Counter>,
    /// How often columns have changed with the registry's latest schema.
    pub column_changes: Counter,
    /// What the changes of a partition are numbered by now.
    pub change_epoch: Family<TopicPartitionLabels, Gauge>,
    /// Counters that transforms keep.
    pub guest: Family<GuestLabels, Counter>,
    /// Histograms that transforms keep.
    pub guest_histograms: GuestHistograms,
    /// Partitions that this process reads.
    pub partitions: Gauge,
    /// The sink's store, if it is a bucket: it counts its requests itself.
    pub(crate) gcs: OnceLock<GcsStore>,
}

/// Histograms that transforms keep, by transform and name. Guests fill their buckets themselves.
#[derive(Clone, Debug, Default)]
pub struct GuestHistograms(Arc<Mutex<BTreeMap<(String, String), Histogram>>>);

impl GuestHistograms {
    /// Adds what a transform observed.
    pub fn add(&self, transform: &str, name: &str, observed: &Histogram) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry((transform.to_owned(), name.to_owned())).or_default().merge(observed);
    }
}

impl EncodeMetric for GuestHistograms {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ((transform, name), histogram) in &*all {
            let labels = GuestLabels { transform: transform.clone(), name: name.clone() };
            let bounds = Histogram::BOUNDS.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(histogram.buckets).collect();
            encoder.encode_family(&labels)?.encode_histogram::<NoLabels>(
                histogram.sum,
                histogram.count,
                &buckets,
                None,
            )?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

type NoLabels = [(&'static str, &'static str); 0];

/// What the sink's bucket was asked, as it stands now.
fn register_gcs(r: &mut Registry, gcs: &GcsStore) {
    let counted = gcs.counters();
    let counter = |n: u64| {
        let counter = Counter::<u64>::default();
        counter.inc_by(n);
        counter
    };
    let requests = Family::<ClassLabels, Counter>::default();
    for (class, n) in [("a", counted.class_a), ("b", counted.class_b), ("free", counted.free)] {
        requests.get_or_create(&ClassLabels { class }).inc_by(n);
    }
    r.register("gcs_requests", "Requests to Cloud Storage by price class", requests);
    let bytes = [
        ("gcs_sent", "Bytes sent to Cloud Storage", counted.bytes_sent),
        ("gcs_received", "Bytes received from Cloud Storage", counted.bytes_received),
    ];
    for (name, help, n) in bytes {
        r.register_with_unit(name, help, Unit::Bytes, counter(n));
    }
    r.register("gcs_retries", "Requests to Cloud Storage that were sent again", counter(counted.retries));
    r.register(
        "gcs_throttled",
        "Answers of Cloud Storage that said too many requests",
        counter(counted.throttled),
    );
    r.register("gcs_renewed", "Tokens renewed after Cloud Storage refused one", counter(counted.renewed));
    if let Some(age) = gcs.key_age() {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(age.as_secs_f64());
        r.register_with_unit(
            "gcs_key_age",
            "Age of the file with the service account's key",
            Unit::Seconds,
            gauge,
        );
    }
}

impl Metrics {
    /// A registry for one scrape, over the live counters.
    fn registry(&self) -> Registry {
        let mut r = Registry::with_prefix("gristmill");
        r.register("records_in", "Records taken from Kafka", self.records_in.clone());
        r.register_with_unit("in", "Bytes of records taken from Kafka", Unit::Bytes, self.bytes_in.clone());
        r.register("rows_written", "Rows in published files", self.rows_written.clone());
        r.register("records_dropped", "Records that transforms dropped", self.records_dropped.clone());
        r.register("records_rejected", "Records set aside", self.records_rejected.clone());
        r.register("dead_letters", "Dead letters delivered", self.dead_letters.clone());
        r.register("files", "Files published", self.files.clone());
        r.register_with_unit("file", "Bytes of published files", Unit::Bytes, self.file_bytes.clone());
        r.register("checkpoints", "Ledger entries sealed and published", self.checkpoints.clone());
        r.register(
            "entries_adopted",
            "Ledger entries of another owner taken over",
            self.entries_adopted.clone(),
        );
        r.register(
            "entries_republished",
            "Ledger entries published after a restart",
            self.entries_republished.clone(),
        );
        r.register(
            "entries_recognised",
            "Ledger entries recognised as our own after a lost reply",
            self.entries_recognised.clone(),
        );
        r.register_with_unit(
            "transform",
            "Time inside a transform",
            Unit::Seconds,
            self.transform_seconds.clone(),
        );
        r.register_with_unit(
            "decode",
            "Time in which values became columns",
            Unit::Seconds,
            self.decode_seconds.clone(),
        );
        r.register_with_unit(
            "write",
            "Time in which rows went into open files",
            Unit::Seconds,
            self.write_seconds.clone(),
        );
        r.register_with_unit(
            "checkpoint",
            "Time in which checkpoints were taken",
            Unit::Seconds,
            self.checkpoint_seconds.clone(),
        );
        r.register("transform_calls", "Calls into a transform", self.transform_calls.clone());
        r.register(
            "transform_records",
            "Records that a transform kept, dropped, emitted or rejected, or that its condition kept from it",
            self.transform_records.clone(),
        );
        r.register_with_unit(
            "transform_memory",
            "The most memory that one instance of a transform had",
            Unit::Bytes,
            self.transform_memory.clone(),
        );
        r.register(
            "transform_failures",
            "Calls into a transform that trapped, timed out or were refused",
            self.transform_failures.clone(),
        );
        r.register(
            "transform_rejects",
            "Records that a transform rejected, by code",
            self.transform_rejects.clone(),
        );
        r.register(
            "transform_reloads",
            "Components that were replaced while the pipeline ran",
            self.reloads.clone(),
        );
        r.register(
            "column_changes",
            "How often columns have changed with the registry's latest schema while the pipeline ran",
            self.column_changes.clone(),
        );
        r.register(
            "change_epoch",
            "What the changes of a partition are numbered by: rises when the topic has more partitions or is made anew",
            self.change_epoch.clone(),
        );
        r.register("guest", "Counters that transforms keep", self.guest.clone());
        r.register("guest_histogram", "Histograms that transforms keep", self.guest_histograms.clone());
        r.register("partitions", "Partitions that this process reads", self.partitions.clone());
        if let Some(gcs) = self.gcs.get() {
            register_gcs(&mut r, gcs);
        }
        r
    }

    /// The counters in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        prometheus_client::encoding::text::encode(&mut out, &self.registry())
            .expect("writing to a String does not fail");
        out
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn histograms_of_transforms_have_cumulated_buckets() {
        let mut observed = Histogram::default();
        // At the first bound, at the second, and above every bound.
        (observed.buckets[0], observed.buckets[1], observed.buckets[31]) = (2, 1, 1);
        (observed.count, observed.sum) = (4, 2e6);
        let metrics = Metrics::default();
        metrics.guest_histograms.add("mask", "bytes", &observed);
        metrics.guest_histograms.add("mask", "bytes", &observed);
        let text = metrics.encode();
        let labels = "transform=\"mask\",name=\"bytes\"";
        for line in [
            format!("gristmill_guest_histogram_bucket{{le=\"0.0001\",{labels}}} 4"),
            format!("gristmill_guest_histogram_bucket{{le=\"0.00025\",{labels}}} 6"),
            format!("gristmill_guest_histogram_bucket{{le=\"1000000.0\",{labels}}} 6"),
            format!("gristmill_guest_histogram_bucket{{le=\"+Inf\",{labels}}} 8"),
            format!("gristmill_guest_histogram_count{{{labels}}} 8"),
            format!("gristmill_guest_histogram_sum{{{labels}}} 4000000.0"),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
        }
    }

    use gristmill_sinks::{GcsConfig, GcsCredentials, GcsStore};

    use super::*;

    #[tokio::test]
    async fn the_age_of_a_service_accounts_key_is_told_and_of_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let encoded = |json: &str| {
            let file = folder.path().join("credentials.json");
            std::fs::write(&file, json).unwrap();
            let day = std::time::SystemTime::now() - std::time::Duration::from_secs(86_400);
            std::fs::File::options().write(true).open(&file).unwrap().set_modified(day).unwrap();
            let config = GcsConfig::builder("lake").endpoint("http://127.0.0.1:9");
            let config = config.credentials(GcsCredentials::File(file)).build().unwrap();
            let metrics = Metrics::default();
            metrics.gcs.set(GcsStore::open(config).unwrap()).unwrap();
            metrics.encode()
        };
        let text = encoded(
            r#"{"type": "service_account", "client_email": "w@x.example", "private_key_id": "k", "private_key": "",
                "project_id": "p"}"#,
        );
        let age = text.lines().find_map(|line| line.strip_prefix("gristmill_gcs_key_age_seconds "));
        let age: f64 = age.unwrap_or_else(|| panic!("{text}")).parse().unwrap();
        assert!((86_400.0..87_000.0).contains(&age), "{age}");
        let text = encoded(
            r#"{"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r",
                "token_uri": "http://127.0.0.1:9/token"}"#,
        );
        assert!(text.contains("gcs_requests") && !text.contains("key_age"), "{text}");
    }
}
