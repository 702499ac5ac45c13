//! From a checked file to everything that a run needs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_schema::SchemaRef;
use gristmill::{
    Assignor, ConsumerConfig, Producer, ProducerConfig, RegistryConfig, RegistryErrorKind, Schema,
    SchemaRegistry, SchemaType, TopicIds,
};
use gristmill_sinks::{
    BigQueryConfig, BigQueryStore, DeadLetterSink, DirectoryTemplate, FileDeadLetters, FolderStore, GcsStore,
    Granularity, ParquetOptions, Partitioning, Rotation, SinkConfig, TableOptions,
};
use gristmill_smt::{Kind, Runtime, RuntimeConfig, Stream, Transform};

use crate::check::{Checked, directory_mistakes};
use crate::dead_letter_topic::TopicDeadLetters;
use crate::document::nearest;
use crate::error::{Error, ErrorKind};
use crate::file::{
    BigQuery, Changes, Compression, DecodeKey, FileFormat, Format, GroupProtocol, Isolation, KeyFormat, Mode,
    NewColumns, PartitionBy, Payload, PipelineFile, RequiredColumns, Start, TablePartition, Tables,
    TransformStep,
};
use crate::place::Place;
use crate::plan::PlannedTable;
use crate::predicate::Of;
use crate::quantity::{ByteSize, TimeSpan};
use crate::replay::{Replay, ReplayRequest};
use crate::stages::changes::{self, ChangePlan, Destination, KeyPlan, OP_COLUMN};
use crate::stages::{DecoderPlan, Fits, StagePlan, TransformPlan, kafka_column_of_its_own, rows_schema};

/// The largest component that is read, in bytes.
const MAX_COMPONENT: u64 = 256 << 20;

#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    pub(crate) bootstrap_servers: String,
    pub(crate) topics: Vec<String>,
    pub(crate) consumer: ConsumerConfig,
    pub(crate) plan: StagePlan,
    pub(crate) loader: Loader,
    pub(crate) sink: SinkConfig,
    /// The sink's store, if it is a bucket.
    pub(crate) gcs: Option<GcsStore>,
    /// Of a pipeline that changes rows in place: who counts partitions, and sees where they end.
    pub(crate) counting: Option<ConsumerConfig>,
    pub(crate) has_dead_letters: bool,
    pub(crate) dead_letter_topic: Option<String>,
    pub(crate) registry: Option<SchemaRegistry>,
    pub(crate) names_for_ids: bool,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) shutdown: Duration,
    /// The range that is replayed; none for a live pipeline.
    pub(crate) replay: Option<Arc<Replay>>,
}

pub(crate) async fn prepare(checked: Checked, names_for_ids: bool) -> Result<Prepared, Error> {
    let loader = Loader::new(&checked)?;
    let (plan, registry) = plan_with(&checked, &loader).await?;
    let file = &checked.pipeline;
    let (sink, gcs) = sink(&checked, Some(&plan)).await?;
    let counting = match is_cdc(&checked) {
        true => {
            // The end of a partition is behind transactions that are open, too.
            let mut all = checked.clone();
            all.pipeline.source.kafka.isolation = Isolation::ReadUncommitted;
            Some(consumer(&all, names_for_ids)?)
        }
        false => None,
    };
    Ok(Prepared {
        name: file.name.clone(),
        file: checked.file.clone(),
        bootstrap_servers: file.source.kafka.bootstrap_servers.clone(),
        topics: file.source.kafka.topics.clone(),
        consumer: consumer(&checked, names_for_ids)?,
        sink,
        gcs,
        plan,
        loader,
        counting,
        has_dead_letters: file.dead_letters.is_some(),
        dead_letter_topic: file.dead_letters.as_ref().and_then(|letters| letters.topic.clone()),
        registry,
        names_for_ids,
        listen: file.http.as_ref().map(|http| http.listen.parse().expect("checked")),
        shutdown: file.shutdown_timeout.duration(),
        replay: None,
    })
}

pub(crate) async fn prepare_replay(checked: &Checked, request: &ReplayRequest) -> Result<Prepared, Error> {
    if is_cdc(checked) {
        let text = "a range of changes makes no table of its own, so `mode: cdc` has no replay: the table is mended by reading again, \
                    `gristmill ledger reset` says how, and what is read twice changes nothing";
        return Err(Error::config(text));
    }
    let aside = request.apply(checked)?;
    let topics = aside.pipeline.source.kafka.topics.clone();
    if let Some(there) = what_is_there(&aside)? {
        Replay::look_before(request, &aside.pipeline.name, &there).await?;
    }
    let mut prepared = prepare(aside, false).await?;
    let (name, servers) = (&prepared.name, &prepared.bootstrap_servers);
    let replay = Replay::begin(request, name, &topics, &prepared.consumer, servers, &prepared.sink).await?;
    prepared.replay = Some(Arc::new(replay));
    Ok(prepared)
}

