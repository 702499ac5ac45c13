//! Tables that are made and changed for the rows that go into them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arrow_schema::Schema;
use serde_json::{Map, Value, json};

use super::columns::{Column, Differences, Repetition, cut};
use super::rest::Answer;
use super::types::columns_for;
use super::{BigQueryConfig, BigQueryStore, dotted};
use crate::error::{Error, ErrorKind, Result};

/// Google says of both ends of the storage interface that they may learn of a change minutes later.
pub(super) const LAG: Duration = Duration::from_secs(600);
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How often somebody else may change a table while this one tries to.
const TRIES: u32 = 10;
const TRY_AGAIN: Duration = Duration::from_millis(500);
const MAX_CLUSTERING: usize = 4;
/// Of the description of a table, in bytes: BigQuery counts characters.
const MAX_DESCRIPTION: usize = 16_384;
/// Columns of a primary key.
const MAX_KEY: usize = 16;

/// What if a table lacks columns of the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewColumns {
    /// They are added.
    Add,
    /// Rows go without them, until the table has them.
    Ignore,
    /// The same, but rows that have a value there are dead letters.
    Reject,
    /// It is an error.
    #[default]
    Fail,
}

/// How tables are made and changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// How new ones are partitioned.
    pub partition: Option<Partitioning>,
    /// Columns that new ones are clustered by, four at most.
    pub cluster: Vec<String>,
    /// Labels of new ones.
    pub labels: BTreeMap<String, String>,
    /// The Cloud KMS key of new ones.
    pub kms_key: Option<String>,
    /// Whether those that are missing are made; else that is an error.
    pub create: bool,
    /// What if a table lacks columns of the rows.
    pub new_columns: NewColumns,
    /// Whether columns that want a value, and may get none, become nullable; else those that never get one are an error.
    pub relax_columns: bool,
    /// Makes the dataset there, such as `EU`, if it is missing.
    pub dataset_location: Option<String>,
    /// How old the answer to a query of a new one may be, so that changes are applied beside and not by the query:
    /// [`max_staleness`](https://cloud.google.com/bigquery/docs/change-data-capture#manage_table_staleness).
    pub max_staleness: Option<Duration>,
}

/// How a table is partitioned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partitioning {
    /// A column of DATE, TIMESTAMP or DATETIME; without it rows are in the partition of the time when they came.
    pub column: Option<String>,
    /// How long a partition is.
    pub by: Granularity,
    /// After how long a partition is deleted.
    pub expire: Option<Duration>,
    /// Whether queries have to say which partitions they read.
    pub require_filter: bool,
}

/// How long a partition of a table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Granularity {
    Hour,
    #[default]
    Day,
    Month,
    Year,
}

impl Granularity {
    fn name(self) -> &'static str {
        match self {
            Granularity::Hour => "HOUR",
            Granularity::Day => "DAY",
            Granularity::Month => "MONTH",
            Granularity::Year => "YEAR",
        }
    }
}

/// What a table needs for rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableNote {
    /// Nothing.
    Fits,
    /// It is not there: the statement that makes it.
    New(String),
    /// Its columns change: the statements that say how.
    Changes(String),
    /// Rows go without these columns, with dots; or those that have a value there are dead letters.
    LeavesOut {
        /// The columns.
        columns: Vec<String>,
        /// Whether rows that have a value there are refused.
        rejects: bool,
    },
}

impl TableOptions {
    /// Whether rows go without columns that a table lacks.
    pub(super) fn leaves_out(&self) -> bool {
        matches!(self.new_columns, NewColumns::Ignore | NewColumns::Reject)
    }

    /// What of a table is not as a start has left it.
    pub(super) fn lag(&self, differences: &Differences) -> Option<String> {
        let Differences { missing, never_given, strict, .. } = differences;
        if let Some((_, column)) = missing.first().filter(|_| !self.leaves_out()) {
            return Some(format!("column {}", column.name));
        }
        let relaxed = never_given.iter().chain(strict).next().filter(|_| self.relax_columns);
        relaxed.map(|column| format!("that column {column} may be null"))
    }

