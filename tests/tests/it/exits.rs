//! Every stop has an exit: what stops a pipeline is provoked, the command that it prints is run as it stands there, and
//! the pipeline goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gristmill_tests::orders::{Fate, Order};
use gristmill_tests::pipeline::{Pipeline, Running, wait_until};
use gristmill_tests::{OrderProducer, RealKafka, shared_kafka, unique};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;

use crate::service::{free_address, get};

const PATIENCE: Duration = Duration::from_secs(60);

/// A pipeline over a topic of one partition whose records are numbered.
struct Bench {
    kafka: &'static RealKafka,
    topic: String,
    group: String,
    folder: TempDir,
    pipeline: Pipeline,
    producer: OrderProducer,
    produced: std::cell::Cell<i64>,
}

fn text(kafka: &RealKafka, name: &str, topic: &str, kafka_more: &str, rotate: &str, more: &str) -> String {
    format!(
        "name: {name}
source:
  kafka: {{bootstrap_servers: '{}', topics: [{topic}]{kafka_more}}}
decode:
  format: json
  fields: {{order_id: string not null}}
sink:
  files: {{folder: rows, directories: dt=%Y-%m-%d, rotate: {rotate}}}
{more}",
        kafka.bootstrap_servers()
    )
}

/// So that a process that was killed does not hold the group for long.
const SHORT_SESSION: &str = ", session_timeout: 6s";

impl Bench {
    fn new(stem: &str) -> Option<Bench> {
        Bench::with(stem, SHORT_SESSION, "{age: 1s}", "")
    }

    fn with(stem: &str, kafka_more: &str, rotate: &str, more: &str) -> Option<Bench> {
        let kafka = shared_kafka()?;
        let topic = unique(stem);
        block_on(kafka.create_topic(&topic, 1, &[]));
        let folder = tempfile::tempdir().unwrap();
        let pipeline = Pipeline::new(folder.path(), &text(kafka, &topic, &topic, kafka_more, rotate, more));
        let group = format!("gristmill-{topic}");
        let producer = OrderProducer::new(&kafka.bootstrap_servers(), &topic);
        Some(Bench { kafka, topic, group, folder, pipeline, producer, produced: 0.into() })
    }

    /// Appends records; those of three days, so that an entry has three files.
    fn produce(&self, count: i64) {
        let first = self.produced.get();
        self.produced.set(first + count);
        let order = |i: i64| Order {
            id: format!("order-{i}"),
            key: format!("order-{i}"),
            value: Some(format!("{{\"order_id\": \"order-{i}\"}}").into_bytes()),
            headers: Vec::new(),
            timestamp: 1_704_067_200_000 + i % 3 * 86_400_000,
            fate: Fate::Row("main"),
        };
        let batch: Vec<_> = (first..first + count).map(|i| (0, order(i))).collect();
        self.producer.plain(&self.topic, &batch);
    }

    fn committed(&self) -> i64 {
        self.kafka.committed_offsets(&self.group, &self.topic, 1)[0]
    }

    /// Runs until the group is at the end of what was produced, then stops in order. Gives the log.
    fn run_to_the_end(&self) -> String {
        let run = self.pipeline.start(None);
        wait_until("the pipeline comes to the end", PATIENCE, || {
            assert!(!run.log().contains("error: "), "{}", run.log());
            self.committed() == self.produced.get()
        });
        self.stop(run)
    }

    fn stop(&self, run: Running) -> String {
        let log = run.log();
        assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", self.pipeline.logs());
        log
    }

    /// Starts, and gives the error with which it ends by itself.
    fn run_to_the_stop(&self) -> String {
        let mut run = self.pipeline.start(None);
        assert_eq!(run.wait(PATIENCE).code(), Some(1), "{}", run.log());
        error_in(&run.log())
    }

