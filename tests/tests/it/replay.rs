//! A bounded range once more, beside the live pipeline: killed, shared, stopped, and refused where it cannot be had.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use gristmill_tests::orders::{Encoding, Fate, Order, Orders};
use gristmill_tests::pipeline::{Found, Pipeline, Running, assert_exactly_once, wait_until};
use gristmill_tests::{OrderProducer, RealKafka, shared_kafka, unique};

/// A run joins its group only once the broker has given up the one before it.
const PATIENCE: Duration = Duration::from_secs(90);

fn create(kafka: &RealKafka, topic: &str, partitions: i32) {
    tokio::runtime::Runtime::new().unwrap().block_on(kafka.create_topic(topic, partitions, &[]));
}

fn text(kafka: &RealKafka, topic: &str) -> String {
    format!(
        "name: {topic}\nsource:\n  kafka: {{bootstrap_servers: '{}', topics: [{topic}], session_timeout: 6s}}\ndecode:\n  \
         format: json\n  fields: {{order_id: string not null, amount_cents: int64 not null}}\nsink:\n  files: {{folder: rows, \
         rotate: {{rows: 60, age: 1s}}}}\ndead_letters: {{folder: dead_letters}}\n",
        kafka.bootstrap_servers()
    )
}

/// Without a transform only what is not JSON is refused.
fn expected<'a>(orders: impl IntoIterator<Item = &'a Order>) -> BTreeMap<String, (String, String)> {
    let found = |order: &Order| match order.fate {
        Fate::DeadLetter("MALFORMED_JSON") => {
            ("dead_letter".into(), format!("DECODE_MALFORMED {}", order.id))
        }
        _ => ("main".into(), order.id.clone()),
    };
    orders.into_iter().map(|order| (order.id.clone(), found(order))).collect()
}

/// Every visible file of a folder with its content.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(['_', '.'])) {
            continue;
        }
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.display().to_string(), std::fs::read(&path).unwrap())),
        }
    }
    found
}

fn ends_with(mut run: Running, code: i32) -> String {
    let status = run.wait(PATIENCE);
    assert_eq!(status.code(), Some(code), "{}", run.log());
    run.log()
}

fn refused(pipeline: &Pipeline, options: &[&str], why: &str) {
    let log = ends_with(pipeline.replay(options, None), 2);
    assert!(log.contains(why), "{options:?}: no {why:?} in\n{log}");
}

fn rfc3339(milliseconds: i64) -> String {
    jiff::Timestamp::from_millisecond(milliseconds).unwrap().to_string()
}

/// Where the ledger of each partition of a replay ends, as `gristmill ledger ls` tells it.
fn ledger_ends(pipeline: &Pipeline, name: &str) -> Vec<i64> {
    let (code, text) = pipeline.command(&["ledger", "ls", "--replay", name]);
    assert_eq!(code, Some(0), "{text}");
    text.lines().filter_map(|l| l.trim().strip_prefix("next offset ")).map(|n| n.parse().unwrap()).collect()
}

