//! Records of a pipeline's topics, and what they decode to, to look at: nothing is written, committed or joined.

use arrow_schema::SchemaRef;
use gristmill::{PartitionRange, RangeReader, Topics};
use gristmill_records::RawBatch;

use crate::When;
use crate::check::Checked;
use crate::error::Error;
use crate::prepare;
use crate::quantity::TimeSpan;
use crate::value_decoder::{DecodedRecords, ValueDecoder};

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
    values: ValueDecoder,
}

impl Peek {
    /// Looks up the range, with the source, decoding and registry of a pipeline file; its transforms and sink are not
    /// looked at.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), [`ErrorKind::Source`](crate::ErrorKind::Source), [`ErrorKind::SchemaRegistry`](crate::ErrorKind::SchemaRegistry).
    pub async fn open(checked: &Checked, range: &PeekRange) -> Result<Peek, Error> {
        let (plan, registry) = prepare::decoding(checked).await?;
        let values = ValueDecoder::new(&plan, registry)?;
        let config = prepare::consumer(checked, false)?;
        let topics = Topics::connect(&config).map_err(Error::source)?;
        let mut ranges = Vec::new();
        for topic in &checked.pipeline.source.kafka.topics {
            let newest = async |most: u64| -> gristmill::Result<Vec<PartitionRange>> {
                let mut ranges = topics.ranges(topic, None, None).await?;
                let each = most.div_ceil(ranges.len().max(1) as u64);
                let each = i64::try_from(each).unwrap_or(i64::MAX);
                ranges
                    .iter_mut()
                    .for_each(|range| range.first = range.first.max(range.end.saturating_sub(each)));
                Ok(ranges)
            };
            let found = match range {
                PeekRange::Newest(most) => newest(*most).await,
                PeekRange::Since(when) => topics.ranges(topic, Some(when.now()), None).await,
            };
            ranges.extend(found.map_err(Error::source)?);
        }
        let reader =
            tokio::task::block_in_place(|| RangeReader::open(&config, ranges)).map_err(Error::source)?;
        let left = match range {
            PeekRange::Newest(most) => *most,
            PeekRange::Since(_) => u64::MAX,
        };
        Ok(Peek { reader: Some(reader), left, values })
    }

    /// The columns of [`decode`](Self::decode)'s rows.
    pub fn schema(&self) -> &SchemaRef {
        self.values.schema()
    }

    /// The next records, of one partition; `None` at the end.
    ///
    /// # Errors
    /// [`ErrorKind::Source`](crate::ErrorKind::Source).
    pub fn next_batch(&mut self) -> Result<Option<RawBatch>, Error> {
        let Some(reader) = self.reader.as_mut().filter(|_| self.left > 0) else { return Ok(None) };
        let batch = tokio::task::block_in_place(|| reader.next_batch()).map_err(Error::source)?;
        self.left = self.left.saturating_sub(batch.as_ref().map_or(0, |batch| batch.len() as u64));
        Ok(batch)
    }

    /// Decodes the values of a batch.
    ///
    /// # Errors
    /// [`ErrorKind::SchemaRegistry`](crate::ErrorKind::SchemaRegistry), [`ErrorKind::Decode`](crate::ErrorKind::Decode).
    pub async fn decode(&mut self, batch: &RawBatch) -> Result<DecodedRecords, Error> {
        self.values.decode(batch).await
    }
}