    /// What is wrong with them for a table of those columns.
    fn check(&self, columns: &[Column]) -> Vec<String> {
        let mut mistakes = Vec::new();
        let named = |name: &str| columns.iter().find(|column| column.name.eq_ignore_ascii_case(name));
        if let Some(Partitioning { column: Some(name), by, .. }) = &self.partition {
            match named(name).map(|column| column.sql_type()) {
                None => mistakes.push(format!("there is no column `{name}` to partition by")),
                Some(kind) if kind == "DATE" && *by == Granularity::Hour => {
                    mistakes.push(format!("column `{name}` is a DATE, which has no hours to partition by"));
                }
                Some(kind) if ["DATE", "TIMESTAMP", "DATETIME"].contains(&kind.as_str()) => {}
                Some(kind) => mistakes.push(format!(
                    "column `{name}` is {kind}, and tables are partitioned by a DATE, TIMESTAMP or DATETIME"
                )),
            }
        }
        if self.cluster.len() > MAX_CLUSTERING {
            mistakes.push(format!("a table is clustered by {MAX_CLUSTERING} columns at most"));
        }
        for name in &self.cluster {
            match named(name).map(|column| column.sql_type()) {
                None => mistakes.push(format!("there is no column `{name}` to cluster by")),
                Some(kind)
                    if kind.contains('<')
                        || ["FLOAT64", "BYTES", "TIME", "JSON"].contains(&kind.as_str()) =>
                {
                    mistakes.push(format!("column `{name}` is {kind}, by which no table is clustered"));
                }
                Some(_) => {}
            }
        }
        mistakes
    }

    /// The statement that makes a table.
    fn ddl(&self, table: &str, columns: &[Column], key: &[String], description: &str) -> String {
        let mut text = create_table(table, columns, key);
        let mut options = Vec::new();
        if let Some(Partitioning { column, by, expire, require_filter }) = &self.partition {
            let kind =
                column.as_ref().and_then(|name| columns.iter().find(|c| c.name.eq_ignore_ascii_case(name)));
            let kind = kind.map_or("TIMESTAMP".to_owned(), Column::sql_type);
            let name = column.as_ref().map_or("_PARTITIONTIME".to_owned(), |name| format!("`{name}`"));
            text += &match (kind.as_str(), by) {
                ("DATE", Granularity::Day) => format!(" PARTITION BY {name}"),
                (kind, by) => format!(" PARTITION BY {kind}_TRUNC({name}, {})", by.name()),
            };
            if let Some(expire) = expire {
                options.push(format!("partition_expiration_days = {}", expire.as_secs_f64() / 86_400.0));
            }
            if *require_filter {
                options.push("require_partition_filter = TRUE".to_owned());
            }
        }
        if !self.cluster.is_empty() {
            let names: Vec<String> = self.cluster.iter().map(|name| format!("`{name}`")).collect();
            text += &format!(" CLUSTER BY {}", names.join(", "));
        }
        if !self.labels.is_empty() {
            let labels: Vec<String> = self.labels.iter().map(|(k, v)| format!("({k:?}, {v:?})")).collect();
            options.push(format!("labels = [{}]", labels.join(", ")));
        }
        if let Some(key) = &self.kms_key {
            options.push(format!("kms_key_name = {key:?}"));
        }
        if let Some(staleness) = self.max_staleness {
            options.push(format!("max_staleness = INTERVAL '{}' HOUR TO SECOND", clock(staleness)));
        }
        if !description.is_empty() {
            options.push(format!("description = {}", json!(description)));
        }
        if !options.is_empty() {
            text += &format!(" OPTIONS ({})", options.join(", "));
        }
        text + ";"
    }