#[test]
fn a_range_of_time_is_replayed_exactly_once_through_kills_while_the_live_pipeline_runs() {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("replay");
    create(kafka, &topic, 2);
    let producer = OrderProducer::new(&kafka.bootstrap_servers(), &topic);
    let mut orders = Orders::new(Encoding::Json, 5);
    let mut visible = Vec::new();
    let mut times = Vec::new();
    // At true times: brokers give the records that end a transaction the time of the day, and find them by it.
    for round in 0..20 {
        let now = jiff::Timestamp::now().as_millisecond();
        let made = (0..1000).map(|i| (i % 2, Order { timestamp: now + i64::from(i / 50), ..orders.make() }));
        let batch: Vec<(i32, Order)> = made.collect();
        match round % 4 {
            1 => producer.aborted(&topic, &batch),
            2 => producer.committed(&topic, &batch),
            _ => producer.plain(&topic, &batch),
        }
        times.push(now + 10);
        if round % 4 != 1 {
            visible.extend(batch.into_iter().map(|(_, order)| order));
        }
        std::thread::sleep(Duration::from_millis(60));
    }
    let folder = tempfile::tempdir().unwrap();
    let pipeline = Pipeline::new(folder.path(), &text(kafka, &topic));
    let live = pipeline.start(None);
    let group = format!("gristmill-{topic}");
    // A transaction's marker comes after its producer has its answer.
    wait_until("the live pipeline reads everything", PATIENCE, || {
        kafka.committed_offsets(&group, &topic, 2) == kafka.end_offsets(&topic, 2)
    });
    let before = (files(&folder.path().join("rows")), kafka.committed_offsets(&group, &topic, 2));

    // Both ends lie inside a batch.
    let (from, to) = (rfc3339(times[4]), rfc3339(times[15]));
    let range = ["--from", &from, "--to", &to, "--into", "again"];
    let (first, end) = (kafka.offsets_at(&topic, 2, times[4]), kafka.offsets_at(&topic, 2, times[15]));
    for failpoint in ["after-stage:2", "after-seal:1", "after-move:2", "before-commit:1"] {
        pipeline.replay(&range, Some(failpoint)).wait_for_kill(PATIENCE);
    }
    let log = ends_with(pipeline.replay(&range, None), 0);
    let is_inside = |place: (i32, i64, u32)| {
        let partition = place.0 as usize;
        (first[partition]..end[partition]).contains(&place.1)
    };
    let places = pipeline.read_back().into_iter().filter(|f| is_inside(f.place));
    let inside = places.map(|f| f.what.rsplit(' ').next().unwrap().to_owned()).collect::<BTreeSet<_>>();
    let found = pipeline.read_replay("again");
    let expected_here = expected(visible.iter().filter(|order| inside.contains(&order.id)));
    assert_exactly_once(&expected_here, &found, &pipeline.logs());
    assert!(found.len() > 6000, "most of eleven rounds: {}", found.len());
    assert!(found.iter().any(|f| f.output == "dead_letter"), "the range holds malformed orders");
    assert!(found.len() < visible.len());
    assert!(pipeline.count_in_logs("published an entry of a predecessor") > 0, "{}", pipeline.logs());
    assert_eq!(ledger_ends(&pipeline, "again"), end);
    let rows = found.iter().filter(|f| f.output == "main").count();
    assert_eq!(log.matches(" rows, 0 dropped, ").count(), 2, "a line for each partition:\n{log}");
    assert_eq!(
        log.lines()
            .filter_map(|l| l.split(" rows, ").next()?.rsplit(' ').next()?.parse::<usize>().ok())
            .sum::<usize>(),
        2 * rows,
        "the counts and the check say the same:\n{log}"
    );
    let (code, text) = pipeline.command(&["ledger", "verify", "--replay", "again"]);
    assert_eq!(code, Some(0), "{text}");

    // Nothing is left to do, and other bounds are another replay's.
    let files_of_replay = files(&folder.path().join("again"));
    ends_with(pipeline.replay(&range, None), 0);
    assert_eq!(files(&folder.path().join("again")), files_of_replay);
    let why = format!("was started with --from {from} --to {to}, at ");
    refused(&pipeline, &["--from", "2026-11-01", "--into", "again"], &why);

    let after = (files(&folder.path().join("rows")), kafka.committed_offsets(&group, &topic, 2));
    assert!(before == after, "the live pipeline's files or offsets have changed");
    // And it has run all the time.
    let late: Vec<(i32, Order)> = (0..10).map(|i| (i % 2, orders.make())).collect();
    producer.plain(&topic, &late);
    let ends = kafka.end_offsets(&topic, 2);
    wait_until("the live pipeline reads on", PATIENCE, || kafka.committed_offsets(&group, &topic, 2) == ends);
    assert_eq!(live.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());
    let all = expected(visible.iter().chain(late.iter().map(|(_, order)| order)));
    assert_exactly_once(&all, &pipeline.read_back(), &pipeline.logs());
}

/// Offsets 0 to 99 are visible, 100 to 149 aborted, 150 is a control record, 151 to 250 visible, 251 to 260
/// aborted, 261 a control record.
fn log_with_gaps(kafka: &RealKafka, topic: &str) {
    create(kafka, topic, 2);
    let producer = OrderProducer::new(&kafka.bootstrap_servers(), topic);
    let mut orders = Orders::new(Encoding::Json, 6);
    let mut make = |count: usize| (0..count).map(|_| (1, orders.make())).collect::<Vec<(i32, Order)>>();
    producer.plain(topic, &make(100));
    producer.aborted(topic, &make(50));
    // The control record comes a little after the answer.
    wait_until("the transaction's end is written", PATIENCE, || kafka.end_offsets(topic, 2) == [0, 151]);
    producer.plain(topic, &make(100));
    producer.aborted(topic, &make(10));
    wait_until("the transaction's end is written", PATIENCE, || kafka.end_offsets(topic, 2) == [0, 262]);
}