    /// Fails unless the rows are those of these offsets, each once.
    fn assert_rows(&self, offsets: impl IntoIterator<Item = i64>) {
        let mut found: Vec<i64> = self.pipeline.read_back().iter().map(|f| f.place.1).collect();
        found.sort_unstable();
        let mut expected: Vec<i64> = offsets.into_iter().collect();
        expected.sort_unstable();
        assert_eq!(found, expected, "{}", self.pipeline.logs());
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let (code, text) = self.pipeline.command(arguments);
        assert_eq!(code, Some(0), "{text}");
        text
    }

    /// Runs a command that was printed. Without `--yes` in it, first as it stands, which must change nothing.
    fn paste(&self, line: &str) -> String {
        let mut line = line.to_owned();
        if !line.ends_with("--yes") {
            let before = self.ok(&["ledger", "ls"]);
            let (code, text) = self.pipeline.paste(&line);
            assert_eq!(code, Some(0), "{line}\n{text}");
            assert!(text.contains("nothing was changed; add --yes to do it"), "{text}");
            assert_eq!(self.ok(&["ledger", "ls"]), before);
            assert!(!self.ok(&["ledger", "log"]).contains(&format!("{line}\n")));
            line += " --yes";
        }
        let (code, text) = self.pipeline.paste(&line);
        assert_eq!(code, Some(0), "{line}\n{text}");
        let log = self.ok(&["ledger", "log"]);
        let rest = line.strip_prefix("gristmill ").expect("a command of ours");
        assert!(log.contains(rest) && log.contains(" by ada") && !log.contains("failed"), "{log}");
        text
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("rows/_gristmill")
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}

/// The last lines of a log, from the error on.
fn error_in(log: &str) -> String {
    log.rfind("error: ").map(|at| log[at..].to_owned()).unwrap_or_else(|| panic!("no error in\n{log}"))
}

/// The command in an error that begins with `gristmill {command}`.
fn printed(error: &str, command: &str) -> String {
    let begins = format!("`gristmill {command} ");
    let at = error.find(&begins).unwrap_or_else(|| panic!("no {begins} in\n{error}")) + 1;
    error[at..].split('`').next().expect("a command ends").to_owned()
}

#[test]
fn an_offset_that_was_moved_forward_stops_and_skip_gives_the_range_up() {
    let Some(bench) = Bench::new("forward") else { return };
    bench.produce(100);
    bench.run_to_the_end();
    bench.produce(50);
    bench.kafka.move_offset(&bench.group, &bench.topic, 0, 120);
    let error = bench.run_to_the_stop();
    for part in [
        "it is 120, the ledger ends at 100; nothing was read or written",
        "everything below offset 100 is published and safe",
        "would lose offsets 100 to 119 (20 of them)",
    ] {
        assert!(error.contains(part), "{part} is not in\n{error}");
    }
    bench.assert_rows(0..100);
    assert_eq!(bench.committed(), 120);

    bench.paste(&format!("{} --reason 'a bad deployment'", printed(&error, "ledger skip")));
    bench.run_to_the_end();
    bench.assert_rows((0..100).chain(120..150));
    assert!(bench.ok(&["ledger", "verify"]).contains("20 offsets were given up in 1 entries"));
    assert!(bench.ok(&["ledger", "ls"]).contains(": a bad deployment"));
    assert!(bench.ok(&["ledger", "log"]).contains("reason: a bad deployment"));
    // A typing error must not take the ledger where the topic is not yet.
    let (code, text) = bench.pipeline.paste(&format!(
        "gristmill ledger skip {} --topic {} --partition 0 --to 151 --yes",
        bench.pipeline.file().display(),
        bench.topic
    ));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("there is no offset 151 yet"), "{text}");
}

