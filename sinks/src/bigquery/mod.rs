//! BigQuery through its [Storage Write API](https://cloud.google.com/bigquery/docs/write-api): what the ledger calls a file is
//! a PENDING stream here.
//!
//! Rows of an entry are appended to a stream of their own, at offsets, and finalized, before the entry is sealed: nothing of it is
//! visible. Publishing commits the stream, which BigQuery does once; asked again, it says so. A stream that was never sealed is
//! never committed, and vanishes by itself.

mod client;
pub(crate) mod columns;
mod dead_letters;
mod misfits;
mod protobuf;
mod rest;
pub(crate) mod rows;
pub(crate) mod status;
mod table_name;
mod tables;
mod types;
mod writer;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow_schema::Schema;
use bytes::Bytes;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::{
    StorageError, TableSchema, storage_error::StorageErrorCode,
};
use tonic::Code;

pub use dead_letters::TableDeadLetters;
pub use misfits::{Misfit, misfits};
pub use table_name::TableTemplate;
pub use tables::{Granularity, NewColumns, Partitioning, TableNote, TableOptions};
pub use types::{CHANGE_SEQUENCE_NUMBER, CHANGE_TYPE, TableColumn, table_columns};

use crate::error::{Error, ErrorKind, Result};
use crate::gcs::GcsCredentials;
use crate::gcs::credentials::Credentials;
use crate::left_out::LeftOut;
use crate::store::{BoxFuture, Create, Generation, Listed, Move, Object, RowsOf, StagedWrite, Stat, Store};
use client::Client;
use columns::{Column, Differences};
use rest::Rest;
use rows::Form;
use types::{column_name, columns_for};
use writer::StreamWriter;

/// A change of the credentials' file is seen after that.
const CHECK_CREDENTIALS: Duration = Duration::from_secs(60);
/// Before another stream is made for a table that has changed.
const AGAIN: Duration = Duration::from_secs(2);
/// For a token.
const TOKEN: Duration = Duration::from_secs(30);

/// What is promised of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Each is in its table once. They become visible when their entry is published.
    #[default]
    ExactlyOnce,
    /// Each is in its table once or, after a failure, more often. They become visible as soon as they are appended, by the
    /// table's default stream.
    AtLeastOnce,
    /// Each changes the row with its key in the table, or deletes it, by
    /// [change data capture](https://cloud.google.com/bigquery/docs/change-data-capture): the rows end with [`CHANGE_TYPE`] and
    /// [`CHANGE_SEQUENCE_NUMBER`]. They may be sent again after a failure, which changes nothing: the numbers are the same.
    Cdc,
}

/// Where rows go.
#[derive(Clone, Debug)]
pub struct BigQueryConfig {
    /// What is promised.
    pub mode: Mode,
    /// The project of the dataset.
    pub project: String,
    /// The dataset; it is there already.
    pub dataset: String,
    /// The tables' names.
    pub table: TableTemplate,
    /// How many streams a process makes in a second at most. Google advises to stay below 40 in all.
    pub streams_per_second: u32,
    /// Of how many tables a process makes streams at most, if values of rows name them.
    pub max_tables: usize,
    /// The columns that rows of [`Mode::Cdc`] are told apart by: the primary key of the tables.
    pub primary_key: Vec<String>,
    /// How tables are made and changed; without it they are there already.
    pub tables: Option<TableOptions>,
    /// Another place of the Storage Write API than Google's, such as an emulator: `http://127.0.0.1:9060`. It is asked without
    /// credentials.
    pub endpoint: Option<String>,
    /// The same, of the REST interface, which tables are made by.
    pub rest_endpoint: Option<String>,
    /// Whether rows are sent by gzip.
    pub gzip: bool,
    /// Who asks; Application Default Credentials without one.
    pub credentials_file: Option<PathBuf>,
}

/// A table that values of rows have named.
#[derive(Debug)]
struct Named {
    topic: String,
    output: String,
    /// How often it was made sure that it is as it has to be; who does so holds it.
    made_sure: tokio::sync::Mutex<u64>,
}

/// Tables of BigQuery as the place of a ledger's rows. Not a place for the ledger itself: that takes
/// [`SinkConfigBuilder::state`](crate::SinkConfigBuilder::state).
#[derive(Debug)]
pub struct BigQueryStore {
    config: BigQueryConfig,
    /// Those that values of rows have named so far.
    named: Mutex<HashMap<String, Arc<Named>>>,
    descriptions: Mutex<Arc<BTreeMap<String, String>>>,
    client: Client,
    rest: Rest,
}

