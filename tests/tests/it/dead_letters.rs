//! The dead letters of a pipeline into files, delivered again once what refused them is mended.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gristmill_tests::orders::{Fate, Order};
use gristmill_tests::pipeline::{Pipeline, wait_until};
use gristmill_tests::{OrderProducer, shared_kafka, unique};

use super::readers;

const PATIENCE: Duration = Duration::from_secs(60);

/// Of three one has no id, which is mended by and by, and of a hundred one has none that could be read.
fn order(number: u64) -> Order {
    let id = match number {
        n if n % 100 == 50 => serde_json::json!({"no": "text"}),
        n if n % 3 == 0 => serde_json::Value::Null,
        n => format!("o-{n}").into(),
    };
    let value = serde_json::json!({"order_id": id, "n": number});
    Order {
        id: number.to_string(),
        key: number.to_string(),
        value: Some(value.to_string().into_bytes()),
        headers: Vec::new(),
        timestamp: 1_793_491_200_000 + number as i64 * 60_000,
        fate: Fate::Row("main"),
    }
}

fn is_row(number: u64, ids_may_be_null: bool) -> bool {
    number % 100 != 50 && (ids_may_be_null || !number.is_multiple_of(3))
}

struct Setup {
    pipeline: Pipeline,
    folder: tempfile::TempDir,
    topic: String,
    bootstrap: String,
    produced: u64,
}

impl Setup {
    fn text(&self, order_id: &str) -> String {
        format!(
            "name: {0}
source:
  kafka: {{bootstrap_servers: '{1}', topics: [{0}]}}
decode:
  format: json
  fields: {{order_id: {order_id}, n: int64 not null}}
sink:
  files: {{folder: rows, directories: dt=%Y-%m-%d, rotate: {{age: 1s, rows: 400}}}}
dead_letters: {{folder: dead_letters}}
",
            self.topic, self.bootstrap
        )
    }

    fn rows(&self) -> PathBuf {
        self.folder.path().join("rows").join(&self.topic)
    }

    /// How often each record is in the files.
    fn found(&self) -> BTreeMap<u64, u32> {
        let mut found = BTreeMap::new();
        let (_, rows) = match self.rows().exists() {
            true => readers::read("pyarrow", &self.rows()),
            false => return found,
        };
        rows.iter().for_each(|row| *found.entry(row["n"].as_u64().unwrap()).or_default() += 1);
        found
    }

    fn expected(&self, ids_may_be_null: bool) -> BTreeMap<u64, u32> {
        (0..self.produced).filter(|n| is_row(*n, ids_may_be_null)).map(|n| (n, 1)).collect()
    }

    /// Has the pipeline as its file is now read what comes.
    fn run(&mut self, count: u64) {
        let numbers = self.produced..self.produced + count;
        let batch: Vec<_> = numbers.map(|n| ((n % 2) as i32, order(n))).collect();
        let producer = OrderProducer::new(&self.bootstrap, &self.topic);
        let run = self.pipeline.start(None);
        producer.plain(&self.topic, &batch);
        self.produced += count;
        let kafka = shared_kafka().unwrap();
        let group = format!("gristmill-{}", self.topic);
        let ends = kafka.end_offsets(&self.topic, 2);
        wait_until("all is published", PATIENCE, || kafka.committed_offsets(&group, &self.topic, 2) == ends);
        assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", self.pipeline.logs());
    }

    fn mend(&self) {
        std::fs::write(self.pipeline.file(), self.text("string")).unwrap();
    }

    fn replay(&self, options: &[&str]) -> String {
        let (code, out) = self.pipeline.command(&[&["dlq", "replay", "--yes"], options].concat());
        assert_eq!(code, Some(0), "{out}");
        out
    }

    /// The files that a try has written.
    fn of_try(&self, number: u32) -> Vec<PathBuf> {
        files(&self.rows()).into_iter().filter(|f| name(f).contains(&format!("-dlq-{number}."))).collect()
    }

    fn audit(&self) -> (Option<i32>, serde_json::Value) {
        let (code, text) = self.pipeline.command(&["audit", "--json"]);
        let report = serde_json::Deserializer::from_str(&text).into_iter().next().expect("a report");
        (code, report.expect(&text))
    }
}

