//! What a pipeline file says, as types. Their doc comments are the descriptions in the published JSON
//! Schema (`gristmill pipeline schema`), so they speak to the person who writes the file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use gristmill_codec::SchemaSpec;
use gristmill_smt::Limits;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::predicate::When;
use crate::quantity::{ByteSize, TimeSpan};
use crate::secret::Reference;

/// A Gristmill pipeline: from Kafka topics, through a sandboxed transform, to files.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PipelineFile {
    /// The pipeline's id: its ledger and its dead letters carry it. Changing it starts the pipeline anew.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9_-]{0,62}$"))]
    pub name: String,
    /// Where records come from.
    pub source: Source,
    /// Transforms, in order: each gets what the one before it kept or emitted.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub transforms: Vec<TransformStep>,
    /// How record values become columns.
    pub decode: Decode,
    /// Where rows go.
    pub sink: Sink,
    /// Where records go that the transform rejects or that cannot be decoded. Without it, the first such
    /// record stops the pipeline.
    #[serde(default)]
    pub dead_letters: Option<DeadLetters>,
    /// The Schema Registry; needed for Avro, and for Protobuf and JSON Schema unless `schema_file` has the schema.
    #[serde(default)]
    pub schema_registry: Option<SchemaRegistry>,
    /// Metrics and health over HTTP: `/metrics`, `/livez`, `/readyz`.
    #[serde(default)]
    pub http: Option<Http>,
    /// Memory for records, over all partitions: half of it for those that are fetched and wait, half for files that
    /// are being written. When it is spent, fetching pauses, and files are closed early.
    #[serde(default = "defaults::memory")]
    pub memory: ByteSize,
    /// On SIGTERM or Ctrl-C: how long the open checkpoint may take to finish before it is dropped (and
    /// read again at the next start).
    #[serde(default = "defaults::shutdown")]
    pub shutdown_timeout: TimeSpan,
}

/// Where records come from.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// An Apache Kafka cluster, or one that speaks its protocol.
    pub kafka: Kafka,
}

/// A Kafka consumer.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// `host:port`, several separated by commas.
    #[schemars(length(min = 3))]
    pub bootstrap_servers: String,
    /// Topics to read.
    #[schemars(length(min = 1))]
    pub topics: Vec<String>,
    /// The consumer group; by default `gristmill-` and the pipeline's name.
    #[serde(default)]
    pub group: Option<String>,
    /// Where a partition starts that neither the ledger nor the group knows.
    #[serde(default)]
    pub start: Start,
    /// Whether records of aborted transactions are left out.
    #[serde(default)]
    pub isolation: Isolation,
    /// How partitions are spread over the members of the group.
    #[serde(default)]
    pub group_protocol: GroupProtocol,
    /// After how long without a sign of life the group gives a member's partitions to the others; by default
    /// 45s. With `group_protocol: consumer` the broker sets it.
    #[serde(default)]
    pub session_timeout: Option<TimeSpan>,
    /// More librdkafka properties, such as `security.protocol`. Values may be `${env:NAME}` or
    /// `${file:PATH}`.
    #[serde(default)]
    pub properties: BTreeMap<String, Reference>,
}

/// Where a new partition starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At its first record.
    #[default]
    Earliest,
    /// At its end.
    Latest,
}

/// Which records are visible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Only records of committed transactions, and records outside of transactions.
    #[default]
    ReadCommitted,
    /// All records, also of aborted transactions.
    ReadUncommitted,
}

/// Kafka's group protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupProtocol {
    /// The classic protocol with the cooperative-sticky assignor.
    #[default]
    Cooperative,
    /// The classic protocol with the range assignor.
    Range,
    /// KIP-848, for brokers from 4.0 on.
    Consumer,
}

/// A WebAssembly component of `gristmill:transform`: a transform of records, which come as they are in Kafka, or of
/// typed columns, after values are decoded. Those of records come first.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransformStep {
    /// Path of the component, relative to this file.
    pub wasm: PathBuf,
    /// The component's SHA-256 in hex: with it, no other component is run.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"))]
    pub sha256: Option<String>,
    /// Which records or rows it is given; all by default. The others go on as they are, past it: of a transform of columns,
    /// columns that it replaces keep their values, those that it adds are null, those that it removes or renames are
    /// removed or renamed all the same, since all rows have the same columns.
    #[serde(default)]
    pub when: Option<When>,
    /// Takes a component that replaces this one while the pipeline runs, at the next checkpoint: it is looked for every two
    /// seconds. One that does not load, refuses its configuration or makes other columns or outputs is not taken, and
    /// said so; the one at hand goes on.
    #[serde(default)]
    pub reload: bool,
    /// The transform's configuration; `gristmill transform inspect` shows what it takes. Texts may be `${env:NAME}` or
    /// `${file:PATH}`.
    #[serde(default)]
    pub config: serde_json::Map<String, serde_json::Value>,
    /// What one instance may use.
    #[serde(default)]
    pub limits: TransformLimits,
}