/// The place of a file's rows, if there is something, without a trace in it.
pub(crate) fn what_is_there(checked: &Checked) -> Result<Option<SinkConfig>, Error> {
    let Place::Folder(folder) = checked.pipeline.sink.place() else {
        return ledger_of(checked).map(Some);
    };
    let folder = checked.path(folder);
    if !folder.is_dir() {
        return Ok(None);
    }
    let store = FolderStore::look(folder).map_err(Error::sink)?;
    SinkConfig::builder(Arc::new(store)).build().map(Some).map_err(Error::sink)
}

/// Transforms and decoder: all that `pipeline test` needs.
pub(crate) async fn plan(checked: &Checked) -> Result<(StagePlan, Option<SchemaRegistry>), Error> {
    plan_with(checked, &Loader::new(checked)?).await
}

/// How values become columns: all that looking at them needs.
pub(crate) async fn decoding(checked: &Checked) -> Result<(DecoderPlan, Option<SchemaRegistry>), Error> {
    if checked.pipeline.decode.changes.is_some() {
        let text = "looking at a topic's records does not know `decode.changes` yet: give it a file without it, whose columns are \
                    those of the values";
        return Err(Error::config(text));
    }
    let registry = registry(checked)?;
    let decoder = decoder(checked, registry.as_ref()).await?;
    Ok((decoder, registry))
}

async fn plan_with(checked: &Checked, loader: &Loader) -> Result<(StagePlan, Option<SchemaRegistry>), Error> {
    let registry = registry(checked)?;
    let transforms = tokio::task::block_in_place(|| loader.all())?;
    let decoder = decoder(checked, registry.as_ref()).await?;
    let changes = change_plan_of(checked, registry.as_ref()).await?;
    fit_for_changes(checked, &transforms)?;
    let rows = rows_schema(&decoder, changes.as_ref())?;
    let schema = tokio::task::block_in_place(|| columns_after(checked, &transforms, rows))?;
    let directories = directories(checked, &schema)?;
    let kafka_columns = checked.pipeline.decode.kafka_columns;
    let sink = &checked.pipeline.sink;
    let times_as_text = sink.files.as_ref().is_some_and(|files| matches!(files.format, FileFormat::Jsonl));
    let destination = destination(checked, &schema)?;
    keys_are_told(checked, &decoder, changes.as_ref())?;
    let is_table = matches!(destination, Destination::Table { .. });
    let fits = Fits { directories, times_as_text, bigquery: sink.bigquery.is_some(), changes: is_table };
    Ok((StagePlan { transforms, decoder, changes, schema, kafka_columns, fits, destination }, registry))
}

/// Whether transforms of columns can be given changes.
fn fit_for_changes(checked: &Checked, transforms: &[TransformPlan]) -> Result<(), Error> {
    if !is_cdc(checked) {
        return Ok(());
    }
    for (i, plan) in transforms.iter().enumerate().filter(|(_, plan)| plan.transform.kind() == Kind::Columns)
    {
        let why = match (&plan.when, plan.transform.manifest().outputs.is_empty()) {
            (Some(_), _) => "`when` asks columns of which a deletion tells the key alone",
            (None, false) => "it routes rows to other outputs, and a deletion tells the key alone",
            (None, true) => continue,
        };
        return Err(Error::config(format!(
            "transforms[{i}]: with `mode: cdc` a transform of columns is given every row and gives one for it: {why}"
        )));
    }
    Ok(())
}

/// What rows are where they go.
fn destination(checked: &Checked, schema: &SchemaRef) -> Result<Destination, Error> {
    let PipelineFile { decode, sink, .. } = &checked.pipeline;
    if decode.changes.is_none() {
        return Ok(Destination::Rows);
    }
    if let Some(bigquery) = sink.bigquery.as_ref().filter(|bigquery| bigquery.mode == Mode::Cdc) {
        let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        for name in &bigquery.primary_key {
            if !known.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                let hint = match nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("they have {}", known.join(", ")),
                };
                return Err(Error::config(format!(
                    "sink.bigquery.primary_key: rows have no column `{name}`; {hint}"
                )));
            }
        }
        return Ok(Destination::Table { key: bigquery.primary_key.clone() });
    }
    if schema.field_with_name(OP_COLUMN).is_ok() {
        return Err(Error::config(format!(
            "rows have a column `{OP_COLUMN}`, which `decode.changes` adds: values that are flat already want no `changes`"
        )));
    }
    Ok(Destination::History)
}

