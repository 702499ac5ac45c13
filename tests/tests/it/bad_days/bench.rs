//! What a bad day needs: a topic, a pipeline file that can be spoiled and mended, and what has to become of each
//! record in the end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gristmill_tests::campaign::hidden;
use gristmill_tests::orders::{Fate, Order};
use gristmill_tests::pipeline::{Pipeline, Running, assert_exactly_once, read_rows, wait_until};
use gristmill_tests::{OrderProducer, RealKafka, unique};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(super) const PATIENCE: Duration = Duration::from_secs(100);

/// What all days share.
pub(super) struct World {
    pub(super) kafka: &'static RealKafka,
    pub(super) runtime: Runtime,
    producer: Mutex<OrderProducer>,
}

impl World {
    pub(super) fn new(kafka: &'static RealKafka) -> Self {
        let producer = OrderProducer::new(&kafka.bootstrap_servers(), &unique("bad-days"));
        World { kafka, runtime: Runtime::new().unwrap(), producer: Mutex::new(producer) }
    }
}

/// How a day ended, in the words of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// `exit 1`, or what has become of the records.
    pub(super) fate: String,
    /// The first line of what was said.
    pub(super) message: String,
}

impl Told {
    /// Of a pipeline that went on without a word.
    pub(super) fn silently(fate: &str) -> Self {
        Told { fate: fate.into(), message: String::new() }
    }
}

/// The parts of a pipeline file that days spoil.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) servers: String,
    pub(super) topics: String,
    /// Librdkafka's properties, as a flow mapping.
    pub(super) properties: String,
    pub(super) decode: String,
    /// What stands in `sink.files`, without the rotation.
    pub(super) place: String,
    pub(super) rotate: String,
    pub(super) more: String,
}

pub(super) const JSON: &str = "{format: json, fields: {order_id: string not null}}";
pub(super) const AVRO: &str = "{format: avro, subject: orders-value}";

pub(super) struct Bench<'w> {
    pub(super) world: &'w World,
    pub(super) topic: String,
    pub(super) group: String,
    pub(super) pipeline: Pipeline,
    parts: Parts,
    /// Set in the environment of every run.
    variable: RefCell<Option<(String, String)>>,
    /// What the table has for what is different each time.
    names: RefCell<Vec<(String, String)>>,
    expected: RefCell<BTreeMap<String, (String, String)>>,
    produced: Cell<i64>,
    // Removed last.
    pub(super) folder: TempDir,
}

impl<'w> Bench<'w> {
    /// A pipeline from a topic with twenty orders in it to the folder `rows`; its file is to be written yet.
    pub(super) fn new(world: &'w World) -> Self {
        let bench = Bench::empty(world);
        bench.orders(20);
        bench
    }

    /// The same with a topic without records.
    pub(super) fn empty(world: &'w World) -> Self {
        let topic = unique("orders");
        world.runtime.block_on(world.kafka.create_topic(&topic, 1, &[]));
        let folder = tempfile::tempdir().unwrap();
        let servers = world.kafka.bootstrap_servers();
        let names = vec![
            (format!("{}/", folder.path().display()), String::new()),
            (topic.clone(), "orders".to_owned()),
            (servers.clone(), "kafka:9092".to_owned()),
            (world.kafka.password_servers(), "kafka:9093".to_owned()),
        ];
        let parts = Parts {
            servers,
            topics: topic.clone(),
            properties: "{}".into(),
            decode: JSON.into(),
            place: "folder: rows".into(),
            rotate: "{age: 1s}".into(),
            more: String::new(),
        };
        Bench {
            world,
            group: format!("gristmill-{topic}"),
            topic,
            pipeline: Pipeline::new(folder.path(), ""),
            parts,
            variable: RefCell::default(),
            names: RefCell::new(names),
            expected: RefCell::default(),
            produced: Cell::new(0),
            folder,
        }
    }

    /// Writes the pipeline file.
    pub(super) fn file(&self, edit: impl FnOnce(&mut Parts)) {
        let mut p = self.parts.clone();
        edit(&mut p);
        let text = format!(
            "name: {}\nsource:\n  kafka:\n    bootstrap_servers: '{}'\n    topics: [{}]\n    session_timeout: 6s\n    \
             properties: {}\ndecode: {}\nsink:\n  files:\n    {}\n    rotate: {}\n{}",
            self.topic, p.servers, p.topics, p.properties, p.decode, p.place, p.rotate, p.more
        );
        std::fs::write(self.pipeline.file(), text).unwrap();
    }