#[test]
fn an_offset_that_was_moved_by_mistake_either_way_stops_and_reset_puts_it_back() {
    let Some(bench) = Bench::new("backward") else { return };
    bench.produce(100);
    bench.run_to_the_end();
    bench.produce(50);
    bench.kafka.move_offset(&bench.group, &bench.topic, 0, 40);
    let error = bench.run_to_the_stop();
    assert!(error.contains("it is 40, the ledger ends at 100"), "{error}");
    assert!(error.contains("would write offsets 40 to 99 (60 of them) a second time"), "{error}");
    assert!(printed(&error, "replay").contains("--partition 0 --from 40 --to 100 --into again-"), "{error}");
    let reset = printed(&error, "ledger reset");

    // While somebody is in the group, Kafka takes no offset from outside.
    let member: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bench.kafka.bootstrap_servers())
        .set("group.id", &bench.group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    member.subscribe(&[&bench.topic]).unwrap();
    wait_until("the member has its partition", PATIENCE, || {
        member.poll(Duration::from_millis(100));
        member.assignment().is_ok_and(|a| a.count() == 1)
    });
    let (code, text) = bench.pipeline.paste(&format!("{reset} --yes"));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("the group has members: stop every process of it first"), "{text}");
    assert_eq!(bench.committed(), 40);
    assert!(bench.ok(&["ledger", "log"]).contains("failed: error: "));
    member.unsubscribe();
    drop(member);

    let (code, text) = bench.pipeline.paste(&format!("{reset} --yes"));
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("from 40 (not committed by this pipeline) to 100, where the ledger ends"),
        "{text}"
    );
    assert_eq!(bench.committed(), 100);
    bench.run_to_the_end();
    bench.assert_rows(0..150);

    bench.produce(50);
    bench.kafka.move_offset(&bench.group, &bench.topic, 0, 180);
    let reset = printed(&bench.run_to_the_stop(), "ledger reset");
    let (code, text) = bench.pipeline.paste(&format!("{reset} --yes"));
    assert_eq!(code, Some(0), "{text}");
    bench.run_to_the_end();
    bench.assert_rows(0..200);
    assert!(bench.ok(&["ledger", "reset"]).contains("there is nothing to reset"));
    assert!(bench.ok(&["ledger", "verify"]).starts_with("ok "));
}

#[test]
fn an_offset_that_was_moved_to_where_the_ledger_ends_is_as_good_as_ours() {
    let Some(bench) = Bench::new("same") else { return };
    bench.produce(30);
    bench.run_to_the_end();
    bench.kafka.move_offset(&bench.group, &bench.topic, 0, 30);
    bench.produce(30);
    bench.run_to_the_end();
    bench.assert_rows(0..60);
}

#[test]
fn a_first_start_takes_over_where_another_consumer_was() {
    let Some(bench) = Bench::new("migrated") else { return };
    bench.produce(60);
    bench.kafka.commit(&bench.group, &bench.topic, 44);
    bench.run_to_the_end();
    bench.assert_rows(44..60);
}

#[test]
fn a_first_start_that_dies_before_its_first_commit_goes_on_where_its_ledger_ends() {
    let Some(bench) = Bench::new("unmarked") else { return };
    bench.produce(60);
    bench.kafka.commit(&bench.group, &bench.topic, 44);
    bench.pipeline.start(Some("before-commit:1")).wait_for_kill(PATIENCE);
    assert_eq!(bench.committed(), 44, "the group has not heard of it");
    bench.produce(20);
    bench.run_to_the_end();
    bench.assert_rows(44..80);
}

#[test]
fn a_second_pipeline_in_one_group_is_refused_and_reset_lets_it_take_over() {
    let Some(bench) = Bench::new("grouped") else { return };
    bench.produce(20);
    bench.run_to_the_end();
    bench.produce(20);
    let folder = tempfile::tempdir().unwrap();
    let group = format!("{SHORT_SESSION}, group: {}", bench.group);
    let other =
        Pipeline::new(folder.path(), &text(bench.kafka, "other", &bench.topic, &group, "{age: 1s}", ""));
    let mut run = other.start(None);
    assert_eq!(run.wait(PATIENCE).code(), Some(1), "{}", run.log());
    let error = error_in(&run.log());
    let who = format!("the group's offset 20 was committed by the pipeline `{}`", bench.topic);
    assert!(error.contains(&who) && error.contains("name another `source.kafka.group`"), "{error}");

    let (code, text) = other.paste(&format!("{} --yes", printed(&error, "ledger reset")));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("keep the group's offset 20, and begin a new ledger there"), "{text}");
    let run = other.start(None);
    wait_until("the other comes to the end", PATIENCE, || bench.committed() == 40);
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", other.logs());
    let mut offsets: Vec<i64> = other.read_back().iter().map(|f| f.place.1).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (20..40).collect::<Vec<i64>>());
}

