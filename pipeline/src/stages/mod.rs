//! From raw records to rows: transforms of records, decoding, transforms of columns. No I/O; `run` and `test` share it.

pub(crate) mod changes;
mod columns;
mod fits;
mod kafka_columns;
mod records;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{BooleanArray, RecordBatch};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use arrow_select::concat::concat_batches;
use arrow_select::filter::filter_record_batch;
use bytes::Bytes;
use gristmill::SchemaType;
use gristmill_codec::{
    AvroDecoder, AvroOptions, Cause, Decoded, Decoder, JsonDecoder, JsonOptions, ProtobufDecoder,
    ProtobufOptions, RawDecoder, SchemaId,
};
use gristmill_records::RawBatch;
use gristmill_sinks::{MAIN_OUTPUT, RejectedRecord, RowCoord, Stage};
use gristmill_smt::{
    Applied, AppliedColumns, ColumnInstance, Kind, LogLine, Metrics, Reject, Stats, Stream, Transform,
};

use crate::error::Error;
use crate::predicate::{Of, Predicate, When};
use changes::{ChangePlan, Changes, Destination, Sequence};
use columns::{ColumnStep, Rows};
pub(crate) use fits::Fits;
use fits::Unfit;
pub use kafka_columns::KAFKA_COLUMNS;
use kafka_columns::with_kafka_columns;
pub(crate) use kafka_columns::{kafka_column_of_its_own, kafka_schema, with_kafka_columns_of};
pub(crate) use records::{Birth, Transformed, value_of};
use records::{Leaving, RecordStep, Refused, Trail};

/// How values become columns; each partition has a decoder of its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum DecoderPlan {
    Json(SchemaRef),
    /// JSON as the Schema Registry's serialisers write it: the columns of a schema, and what it says of them.
    JsonSchema {
        columns: SchemaRef,
        descriptions: Arc<BTreeMap<String, String>>,
        /// A registry has the schemas that records name.
        has_registry: bool,
    },
    /// The reader schema.
    Avro {
        schema: Arc<str>,
        options: AvroOptions,
    },
    /// The reader schema.
    Protobuf {
        schema: Arc<str>,
        options: ProtobufOptions,
    },
    Bytes,
}

impl DecoderPlan {
    /// What the schema says of its columns, by dotted path, and of itself by the empty one.
    pub(crate) fn descriptions(&self) -> Result<BTreeMap<String, String>, Error> {
        match self {
            DecoderPlan::Avro { schema, .. } => {
                gristmill_codec::avro_descriptions(schema).map_err(Error::decode)
            }
            DecoderPlan::JsonSchema { descriptions, .. } => Ok(BTreeMap::clone(descriptions)),
            DecoderPlan::Protobuf { schema, options } => {
                gristmill_codec::protobuf_descriptions(schema, options.message.as_deref())
                    .map_err(Error::decode)
            }
            DecoderPlan::Json(_) | DecoderPlan::Bytes => Ok(BTreeMap::new()),
        }
    }

    /// The language of the schemas that records name.
    pub(crate) fn language(&self) -> &'static SchemaType {
        match self {
            DecoderPlan::Avro { .. } => &SchemaType::Avro,
            DecoderPlan::Protobuf { .. } => &SchemaType::Protobuf,
            DecoderPlan::Json(_) | DecoderPlan::JsonSchema { .. } | DecoderPlan::Bytes => &SchemaType::Json,
        }
    }

    /// The same, for a pipeline whose records before it have another schema of JSON: what is required now may be missing there.
    pub(crate) fn after(self, before: &DecoderPlan) -> DecoderPlan {
        match (self, before) {
            (
                DecoderPlan::JsonSchema { columns, descriptions, has_registry },
                DecoderPlan::JsonSchema { columns: before, .. },
            ) => {
                let fields = relaxed(columns.fields(), before.fields());
                DecoderPlan::JsonSchema { columns: Arc::new(Schema::new(fields)), descriptions, has_registry }
            }
            (plan, _) => plan,
        }
    }

    /// Why records that `before` is the schema of would be read by this one as less, or not at all; if so.
    pub(crate) fn cannot_read(&self, before: &DecoderPlan, id: u32) -> Result<Option<String>, Error> {
        let written = match (self, before) {
            (DecoderPlan::Avro { .. }, DecoderPlan::Avro { schema, .. }) => schema,
            (DecoderPlan::Protobuf { .. }, DecoderPlan::Protobuf { schema, .. }) => schema,
            (DecoderPlan::JsonSchema { columns, .. }, DecoderPlan::JsonSchema { columns: before, .. }) => {
                return Ok(other_columns(columns.fields(), before.fields(), ""));
            }
            _ => return Ok(None),
        };
        Ok(self.open()?.add_writer_schema(id, written).err().map(|why| why.to_string()))
    }

    pub(crate) fn open(&self) -> Result<Decoder, Error> {
        let decoder = match self {
            DecoderPlan::Json(schema) => {
                JsonDecoder::new(schema.clone(), JsonOptions::default()).map(Decoder::from)
            }
            DecoderPlan::JsonSchema { columns, has_registry, .. } => {
                let mut options = JsonOptions::default();
                (options.registry_prefix, options.schema_ids) = (true, *has_registry);
                JsonDecoder::new(columns.clone(), options).map(Decoder::from)
            }
            DecoderPlan::Avro { schema, options } => {
                AvroDecoder::with_options(schema, options).map(Decoder::from)
            }
            DecoderPlan::Protobuf { schema, options } => {
                ProtobufDecoder::new(schema, options).map(Decoder::from)
            }
            DecoderPlan::Bytes => Ok(Decoder::from(RawDecoder::bytes())),
        };
        decoder.map_err(Error::decode)
    }
}