fn offsets(found: &[Found]) -> Vec<i64> {
    let mut offsets: Vec<i64> = found.iter().map(|f| f.place.1).collect();
    offsets.sort_unstable();
    offsets
}

#[test]
fn a_range_of_offsets_ends_exactly_at_its_bound_also_where_no_record_is() {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("bounds");
    log_with_gaps(kafka, &topic);
    let folder = tempfile::tempdir().unwrap();
    let pipeline = Pipeline::new(folder.path(), &text(kafka, &topic));
    for (name, from, to, rows, end) in [
        ("inside", "40", Some("60"), (40..60).collect::<Vec<i64>>(), 60),
        ("aborted", "95", Some("120"), (95..100).collect(), 120),
        ("control", "95", Some("150"), (95..100).collect(), 150),
        ("across", "99", Some("152"), vec![99, 151], 152),
        ("nothing", "101", Some("140"), vec![], 140),
        ("to-the-end", "249", None, vec![249, 250], 262),
        ("beyond", "249", Some("9000"), vec![249, 250], 262),
    ] {
        let mut options = vec!["--topic", &topic, "--partition", "1", "--from", from, "--into", name];
        options.extend(to.into_iter().flat_map(|to| ["--to", to]));
        ends_with(pipeline.replay(&options, None), 0);
        assert_eq!(offsets(&pipeline.read_replay(name)), rows, "{name}: {}", pipeline.logs());
        assert_eq!(ledger_ends(&pipeline, name), [end], "{name}");
    }
    // Killed in its only entry, with a file and without one.
    for (name, failpoint, from, to, rows) in [
        ("killed-1", "after-seal:1", "90", "120", (90..100).collect::<Vec<i64>>()),
        ("killed-2", "before-commit:1", "110", "140", vec![]),
    ] {
        let options = ["--topic", &topic, "--partition", "1", "--from", from, "--to", to, "--into", name];
        pipeline.replay(&options, Some(failpoint)).wait_for_kill(PATIENCE);
        ends_with(pipeline.replay(&options, None), 0);
        assert_eq!(offsets(&pipeline.read_replay(name)), rows, "{name}: {}", pipeline.logs());
        assert_eq!(ledger_ends(&pipeline, name), [to.parse::<i64>().unwrap()], "{name}");
    }
    // All partitions: the first has no record, and is finished as well.
    ends_with(pipeline.replay(&["--from", "0", "--to", "30", "--into", "all"], None), 0);
    assert_eq!(offsets(&pipeline.read_replay("all")), (0..30).collect::<Vec<i64>>());
}

#[test]
fn what_cannot_be_replayed_is_refused_and_says_what_can() {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("refused");
    log_with_gaps(kafka, &topic);
    let folder = tempfile::tempdir().unwrap();
    let pipeline = Pipeline::new(folder.path(), &text(kafka, &topic));
    refused(&pipeline, &["--from", "yesterday", "--into", "a"], "nor a span back from now (24h)");
    refused(&pipeline, &["--from", "0", "--into", "a/b"], "is not a name");
    refused(&pipeline, &["--from", "60", "--to", "40", "--into", "a"], "--from must lie before --to");
    refused(&pipeline, &["--from", "1h", "--to", "24h", "--into", "a"], "--from must lie before --to");
    refused(&pipeline, &["--from", "0", "--into", "rows"], "choose another name");
    refused(&pipeline, &["--from", "0", "--into", "dead_letters"], "choose another name");
    refused(&pipeline, &["--from", "0", "--topic", "other", "--into", "a"], "is not a topic of the file");
    refused(&pipeline, &["--from", "0", "--partition", "2", "--into", "a"], "has partitions 0 to 1");
    let why = format!(
        "there is no record in the range --from 300 --to 400: {topic}-0 is empty, {topic}-1 has offsets 0 to 261"
    );
    refused(&pipeline, &["--from", "300", "--to", "400", "--into", "a"], &why);

    std::fs::create_dir_all(folder.path().join("taken")).unwrap();
    std::fs::write(folder.path().join("taken/notes.txt"), "mine").unwrap();
    refused(&pipeline, &["--from", "0", "--into", "taken"], "notes.txt lies there");

    tokio::runtime::Runtime::new().unwrap().block_on(kafka.delete_records(&topic, 1, 30));
    let why = format!("retention has removed records of the range ({topic}-1: offsets 10 to 29)");
    refused(&pipeline, &["--from", "10", "--to", "40", "--into", "a"], &why);
    let log = ends_with(
        pipeline.replay(&["--from", "2026-11-01", "--to", "2026-11-01T00:00:10Z", "--into", "a"], None),
        0,
    );
    assert!(log.contains("begins at its earliest record, offset 30"), "{log}");
    assert_eq!(offsets(&pipeline.read_replay("a")), (30..40).collect::<Vec<i64>>());

    let other = tempfile::tempdir().unwrap();
    let missing = unique("missing");
    let pipeline = Pipeline::new(other.path(), &text(kafka, &missing));
    refused(&pipeline, &["--from", "0", "--into", "a"], &format!("the cluster has no topic {missing}"));
}

