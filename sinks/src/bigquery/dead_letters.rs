//! Dead letters as rows of a table.

use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, Int64Builder, ListBuilder, StringBuilder, StructBuilder, TimestampMillisecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

use super::{BigQueryConfig, BigQueryStore, Mode, TableNote};
use crate::dead_letter::{DeadLetter, DeadLetterContext, DeadLetterSink};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Encoder, Format};
use crate::names::MAIN_OUTPUT;
use crate::store::{BoxFuture, RowsOf, Store};

/// Bytes of records that are sent together.
const BATCH_BYTES: usize = 4 << 20;
/// Records above it are left out: a request has less than 10 MB.
const MAX_RECORD: usize = 8 << 20;

/// Dead letters as rows of a table of BigQuery, by its default stream: seen at once, and after a crash or a lost reply perhaps more
/// than once. `dead_letter_key` tells which are the same ([`DeadLetterContext::key`]).
///
/// Columns: `dead_letter_key`, `pipeline`, `kafka_topic`, `kafka_topic_id`, `kafka_partition`, `kafka_offset`, `sub`,
/// `kafka_timestamp`, `stage`, `transform`, `code`, `message`, and of the record `record_key`, `record_value`, `record_headers`.
#[derive(Debug)]
pub struct TableDeadLetters {
    store: BigQueryStore,
    schema: SchemaRef,
}

impl TableDeadLetters {
    /// Into the table that the configuration names; its mode and key are not used. To be called inside of a Tokio runtime. Asks nobody
    /// yet.
    ///
    /// # Errors
    /// As [`BigQueryStore::new`].
    pub fn new(config: BigQueryConfig) -> Result<Self> {
        let config = BigQueryConfig { mode: Mode::AtLeastOnce, primary_key: Vec::new(), ..config };
        Ok(TableDeadLetters { store: BigQueryStore::new(config)?, schema: schema() })
    }

    /// Makes the table of a topic's dead letters ready, as [`BigQueryStore::prepare_table`] does.
    ///
    /// # Errors
    /// As that.
    pub async fn prepare(&self, topic: &str, dry: bool) -> Result<TableNote> {
        self.store.prepare_table(topic, MAIN_OUTPUT, &self.schema, dry).await
    }

    /// The table of a topic's dead letters: `project.dataset.table`.
    pub fn name_of(&self, topic: &str) -> String {
        self.store.name_of(topic, MAIN_OUTPUT)
    }

    async fn append(&self, context: DeadLetterContext<'_>, letters: &[DeadLetter]) -> Result<()> {
        let rows =
            RowsOf { topic: &context.id.topic, output: MAIN_OUTPUT, directory: "", schema: &self.schema };
        let mut upload = self.store.stage_rows("", rows).await?;
        let mut encoder = Encoder::new(&Format::BigQuery, self.schema.clone())?;
        let mut rest = letters;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|letter| {
                bytes += kept_size(letter);
                bytes <= BATCH_BYTES
            });
            let (batch, others) = rest.split_at(fits.count().max(1));
            rest = others;
            encoder.write(&rows_of(&self.schema, context, batch)?)?;
            if let Some(bytes) = encoder.take(1) {
                upload.append(bytes).await?;
            }
        }
        upload.append(encoder.finish(&[])?).await?;
        upload.settle().await?;
        if let Some(refused) = upload.answered().refused.first() {
            let text = format!(
                "BigQuery refuses a dead letter of {}-{}: {}",
                context.id.topic, context.id.partition, refused.message
            );
            return Err(Error::new(ErrorKind::Encode, text));
        }
        upload.finish().await.map(|_| ())
    }
}

impl DeadLetterSink for TableDeadLetters {
    fn deliver<'a>(
        &'a self,
        context: DeadLetterContext<'a>,
        letters: &'a [DeadLetter],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.append(context, letters))
    }
}

fn header_fields() -> Fields {
    Fields::from(vec![
        Field::new("name", DataType::Binary, false),
        Field::new("value", DataType::Binary, true),
    ])
}