/// A key that changes unnoticed would leave the old row where it is.
fn keys_are_told(
    checked: &Checked,
    decoder: &DecoderPlan,
    changes: Option<&ChangePlan>,
) -> Result<(), Error> {
    let Some(changes) = changes.filter(|_| is_cdc(checked)) else { return Ok(()) };
    match changes.open(&decoder.open()?.schema())?.tells_keys() {
        true => Ok(()),
        false => Err(Error::config(
            "sink.bigquery.primary_key: a transform makes columns of it, so that a key that changes would not be noticed: give \
             `decode.key`, whose columns tell it",
        )),
    }
}

/// How records become changes of rows, if they do.
async fn change_plan_of(
    checked: &Checked,
    registry: Option<&SchemaRegistry>,
) -> Result<Option<ChangePlan>, Error> {
    if let Some(plan) = changes_of_file(checked)? {
        return Ok(plan);
    }
    let decode = &checked.pipeline.decode;
    let (kind, key) = (decode.changes.expect("checked"), decode.key.as_ref().expect("checked"));
    let topic = &checked.pipeline.source.kafka.topics[0];
    let subject = key.subject.clone().unwrap_or_else(|| format!("{topic}-key"));
    let schema = registry.expect("checked").latest(&subject).await;
    let schema = schema.map_err(|e| Error::registry(format!("the keys' schema, subject {subject}"), e))?;
    let text = avro_text(&schema, &format!("subject {subject}"))?;
    Ok(Some(change_plan(checked, kind, Some(KeyPlan::Avro(DecoderPlan::Avro(text.into()))))))
}

/// How keys become columns, if the file and those beside it say it; none if the registry does.
fn key_of_file(checked: &Checked, key: &DecodeKey) -> Result<Option<KeyPlan>, Error> {
    let fields = || key.fields.as_ref().expect("checked").arrow_schema().expect("checked");
    Ok(Some(match (key.format, &key.schema_file) {
        (KeyFormat::Text, _) => KeyPlan::text(fields()).map_err(Error::config)?,
        (KeyFormat::Json, _) => KeyPlan::Json(fields()),
        (KeyFormat::Avro, Some(file)) => KeyPlan::Avro(DecoderPlan::Avro(text_of(checked, file)?.into())),
        (KeyFormat::Avro, None) => return Ok(None),
    }))
}

fn directories(checked: &Checked, schema: &SchemaRef) -> Result<Option<DirectoryTemplate>, Error> {
    let files = checked.pipeline.sink.files.as_ref();
    let Some(template) = files.and_then(|files| files.directories.as_ref()) else { return Ok(None) };
    let template = DirectoryTemplate::parse(template).map_err(Error::sink)?;
    let mistakes = directory_mistakes(&template, schema);
    if mistakes.is_empty() {
        return Ok(Some(template));
    }
    Err(Error::config(format!("sink.files.directories: {}", mistakes.join("; "))))
}

/// What a checked file cannot say of itself, without contacting anything: whether the component loads and takes its
/// configuration, and whether librdkafka takes the properties.
///
/// Compiles the component, so it may take seconds: not for an async thread.
///
/// # Errors
/// [`ErrorKind::Config`]; [`ErrorKind::Transform`] where the runtime itself cannot start.
pub fn check_components(checked: &Checked) -> Result<(), Error> {
    let transforms = Loader::new(checked)?.all()?;
    if let Some(decoder) = decoder_of_file(checked)?
        && let Some(changes) = changes_of_file(checked)?
    {
        fit_for_changes(checked, &transforms)?;
        let rows = rows_schema(&decoder, changes.as_ref())?;
        let schema = columns_after(checked, &transforms, rows)?;
        directories(checked, &schema)?;
        destination(checked, &schema)?;
        keys_are_told(checked, &decoder, changes.as_ref())?;
    }
    consumer(checked, false)?;
    Ok(())
}

/// The first partition of the first topic: what it is told, the others are.
fn first_stream(checked: &Checked) -> Stream {
    Stream { topic: checked.pipeline.source.kafka.topics[0].clone(), partition: 0 }
}

/// Instances in a process: one for each transform and partition. They are address space until they are used.
const MAX_INSTANCES: u32 = 1024;

/// Loads the components of a file's transforms.
#[derive(Debug)]
pub(crate) struct Loader {
    checked: Checked,
    /// None where there is no transform.
    runtime: Option<Runtime>,
}