/// Limits of a transform; what is left out has the runtime's default.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransformLimits {
    /// Linear memory of an instance; 64 MiB by default.
    #[serde(default)]
    pub memory: Option<ByteSize>,
    /// Wall time of one call, which is a trip-wire: the verdict on a slow record is given by `record_fuel`; 1 s by
    /// default.
    #[serde(default)]
    pub call_timeout: Option<TimeSpan>,
    /// Wall time of the call that gives an instance its configuration; 5 s by default.
    #[serde(default)]
    pub configure_timeout: Option<TimeSpan>,
    /// Wall time that one batch may spend on the search for records that break the transform; 30 s by default.
    #[serde(default)]
    pub search_timeout: Option<TimeSpan>,
    /// WebAssembly fuel, about one unit an instruction, that a record may burn when it is judged alone; 500 million by
    /// default, about a second.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub record_fuel: Option<u64>,
    /// Bytes of one answer of the transform, and of what its records refer to; 32 MiB by default.
    #[serde(default)]
    pub output_bytes: Option<ByteSize>,
    /// The same, of all answers to one batch; 256 MiB by default.
    #[serde(default)]
    pub batch_output_bytes: Option<ByteSize>,
    /// Records out per record in, over one call; 100 by default.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub output_records_per_row: Option<u32>,
    /// Log lines of one batch that are kept; 100 by default.
    #[serde(default)]
    pub log_lines: Option<u32>,
    /// Bytes of log text of one batch that are kept; 64 KiB by default.
    #[serde(default)]
    pub log_bytes: Option<ByteSize>,
    /// Different metric names; 100 by default.
    #[serde(default)]
    pub metric_series: Option<u32>,
    /// The share of rejected records, over the last `breaker_rows`, at which the pipeline stops, since the
    /// transform itself must be broken; 0.5 by default. 1 never stops.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_reject_ratio: Option<f64>,
    /// How many records `max_reject_ratio` looks back at; 1,000 by default. Before so many were given to the transform it stops
    /// only where the rejected ones would be too many among them.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub breaker_rows: Option<u32>,
}

impl TransformLimits {
    /// As the runtime takes them.
    pub fn limits(&self) -> Limits {
        // All of them, so that none is forgotten here.
        let TransformLimits {
            memory,
            call_timeout,
            configure_timeout,
            search_timeout,
            record_fuel,
            output_bytes,
            batch_output_bytes,
            output_records_per_row,
            log_lines,
            log_bytes,
            metric_series,
            max_reject_ratio,
            breaker_rows,
        } = self;
        let mut limits = Limits::default();
        let bytes = |size: &Option<ByteSize>| size.map(|size| size.0);
        let time = |span: &Option<TimeSpan>| span.map(TimeSpan::duration);
        set(&mut limits, bytes(memory), Limits::with_memory);
        set(&mut limits, time(call_timeout), Limits::with_call_timeout);
        set(&mut limits, time(configure_timeout), Limits::with_configure_timeout);
        set(&mut limits, time(search_timeout), Limits::with_search_timeout);
        set(&mut limits, *record_fuel, Limits::with_record_fuel);
        set(&mut limits, bytes(output_bytes), Limits::with_output_bytes);
        set(&mut limits, bytes(batch_output_bytes), Limits::with_batch_output_bytes);
        set(&mut limits, *output_records_per_row, Limits::with_output_records_per_row);
        set(&mut limits, *log_lines, Limits::with_log_lines);
        let log_bytes = bytes(log_bytes).map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
        set(&mut limits, log_bytes, Limits::with_log_bytes);
        set(&mut limits, *metric_series, Limits::with_metric_series);
        set(&mut limits, *max_reject_ratio, Limits::with_max_reject_ratio);
        set(&mut limits, *breaker_rows, Limits::with_breaker_rows);
        limits
    }
}

