//! Reading a pipeline file: every mistake at once, each with its line and what was probably meant.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_schema::{DataType, Fields, Schema};
use gristmill_sinks::{DirectoryMistake, DirectoryTemplate, TableTemplate};
use serde_json::Value;

use crate::document::{Document, Problems, escape, nearest};
use crate::error::Error;
use crate::file::{
    Changes, Format, Gcs, GcsCredentials, GroupProtocol, KeyFormat, Mode, PipelineFile, State,
};
use crate::secret::Reference;
use crate::stages::changes::KeyPlan;

/// A checked pipeline file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Checked {
    /// What the file says.
    pub pipeline: PipelineFile,
    /// The file's folder, to which its paths are relative.
    pub base: PathBuf,
    /// The file, as it was named.
    pub file: PathBuf,
    /// Where in it everything is.
    document: Arc<Document>,
}

impl Checked {
    /// A path of the file, made absolute against the file's folder.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// A mistake that shows only with what the file names: the field by its JSON pointer.
    pub(crate) fn mistake(&self, pointer: &str, message: impl fmt::Display) -> Error {
        match self.document.finish(vec![self.document.problem(pointer, message.to_string())]) {
            Err(problems) => problems.into(),
            Ok(()) => Error::config(message.to_string()),
        }
    }
}

/// The JSON Schema of a pipeline file.
pub fn schema() -> Value {
    let mut schema = Value::from(schemars::schema_for!(PipelineFile));
    describe(&mut schema);
    schema
}

