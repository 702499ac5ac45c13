//! A rolling restart of three members: partitions that stay where they are keep flowing, and the pause of those that
//! move is measured.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use gristmill_tests::orders::{Encoding, Fate, Order, Orders};
use gristmill_tests::pipeline::{Pipeline, Running, assert_exactly_once, wait_until};
use gristmill_tests::{OrderProducer, RealKafka, say, unique};

const PATIENCE: Duration = Duration::from_secs(90);
const PARTITIONS: i32 = 12;

/// How old files get: between two entries of a partition lies this much, and up to a quarter of a second more.
const AGE: Duration = Duration::from_secs(1);

/// How long after each stop and start the group is watched, once every partition flows.
const WATCHED: Duration = Duration::from_secs(6);

/// What a partition that stays may wait at the most: a busy machine, not a group that stands still.
const STAYS: Duration = Duration::from_secs(8);

/// As brokers have it if nobody says otherwise; the other tests' are in more of a hurry.
const DEFAULTS: &[(&str, &str)] =
    &[("group.consumer.heartbeat.interval.ms", "5000"), ("group.consumer.session.timeout.ms", "45000")];

/// Produces one order for every partition ten times a second, until it is told to end.
fn trickle(bootstrap: String, topic: String, stop: Arc<AtomicBool>) -> Vec<Order> {
    let producer = OrderProducer::new(&bootstrap, &topic);
    let mut orders = Orders::new(Encoding::Json, 17);
    let mut sent = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let batch: Vec<_> = (0..PARTITIONS).map(|partition| (partition, orders.make())).collect();
        producer.plain(&topic, &batch);
        sent.extend(batch.into_iter().map(|(_, order)| order));
        std::thread::sleep(Duration::from_millis(100));
    }
    sent
}

/// An entry: when it was sealed, and by which process.
#[derive(Clone, Copy, Debug)]
struct Sealed {
    at: SystemTime,
    by: usize,
}

/// The entries of each partition in order.
type Entries = BTreeMap<i32, Vec<Sealed>>;

/// When an entry was sealed is the time of its object; by whom, that one's log says.
fn entries(pipeline: &Pipeline, folder: &Path, topic: &str, runs: usize) -> Entries {
    let mut by = BTreeMap::new();
    for run in 0..runs {
        for line in pipeline.log(run).lines() {
            let field = |name: &str| line.split_once(name)?.1.split_whitespace().next()?.parse::<i64>().ok();
            if let (true, Some(partition), Some(first)) =
                (line.contains("published partition="), field("partition="), field("first="))
            {
                by.insert((partition as i32, first), run);
            }
        }
    }
    let topic = folder.join("rows/_gristmill/ledger").join(topic);
    let incarnation = std::fs::read_dir(topic).unwrap().next().unwrap().unwrap().path();
    (0..PARTITIONS)
        .map(|partition| {
            let ledger = std::fs::read_dir(incarnation.join(format!("{partition:05}"))).unwrap();
            let mut sealed: Vec<_> = ledger
                .filter_map(|object| {
                    let object = object.unwrap();
                    let first = object.file_name().to_str()?.strip_suffix(".json")?.parse().ok()?;
                    let at = object.metadata().unwrap().modified().unwrap();
                    // One that a predecessor sealed and did not publish is in nobody's log.
                    by.get(&(partition, first)).map(|by| Sealed { at, by: *by })
                })
                .collect();
            sealed.sort_by_key(|entry| entry.at);
            (partition, sealed)
        })
        .collect()
}

/// The longest time without an entry of a partition between two moments, and whether somebody else seals it then.
fn longest_gap(entries: &[Sealed], from: SystemTime, to: SystemTime) -> (Duration, bool) {
    let before = entries.iter().rposition(|e| e.at < from).expect("it was sealed before");
    let seen: Vec<_> = entries[before..].iter().take_while(|e| e.at < to).collect();
    let gaps = seen.windows(2).map(|pair| pair[1].at.duration_since(pair[0].at).unwrap_or_default());
    let last = to.duration_since(seen[seen.len() - 1].at).unwrap_or_default();
    (gaps.chain([last]).max().unwrap_or_default(), seen.iter().any(|e| e.by != seen[0].by))
}

/// Smallest, median and largest, in seconds.
fn spread(gaps: &[Duration]) -> String {
    let mut gaps: Vec<_> = gaps.iter().map(Duration::as_secs_f64).collect();
    gaps.sort_by(f64::total_cmp);
    match gaps[..] {
        [] => "none".to_owned(),
        [first, .., last] => format!("{first:.2} / {:.2} / {last:.2} s", gaps[gaps.len() / 2]),
        [only] => format!("{only:.2} s"),
    }
}