/// Columns that records without them, or with nulls, are read by as well.
fn relaxed(columns: &Fields, before: &Fields) -> Fields {
    let relaxed = columns.iter().map(|column| {
        let was = before.iter().find(|was| was.name() == column.name());
        let nullable = column.is_nullable() || was.is_none_or(|was| was.is_nullable());
        let data_type = match (column.data_type(), was.map(|was| was.data_type())) {
            (DataType::Struct(fields), Some(DataType::Struct(before))) => {
                DataType::Struct(relaxed(fields, before))
            }
            (DataType::List(item), Some(DataType::List(was))) => {
                let item = relaxed(&vec![item.clone()].into(), &vec![was.clone()].into());
                DataType::List(item[0].clone())
            }
            (other, _) => other.clone(),
        };
        column.as_ref().clone().with_nullable(nullable).with_data_type(data_type)
    });
    relaxed.collect::<Vec<Field>>().into()
}

/// The first of some columns that does not hold what those before did: JSON is read by the columns alone.
fn other_columns(columns: &Fields, before: &Fields, path: &str) -> Option<String> {
    columns.iter().find_map(|column| {
        let name = format!("{path}{}", column.name());
        match before.iter().find(|was| was.name() == column.name()) {
            Some(was) => other_column(column, was, &name),
            None if !column.is_nullable() => Some(required_now(&name)),
            None => None,
        }
    })
}

fn required_now(name: &str) -> String {
    format!("field {name}: it is required now, and records before may lack it")
}

fn other_column(column: &Field, was: &Field, name: &str) -> Option<String> {
    if was.is_nullable() && !column.is_nullable() {
        return Some(required_now(name));
    }
    match (column.data_type(), was.data_type()) {
        (DataType::Struct(fields), DataType::Struct(before)) => {
            other_columns(fields, before, &format!("{name}."))
        }
        (DataType::List(item), DataType::List(was)) => other_column(item, was, &format!("{name}[]")),
        (DataType::Map(entries, _), DataType::Map(were, _)) => {
            match (entries.data_type(), were.data_type()) {
                (DataType::Struct(pair), DataType::Struct(was)) if pair.len() == 2 && was.len() == 2 => {
                    other_column(&pair[1], &was[1], &format!("{name}[]"))
                }
                _ => None,
            }
        }
        (now, before) if now != before || column.extension_type_name() != was.extension_type_name() => {
            let shown = |field: &Field| match field.extension_type_name() {
                Some(_) => "JSON".to_owned(),
                None => field.data_type().to_string(),
            };
            Some(format!("field {name}: it was {} and is {}", shown(was), shown(column)))
        }
        _ => None,
    }
}

/// A transform of the pipeline.
#[derive(Clone, Debug)]
pub(crate) struct TransformPlan {
    pub(crate) transform: Transform,
    pub(crate) config: Arc<serde_json::Value>,
    pub(crate) when: Option<When>,
}

impl TransformPlan {
    /// It needs columns that say where rows come from.
    fn reads_kafka(&self) -> bool {
        let needs = &self.transform.manifest().columns;
        needs.iter().any(|need| KAFKA_COLUMNS.contains(&need.path.as_str()))
    }