/// Descriptions come from doc comments, wrapped for the source: one line a paragraph reads better.
fn describe(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                match value {
                    Value::String(text) if key == "description" => *text = text.replace('\n', " "),
                    other => describe(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(describe),
        _ => {}
    }
}

/// Reads and checks the pipeline file at `path`.
///
/// # Errors
/// [`Problems`] with every mistake found.
pub fn check(path: &Path) -> Result<Checked, Problems> {
    check_but(path, &[])
}

/// The same, for whoever reads the source and nothing else: what the file says of transforms, the sink, dead letters and HTTP may
/// be wrong, as long as it has the form.
///
/// # Errors
/// [`Problems`] with every other mistake.
pub fn check_source(path: &Path) -> Result<Checked, Problems> {
    check_but(path, &["/transforms", "/sink", "/dead_letters", "/http"])
}

fn check_but(path: &Path, leave_out: &[&str]) -> Result<Checked, Problems> {
    let document = Arc::new(Document::load(path)?);
    let pipeline: PipelineFile = document.typed(&schema())?;
    let base = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
    let checked = Checked { pipeline, base, file: path.to_path_buf(), document: document.clone() };
    let mut problems = Vec::new();
    contradictions(&checked, &mut |pointer, message| {
        if !leave_out.iter().any(|part| pointer.starts_with(part)) {
            problems.push(document.problem(pointer, message));
        }
    });
    document.finish(problems)?;
    Ok(checked)
}

const WITH_SCHEMA: &[Format] = &[Format::Avro, Format::Protobuf, Format::JsonSchema];

fn belongs(name: &str, formats: &[Format]) -> String {
    let formats: Vec<&str> = formats.iter().map(|format| format.name()).collect();
    format!("`{name}` belongs to `format: {}`; remove it", formats.join("`, `"))
}

/// What a schema cannot say: fields that exclude each other, files that must be there, secrets that must
/// resolve.
fn contradictions(checked: &Checked, report: &mut dyn FnMut(&str, String)) {
    let p = &checked.pipeline;
    let decode = &p.decode;
    match decode.format {
        Format::Json => {
            match &decode.fields {
                None => report(
                    "/decode",
                    "`json` needs `fields`: the columns and their types, such as `order_id: string not null`"
                        .into(),
                ),
                Some(fields) => {
                    for mistake in fields.arrow_schema().err().unwrap_or_default() {
                        // `customer.email`, `lines[].sku`
                        let pointer = mistake
                            .path
                            .split('.')
                            .filter(|step| !step.is_empty())
                            .map(|step| format!("/{}", escape(step.trim_end_matches("[]"))))
                            .collect::<String>();
                        report(&format!("/decode/fields{pointer}"), mistake.message);
                    }
                }
            }
        }
        Format::Bytes => {}
        Format::Avro | Format::Protobuf | Format::JsonSchema => {
            let name = decode.format.name();
            if decode.fields.is_some() {
                report(
                    "/decode/fields",
                    format!(
                        "`fields` belongs to `format: json`; the columns of `{name}` come from the schema"
                    ),
                );
            }
            match (&p.schema_registry, decode.format, &decode.schema_file) {
                (None, Format::Avro, _) => report(
                    "/decode/format",
                    "`avro` needs `schema_registry`: records name their schema by its id there".into(),
                ),
                (None, _, None) => report(
                    "/decode/format",
                    format!(
                        "`{name}` needs `schema_registry`, or `schema_file` for values that name no schema"
                    ),
                ),
                _ => {}
            }
            if decode.subject.is_some() && decode.schema_file.is_some() {
                report(
                    "/decode/schema_file",
                    "`subject` and `schema_file` exclude each other; keep one".into(),
                );
            }
            if decode.subject.is_none() && decode.schema_file.is_none() && p.source.kafka.topics.len() > 1 {
                report(
                    "/decode",
                    "several topics need `subject` or `schema_file`: one pipeline has one set of columns"
                        .into(),
                );
            }
            if let Some(file) = &decode.schema_file {
                must_exist(checked, "/decode/schema_file", file, report);
            }
        }
    }
    for (set, name, formats) in [
        (decode.fields.is_some() && decode.format == Format::Bytes, "fields", &[Format::Json][..]),
        (decode.subject.is_some(), "subject", WITH_SCHEMA),
        (decode.schema_file.is_some(), "schema_file", WITH_SCHEMA),
        (decode.message.is_some(), "message", &[Format::Protobuf]),
        (decode.recursive.is_some(), "recursive", WITH_SCHEMA),
    ] {
        if set && !formats.contains(&decode.format) {
            report(&format!("/decode/{name}"), belongs(name, formats));
        }
    }
    changes(checked, report);
    if let (Some(fields), true) = (&decode.fields, decode.kafka_columns) {
        for (name, _) in fields.fields().filter(|(name, _)| name.starts_with("_kafka_")) {
            let text = "names that begin with `_kafka_` are Gristmill's own; rename the field, or write `kafka_columns: false`";
            report(&format!("/decode/fields/{}", escape(name)), text.into());
        }
    }
    for (i, topic) in p.source.kafka.topics.iter().enumerate() {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if topic.is_empty() || topic.len() > 249 || !topic.chars().all(legal) {
            let text = "is not a topic's name (letters, digits, `.`, `_`, `-`); patterns are not supported, list the topics";
            report(&format!("/source/kafka/topics/{i}"), format!("`{topic}` {text}"));
        }
    }
    for (pointer, zero) in
        [("rotate/age", p.sink.rotate().age.0 == 0), ("rotate/bytes", p.sink.rotate().bytes.0 == 0)]
    {
        if zero {
            let sink = if p.sink.files.is_some() { "files" } else { "bigquery" };
            report(&format!("/sink/{sink}/{pointer}"), "must be above 0".into());
        }
    }
    for (i, step) in p.transforms.iter().enumerate() {
        must_exist(checked, &format!("/transforms/{i}/wasm"), &step.wasm, report);
        let mut topics = Vec::new();
        if let Some(when) = &step.when {
            when.topics(&format!("/transforms/{i}/when"), &mut topics);
        }
        for (pointer, topic) in topics.iter().filter(|(_, topic)| !p.source.kafka.topics.contains(topic)) {
            let known = p.source.kafka.topics.iter().map(String::as_str);
            let hint =
                nearest(topic, known).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            report(pointer, format!("`{topic}` is not among the topics of the source{hint}"));
        }
        if step.reload && step.sha256.is_some() {
            let text = "`sha256` pins one component, `reload` takes others; keep one";
            report(&format!("/transforms/{i}/reload"), text.into());
        }
    }
    match (&p.sink.files, &p.sink.bigquery) {
        (None, None) => report("/sink", "name where the rows go: `files` or `bigquery`".into()),
        (Some(_), Some(_)) => {
            report("/sink/bigquery", "`files` and `bigquery` exclude each other; keep one".into());
        }
        (Some(files), None) => {
            place(checked, "/sink/files", "the files go", &files.folder, files.gcs.as_ref(), report);
        }
        (None, Some(bigquery)) => {
            let State { folder, gcs } = &bigquery.state;
            place(checked, "/sink/bigquery/state", "the ledger lies", folder, gcs.as_ref(), report);
            if let Some(file) = &bigquery.credentials_file {
                must_exist(checked, "/sink/bigquery/credentials_file", file, report);
            }
            for (field, endpoint) in
                [("endpoint", &bigquery.endpoint), ("rest_endpoint", &bigquery.rest_endpoint)]
            {
                let endpoint = endpoint.as_deref().unwrap_or("https://");
                if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
                    let text = format!("`{endpoint}` must begin with http:// or https://");
                    report(&format!("/sink/bigquery/{field}"), text);
                }
            }
            // Whoever is asked by the one is asked by the other: rows would go elsewhere than their tables.
            let is_one = bigquery.endpoint.is_some() != bigquery.rest_endpoint.is_some();
            if bigquery.tables.is_some() && is_one {
                let text = "`tables` needs both `endpoint` and `rest_endpoint`, or neither: tables are made by the one, rows written by the other";
                report("/sink/bigquery/tables", text.into());
            } else if bigquery.mode == Mode::Cdc && is_one {
                let text = "`cdc` needs both `endpoint` and `rest_endpoint`, or neither: the one does not show the tables' primary keys";
                report("/sink/bigquery/mode", text.into());
            }
        }
    }
    if let Some(dead) = &p.dead_letters {
        if let Some(gcs) = &dead.gcs {
            bucket(checked, "/dead_letters/gcs", gcs, report);
        }
        let named = [
            ("folder", dead.folder.is_some()),
            ("gcs", dead.gcs.is_some()),
            ("topic", dead.topic.is_some()),
            ("table", dead.table.is_some()),
        ];
        let named: Vec<_> = named.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
        match named.as_slice() {
            [] => report("/dead_letters", "name a `folder`, a place in `gcs`, a `topic` or a `table`".into()),
            [first, second, ..] => report(
                &format!("/dead_letters/{second}"),
                format!("`{first}` and `{second}` exclude each other; keep one"),
            ),
            [place] => {
                let rows = p.sink.named_place();
                if let (Some(letters), Some(rows)) = (dead.place(), rows)
                    && letters.is_inside(checked, &rows)
                {
                    report(
                        &format!("/dead_letters/{place}"),
                        "is where the rows go, or inside of it: who reads them would find dead letters; name another".into(),
                    );
                }
                if let Some(table) = &dead.table {
                    match TableTemplate::parse(table) {
                        _ if p.sink.bigquery.is_none() => {
                            let text = "is one of BigQuery, where the rows do not go; name a `folder`, a place in `gcs` or a `topic`";
                            report("/dead_letters/table", text.into());
                        }
                        Err(error) => report("/dead_letters/table", error.to_string()),
                        Ok(template) => {
                            if let Some(column) = template.columns().next() {
                                let text = format!(
                                    "dead letters have no column `{column}`: `{{topic}}` alone can be in the name"
                                );
                                report("/dead_letters/table", text);
                            }
                        }
                    }
                }
                if let Some(topic) = &dead.topic
                    && p.source.kafka.topics.contains(topic)
                {
                    report(
                        "/dead_letters/topic",
                        format!(
                            "`{topic}` is read by this pipeline: its dead letters would come back for ever"
                        ),
                    );
                }
            }
        }
    }
    let mut topics = p.source.kafka.topics.iter().enumerate().collect::<Vec<_>>();
    topics.sort_by_key(|(_, name)| *name);
    for pair in topics.windows(2) {
        if pair[0].1 == pair[1].1 {
            let at = pair[0].0.max(pair[1].0);
            report(&format!("/source/kafka/topics/{at}"), format!("`{}` is named twice", pair[0].1));
        }
    }
    for (key, value) in &p.source.kafka.properties {
        let pointer = format!("/source/kafka/properties/{}", escape(key));
        if let Some(field) = owned_property(key) {
            report(&pointer, format!("this property belongs to Gristmill; {field}"));
        }
        secret_resolves(checked, &pointer, value, report);
    }
    if p.source.kafka.session_timeout.is_some() && p.source.kafka.group_protocol == GroupProtocol::Consumer {
        let text = "with `group_protocol: consumer` the broker sets it; remove it";
        report("/source/kafka/session_timeout", text.into());
    }
    if let Some(registry) = &p.schema_registry {
        for (name, value) in [("password", &registry.password), ("bearer_token", &registry.bearer_token)] {
            if let Some(value) = value {
                secret_resolves(checked, &format!("/schema_registry/{name}"), value, report);
            }
        }
        if registry.password.is_some() != registry.username.is_some() {
            report("/schema_registry", "`username` and `password` go together".into());
        }
        if registry.bearer_token.is_some() && registry.username.is_some() {
            report(
                "/schema_registry/bearer_token",
                "`bearer_token` and `username` exclude each other; keep one".into(),
            );
        }
        for url in registry.url.split(',') {
            if !url.trim().starts_with("http://") && !url.trim().starts_with("https://") {
                report(
                    "/schema_registry/url",
                    format!("`{}` must begin with http:// or https://", url.trim()),
                );
            }
        }
    }
    if let Some(http) = &p.http
        && http.listen.parse::<std::net::SocketAddr>().is_err()
    {
        report(
            "/http/listen",
            format!("`{}` is not an address and port, such as `127.0.0.1:9600`", http.listen),
        );
    }
    let divided = match (&p.sink.files, &p.sink.bigquery) {
        (Some(files), _) if files.directories.is_some() => Some("/sink/files/directories"),
        (_, Some(_)) => Some("/sink/bigquery/table"),
        _ => None,
    };
    if let Some(pointer) = divided {
        // A schema's columns are known only at the start, and transforms may change columns: see `prepare`.
        let columns = match decode.format {
            _ if !p.transforms.is_empty() => None,
            Format::Json => decode.fields.as_ref().and_then(|fields| fields.arrow_schema().ok()),
            Format::Bytes => Some(gristmill_codec::RawDecoder::bytes().schema()),
            Format::Avro | Format::Protobuf | Format::JsonSchema => None,
        };
        match dividing(checked) {
            Err(error) => report(pointer, error.to_string()),
            Ok(None) => {}
            Ok(Some((_, template))) => {
                for mistake in columns.iter().flat_map(|columns| directory_mistakes(&template, columns)) {
                    report(pointer, mistake);
                }
            }
        }
    }
}