fn name(file: &Path) -> String {
    file.file_name().unwrap().to_string_lossy().into_owned()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

fn setup() -> Option<Setup> {
    let kafka = shared_kafka()?;
    let topic = unique("dead-letters");
    tokio::runtime::Runtime::new().unwrap().block_on(kafka.create_topic(&topic, 2, &[]));
    let folder = tempfile::tempdir().unwrap();
    let pipeline = Pipeline::new(folder.path(), "");
    let setup = Setup { pipeline, folder, topic, bootstrap: kafka.bootstrap_servers(), produced: 0 };
    std::fs::write(setup.pipeline.file(), setup.text("string not null")).unwrap();
    Some(setup)
}

/// Each row that was refused is in the files once, or refused again, whatever dies.
#[test]
fn they_are_in_the_files_once() {
    let Some(mut setup) = setup() else { return };
    // More of each partition than go through the stages at once.
    setup.run(3_600);
    assert_eq!(setup.found(), setup.expected(false));
    let (code, out) = setup.pipeline.command(&["dlq", "list", "--limit", "1"]);
    assert!(code == Some(0) && out.contains(" open\n"), "{out}");
    setup.mend();
    let (code, out) = setup.pipeline.command(&["dlq", "replay"]);
    assert!(code == Some(0) && out.contains("would: try the records of 1224 dead letters again"), "{out}");
    assert_eq!(setup.found(), setup.expected(false));

    // Each goes on where the one before died.
    for failpoint in ["after-stage:2", "after-seal:1", "after-move:1", "after-stage:1"] {
        let mut killed = setup.pipeline.replay_dead_letters(&["--yes"], Some(failpoint));
        killed.wait_for_kill(PATIENCE);
        let found = setup.found();
        assert!(found.values().all(|times| *times == 1), "{failpoint}: {found:?}");
        // What is sealed, and in no file yet, is not settled.
        let (_, out) = setup.pipeline.command(&["dlq", "list", "--limit", "9999"]);
        let settled = out.lines().filter(|line| line.contains("(settled by try 1)")).count();
        assert_eq!(settled, found.len() - setup.expected(false).len(), "{failpoint}: {out}");
    }
    let out = setup.replay(&[]);
    assert_eq!(setup.found(), setup.expected(true), "{out}");
    assert!(setup.of_try(1).len() >= 4, "{:?}", setup.of_try(1));
    let out = setup.replay(&[]);
    assert!(out.contains("done: try 1: 0 records, of which 0 rows"), "{out}");
    // What the killed ones have staged is gone.
    let staged = setup.folder.path().join("rows/_gristmill/staged/dlq+1");
    assert!(!staged.exists() || files(&staged).is_empty(), "{:?}", files(&staged));
    let (code, out) = setup.pipeline.command(&["dlq", "list", "--open"]);
    assert!(code == Some(0) && out.ends_with("36 DECODE_MISMATCH open\n"), "{out}");

    // What comes later goes through the same try, and what is left through another.
    std::fs::write(setup.pipeline.file(), setup.text("string not null")).unwrap();
    setup.run(300);
    setup.mend();
    let out = setup.replay(&["--again"]);
    assert!(out.contains("try 1: 102 records") && out.contains("try 2: 39 records"), "{out}");
    assert_eq!(setup.found(), setup.expected(true), "{out}");
    assert!(setup.of_try(2).is_empty());

    let (code, report) = setup.audit();
    assert_eq!((code, &report["clean"]), (Some(0), &true.into()), "{report:#}");
    let tries = report["tries"].as_array().unwrap();
    let sum = |number: u64, field: &str| -> u64 {
        tries.iter().filter(|t| t["number"] == number).map(|t| t[field].as_u64().unwrap()).sum()
    };
    let late = setup.expected(true).len() - setup.expected(false).len();
    assert_eq!((sum(1, "rows"), sum(1, "rejected")), (late as u64, 39), "{report:#}");
    assert_eq!((sum(2, "rows"), sum(2, "rejected")), (0, 39), "{report:#}");
    let (code, out) = setup.pipeline.command(&["audit"]);
    assert!(code == Some(0) && out.contains("-0: try 1 of its dead letters: "), "{out}");
    let (code, out) = setup.pipeline.command(&["ledger", "verify"]);
    assert!(code == Some(0) && out.contains("-1, try 2 of its dead letters: "), "{out}");
    assert!(!out.contains("not written by this pipeline"), "{out}");
}

/// What hands do to the files of a try is found, and nothing is written twice for it.
#[test]
fn what_hands_do_to_their_files_is_found() {
    let Some(mut setup) = setup() else { return };
    setup.run(300);
    setup.mend();
    setup.replay(&[]);
    let written = setup.of_try(1);
    assert_eq!(written.len(), 2);

    let copy = written[0].with_file_name("copy.parquet");
    std::fs::copy(&written[0], &copy).unwrap();
    std::fs::remove_file(&written[1]).unwrap();
    let (code, report) = setup.audit();
    let findings = report["findings"].as_array().unwrap();
    let kinds: Vec<_> = findings.iter().map(|f| f["kind"].as_str().unwrap()).collect();
    assert_eq!((code, &kinds[..]), (Some(3), &["missing_file", "doubled_rows"][..]), "{report:#}");
    assert_eq!(findings[1]["command"], format!("rm {}", copy.display()));
    std::fs::remove_file(&copy).unwrap();
    // A file that a user has deleted does not come back.
    let out = setup.replay(&[]);
    assert!(out.contains("0 records") && !written[1].exists(), "{out}");

    // Rows of a try that the pipeline has written, too: here by a ledger of tries that was put aside.
    let state = setup.folder.path().join("rows/_gristmill");
    std::fs::rename(state.join("dlq"), state.join("aside")).unwrap();
    let (code, out) = setup.pipeline.command(&["dlq", "replay", "--yes"]);
    assert!(code == Some(1) && out.contains("move the foreign file away"), "{code:?} {out}");
    let aside = setup.folder.path().join("aside.parquet");
    std::fs::rename(&written[0], &aside).unwrap();
    setup.replay(&[]);
    assert_eq!(setup.found(), setup.expected(true));
    std::fs::rename(&aside, written[0].with_file_name("aside.parquet")).unwrap();
    let (code, report) = setup.audit();
    assert_eq!((code, &report["findings"][0]["kind"]), (Some(3), &"doubled_rows".into()), "{report:#}");
}

/// A file that may be lost is no reason to go on in silence, whether others of its entry wait or not.
#[test]
fn a_lost_file_of_a_try_stops_it_and_has_an_exit() {
    // Of one day, and of two.
    for (count, files_of_entry) in [(300, 1), (2_000, 2)] {
        let Some(mut setup) = setup() else { return };
        setup.run(count);
        setup.mend();
        let mut killed = setup.pipeline.replay_dead_letters(&["--yes"], Some("after-seal:1"));
        killed.wait_for_kill(PATIENCE);
        let staged = files(&setup.folder.path().join("rows/_gristmill/staged/dlq+1"));
        assert_eq!(staged.len(), files_of_entry, "{staged:?}");
        std::fs::remove_file(staged.last().unwrap()).unwrap();
        let (code, out) = setup.pipeline.command(&["dlq", "replay", "--yes"]);
        let why = "was sealed by try 1 and is gone: deleted after it was published, which nothing says, or lost before";
        assert!(code == Some(1) && out.contains(why), "{out}");
        let line =
            out.lines().find_map(|line| line.trim().strip_prefix("to go on without them: `")).expect(&out);
        let (code, out) = setup.pipeline.paste(line.trim_end_matches('`'));
        assert_eq!(code, Some(0), "{out}");
        let (code, out) = setup.pipeline.command(&["ledger", "log"]);
        assert!(code == Some(0) && out.contains("repair"), "{out}");
        let out = setup.replay(&[]);
        let (found, expected) = (setup.found(), setup.expected(true));
        let lost = expected.keys().filter(|n| !found.contains_key(n)).count();
        assert!(lost > 0 && lost < 400 && found.values().all(|times| *times == 1), "{lost} {out}");
        let (code, report) = setup.audit();
        assert_eq!((code, &report["findings"][0]["kind"]), (Some(3), &"missing_file".into()), "{report:#}");
    }
}

/// A ledger that was begun anew has tries of its own, beside the files of the old ones.
#[test]
fn tries_of_a_ledger_that_is_no_more_are_put_away_and_begun_anew() {
    let Some(mut setup) = setup() else { return };
    setup.run(300);
    setup.mend();
    setup.replay(&[]);
    let old = setup.expected(true);
    // The state is lost, but for the files; an operator goes on where the group is.
    let state = setup.folder.path().join("rows/_gristmill");
    std::fs::remove_dir_all(state.join("ledger")).unwrap();
    let (code, out) =
        setup.pipeline.command(&["ledger", "reset", "--topic", &setup.topic, "--partition", "0", "--yes"]);
    assert_eq!(code, Some(0), "{out}");
    let (code, out) =
        setup.pipeline.command(&["ledger", "reset", "--topic", &setup.topic, "--partition", "1", "--yes"]);
    assert_eq!(code, Some(0), "{out}");
    std::fs::write(setup.pipeline.file(), setup.text("string not null")).unwrap();
    setup.run(300);
    setup.mend();
    let (code, out) = setup.pipeline.command(&["dlq", "replay", "--yes"]);
    assert!(code == Some(2) && out.contains("move _gristmill/dlq/1/ledger/"), "{code:?} {out}");
    for folder in out.split_whitespace().filter(|word| word.starts_with("_gristmill/dlq/1/ledger/")) {
        std::fs::remove_dir_all(setup.folder.path().join("rows").join(folder)).unwrap();
    }
    let out = setup.replay(&[]);
    assert_eq!(setup.found(), setup.expected(true), "{out}");
    assert!(setup.found().len() > old.len());
    let (code, report) = setup.audit();
    assert_eq!((code, &report["clean"]), (Some(0), &true.into()), "{report:#}");
    let kinds = report["findings"].as_array().unwrap().iter().map(|f| &f["kind"]);
    assert!(kinds.clone().count() > 0 && kinds.clone().all(|kind| kind == "before_ledger"), "{report:#}");
}
