//! How records become columns: what the file says, those beside it, and the registry.

use std::path::{Component, Path};
use std::sync::Arc;

use arrow_schema::SchemaRef;
use gristmill::{RegistryConfig, RegistryError, RegistryErrorKind, Schema, SchemaRegistry, SchemaType};
use gristmill_codec::{AvroOptions, ProtobufOptions, SchemaId};

use super::{is_cdc, read_bounded};
use crate::check::Checked;
use crate::error::{Error, ErrorKind, NO_REGISTRY};
use crate::file::{Changes, DecodeKey, Format, KeyFormat, Recursive};
use crate::stages::DecoderPlan;
use crate::stages::changes::{self, ChangePlan, KeyPlan};
use crate::value_encoder::{WriteFormat, WriteSchema};

/// Files that a `.proto` file may import.
const MAX_IMPORTS: usize = 256;
/// Their bytes.
const MAX_IMPORTED: usize = 8 << 20;

/// A key that changes unnoticed would leave the old row where it is.
pub(super) fn keys_are_told(
    checked: &Checked,
    decoder: &DecoderPlan,
    changes: Option<&ChangePlan>,
) -> Result<(), Error> {
    let Some(changes) = changes.filter(|_| is_cdc(checked)) else { return Ok(()) };
    match changes.open(&decoder.open()?.schema())?.tells_keys() {
        true => Ok(()),
        false => Err(checked.mistake(
            "/sink/bigquery/primary_key",
            "a transform makes columns of it, so that a key that changes would not be noticed: give `decode.key`, whose columns tell it",
        )),
    }
}

/// How records become changes of rows, if they do.
pub(super) async fn change_plan_of(
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
    let what = format!("subject {subject}");
    let plan = key_reading(checked, key).expect("a format with a schema").plan_of(&schema, &what)?;
    plan.open().map_err(|e| e.about(&what))?;
    Ok(Some(change_plan(checked, kind, Some(KeyPlan::Schema(plan)))))
}

/// How keys become columns, if the file and those beside it say it; none if the registry does.
fn key_of_file(checked: &Checked, key: &DecodeKey) -> Result<Option<KeyPlan>, Error> {
    let fields = || key.fields.as_ref().expect("checked").arrow_schema().expect("checked");
    Ok(Some(match (key.format, &key.schema_file) {
        (KeyFormat::Text, _) => KeyPlan::text(fields()).map_err(Error::config)?,
        (KeyFormat::Json, _) => KeyPlan::Json(fields()),
        (KeyFormat::Avro | KeyFormat::Protobuf | KeyFormat::JsonSchema, Some(file)) => {
            let reading = key_reading(checked, key).expect("a format with a schema");
            KeyPlan::Schema(plan_of_file(checked, &reading, file)?)
        }
        (KeyFormat::Avro | KeyFormat::Protobuf | KeyFormat::JsonSchema, None) => return Ok(None),
    }))
}

