//! What the demo shows at its end, and the sums that decide its exit code.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use gristmill_pipeline::{Commands, Metrics, RejectLabels};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::orders::Tally;
use crate::exit::Exit;

/// What lies in the files, read back from them.
#[derive(Debug, Default)]
struct Found {
    files: u64,
    bytes: u64,
    main: u64,
    high_value: u64,
    amount_cents: i64,
    dead_letters: u64,
    unmasked: u64,
    sample: Option<RecordBatch>,
}

pub(super) fn show(folder: &Path, tally: &Tally, metrics: &Metrics, elapsed: Duration) -> Result<(), Exit> {
    let found = read_back(folder)?;
    let reject = |code: &str| {
        metrics
            .records_rejected
            .get_or_create(&RejectLabels { stage: "transform", code: code.to_owned() })
            .get()
    };
    let records = metrics.records_in.get();
    let hop = metrics.transforms_seconds.get() * 1e9 / records.max(1) as f64;
    println!();
    println!("  records in               {records:>12}");
    println!("  rows written             {:>12}", found.main + found.high_value);
    println!("    main                   {:>12}", found.main);
    println!("    high_value             {:>12}", found.high_value);
    println!("  dropped (test orders)    {:>12}", metrics.records_dropped.get());
    println!("  rejected                 {:>12}", found.dead_letters);
    println!("    MALFORMED_JSON         {:>12}", reject("MALFORMED_JSON"));
    println!("    MISSING_FIELD          {:>12}", reject("MISSING_FIELD"));
    println!("    NEGATIVE_AMOUNT        {:>12}", reject("NEGATIVE_AMOUNT"));
    println!("  files                    {:>12}", found.files);
    println!("  bytes                    {:>12}", found.bytes);
    println!("  records a second         {:>12.0}", records as f64 / elapsed.as_secs_f64());
    println!("  transform, ns a record   {hop:>12.0}");
    if cfg!(debug_assertions) {
        println!(
            "  (a build without optimisation: the last two figures are better with `cargo build --release`)"
        );
    }
    if let Some(sample) = &found.sample {
        let table = arrow_cast::pretty::pretty_format_batches(&[sample.slice(0, sample.num_rows().min(3))])
            .map_err(Exit::failed)?;
        println!("\n{table}");
    }
    let checks = [
        ("records in", tally.made, records),
        ("rows in main", tally.main, found.main),
        ("rows in high_value", tally.high_value, found.high_value),
        ("dropped", tally.test, metrics.records_dropped.get()),
        ("dead letters", tally.rejected(), found.dead_letters),
        ("rejected as MALFORMED_JSON", tally.malformed, reject("MALFORMED_JSON")),
        ("rejected as MISSING_FIELD", tally.missing, reject("MISSING_FIELD")),
        ("rejected as NEGATIVE_AMOUNT", tally.negative, reject("NEGATIVE_AMOUNT")),
        ("rows with an unmasked card", 0, found.unmasked),
    ];
    let mut wrong: Vec<String> = checks
        .iter()
        .filter(|(_, made, found)| made != found)
        .map(|(what, made, found)| format!("{what}: expected {made}, found {found}"))
        .collect();
    if tally.amount_cents != found.amount_cents {
        wrong.push(format!("sum of amounts: expected {}, found {}", tally.amount_cents, found.amount_cents));
    }
    if !wrong.is_empty() {
        return Err(Exit::difference(format!("\nthe sums do not agree:\n  {}", wrong.join("\n  "))));
    }
    println!("\nEvery order is accounted for: the sums agree with what was produced.");
    println!("Next:");
    let file = folder.join("pipeline.yaml");
    println!("  {}", Commands::of(&file).list());
    println!("  {}", Commands::of(&file).check());
    Ok(())
}

fn read_back(folder: &Path) -> Result<Found, Exit> {
    let mut found = Found::default();
    let mut files = Vec::new();
    walk(&folder.join("rows"), &mut files)?;
    files.sort();
    for path in files {
        let cannot = |e: &dyn std::fmt::Display| Exit::failed(format!("{}: {e}", path.display()));
        let file = File::open(&path).map_err(|e| cannot(&e))?;
        found.files += 1;
        found.bytes += file.metadata().map_err(|e| cannot(&e))?.len();
        let high = path.to_string_lossy().contains("high_value");
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(file).and_then(|b| b.build()).map_err(|e| cannot(&e))?;
        for batch in reader {
            let batch = batch.map_err(|e| cannot(&e))?;
            let rows = batch.num_rows() as u64;
            if high {
                found.high_value += rows
            } else {
                found.main += rows
            }
            let amounts = batch.column_by_name("amount_cents").map(|c| c.as_primitive::<Int64Type>());
            found.amount_cents += amounts.map_or(0, |a| a.iter().flatten().sum());
            let cards = batch.column_by_name("customer").and_then(|c| c.as_struct().column_by_name("card"));
            if let Some(cards) = cards {
                found.unmasked +=
                    cards.as_string::<i32>().iter().flatten().filter(|c| c.contains("4")).count() as u64;
            }
            found.sample.get_or_insert(batch);
        }
    }
    let mut letters = Vec::new();
    walk(&folder.join("dead_letters"), &mut letters)?;
    for path in letters {
        let text =
            std::fs::read_to_string(&path).map_err(|e| Exit::failed(format!("{}: {e}", path.display())))?;
        found.dead_letters += text.lines().count() as u64;
    }
    Ok(found)
}

/// Every visible file: what begins with `_` or `.` is not data, as Hive and Spark have it.
fn walk(folder: &Path, out: &mut Vec<PathBuf>) -> Result<(), Exit> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry.map_err(Exit::failed)?.path();
        if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(['_', '.'])) {
            continue;
        }
        if path.is_dir() { walk(&path, out)? } else { out.push(path) }
    }
    Ok(())
}