    /// Bound to the columns that it is given.
    pub(crate) fn bind(
        &self,
        stream: &Stream,
        schema: &SchemaRef,
    ) -> Result<ColumnInstance, gristmill_smt::Error> {
        let schema = match self.reads_kafka() {
            true => &kafka_schema(schema),
            false => schema,
        };
        match self.when {
            None => self.transform.instantiate_columns(stream, &self.config, schema),
            Some(_) => self.transform.instantiate_columns_for_some(stream, &self.config, schema),
        }
    }

    /// Which of what a transform is given of a topic it gets; none: all.
    pub(crate) fn predicate(&self, topic: &str, of: Of<'_>) -> Result<Option<Predicate>, String> {
        self.when.as_ref().map(|when| when.of(topic, of)).transpose()
    }

    /// What comes out of `bound`, without the columns that say where rows come from.
    pub(crate) fn output(&self, bound: &ColumnInstance) -> SchemaRef {
        match self.reads_kafka() {
            true => kafka_columns::own_schema(bound.output_schema()),
            false => bound.output_schema().clone(),
        }
    }
}

/// What is the same for every partition of a pipeline.
#[derive(Clone, Debug)]
pub(crate) struct StagePlan {
    /// Those of records first.
    pub(crate) transforms: Vec<TransformPlan>,
    pub(crate) decoder: DecoderPlan,
    /// None if each record is a row.
    pub(crate) changes: Option<ChangePlan>,
    /// What is said of the columns, by dotted path, and of the rows by the empty one.
    pub(crate) descriptions: BTreeMap<String, String>,
    /// The columns of the rows that leave the transforms.
    pub(crate) schema: SchemaRef,
    pub(crate) kafka_columns: bool,
    pub(crate) fits: Fits,
    pub(crate) destination: Destination,
}

/// The columns of the rows that go into the transforms of columns.
pub(crate) fn rows_schema(decoder: &DecoderPlan, changes: Option<&ChangePlan>) -> Result<SchemaRef, Error> {
    let values = decoder.open()?.schema();
    match changes {
        None => Ok(values),
        Some(changes) => Ok(changes.open(&values)?.schema().clone()),
    }
}

impl StagePlan {
    /// Names of the outputs, `main` first: those of all transforms, each once.
    pub(crate) fn outputs(&self) -> Vec<String> {
        let mut names = vec![MAIN_OUTPUT.to_owned()];
        for output in self.transforms.iter().flat_map(|t| &t.transform.manifest().outputs) {
            if !names.contains(&output.name) {
                names.push(output.name.clone());
            }
        }
        names
    }

    /// The columns of the rows as the sink gets them; of those that change others, as their table has them.
    pub(crate) fn sink_schema(&self) -> SchemaRef {
        let schema = if self.kafka_columns { kafka_schema(&self.schema) } else { self.schema.clone() };
        self.destination.schema(schema)
    }

    /// The SHA-256 of the components, for the ledger.
    pub(crate) fn digest(&self) -> Option<String> {
        let digests: Vec<&str> = self.transforms.iter().map(|plan| plan.transform.digest()).collect();
        (!digests.is_empty()).then(|| digests.join(" "))
    }

    /// The stages of one partition, with instances of the transforms of their own.
    pub(crate) fn open(&self, topic: &str, partition: i32) -> Result<Stages, Error> {
        let stream = Stream { topic: topic.to_owned(), partition: partition.unsigned_abs() };
        let names = self.outputs();
        let decoder = self.decoder.open()?;
        let mut schema = decoder.schema();
        let changes = self.changes.as_ref().map(|changes| changes.open(&schema)).transpose()?;
        if let Some(changes) = &changes {
            schema = changes.schema().clone();
        }
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for plan in &self.transforms {
            let manifest = plan.transform.manifest();
            let name = manifest.name.clone();
            let number = |wanted: &str| names.iter().position(|n| n == wanted).unwrap_or_default();
            let outputs =
                std::iter::once(0).chain(manifest.outputs.iter().map(|o| number(&o.name))).collect();
            match plan.transform.kind() {
                Kind::Records => {
                    let instance =
                        plan.transform.instantiate(&stream, &plan.config).map_err(Error::transform)?;
                    let when = plan.predicate(topic, Of::Records).map_err(Error::config)?;
                    before.push(RecordStep { name, when, instance, outputs });
                }
                Kind::Columns => {
                    let when = plan.predicate(topic, Of::Columns(&schema)).map_err(Error::config)?;
                    let instance = plan.bind(&stream, &schema).map_err(Error::transform)?;
                    schema = plan.output(&instance);
                    after.push(ColumnStep { name, when, instance, outputs, reads_kafka: plan.reads_kafka() });
                }
            }
        }
        if schema.fields() != self.schema.fields() {
            return Err(Error::config(format!(
                "the transforms make other columns of partition {partition} of {topic} than of the first topic's partition 0"
            )));
        }
        Ok(Stages {
            before,
            decoder,
            language: self.decoder.language(),
            changes,
            after,
            kafka_columns: self.kafka_columns,
            fits: self.fits.clone(),
            destination: self.destination.clone(),
            sequence: Sequence::default(),
            outputs: names,
            keeps_births: false,
        })
    }
}