pub(super) fn registry(checked: &Checked) -> Result<Option<SchemaRegistry>, Error> {
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

pub(super) async fn decoder(
    checked: &Checked,
    registry: Option<&SchemaRegistry>,
) -> Result<DecoderPlan, Error> {
    if let Some(plan) = decoder_of_file(checked)? {
        return Ok(plan);
    }
    let subject = values_subject(checked);
    let schema = registry.expect("checked").latest(&subject).await;
    let schema = schema.map_err(|e| no_columns(&subject, e))?;
    decoder_of(checked, &subject, &schema)
}

/// How rows become values that are read here, and of which columns; nothing where JSON is a value as it is.
pub(crate) async fn writing(
    checked: &Checked,
    registry: Option<&SchemaRegistry>,
) -> Result<Option<(WriteFormat, SchemaRef)>, Error> {
    let decode = &checked.pipeline.decode;
    let reading = match reading(checked) {
        Some(reading) if !matches!(reading, Reading::JsonSchema { .. }) => reading,
        _ => return Ok(None),
    };
    let (message, subject) = (decode.message.clone(), values_subject(checked));
    let (plan, schema) = match (&decode.schema_file, registry) {
        (Some(file), _) => {
            (plan_of_file(checked, &reading, file)?, WriteSchema::Known(text_of(checked, file)?))
        }
        (None, registry) => {
            let schema = registry.expect("checked").latest(&subject).await;
            let schema = schema.map_err(|e| no_columns(&subject, e))?;
            (reading.plan_of(&schema, &format!("subject {subject}"))?, WriteSchema::Latest)
        }
    };
    let columns = plan.open()?.schema();
    let format = match (registry, plan) {
        (Some(registry), _) => {
            let (registry, language) = (registry.clone(), reading.language().clone());
            WriteFormat::Registered { registry, subject, language, schema, message }
        }
        (None, DecoderPlan::Protobuf { schema, .. }) => {
            WriteFormat::BareProtobuf { schema: schema.to_string(), message }
        }
        (None, _) => return Err(Error::config(NO_REGISTRY)),
    };
    Ok(Some((format, columns)))
}

/// As [`decoder`] is now, and the schema; of a file whose columns are the registry's to say.
pub(super) async fn decoder_now(
    checked: &Checked,
    registry: &SchemaRegistry,
) -> Result<(DecoderPlan, Arc<Schema>), Error> {
    let subject = values_subject(checked);
    let schema = registry.latest_now(&subject).await.map_err(|e| no_columns(&subject, e))?;
    Ok((decoder_of(checked, &subject, &schema)?, schema))
}

/// Whether the latest schema of a subject says which columns there are.
pub(crate) fn registry_says_columns(checked: &Checked) -> bool {
    let decode = &checked.pipeline.decode;
    decode.format.has_schema() && decode.schema_file.is_none()
}

fn values_subject(checked: &Checked) -> String {
    let topic = &checked.pipeline.source.kafka.topics[0];
    checked.pipeline.decode.subject.clone().unwrap_or_else(|| format!("{topic}-value"))
}

pub(crate) fn no_columns(subject: &str, error: RegistryError) -> Error {
    Error::registry(format!("the columns' schema, subject {subject}"), error)
}

fn decoder_of(checked: &Checked, subject: &str, schema: &Schema) -> Result<DecoderPlan, Error> {
    let what = format!("subject {subject}");
    let reading = reading(checked).expect("a format with a schema");
    let plan = envelope(checked, reading.plan_of(schema, &what)?, &what)?;
    // A schema that cannot be used is said now, not at the first record.
    plan.open().map_err(|e| e.about(&what))?;
    Ok(plan)
}

/// How values with a schema become columns.
#[derive(Clone, Debug)]
pub(crate) enum Reading {
    Avro(AvroOptions),
    JsonSchema { recursive_as_json: bool, has_registry: bool },
    Protobuf(ProtobufOptions),
}

/// Values, as a file says; none if they have no schema.
fn reading(checked: &Checked) -> Option<Reading> {
    let decode = &checked.pipeline.decode;
    let recursive_as_json = decode.recursive == Some(Recursive::Json);
    // What a file says stays as it is: no id says anything then.
    Reading::new(checked, decode.format, &decode.message, recursive_as_json, decode.schema_file.is_none())
}

/// The same of keys, whose columns do not change while it runs.
fn key_reading(checked: &Checked, key: &DecodeKey) -> Option<Reading> {
    let recursive_as_json = key.recursive == Some(Recursive::Json);
    Reading::new(checked, key.format.with_schema()?, &key.message, recursive_as_json, false)
}

impl Reading {
    fn new(
        checked: &Checked,
        format: Format,
        message: &Option<String>,
        recursive_as_json: bool,
        has_registry: bool,
    ) -> Option<Reading> {
        match format {
            Format::Avro => {
                let mut options = AvroOptions::default();
                options.recursive_as_json = recursive_as_json;
                Some(Reading::Avro(options))
            }
            Format::JsonSchema => Some(Reading::JsonSchema { recursive_as_json, has_registry }),
            Format::Protobuf => {
                let mut options = ProtobufOptions::default();
                options.message = message.clone();
                options.bare = checked.pipeline.schema_registry.is_none();
                options.recursive_as_json = recursive_as_json;
                Some(Reading::Protobuf(options))
            }
            Format::Json | Format::Bytes => None,
        }
    }

    fn language(&self) -> &'static SchemaType {
        match self {
            Reading::Avro(_) => &SchemaType::Avro,
            Reading::JsonSchema { .. } => &SchemaType::Json,
            Reading::Protobuf(_) => &SchemaType::Protobuf,
        }
    }

    /// By a schema of the registry.
    fn plan_of(&self, schema: &Schema, what: &str) -> Result<DecoderPlan, Error> {
        is_in(schema, self.language(), what)?;
        self.plan(&schema.text, &references(schema)).map_err(|e| e.about(what))
    }

    /// By the text of a schema, and name and text of what it refers to.
    pub(crate) fn plan(&self, text: &str, references: &[(&str, &str)]) -> Result<DecoderPlan, Error> {
        let references = references.iter().copied();
        Ok(match self {
            Reading::Avro(options) => {
                let whole = gristmill_codec::inline_avro_references(text, references.map(|(_, text)| text));
                let schema = whole.map_err(Error::decode)?.into();
                DecoderPlan::Avro { schema, options: options.clone() }
            }
            Reading::JsonSchema { recursive_as_json, has_registry } => {
                let columns =
                    gristmill_codec::json_schema_columns(text, references.clone(), *recursive_as_json);
                let descriptions = gristmill_codec::json_schema_descriptions(text, references);
                DecoderPlan::JsonSchema {
                    columns: columns.map_err(Error::decode)?,
                    descriptions: Arc::new(descriptions.map_err(Error::decode)?),
                    has_registry: *has_registry,
                }
            }
            Reading::Protobuf(options) => {
                let whole = gristmill_codec::inline_protobuf_imports(text, references);
                let schema = whole.map_err(Error::decode)?.into();
                DecoderPlan::Protobuf { schema, options: options.clone() }
            }
        })
    }
}

