//! Where rows and dead letters go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gristmill::{Producer, ProducerConfig};
use gristmill_sinks::{
    BigQueryConfig, BigQueryStore, DeadLetterSink, FileDeadLetters, GcsStore, Granularity, MAIN_OUTPUT,
    ParquetOptions, Partitioning, Rotation, SinkConfig, TableDeadLetters, TableOptions, TableTemplate,
};

use super::{half, plan};
use crate::check::Checked;
use crate::dead_letter_topic::TopicDeadLetters;
use crate::error::Error;
use crate::file::{
    BigQuery, Compression, FileFormat, Mode, NewColumns, PartitionBy, Payload, RequiredColumns,
    TablePartition, Tables,
};
use crate::plan::PlannedTable;
use crate::quantity::TimeSpan;
use crate::stages::StagePlan;

/// Where rows and dead letters go.
pub(super) struct Sink {
    pub(super) config: SinkConfig,
    /// The store of the rows, or of their ledger, if it is a bucket.
    pub(super) gcs: Option<GcsStore>,
    pub(super) tables: Option<Arc<BigQueryStore>>,
}

/// Where the records of dead letters go when they are tried again: the same place, and a ledger of its own.
pub(crate) async fn sink_of_try(
    checked: &Checked,
    plan: &StagePlan,
    number: u32,
) -> Result<SinkConfig, Error> {
    Ok(sink(checked, Some(plan)).await?.config.of_try(number))
}