/// What a schema cannot say of records that change rows.
fn changes(checked: &Checked, report: &mut dyn FnMut(&str, String)) {
    let p = &checked.pipeline;
    let decode = &p.decode;
    match (decode.changes, &decode.key) {
        (None, Some(_)) => {
            report("/decode/key", "belongs to `changes`; add `changes: upsert`, or remove it".into());
        }
        (Some(Changes::Upsert), None) => {
            let text = "`upsert` needs `key`: a record without a value deletes the row with its key";
            report("/decode/changes", text.into());
        }
        _ => {}
    }
    if decode.changes == Some(Changes::Debezium) && decode.format == Format::Bytes {
        report("/decode/changes", "an envelope is of any other format, not `bytes`".into());
    }
    if let Some(key) = &decode.key {
        let with_schema = key.format.with_schema();
        let needs_fields = with_schema.is_none();
        match &key.fields {
            None if needs_fields => {
                report(
                    "/decode/key",
                    "needs `fields`: the columns and their types, such as `id: int64`".into(),
                );
            }
            Some(_) if !needs_fields => {
                let text = "`fields` belongs to `json` and `text`; the columns of other formats come from the schema";
                report("/decode/key/fields", text.into());
            }
            Some(fields) => match fields.arrow_schema() {
                Err(mistakes) => {
                    for mistake in mistakes {
                        report("/decode/key/fields", format!("{}: {}", mistake.path, mistake.message));
                    }
                }
                Ok(schema) if key.format == KeyFormat::Text => {
                    if let Err(text) = KeyPlan::text(schema) {
                        report("/decode/key/fields", text);
                    }
                }
                Ok(_) => {}
            },
            None => {}
        }
        for (set, name, formats) in [
            (key.subject.is_some(), "subject", WITH_SCHEMA),
            (key.schema_file.is_some(), "schema_file", WITH_SCHEMA),
            (key.message.is_some(), "message", &[Format::Protobuf]),
            (key.recursive.is_some(), "recursive", WITH_SCHEMA),
        ] {
            if set && !with_schema.is_some_and(|format| formats.contains(&format)) {
                report(&format!("/decode/key/{name}"), belongs(name, formats));
            }
        }
        if key.subject.is_some() && key.schema_file.is_some() {
            let text = "`subject` and `schema_file` exclude each other; keep one";
            report("/decode/key/schema_file", text.into());
        }
        if let Some(format) = with_schema {
            match (&p.schema_registry, format, &key.schema_file) {
                (None, Format::Avro, _) => {
                    let text = "`avro` needs `schema_registry`: keys name their schema by its id there";
                    report("/decode/key/format", text.into());
                }
                (None, _, None) => report(
                    "/decode/key/format",
                    format!(
                        "`{}` needs `schema_registry`, or `schema_file` for keys that name no schema",
                        format.name()
                    ),
                ),
                _ => {}
            }
            if key.subject.is_none() && key.schema_file.is_none() && p.source.kafka.topics.len() > 1 {
                let text =
                    "several topics need `subject` or `schema_file`: one pipeline has one set of columns";
                report("/decode/key", text.into());
            }
        }
        if let Some(file) = &key.schema_file {
            must_exist(checked, "/decode/key/schema_file", file, report);
        }
    }
    let Some(bigquery) = &p.sink.bigquery else { return };
    let is_cdc = bigquery.mode == Mode::Cdc;
    if is_cdc && decode.changes.is_none() {
        let text = "`cdc` needs `decode.changes`: what records say of rows";
        report("/sink/bigquery/mode", text.into());
    }
    if is_cdc && bigquery.primary_key.is_empty() {
        let text = "`cdc` needs `primary_key`: the columns that rows are told apart by";
        report("/sink/bigquery", text.into());
    }
    if !is_cdc && !bigquery.primary_key.is_empty() {
        report("/sink/bigquery/primary_key", "belongs to `mode: cdc`; remove it".into());
    }
    let mut names: Vec<String> = bigquery.primary_key.iter().map(|name| name.to_lowercase()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        report("/sink/bigquery/primary_key", "names a column twice".into());
    }
    if is_cdc && let Ok(template) = TableTemplate::parse(&bigquery.table) {
        let is_key =
            |column: &&str| bigquery.primary_key.iter().any(|name| name.eq_ignore_ascii_case(column));
        for column in template.columns().filter(|column| !is_key(column)) {
            let text = format!(
                "with `mode: cdc` rows are parted by columns of `primary_key` alone, and `{column}` is none: a row whose value changes \
                 would stay in its old table, too"
            );
            report("/sink/bigquery/table", text);
        }
    }
    if !is_cdc && bigquery.tables.as_ref().is_some_and(|tables| tables.max_staleness.is_some()) {
        report("/sink/bigquery/tables/max_staleness", "belongs to `mode: cdc`; remove it".into());
    }
}

