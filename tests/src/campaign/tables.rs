//! Tables of BigQuery: the fake in this process, which misbehaves all the time.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use gristmill_sinks::fake_bigquery::{Call, Effect, FakeBigQuery};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tonic::Code;

use super::place::{Folder, Listed, Place};

/// Between two requests that suffer something.
const PAUSE: Duration = Duration::from_millis(300);

/// Rows in tables of Gristmill's own fake of BigQuery, dead letters and ledger in a folder.
#[derive(Debug)]
pub struct Tables {
    topic: String,
    bigquery: Arc<FakeBigQuery>,
    letters: Folder,
    state: TempDir,
    stop: Arc<AtomicBool>,
    noise: Option<JoinHandle<()>>,
}

impl Tables {
    /// For rows of that topic; which requests suffer follows from the seed, and from when they come.
    pub fn new(topic: &str, seed: u64) -> Self {
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
        let state = tempfile::tempdir().expect("a temporary folder can be made");
        let letters = Folder::default();
        Tables { topic: topic.to_owned(), bigquery, letters, state, stop, noise: Some(noise) }
    }
}

/// Something that happens to a request.
fn fault(random: &mut SmallRng) -> (Call, Effect) {
    let codes = [Code::Unavailable, Code::Aborted, Code::Internal, Code::ResourceExhausted];
    let refused = Effect::Refuse(*codes.choose(random).expect("there are some"));
    match random.random_range(0..7) {
        0 | 1 => (Call::Append, Effect::LoseReply),
        2 => (Call::Append, Effect::Break),
        3 => (Call::Commit, Effect::LoseReply),
        4 => (Call::Finalize, Effect::LoseReply),
        5 => (Call::Create, Effect::LoseReply),
        _ => (
            *[Call::Append, Call::Commit, Call::Finalize, Call::Create].choose(random).expect("some"),
            refused,
        ),
    }
}

impl Place for Tables {
    fn sink(&self) -> String {
        unreachable!("it has a section of its own")
    }

    fn section(&self, _: &str, rotate_rows: u64) -> String {
        format!(
            "  bigquery:\n    project: shop\n    dataset: lake\n    state: {{folder: '{}'}}\n    endpoint: '{}'\n    rest_endpoint: '{}'\n    \
             tables: {{dataset_location: EU}}\n    rotate: {{rows: {rotate_rows}, age: 1s}}\n",
            self.state.path().display(),
            self.bigquery.url(),
            self.bigquery.rest_url()
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
        let main = format!("shop.lake.{}", self.topic.replace('-', "_"));
        for table in self.bigquery.tables() {
            let output = table.strip_prefix(&main).map(|rest| rest.trim_start_matches('_').to_owned());
            let output =
                output.filter(|output| !output.is_empty()).map_or(String::new(), |o| format!("+{o}"));
            let file = format!("{}{output}+00000000+00000+00000000000000000000+000.jsonl", self.topic);
            let mut file = io::BufWriter::new(std::fs::File::create(rows.join(file))?);
            for batch in self.bigquery.rows(&table) {
                let column = |name: &str| batch.column_by_name(name).expect("it is there");
                let number = |name: &str, row| column(name).as_primitive::<Int64Type>().value(row);
                for row in 0..batch.num_rows() {
                    let line = serde_json::json!({
                        "_kafka_partition": number("_kafka_partition", row),
                        "_kafka_offset": number("_kafka_offset", row),
                        "_kafka_sub": number("_kafka_sub", row),
                        "order_id": column("order_id").as_string::<i32>().value(row),
                    });
                    writeln!(file, "{line}")?;
                }
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
        self.stop.store(true, Ordering::Relaxed);
        if let Some(noise) = self.noise.take() {
            let _ = noise.join();
        }
    }
}
