//! How records become columns: what the file says, those beside it, and the registry.

use std::path::Path;

use gristmill::{RegistryConfig, RegistryError, RegistryErrorKind, Schema, SchemaRegistry, SchemaType};

use super::{is_cdc, read_bounded};
use crate::check::Checked;
use crate::error::{Error, ErrorKind};
use crate::file::{Changes, DecodeKey, Format, KeyFormat};
use crate::stages::DecoderPlan;
use crate::stages::changes::{self, ChangePlan, KeyPlan};

/// A key that changes unnoticed would leave the old row where it is.
pub(super) fn keys_are_told(
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

/// As [`decoder`] is now, and the schema's id; of a file whose columns are the registry's to say.
pub(super) async fn decoder_now(
    checked: &Checked,
    registry: &SchemaRegistry,
) -> Result<(DecoderPlan, u32), Error> {
    let subject = values_subject(checked);
    let schema = registry.latest_now(&subject).await.map_err(|e| no_columns(&subject, e))?;
    Ok((decoder_of(checked, &subject, &schema)?, schema.id))
}

/// Whether the latest schema of a subject says which columns there are.
pub(crate) fn registry_says_columns(checked: &Checked) -> bool {
    let decode = &checked.pipeline.decode;
    decode.format == Format::Avro && decode.schema_file.is_none()
}

fn values_subject(checked: &Checked) -> String {
    let topic = &checked.pipeline.source.kafka.topics[0];
    checked.pipeline.decode.subject.clone().unwrap_or_else(|| format!("{topic}-value"))
}

fn no_columns(subject: &str, error: RegistryError) -> Error {
    Error::registry(format!("the columns' schema, subject {subject}"), error)
}

fn decoder_of(checked: &Checked, subject: &str, schema: &Schema) -> Result<DecoderPlan, Error> {
    let what = format!("subject {subject}");
    let plan = avro_values(checked, &avro_text(schema, &what)?, &what)?;
    // A schema that cannot be used is said now, not at the first record.
    plan.open()?;
    Ok(plan)
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

/// The latest Avro schema of a subject, to make columns of, self-contained.
pub(crate) async fn latest_columns(registry: &SchemaRegistry, subject: &str) -> Result<String, Error> {
    let schema = registry.latest(subject).await.map_err(|e| no_columns(subject, e))?;
    avro_text(&schema, &format!("subject {subject}"))
}

/// The self-contained text of an Avro schema.
fn avro_text(schema: &Schema, what: &str) -> Result<String, Error> {
    if schema.schema_type != SchemaType::Avro {
        return Err(Error::new(
            ErrorKind::SchemaRegistry,
            format!("{what} is a {} schema; Avro is decoded", schema.schema_type.as_str()),
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