    fn resource(&self, path: &str, columns: &[Column], key: &[String], description: &str) -> Value {
        let part = |at: usize| path.split('/').nth(at).unwrap_or_default();
        let mut table = Map::new();
        let mut put = |name: &str, value: Value| table.insert(name.to_owned(), value);
        let of = json!({"projectId": part(1), "datasetId": part(3), "tableId": part(5)});
        put("tableReference", of);
        put("schema", json!({"fields": columns.iter().map(Column::to_rest).collect::<Vec<_>>()}));
        if let Some(Partitioning { column, by, expire, require_filter }) = &self.partition {
            let mut partitioning = json!({"type": by.name()});
            if let Some(column) = column {
                partitioning["field"] = json!(column);
            }
            if let Some(expire) = expire {
                partitioning["expirationMs"] = json!(expire.as_millis().to_string());
            }
            put("timePartitioning", partitioning);
            put("requirePartitionFilter", json!(require_filter));
        }
        if !self.cluster.is_empty() {
            put("clustering", json!({"fields": self.cluster}));
        }
        if !self.labels.is_empty() {
            put("labels", json!(self.labels));
        }
        if let Some(key) = &self.kms_key {
            put("encryptionConfiguration", json!({"kmsKeyName": key}));
        }
        if !key.is_empty() {
            put("tableConstraints", json!({"primaryKey": {"columns": key}}));
        }
        if !description.is_empty() {
            put("description", json!(description));
        }
        if let Some(staleness) = self.max_staleness {
            put("maxStaleness", json!(format!("0-0 0 {}", clock(staleness))));
        }
        Value::Object(table)
    }
}

/// `CREATE TABLE` of those columns, without what follows.
pub(super) fn create_table(table: &str, columns: &[Column], key: &[String]) -> String {
    let mut parts: Vec<String> = columns.iter().map(Column::sql).collect();
    if !key.is_empty() {
        parts.push(primary_key(key));
    }
    format!("CREATE TABLE `{table}` ({})", parts.join(", "))
}

fn primary_key(key: &[String]) -> String {
    let names: Vec<String> = key.iter().map(|name| format!("`{name}`")).collect();
    format!("PRIMARY KEY ({}) NOT ENFORCED", names.join(", "))
}

/// Hours, minutes and seconds, as an INTERVAL has them.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{}:{}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// What is wrong with a key of those columns.
fn check_key(key: &[String], columns: &[Column]) -> Vec<String> {
    const TYPES: [&str; 8] =
        ["INTEGER", "STRING", "BOOLEAN", "NUMERIC", "BIGNUMERIC", "DATE", "DATETIME", "TIMESTAMP"];
    let mut mistakes = Vec::new();
    if key.len() > MAX_KEY {
        mistakes.push(format!("a primary key has {MAX_KEY} columns at most"));
    }
    for name in key {
        match columns.iter().find(|column| column.name.eq_ignore_ascii_case(name)) {
            None => mistakes.push(format!("there is no column `{name}` for the primary key")),
            Some(column) if column.mode == Repetition::Repeated || !TYPES.contains(&&*column.data_type) => {
                let kind = column.sql_type();
                mistakes.push(format!("column `{name}` is {kind}, which no primary key has"));
            }
            Some(_) => {}
        }
    }
    mistakes
}

/// The statements that change a table: GoogleSQL where it can say it.
pub(super) fn alterations(table: &str, missing: &[(Vec<String>, Column)], relaxed: &[String]) -> String {
    let mut statements = Vec::new();
    for (path, column) in missing {
        let added = column.added();
        statements.push(match path.is_empty() {
            true => format!("ALTER TABLE `{table}` ADD COLUMN {};", added.sql()),
            false => format!(
                "-- in {table}, field `{}` of type {} in {};",
                column.name,
                added.sql_type(),
                path.join(".")
            ),
        });
    }
    for column in relaxed {
        statements.push(match column.contains('.') {
            false => format!("ALTER TABLE `{table}` ALTER COLUMN `{column}` DROP NOT NULL;"),
            true => format!("-- in {table}, field {column} becomes NULLABLE;"),
        });
    }
    statements.join(" ")
}