/// A place is a folder or a bucket.
fn place(
    checked: &Checked,
    pointer: &str,
    what: &str,
    folder: &Option<PathBuf>,
    gcs: Option<&Gcs>,
    report: &mut dyn FnMut(&str, String),
) {
    match (folder, gcs) {
        (None, None) => report(pointer, format!("name where {what}: a `folder`, or `gcs` with a `bucket`")),
        (Some(_), Some(_)) => {
            report(&format!("{pointer}/gcs"), "`folder` and `gcs` exclude each other; keep one".into());
        }
        _ => {}
    }
    if let Some(gcs) = gcs {
        bucket(checked, &format!("{pointer}/gcs"), gcs, report);
    }
}

/// What a schema cannot say of a place in Cloud Storage.
fn bucket(checked: &Checked, pointer: &str, gcs: &Gcs, report: &mut dyn FnMut(&str, String)) {
    for (name, bucket) in [("bucket", Some(&gcs.bucket)), ("staging_bucket", gcs.staging_bucket.as_ref())] {
        let Some(bucket) = bucket else { continue };
        if let Err(error) = gristmill_sinks::GcsConfig::builder(bucket).build() {
            report(&format!("{pointer}/{name}"), error.to_string());
        }
    }
    if let Some(endpoint) = &gcs.endpoint
        && let Err(error) = gristmill_sinks::GcsConfig::builder("bucket").endpoint(endpoint).build()
    {
        report(&format!("{pointer}/endpoint"), error.to_string());
    }
    let prefix = gcs.prefix.as_deref().unwrap_or("").trim_matches('/');
    if !prefix.is_empty()
        && let Err(error) = gristmill_sinks::validate_name(prefix)
    {
        report(&format!("{pointer}/prefix"), error.to_string());
    }
    if gcs.credentials_file.is_some() && gcs.credentials == GcsCredentials::Anonymous {
        let text = "`credentials_file` and `credentials: anonymous` exclude each other; keep one";
        report(&format!("{pointer}/credentials_file"), text.into());
    }
    for (name, file) in [("credentials_file", &gcs.credentials_file), ("ca_file", &gcs.ca_file)] {
        if let Some(file) = file {
            must_exist(checked, &format!("{pointer}/{name}"), file, report);
        }
    }
}