impl Loader {
    pub(crate) fn new(checked: &Checked) -> Result<Self, Error> {
        let mut config = RuntimeConfig::new().with_max_instances(MAX_INSTANCES);
        if let Some(folder) = RuntimeConfig::default_cache_dir() {
            config = config.with_cache_dir(folder);
        }
        let is_needed = !checked.pipeline.transforms.is_empty();
        let runtime = is_needed.then(|| Runtime::new(config).map_err(Error::transform)).transpose()?;
        Ok(Loader { checked: checked.clone(), runtime })
    }

    pub(crate) fn all(&self) -> Result<Vec<TransformPlan>, Error> {
        let mut plans: Vec<TransformPlan> = Vec::new();
        for i in 0..self.checked.pipeline.transforms.len() {
            let plan = self.one(i)?;
            let before = plans.last().map(|before| before.transform.kind());
            if plan.transform.kind() == Kind::Records && before == Some(Kind::Columns) {
                return Err(Error::config(format!(
                    "transforms[{i}]: {} works on records, which are columns once transforms[{}] was there: put \
                     transforms of records before those of columns",
                    plan.transform.manifest().name,
                    i - 1
                )));
            }
            plans.push(plan);
        }
        Ok(plans)
    }

    /// One of them. What can be said of it before its columns are known is said now, not at the first partition.
    pub(crate) fn one(&self, i: usize) -> Result<TransformPlan, Error> {
        let step = &self.checked.pipeline.transforms[i];
        let runtime = self.runtime.as_ref().expect("there is a transform");
        let transform = load(&self.checked, runtime, i, step)?;
        let config = serde_json::Value::Object(step.config.clone());
        let config = crate::secret::resolve_in(&config, &self.checked.base)
            .map_err(|e| Error::config(format!("transforms[{i}].config: {e}")))?;
        let config = Arc::new(config);
        let plan = TransformPlan { transform, config, when: step.when.clone() };
        if plan.transform.kind() == Kind::Records {
            let stream = first_stream(&self.checked);
            plan.transform
                .instantiate(&stream, &plan.config)
                .map_err(|e| refused(format_args!("transforms[{i}].config"), e))?;
            plan.predicate(&stream.topic, Of::Records)
                .map_err(|e| Error::config(format!("transforms[{i}].when: {e}")))?;
        }
        Ok(plan)
    }

    /// The columns of the rows that leave the transforms, of those that are decoded.
    pub(crate) fn columns_after(
        &self,
        transforms: &[TransformPlan],
        decoded: SchemaRef,
    ) -> Result<SchemaRef, Error> {
        columns_after(&self.checked, transforms, decoded)
    }

    /// The file of a component that may be replaced.
    pub(crate) fn replaceable(&self, i: usize) -> Option<PathBuf> {
        let step = self.checked.pipeline.transforms.get(i)?;
        step.reload.then(|| self.checked.path(&step.wasm))
    }
}

/// The columns of the rows that leave the transforms, of those that are decoded.
fn columns_after(
    checked: &Checked,
    transforms: &[TransformPlan],
    decoded: SchemaRef,
) -> Result<SchemaRef, Error> {
    let mut schema = decoded;
    for (i, plan) in transforms.iter().enumerate().filter(|(_, plan)| plan.transform.kind() == Kind::Columns)
    {
        plan.predicate(&first_stream(checked).topic, Of::Columns(&schema))
            .map_err(|e| Error::config(format!("transforms[{i}].when: {e}")))?;
        let bound = plan.bind(&first_stream(checked), &schema);
        let bound = bound.map_err(|e| refused(format_args!("transforms[{i}]"), e))?;
        let output = plan.output(&bound);
        if let Some(name) = kafka_column_of_its_own(&schema, &output) {
            return Err(Error::config(format!(
                "transforms[{i}]: it makes a column {name}, which is Gristmill's own: give it another name"
            )));
        }
        schema = output;
    }
    Ok(schema)
}

/// An error of the runtime before the first record: most are a mistake in the file or in what it names.
fn refused(what: impl std::fmt::Display, error: gristmill_smt::Error) -> Error {
    match error.kind() {
        gristmill_smt::ErrorKind::Host => Error::transform(error),
        _ => Error::config(format!("{what}: {error}")),
    }
}