#[test]
fn a_replay_does_not_pass_over_a_file_that_was_lost_nor_end_well_without_one() {
    let Some(bench) = Bench::new("lost-again") else { return };
    bench.produce(90);
    let options = ["--from", "0", "--into", "again"];
    bench.pipeline.replay(&options, Some("after-seal:1")).wait_for_kill(PATIENCE);
    let staged = staged(&bench.folder.path().join("again/_gristmill"));
    assert_eq!(staged.len(), 3, "one of each day: {staged:?}");
    fs::remove_file(&staged[1]).unwrap();
    for _ in 0..2 {
        let mut run = bench.pipeline.replay(&options, None);
        assert_eq!(run.wait(PATIENCE).code(), Some(1), "{}", run.log());
        let error = error_in(&run.log());
        assert!(error.contains("was sealed by the replay and is gone before it was published"), "{error}");
        assert!(error.contains("replay the range again under another name"), "{error}");
        assert!(bench.pipeline.read_replay("again").is_empty(), "nothing was published");
    }

    let options = ["--from", "0", "--into", "once-more"];
    let mut run = bench.pipeline.replay(&options, None);
    assert_eq!(run.wait(PATIENCE).code(), Some(0), "{}", run.log());
    assert_eq!(bench.pipeline.read_replay("once-more").len(), 90);
    let mut folders: Vec<_> =
        fs::read_dir(bench.folder.path().join("once-more").join(&bench.topic)).unwrap().collect();
    let day = folders.remove(0).unwrap().path();
    fs::remove_dir_all(day).unwrap();
    let mut run = bench.pipeline.replay(&options, None);
    assert_eq!(run.wait(PATIENCE).code(), Some(3), "a range that is not all there: {}", run.log());
}

#[test]
fn a_replay_that_retention_overtakes_says_what_is_left_of_it() {
    let Some(bench) = Bench::new("late") else { return };
    bench.produce(90);
    let options = ["--from", "0", "--into", "again"];
    bench.pipeline.replay(&options, Some("after-stage:1")).wait_for_kill(PATIENCE);
    block_on(bench.kafka.delete_records(&bench.topic, 0, 50));
    let mut run = bench.pipeline.replay(&options, None);
    assert_eq!(run.wait(PATIENCE).code(), Some(1), "{}", run.log());
    let error = error_in(&run.log());
    assert!(error.contains("retention has removed offsets 0 to 49 (50 of them) of the range"), "{error}");
    assert!(!error.contains("gristmill ledger"), "the live ledger is not concerned: {error}");
    let line = printed(&error, "replay");
    let (code, text) = bench.pipeline.paste(&line);
    assert_eq!(code, Some(0), "{line}\n{text}");
    let name = line.rsplit(' ').next().unwrap();
    let mut offsets: Vec<i64> = bench.pipeline.read_replay(name).iter().map(|f| f.place.1).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (50..90).collect::<Vec<i64>>());
}

#[test]
fn a_range_that_retention_took_before_the_start_stops_and_skip_goes_on_behind_it() {
    let Some(bench) = Bench::new("retention") else { return };
    bench.produce(100);
    bench.run_to_the_end();
    bench.produce(100);
    block_on(bench.kafka.delete_records(&bench.topic, 0, 130));
    let error = bench.run_to_the_stop();
    assert!(error.contains("retention has removed offsets 100 to 129 (30 of them)"), "{error}");
    assert!(error.contains("everything below offset 100 is published and safe"), "{error}");
    let skip = printed(&error, "ledger skip");
    assert!(skip.ends_with("--to 130 --yes"), "{skip}");
    bench.paste(&skip);
    bench.run_to_the_end();
    bench.assert_rows((0..100).chain(130..200));
    assert!(bench.ok(&["ledger", "verify"]).starts_with("ok "));
}