/// What divides rows by their values, into directories or tables, and the pointer of the field that says so.
pub(crate) fn dividing(
    checked: &Checked,
) -> Result<Option<(&'static str, DirectoryTemplate)>, gristmill_sinks::Error> {
    let sink = &checked.pipeline.sink;
    if let Some(bigquery) = &sink.bigquery {
        let template = TableTemplate::parse(&bigquery.table)?.directories();
        return Ok(template.map(|template| ("/sink/bigquery/table", template)));
    }
    let Some(text) = sink.files.as_ref().and_then(|files| files.directories.as_ref()) else {
        return Ok(None);
    };
    DirectoryTemplate::parse(text).map(|template| Some(("/sink/files/directories", template)))
}

/// What keeps the columns and the directories apart, with the name that was probably meant.
pub(crate) fn directory_mistakes(template: &DirectoryTemplate, columns: &Schema) -> Vec<String> {
    let explain = |mistake: DirectoryMistake| match mistake.missing {
        None => mistake.text,
        Some(field) => {
            let known = paths(columns.fields(), "");
            match nearest(&field, known.iter().map(String::as_str)) {
                Some(meant) => format!("{}; did you mean `{meant}`?", mistake.text),
                None => format!("{}; the columns are {}", mistake.text, known.join(", ")),
            }
        }
    };
    template.mistakes(columns).into_iter().map(explain).collect()
}

