//! Records of a pipeline's topics, and what they decode to, to look at: nothing is written, committed or joined.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use gristmill::{PartitionRange, RangeReader, SchemaRegistry, Topics};
use gristmill_codec::Decoder;
use gristmill_records::RawBatch;
use jiff::Timestamp;

use crate::check::Checked;
use crate::error::Error;
use crate::prepare;
use crate::quantity::TimeSpan;
use crate::replay::Place;
use crate::stages::{kafka_schema, with_kafka_columns_of};
use crate::{ErrorKind, When};

/// Which records of a pipeline's topics are looked at.
#[derive(Clone, Debug)]
pub enum PeekRange {
    /// So many newest offsets, spread evenly over the partitions; those that hold no record (aborted, compacted) count.
    Newest(u64),
    /// Those of this time and later.
    Since(When),
}

impl PeekRange {
    /// Those of the last `span`, such as `1h`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn last(span: &str) -> Result<Self, String> {
        span.parse::<TimeSpan>()?;
        span.parse().map(PeekRange::Since)
    }
}

/// Reads the records that there are now, in no order between partitions.
#[derive(Debug)]
pub struct Peek {
    reader: Option<RangeReader>,
    left: u64,
    decoder: Decoder,
    /// Of the decoded columns and Kafka's.
    schema: SchemaRef,
    registry: Option<SchemaRegistry>,
}

/// Decoded rows of a batch.
#[derive(Debug)]
pub struct PeekRows {
    /// The columns, and those that say where a row comes from.
    pub rows: RecordBatch,
    /// For each row, its record in the batch.
    pub records: Vec<usize>,
    /// Records that do not decode: which, the code of the dead letter, and why.
    pub undecodable: Vec<(usize, String, String)>,
}

impl Peek {
    /// Looks up the range, with the source, decoding and registry of a pipeline file; its transforms and sink are not
    /// looked at.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], [`ErrorKind::Source`], [`ErrorKind::SchemaRegistry`].
    pub async fn open(checked: &Checked, range: &PeekRange) -> Result<Peek, Error> {
        let (plan, registry) = prepare::decoding(checked).await?;
        let decoder = plan.open()?;
        let schema = kafka_schema(&decoder.schema());
        let config = prepare::consumer(checked, false)?;
        let topics = Topics::connect(&config).map_err(Error::source)?;
        let mut ranges = Vec::new();
        for topic in &checked.pipeline.source.kafka.topics {
            let extents = topics.extents(topic).await.map_err(Error::source)?;
            let firsts: Vec<i64> = match range {
                PeekRange::Newest(most) => {
                    let each = most.div_ceil(extents.len().max(1) as u64);
                    let each = i64::try_from(each).unwrap_or(i64::MAX);
                    extents.iter().map(|extent| extent.end.saturating_sub(each)).collect()
                }
                PeekRange::Since(when) => match when.at(Timestamp::now()) {
                    Place::Offset(offset) => vec![offset; extents.len()],
                    Place::Time(time) => {
                        let count = i32::try_from(extents.len()).unwrap_or(i32::MAX);
                        let found = topics.offsets_at(topic, count, time).await.map_err(Error::source)?;
                        let places = found.into_iter().zip(&extents);
                        places.map(|(offset, extent)| offset.unwrap_or(extent.end)).collect()
                    }
                },
            };
            let topic: Arc<str> = topic.as_str().into();
            ranges.extend(extents.iter().zip(firsts).enumerate().map(|(partition, (extent, first))| {
                PartitionRange {
                    topic: topic.clone(),
                    partition: partition as i32,
                    first: first.max(extent.earliest),
                    end: extent.end,
                }
            }));
        }
        let reader =
            tokio::task::block_in_place(|| RangeReader::open(&config, ranges)).map_err(Error::source)?;
        let left = match range {
            PeekRange::Newest(most) => *most,
            PeekRange::Since(_) => u64::MAX,
        };
        Ok(Peek { reader: Some(reader), left, decoder, schema, registry })
    }

    /// The columns of [`decode`](Self::decode)'s rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next records, of one partition; `None` at the end.
    ///
    /// # Errors
    /// [`ErrorKind::Source`].
    pub fn next_batch(&mut self) -> Result<Option<RawBatch>, Error> {
        let Some(reader) = self.reader.as_mut().filter(|_| self.left > 0) else { return Ok(None) };
        let batch = tokio::task::block_in_place(|| reader.next_batch()).map_err(Error::source)?;
        self.left = self.left.saturating_sub(batch.as_ref().map_or(0, |batch| batch.len() as u64));
        Ok(batch)
    }

    /// Decodes the values of a batch.
    ///
    /// # Errors
    /// [`ErrorKind::SchemaRegistry`], [`ErrorKind::Decode`].
    pub async fn decode(&mut self, batch: &RawBatch) -> Result<PeekRows, Error> {
        for id in self.decoder.missing_schemas(batch.iter().map(|record| record.value())) {
            let registry = self.registry.as_ref();
            let registry =
                registry.ok_or_else(|| Error::new(ErrorKind::Config, "Avro needs `schema_registry`"))?;
            // Without it the records that name it do not decode, each with the reason.
            if let Some(schema) = prepare::writer_schema(registry, id).await?
                && let Err(error) = self.decoder.add_writer_schema(id, &schema)
            {
                tracing::warn!(id, %error, "records of this schema do not decode");
            }
        }
        let values = batch.iter().map(|record| (record.row() as u64, record.value()));
        let decoded = self.decoder.decode(values).map_err(Error::decode)?;
        let records: Vec<usize> = decoded.rows.iter().map(|row| *row as usize).collect();
        let rows = with_kafka_columns_of(&decoded.batch, batch, &records)?;
        let undecodable = decoded
            .undecodable
            .iter()
            .map(|bad| (bad.row as usize, crate::stages::decode_code(bad.cause), bad.reason.to_string()));
        Ok(PeekRows { rows, records, undecodable: undecodable.collect() })
    }
}