pub(super) async fn sink(checked: &Checked, plan: Option<&StagePlan>) -> Result<Sink, Error> {
    let file = &checked.pipeline;
    let place = file.sink.place();
    let opened = place.open(checked)?;
    opened.probe().await?;
    let tables = match &file.sink.bigquery {
        None => None,
        Some(bigquery) => Some(Arc::new(table_store(checked, bigquery)?)),
    };
    if let (Some(tables), Some(plan)) = (&tables, plan) {
        // The first record would find out too late.
        ready_tables(checked, tables, plan).await?;
    }
    let config = match &tables {
        None => SinkConfig::builder(opened.store),
        Some(tables) => SinkConfig::builder(tables.clone()).state(opened.store),
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
    if let Some(template) = plan.and_then(|plan| plan.fits.directories.as_ref()) {
        config = config.directories(template.clone());
    }
    if let Some(dead) = &file.dead_letters {
        config = config.payload(match dead.payload {
            Payload::Full => gristmill_sinks::Payload::Full,
            Payload::Omitted => gristmill_sinks::Payload::Omitted,
        });
        let sink: Arc<dyn DeadLetterSink> = match (dead.place(), &dead.topic, &dead.table) {
            (Some(place), ..) => {
                let opened = place.open(checked)?;
                opened.probe().await?;
                Arc::new(FileDeadLetters::new(opened.store, place.prefix()).map_err(Error::sink)?)
            }
            (None, Some(topic), _) => Arc::new(TopicDeadLetters::new(topic.clone(), producer(checked)?)),
            (None, None, Some(table)) => {
                let letters = table_of_letters(checked, table, plan)?;
                for topic in plan.iter().flat_map(|_| &file.source.kafka.topics) {
                    letters.prepare(topic, false).await.map_err(of_tables)?;
                }
                Arc::new(letters)
            }
            (None, None, None) => unreachable!("checked"),
        };
        config = config.dead_letters(sink);
    }
    Ok(Sink { config: config.build().map_err(Error::sink)?, gcs: opened.gcs, tables })
}

/// A table for dead letters, beside those of the rows, of which a plan tells the names.
fn table_of_letters(
    checked: &Checked,
    table: &str,
    plan: Option<&StagePlan>,
) -> Result<TableDeadLetters, Error> {
    let bigquery = checked.pipeline.sink.bigquery.as_ref().expect("checked");
    let rows = table_config(checked, bigquery)?;
    let table = TableTemplate::parse(table).map_err(of_tables)?;
    let topics = &checked.pipeline.source.kafka.topics;
    if let Some(plan) = plan {
        for (topic, output) in tables_of(checked, plan) {
            let name = rows.table.name(topic, &output, None);
            if topics.iter().any(|topic| table.name(topic, MAIN_OUTPUT, None).eq_ignore_ascii_case(&name)) {
                let text = format!("{name} is a table of the rows of {topic}: name another");
                return Err(checked.mistake("/dead_letters/table", text));
            }
        }
    }
    // How the rows' tables are laid out says nothing of these.
    let tables = rows.tables.clone().map(|options| TableOptions {
        partition: None,
        cluster: Vec::new(),
        new_columns: gristmill_sinks::NewColumns::Add,
        relax_columns: true,
        max_staleness: None,
        ..options
    });
    TableDeadLetters::new(BigQueryConfig { table, tables, ..rows }).map_err(of_tables)
}

/// Whether rows are changed in place.
pub(crate) fn is_cdc(checked: &Checked) -> bool {
    checked.pipeline.sink.bigquery.as_ref().is_some_and(|bigquery| bigquery.mode == Mode::Cdc)
}

/// Makes each table ready for the rows of a plan.
pub(crate) async fn ready_tables(
    checked: &Checked,
    tables: &BigQueryStore,
    plan: &StagePlan,
) -> Result<(), Error> {
    one_table_a_topic(checked, plan, tables)?;
    tables.describe(&plan.descriptions);
    // What values of rows name is not known before they come.
    let known = if plan.fits.directories.is_none() { tables_of(checked, plan) } else { Vec::new() };
    for (topic, output) in known {
        tables.prepare_table(topic, &output, &plan.sink_schema(), false).await.map_err(of_tables)?;
    }
    Ok(())
}

/// What a start would do to each table; none if rows go to files.
pub(crate) async fn planned_tables(checked: &Checked) -> Result<Vec<PlannedTable>, Error> {
    let (plan, _) = plan(checked).await?;
    let Some(bigquery) = &checked.pipeline.sink.bigquery else { return Ok(Vec::new()) };
    let store = table_store(checked, bigquery)?;
    one_table_a_topic(checked, &plan, &store)?;
    store.describe(&plan.descriptions);
    let mut tables = Vec::new();
    for (topic, output) in tables_of(checked, &plan) {
        let name = store.name_of(topic, &output);
        // What values of rows name is not known before they come.
        if plan.fits.directories.is_some() {
            tables.push(PlannedTable::of_rows(name, Ok(None), Vec::new()));
            continue;
        }
        let outcome = store.prepare_table(topic, &output, &plan.sink_schema(), true).await;
        // Emulators ask for no credentials, and know no permissions.
        let asks = bigquery.endpoint.is_none() || bigquery.rest_endpoint.is_some();
        let missing_permissions = match &outcome {
            Ok(note) if asks => store.missing_permissions(topic, &output, note).await.map_err(of_tables)?,
            _ => Vec::new(),
        };
        let outcome = outcome.map(Some).map_err(|e| of_tables(e).to_string());
        tables.push(PlannedTable::of_rows(name, outcome, missing_permissions));
    }
    if let Some(table) = checked.pipeline.dead_letters.as_ref().and_then(|dead| dead.table.as_ref()) {
        let letters = table_of_letters(checked, table, Some(&plan))?;
        let mut known = BTreeSet::new();
        for topic in &checked.pipeline.source.kafka.topics {
            let name = letters.name_of(topic);
            if known.insert(name.clone()) {
                let outcome = letters.prepare(topic, true).await;
                let outcome = outcome.map(Some).map_err(|e| of_tables(e).to_string());
                let table = PlannedTable::of_rows(name, outcome, Vec::new());
                tables.push(PlannedTable { is_of_dead_letters: true, ..table });
            }
        }
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
            let text = format!(
                "{other} and {topic} both go to {name}, and `mode: cdc` cannot say which of their changes is newer: give each a \
                 table, with `{{topic}}` and `{{output}}` in the name"
            );
            return Err(checked.mistake("/sink/bigquery/table", text));
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
    BigQueryStore::new(table_config(checked, bigquery)?).map_err(of_tables)
}

fn table_config(checked: &Checked, bigquery: &BigQuery) -> Result<BigQueryConfig, Error> {
    let BigQuery {
        mode,
        project,
        dataset,
        table,
        max_streams_per_second,
        max_tables,
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
    Ok(BigQueryConfig {
        mode,
        project,
        dataset,
        table: TableTemplate::parse(&table).map_err(of_tables)?,
        streams_per_second: max_streams_per_second,
        max_tables,
        primary_key,
        tables,
        gzip,
        endpoint,
        rest_endpoint,
        credentials_file,
    })
}

fn table_options(tables: Tables) -> TableOptions {
    let Tables {
        create,
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
        create,
        new_columns: match new_columns {
            NewColumns::Add => gristmill_sinks::NewColumns::Add,
            NewColumns::Ignore => gristmill_sinks::NewColumns::Ignore,
            NewColumns::Reject => gristmill_sinks::NewColumns::Reject,
            NewColumns::Fail => gristmill_sinks::NewColumns::Fail,
        },
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

/// As [`ledger_of`], to change the ledgers: with the file's dead letters, since whoever seals an entry answers for the
/// delivery of those before it.
///
/// # Errors
/// As [`ledger_of`]; [`ErrorKind::Source`] if the topic of the dead letters cannot be written to.
pub async fn ledger_to_change(checked: &Checked) -> Result<SinkConfig, Error> {
    ledger_of(checked)?;
    Ok(sink(checked, None).await?.config)
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
