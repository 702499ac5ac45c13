//! Records that say how rows change: Debezium's envelopes, or a row for a key and null for none. They become flat rows right after
//! they are decoded, so that transforms of columns know nothing of envelopes; whether a row is gone goes with it ([`Op`]).

mod debezium;
mod key;
mod leave;
#[cfg(test)]
mod property;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_ord::ord::make_comparator;
use arrow_schema::{Field, Fields, Schema, SchemaRef, SortOptions};
use arrow_select::interleave::interleave;
use gristmill::SchemaType;
use gristmill_codec::{Decoded, Decoder, SchemaId, Value};

use super::columns::Rows;
use super::decode_code;
use super::records::{Leaving, Op, Place, Refused, Step, Trail};
use crate::error::Error;
pub(crate) use debezium::{avro_envelope, json_envelope, of_envelope};
pub(crate) use key::KeyPlan;
use key::Keys;
pub(crate) use leave::{Destination, OP_COLUMN, PartitionEpoch, Sequence};

/// What values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Debezium,
    /// A row in the place of the one with its key, if there is one; null: none.
    Upsert,
}

/// How records become changes of rows.
#[derive(Clone, Debug)]
pub(crate) struct ChangePlan {
    pub(crate) kind: Kind,
    /// How keys become columns.
    pub(crate) key: Option<KeyPlan>,
    /// What rows are told apart by, if they go where that matters.
    pub(crate) primary_key: Vec<String>,
}

impl ChangePlan {
    /// Of one partition, over what its decoder makes of values.
    ///
    /// # Errors
    /// `Config`: values are no envelopes, or keys and values have a column of one name and two types.
    /// What is said of rows' columns, of what is said of those of values.
    pub(crate) fn descriptions(&self, mut values: BTreeMap<String, String>) -> BTreeMap<String, String> {
        match self.kind {
            Kind::Upsert => values,
            Kind::Debezium => values.split_off("after.").into_iter().map_while(debezium::described).collect(),
        }
    }

    pub(crate) fn open(&self, values: &SchemaRef) -> Result<Changes, Error> {
        let of_values = match self.kind {
            Kind::Debezium => debezium::row_fields(values)?,
            Kind::Upsert => values.fields().clone(),
        };
        let keys = self.key.as_ref().map(KeyPlan::open).transpose()?;
        let key_schema = keys.as_ref().map(Keys::schema);
        let key_fields = key_schema.iter().flat_map(|schema| schema.fields().iter().enumerate());
        let (mut fields, mut sources) = (Vec::new(), Vec::new());
        for (at, field) in key_fields {
            match of_values.find(field.name()) {
                None => {
                    fields.push(field.as_ref().clone().with_nullable(true));
                    sources.push(Source { value: None, key: Some(at) });
                }
                Some((_, of_value)) if of_value.data_type() != field.data_type() => {
                    return Err(Error::config(format!(
                        "column `{}` is {} in keys and {} in values: give `decode.key` the type of the values",
                        field.name(),
                        field.data_type(),
                        of_value.data_type()
                    )));
                }
                Some(_) => {}
            }
        }
        for (at, field) in of_values.iter().enumerate() {
            let key = key_schema.as_ref().and_then(|schema| schema.index_of(field.name()).ok());
            fields.push(field.as_ref().clone().with_nullable(true));
            sources.push(Source { value: Some(at), key });
        }
        let (identity, tells_keys) = self.identity(&of_values, key_schema.as_deref());
        let (schema, in_place) = (Arc::new(Schema::new(fields)), !self.primary_key.is_empty());
        Ok(Changes { kind: self.kind, keys, sources, schema, identity, tells_keys, in_place })
    }