fn set<T>(limits: &mut Limits, value: Option<T>, with: impl FnOnce(Limits, T) -> Limits) {
    if let Some(value) = value {
        *limits = with(limits.clone(), value);
    }
}

/// How record values become columns.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decode {
    /// The format of the values that leave the transform.
    pub format: Format,
    /// For `json`: the columns, by name, and their types, such as `string not null`, `int64`,
    /// `timestamp_ms`, `decimal(18,2)`, `list<string>`, or a map of nested fields.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub fields: Option<SchemaSpec>,
    /// For `avro`, `protobuf` and `json_schema`: the subject whose latest schema gives the columns; by default `{topic}-value`.
    #[serde(default)]
    pub subject: Option<String>,
    /// The same formats: a file with the schema that gives the columns, instead of a subject. What a `.proto` file imports is looked
    /// for in its folder.
    #[serde(default)]
    pub schema_file: Option<PathBuf>,
    /// For `protobuf`: the message that records are, such as `shop.Order`. Needed where the schema has several.
    #[serde(default)]
    pub message: Option<String>,
    /// For `avro`, `protobuf` and `json_schema`: what becomes of what has no column of one type, such as a record that contains itself,
    /// or a union of several types.
    #[serde(default)]
    pub recursive: Option<Recursive>,
    /// Records say how rows change. Into files and tables of `mode: exactly_once` or `at_least_once` go all changes, with a column
    /// `__op` (`c`, `u`, `d`, and `r` of a snapshot); with `mode: cdc` they are done to the table's rows.
    #[serde(default)]
    pub changes: Option<Changes>,
    /// How record keys become columns, which are put before those of the values. With `changes`: a record without a value deletes
    /// the row with its key.
    #[serde(default)]
    pub key: Option<DecodeKey>,
    /// Adds the columns `_kafka_partition`, `_kafka_offset`, `_kafka_sub` (0 = the record itself, 1 and up =
    /// records that a transform added), `_kafka_timestamp` and `_kafka_key`.
    #[serde(default = "defaults::yes")]
    pub kafka_columns: bool,
}

/// How records say that rows change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Changes {
    /// Values are Debezium's envelopes: `op`, `before`, `after`. As JSON also within a `payload` beside its schema; `fields` are those
    /// of `after`. A record without a value says nothing, unless `key` says which row it deletes.
    Debezium,
    /// A value is the row of its key, in the place of an earlier one; a record without a value deletes it. Needs `key`.
    Upsert,
}

/// How record keys become columns.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecodeKey {
    /// The format of keys.
    pub format: KeyFormat,
    /// For `json`: the columns and their types, as `decode.fields`; for `text`: the one column, such as `id: int64`. A column that
    /// values have too is taken from the value, where there is one.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub fields: Option<SchemaSpec>,
    /// For `avro`, `protobuf` and `json_schema`: the subject whose latest schema gives the columns; by default `{topic}-key`.
    #[serde(default)]
    pub subject: Option<String>,
    /// The same formats: a file with the schema that gives the columns, instead of a subject.
    #[serde(default)]
    pub schema_file: Option<PathBuf>,
    /// For `protobuf`: the message that keys are; needed where the schema has several.
    #[serde(default)]
    pub message: Option<String>,
    /// The same formats: as `decode.recursive`.
    #[serde(default)]
    pub recursive: Option<Recursive>,
}

/// The format of record keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyFormat {
    /// One JSON object a key.
    Json,
    /// Avro in Confluent's wire format.
    Avro,
    /// Protobuf in Confluent's wire format; without `schema_registry` the messages alone.
    Protobuf,
    /// JSON objects in Confluent's wire format, or by themselves, whose columns a JSON Schema says.
    JsonSchema,
    /// The text of one value: `4711`.
    Text,
}

impl KeyFormat {
    /// As the format of values that has a schema, if it does.
    pub(crate) fn with_schema(self) -> Option<Format> {
        match self {
            KeyFormat::Avro => Some(Format::Avro),
            KeyFormat::Protobuf => Some(Format::Protobuf),
            KeyFormat::JsonSchema => Some(Format::JsonSchema),
            KeyFormat::Json | KeyFormat::Text => None,
        }
    }
}

/// The format of record values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object a record.
    Json,
    /// Avro in Confluent's wire format.
    Avro,
    /// Protobuf in Confluent's wire format; without `schema_registry` the messages alone, keys and values alike.
    Protobuf,
    /// JSON objects in Confluent's wire format, or by themselves, whose columns a JSON Schema says.
    JsonSchema,
    /// The bytes as they are, in one column `value`.
    Bytes,
}