fn schema() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let number = |name: &str, nullable| Field::new(name, DataType::Int64, nullable);
    let bytes = |name: &str| Field::new(name, DataType::Binary, true);
    let headers = Field::new_list_field(DataType::Struct(header_fields()), false);
    Arc::new(Schema::new(vec![
        text("dead_letter_key", false),
        text("pipeline", false),
        text("kafka_topic", false),
        text("kafka_topic_id", false),
        number("kafka_partition", false),
        number("kafka_offset", false),
        number("sub", false),
        Field::new("kafka_timestamp", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
        text("stage", false),
        number("transform", true),
        text("code", false),
        text("message", false),
        bytes("record_key"),
        bytes("record_value"),
        Field::new("record_headers", DataType::List(Arc::new(headers)), false),
    ]))
}

/// Bytes of a letter's record, and of what is said of it.
fn size(letter: &DeadLetter) -> usize {
    let record = letter.payload.as_ref().map_or(0, |payload| {
        let bytes = |blob: &Option<crate::dead_letter::Blob>| blob.as_ref().map_or(0, |blob| blob.0.len());
        let headers = payload.headers.iter().map(|(name, value)| name.0.len() + bytes(value) + 16);
        bytes(&payload.key) + bytes(&payload.value) + headers.sum::<usize>()
    });
    record + letter.message.len() + 256
}

fn kept_size(letter: &DeadLetter) -> usize {
    match size(letter) {
        size if size > MAX_RECORD => 4_096,
        size => size,
    }
}