/// The stages of one partition.
#[derive(Debug)]
pub(crate) struct Stages {
    before: Vec<RecordStep>,
    decoder: Decoder,
    /// Of the schemas that values name.
    language: &'static SchemaType,
    changes: Option<Changes>,
    after: Vec<ColumnStep>,
    kafka_columns: bool,
    fits: Fits,
    destination: Destination,
    sequence: Sequence,
    outputs: Vec<String>,
    keeps_births: bool,
}

/// A schema that decoding needs and does not have yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) id: SchemaId,
    /// Of keys, else of values.
    pub(crate) of_keys: bool,
    /// What it has to be written in.
    pub(crate) language: &'static SchemaType,
}

/// What a transform did with a batch, to be counted and told.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) transform: String,
    pub(crate) kept: usize,
    pub(crate) dropped: usize,
    pub(crate) emitted: usize,
    /// By code.
    pub(crate) rejects: BTreeMap<String, u64>,
    /// What it was not given, by its `when`.
    pub(crate) passed_by: usize,
    pub(crate) stats: Stats,
    pub(crate) metrics: Metrics,
    pub(crate) logs: Vec<LogLine>,
    pub(crate) warnings: Vec<gristmill_smt::Error>,
}

impl Report {
    fn of_records(transform: &str, applied: &Applied, passed_by: usize) -> Self {
        Report {
            transform: transform.to_owned(),
            kept: applied.kept(),
            dropped: applied.dropped(),
            emitted: applied.emitted(),
            rejects: by_code(applied.rejects()),
            passed_by,
            stats: applied.stats(),
            metrics: applied.metrics().clone(),
            logs: applied.logs().to_vec(),
            warnings: applied.warnings().to_vec(),
        }
    }

    fn of_columns(transform: &str, applied: &AppliedColumns, passed_by: usize) -> Self {
        Report {
            transform: transform.to_owned(),
            kept: applied.kept(),
            dropped: applied.dropped(),
            emitted: applied.emitted(),
            rejects: by_code(applied.rejects()),
            passed_by,
            stats: applied.stats(),
            metrics: applied.metrics().clone(),
            logs: applied.logs().to_vec(),
            warnings: applied.warnings().to_vec(),
        }
    }
}

fn by_code(rejects: &[Reject]) -> BTreeMap<String, u64> {
    let mut codes = BTreeMap::new();
    for reject in rejects {
        match codes.get_mut(&reject.code) {
            Some(count) => *count += 1,
            None => _ = codes.insert(reject.code.clone(), 1),
        }
    }
    codes
}

/// Rows of one output.
#[derive(Debug)]
pub(crate) struct OutputRows {
    pub(crate) output: String,
    pub(crate) rows: RecordBatch,
    pub(crate) coords: Vec<RowCoord>,
}

/// What became of a batch. Every record of it is in `outputs`, in `rejects` or in `dropped`.
#[derive(Debug, Default)]
pub(crate) struct Processed {
    pub(crate) outputs: Vec<OutputRows>,
    pub(crate) rejects: Vec<RejectedRecord>,
    pub(crate) dropped: u64,
    /// Of the transforms of columns.
    pub(crate) reports: Vec<Report>,
    /// By offset and number, where what was emitted comes from; of stages that keep it.
    pub(crate) births: HashMap<(i64, u32), Birth>,
}