impl Format {
    /// As it is written in a file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Avro => "avro",
            Format::Protobuf => "protobuf",
            Format::JsonSchema => "json_schema",
            Format::Bytes => "bytes",
        }
    }

    /// Whether a schema says which columns there are.
    pub(crate) fn has_schema(self) -> bool {
        matches!(self, Format::Avro | Format::Protobuf | Format::JsonSchema)
    }
}

/// What becomes of what has no column of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Recursive {
    /// The schema is refused, with the field.
    #[default]
    Refuse,
    /// A text of JSON; of BigQuery's type JSON.
    Json,
}

/// Where rows go.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sink {
    /// Files in a folder or in Google Cloud Storage.
    #[serde(default)]
    pub files: Option<Files>,
    /// Tables of BigQuery.
    #[serde(default)]
    pub bigquery: Option<BigQuery>,
}

/// Tables of BigQuery, by the Storage Write API. Without `tables` they are there already; `gristmill run` says the statement
/// that makes one that is not.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BigQuery {
    /// What is promised of rows.
    #[serde(default)]
    pub mode: Mode,
    /// The project of the dataset.
    #[schemars(length(min = 1))]
    pub project: String,
    /// The dataset.
    #[schemars(length(min = 1))]
    pub dataset: String,
    /// The table's name, with `{topic}` and `{output}` in it; `{topic}` by default. Characters that no table's name has become
    /// `_`, and an output other than `main` that the name does not hold is put behind it: `orders_high_value`. Any other name in
    /// braces is a column whose values part rows into tables, `{topic}_{country}`: a string, an integer, a boolean or a date; null
    /// is `null`. Such tables are made, or looked at, when their first row comes.
    #[serde(default = "defaults::table")]
    pub table: String,
    /// How many streams one process makes in a second at most; 40 by default. Google advises to stay below that in all processes
    /// together. A stream is made for each entry, of each partition and table.
    #[serde(default = "defaults::streams_per_second")]
    #[schemars(range(min = 1))]
    pub max_streams_per_second: u32,
    /// How many tables columns in `table` may name in one process, before it stops; 1,000 by default.
    #[serde(default = "defaults::max_tables")]
    #[schemars(range(min = 1))]
    pub max_tables: usize,
    /// For `mode: cdc`: the columns that rows are told apart by, which are the primary key of the tables.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub primary_key: Vec<String>,
    /// Makes tables that are missing, and adds columns to those that lack some. `tables: {}` has the defaults.
    #[serde(default)]
    pub tables: Option<Tables>,
    /// Where the ledger lies, which says what is in the tables.
    pub state: State,
    /// When the rows of a partition become visible.
    #[serde(default)]
    pub rotate: Rotate,
    /// Whether rows are compressed on their way; by default not.
    #[serde(default)]
    pub compression: Compression,
    /// A file with credentials, relative to this one; Application Default Credentials without it.
    #[serde(default)]
    pub credentials_file: Option<PathBuf>,
    /// Another address of the Storage Write API than Google's: an emulator, such as `http://127.0.0.1:9060`. It is asked without
    /// credentials.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The same of the REST interface, which `tables` needs: such as `http://127.0.0.1:9050`.
    #[serde(default)]
    pub rest_endpoint: Option<String>,
}

/// Compression of rows on their way to BigQuery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// None: the least CPU time.
    #[default]
    None,
    /// gzip: a third of the bytes, for many times the CPU time of making the rows. It pays where the network is narrow, or is
    /// paid by the byte, as between clouds.
    Gzip,
}

/// How tables are made and changed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tables {
    /// Whether tables that are missing are made; by default they are. Without it, the rest of `tables` is for those that are there.
    #[serde(default = "defaults::yes")]
    pub create: bool,
    /// How new tables are partitioned; not at all by default.
    #[serde(default)]
    pub partition: Option<TablePartition>,
    /// Columns that new tables are clustered by.
    #[serde(default)]
    #[schemars(length(max = 4))]
    pub cluster: Vec<String>,
    /// Labels of new tables.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The Cloud KMS key of new tables: `projects/../locations/../keyRings/../cryptoKeys/..`.
    #[serde(default)]
    pub kms_key: Option<String>,
    /// What if rows have a column that a table lacks. A column of another type is always an error.
    #[serde(default)]
    pub new_columns: NewColumns,
    /// What if a table wants values (`REQUIRED`) of a column that rows may leave null or do not have.
    #[serde(default)]
    pub required_columns: RequiredColumns,
    /// Makes the dataset there, if it is missing: `EU`, `europe-west1`. Without it the dataset has to be there.
    #[serde(default)]
    pub dataset_location: Option<String>,
    /// For `mode: cdc`: how old the answer to a query of a new table may be, such as `15m`. Without it each query applies what has
    /// changed before it answers.
    #[serde(default)]
    pub max_staleness: Option<TimeSpan>,
}