fn load(checked: &Checked, runtime: &Runtime, i: usize, step: &TransformStep) -> Result<Transform, Error> {
    let path = checked.path(&step.wasm);
    let bytes = read_bounded(&path, MAX_COMPONENT)?;
    let transform = runtime
        .load(&bytes, step.limits.limits())
        .map_err(|e| refused(format_args!("transforms[{i}]: {}", path.display()), e))?;
    if let Some(wanted) = &step.sha256
        && wanted != transform.digest()
    {
        return Err(Error::config(format!(
            "transforms[{i}]: {} has the SHA-256 {}, the pipeline file wants {wanted}: put the component back, or write the \
             new digest",
            path.display(),
            transform.digest()
        )));
    }
    Ok(transform)
}

fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    let cannot = |e: std::io::Error| Error::config(format!("{} cannot be read: {e}", path.display()));
    let size = std::fs::metadata(path).map_err(cannot)?.len();
    if size > most {
        return Err(Error::config(format!("{} has {size} bytes, {most} are the most", path.display())));
    }
    std::fs::read(path).map_err(cannot)
}

fn registry(checked: &Checked) -> Result<Option<SchemaRegistry>, Error> {
    let Some(file) = &checked.pipeline.schema_registry else { return Ok(None) };
    let secret = |r: &crate::secret::Reference| r.resolve(&checked.base).map_err(Error::config);
    let mut config = RegistryConfig::builder().urls(file.url.split(',').map(str::trim));
    if let (Some(user), Some(password)) = (&file.username, &file.password) {
        config = config.basic_auth(user, secret(password)?);
    }
    if let Some(token) = &file.bearer_token {
        config = config.bearer_token(secret(token)?);
    }
    let what = "the Schema Registry cannot be used";
    let config = config.build().map_err(|e| Error::registry(what, e))?;
    SchemaRegistry::new(config).map(Some).map_err(|e| Error::registry(what, e))
}

async fn decoder(checked: &Checked, registry: Option<&SchemaRegistry>) -> Result<DecoderPlan, Error> {
    if let Some(plan) = decoder_of_file(checked)? {
        return Ok(plan);
    }
    let decode = &checked.pipeline.decode;
    let topic = &checked.pipeline.source.kafka.topics[0];
    let subject = decode.subject.clone().unwrap_or_else(|| format!("{topic}-value"));
    let registry = registry.expect("checked");
    let schema = registry
        .latest(&subject)
        .await
        .map_err(|e| Error::registry(format!("the columns' schema, subject {subject}"), e))?;
    let what = format!("subject {subject}");
    let plan = avro_values(checked, &avro_text(&schema, &what)?, &what)?;
    // A schema that cannot be used is said now, not at the first record.
    plan.open()?;
    Ok(plan)
}

/// The decoder, if the file and those beside it say all of it; none if the registry does.
fn decoder_of_file(checked: &Checked) -> Result<Option<DecoderPlan>, Error> {
    let decode = &checked.pipeline.decode;
    let plan = match (decode.format, &decode.schema_file) {
        (Format::Json, _) => {
            let rows = decode.fields.as_ref().expect("checked").arrow_schema().expect("checked");
            match decode.changes {
                Some(Changes::Debezium) => DecoderPlan::Json(changes::json_envelope(&rows)),
                _ => DecoderPlan::Json(rows),
            }
        }
        (Format::Bytes, _) => DecoderPlan::Bytes,
        (Format::Avro, Some(file)) => {
            avro_values(checked, &text_of(checked, file)?, &file.display().to_string())?
        }
        (Format::Avro, None) => return Ok(None),
    };
    plan.open()?;
    Ok(Some(plan))
}

fn text_of(checked: &Checked, file: &Path) -> Result<String, Error> {
    let bytes = read_bounded(&checked.path(file), 16 << 20)?;
    String::from_utf8(bytes).map_err(|_| Error::config(format!("{} is not UTF-8", file.display())))
}

/// How values with that schema become columns.
fn avro_values(checked: &Checked, schema: &str, what: &str) -> Result<DecoderPlan, Error> {
    let text = match checked.pipeline.decode.changes {
        Some(Changes::Debezium) => {
            changes::avro_envelope(schema).map_err(|e| Error::config(format!("{what}: {e}")))?
        }
        _ => schema.to_owned(),
    };
    Ok(DecoderPlan::Avro(text.into()))
}

/// How records become changes of rows, if the file and those beside it say it; none if the registry does.
fn changes_of_file(checked: &Checked) -> Result<Option<Option<ChangePlan>>, Error> {
    let decode = &checked.pipeline.decode;
    let Some(kind) = decode.changes else { return Ok(Some(None)) };
    let key = match &decode.key {
        None => None,
        Some(key) => match key_of_file(checked, key)? {
            None => return Ok(None),
            plan => plan,
        },
    };
    Ok(Some(Some(change_plan(checked, kind, key))))
}