impl Stages {
    /// Goes on as `other`; where only transforms are others, what the decoders know of schemas stays.
    pub(crate) fn go_on_as(&mut self, other: Stages, same_columns: bool) {
        let Stages { decoder, changes, sequence, .. } = std::mem::replace(self, other);
        self.sequence = sequence;
        if same_columns {
            (self.decoder, self.changes) = (decoder, changes);
        }
    }

    /// Keeps where what is emitted comes from.
    pub(crate) fn keep_births(&mut self) {
        self.keeps_births = true;
    }

    /// How many transforms are of records.
    pub(crate) fn before_decoding(&self) -> usize {
        self.before.len()
    }

    /// What the changes of this partition are numbered by.
    pub(crate) fn set_sequence(&mut self, sequence: Sequence) {
        self.sequence = sequence;
    }

    /// Runs the transforms of records. CPU only; they may take as long as their limits allow.
    pub(crate) fn transform(&mut self, batch: RawBatch) -> Result<Transformed, Error> {
        let trail = if self.keeps_births { Trail::with_births() } else { Trail::new() };
        records::transform(&mut self.before, batch, trail)
    }

    /// Ids of schemas that decoding needs and does not have yet.
    pub(crate) fn missing_schemas(&self, transformed: &Transformed) -> Vec<Missing> {
        let leaving = transformed.leaving();
        let of_values = self.decoder.missing_schemas(leaving.iter().map(Leaving::value_to_decode));
        let of_values =
            of_values.into_iter().map(|id| Missing { id, of_keys: false, language: self.language });
        let Some(changes) = &self.changes else { return of_values.collect() };
        let of_keys = changes.missing_schemas(leaving.iter().map(Leaving::key_to_decode)).into_iter();
        of_values
            .chain(of_keys.map(|id| Missing { id, of_keys: true, language: changes.key_language() }))
            .collect()
    }

    /// Hands over a schema that was asked for. Records of one that cannot be read as the columns' schema are
    /// undecodable from here on.
    pub(crate) fn add_schema(&mut self, missing: Missing, schema: &str) {
        let id = missing.id;
        let added = match &mut self.changes {
            Some(changes) if missing.of_keys => return changes.add_key_schema(id, schema),
            _ => self.decoder.add_writer_schema(id, schema),
        };
        if let Err(error) = added {
            tracing::warn!(%id, %error, "records of this schema are rejected");
        }
    }

    /// Decodes what the transforms of records left, runs those of columns, and parts the rows by outputs.
    pub(crate) fn decode(&mut self, transformed: Transformed) -> Result<Processed, Error> {
        let batch = &transformed.origin;
        let leaving = transformed.leaving();
        let mut processed = Processed { dropped: transformed.dropped, ..Processed::default() };
        let mut letters = DeadLetters::of(batch);
        let refused = |processed: &mut Processed, letters: &mut DeadLetters<'_>, refused: &[Refused]| {
            for Refused { row, sub, transform, code, message } in refused {
                let letter = letters.letter(*row, *sub, Stage::Transform, code, message);
                processed.rejects.push(RejectedRecord { transform: *transform, ..letter });
            }
        };
        refused(&mut processed, &mut letters, &transformed.refused);
        let decoded = match &mut self.changes {
            None => as_rows(&mut self.decoder, &leaving, &transformed.trail)?,
            Some(changes) => changes.read(&mut self.decoder, &leaving, &transformed.trail, &self.sequence)?,
        };
        for Refused { row, sub, code, message, .. } in &decoded.refused {
            processed.rejects.push(letters.letter(*row, *sub, Stage::Decode, code, message));
        }
        processed.dropped += decoded.dropped;
        let (rows, numbers) = (decoded.rows, decoded.numbers);
        let of: Vec<Leaving<'_>> = match self.destination {
            Destination::Table { .. } if !self.after.is_empty() => rows.of.clone(),
            _ => Vec::new(),
        };
        let before = self.before.len();
        let (mut rows, mut aside) =
            columns::transform(&mut self.after, before, rows, batch.partition(), &numbers)?;
        if !of.is_empty() {
            rows = one_for_one(&of, rows, &mut aside)?;
        }
        processed.dropped += aside.dropped;
        processed.reports = aside.reports;
        let offset = |row: usize| batch.get(row).expect("rows come from this batch").offset();
        processed.births =
            aside.births.into_iter().map(|((row, sub), birth)| ((offset(row), sub), birth)).collect();
        refused(&mut processed, &mut letters, &aside.refused);
        for (number, output) in self.outputs.iter().enumerate() {
            let Some(Rows { mut rows, of: mut kept }) = part(&rows, number)? else { continue };
            if self.kafka_columns {
                rows = with_kafka_columns(&rows, batch.partition(), &kept)?;
            }
            let mut set_aside = |rows: RecordBatch, kept: &mut Vec<Leaving<'_>>, unfit: &[Unfit]| {
                for Unfit { row, code, why } in unfit {
                    let record = &kept[*row];
                    processed.rejects.push(letters.letter(record.row, record.sub, Stage::Write, code, why));
                }
                without(rows, kept, unfit)
            };
            let unfit = self.destination.unfit(&rows);
            rows = set_aside(rows, &mut kept, &unfit)?;
            rows = self.destination.rows(rows, &kept, &self.sequence)?;
            let unfit = self.fits.unfit(&rows)?;
            rows = set_aside(rows, &mut kept, &unfit)?;
            if kept.is_empty() {
                continue;
            }
            let coords = kept
                .iter()
                .map(|r| RowCoord { offset: r.offset, sub: r.sub, timestamp: r.timestamp })
                .collect();
            processed.outputs.push(OutputRows { output: output.clone(), rows, coords });
        }
        processed.rejects.sort_by_key(|r| (r.offset, r.sub));
        Ok(processed)
    }
}