/// Name and text of all that a schema refers to.
pub(crate) fn references(schema: &Schema) -> Vec<(&str, &str)> {
    let all = schema.referenced.iter();
    all.map(|referenced| (referenced.reference.name.as_str(), referenced.text.as_str())).collect()
}

/// The decoder, if the file and those beside it say all of it; none if the registry does.
pub(super) fn decoder_of_file(checked: &Checked) -> Result<Option<DecoderPlan>, Error> {
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
        (Format::Avro | Format::Protobuf | Format::JsonSchema, Some(file)) => {
            let reading = reading(checked).expect("a format with a schema");
            envelope(checked, plan_of_file(checked, &reading, file)?, &file.display().to_string())?
        }
        (Format::Avro | Format::Protobuf | Format::JsonSchema, None) => return Ok(None),
    };
    plan.open()?;
    Ok(Some(plan))
}

fn text_of(checked: &Checked, file: &Path) -> Result<String, Error> {
    let bytes = read_bounded(&checked.path(file), 16 << 20)?;
    String::from_utf8(bytes).map_err(|_| Error::config(format!("{} is not UTF-8", file.display())))
}

/// How values become columns by the schema in a file.
fn plan_of_file(checked: &Checked, reading: &Reading, file: &Path) -> Result<DecoderPlan, Error> {
    let text = text_of(checked, file)?;
    let imports = match reading {
        Reading::Protobuf(_) => imports(checked, file, &text)?,
        _ => Vec::new(),
    };
    let imports: Vec<(&str, &str)> =
        imports.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let what = file.display().to_string();
    let plan = reading.plan(&text, &imports).map_err(|e| e.about(&what))?;
    plan.open().map_err(|e| e.about(&what))?;
    Ok(plan)
}

/// What a `.proto` file imports, and what that imports: files in its folder.
fn imports(checked: &Checked, file: &Path, text: &str) -> Result<Vec<(String, String)>, Error> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut found: Vec<(String, String)> = Vec::new();
    let mut bytes = 0;
    let named = |name: &str, text: &str| {
        gristmill_codec::protobuf_imports(text).map_err(|e| Error::decode(e).about(name))
    };
    let mut open = named(&file.display().to_string(), text)?;
    while let Some(name) = open.pop() {
        if found.iter().any(|(known, _)| *known == name) {
            continue;
        }
        if found.len() >= MAX_IMPORTS {
            return Err(Error::config(format!("{} imports more than {MAX_IMPORTS} files", file.display())));
        }
        let is_below = Path::new(&name).components().all(|part| matches!(part, Component::Normal(_)));
        if !is_below {
            return Err(Error::config(format!(
                "{} imports `{name}`, which is not in its folder",
                file.display()
            )));
        }
        let text = text_of(checked, &folder.join(&name))?;
        bytes += text.len();
        if bytes > MAX_IMPORTED {
            return Err(Error::config(format!(
                "what {} imports has more than {MAX_IMPORTED} bytes",
                file.display()
            )));
        }
        open.extend(named(&name, &text)?);
        found.push((name, text));
    }
    Ok(found)
}

