//! `gristmill transform diff`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::input::{self, json_of};
use super::outcome::{Fate, Row, Running};
use super::run::{place, shown};
use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The component that is there now, or the folder of its source.
    old: PathBuf,
    /// The one that shall replace it.
    new: PathBuf,
    /// The configuration of the new one: a JSON object, or the path of a file that holds one; by default that of both.
    #[arg(long, value_name = "JSON|FILE")]
    new_config: Option<String>,
    /// How many of the rows that change are shown.
    #[arg(long, default_value_t = 10, value_name = "ROWS")]
    show: usize,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    input: input::InputArgs,
}

#[derive(Default)]
struct Changes {
    rows: u64,
    changed: u64,
    /// Never reached either.
    not_decoded: u64,
    /// From one fate to another: `kept -> rejected NEGATIVE_AMOUNT`.
    fates: BTreeMap<String, u64>,
    outputs: BTreeMap<String, u64>,
    /// By field: added, removed, changed.
    fields: BTreeMap<String, [u64; 3]>,
    examples: Vec<Value>,
    seconds: [f64; 2],
}

pub(crate) fn run(args: &Args) -> Result<(), Exit> {
    let old = super::load(&super::component(&args.old)?)?;
    let new = super::load(&super::component(&args.new)?)?;
    if old.kind() != new.kind() {
        return Err(Exit::mistake(format!(
            "{} works on {}, and {} on {}: they cannot be compared row by row",
            args.old.display(),
            old.kind(),
            args.new.display(),
            new.kind()
        )));
    }
    let mut input = args.input.open(&old)?;
    let new_config = match &args.new_config {
        Some(text) => json_of(text, "--new-config")?,
        None => input.config.clone(),
    };
    let mut before = Running::start(&old, &input, &input.config)?;
    let mut after = Running::start(&new, &input, &new_config)?;
    let mut changes = Changes::default();
    while let Some(chunk) = input.next()? {
        let (old_outcome, new_outcome) = (before.apply(&chunk)?, after.apply(&chunk)?);
        changes.seconds[0] += old_outcome.stats.guest_time.as_secs_f64();
        changes.seconds[1] += new_outcome.stats.guest_time.as_secs_f64();
        for (row, (was, is)) in old_outcome.fates.iter().zip(&new_outcome.fates).enumerate() {
            if changes.add(was, is) && changes.examples.len() < args.show {
                let mut example = place(&chunk, row, args.input.is_from_topic());
                let none = Map::new();
                for (name, fate) in [("old", was), ("new", is)] {
                    example.insert(name.into(), shown(&none, fate, old.kind()).into());
                }
                changes.examples.push(example.into());
            }
        }
    }
    match args.json {
        true => println!("{}", changes.json()),
        false => changes.print(),
    }
    match changes.changed {
        0 => Ok(()),
        _ => Err(Exit::difference("")),
    }
}

fn named(fate: &Fate) -> String {
    match fate {
        Fate::Rows(rows) if rows.iter().any(|row| row.sub == 0) => "kept".into(),
        Fate::Rows(_) | Fate::Dropped => "dropped".into(),
        Fate::Rejected { code, .. } => format!("rejected {code}"),
        Fate::Undecodable { code, .. } => format!("not decoded {code}"),
    }
}

impl Changes {
    /// Whether it is one.
    fn add(&mut self, was: &Fate, is: &Fate) -> bool {
        self.rows += 1;
        self.not_decoded += u64::from(matches!(was, Fate::Undecodable { .. }));
        if was == is {
            return false;
        }
        self.changed += 1;
        let (from, to) = (named(was), named(is));
        if from != to {
            *self.fates.entry(format!("{from} -> {to}")).or_default() += 1;
        }
        if let (Fate::Rows(was), Fate::Rows(is)) = (was, is) {
            self.rows_of(was, is);
        }
        true
    }

    fn rows_of(&mut self, was: &[Row], is: &[Row]) {
        if was.len() != is.len() {
            let text = format!("{} rows -> {}", was.len(), is.len());
            *self.fates.entry(text).or_default() += 1;
        }
        for (was, is) in was.iter().zip(is) {
            if was.output != is.output {
                *self.outputs.entry(format!("{} -> {}", was.output, is.output)).or_default() += 1;
            }
            self.fields_of("", &was.fields, &is.fields);
        }
    }

    fn fields_of(&mut self, parent: &str, was: &Map<String, Value>, is: &Map<String, Value>) {
        for (name, old) in was {
            let path = format!("{parent}{name}");
            match (old, is.get(name)) {
                (_, None) => self.fields.entry(path).or_default()[1] += 1,
                (old, Some(new)) if old == new => {}
                (Value::Object(old), Some(Value::Object(new))) => {
                    self.fields_of(&format!("{path}."), old, new)
                }
                _ => self.fields.entry(path).or_default()[2] += 1,
            }
        }
        for name in is.keys().filter(|name| !was.contains_key(*name)) {
            self.fields.entry(format!("{parent}{name}")).or_default()[0] += 1;
        }
    }

    /// Microseconds a row.
    fn costs(&self) -> [f64; 2] {
        self.seconds.map(|seconds| (seconds * 1e8 / self.rows.max(1) as f64).round() / 100.0)
    }

    fn json(&self) -> Value {
        let fields: Map<String, Value> = (self.fields.iter())
            .map(|(name, [added, removed, changed])| {
                (name.clone(), json!({"added": added, "removed": removed, "changed": changed}))
            })
            .collect();
        json!({"rows": self.rows, "changed": self.changed, "not_decoded": self.not_decoded, "fates": self.fates, "outputs": self.outputs, "fields": fields,
            "cost_us": {"old": self.costs()[0], "new": self.costs()[1]}, "examples": self.examples})
    }

    fn print(&self) {
        print!("{} rows, of which {} change", self.rows, self.changed);
        match self.not_decoded {
            0 => println!(),
            rows => println!("; {rows} were not decoded"),
        }
        for (what, count) in &self.fates {
            println!("  {count:8}  {what}");
        }
        for (what, count) in &self.outputs {
            println!("  {count:8}  output {what}");
        }
        for (name, counts) in &self.fields {
            for (count, verb) in
                counts.iter().zip(["added", "removed", "changed"]).filter(|(count, _)| **count > 0)
            {
                println!("  {count:8}  {name} {verb}");
            }
        }
        let [old, new] = self.costs();
        println!("cost: {old} us a row, now {new} us");
        self.examples.iter().for_each(|example| println!("{example}"));
    }
}
