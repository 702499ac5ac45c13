//! `gristmill transform diff`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow_schema::{Field, Schema};
use serde_json::{Map, Value, json};

use super::input::{self, json_of};
use super::outcome::{Counts, Fate, Row, Running};
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
    /// Columns that come out with other types: `amount: Int32 -> Int64`.
    types: Vec<String>,
    /// Rejects of the runtime that say something else: their texts name lines of the source.
    other_words: u64,
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
    let mut changes = Changes { types: types(&before, &after), ..Changes::default() };
    let mut counts = [Counts::default(), Counts::default()];
    while let Some(chunk) = input.next()? {
        let (old_outcome, new_outcome) = (before.apply(&chunk)?, after.apply(&chunk)?);
        changes.seconds[0] += old_outcome.stats.guest_time.as_secs_f64();
        changes.seconds[1] += new_outcome.stats.guest_time.as_secs_f64();
        for (counts, outcome) in counts.iter_mut().zip([&old_outcome, &new_outcome]) {
            outcome.fates.iter().for_each(|fate| counts.add(fate));
        }
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
    counts[1].warn();
    match changes.changed == 0 && changes.types.is_empty() {
        true => Ok(()),
        false => Err(Exit::difference("")),
    }
}

/// How the columns that come out differ, whatever is in them.
fn types(before: &Running, after: &Running) -> Vec<String> {
    let (Some(before), Some(after)) = (before.columns(), after.columns()) else { return Vec::new() };
    let (before, after) = (before.output_schema(), after.output_schema());
    let named = |field: &Field| {
        format!("{}{}", field.data_type(), if field.is_nullable() { "" } else { " not null" })
    };
    let of = |schema: &Schema, name: &str| schema.field_with_name(name).map_or("none".into(), named);
    let mut names: Vec<&String> = before.fields().iter().map(|field| field.name()).collect();
    names.extend(
        after.fields().iter().map(|field| field.name()).filter(|name| before.index_of(name).is_err()),
    );
    let types = names.into_iter().map(|name| (name, of(before, name), of(after, name)));
    types.filter(|(_, was, is)| was != is).map(|(name, was, is)| format!("{name}: {was} -> {is}")).collect()
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
        let (from, to) = (named(was), named(is));
        let differ = match (was, is) {
            (Fate::Rows(was), Fate::Rows(is)) => self.rows_of(was, is),
            (Fate::Rejected { code, message: was }, Fate::Rejected { message: is, .. })
                if from == to && was != is =>
            {
                let is_runtimes = code.starts_with("TRANSFORM_");
                self.other_words += u64::from(is_runtimes);
                if !is_runtimes {
                    *self.fates.entry(format!("{from}, with another message")).or_default() += 1;
                }
                !is_runtimes
            }
            _ => from != to,
        };
        if from != to {
            *self.fates.entry(format!("{from} -> {to}")).or_default() += 1;
        }
        self.changed += u64::from(differ || from != to);
        differ || from != to
    }

    /// Whether there is a difference. Rows are compared by their number within the row that they came of.
    fn rows_of(&mut self, was: &[Row], is: &[Row]) -> bool {
        let mut differ = was.len() != is.len();
        if differ {
            let text = format!("{} rows -> {}", was.len(), is.len());
            *self.fates.entry(text).or_default() += 1;
        }
        for was in was {
            let Some(is) = is.iter().find(|is| is.sub == was.sub) else {
                differ = true;
                continue;
            };
            if was.output != is.output {
                differ = true;
                *self.outputs.entry(format!("{} -> {}", was.output, is.output)).or_default() += 1;
            }
            let differing = was.differing(is);
            differ |= !differing.is_empty();
            self.fields_of("", &was.fields, &is.fields);
            // What is shown alike, and is not.
            for name in differing.into_iter().filter(|name| was.fields.get(name) == is.fields.get(name)) {
                self.fields.entry(name).or_default()[2] += 1;
            }
        }
        differ
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
        self.seconds
            .map(|seconds| (seconds * 1e8 / (self.rows - self.not_decoded).max(1) as f64).round() / 100.0)
    }

    fn json(&self) -> Value {
        let fields: Map<String, Value> = (self.fields.iter())
            .map(|(name, [added, removed, changed])| {
                (name.clone(), json!({"added": added, "removed": removed, "changed": changed}))
            })
            .collect();
        json!({"rows": self.rows, "changed": self.changed, "not_decoded": self.not_decoded, "types": self.types, "fates": self.fates, "outputs": self.outputs, "fields": fields,
            "cost_us": {"old": self.costs()[0], "new": self.costs()[1]}, "examples": self.examples})
    }

    fn print(&self) {
        print!("{} rows, of which {} change", self.rows, self.changed);
        match self.not_decoded {
            0 => println!(),
            rows => println!("; {rows} were not decoded"),
        }
        for what in &self.types {
            println!("  column {what}");
        }
        if self.other_words > 0 {
            println!("  {:8}  rejected as before, in other words", self.other_words);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Decimal128Array, Int32Array, Int64Array, RecordBatch};

    use super::*;

    fn fate(rows: Vec<Row>) -> Fate {
        Fate::Rows(rows)
    }

    fn columns(sub: u32, columns: &[(&str, ArrayRef)]) -> Row {
        let batch = RecordBatch::try_from_iter(columns.iter().cloned()).unwrap();
        Row::of_columns(sub, "main".into(), &batch).unwrap()
    }

    fn record(value: Option<&[u8]>) -> Row {
        Row::of_record(0, "main".into(), None, value, &[], None)
    }

    #[test]
    fn what_is_shown_alike_and_is_not_is_a_change() {
        let mut changes = Changes::default();
        for (was, is) in [
            (None, Some(&b"null"[..])),
            (Some(&b"abc"[..]), Some(&b"\"abc\""[..])),
            (Some(&b"{\"a\": 1}"[..]), Some(&b"{\"a\":1}"[..])),
            (Some(&b"\xff"[..]), Some(&b"\xfe"[..])),
        ] {
            assert!(changes.add(&fate(vec![record(was)]), &fate(vec![record(is)])), "{was:?} {is:?}");
            assert!(!changes.add(&fate(vec![record(was)]), &fate(vec![record(was)])));
        }
        assert_eq!((changes.rows, changes.changed, changes.fields["value"]), (8, 4, [0, 0, 4]));

        let decimal = |value: i128| -> ArrayRef {
            Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(30, 2).unwrap())
        };
        let row = |value| fate(vec![columns(0, &[("price", decimal(value))])]);
        let large = 1_234_567_890_123_456_789_012;
        assert!(changes.add(&row(large), &row(large + 1)));
        assert_eq!(changes.fields["price"], [0, 0, 1]);
    }

    #[test]
    fn rows_are_compared_by_their_number_and_values_across_types() {
        let one = |n: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![n])) };
        let row = |sub, n| columns(sub, &[("n", one(n))]);
        let mut changes = Changes::default();
        assert!(changes.add(&fate(vec![row(0, 1), row(1, 2)]), &fate(vec![row(1, 2)])));
        assert!(changes.fields.is_empty(), "{:?}", changes.fields);
        let narrow = columns(0, &[("n", Arc::new(Int32Array::from(vec![1])))]);
        assert!(!changes.add(&fate(vec![row(0, 1)]), &fate(vec![narrow])));
    }

    #[test]
    fn another_line_in_the_text_of_a_trap_is_no_change() {
        let rejected =
            |code: &str, message: &str| Fate::Rejected { code: code.into(), message: message.into() };
        let mut changes = Changes::default();
        assert!(
            !changes.add(&rejected("TRANSFORM_TRAP", "lib.rs:3"), &rejected("TRANSFORM_TRAP", "lib.rs:4"))
        );
        assert!(changes.add(&rejected("NEGATIVE", "-1"), &rejected("NEGATIVE", "below 0")));
        assert_eq!((changes.changed, changes.other_words), (1, 1));
        assert_eq!(changes.fates["rejected NEGATIVE, with another message"], 1);
    }
}