/// Decodes values that are rows.
fn as_rows<'a>(
    decoder: &mut Decoder,
    leaving: &[Leaving<'a>],
    trail: &Trail,
) -> Result<changes::Read<'a>, Error> {
    let decoded = decoded(decoder, leaving, 0..leaving.len())?;
    let refused = decoded.undecodable.into_iter().map(|bad| {
        let Leaving { row, sub, .. } = leaving[bad.row as usize];
        Refused { row, sub, transform: None, code: decode_code(bad.cause), message: bad.reason }
    });
    let of = decoded.rows.iter().map(|i| leaving[*i as usize]).collect();
    let rows = Rows { rows: decoded.batch, of };
    Ok(changes::Read { rows, refused: refused.collect(), dropped: 0, numbers: trail.numbers() })
}

/// By parts where they might be too large together: how large columns become is known only when they are made.
fn decoded(decoder: &mut Decoder, leaving: &[Leaving<'_>], range: Range<usize>) -> Result<Decoded, Error> {
    let values = range.clone().map(|i| (i as u64, leaving[i].value_to_decode()));
    match decoder.decode(values) {
        Err(e) if e.kind() == gristmill_codec::ErrorKind::TooLarge && range.len() > 1 => {
            let middle = range.start + range.len() / 2;
            let mut first = decoded(decoder, leaving, range.start..middle)?;
            let second = decoded(decoder, leaving, middle..range.end)?;
            first.batch =
                concat_batches(&first.batch.schema(), [&first.batch, &second.batch]).map_err(Error::arrow)?;
            first.rows.extend(second.rows);
            first.undecodable.extend(second.undecodable);
            Ok(first)
        }
        other => other.map_err(Error::decode),
    }
}

/// A row that changes another cannot be left out by a transform: the other would stay as it was. And one that is emitted for it would
/// stay when it is gone.
fn one_for_one<'a>(
    of: &[Leaving<'a>],
    rows: Rows<'a>,
    aside: &mut columns::Aside,
) -> Result<Rows<'a>, Error> {
    let place = |r: &Leaving<'_>| (r.row, r.sub);
    let before: HashSet<(usize, u32)> = of.iter().map(place).collect();
    let mut after: HashSet<(usize, u32)> = rows.of.iter().map(place).collect();
    after.extend(aside.refused.iter().map(|refused| (refused.row, refused.sub)));
    for dropped in of.iter().filter(|r| !after.contains(&place(r))) {
        let message = "a transform of columns drops the row, which would stay in the table as it was: with `mode: cdc` drop records \
                       before they are decoded, or query a view";
        let Leaving { row, sub, .. } = *dropped;
        let (code, message) = ("CHANGE_DROPPED".into(), message.into());
        aside.refused.push(Refused { row, sub, transform: None, code, message });
        aside.dropped = aside.dropped.saturating_sub(u64::from(sub == 0));
    }
    let is_own: Vec<bool> = rows.of.iter().map(|r| before.contains(&place(r))).collect();
    if !is_own.contains(&false) {
        return Ok(rows);
    }
    for emitted in rows.of.iter().zip(&is_own).filter(|(_, is_own)| !**is_own).map(|(r, _)| r) {
        let message = "a transform of columns emits the row for another, and nothing would delete it: with `mode: cdc` rows are made \
                       one for one";
        let Leaving { row, sub, .. } = *emitted;
        let (code, message) = ("CHANGE_EMITTED".into(), message.into());
        aside.refused.push(Refused { row, sub, transform: None, code, message });
    }
    let kept = rows.of.iter().zip(&is_own).filter(|(_, is_own)| **is_own).map(|(r, _)| *r).collect();
    let batch = filter_record_batch(&rows.rows, &BooleanArray::from(is_own)).map_err(Error::arrow)?;
    Ok(Rows { rows: batch, of: kept })
}