/// How a table is partitioned.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TablePartition {
    /// A column that is a date or a timestamp; without it rows are in the partition of the time when they arrived.
    #[serde(default)]
    pub column: Option<String>,
    /// How long a partition is.
    #[serde(default)]
    pub by: PartitionBy,
    /// After how long BigQuery deletes a partition; never by default.
    #[serde(default)]
    pub expire: Option<TimeSpan>,
    /// Whether queries have to say which partitions they read.
    #[serde(default)]
    pub require_filter: bool,
}

/// How long a partition of a table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum PartitionBy {
    Hour,
    #[default]
    Day,
    Month,
    Year,
}

/// What if rows have a column that a table lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NewColumns {
    /// It is added, as one that may be null, and rows wait until BigQuery knows it, which may take minutes.
    #[default]
    Add,
    /// Rows go without it, until the table has it.
    Ignore,
    /// The same, but rows that have a value there are dead letters, `NEW_COLUMN`.
    Reject,
    /// The pipeline does not start, or stops, and says the statement that adds it.
    Fail,
}

/// What if a table wants values of a column that rows may leave null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequiredColumns {
    /// Rows with a null there are dead letters; if no row has the column at all, the pipeline does not start.
    #[default]
    Fail,
    /// It is made nullable.
    Relax,
}

/// What is promised of rows in BigQuery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Each is in its table once. The rows of a ledger entry are appended to a PENDING stream, which is committed once the entry
    /// is sealed: they become visible after `rotate.age` at the latest.
    #[default]
    ExactlyOnce,
    /// Each is in its table once or, after a failure, more often: `_kafka_partition`, `_kafka_offset` and `_kafka_sub` tell
    /// repeated ones. They are appended to the table's default stream, and become visible at once.
    AtLeastOnce,
    /// Change data capture: the table has the newest row of each `primary_key`, and none that was deleted. Needs `decode.changes`.
    /// Changes are numbered, so that one that is sent again, or late, changes nothing.
    Cdc,
}

/// A place for a ledger: a `folder` or a place in a bucket (`gcs`). One pipeline each.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// A folder, relative to this file. Whoever runs the pipeline next has to have it.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// A bucket of Google Cloud Storage.
    #[serde(default)]
    pub gcs: Option<Gcs>,
}

/// Files, written exactly once by the ledger's protocol: in a `folder` or in a bucket (`gcs`). Staged files and the
/// ledger lie in `_gristmill` in it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// A folder, relative to this file.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// A bucket of Google Cloud Storage.
    #[serde(default)]
    pub gcs: Option<Gcs>,
    /// The files' format.
    #[serde(default)]
    pub format: FileFormat,
    /// Directories by columns and by record time in UTC, such as `country={country}/dt=%Y-%m-%d`; none by
    /// default. `{a.b}` is a field inside a column: a string, an integer, a boolean or a date. Null becomes
    /// `__HIVE_DEFAULT_PARTITION__`. The column of `country={country}` is left out of the files, since the path
    /// holds it and many readers refuse to find it twice. A row whose value no path can give back (an empty
    /// string, or more than 128 bytes) is a dead letter with the code `DIRECTORY_VALUE`.
    #[serde(default)]
    pub directories: Option<String>,
    /// When files are closed and become visible.
    #[serde(default)]
    pub rotate: Rotate,
}