    /// The columns of values that tell whether a row has got another key, and whether they do.
    fn identity(&self, values: &Fields, keys: Option<&Schema>) -> (Vec<String>, bool) {
        let of_value = |name: &String| {
            let field = values.iter().find(|field| field.name().eq_ignore_ascii_case(name));
            field.map(|field| field.name().clone())
        };
        let of_keys: Vec<String> =
            keys.iter().flat_map(|keys| keys.fields()).filter_map(|field| of_value(field.name())).collect();
        let own: Vec<String> = self.primary_key.iter().filter_map(of_value).collect();
        let is_told = own.len() == self.primary_key.len() || !of_keys.is_empty();
        (own.into_iter().chain(of_keys).collect(), is_told || self.kind == Kind::Upsert)
    }
}

/// Where the values of a column come from.
#[derive(Clone, Copy, Debug)]
struct Source {
    value: Option<usize>,
    key: Option<usize>,
}

/// Makes changes of the records of one partition.
#[derive(Debug)]
pub(crate) struct Changes {
    kind: Kind,
    keys: Option<Keys>,
    sources: Vec<Source>,
    schema: SchemaRef,
    /// The columns of values that tell whether a row has got another key.
    identity: Vec<String>,
    tells_keys: bool,
    /// Rows are changed where they are.
    in_place: bool,
}

/// Where a row comes from.
struct Pick {
    /// Which record, of those that leave the transforms.
    leaving: usize,
    /// 0 for what the record is about, 1 for what else it changes.
    sub: u32,
    op: Op,
    /// Which of the forms of the decoded values, and which row of it.
    value: Option<(usize, usize)>,
}

/// What became of records.
pub(super) struct Read<'a> {
    pub(super) rows: Rows<'a>,
    /// Of the stage of decoding.
    pub(super) refused: Vec<Refused>,
    pub(super) dropped: u64,
    /// The numbers of what was emitted.
    pub(super) numbers: Trail,
}

impl Changes {
    /// The columns of the rows. Any may be null: of a row that is gone its key alone may be known.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether a row that gets another key is noticed: its key may be what a transform makes.
    pub(crate) fn tells_keys(&self) -> bool {
        self.tells_keys
    }