#[test]
fn a_pipeline_that_retention_overtakes_publishes_what_it_has_read_before_it_stops() {
    let address = free_address();
    let http = format!("http: {{listen: '{address}'}}\n");
    let Some(bench) = Bench::with("overtaken", "", "{age: 1h}", &http) else { return };
    bench.produce(100);
    let mut run = bench.pipeline.start(None);
    wait_until("100 records are read", PATIENCE, || {
        get(address, "/metrics").is_some_and(|(_, text)| text.contains("gristmill_records_in_total 100\n"))
    });
    assert!(bench.pipeline.read_back().is_empty(), "an hour has not passed");
    run.freeze();
    // The fetch that is under way is answered with the first of these.
    bench.produce(1);
    bench.produce(99);
    block_on(bench.kafka.delete_records(&bench.topic, 0, 150));
    run.resume();
    assert_eq!(run.wait(PATIENCE).code(), Some(1), "{}", run.log());
    let error = error_in(&run.log());
    let read = bench.pipeline.read_back().len() as i64;
    assert!(read >= 100, "what was read is published: {read}\n{error}");
    let gone = format!("retention has removed offsets {read} to 149");
    assert!(error.contains(&gone), "{gone} is not in\n{error}");
    bench.paste(&printed(&error, "ledger skip"));
    let run = bench.pipeline.start(None);
    wait_until("the rest is read", PATIENCE, || {
        get(address, "/metrics").is_some_and(|(_, text)| text.contains("gristmill_records_in_total 50\n"))
    });
    bench.stop(run);
    bench.assert_rows((0..read).chain(150..200));
}

#[test]
fn a_ledger_that_was_deleted_stops_and_reset_begins_a_new_one_at_the_groups_offset() {
    let Some(bench) = Bench::new("deleted") else { return };
    bench.produce(100);
    bench.run_to_the_end();
    bench.produce(50);
    fs::remove_dir_all(bench.state()).unwrap();
    let error = bench.run_to_the_stop();
    assert!(error.contains("has committed offset 100 to its group, but there is no ledger"), "{error}");
    bench.assert_rows(0..100);
    assert!(!bench.state().join("ledger").exists(), "a stop leaves no ledger behind");
    bench.paste(&printed(&error, "ledger reset"));
    bench.run_to_the_end();
    bench.assert_rows(0..150);
    assert!(bench.ok(&["ledger", "ls"]).contains("from offset 100"));
}

/// A copy of a folder and all below it, times kept: they are the generations.
fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_ledger_that_is_an_old_copy_stops_and_reset_reads_again_from_its_end() {
    let Some(bench) = Bench::new("restored") else { return };
    bench.produce(100);
    bench.run_to_the_end();
    let (rows, backup) = (bench.folder.path().join("rows"), bench.folder.path().join("backup"));
    copy(&rows, &backup);
    bench.produce(50);
    bench.run_to_the_end();
    fs::remove_dir_all(&rows).unwrap();
    copy(&backup, &rows);
    let error = bench.run_to_the_stop();
    assert!(error.contains("has committed offset 150 to its group, and the ledger ends at 100"), "{error}");
    bench.assert_rows(0..100);
    let text = bench.paste(&printed(&error, "ledger reset"));
    assert!(text.contains("from 150 (committed by this pipeline) to 100"), "{text}");
    bench.run_to_the_end();
    bench.assert_rows(0..150);
}

