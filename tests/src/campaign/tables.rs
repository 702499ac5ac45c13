//! Tables of BigQuery: the fake in this process, which misbehaves all the time, and the independent emulator local-bigquery.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use gristmill_sinks::fake_bigquery::{Call, Effect, FakeBigQuery};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::Code;

use super::place::{Folder, Listed, Place};
use crate::kafka::free_ports;
use crate::nodes::{self, signal};
use crate::pipeline::wait_until;

/// What tells rows apart.
const COLUMNS: [&str; 4] = ["_kafka_partition", "_kafka_offset", "_kafka_sub", "order_id"];

/// Between two requests that suffer something.
const PAUSE: Duration = Duration::from_millis(300);

/// Rows in tables of BigQuery, dead letters and ledger in a folder.
#[derive(Debug)]
pub struct Tables {
    topic: String,
    service: Service,
    letters: Folder,
    state: TempDir,
}

#[derive(Debug)]
enum Service {
    Fake { bigquery: Arc<FakeBigQuery>, stop: Arc<AtomicBool>, noise: Option<JoinHandle<()>> },
    Emulator { process: Child, rest: String, storage: String, runtime: Runtime, _data: TempDir },
}

impl Tables {
    fn of(topic: &str, service: Service) -> Self {
        let state = tempfile::tempdir().expect("a temporary folder can be made");
        Tables { topic: topic.to_owned(), service, letters: Folder::default(), state }
    }

    /// In Gristmill's own fake, for rows of that topic; which requests suffer follows from the seed, and from when they come.
    pub fn in_fake(topic: &str, seed: u64) -> Self {
        let bigquery = Arc::new(FakeBigQuery::start());
        let (stop, fake) = (Arc::<AtomicBool>::default(), bigquery.clone());
        let stopped = stop.clone();
        let noise = std::thread::spawn(move || {
            let mut random = SmallRng::seed_from_u64(seed);
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(PAUSE);
                if fake.planned() < 4 {
                    let (call, effect) = fault(&mut random);
                    fake.plan(call, effect);
                }
            }
        });
        Tables::of(topic, Service::Fake { bigquery, stop, noise: Some(noise) })
    }

    /// In local-bigquery, which nobody of Gristmill has written. `None`, with a note, where `GRISTMILL_LOCAL_BIGQUERY` is not set
    /// and this is not CI.
    ///
    /// # Panics
    /// If it does not start.
    pub fn in_emulator(topic: &str) -> Option<Self> {
        const PYTHON: &str = "GRISTMILL_LOCAL_BIGQUERY";
        let Some(python) = std::env::var_os(PYTHON).filter(|p| !p.is_empty()) else {
            assert!(!std::env::var("CI").is_ok_and(|v| v == "true"), "{PYTHON} is not set");
            eprintln!(
                "SKIPPED: {PYTHON} is not set; the Makefile's targets set it where there is CPython 3.13"
            );
            return None;
        };
        let data = tempfile::tempdir().expect("a temporary folder can be made");
        let ports = free_ports(2);
        let mut command = Command::new(python);
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("bigquery_emulator.py"))
            .args(ports.iter().map(ToString::to_string))
            .arg(data.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = nodes::spawn(command).expect("the emulator starts");
        let runtime = Runtime::new().expect("a runtime can be made");
        let [rest, storage] = [ports[0], ports[1]].map(|port| format!("http://127.0.0.1:{port}"));
        let datasets = format!("{rest}/bigquery/v2/projects/shop/datasets");
        wait_until("the emulator answers", Duration::from_secs(60), || {
            runtime.block_on(reqwest::get(&datasets)).is_ok()
        });
        Some(Tables::of(topic, Service::Emulator { process, rest, storage, runtime, _data: data }))
    }

    /// The address of the storage interface, and of REST.
    fn endpoints(&self) -> (&str, &str) {
        match &self.service {
            Service::Fake { bigquery, .. } => (bigquery.url(), bigquery.rest_url()),
            Service::Emulator { storage, rest, .. } => (storage, rest),
        }
    }

    /// What tells the rows of a table apart; empty if there is no such table.
    fn rows(&self, table: &str) -> io::Result<Vec<Value>> {
        match &self.service {
            Service::Fake { bigquery, .. } => {
                let is_there = bigquery.tables().contains(&format!("shop.lake.{table}"));
                let batches =
                    if is_there { bigquery.rows(&format!("shop.lake.{table}")) } else { Vec::new() };
                Ok(batches.iter().flat_map(rows_of).collect())
            }
            Service::Emulator { rest, runtime, .. } => runtime.block_on(async {
                let sql = format!("SELECT {} FROM `shop.lake.{table}`", COLUMNS.join(", "));
                let body = json!({"query": sql, "useLegacySql": false, "maxResults": 1_000_000});
                let url = format!("{rest}/bigquery/v2/projects/shop/queries");
                let answer =
                    reqwest::Client::new().post(url).json(&body).send().await.map_err(io::Error::other)?;
                let answer = answer.text().await.map_err(io::Error::other)?;
                let answer: Value = serde_json::from_str(&answer).map_err(io::Error::other)?;
                let rows = answer["rows"].as_array().ok_or_else(|| io::Error::other(answer.to_string()))?;
                let total = answer["totalRows"].as_str().and_then(|total| total.parse().ok());
                if total != Some(rows.len()) {
                    return Err(io::Error::other(format!("{} rows of {total:?}", rows.len())));
                }
                // Numbers are texts.
                let cell = |row: &Value, at: usize| match (at, row["f"][at]["v"].as_str()) {
                    (0..3, Some(number)) => json!(number.parse::<i64>().unwrap_or(-1)),
                    (_, text) => json!(text),
                };
                let named = |row| {
                    COLUMNS.iter().enumerate().map(|(at, name)| ((*name).to_owned(), cell(row, at))).collect()
                };
                Ok(rows.iter().map(|row| Value::Object(named(row))).collect())
            }),
        }
    }
}