impl BigQueryStore {
    /// Makes the table of an output for those rows, or changes it, as far as [`BigQueryConfig::tables`](super::BigQueryConfig)
    /// says, and waits until the storage interface knows of it; without that, looks whether it is there and has the columns. With
    /// `dry` nothing is made or changed.
    ///
    /// # Errors
    /// `InvalidConfig` with the statement that makes or mends the table, where that is not to be done here, or with the columns
    /// that cannot go into it; `PermissionDenied`; `Unavailable`.
    pub async fn prepare_table(
        &self,
        topic: &str,
        output: &str,
        rows: &Schema,
        dry: bool,
    ) -> Result<TableNote> {
        let path = self.path_of(topic, output, "");
        let Some(options) = &self.config.tables else {
            return self.check(&path, rows).await.map(|()| TableNote::Fits);
        };
        self.prepare(options, &path, rows, dry).await
    }

    /// Permissions that are missing for what a start would do with a table that is there; of one that is not BigQuery says nothing.
    ///
    /// # Errors
    /// `PermissionDenied`; `Unavailable`.
    pub async fn missing_permissions(
        &self,
        topic: &str,
        output: &str,
        note: &TableNote,
    ) -> Result<Vec<&'static str>> {
        let mut wanted = vec!["bigquery.tables.get", "bigquery.tables.updateData"];
        match note {
            TableNote::New(_) => return Ok(Vec::new()),
            TableNote::Changes(_) => wanted.push("bigquery.tables.update"),
            TableNote::Fits | TableNote::LeavesOut { .. } => {}
        }
        self.rest.lacking(&self.path_of(topic, output, ""), &wanted).await
    }

    pub(super) async fn prepare(
        &self,
        options: &TableOptions,
        path: &str,
        rows: &Schema,
        dry: bool,
    ) -> Result<TableNote> {
        let table = dotted(path);
        let wrong = |text: String| Error::new(ErrorKind::InvalidConfig, text);
        let mut columns = columns_for(rows).map_err(|mistakes| {
            wrong(format!("no table can hold the rows of {table}: {}", mistakes.join("; ")))
        })?;
        let descriptions = self.descriptions();
        Column::describe(&mut columns, &descriptions, "");
        let description = cut(descriptions.get("").map_or("", String::as_str), MAX_DESCRIPTION);
        let key = &self.config.primary_key;
        let mistakes = [options.check(&columns), check_key(key, &columns)].concat();
        if !mistakes.is_empty() {
            return Err(wrong(format!("table {table} cannot be made: {}", mistakes.join("; "))));
        }
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(TRY_AGAIN).await;
            }
            let resource = match self.rest.table(path).await? {
                Answer::Done(resource) => resource,
                Answer::Exists | Answer::Changed => continue,
                Answer::NotFound(_) if !options.create => return Err(self.no_table(path, rows)),
                Answer::NotFound(_) => {
                    let note = TableNote::New(options.ddl(&table, &columns, key, description));
                    if dry || self.make_table(options, path, &columns, description).await? {
                        if !dry {
                            tracing::info!(table, "made a table of BigQuery");
                            self.wait_for(path, &columns, options).await?;
                        }
                        return Ok(note);
                    }
                    continue;
                }
            };
            let found = Column::all_of_rest(&resource["schema"]);
            let differences = Differences::between(&found, &columns);
            check(&table, &differences, options, key)?;
            has_key(&table, &resource, key)?;
            let Differences { missing, never_given, strict, .. } = differences;
            let relaxed = if options.relax_columns { [never_given, strict].concat() } else { Vec::new() };
            let (missing, left_out) = match options.leaves_out() {
                true => (Vec::new(), names(&missing)),
                false => (missing, Vec::new()),
            };
            if missing.is_empty() && relaxed.is_empty() {
                if !dry {
                    self.wait_for(path, &columns, options).await?;
                }
                if left_out.is_empty() {
                    return Ok(TableNote::Fits);
                }
                let rejects = options.new_columns == NewColumns::Reject;
                tracing::warn!(
                    table,
                    columns = left_out.join(", "),
                    "the table lacks columns of the rows, which go without them{}",
                    if rejects { "; those that have a value there are dead letters" } else { "" }
                );
                return Ok(TableNote::LeavesOut { columns: left_out, rejects });
            }
            let note = TableNote::Changes(alterations(&table, &missing, &relaxed));
            if dry {
                return Ok(note);
            }
            let schema = changed(&resource["schema"], &missing, &relaxed);
            let etag = resource["etag"].as_str().unwrap_or_default();
            if let Answer::Done(_) = self.rest.change_schema(path, &schema, etag).await? {
                tracing::info!(
                    table,
                    "changed a table of BigQuery: {}",
                    alterations(&table, &missing, &relaxed)
                );
                self.wait_for(path, &columns, options).await?;
                return Ok(note);
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("somebody else keeps changing table {table} of BigQuery"),
        ))
    }

    /// Whether it was this one that made it.
    async fn make_table(
        &self,
        options: &TableOptions,
        path: &str,
        columns: &[Column],
        description: &str,
    ) -> Result<bool> {
        let Some((dataset, _)) = path.split_once("/tables/") else { return Ok(false) };
        let resource = options.resource(path, columns, &self.config.primary_key, description);
        match self.rest.make_table(dataset, &resource).await? {
            Answer::Done(_) => return Ok(true),
            Answer::Exists | Answer::Changed => return Ok(false),
            Answer::NotFound(why) => {
                let Some(location) = &options.dataset_location else {
                    let name = dotted(dataset);
                    let text = format!(
                        "there is no dataset {name} in BigQuery ({why}): CREATE SCHEMA `{name}`; or let it be made, with \
                         `dataset_location`"
                    );
                    return Err(Error::new(ErrorKind::InvalidConfig, text));
                };
                let BigQueryConfig { project, dataset, .. } = &self.config;
                if let Answer::NotFound(why) = self.rest.make_dataset(project, dataset, location).await? {
                    let text = format!("dataset {dataset} of BigQuery cannot be made: {why}");
                    return Err(Error::new(ErrorKind::InvalidConfig, text));
                }
            }
        }
        match self.rest.make_table(dataset, &resource).await? {
            Answer::Done(_) => Ok(true),
            Answer::Exists | Answer::Changed => Ok(false),
            // Not every end knows the new dataset.
            Answer::NotFound(why) => {
                let text = format!("table {} of BigQuery was not made: {why}", dotted(path));
                Err(Error::new(ErrorKind::Unavailable, text))
            }
        }
    }

    /// Whether a table has the primary key that changes need.
    pub(super) async fn check_key(&self, path: &str) -> Result<()> {
        if self.config.primary_key.is_empty() {
            return Ok(());
        }
        match self.rest.table(path).await? {
            Answer::Done(resource) => has_key(&dotted(path), &resource, &self.config.primary_key),
            Answer::Exists | Answer::Changed | Answer::NotFound(_) => {
                let text = format!("table {} of BigQuery is not shown by its REST interface", dotted(path));
                Err(Error::new(ErrorKind::Unavailable, text))
            }
        }
    }

    /// Waits until the storage interface shows a table with those columns.
    pub(super) async fn wait_for(
        &self,
        path: &str,
        columns: &[Column],
        options: &TableOptions,
    ) -> Result<()> {
        let end = Instant::now() + LAG;
        let mut is_told = false;
        loop {
            let lacks = match self.client.default_stream(path).await {
                Ok((_, found)) => {
                    let found: Vec<Column> =
                        found.unwrap_or_default().fields.iter().map(Column::of_storage).collect();
                    let lag = options.lag(&Differences::between(&found, columns));
                    // Not every server tells.
                    match lag.filter(|_| !found.is_empty()) {
                        None => return Ok(()),
                        Some(lag) => lag,
                    }
                }
                Err(status) if status.code() == tonic::Code::NotFound => "the table itself".to_owned(),
                Err(status) => {
                    return Err(super::status::error(&format!("table {path} was not looked at"), &status));
                }
            };
            let table = dotted(path);
            if Instant::now() >= end {
                let text =
                    format!("BigQuery's storage interface does not show {lacks} in {table} after {LAG:?}");
                return Err(Error::new(ErrorKind::Unavailable, text));
            }
            if !std::mem::replace(&mut is_told, true) {
                tracing::info!(
                    table,
                    "waiting for BigQuery's storage interface to show {lacks}, which may take minutes"
                );
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// The order of a key's columns says nothing.
fn has_key(table: &str, resource: &Value, key: &[String]) -> Result<()> {
    let lower = |names: Vec<&str>| {
        let mut names: Vec<String> = names.into_iter().map(str::to_lowercase).collect();
        names.sort_unstable();
        names
    };
    let there = resource["tableConstraints"]["primaryKey"]["columns"].as_array();
    let there: Vec<&str> = there.into_iter().flatten().filter_map(Value::as_str).collect();
    if key.is_empty() || lower(there.clone()) == lower(key.iter().map(String::as_str).collect()) {
        return Ok(());
    }
    let wanted = key.join(", ");
    let text = match there.as_slice() {
        [] => format!(
            "table {table} of BigQuery has no primary key, and rows are told apart by ({wanted}): ALTER TABLE `{table}` ADD {};",
            primary_key(key)
        ),
        other => format!(
            "table {table} of BigQuery has another primary key ({}), and rows are told apart by ({wanted}): name that one, or let \
             the rows go into a new table",
            other.join(", ")
        ),
    };
    Err(Error::new(ErrorKind::InvalidConfig, text))
}

/// What is not to be mended here.
pub(super) fn check(
    table: &str,
    differences: &Differences,
    options: &TableOptions,
    key: &[String],
) -> Result<()> {
    let Differences { missing, never_given, other_type, strict, .. } = differences;
    let wrong = |text: String| Err(Error::new(ErrorKind::InvalidConfig, text));
    if !other_type.is_empty() {
        return wrong(format!(
            "the rows do not fit table {table} of BigQuery, and no value is made another: {}",
            other_type.join("; ")
        ));
    }
    let lacking = if options.new_columns == NewColumns::Fail { &missing[..] } else { &[] };
    // Of a row that is deleted there is the key alone.
    let strict = strict.iter().filter(|_| !key.is_empty());
    let empty: Vec<String> = match options.relax_columns {
        true => Vec::new(),
        false => never_given.iter().chain(strict).cloned().collect(),
    };
    if lacking.is_empty() && empty.is_empty() {
        return Ok(());
    }
    let mut text = Vec::new();
    if !lacking.is_empty() {
        text.push("lacks columns of the rows");
    }
    if !empty.is_empty() {
        text.push("wants values of columns that the rows do not have");
    }
    let statements = alterations(table, lacking, &empty);
    wrong(format!("table {table} of BigQuery {}: {statements}", text.join(" and ")))
}

/// With dots.
pub(super) fn names(missing: &[(Vec<String>, Column)]) -> Vec<String> {
    missing.iter().map(|(path, column)| [path, &[column.name.clone()][..]].concat().join(".")).collect()
}

/// The schema as it is told, with all that it says of its columns, and the changes.
fn changed(schema: &Value, missing: &[(Vec<String>, Column)], relaxed: &[String]) -> Value {
    let mut schema = schema.clone();
    for (path, column) in missing {
        if let Some(of) = at(&mut schema, path.iter().map(String::as_str))
            && let Some(fields) = of["fields"].as_array_mut()
        {
            fields.push(column.added().to_rest());
        }
    }
    for path in relaxed {
        if let Some(column) = at(&mut schema, path.split('.')) {
            column["mode"] = json!("NULLABLE");
        }
    }
    schema
}

/// The column of a path, from a schema on.
fn at<'a, 'p>(schema: &'a mut Value, path: impl Iterator<Item = &'p str>) -> Option<&'a mut Value> {
    let mut of = schema;
    for name in path {
        let fields = of.get_mut("fields")?.as_array_mut()?;
        of = fields.iter_mut().find(|f| f["name"].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)))?;
    }
    Some(of)
}