#[test]
fn a_ledger_of_another_pipeline_stops_and_its_own_name_goes_on() {
    let Some(bench) = Bench::new("renamed") else { return };
    bench.produce(20);
    bench.run_to_the_end();
    bench.produce(20);
    let other = text(bench.kafka, "other", &bench.topic, "", "{age: 1s}", "");
    let error = {
        let renamed = Pipeline::new(bench.folder.path(), &other);
        let mut run = renamed.start(None);
        assert_eq!(run.wait(PATIENCE).code(), Some(1), "{}", run.log());
        let (code, text) = renamed.paste(&format!(
            "gristmill ledger skip {} --topic {} --partition 0 --to 30 --yes",
            renamed.file().display(),
            bench.topic
        ));
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(&format!("use the file with `name: {}`", bench.topic)), "{text}");
        error_in(&run.log())
    };
    assert!(
        error.contains("not to pipeline \"other\"") && error.contains("put the pipeline's name back"),
        "{error}"
    );
    bench.assert_rows(0..20);
    Pipeline::new(bench.folder.path(), &text(bench.kafka, &bench.topic, &bench.topic, "", "{age: 1s}", ""));
    bench.run_to_the_end();
    bench.assert_rows(0..40);
}

#[test]
fn repair_publishes_what_a_dead_pipeline_has_sealed() {
    let Some(bench) = Bench::new("repaired") else { return };
    bench.produce(90);
    bench.pipeline.start(Some("after-move:1")).wait_for_kill(PATIENCE);
    let published = bench.pipeline.read_back().len();
    assert!(published > 0 && published < 90, "{published}");
    assert!(bench.ok(&["ledger", "verify"]).contains("is staged; the next start publishes it"));
    let text = bench.ok(&["ledger", "repair"]);
    assert!(text.contains("would: ") && text.contains("nothing was changed; add --yes to do it"), "{text}");
    assert_eq!(bench.pipeline.read_back().len(), published);
    let text = bench.ok(&["ledger", "repair", "--yes", "--reason", "readers wait"]);
    assert!(text.contains("done: "), "{text}");
    let sealed = bench.pipeline.read_back().len() as i64;
    bench.assert_rows(0..sealed);
    assert!(bench.ok(&["ledger", "log"]).contains("reason: readers wait"));
    assert!(bench.ok(&["ledger", "repair"]).contains("nothing that can be repaired"));
    bench.run_to_the_end();
    bench.assert_rows(0..90);
}

/// What is staged, in the order of its publishing.
fn staged(state: &Path) -> Vec<PathBuf> {
    let mut staged: Vec<PathBuf> = Vec::new();
    let mut folders = vec![state.join("staged")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { staged.push(path) }
        }
    }
    staged.sort();
    staged
}

#[test]
fn a_file_that_was_lost_before_it_was_published_stops_and_repair_accepts_it() {
    let Some(bench) = Bench::new("lost") else { return };
    bench.produce(90);
    bench.pipeline.start(Some("after-seal:1")).wait_for_kill(PATIENCE);
    let staged = staged(&bench.state());
    assert_eq!(staged.len(), 3, "one of each day: {staged:?}");
    fs::remove_file(&staged[1]).unwrap();
    let error = bench.run_to_the_stop();
    assert!(error.contains("was sealed and is gone before it was published"), "{error}");
    assert!(error.contains("everything below offset 0 is published and safe"), "{error}");
    let lost = error.split_once(": ").and_then(|(_, rest)| rest.split_once(": ")).unwrap().1;
    let (lost, _) = lost.split_once(" (").expect("the file is named first");
    assert!(lost.ends_with("+001.parquet"), "{lost}");
    bench.assert_rows([]);
    assert!(printed(&error, "replay").contains(" --from 0 --to "), "{error}");
    let (code, text) = bench.pipeline.command(&["ledger", "repair"]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains(lost) && text.contains("add --accept-missing"), "{text}");

    bench.paste(&printed(&error, "ledger repair"));
    let log = bench.run_to_the_end();
    assert!(log.contains("a file of the newest ledger entry is gone"), "{log}");
    let found = bench.pipeline.read_back();
    let day = |offset: i64| offset % 3;
    let missing: Vec<i64> = (0..90).filter(|o| !found.iter().any(|f| f.place.1 == *o)).collect();
    assert!(!missing.is_empty() && missing.iter().all(|o| day(*o) == day(missing[0])), "{missing:?}");
    assert_eq!(found.len() + missing.len(), 90);
}

