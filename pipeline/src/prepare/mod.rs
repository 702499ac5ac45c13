//! From a checked file to everything that a run needs.

mod decoding;
mod sink;
mod transforms;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_schema::SchemaRef;
use gristmill::{Assignor, ConsumerConfig, SchemaRegistry, TopicIds};
use gristmill_sinks::{BigQueryStore, DirectoryTemplate, FolderStore, GcsStore, SinkConfig};

use crate::check::{Checked, directory_mistakes, dividing};
use crate::document::nearest;
use crate::error::Error;
use crate::file::{FileFormat, GroupProtocol, Isolation, Mode, PipelineFile, Start};
use crate::place::Place;
use crate::quantity::ByteSize;
use crate::replay::{Replay, ReplayRequest};
use crate::stages::changes::{ChangePlan, Destination, OP_COLUMN};
use crate::stages::{DecoderPlan, Fits, StagePlan, TransformPlan, rows_schema};
pub(crate) use decoding::{
    Reading, WriterSchema, latest_columns, no_columns, references, registry_says_columns, whole_text,
    writer_schema, writing,
};
use decoding::{change_plan_of, changes_of_file, decoder, decoder_of_file, keys_are_told, registry};
use sink::{Sink, sink};
pub(crate) use sink::{is_cdc, planned_tables, ready_tables, sink_of_try};
pub use sink::{ledger_of, ledger_to_change};
pub(crate) use transforms::Loader;
use transforms::{columns_after, fit_for_changes};

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
    /// Those that rows go into, if not into files.
    pub(crate) tables: Option<Arc<BigQueryStore>>,
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
    let Sink { config: sink, gcs, tables } = sink(&checked, Some(&plan)).await?;
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
        tables,
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
    let plan = tokio::task::block_in_place(|| assemble(checked, transforms, decoder, changes))?;
    Ok((plan, registry))
}

/// Binds the transforms to the columns that are decoded.
fn assemble(
    checked: &Checked,
    transforms: Vec<TransformPlan>,
    decoder: DecoderPlan,
    changes: Option<ChangePlan>,
) -> Result<StagePlan, Error> {
    fit_for_changes(checked, &transforms)?;
    let rows = rows_schema(&decoder, changes.as_ref())?;
    let schema = columns_after(checked, &transforms, rows)?;
    let directories = directories(checked, &schema)?;
    let kafka_columns = checked.pipeline.decode.kafka_columns;
    let sink = &checked.pipeline.sink;
    let times_as_text = sink.files.as_ref().is_some_and(|files| matches!(files.format, FileFormat::Jsonl));
    let destination = destination(checked, &schema)?;
    keys_are_told(checked, &decoder, changes.as_ref())?;
    let is_table = matches!(destination, Destination::Table { .. });
    let fits = Fits { directories, times_as_text, bigquery: sink.bigquery.is_some(), changes: is_table };
    let descriptions = decoder.descriptions()?;
    let descriptions = match &changes {
        Some(changes) => changes.descriptions(descriptions),
        None => descriptions,
    };
    Ok(StagePlan { transforms, decoder, changes, descriptions, schema, kafka_columns, fits, destination })
}

/// The plan with the columns that the registry says now, none if they are the same or cannot be those of records that are read now;
/// and the schema that says them.
pub(crate) async fn plan_now(
    checked: &Checked,
    registry: &SchemaRegistry,
    plan: &StagePlan,
) -> Result<(Option<StagePlan>, Arc<gristmill::Schema>), Error> {
    let (decoder, latest) = decoding::decoder_now(checked, registry).await?;
    let (decoder, id) = (decoder.after(&plan.decoder), latest.id);
    if decoder == plan.decoder {
        return Ok((None, latest));
    }
    if let Some(why) = decoder.cannot_read(&plan.decoder, id)? {
        tracing::warn!(
            schema = id, %why,
            "the latest schema does not read what the one at hand does, which goes on; a restart takes it"
        );
        return Ok((None, latest));
    }
    let (transforms, changes) = (plan.transforms.clone(), plan.changes.clone());
    let plan = tokio::task::block_in_place(|| assemble(checked, transforms, decoder, changes))?;
    Ok((Some(plan), latest))
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
                let text = format!("rows have no column `{name}`; {hint}");
                return Err(checked.mistake("/sink/bigquery/primary_key", text));
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

fn directories(checked: &Checked, schema: &SchemaRef) -> Result<Option<DirectoryTemplate>, Error> {
    let Some((pointer, template)) = dividing(checked).map_err(Error::sink)? else { return Ok(None) };
    let mistakes = directory_mistakes(&template, schema);
    if mistakes.is_empty() {
        return Ok(Some(template));
    }
    Err(checked.mistake(pointer, mistakes.join("; ")))
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

fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    let cannot = |e: std::io::Error| Error::config(format!("{} cannot be read: {e}", path.display()));
    let size = std::fs::metadata(path).map_err(cannot)?.len();
    if size > most {
        return Err(Error::config(format!("{} has {size} bytes, {most} are the most", path.display())));
    }
    std::fs::read(path).map_err(cannot)
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