    /// Of the schemas that keys name.
    pub(super) fn key_language(&self) -> &'static SchemaType {
        self.keys.as_ref().map_or(&SchemaType::Json, Keys::language)
    }

    /// Ids of schemas that keys name and that are not there yet.
    pub(super) fn missing_schemas<'a>(&self, keys: impl Iterator<Item = Option<Value<'a>>>) -> Vec<SchemaId> {
        self.keys.as_ref().map(|of| of.missing_schemas(keys)).unwrap_or_default()
    }

    pub(super) fn add_key_schema(&mut self, id: SchemaId, schema: &str) {
        if let Some(Err(error)) = self.keys.as_mut().map(|keys| keys.add_writer_schema(id, schema)) {
            tracing::warn!(%id, %error, "records with keys of this schema are rejected");
        }
    }

    pub(super) fn read<'a>(
        &mut self,
        decoder: &mut Decoder,
        leaving: &[Leaving<'a>],
        trail: &Trail,
        sequence: &Sequence,
    ) -> Result<Read<'a>, Error> {
        let mut refused: Vec<(usize, String, String)> = Vec::new();
        let values = leaving.iter().enumerate().filter(|(_, record)| record.value.is_some());
        let values = decoder.decode(values.map(|(i, record)| (i as u64, record.value_to_decode())));
        let values = values.map_err(Error::decode)?;
        for bad in &values.undecodable {
            refused.push((bad.row as usize, decode_code(bad.cause), bad.reason.clone()));
        }
        let keys = self.keys.as_mut().map(|keys| keys.decode(leaving)).transpose()?;
        let mut key_rows: Vec<Option<usize>> = vec![None; leaving.len()];
        let (key_batch, bad_keys) = keys.map_or((None, Vec::new()), |(batch, rows, bad)| {
            rows.iter().enumerate().for_each(|(row, of)| key_rows[*of as usize] = Some(row));
            (Some(batch), bad)
        });
        let mut picks = match self.kind {
            Kind::Upsert => upserts(&values, self.in_place, &mut refused),
            Kind::Debezium => {
                let is_alone = |record: usize| sequence.partitions(leaving[record].offset) == 1;
                debezium::picks(&values, &self.identity, self.in_place, is_alone, &mut refused)?
            }
        };
        let mut dropped = 0;
        for (i, record) in leaving.iter().enumerate().filter(|(_, record)| record.value.is_none()) {
            // In a history a deletion stands already.
            let says_more = self.in_place || self.kind == Kind::Upsert;
            if self.keys.is_some() && says_more {
                picks.push(Pick::of(i as u64, Op::Delete, None));
            } else if record.sub == 0 {
                // Debezium's follow a deletion that has said it all.
                dropped += 1;
            }
        }
        // A key matters where the value does not say it.
        let needs_key =
            |pick: &Pick| pick.value.is_none() || self.sources.iter().any(|source| source.value.is_none());
        let mut is_refused: Vec<bool> = vec![false; leaving.len()];
        let mut is_needed: Vec<bool> = vec![false; leaving.len()];
        picks.iter().filter(|pick| needs_key(pick)).for_each(|pick| is_needed[pick.leaving] = true);
        refused.extend(bad_keys.into_iter().filter(|(of, ..)| is_needed[*of]));
        for pick in picks.iter().filter(|pick| pick.value.is_none() && self.keys.is_none()) {
            let text = "a deletion does not say of which row: its `before` is null; give `decode.key` to have it from the record's key";
            refused.push((pick.leaving, "NO_KEY".to_owned(), text.to_owned()));
        }
        let forms = match self.kind {
            Kind::Upsert => vec![values.batch.columns().to_vec()],
            Kind::Debezium => debezium::forms(&values.batch)?,
        };
        if self.in_place {
            refused.extend(self.mismatches(&picks, &forms, key_batch.as_ref(), &key_rows)?);
        }
        refused.iter().for_each(|(of, ..)| is_refused[*of] = true);
        refused.sort_by_key(|(of, ..)| *of);
        refused.dedup_by_key(|(of, ..)| *of);
        picks.retain(|pick| !is_refused[pick.leaving]);
        picks.sort_by_key(|pick| (pick.leaving, std::cmp::Reverse(pick.sub)));

        let rows = self.rows(&picks, &forms, key_batch.as_ref(), &key_rows)?;
        let place = |r: &Leaving<'_>| Place { row: r.row, sub: r.sub, output: r.output };
        let mut numbers = trail.numbers().then(leaving.iter().map(place).collect());
        let of = picks.iter().map(|pick| {
            let Place { row, sub, output } =
                numbers.follow(pick.leaving, pick.sub, 0, Step { transform: u32::MAX, outputs: &[] });
            Leaving { row, sub, output, op: pick.op, ..leaving[pick.leaving] }
        });
        let of = of.collect();
        let refused = refused.into_iter().map(|(of, code, message)| {
            let Leaving { row, sub, .. } = leaving[of];
            Refused { row, sub, transform: None, code, message }
        });
        Ok(Read { rows: Rows { rows, of }, refused: refused.collect(), dropped, numbers: numbers.numbers() })
    }

    /// Records whose key and value are of different rows.
    fn mismatches(
        &self,
        picks: &[Pick],
        forms: &[Vec<ArrayRef>],
        keys: Option<&RecordBatch>,
        key_rows: &[Option<usize>],
    ) -> Result<Vec<(usize, String, String)>, Error> {
        let Some(keys) = keys else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        // Those that have got another key are of two.
        let moved: Vec<usize> = picks.iter().filter(|pick| pick.sub > 0).map(|pick| pick.leaving).collect();
        for source in &self.sources {
            let (Some(value), Some(key)) = (source.value, source.key) else { continue };
            let key = keys.column(key);
            let compare = forms.iter().map(|columns| {
                let compare = make_comparator(&columns[value], key, SortOptions::default());
                compare.map(|compare| (compare, &columns[value]))
            });
            let compare = compare.collect::<Result<Vec<_>, _>>().map_err(Error::arrow)?;
            for pick in picks.iter().filter(|pick| pick.op != Op::Delete) {
                let (Some((form, row)), Some(key_row)) = (pick.value, key_rows[pick.leaving]) else {
                    continue;
                };
                let (compare, value) = &compare[form];
                let is_other = value.is_valid(row) && key.is_valid(key_row) && compare(row, key_row).is_ne();
                if is_other && moved.binary_search(&pick.leaving).is_err() {
                    let name = keys.schema_ref().field(source.key.unwrap_or_default()).name();
                    let why = format!("column `{name}` is one in the record's key and another in its value");
                    found.push((pick.leaving, "KEY_MISMATCH".to_owned(), why));
                }
            }
        }
        Ok(found)
    }

    fn rows(
        &self,
        picks: &[Pick],
        forms: &[Vec<ArrayRef>],
        keys: Option<&RecordBatch>,
        key_rows: &[Option<usize>],
    ) -> Result<RecordBatch, Error> {
        let columns = self
            .sources
            .iter()
            .zip(self.schema.fields())
            .map(|(source, field)| self.column(*source, field, picks, forms, keys, key_rows));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(picks.len()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(Error::arrow)
    }

    fn column(
        &self,
        source: Source,
        field: &Field,
        picks: &[Pick],
        forms: &[Vec<ArrayRef>],
        keys: Option<&RecordBatch>,
        key_rows: &[Option<usize>],
    ) -> Result<ArrayRef, Error> {
        let null = new_null_array(field.data_type(), 1);
        let key = source.key.and_then(|at| Some(keys?.column(at).clone()));
        let mut arrays: Vec<&dyn Array> = vec![&null];
        arrays.extend(key.iter().map(|key| key.as_ref()));
        let first_form = arrays.len();
        if let Some(at) = source.value {
            arrays.extend(forms.iter().map(|columns| columns[at].as_ref()));
        }
        let at = picks.iter().map(|pick| {
            let of_value = pick.value.zip(source.value).and_then(|((form, row), at)| {
                forms[form][at].is_valid(row).then_some((first_form + form, row))
            });
            let of_key = key.as_ref().and(key_rows[pick.leaving]).map(|row| (1, row));
            // Of a row that is gone a database may tell less than the record's key does.
            let found = match pick.op == Op::Delete && pick.sub == 0 {
                true => of_key.or(of_value),
                false => of_value.or(of_key),
            };
            found.unwrap_or((0, 0))
        });
        interleave(&arrays, &at.collect::<Vec<_>>()).map_err(Error::arrow)
    }
}

/// Each value is a row.
fn upserts(values: &Decoded, in_place: bool, refused: &mut Vec<(usize, String, String)>) -> Vec<Pick> {
    let lacking = match in_place {
        true => debezium::unavailable(values.batch.schema_ref().fields(), values.batch.columns()),
        false => Vec::new(),
    };
    let mut picks = Vec::with_capacity(values.rows.len());
    for (row, of) in values.rows.iter().enumerate() {
        match lacking.get(row).copied().flatten() {
            Some(column) => {
                refused.push((*of as usize, UNAVAILABLE.to_owned(), debezium::why_unavailable(column)))
            }
            None => picks.push(Pick::of(*of, Op::Update, Some((0, row)))),
        }
    }
    picks
}

/// The code of a row of which the database did not tell all.
const UNAVAILABLE: &str = "VALUE_UNAVAILABLE";

impl Pick {
    fn of(leaving: u64, op: Op, value: Option<(usize, usize)>) -> Self {
        Pick { leaving: leaving as usize, sub: 0, op, value }
    }
}
