//! The yardstick of the Avro path: arrow-avro and parquet, and nothing between them.

use std::fs::File;
use std::path::Path;

use arrow_avro::reader::ReaderBuilder;
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use gristmill_tests::thread_cpu;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

/// Rows of a batch: as many as a delivery of the consumer has.
const ROWS: usize = 1000;

/// Values back to back.
#[derive(Default)]
pub(crate) struct Values {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Values {
    pub(crate) fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Mean bytes of a value.
    pub(crate) fn mean(&self) -> usize {
        self.bytes.len() / self.len().max(1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}

/// Microseconds of this thread's CPU time a record: decode, encode with the sink's settings, write to a file.
pub(crate) fn avro_to_parquet(values: &Values, schema: &str, schema_id: u32, file: &Path) -> f64 {
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(schema_id), AvroSchema::new(schema.to_owned())).expect("the store is new");
    let mut decoder = ReaderBuilder::new()
        .with_batch_size(ROWS)
        .with_writer_schema_store(store)
        .build_decoder()
        .expect("the schema is right");
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("a level")))
        .set_max_row_group_bytes(Some(32 << 20))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_coerce_types(true)
        .build();
    let start = thread_cpu();
    let file = File::create(file).expect("the folder is ours");
    let mut writer =
        ArrowWriter::try_new(file, decoder.schema(), Some(properties)).expect("types that Parquet has");
    let mut rows = 0;
    for value in values.iter() {
        decoder.decode(value).expect("values of the schema");
        rows += 1;
        if rows == ROWS {
            let batch = decoder.flush().expect("values of the schema").expect("rows");
            writer.write(&batch).expect("the file takes it");
            rows = 0;
        }
    }
    if let Some(batch) = decoder.flush().expect("values of the schema") {
        writer.write(&batch).expect("the file takes it");
    }
    let metadata = writer.close().expect("the file takes it");
    let spent = thread_cpu() - start;
    assert_eq!(metadata.file_metadata().num_rows() as usize, values.len());
    spent * 1e6 / values.len() as f64
}