fn change_plan(checked: &Checked, kind: Changes, key: Option<KeyPlan>) -> ChangePlan {
    let kind = match kind {
        Changes::Debezium => changes::Kind::Debezium,
        Changes::Upsert => changes::Kind::Upsert,
    };
    let bigquery = checked.pipeline.sink.bigquery.as_ref();
    let primary_key = bigquery.map(|bigquery| bigquery.primary_key.clone()).unwrap_or_default();
    ChangePlan { kind, key, primary_key }
}

/// The self-contained text of an Avro schema.
fn avro_text(schema: &Schema, what: &str) -> Result<String, Error> {
    if schema.schema_type != SchemaType::Avro {
        return Err(Error::new(
            ErrorKind::SchemaRegistry,
            format!("{what} is a {} schema, the pipeline decodes Avro", schema.schema_type.as_str()),
        ));
    }
    gristmill_codec::inline_avro_references(&schema.text, schema.referenced_texts()).map_err(Error::decode)
}

/// The schema that records were written with; `None` if the registry does not know it, or if it is not Avro:
/// the records that name it are at fault then, not the pipeline.
pub(crate) async fn writer_schema(registry: &SchemaRegistry, id: u32) -> Result<Option<String>, Error> {
    match registry.schema_by_id(id).await {
        Ok(schema) => Ok(avro_text(&schema, &format!("schema id {id}"))
            .inspect_err(|error| tracing::warn!(%error, "records of this schema are rejected"))
            .ok()),
        Err(error) if error.kind() == RegistryErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::registry(format!("records name the schema id {id}"), error)),
    }
}

pub(crate) fn consumer(checked: &Checked, names_for_ids: bool) -> Result<ConsumerConfig, Error> {
    let file = &checked.pipeline;
    let kafka = &file.source.kafka;
    let group = kafka.group.clone().unwrap_or_else(|| format!("gristmill-{}", file.name));
    let mut config = ConsumerConfig::builder()
        .bootstrap_servers(&kafka.bootstrap_servers)
        .group_id(group)
        .topics(&kafka.topics)
        .memory_budget(half(file.memory))
        .start(match kafka.start {
            Start::Earliest => gristmill::Start::Earliest,
            Start::Latest => gristmill::Start::Latest,
        })
        .isolation(match kafka.isolation {
            Isolation::ReadCommitted => gristmill::Isolation::ReadCommitted,
            Isolation::ReadUncommitted => gristmill::Isolation::ReadUncommitted,
        })
        .group_protocol(match kafka.group_protocol {
            GroupProtocol::Cooperative => gristmill::GroupProtocol::Classic(Assignor::CooperativeSticky),
            GroupProtocol::Range => gristmill::GroupProtocol::Classic(Assignor::Range),
            GroupProtocol::Consumer => gristmill::GroupProtocol::Consumer,
        })
        .topic_ids(if names_for_ids { TopicIds::NotAvailable } else { TopicIds::Describe });
    if let Some(timeout) = kafka.session_timeout {
        config = config.session_timeout(timeout.duration());
    }
    for (key, value) in &kafka.properties {
        config = config.property(key, value.resolve(&checked.base).map_err(Error::config)?);
    }
    config.build().map_err(|e| Error::config(e.to_string()))
}

/// Records that were fetched have one half of a pipeline's memory, open files the other.
fn half(memory: ByteSize) -> usize {
    usize::try_from(memory.0 / 2).unwrap_or(usize::MAX).max(1)
}

async fn sink(checked: &Checked, plan: Option<&StagePlan>) -> Result<(SinkConfig, Option<GcsStore>), Error> {
    sink_under(checked, plan, None).await
}

/// Where the records of dead letters go when they are tried again: the same place, and a ledger of its own.
pub(crate) async fn sink_of_try(
    checked: &Checked,
    plan: &StagePlan,
    number: u32,
) -> Result<SinkConfig, Error> {
    Ok(sink_under(checked, Some(plan), Some(state_of_try(checked, number))).await?.0)
}

fn state_of_try(checked: &Checked, number: u32) -> String {
    format!("{}/dlq/{number}", checked.pipeline.sink.place().state_prefix())
}

