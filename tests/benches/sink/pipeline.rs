//! `gristmill run` as a process that empties a topic, and what that has cost.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gristmill_tests::pipeline::gristmill;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use serde_json::{Value, json};

use crate::process::Process;

const PATIENCE: Duration = Duration::from_secs(240);

/// What is run.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) bootstrap: String,
    pub(crate) registry: String,
    pub(crate) topic: String,
    /// Records in the topic, and rows that are to come of them.
    pub(crate) records: u64,
    pub(crate) rows: u64,
    /// Bytes of the keys and values in the topic.
    pub(crate) bytes: u64,
    /// Components and their configurations.
    pub(crate) transforms: Vec<(PathBuf, Value)>,
    pub(crate) decode: Value,
    pub(crate) memory: &'static str,
    /// Rows of a partition after which a checkpoint is taken.
    pub(crate) rotate_rows: u64,
}

/// What a run has cost, from the assignment of partitions to the end of the process.
#[derive(Debug)]
pub(crate) struct Spent {
    /// Microseconds of CPU time a record, of the whole process.
    pub(crate) cpu: f64,
    /// Until all records were read.
    pub(crate) records_per_second: f64,
    /// MiB that were resident at most.
    pub(crate) resident: f64,
    /// Microseconds a record: of CPU time, but `checkpoint`, which waits for the disk too.
    pub(crate) stages: BTreeMap<&'static str, f64>,
    pub(crate) checkpoints: u64,
    /// Milliseconds of one checkpoint, of those before the last.
    pub(crate) checkpoint_ms: f64,
    /// Bytes that the connections have received over bytes of keys and values: Kafka's framing counts too.
    pub(crate) fetched: Option<f64>,
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

/// The sum of a counter over its labels.
fn counter(metrics: &str, name: &str) -> f64 {
    let of = |line: &str| -> Option<f64> {
        let rest = line.strip_prefix("gristmill_")?.strip_prefix(name)?.strip_prefix("_total")?;
        rest.rsplit(' ').next()?.parse().ok()
    };
    metrics.lines().filter_map(of).sum()
}

impl Job {
    fn file(&self, port: u16) -> Value {
        let mut file = json!({
            "name": gristmill_tests::unique("bench"),
            "source": {"kafka": {"bootstrap_servers": self.bootstrap, "topics": [self.topic]}},
            "schema_registry": {"url": self.registry},
            "decode": self.decode,
            "sink": {"files": {
                "folder": "rows",
                "rotate": {"rows": self.rotate_rows, "bytes": "128MiB", "age": "600s"},
            }},
            "http": {"listen": format!("127.0.0.1:{port}")},
            "memory": self.memory,
            // Closing 64 partitions at once is a matter of the disk.
            "shutdown_timeout": "200s",
        });
        let steps = self.transforms.iter().map(|(wasm, config)| json!({"wasm": wasm, "config": config}));
        file["transforms"] = steps.collect();
        file
    }

    /// Runs until everything is written.
    pub(crate) fn run(&self) -> Spent {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let file = folder.path().join("pipeline.yaml");
        fs::write(&file, self.file(port).to_string()).expect("the folder is ours");
        let log = folder.path().join("log");
        let mut command = Command::new(gristmill());
        command
            .arg("run")
            .arg(&file)
            .env("GRISTMILL_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("the folder is ours"));
        let process = Process::spawn(command);
        let started = Instant::now();
        let check = |process: &Process| {
            let fail = |what: &str| panic!("{what}:\n{}", fs::read_to_string(&log).unwrap_or_default());
            if !process.runs() {
                fail("the pipeline ended early");
            }
            if started.elapsed() > PATIENCE {
                fail("the pipeline takes too long");
            }
        };
        while get(port, "/readyz").is_none() {
            check(&process);
            std::thread::sleep(Duration::from_millis(2));
        }
        // Loading and compiling the transform is not a matter of records.
        let (at_start, ready) = (process.cpu(), Instant::now());
        let metrics = loop {
            let metrics = get(port, "/metrics").unwrap_or_default();
            if counter(&metrics, "records_in") as u64 >= self.records {
                break metrics;
            }
            check(&process);
            std::thread::sleep(Duration::from_millis(50));
        };
        let read_after = ready.elapsed().as_secs_f64();
        let threads = process.threads();
        let at_end = process.cpu();
        let received = process.received();
        process.signal(libc::SIGTERM);
        let cost = process.wait();
        assert!(cost.success, "{}", fs::read_to_string(&log).unwrap_or_default());
        assert_eq!(counter(&metrics, "records_rejected"), 0.0, "{metrics}");
        assert_eq!(count_rows(&folder.path().join("rows")), self.rows, "every row is there");

        let records = self.records as f64;
        let micros = |seconds: f64| seconds * 1e6 / records;
        let of = |wanted: fn(&str) -> bool| -> f64 {
            threads.iter().filter(|(name, _)| wanted(name)).map(|(_, s)| s).sum()
        };
        let fetch = of(|name| name.starts_with("rdk:"));
        let copy = of(|name| name.starts_with("gristmill-poll"));
        // The workers' threads come and go; what they have spent is the rest, divided as their time divides.
        let workers = (at_end - at_start - fetch - copy).max(0.0);
        let seconds = |name: &str| counter(&metrics, name);
        let steps = ["transform", "decode", "write"].map(|name| (name, seconds(&format!("{name}_seconds"))));
        let sum: f64 = steps.iter().map(|(_, s)| s).sum();
        let mut stages = BTreeMap::from([
            ("fetch", micros(fetch)),
            ("copy", micros(copy)),
            ("last checkpoint", micros(cost.cpu - at_end)),
        ]);
        stages.extend(steps.map(|(name, s)| (name, micros(workers * s / sum.max(1e-9)))));
        let checkpoints = seconds("checkpoints");
        Spent {
            cpu: micros(cost.cpu - at_start),
            records_per_second: records / read_after,
            resident: cost.resident,
            stages,
            checkpoints: checkpoints as u64,
            checkpoint_ms: seconds("checkpoint_seconds") * 1e3 / checkpoints.max(1.0),
            fetched: received.map(|n| n / self.bytes as f64),
        }
    }
}

/// Rows of all files that are published, by their footers.
fn count_rows(folder: &Path) -> u64 {
    let mut rows = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if entry.file_name() != "_gristmill" {
                rows += count_rows(&path);
            }
        } else if path.extension().is_some_and(|e| e == "parquet") {
            let file = File::open(&path).expect("it was listed");
            let reader = SerializedFileReader::new(file).expect("a Parquet file");
            rows += reader.metadata().file_metadata().num_rows() as u64;
        }
    }
    rows
}
