//! Where the rows of a file came from, by its own columns. What is read here may have been written by anybody.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use arrow_cast::cast;
use arrow_schema::DataType;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;

/// The columns that say where a row came from.
const COLUMNS: [&str; 3] = ["_kafka_partition", "_kafka_offset", "_kafka_sub"];

/// Where a row came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) sub: i32,
}

/// What was read of a file.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// Rows of the whole file.
    pub(crate) rows: u64,
    /// The places of the rows that were asked for; `None` if the file has no such columns.
    pub(crate) places: Option<Vec<Place>>,
    /// The topic id that a Parquet file names.
    pub(crate) topic_id: Option<String>,
}

/// Whether a name is one that readers of tables look at, and this module can read.
pub(crate) fn is_data(name: &str) -> bool {
    name.ends_with(".parquet") || name.ends_with(".jsonl")
}

/// Reads the places of `take` rows after the first `skip`. On a thread that may block: whatever a broken file
/// makes the reader do, a panic too, is an error of that file.
pub(crate) async fn read(name: &str, bytes: Bytes, skip: usize, take: usize) -> Result<Content, String> {
    let is_parquet = name.ends_with(".parquet");
    let reading = tokio::task::spawn_blocking(move || match is_parquet {
        true => parquet(bytes, skip, take),
        false => json_lines(&bytes, skip, take),
    });
    match reading.await {
        Ok(read) => read,
        Err(_) => Err("the file breaks its reader".to_owned()),
    }
}

fn parquet(bytes: Bytes, skip: usize, take: usize) -> Result<Content, String> {
    let not = |e: &dyn std::fmt::Display| format!("it is not Parquet that can be read: {e}");
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| not(&e))?;
    let file = builder.metadata().file_metadata();
    let said = file.key_value_metadata().into_iter().flatten();
    let topic_id = said.filter(|kv| kv.key == "gristmill.topic_id").find_map(|kv| kv.value.clone());
    let rows = u64::try_from(file.num_rows()).map_err(|e| not(&e))?;
    let fields = builder.schema().fields();
    let Some(roots) =
        COLUMNS.iter().map(|name| fields.find(name).map(|(index, _)| index)).collect::<Option<Vec<_>>>()
    else {
        return Ok(Content { rows, places: None, topic_id });
    };
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let reader = builder.with_projection(mask).with_offset(skip).with_limit(take).build();
    let mut places = Vec::new();
    for batch in reader.map_err(|e| not(&e))? {
        places_of(&batch.map_err(|e| not(&e))?, &mut places)?;
    }
    Ok(Content { rows, places: Some(places), topic_id })
}

fn places_of(batch: &RecordBatch, places: &mut Vec<Place>) -> Result<(), String> {
    let column = |name: &str, data_type: &DataType| {
        let column = batch.column_by_name(name).ok_or("a column is missing")?;
        // What does not fit becomes null.
        let numbers = cast(column, data_type).map_err(|e| format!("`{name}` is no number: {e}"))?;
        match numbers.null_count() {
            0 => Ok(numbers),
            _ => Err(format!("`{name}` is null, or no number of its kind, in some rows")),
        }
    };
    let [partitions, offsets, subs] = [
        column(COLUMNS[0], &DataType::Int32)?,
        column(COLUMNS[1], &DataType::Int64)?,
        column(COLUMNS[2], &DataType::Int32)?,
    ];
    let (partitions, subs) = (partitions.as_primitive::<Int32Type>(), subs.as_primitive::<Int32Type>());
    let offsets = offsets.as_primitive::<Int64Type>();
    places.extend((0..batch.num_rows()).map(|i| Place {
        partition: partitions.value(i),
        offset: offsets.value(i),
        sub: subs.value(i),
    }));
    Ok(())
}

fn json_lines(bytes: &[u8], skip: usize, take: usize) -> Result<Content, String> {
    #[derive(Deserialize)]
    struct Row {
        _kafka_partition: Option<i32>,
        _kafka_offset: Option<i64>,
        _kafka_sub: Option<i32>,
    }
    let (mut rows, mut places) = (0, Some(Vec::new()));
    for line in bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        let row: Row =
            serde_json::from_slice(line).map_err(|_| format!("row {rows} is not a JSON object"))?;
        match (row._kafka_partition, row._kafka_offset, row._kafka_sub) {
            (Some(partition), Some(offset), Some(sub)) => {
                if let Some(places) = &mut places
                    && rows >= skip as u64
                    && places.len() < take
                {
                    places.push(Place { partition, offset, sub });
                }
            }
            _ => places = None,
        }
        rows += 1;
    }
    Ok(Content { rows, places, topic_id: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_strangers_wrote_is_an_error_and_no_panic() {
        let footer = [&[0xff; 40][..], &[0x20, 0, 0, 0], b"PAR1"].concat();
        for bytes in [&b""[..], b"PAR1", b"PAR1PAR1", &footer] {
            assert!(read("a.parquet", Bytes::copy_from_slice(bytes), 0, 9).await.is_err(), "{bytes:?}");
        }
        for bytes in [&b"{"[..], b"[1]", b"{}\nnonsense", b"\xff"] {
            assert!(read("a.jsonl", Bytes::copy_from_slice(bytes), 0, 9).await.is_err(), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn lines_are_read_piece_by_piece_and_those_without_a_place_are_counted() {
        let line = |i: i64| {
            format!("{{\"_kafka_partition\":1,\"_kafka_offset\":{i},\"_kafka_sub\":0,\"x\":{{}}}}\n")
        };
        let text: String = (0..5).map(line).collect();
        let content = read("a.jsonl", text.clone().into(), 2, 2).await.unwrap();
        assert_eq!(content.rows, 5);
        assert_eq!(content.places.unwrap().iter().map(|p| p.offset).collect::<Vec<_>>(), [2, 3]);
        let content = read("a.jsonl", (text + "{\"x\":1}\n").into(), 0, 9).await.unwrap();
        assert_eq!((content.rows, content.places), (6, None));
    }
}