fn four_partitions(kafka: &RealKafka, stem: &str) -> (String, Vec<Order>) {
    let topic = unique(stem);
    create(kafka, &topic, 4);
    let mut orders = Orders::new(Encoding::Json, 8);
    let batch: Vec<(i32, Order)> = (0..16_000).map(|i| (i % 4, orders.make())).collect();
    OrderProducer::new(&kafka.bootstrap_servers(), &topic).plain(&topic, &batch);
    (topic, batch.into_iter().map(|(_, order)| order).collect())
}

#[test]
fn processes_share_a_replay_and_each_ends_well_when_all_of_it_is_published() {
    let Some(kafka) = shared_kafka() else { return };
    let (topic, orders) = four_partitions(kafka, "shared");
    let folder = tempfile::tempdir().unwrap();
    let pipeline = Pipeline::new(folder.path(), &text(kafka, &topic));
    // The first is frozen with a range staged, until the second has taken its partitions.
    let options = ["--from", "2026-11-01", "--into", "shared"];
    let mut first = pipeline.replay(&options, Some("after-stage:3:stop"));
    first.wait_for_stop(PATIENCE);
    let mut second = pipeline.replay(&options, None);
    second.wait_for("published partition", PATIENCE);
    first.resume();
    ends_with(first, 0);
    ends_with(second, 0);
    assert_exactly_once(&expected(&orders), &pipeline.read_replay("shared"), &pipeline.logs());
    assert_eq!(ledger_ends(&pipeline, "shared"), kafka.end_offsets(&topic, 4));

    // One is killed, and the other finishes what it left.
    let options = ["--from", "2026-11-01", "--into", "left"];
    let mut first = pipeline.replay(&options, Some("after-move:3:stop"));
    first.wait_for_stop(PATIENCE);
    let second = pipeline.replay(&options, None);
    first.kill();
    ends_with(second, 0);
    assert_exactly_once(&expected(&orders), &pipeline.read_replay("left"), &pipeline.logs());
    assert_eq!(ledger_ends(&pipeline, "left"), kafka.end_offsets(&topic, 4));
}

#[test]
fn on_a_signal_the_open_checkpoint_is_finished_and_the_same_command_goes_on() {
    let Some(kafka) = shared_kafka() else { return };
    let (topic, orders) = four_partitions(kafka, "stopped");
    let folder = tempfile::tempdir().unwrap();
    let pipeline = Pipeline::new(folder.path(), &text(kafka, &topic));
    let options = ["--from", "2026-11-01", "--into", "stopped"];
    let mut run = pipeline.replay(&options, Some("after-stage:2:stop"));
    run.wait_for_stop(PATIENCE);
    run.ask_to_stop();
    run.resume();
    let log = ends_with(run, 4);
    assert!(log.contains("run the same command again to go on"), "{log}");
    let some = pipeline.read_replay("stopped").len();
    assert!(some > 0 && some < orders.len(), "{some} of {}", orders.len());
    ends_with(pipeline.replay(&options, None), 0);
    assert_exactly_once(&expected(&orders), &pipeline.read_replay("stopped"), &pipeline.logs());
}