/// The paths of all fields that are not structs.
fn paths(fields: &Fields, parent: &str) -> Vec<String> {
    let paths = fields.iter().flat_map(|field| match field.data_type() {
        DataType::Struct(inner) => paths(inner, &format!("{parent}{}.", field.name())),
        _ => vec![format!("{parent}{}", field.name())],
    });
    paths.collect()
}

/// Which pipeline field says what a librdkafka property would say.
fn owned_property(key: &str) -> Option<&'static str> {
    Some(match key {
        "bootstrap.servers" | "metadata.broker.list" => "write `source.kafka.bootstrap_servers`",
        "group.id" => "write `source.kafka.group`",
        "group.protocol" | "partition.assignment.strategy" => "write `source.kafka.group_protocol`",
        "session.timeout.ms" => "write `source.kafka.session_timeout`",
        "auto.offset.reset" => "write `source.kafka.start`",
        "isolation.level" => "write `source.kafka.isolation`",
        "enable.auto.commit" | "enable.auto.offset.store" | "auto.commit.interval.ms" => {
            "offsets are committed when their files are published; remove it"
        }
        "queued.max.messages.kbytes"
        | "queued.min.messages"
        | "fetch.message.max.bytes"
        | "max.partition.fetch.bytes"
        | "fetch.max.bytes" => "write `memory`",
        _ => return None,
    })
}

fn must_exist(checked: &Checked, pointer: &str, path: &Path, report: &mut dyn FnMut(&str, String)) {
    let path = checked.path(path);
    if !path.is_file() {
        report(pointer, format!("there is no file {}", path.display()));
    }
}

fn secret_resolves(
    checked: &Checked,
    pointer: &str,
    value: &Reference,
    report: &mut dyn FnMut(&str, String),
) {
    if let Err(error) = value.resolve(&checked.base) {
        report(pointer, error);
    }
}