/// The code of a dead letter that does not decode.
pub(crate) fn decode_code(cause: Cause) -> String {
    format!("DECODE_{}", cause.as_str().to_uppercase())
}

/// The rows that go to an output, if there are any.
fn part<'a>(all: &Rows<'a>, output: usize) -> Result<Option<Rows<'a>>, Error> {
    let of: Vec<Leaving<'a>> = all.of.iter().filter(|r| r.output == output).copied().collect();
    if of.is_empty() {
        return Ok(None);
    }
    let rows = match of.len() == all.of.len() {
        true => all.rows.clone(),
        false => {
            let goes = BooleanArray::from_iter(all.of.iter().map(|r| Some(r.output == output)));
            filter_record_batch(&all.rows, &goes).map_err(Error::arrow)?
        }
    };
    Ok(Some(Rows { rows, of }))
}

/// Takes out the rows that do not fit the sink.
fn without(rows: RecordBatch, kept: &mut Vec<Leaving<'_>>, unfit: &[Unfit]) -> Result<RecordBatch, Error> {
    if unfit.is_empty() {
        return Ok(rows);
    }
    let mut fits = vec![true; kept.len()];
    unfit.iter().for_each(|unfit| fits[unfit.row] = false);
    let mut of_row = fits.iter();
    kept.retain(|_| *of_row.next().expect("one for each row"));
    filter_record_batch(&rows, &BooleanArray::from(fits)).map_err(Error::arrow)
}

/// Dead letters of a batch: each carries the record as it came from Kafka, not what a transform made of it.
struct DeadLetters<'a> {
    batch: &'a RawBatch,
    /// By row: what was emitted for one shares its bytes.
    copied: HashMap<usize, RejectedRecord>,
}

impl<'a> DeadLetters<'a> {
    fn of(batch: &'a RawBatch) -> Self {
        DeadLetters { batch, copied: HashMap::new() }
    }

    fn letter(&mut self, row: usize, sub: u32, stage: Stage, code: &str, message: &str) -> RejectedRecord {
        let copied = self.copied.entry(row).or_insert_with(|| {
            let record = self.batch.get(row).expect("rows come from this batch");
            let copy = Bytes::copy_from_slice;
            RejectedRecord {
                offset: record.offset(),
                sub,
                stage,
                transform: None,
                due_from: None,
                code: String::new(),
                message: String::new(),
                key: record.key().map(copy),
                value: record.value().map(copy),
                headers: record.headers().map(|h| (copy(h.name), h.value.map(copy))).collect(),
                timestamp: record.timestamp(),
            }
        });
        let (code, message) = (code.to_owned(), message.to_owned());
        RejectedRecord { sub, stage, code, message, ..copied.clone() }
    }
}

#[cfg(test)]
mod tests {
    use gristmill_records::{Headers, RawBatchBuilder};

    use super::*;