    /// Writes a file beside it, such as one with a secret.
    pub(super) fn beside(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub(super) fn set_variable(&self, name: &str, value: &str) {
        *self.variable.borrow_mut() = Some((name.into(), value.into()));
    }

    /// Has the table show `shown` for what is another text each time.
    pub(super) fn call(&self, text: impl Into<String>, shown: &str) {
        self.names.borrow_mut().push((text.into(), shown.into()));
    }

    /// Produces JSON orders that have to become rows.
    pub(super) fn orders(&self, count: i64) {
        for _ in 0..count {
            self.record(None, |id| format!("{{\"order_id\": \"{id}\"}}").into_bytes());
        }
    }

    /// Produces a record that has to become a row, or a dead letter with that code.
    pub(super) fn record(&self, code: Option<&str>, value: impl FnOnce(&str) -> Vec<u8>) {
        let number = self.produced.get();
        self.produced.set(number + 1);
        let id = format!("order-{number}");
        let fate = match code {
            None => ("main".to_owned(), id.clone()),
            Some(code) => ("dead_letter".to_owned(), format!("{code} {id}")),
        };
        self.expected.borrow_mut().insert(id.clone(), fate);
        let value = Some(value(&id));
        let order = Order {
            key: id.clone(),
            id,
            value,
            headers: Vec::new(),
            timestamp: 1_704_067_200_000,
            fate: Fate::Row("main"),
        };
        let producer = self.world.producer.lock().unwrap_or_else(PoisonError::into_inner);
        producer.plain(&self.topic, &[(0, order)]);
    }

    pub(super) fn start(&self) -> Running {
        match &*self.variable.borrow() {
            Some((name, value)) => self.pipeline.start_with(name, value),
            None => self.pipeline.start(None),
        }
    }

    fn committed(&self) -> i64 {
        self.world.kafka.committed_offsets(&self.group, &self.topic, 1)[0]
    }

    /// Waits until everything that was produced is published.
    pub(super) fn wait_for_the_end(&self, run: &mut Running) {
        wait_until("the pipeline comes to the end", PATIENCE, || {
            run.assert_alive();
            self.committed() == self.produced.get()
        });
    }

    /// Runs until everything is published, then stops in order. Gives the log.
    pub(super) fn run_to_the_end(&self) -> String {
        let mut run = self.start();
        self.wait_for_the_end(&mut run);
        let log = run.log();
        assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", self.pipeline.logs());
        log
    }

    /// Runs until it ends by itself with that code.
    pub(super) fn stops(&self, code: i32) -> Told {
        self.ends(self.start(), code)
    }

    pub(super) fn ends(&self, mut run: Running, code: i32) -> Told {
        assert_eq!(run.wait(PATIENCE).code(), Some(code), "{}", run.log());
        let log = run.log();
        // Log lines may hold the word too.
        let said = log.rfind("\nerror: ").map_or(log.as_str(), |at| &log[at + 1..]);
        Told { fate: format!("exit {code}"), message: self.shown(said) }
    }

    /// The same of a run that may not leave a trace: no file, and no offset in the group.
    pub(super) fn refuses_to_start(&self, code: i32) -> Told {
        let told = self.stops(code);
        assert_eq!(self.committed(), -1, "{}", self.pipeline.logs());
        let seen = visible(&self.folder.path().join("rows"));
        assert!(seen.is_empty(), "{seen:?}");
        told
    }

    /// The first line that is no line of a log, with names that stay the same.
    pub(super) fn shown(&self, text: &str) -> String {
        let is_log = |line: &str| {
            line.as_bytes()
                .get(..5)
                .is_some_and(|c| c[..4].is_ascii() && c[4] == b'-' && c[0].is_ascii_digit())
        };
        let line = text.lines().find(|line| !line.is_empty() && !is_log(line)).unwrap_or_default();
        self.steady(line)
    }

    /// Takes out of a line what differs from run to run.
    pub(super) fn steady(&self, line: &str) -> String {
        let names = self.names.borrow();
        let line =
            names.iter().fold(line.to_owned(), |line, (text, shown)| line.replace(text.as_str(), shown));
        without_topic_ids(without_uuids(&line))
    }

    /// Fails unless each record is where it has to be, exactly once.
    pub(super) fn assert_nothing_lost(&self) {
        self.assert_nothing_lost_in(self.folder.path());
    }

    /// The same of files that were brought from elsewhere.
    pub(super) fn assert_nothing_lost_in(&self, folder: &Path) {
        let found = read_rows(&folder.join("rows"), &folder.join("dead_letters"));
        assert_exactly_once(&self.expected.borrow(), &found, &self.pipeline.logs());
    }

    /// Mends, runs to the end, and looks at every record.
    pub(super) fn goes_on(&self) {
        self.run_to_the_end();
        self.assert_nothing_lost();
    }

    pub(super) fn ok(&self, arguments: &[&str]) -> String {
        let (code, text) = self.pipeline.command(arguments);
        assert_eq!(code, Some(0), "{text}");
        text
    }
}

/// The files that a reader would take for data.
pub(super) fn visible(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if hidden(&entry.file_name().to_string_lossy()) {
            continue;
        }
        match entry.path() {
            path if path.is_dir() => found.extend(visible(&path)),
            path => found.push(path),
        }
    }
    found
}

/// `UUID` for every one.
fn without_uuids(line: &str) -> String {
    const FORM: &str = "00000000-0000-0000-0000-000000000000";
    let is_uuid = |text: &[u8]| {
        text.iter().zip(FORM.bytes()).all(|(c, form)| match form {
            b'-' => *c == b'-',
            _ => c.is_ascii_hexdigit(),
        })
    };
    let mut out = line.to_owned();
    while let Some(at) = out.as_bytes().windows(FORM.len()).position(is_uuid) {
        out.replace_range(at..at + FORM.len(), "UUID");
    }
    out
}

/// `TOPIC-ID` for every one in a path.
fn without_topic_ids(line: String) -> String {
    let is_id = |part: &str| {
        part.len() == 22 && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
    };
    let parts: Vec<&str> = line.split('/').map(|part| if is_id(part) { "TOPIC-ID" } else { part }).collect();
    parts.join("/")
}
