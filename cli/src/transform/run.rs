//! `gristmill transform run`.

use std::io::Write;
use std::path::PathBuf;

use gristmill_smt::Kind;
use serde_json::{Map, Value, json};

use super::input::{self, Chunk};
use super::outcome::{Counts, Fate, Outcome, Running, Said, bytes, objects};
use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The component, or the folder of a transform, which is compiled first.
    what: PathBuf,
    /// Shows each row before the transform too.
    #[arg(long)]
    before: bool,
    #[command(flatten)]
    input: input::InputArgs,
}

pub(crate) fn run(args: &Args) -> Result<(), Exit> {
    let transform = super::load(&super::component(&args.what)?)?;
    let mut input = args.input.open(&transform)?;
    let mut running = Running::start(&transform, &input, &input.config)?;
    let (mut counts, mut said, mut calls, mut seconds) = (Counts::default(), Said::default(), 0, 0.0);
    let mut out = std::io::stdout().lock();
    while let Some(chunk) = input.next()? {
        let Outcome { fates, stats, said: now } = running.apply(&chunk)?;
        now.lines.iter().for_each(|line| eprintln!("{line}"));
        said.add(&now);
        let before = if args.before { before(&chunk)? } else { Vec::new() };
        for (row, fate) in fates.iter().enumerate() {
            let place = place(&chunk, row, args.input.is_from_topic());
            let mut lines = shown(&place, fate, transform.kind());
            if let (Some(before), Some(Value::Object(first))) = (before.get(row), lines.first_mut()) {
                first.insert("before".into(), before.clone());
            }
            for line in lines {
                writeln!(out, "{line}").map_err(|e| Exit::failed(format!("standard output: {e}")))?;
            }
            counts.add(fate);
        }
        calls += stats.calls;
        seconds += stats.guest_time.as_secs_f64();
    }
    eprint!("{said}");
    eprintln!("{counts}; {calls} calls of {:.2} ms, with what goes in and comes out", seconds * 1e3);
    counts.warn();
    Ok(())
}

/// Which row it is: by its number, or by its place in Kafka.
pub(crate) fn place(chunk: &Chunk, row: usize, is_from_topic: bool) -> Map<String, Value> {
    let mut place = Map::new();
    match chunk.raw.get(row).filter(|_| is_from_topic) {
        Some(record) => {
            place.insert("topic".into(), chunk.raw.topic().as_ref().into());
            place.insert("partition".into(), chunk.raw.partition().into());
            place.insert("offset".into(), record.offset().into());
        }
        None => _ = place.insert("row".into(), (chunk.first + row).into()),
    }
    place
}

pub(crate) fn shown(place: &Map<String, Value>, fate: &Fate, kind: Kind) -> Vec<Value> {
    let with = |more: Value| {
        let mut line = place.clone();
        line.extend(more.as_object().cloned().unwrap_or_default());
        Value::Object(line)
    };
    match fate {
        Fate::Dropped => vec![with(json!({"dropped": true}))],
        Fate::Rejected { code, message } => vec![with(json!({"rejected": code, "message": message}))],
        Fate::Undecodable { code, message } => vec![with(json!({"not_decoded": code, "message": message}))],
        Fate::Rows(rows) => {
            let is_dropped = rows.iter().all(|row| row.sub > 0);
            let mut lines: Vec<Value> =
                is_dropped.then(|| with(json!({"dropped": true}))).into_iter().collect();
            lines.extend(rows.iter().map(|row| {
                let mut more = Map::new();
                if row.sub > 0 {
                    more.insert("sub".into(), row.sub.into());
                }
                more.insert("output".into(), row.output.as_str().into());
                // A record's parts stand by themselves, as they do in a fixture.
                match kind {
                    Kind::Records => more.extend(row.fields.clone()),
                    Kind::Columns => _ = more.insert("columns".into(), row.fields.clone().into()),
                }
                with(more.into())
            }));
            lines
        }
    }
}

/// The rows as the transform was given them.
fn before(chunk: &Chunk) -> Result<Vec<Value>, Exit> {
    let raw = || chunk.raw.iter().map(|record| bytes(record.value())).collect::<Vec<_>>();
    let Some(columns) = &chunk.columns else { return Ok(raw()) };
    let mut rows = raw();
    for (object, record) in objects(&columns.rows)?.into_iter().zip(&columns.records) {
        rows[*record] = object.into();
    }
    Ok(rows)
}