/// How values become columns of which envelopes are made, if they are envelopes.
fn envelope(checked: &Checked, plan: DecoderPlan, what: &str) -> Result<DecoderPlan, Error> {
    match (plan, checked.pipeline.decode.changes) {
        (DecoderPlan::Avro { schema, options }, Some(Changes::Debezium)) => {
            let text = changes::avro_envelope(&schema);
            let schema = text.map_err(|e| Error::config(format!("{what}: {e}")))?.into();
            Ok(DecoderPlan::Avro { schema, options })
        }
        (DecoderPlan::JsonSchema { columns, descriptions, has_registry }, Some(Changes::Debezium)) => {
            let columns = changes::of_envelope(&columns);
            Ok(DecoderPlan::JsonSchema { columns, descriptions, has_registry })
        }
        (plan, _) => Ok(plan),
    }
}

/// How records become changes of rows, if the file and those beside it say it; none if the registry does.
pub(super) fn changes_of_file(checked: &Checked) -> Result<Option<Option<ChangePlan>>, Error> {
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

/// How values become columns by the latest schema of a subject.
pub(crate) async fn latest_columns(
    registry: &SchemaRegistry,
    subject: &str,
    reading: &Reading,
) -> Result<DecoderPlan, Error> {
    let schema = registry.latest(subject).await.map_err(|e| no_columns(subject, e))?;
    reading.plan_of(&schema, &format!("subject {subject}"))
}

fn is_in(schema: &Schema, language: &SchemaType, what: &str) -> Result<(), Error> {
    if schema.schema_type == *language {
        return Ok(());
    }
    let named = |language: &SchemaType| match language {
        SchemaType::Avro => "`avro`",
        SchemaType::Json => "`json_schema`",
        SchemaType::Protobuf => "`protobuf`",
        _ => "one that is not decoded here",
    };
    Err(Error::new(
        ErrorKind::SchemaRegistry,
        format!(
            "{what} is a schema of the type {}, and the format is {}; its format is {}",
            schema.schema_type.as_str(),
            named(language),
            named(&schema.schema_type)
        ),
    ))
}

/// The text of a schema that stands by itself, to read by what was written with it.
pub(crate) fn whole_text(schema: &Schema, language: &SchemaType, what: &str) -> Result<String, Error> {
    is_in(schema, language, what)?;
    match language {
        SchemaType::Avro => gristmill_codec::inline_avro_references(&schema.text, schema.referenced_texts())
            .map_err(Error::decode),
        SchemaType::Protobuf => {
            gristmill_codec::inline_protobuf_imports(&schema.text, references(schema)).map_err(Error::decode)
        }
        // JSON is read without it.
        _ => Ok(schema.text.clone()),
    }
}

/// A schema that records were written with. Where there is none that can be used the records that name it are at fault, not the
/// pipeline.
#[derive(Debug)]
pub(crate) enum WriterSchema {
    Known(String),
    /// Of another language, or broken.
    Unusable,
    /// The registry does not have it.
    Unknown,
}

impl WriterSchema {
    pub(crate) fn text(self) -> Option<String> {
        match self {
            WriterSchema::Known(text) => Some(text),
            WriterSchema::Unusable | WriterSchema::Unknown => None,
        }
    }
}

/// The schema that records were written with.
pub(crate) async fn writer_schema(
    registry: &SchemaRegistry,
    id: SchemaId,
    language: &SchemaType,
) -> Result<WriterSchema, Error> {
    if *language == SchemaType::Json {
        // JSON is read without it: that there is one is all that matters.
        return Ok(WriterSchema::Known(String::new()));
    }
    let found = match id {
        SchemaId::Id(id) => registry.schema_by_id(id).await,
        SchemaId::Guid(_) => registry.schema_by_guid(&id.to_string()).await,
    };
    match found {
        Ok(schema) => Ok(match whole_text(&schema, language, &format!("schema id {id}")) {
            Ok(text) => WriterSchema::Known(text),
            Err(error) => {
                tracing::warn!(%error, "records of this schema are rejected");
                WriterSchema::Unusable
            }
        }),
        Err(error) if error.kind() == RegistryErrorKind::NotFound => Ok(WriterSchema::Unknown),
        Err(error) => Err(Error::registry(format!("records name the schema id {id}"), error)),
    }
}