/// A place in Google Cloud Storage.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gcs {
    /// The bucket's name, without `gs://`.
    pub bucket: String,
    /// What the names of all objects start with, such as `lake/orders`; nothing by default.
    #[serde(default)]
    pub prefix: Option<String>,
    /// Another bucket for files that are not published yet. Then each is copied at publishing instead of moved.
    /// Needed where the bucket has a retention policy.
    #[serde(default)]
    pub staging_bucket: Option<String>,
    /// Who the pipeline acts as, unless `credentials_file` says it.
    #[serde(default)]
    pub credentials: GcsCredentials,
    /// A file, relative to this one, of the types `external_account` (workload identity federation: a projected token
    /// of Kubernetes, or a role on AWS: EC2, ECS, Fargate, EKS), `impersonated_service_account`, `service_account` or
    /// `authorized_user`. It is read again when it changes.
    #[serde(default)]
    pub credentials_file: Option<PathBuf>,
    /// Another address than Google's: a private endpoint, or an emulator such as `http://127.0.0.1:4443`. The
    /// environment's HTTPS_PROXY and NO_PROXY are heeded.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// A PEM file, relative to this one, with certificates of authorities to trust besides the system's, for the
    /// endpoint; the services that issue tokens are Google's, and the system's authorities vouch for them.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// Who a pipeline acts as at Google Cloud.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GcsCredentials {
    /// Application Default Credentials: GOOGLE_APPLICATION_CREDENTIALS, else what `gcloud` wrote, else the
    /// metadata server (GKE, Compute Engine, Cloud Run).
    #[default]
    Default,
    /// None, for emulators.
    Anonymous,
}

/// The format of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// Apache Parquet, compressed with zstd.
    #[default]
    Parquet,
    /// One JSON object a line. A row with a time that is beyond what JSON says is a dead letter with the code
    /// `TIME_OUT_OF_RANGE`.
    Jsonl,
}

/// When the open files of a partition are closed and become visible: whichever comes first.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// Bytes in the open files of a partition.
    #[serde(default = "defaults::rotate_bytes")]
    pub bytes: ByteSize,
    /// Rows in the open files of a partition.
    #[serde(default = "defaults::rotate_rows")]
    #[schemars(range(min = 1))]
    pub rows: u64,
    /// Age of the oldest row in the open files of a partition.
    #[serde(default = "defaults::rotate_age")]
    pub age: TimeSpan,
}

impl Default for Rotate {
    fn default() -> Self {
        Rotate { bytes: defaults::rotate_bytes(), rows: defaults::rotate_rows(), age: defaults::rotate_age() }
    }
}

/// Where rejected and undecodable records go: to a folder, to a bucket, to a topic or to a table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadLetters {
    /// A folder for JSON-lines files, relative to this file.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// A place in Google Cloud Storage for JSON-lines files.
    #[serde(default)]
    pub gcs: Option<Gcs>,
    /// A topic of the same cluster. Records there carry Kafka Connect's context headers.
    #[serde(default)]
    pub topic: Option<String>,
    /// A table of the sink's dataset in BigQuery, such as `{topic}_dead_letters`: seen at once, after a crash some perhaps twice,
    /// which `dead_letter_key` tells. It is made if `tables` makes those of the rows.
    #[serde(default)]
    pub table: Option<String>,
    /// Whether a dead letter carries the record or only where to find it.
    #[serde(default)]
    pub payload: Payload,
}

/// What a dead letter carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// Key, value and headers of the record.
    #[default]
    Full,
    /// Topic, partition, offset and the reason, no content.
    Omitted,
}

/// A Schema Registry that speaks Confluent's REST API.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SchemaRegistry {
    /// Its address, such as `http://localhost:8081`; several separated by commas.
    pub url: String,
    /// User name for basic authentication.
    #[serde(default)]
    pub username: Option<String>,
    /// Password for basic authentication; write `${env:NAME}` or `${file:PATH}`.
    #[serde(default)]
    pub password: Option<Reference>,
    /// A bearer token; write `${env:NAME}` or `${file:PATH}`.
    #[serde(default)]
    pub bearer_token: Option<Reference>,
}

/// Metrics and health over HTTP.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// The address to listen on, such as `127.0.0.1:9600`.
    pub listen: String,
}

mod defaults {
    use super::{ByteSize, TimeSpan};

    pub(super) fn yes() -> bool {
        true
    }
    pub(super) fn memory() -> ByteSize {
        ByteSize(256 << 20)
    }
    pub(super) fn shutdown() -> TimeSpan {
        TimeSpan(30_000)
    }
    pub(super) fn streams_per_second() -> u32 {
        40
    }

    pub(super) fn max_tables() -> usize {
        1_000
    }

    pub(super) fn table() -> String {
        "{topic}".to_owned()
    }
    pub(super) fn rotate_bytes() -> ByteSize {
        ByteSize(128 << 20)
    }
    pub(super) fn rotate_rows() -> u64 {
        1_000_000
    }
    pub(super) fn rotate_age() -> TimeSpan {
        TimeSpan(60_000)
    }
}