fn rows_of(
    schema: &SchemaRef,
    context: DeadLetterContext<'_>,
    letters: &[DeadLetter],
) -> Result<RecordBatch> {
    let id = context.id;
    let texts = |text: &dyn Fn(&DeadLetter) -> String| -> ArrayRef {
        let mut builder = StringBuilder::new();
        letters.iter().for_each(|letter| builder.append_value(text(letter)));
        Arc::new(builder.finish())
    };
    let numbers = |number: &dyn Fn(&DeadLetter) -> Option<i64>| -> ArrayRef {
        let mut builder = Int64Builder::new();
        letters.iter().for_each(|letter| builder.append_option(number(letter)));
        Arc::new(builder.finish())
    };
    let payload = |letter: &DeadLetter| match size(letter) > MAX_RECORD {
        true => None,
        false => letter.payload.clone(),
    };
    // Of a year that BigQuery has not, nothing is told; the offset tells which record it is.
    let is_told = |time: &i64| (-62_135_596_800_000..253_402_300_800_000).contains(time);
    let mut times = TimestampMillisecondBuilder::new().with_timezone("UTC");
    let (mut keys, mut values) = (BinaryBuilder::new(), BinaryBuilder::new());
    let item = Field::new_list_field(DataType::Struct(header_fields()), false);
    let mut headers = ListBuilder::new(StructBuilder::from_fields(header_fields(), 0)).with_field(item);
    for letter in letters {
        times.append_option(letter.timestamp.filter(is_told));
        let record = payload(letter).unwrap_or_default();
        keys.append_option(record.key.as_ref().map(|blob| &blob.0));
        values.append_option(record.value.as_ref().map(|blob| &blob.0));
        for (name, value) in &record.headers {
            let fields = headers.values();
            if let Some(names) = fields.field_builder::<BinaryBuilder>(0) {
                names.append_value(&name.0);
            }
            if let Some(values) = fields.field_builder::<BinaryBuilder>(1) {
                values.append_option(value.as_ref().map(|blob| &blob.0));
            }
            fields.append(true);
        }
        headers.append(true);
    }
    let message = |letter: &DeadLetter| match size(letter) > MAX_RECORD {
        true => format!("{} (the record is too large for a row)", letter.message),
        false => letter.message.clone(),
    };
    let stage = |letter: &DeadLetter| letter.stage.connect_name().to_owned();
    let columns: Vec<ArrayRef> = vec![
        texts(&|letter| context.key(letter)),
        texts(&|_| id.pipeline.clone()),
        texts(&|_| id.topic.clone()),
        texts(&|_| id.topic_id_text()),
        numbers(&|_| Some(i64::from(id.partition))),
        numbers(&|letter| Some(letter.offset)),
        numbers(&|letter| Some(i64::from(letter.sub))),
        Arc::new(times.finish()),
        texts(&stage),
        numbers(&|letter| letter.transform.map(i64::from)),
        texts(&|letter| letter.code.clone()),
        texts(&message),
        Arc::new(keys.finish()),
        Arc::new(values.finish()),
        Arc::new(headers.finish()),
    ];
    RecordBatch::try_new(schema.clone(), columns)
        .map_err(|e| Error::new(ErrorKind::Encode, "dead letters are no rows").with_source(e))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::dead_letter::{Blob, RejectedPayload, Stage};
    use crate::fake_bigquery::FakeBigQuery;
    use crate::{NewColumns, PartitionId, TableOptions, TableTemplate};

    fn letter(offset: i64, value: Option<Bytes>) -> DeadLetter {
        let headers = vec![(Blob("trace".into()), Some(Blob("t-1".into()))), (Blob("none".into()), None)];
        DeadLetter {
            offset,
            sub: 0,
            timestamp: Some(if offset == 2 { i64::MAX } else { 1_793_491_200_000 }),
            stage: Stage::Transform,
            transform: Some(1),
            due_from: None,
            code: "NEGATIVE".into(),
            message: "no amount".into(),
            payload: value.map(|value| RejectedPayload { key: None, value: Some(Blob(value)), headers }),
        }
    }

    /// Also many of them, and one that no request can hold; a table that is not there is an error with its statement.
    #[tokio::test]
    async fn letters_are_rows_of_their_table() {
        let bigquery = FakeBigQuery::start();
        bigquery.create_dataset("shop.lake");
        let config = BigQueryConfig {
            mode: Mode::ExactlyOnce,
            project: "shop".into(),
            dataset: "lake".into(),
            table: TableTemplate::parse("{topic}_dead").unwrap(),
            streams_per_second: 40,
            max_tables: 1,
            primary_key: vec!["id".into()],
            tables: None,
            endpoint: Some(bigquery.url().into()),
            rest_endpoint: Some(bigquery.rest_url().into()),
            gzip: false,
            credentials_file: None,
        };
        let without = TableDeadLetters::new(config.clone()).unwrap();
        let error = without.prepare("orders", false).await.unwrap_err().to_string();
        assert!(error.contains("CREATE TABLE `shop.lake.orders_dead` (`dead_letter_key` STRING"), "{error}");
        let options = TableOptions { create: true, new_columns: NewColumns::Add, ..TableOptions::default() };
        let letters = TableDeadLetters::new(BigQueryConfig { tables: Some(options), ..config }).unwrap();
        letters.prepare("orders", false).await.unwrap();
        let id = PartitionId {
            pipeline: "orders".into(),
            cluster: "c".into(),
            topic: "orders".into(),
            topic_id: [7; 16],
            partition: 3,
        };
        let context = DeadLetterContext { id: &id, first: 0, attempt: Uuid::nil() };
        let large = |bytes| Some(Bytes::from(vec![7; bytes]));
        let mut all = vec![letter(0, Some("{}".into())), letter(1, None), letter(2, large(9 << 20))];
        all.extend((3..8).map(|offset| letter(offset, large(3 << 20))));
        letters.deliver(context, &all).await.unwrap();
        // At least once.
        letters.deliver(context, &all[..1]).await.unwrap();
        let found = bigquery.rows("shop.lake.orders_dead");
        let lines: Vec<String> = found
            .iter()
            .flat_map(|rows| {
                let mut writer = arrow_json::LineDelimitedWriter::new(Vec::new());
                writer.write(&rows.slice(0, rows.num_rows())).unwrap();
                let text = String::from_utf8(writer.into_inner()).unwrap();
                text.lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(lines.len(), 9);
        let rows: Vec<serde_json::Value> =
            lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows[0], rows[8]);
        assert_eq!(rows[0]["dead_letter_key"], "BwcHBwcHBwcHBwcHBwcHBw/3/0/0");
        assert_eq!((&rows[0]["record_value"], &rows[0]["transform"]), (&"7b7d".into(), &1.into()));
        let headers = serde_json::json!([{"name": "7472616365", "value": "742d31"}, {"name": "6e6f6e65"}]);
        assert_eq!(rows[0]["record_headers"], headers);
        assert_eq!(
            (&rows[1]["record_value"], &rows[1]["stage"]),
            (&serde_json::Value::Null, &"TRANSFORMATION".into())
        );
        assert_eq!(rows[2]["message"], "no amount (the record is too large for a row)");
        assert_eq!(
            (&rows[2]["record_value"], &rows[2]["kafka_timestamp"]),
            (&serde_json::Value::Null, &serde_json::Value::Null)
        );
        assert!(rows[3..8].iter().all(|row| row["record_value"].as_str().unwrap().len() == 6 << 20));
    }
}