/// The same protocol, three members, each restarted in turn while records trickle in.
fn restart_one_after_the_other(protocol: &str) {
    let Some(kafka) = RealKafka::start_with(1, DEFAULTS) else { return };
    let topic = unique(&format!("rolling-{protocol}"));
    tokio::runtime::Runtime::new().unwrap().block_on(kafka.create_topic(&topic, PARTITIONS, &[]));
    let bootstrap = kafka.bootstrap_servers();
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "name: {topic}\nsource:\n  kafka:\n    bootstrap_servers: '{bootstrap}'\n    topics: [{topic}]\n    \
         group_protocol: {protocol}\ndecode:\n  format: json\n  fields: {{order_id: string not null}}\nsink:\n  files: \
         {{folder: rows, rotate: {{age: {}s}}}}\ndead_letters: {{folder: dead_letters}}\n",
        AGE.as_secs()
    );
    let pipeline = Pipeline::new(folder.path(), &text);
    let stop = Arc::new(AtomicBool::new(false));
    let feeding = {
        let (bootstrap, topic, stop) = (bootstrap.clone(), topic.clone(), stop.clone());
        std::thread::spawn(move || trickle(bootstrap, topic, stop))
    };
    let mut started = 0;
    let mut start = || {
        started += 1;
        (started - 1, pipeline.start(None))
    };
    let owners = |runs| -> BTreeMap<i32, usize> {
        let all = entries(&pipeline, folder.path(), &topic, runs);
        all.iter().filter_map(|(p, sealed)| Some((*p, sealed.last()?.by))).collect()
    };
    let spread_over = |runs, members: &[usize]| {
        wait_until("the living members seal every partition, each its share", PATIENCE, || {
            std::thread::sleep(Duration::from_millis(200));
            let share = PARTITIONS as usize / members.len();
            let owners = owners(runs);
            members.iter().all(|m| owners.values().filter(|by| *by == m).count() == share)
        });
    };

    let mut members: Vec<(usize, Running)> = vec![start()];
    members[0].1.wait_for("published partition=", PATIENCE);
    members.extend([start(), start()]);
    spread_over(3, &[0, 1, 2]);
    let calm = SystemTime::now();
    std::thread::sleep(WATCHED);
    let calm = (calm, SystemTime::now());
    // Each step: when it began and when the next did, and what was done.
    let mut steps = Vec::new();
    for _ in 0..3 {
        let began = SystemTime::now();
        let (_, run) = members.remove(0);
        assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());
        let exited = began.elapsed().unwrap_or_default();
        let runs = members[1].0 + 1;
        spread_over(runs, &members.iter().map(|m| m.0).collect::<Vec<_>>());
        std::thread::sleep(WATCHED);
        let restarted = SystemTime::now();
        steps.push((
            began,
            restarted,
            format!("a member is stopped (gone after {:.2} s)", exited.as_secs_f64()),
        ));

        members.push(start());
        spread_over(runs + 1, &members.iter().map(|m| m.0).collect::<Vec<_>>());
        std::thread::sleep(WATCHED);
        steps.push((restarted, SystemTime::now(), "a member is started".to_owned()));
        members.iter_mut().for_each(|(_, run)| run.assert_alive());
    }
    stop.store(true, Ordering::Relaxed);
    let sent = feeding.join().expect("everything was produced");
    let ends = kafka.end_offsets(&topic, PARTITIONS);
    let group = format!("gristmill-{topic}");
    wait_until("the group comes to the end", PATIENCE, || {
        kafka.committed_offsets(&group, &topic, PARTITIONS) == ends
    });
    for (_, run) in members {
        assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());
    }

    let all = entries(&pipeline, folder.path(), &topic, 6);
    say(format_args!("{protocol}, {PARTITIONS} partitions, files closed at {} s:", AGE.as_secs()));
    let (mut stopped, mut begun, mut still) = (Vec::new(), Vec::new(), Vec::new());
    for (from, to, what) in &steps {
        let (mut moved, mut stayed) = (Vec::new(), Vec::new());
        for sealed in all.values() {
            let (gap, moves) = longest_gap(sealed, *from, *to);
            if moves { moved.push(gap) } else { stayed.push(gap) }
        }
        say(format_args!(
            "  {what}: {} move {}, {} stay {}",
            moved.len(),
            spread(&moved),
            stayed.len(),
            spread(&stayed)
        ));
        if what.contains("stopped") {
            stopped.extend(&moved)
        } else {
            begun.extend(&moved)
        }
        still.extend(stayed);
        assert!(!moved.is_empty(), "{what}, and no partition moves");
    }
    say(format_args!("  at a stop, those that move: {}", spread(&stopped)));
    say(format_args!("  at a start, those that move: {}", spread(&begun)));
    say(format_args!("  those that stay: {}", spread(&still)));
    assert!(still.len() > steps.len(), "hardly any partition stays");
    // As long as the same machine takes when nothing moves, and no longer than what is a restart's own.
    let mut usual: Vec<Duration> = all.values().map(|sealed| longest_gap(sealed, calm.0, calm.1).0).collect();
    usual.sort();
    say(format_args!("  when nothing moves: {}", spread(&usual)));
    let longest = still.iter().max().expect("some stay");
    let bound = usual[usual.len() - 1] + STAYS;
    assert!(*longest < bound, "a partition that stays waited {longest:?}:\n{}", pipeline.logs());
    still.sort();
    let (median, bound) = (still[still.len() / 2], 2 * usual[usual.len() / 2] + AGE);
    assert!(median < bound, "partitions that stay wait {median:?}, as if they moved:\n{}", pipeline.logs());

    let expected = sent
        .iter()
        .map(|order| match order.fate {
            // There is no transform: only what is not JSON is refused.
            Fate::DeadLetter("MALFORMED_JSON") => {
                (order.id.clone(), ("dead_letter".to_owned(), format!("DECODE_MALFORMED {}", order.id)))
            }
            _ => (order.id.clone(), ("main".to_owned(), order.id.clone())),
        })
        .collect();
    assert_exactly_once(&expected, &pipeline.read_back(), &pipeline.logs());
    let (code, text) = pipeline.command(&["audit"]);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn partitions_that_stay_keep_flowing_through_a_rolling_restart_of_a_cooperative_group() {
    restart_one_after_the_other("cooperative");
}

#[test]
fn partitions_that_stay_keep_flowing_through_a_rolling_restart_of_a_kip_848_group() {
    restart_one_after_the_other("consumer");
}