fn rows_of(batch: &RecordBatch) -> Vec<Value> {
    let column = |name: &str| batch.column_by_name(name).expect("it is there");
    let number = |name: &str, row| column(name).as_primitive::<Int64Type>().value(row);
    let [partition, offset, sub, id] = COLUMNS;
    let line = |row| {
        let text = column(id).as_string::<i32>().value(row);
        json!({partition: number(partition, row), offset: number(offset, row), sub: number(sub, row), id: text})
    };
    (0..batch.num_rows()).map(line).collect()
}

/// Something that happens to a request.
fn fault(random: &mut SmallRng) -> (Call, Effect) {
    let codes = [Code::Unavailable, Code::Aborted, Code::Internal, Code::ResourceExhausted];
    let refused = Effect::Refuse(*codes.choose(random).expect("there are some"));
    match random.random_range(0..8) {
        0 | 1 => (Call::Append, Effect::LoseReply),
        2 => (Call::Append, Effect::Break),
        3 => (Call::Commit, Effect::LoseReply),
        4 => (Call::Finalize, Effect::LoseReply),
        5 => (Call::Create, Effect::LoseReply),
        6 => {
            let late = Effect::Slow(Duration::from_millis(random.random_range(1..2_000)));
            (*[Call::Append, Call::Commit, Call::Finalize, Call::Create].choose(random).expect("some"), late)
        }
        _ => (
            *[Call::Append, Call::Commit, Call::Finalize, Call::Create].choose(random).expect("some"),
            refused,
        ),
    }
}

impl Place for Tables {
    fn sink(&self, _: &str, rotate_rows: u64) -> String {
        format!(
            "  bigquery:\n    project: shop\n    dataset: lake\n    state: {{folder: '{}'}}\n    endpoint: '{}'\n    rest_endpoint: '{}'\n    \
             tables: {{dataset_location: EU}}\n    rotate: {{rows: {rotate_rows}, age: 1s}}\n",
            self.state.path().display(),
            self.endpoints().0,
            self.endpoints().1
        )
    }

    fn dead_letters(&self) -> String {
        self.letters.dead_letters()
    }

    /// Rows are no files: a table shows those of an entry at once.
    fn list(&self) -> io::Result<Vec<Listed>> {
        self.letters.list()
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.letters.read(name)
    }

    /// The columns that tell rows apart, a file for each table.
    fn download(&self, into: &Path) -> io::Result<PathBuf> {
        let rows = into.join("rows");
        std::fs::create_dir_all(&rows)?;
        let main = self.topic.replace('-', "_");
        for (table, output) in [(main.clone(), ""), (format!("{main}_high_value"), "+high_value")] {
            let file = format!("{}{output}+00000000+00000+00000000000000000000+000.jsonl", self.topic);
            let mut file = io::BufWriter::new(std::fs::File::create(rows.join(file))?);
            for row in self.rows(&table)? {
                writeln!(file, "{row}")?;
            }
            file.flush()?;
        }
        let letters = self.letters.download(into)?.join("dead_letters");
        for listed in self.letters.list()? {
            let path = into.join(&listed.name);
            std::fs::create_dir_all(path.parent().expect("a folder is above it"))?;
            std::fs::copy(letters.parent().expect("it has one").join(&listed.name), path)?;
        }
        Ok(into.to_owned())
    }

    fn checks(&self) -> &'static [&'static [&'static str]] {
        &[&["ledger", "verify"]]
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        match &mut self.service {
            Service::Fake { stop, noise, .. } => {
                stop.store(true, Ordering::Relaxed);
                if let Some(noise) = noise.take() {
                    let _ = noise.join();
                }
            }
            Service::Emulator { process, .. } => {
                // It ends with its input; to be sure of it.
                drop(process.stdin.take());
                signal(process, libc::SIGKILL);
                let _ = process.wait();
            }
        }
    }
}