    /// Of JSON, which is read by the columns alone: what is new may be missing in records before, and what they have stays.
    #[test]
    fn columns_of_a_later_json_schema_read_what_was_before_it() {
        let plan = |properties: &str, required: &str| {
            let schema =
                format!(r#"{{"type": "object", "properties": {properties}, "required": {required}}}"#);
            let columns = gristmill_codec::json_schema_columns(&schema, [], true).unwrap();
            DecoderPlan::JsonSchema { columns, descriptions: Arc::default(), has_registry: true }
        };
        let line = |more: &str| {
            format!(
                r#"{{"type": "array", "items": {{"type": "object", "properties": {{"a": {{"type": "string"}}{more}}}, "required": ["a"]}}}}"#
            )
        };
        let before = plan(&format!(r#"{{"id": {{"type": "integer"}}, "lines": {}}}"#, line("")), r#"["id"]"#);
        let more = line(r#", "b": {"type": "integer"}"#);
        let properties =
            format!(r#"{{"id": {{"type": "integer"}}, "lines": {more}, "x": {{"type": "string"}}}}"#);
        let later = plan(&properties, r#"["id", "x"]"#).after(&before);
        assert_eq!(later.cannot_read(&before, 2).unwrap(), None);
        let columns = later.open().unwrap().schema();
        let nullable: Vec<bool> = columns.fields().iter().map(|field| field.is_nullable()).collect();
        assert_eq!(nullable, [false, true, true]);
        // Once taken, it is the same again.
        assert_eq!(plan(&properties, r#"["id", "x"]"#).after(&later), later);
        for (properties, why) in [
            (r#"{"id": {"type": "string"}}"#, "field id: it was Int64 and is Utf8"),
            (r#"{"id": {}}"#, "field id: it was Int64 and is JSON"),
            (r#"{"lines": {"type": "array", "items": {"type": "string"}}}"#, "field lines[]: it was Struct("),
        ] {
            let other = plan(properties, "[]").after(&before).cannot_read(&before, 2).unwrap().unwrap();
            assert!(other.starts_with(why), "{other}");
        }
        let text = plan(r#"{"t": {"type": "string"}}"#, "[]");
        let json = plan(r#"{"t": {"type": ["string", "integer"]}}"#, "[]");
        assert_eq!(json.cannot_read(&text, 2).unwrap().unwrap(), "field t: it was Utf8 and is JSON");
    }

    /// Whatever a transform makes of rows that change others, each is there or a dead letter.
    #[test]
    fn rows_that_change_others_go_one_for_one() {
        let leaving = |row: usize, sub: u32| Leaving {
            row,
            sub,
            output: 0,
            offset: row as i64,
            timestamp: None,
            key: None,
            value: None,
            headers: Headers::default(),
            op: records::Op::Delete,
        };
        let of = [leaving(0, 0), leaving(1, 0), leaving(1, 1), leaving(2, 0)];
        let ids = arrow_array::Int64Array::from(vec![0, 10, 11, 12]);
        let rows = RecordBatch::try_from_iter([("id", Arc::new(ids) as arrow_array::ArrayRef)]).unwrap();
        // Row 0 is kept and emits, row 1 is dropped and what was emitted for it before is kept, row 2 is refused.
        let after = vec![leaving(0, 0), leaving(0, 1), leaving(1, 1), leaving(0, 2)];
        let refused = Refused { row: 2, sub: 0, transform: None, code: "NO".into(), message: String::new() };
        let mut aside = columns::Aside { refused: vec![refused], dropped: 1, ..Default::default() };
        let rows = one_for_one(&of, Rows { rows, of: after }, &mut aside).unwrap();
        let places: Vec<(usize, u32)> = rows.of.iter().map(|r| (r.row, r.sub)).collect();
        assert_eq!(places, [(0, 0), (1, 1)]);
        assert_eq!(rows.rows.num_rows(), 2);
        let refused: Vec<_> = aside.refused.iter().map(|r| (r.row, r.sub, r.code.as_str())).collect();
        let expected =
            [(2, 0, "NO"), (1, 0, "CHANGE_DROPPED"), (0, 1, "CHANGE_EMITTED"), (0, 2, "CHANGE_EMITTED")];
        assert_eq!((refused, aside.dropped), (expected.to_vec(), 0));
    }

    #[test]
    fn dead_letters_of_one_record_share_its_bytes() {
        let mut builder = RawBatchBuilder::new("orders", 0);
        builder.push(7, 1, Some(b"key"), Some(b"value"), []).unwrap();
        let batch = builder.build();
        let mut letters = DeadLetters::of(&batch);
        let own = letters.letter(0, 0, Stage::Transform, "A", "a");
        let emitted = letters.letter(0, 5, Stage::Decode, "B", "b");
        assert_eq!((own.offset, own.sub, own.stage, own.code.as_str()), (7, 0, Stage::Transform, "A"));
        let expected = (7, 5, Stage::Decode, "B", "b");
        let RejectedRecord { offset, sub, stage, code, message, .. } = &emitted;
        assert_eq!((*offset, *sub, *stage, code.as_str(), message.as_str()), expected);
        assert_eq!(own.value.as_deref(), Some(&b"value"[..]));
        assert_eq!(own.value.unwrap().as_ptr(), emitted.value.unwrap().as_ptr());
    }
}