async fn sink_under(
    checked: &Checked,
    plan: Option<&StagePlan>,
    state_prefix: Option<String>,
) -> Result<(SinkConfig, Option<GcsStore>), Error> {
    let file = &checked.pipeline;
    let place = file.sink.place();
    let opened = place.open(checked)?;
    opened.probe().await?;
    let config = match &file.sink.bigquery {
        None => SinkConfig::builder(opened.store),
        Some(bigquery) => {
            let tables = tables(checked, bigquery, plan).await?;
            SinkConfig::builder(Arc::new(tables)).state(opened.store)
        }
    };
    let format = match file.sink.files.as_ref().map(|files| files.format) {
        None if is_cdc(checked) => gristmill_sinks::Format::BigQueryChanges,
        None => gristmill_sinks::Format::BigQuery,
        Some(FileFormat::Parquet) => gristmill_sinks::Format::Parquet(ParquetOptions::default()),
        Some(FileFormat::Jsonl) => gristmill_sinks::Format::JsonLines,
    };
    let rotate = file.sink.rotate();
    let rotation = Rotation { bytes: rotate.bytes.0, rows: rotate.rows, age: rotate.age.duration() };
    let mut config =
        config.prefix(place.prefix()).memory(half(file.memory)).format(format).rotation(rotation);
    if let Some(state_prefix) = state_prefix {
        config = config.state_prefix(state_prefix);
    }
    if let Some(template) = plan.and_then(|plan| plan.fits.directories.as_ref()) {
        config = config.directories(template.clone());
    }
    if let Some(dead) = &file.dead_letters {
        config = config.payload(match dead.payload {
            Payload::Full => gristmill_sinks::Payload::Full,
            Payload::Omitted => gristmill_sinks::Payload::Omitted,
        });
        let sink: Arc<dyn DeadLetterSink> = match (dead.place(), &dead.topic) {
            (Some(place), _) => {
                let opened = place.open(checked)?;
                opened.probe().await?;
                Arc::new(FileDeadLetters::new(opened.store, place.prefix()).map_err(Error::sink)?)
            }
            (None, Some(topic)) => Arc::new(TopicDeadLetters::new(topic.clone(), producer(checked)?)),
            (None, None) => unreachable!("checked"),
        };
        config = config.dead_letters(sink);
    }
    Ok((config.build().map_err(Error::sink)?, opened.gcs))
}

/// Whether rows are changed in place.
pub(crate) fn is_cdc(checked: &Checked) -> bool {
    checked.pipeline.sink.bigquery.as_ref().is_some_and(|bigquery| bigquery.mode == Mode::Cdc)
}

/// The tables of BigQuery. With a plan, each is made ready for its rows: the first record would find out too late.
async fn tables(
    checked: &Checked,
    bigquery: &BigQuery,
    plan: Option<&StagePlan>,
) -> Result<BigQueryStore, Error> {
    let store = table_store(checked, bigquery)?;
    let Some(plan) = plan else { return Ok(store) };
    one_table_a_topic(checked, plan, &store)?;
    for (topic, output) in tables_of(checked, plan) {
        store.prepare_table(topic, &output, &plan.sink_schema(), false).await.map_err(of_tables)?;
    }
    Ok(store)
}

/// What a start would do to the tables; none if rows go to files.
pub(crate) async fn planned_tables(checked: &Checked) -> Result<Vec<PlannedTable>, Error> {
    let (plan, _) = plan(checked).await?;
    let Some(bigquery) = &checked.pipeline.sink.bigquery else { return Ok(Vec::new()) };
    let store = table_store(checked, bigquery)?;
    one_table_a_topic(checked, &plan, &store)?;
    let mut tables = Vec::new();
    for (topic, output) in tables_of(checked, &plan) {
        let outcome = store.prepare_table(topic, &output, &plan.sink_schema(), true).await;
        let outcome = outcome.map_err(|e| of_tables(e).to_string());
        tables.push(PlannedTable { name: store.name_of(topic, &output), outcome });
    }
    Ok(tables)
}

/// Changes of several topics have no order among themselves.
fn one_table_a_topic(checked: &Checked, plan: &StagePlan, store: &BigQueryStore) -> Result<(), Error> {
    if !is_cdc(checked) {
        return Ok(());
    }
    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    for (topic, output) in tables_of(checked, plan) {
        let name = store.name_of(topic, &output);
        if let Some(other) = taken.insert(name.to_lowercase(), topic) {
            return Err(Error::config(format!(
                "sink.bigquery.table: {other} and {topic} both go to {name}, and `mode: cdc` cannot say which of their changes is \
                 newer: give each a table, with `{{topic}}` and `{{output}}` in the name"
            )));
        }
    }
    Ok(())
}

fn tables_of<'a>(checked: &'a Checked, plan: &StagePlan) -> Vec<(&'a str, String)> {
    let topics = checked.pipeline.source.kafka.topics.iter();
    topics.flat_map(|topic| plan.outputs().into_iter().map(move |output| (topic.as_str(), output))).collect()
}