impl BigQueryStore {
    /// To be called inside of a Tokio runtime. Asks nobody yet.
    ///
    /// # Errors
    /// `InvalidConfig`: the endpoint or the credentials cannot be used.
    pub fn new(mut config: BigQueryConfig) -> Result<Self> {
        // By the names that columns have there.
        let named = |name: &mut String| *name = column_name(name);
        config.primary_key.iter_mut().for_each(named);
        if let Some(tables) = &mut config.tables {
            tables.cluster.iter_mut().for_each(named);
            tables.partition.iter_mut().filter_map(|partition| partition.column.as_mut()).for_each(named);
        }
        let of = match (&config.endpoint, &config.credentials_file) {
            (Some(_), _) => GcsCredentials::Anonymous,
            (None, Some(file)) => GcsCredentials::File(file.clone()),
            (None, None) => GcsCredentials::Default,
        };
        let credentials = Arc::new(Credentials::of(of, CHECK_CREDENTIALS, TOKEN)?);
        let client = Client::new(
            config.endpoint.as_deref(),
            credentials.clone(),
            config.gzip,
            config.streams_per_second,
        )?;
        let rest = Rest::new(config.rest_endpoint.as_deref(), credentials)?;
        let (named, descriptions) = (Mutex::default(), Mutex::default());
        Ok(BigQueryStore { config, named, descriptions, client, rest })
    }

    /// The table of an output of a topic: `project.dataset.table`. Columns that name it are shown as they are written.
    pub fn name_of(&self, topic: &str, output: &str) -> String {
        let BigQueryConfig { project, dataset, table, .. } = &self.config;
        format!("{project}.{dataset}.{}", table.name(topic, output, None))
    }

    /// Says what tables and columns that are made from now on have as their descriptions: by the dotted path of rows' columns, and of
    /// tables by the empty one.
    pub fn describe(&self, descriptions: &BTreeMap<String, String>) {
        let named = |path: &String| -> String {
            let steps: Vec<String> = path.split('.').map(|name| column_name(name).to_lowercase()).collect();
            if path.is_empty() { String::new() } else { steps.join(".") }
        };
        let by_name = descriptions.iter().map(|(path, text)| (named(path), text.clone())).collect();
        *self.descriptions.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(by_name);
    }