#[test]
fn a_lost_file_holds_an_operation_up_with_the_command_that_goes_on() {
    let Some(bench) = Bench::new("held-up") else { return };
    bench.produce(90);
    bench.pipeline.start(Some("after-seal:1")).wait_for_kill(PATIENCE);
    fs::remove_file(&staged(&bench.state())[1]).unwrap();
    // The first entry need not have all 90.
    bench.produce(10);
    let skip = format!(
        "gristmill ledger skip {} --topic {} --partition 0 --to 100 --yes",
        bench.pipeline.file().display(),
        bench.topic
    );
    let (code, text) = bench.pipeline.paste(&skip);
    assert_eq!(code, Some(1), "{text}");
    let repair = printed(&text, "ledger repair");
    assert!(repair.ends_with("--accept-missing"), "{repair}");
    let (code, text) = bench.pipeline.paste(&format!("{repair} --yes"));
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = bench.pipeline.paste(&skip);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn what_a_reset_publishes_is_in_the_trail_also_if_the_group_refuses_its_offset() {
    // Until its session ends, a process that was killed is a member of the group.
    let Some(bench) = Bench::with("half-done", ", session_timeout: 60s", "{age: 1s}", "") else { return };
    bench.produce(90);
    bench.run_to_the_end();
    bench.produce(90);
    bench.pipeline.start(Some("after-seal:1")).wait_for_kill(PATIENCE);
    let (code, text) = bench.pipeline.command(&["ledger", "reset", "--yes"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("the group has members"), "{text}");
    let log = bench.ok(&["ledger", "log"]);
    assert!(log.contains("failed: error: "), "{log}");
    assert!(log.contains("published 3 files of the newest entry"), "{log}");
}

#[test]
fn a_ledger_that_lost_its_genesis_stops_and_neither_a_start_nor_a_reset_begins_it_anew() {
    let Some(bench) = Bench::new("genesis") else { return };
    bench.produce(20);
    bench.run_to_the_end();
    let mut folders = vec![bench.state().join("ledger")];
    let genesis = loop {
        let folder = folders.pop().expect("there is a genesis");
        let paths = || fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        match paths().find(|path| path.ends_with("genesis.json")) {
            Some(genesis) => break genesis,
            None => folders.extend(paths().filter(|path| path.is_dir())),
        }
    };
    let copy = fs::read(&genesis).unwrap();
    fs::remove_file(&genesis).unwrap();
    let error = bench.run_to_the_stop();
    assert!(error.contains("genesis.json is gone") && error.contains("Restore it from a copy"), "{error}");
    assert!(!error.contains("ledger reset"), "{error}");
    let (code, text) = bench.pipeline.command(&["ledger", "reset", "--yes"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("genesis.json is gone") && !genesis.exists(), "{text}");
    fs::write(&genesis, copy).unwrap();
    bench.produce(20);
    bench.run_to_the_end();
    bench.assert_rows(0..40);
}

#[test]
fn a_skip_beside_a_running_pipeline_takes_the_open_range_from_it() {
    let address = free_address();
    let http = format!("http: {{listen: '{address}'}}\n");
    let Some(bench) = Bench::with("beside", SHORT_SESSION, "{age: 1h}", &http) else { return };
    bench.produce(100);
    let run = bench.pipeline.start(None);
    wait_until("100 records are read", PATIENCE, || {
        get(address, "/metrics").is_some_and(|(_, text)| text.contains("gristmill_records_in_total 100\n"))
    });
    bench.paste(&format!(
        "gristmill ledger skip {} --topic {} --partition 0 --to 60 --yes",
        bench.pipeline.file().display(),
        bench.topic
    ));
    // Its own seal is refused: it goes on at 60 when it is started again.
    bench.stop(run);
    let run = bench.pipeline.start(None);
    wait_until("40 records are read", PATIENCE, || {
        get(address, "/metrics").is_some_and(|(_, text)| text.contains("gristmill_records_in_total 40\n"))
    });
    bench.stop(run);
    bench.assert_rows(60..100);
    assert!(bench.ok(&["ledger", "verify"]).starts_with("ok "));
}