fn of_tables(e: gristmill_sinks::Error) -> Error {
    match e.kind() {
        gristmill_sinks::ErrorKind::InvalidConfig => Error::config(e.to_string()),
        _ => Error::sink(e),
    }
}

fn table_store(checked: &Checked, bigquery: &BigQuery) -> Result<BigQueryStore, Error> {
    let BigQuery {
        mode,
        project,
        dataset,
        table,
        primary_key,
        tables,
        compression,
        endpoint,
        rest_endpoint,
        credentials_file,
        ..
    } = bigquery.clone();
    let mode = match mode {
        Mode::ExactlyOnce => gristmill_sinks::Mode::ExactlyOnce,
        Mode::AtLeastOnce => gristmill_sinks::Mode::AtLeastOnce,
        Mode::Cdc => gristmill_sinks::Mode::Cdc,
    };
    let credentials_file = credentials_file.map(|file| checked.path(&file));
    let tables = tables.map(table_options);
    let gzip = compression == Compression::Gzip;
    let config = BigQueryConfig {
        mode,
        project,
        dataset,
        table,
        primary_key,
        tables,
        gzip,
        endpoint,
        rest_endpoint,
        credentials_file,
    };
    BigQueryStore::new(config).map_err(of_tables)
}

fn table_options(tables: Tables) -> TableOptions {
    let Tables {
        partition,
        cluster,
        labels,
        kms_key,
        new_columns,
        required_columns,
        dataset_location,
        max_staleness,
    } = tables;
    let partition = partition.map(|TablePartition { column, by, expire, require_filter }| Partitioning {
        column,
        by: match by {
            PartitionBy::Hour => Granularity::Hour,
            PartitionBy::Day => Granularity::Day,
            PartitionBy::Month => Granularity::Month,
            PartitionBy::Year => Granularity::Year,
        },
        expire: expire.map(TimeSpan::duration),
        require_filter,
    });
    TableOptions {
        partition,
        cluster,
        labels,
        kms_key,
        add_columns: new_columns == NewColumns::Add,
        relax_columns: required_columns == RequiredColumns::Relax,
        dataset_location,
        max_staleness: max_staleness.map(TimeSpan::duration),
    }
}

/// Where a pipeline's ledger lies, to look at it. Nothing is created.
///
/// # Errors
/// [`ErrorKind::Config`] if the sink's folder is not there.
pub fn ledger_of(checked: &Checked) -> Result<SinkConfig, Error> {
    let place = checked.pipeline.sink.place();
    let opened = place.look(checked)?;
    SinkConfig::builder(opened.store).prefix(place.prefix()).build().map_err(Error::sink)
}

/// As [`ledger_of`], of a try to deliver dead letters; 0 is the pipeline itself.
pub(crate) fn ledger_of_try(checked: &Checked, number: u32) -> Result<SinkConfig, Error> {
    if number == 0 {
        return ledger_of(checked);
    }
    let place = checked.pipeline.sink.place();
    let opened = place.look(checked)?;
    let config = SinkConfig::builder(opened.store).prefix(place.prefix());
    config.state_prefix(state_of_try(checked, number)).build().map_err(Error::sink)
}

/// As [`ledger_of`], to change the ledger: with the file's dead letters, since whoever seals an entry answers for the
/// delivery of those before it.
///
/// # Errors
/// As [`ledger_of`]; [`ErrorKind::Source`] if the topic of the dead letters cannot be written to.
pub async fn ledger_to_change(checked: &Checked) -> Result<SinkConfig, Error> {
    ledger_of(checked)?;
    Ok(sink(checked, None).await?.0)
}

/// For dead letters; it has the consumer's security.
fn producer(checked: &Checked) -> Result<Producer, Error> {
    let kafka = &checked.pipeline.source.kafka;
    let mut config = ProducerConfig::builder().bootstrap_servers(&kafka.bootstrap_servers);
    for (key, value) in &kafka.properties {
        let shared =
            ["security.", "sasl.", "ssl.", "client.", "socket.", "broker.", "reconnect.", "enable.ssl"];
        if shared.iter().any(|prefix| key.starts_with(prefix)) {
            config = config.property(key, value.resolve(&checked.base).map_err(Error::config)?);
        }
    }
    // How large a dead letter may be is the broker's to say.
    config = config.property("message.max.bytes", "1000000000");
    let config = config.build().map_err(|e| Error::config(e.to_string()))?;
    Producer::new(config).map_err(Error::source)
}