    fn descriptions(&self) -> Arc<BTreeMap<String, String>> {
        self.descriptions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn path_of(&self, topic: &str, output: &str, directory: &str) -> String {
        let BigQueryConfig { project, dataset, table, .. } = &self.config;
        format!("projects/{project}/datasets/{dataset}/tables/{}", table.name(topic, output, Some(directory)))
    }

    /// Whether the table of an output is there and has the columns of its rows, and their key. Of rows that are changes `rows`
    /// has neither [`CHANGE_TYPE`] nor [`CHANGE_SEQUENCE_NUMBER`].
    ///
    /// # Errors
    /// `InvalidConfig` with the statement that makes the table or adds the columns; `PermissionDenied`; `Unavailable`.
    pub async fn check_table(&self, topic: &str, output: &str, rows: &Schema) -> Result<()> {
        self.check(&self.path_of(topic, output, ""), rows).await
    }

    async fn check(&self, table: &str, rows: &Schema) -> Result<()> {
        match self.client.default_stream(table).await {
            Ok((_, found)) => {
                let (_, differences) = differences(table, &found.unwrap_or_default(), rows)?;
                let options = TableOptions::default();
                tables::check(&dotted(table), &differences, &options, &self.config.primary_key)?;
                self.check_key(table).await
            }
            Err(status) if status.code() == Code::NotFound => Err(self.no_table(table, rows)),
            Err(status) => Err(status::error(&format!("table {table} was not looked at"), &status)),
        }
    }

    /// A table that the values of rows have named.
    ///
    /// # Errors
    /// `InvalidConfig` if it is one too many, or another topic's of rows that change others.
    fn named(&self, table: &str, rows: &RowsOf<'_>) -> Result<Arc<Named>> {
        let wrong = |text: String| Err(Error::new(ErrorKind::InvalidConfig, text));
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = named.get(table) {
            let same = known.topic == rows.topic && known.output == rows.output;
            if !same && self.config.mode == Mode::Cdc {
                return wrong(format!(
                    "rows of {} and of {} name the same table, {}, and nobody can say which of their changes is newer: give each tables \
                     of its own",
                    known.topic,
                    rows.topic,
                    dotted(table)
                ));
            }
            return Ok(known.clone());
        }
        if named.len() >= self.config.max_tables {
            return wrong(format!(
                "rows name more than {} tables, {} is one more: a column that parts rows into tables has few values; raise `max_tables` \
                 if they are meant",
                named.len(),
                dotted(table)
            ));
        }
        let (topic, output) = (rows.topic.to_owned(), rows.output.to_owned());
        let new = Arc::new(Named { topic, output, made_sure: tokio::sync::Mutex::default() });
        named.insert(table.to_owned(), new.clone());
        Ok(new)
    }

    /// Makes a table ready that values of rows have named: no start knew of it. One of those who find it wanting does, the others wait;
    /// `seen` is how often that was done when it was found so.
    async fn make_sure(&self, named: &Named, seen: u64, table: &str, rows: &Schema) -> Result<()> {
        let mut made_sure = named.made_sure.lock().await;
        if *made_sure != seen {
            return Ok(());
        }
        match &self.config.tables {
            Some(options) => self.prepare(options, table, rows, false).await.map(|_| ())?,
            None => self.check(table, rows).await?,
        }
        *made_sure += 1;
        Ok(())
    }

    async fn open(&self, rows: RowsOf<'_>) -> Result<Box<dyn StagedWrite>> {
        let table = self.path_of(rows.topic, rows.output, rows.directory);
        // From when on its columns are waited for.
        let mut end = None;
        let form = if self.config.mode == Mode::Cdc { Form::Changes } else { Form::Arrow };
        let schema = match form {
            Form::Arrow => Cow::Borrowed(rows.schema),
            Form::Changes => Cow::Owned(without_change_fields(rows.schema)),
        };
        let options = self.config.tables.as_ref();
        // Of others the start has made sure.
        let named = match rows.directory.is_empty() {
            true => None,
            false => Some(self.named(&table, &rows)?),
        };
        let mut seen = 0;
        if let Some(named) = &named {
            self.make_sure(named, 0, &table, &schema).await?;
            seen = *named.made_sure.lock().await;
        }
        let mut is_prepared = named.is_none();
        loop {
            let stream = match self.config.mode {
                Mode::ExactlyOnce => self.client.create_pending(&table).await,
                Mode::AtLeastOnce | Mode::Cdc => self.client.default_stream(&table).await,
            };
            let stream = match stream {
                Err(status) if status.code() == Code::NotFound => None,
                Err(status) => {
                    return Err(status::error(&format!("no stream was made for table {table}"), &status));
                }
                Ok((stream, found)) => {
                    let found = found.unwrap_or_default();
                    let (columns, differences) = differences(&table, &found, &schema)?;
                    let lags = options.is_some_and(|options| options.lag(&differences).is_some());
                    Some((stream, columns, differences, lags))
                }
            };
            let needs_more = stream.as_ref().is_none_or(|(.., lags)| *lags);
            if let Some(named) = named.as_ref().filter(|_| needs_more)
                && !std::mem::replace(&mut is_prepared, true)
            {
                self.make_sure(named, seen, &table, &schema).await?;
                continue;
            }
            let mut is_patient = || Instant::now() < *end.get_or_insert_with(|| Instant::now() + tables::LAG);
            let Some((stream, columns, differences, lags)) = stream else {
                if options.is_some() && is_patient() {
                    // It was made at the start.
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
                return Err(self.no_table(&table, &schema));
            };
            if let Some(options) = options.filter(|_| lags && is_patient()) {
                // It was changed at the start, and not every end of the interface knows.
                self.wait_for(&table, &columns, options).await?;
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            let leaves_out = options.filter(|options| options.leaves_out());
            let judged = TableOptions {
                new_columns: leaves_out.map_or(NewColumns::Fail, |options| options.new_columns),
                ..TableOptions::default()
            };
            tables::check(&dotted(&table), &differences, &judged, &self.config.primary_key)?;
            let left_out = leaves_out.and_then(|options| {
                let missing = tables::names(&differences.missing);
                let is_missing = |path: &[&str]| {
                    let path: Vec<String> = path.iter().map(|name| column_name(name)).collect();
                    missing.iter().any(|missing| missing.eq_ignore_ascii_case(&path.join(".")))
                };
                LeftOut::new(rows.schema, options.new_columns == NewColumns::Reject, is_missing)
            });
            return Ok(Box::new(StreamWriter::new(self.client.clone(), stream, form, left_out)));
        }
    }

    /// That there is no such table, and how to make it.
    fn no_table(&self, table: &str, rows: &Schema) -> Error {
        let table = dotted(table);
        let text = match columns_for(rows) {
            Ok(columns) => {
                let statement = tables::create_table(&table, &columns, &self.config.primary_key);
                format!("there is no table {table} in BigQuery: {statement};")
            }
            Err(mistakes) => format!(
                "there is no table {table} in BigQuery, and none can hold the rows: {}",
                mistakes.join("; ")
            ),
        };
        Error::new(ErrorKind::InvalidConfig, text)
    }

    async fn publish(&self, stream: &str) -> Result<Move> {
        if writer::is_default(stream) {
            // Its rows are there since they were appended.
            return Ok(Move::AlreadyMoved);
        }
        let Some((table, _)) = stream.split_once("/streams/") else {
            return Err(Error::new(ErrorKind::Corrupt, format!("{stream:?} is no stream of BigQuery")));
        };
        let unknown = |why: &str| {
            let text = format!("BigQuery: whether stream {stream} was committed is not known: {why}");
            Error::new(ErrorKind::OutcomeUnknown, text)
        };
        let answer = match self.client.commit(table, stream).await {
            Ok(answer) => answer,
            Err(status) if status.code() == Code::NotFound => return Ok(Move::Gone),
            // It may come yet, which is as good: the entry is sealed.
            Err(status) if status::is_passing(status.code()) => return Err(unknown(status.message())),
            Err(status) => return Err(status::error(&format!("stream {stream} was not committed"), &status)),
        };
        let Some(StorageError { code, error_message, .. }) = answer.stream_errors.first() else {
            return match answer.commit_time {
                Some(_) => Ok(Move::Moved),
                None => Err(unknown("BigQuery neither did so nor said why not")),
            };
        };
        match StorageErrorCode::try_from(*code) {
            Ok(StorageErrorCode::StreamAlreadyCommitted) => Ok(Move::AlreadyMoved),
            Ok(StorageErrorCode::StreamNotFound | StorageErrorCode::TableNotFound) => Ok(Move::Gone),
            Ok(StorageErrorCode::KmsServiceError) => Err(unknown(error_message)),
            // An emulator says of a committed stream that it is not finalized, and BigQuery of one that it has cleared away: what
            // it shows of it decides.
            _ => match self.client.is_committed(stream).await {
                Ok(true) => Ok(Move::AlreadyMoved),
                Ok(false) => {
                    let text = format!("BigQuery does not commit {stream}: {error_message}");
                    Err(Error::new(ErrorKind::Corrupt, text))
                }
                Err(status) if status.code() == Code::NotFound => Ok(Move::Gone),
                Err(status) => Err(unknown(status.message())),
            },
        }
    }
}

/// The columns of a table of those rows.
fn without_change_fields(rows: &Schema) -> Schema {
    let is_own = |name: &str| ![CHANGE_TYPE, CHANGE_SEQUENCE_NUMBER].contains(&name);
    Schema::new(rows.fields().iter().filter(|field| is_own(field.name())).cloned().collect::<Vec<_>>())
}

fn dotted(table: &str) -> String {
    let parts: Vec<&str> = table.split('/').skip(1).step_by(2).collect();
    parts.join(".")
}

/// The columns of rows, and how a table differs from them. Not every server tells the columns of a table.
fn differences(table: &str, found: &TableSchema, rows: &Schema) -> Result<(Vec<Column>, Differences)> {
    let columns = columns_for(rows).map_err(|mistakes| {
        let table = dotted(table);
        let text = format!("rows do not fit table {table} of BigQuery: {}", mistakes.join("; "));
        Error::new(ErrorKind::InvalidConfig, text)
    })?;
    let found: Vec<Column> = found.fields.iter().map(Column::of_storage).collect();
    let differences = match found.is_empty() {
        true => Differences::default(),
        false => Differences::between(&found, &columns),
    };
    Ok((columns, differences))
}

fn no_objects() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "tables of BigQuery hold no objects: the ledger needs a state store of its own",
    )
}

/// Of its methods, those that publish rows. There is nothing to list and to delete: streams vanish by themselves.
impl Store for BigQueryStore {
    fn create_if_absent<'a>(&'a self, _: &'a str, _: Bytes) -> BoxFuture<'a, Result<Create>> {
        Box::pin(async { Err(no_objects()) })
    }

    fn get<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Object>>> {
        Box::pin(async { Ok(None) })
    }

    fn stat<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Stat>>> {
        Box::pin(async { Ok(None) })
    }

    fn list<'a>(&'a self, _: &'a str, _: Option<&'a str>, _: usize) -> BoxFuture<'a, Result<Vec<Listed>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn delete<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async { Ok(false) })
    }

    fn stage<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Box<dyn StagedWrite>>> {
        Box::pin(async { Err(no_objects()) })
    }

    fn stage_rows<'a>(&'a self, _: &'a str, rows: RowsOf<'a>) -> BoxFuture<'a, Result<Box<dyn StagedWrite>>> {
        Box::pin(self.open(rows))
    }

    fn move_if_absent<'a>(
        &'a self,
        staged: &'a str,
        _: Generation,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Move>> {
        Box::pin(self.publish(staged))
    }
}
