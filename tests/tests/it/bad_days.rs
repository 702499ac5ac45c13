//! Bad input and bad days: each is brought about against the real command, told, mended, and gone on from with every
//! record where it has to be, exactly once. The table in `docs/bad_days.md` is what this test has seen.

mod bench;
mod file;
mod kafka;
mod registry;
mod schemas;
mod stores;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bench::{Told, World};
use gristmill_tests::shared_kafka;

struct Day {
    /// What is wrong.
    what: &'static str,
    noticed: &'static str,
    live: fn(&World) -> Option<Told>,
    /// What the message must hold: what, where, what to do.
    words: &'static [&'static str],
    go_on: &'static str,
}

const CHECK: &str = "`pipeline check`, start";
const START: &str = "start";
const RUN: &str = "while it runs";

macro_rules! day {
    ($what:literal, $noticed:expr, $live:path, $words:expr, $go_on:literal) => {
        Day {
            what: $what,
            noticed: $noticed,
            live: |world| Some($live(world)),
            words: &$words,
            go_on: $go_on,
        }
    };
}

const DAYS: &[Day] = &[
    day!(
        "an unknown key",
        CHECK,
        file::unknown_key,
        ["pipeline.yaml:", "directores", "directories"],
        "correct the file"
    ),
    day!(
        "a value of the wrong type",
        CHECK,
        file::wrong_type,
        ["pipeline.yaml:", "rows"],
        "correct the file"
    ),
    day!(
        "a column of an unknown type",
        CHECK,
        file::unknown_column_type,
        ["pipeline.yaml:", "strng"],
        "correct the file"
    ),
    day!(
        "a secret's variable is not set",
        CHECK,
        file::variable_not_set,
        ["sasl.password", "GRISTMILL_NO_SUCH_PASSWORD is not set"],
        "set it"
    ),
    day!(
        "a secret's file is missing",
        CHECK,
        file::secret_file_missing,
        ["sasl.password", "password cannot be read"],
        "write it"
    ),
    day!(
        "the transform is no component",
        CHECK,
        file::broken_transform,
        ["transforms[0]", "orders.wasm"],
        "build it again"
    ),
    day!(
        "Google's credentials file is none",
        START,
        file::credentials_are_no_json,
        ["gs://lake/rows", "key.json", "not JSON"],
        "name the right file"
    ),
    day!(
        "the port for metrics is taken",
        START,
        file::port_taken,
        ["http.listen"],
        "free it, or name another"
    ),
    day!(
        "no broker listens",
        START,
        kafka::nobody_listens,
        ["source.kafka.bootstrap_servers", "check the address", "Connection refused"],
        "correct the address; a supervisor's restart does when the brokers are back"
    ),
    day!(
        "a wrong password for Kafka",
        START,
        kafka::wrong_password,
        ["refuse the credentials", "sasl."],
        "correct it"
    ),
    day!(
        "a topic is missing",
        START,
        kafka::topic_missing,
        ["no topic `payments`", "source.kafka.topics"],
        "create it"
    ),
    day!(
        "the topic of the dead letters is missing",
        START,
        kafka::dead_letter_topic_missing,
        ["no topic `letters`", "dead_letters.topic"],
        "create it"
    ),
    day!(
        "Kafka does not allow the topic",
        START,
        kafka::topic_not_allowed,
        ["does not allow it", "Read and Describe on the topics", "orders"],
        "grant it"
    ),
    day!(
        "Kafka does not allow the group",
        START,
        kafka::group_not_allowed,
        ["does not allow it", "Read on the group"],
        "grant it"
    ),
    day!(
        "the registry is down",
        START,
        schemas::down,
        ["registry:8081", "orders-value", "refused"],
        "start again once it is up"
    ),
    day!(
        "the registry answers 401",
        START,
        schemas::wrong_password,
        ["401", "user and password"],
        "correct them"
    ),
    day!(
        "the registry answers 404",
        START,
        schemas::no_subject,
        ["404", "orders-value"],
        "register the schema, or name its subject in `decode.subject`"
    ),
    day!(
        "the registry answers 500",
        START,
        schemas::broken,
        ["500", "see its log"],
        "start again once it is well"
    ),
    day!(
        "the registry never answers",
        START,
        schemas::silent,
        ["no answer in time"],
        "start again once it does"
    ),
    day!("the registry is slow", START, schemas::slow, [], "nothing to do"),
    day!(
        "the registry fails when a record names a new schema",
        RUN,
        schemas::down_in_mid_stream,
        ["orders-0", "schema id 2", "503"],
        "start again once it is well"
    ),
    day!(
        "a record names a schema that the registry does not know",
        RUN,
        schemas::unknown_id,
        ["4711"],
        "register it; `gristmill dlq replay` delivers the records"
    ),
    day!(
        "an incompatible schema in mid-stream",
        RUN,
        schemas::incompatible,
        ["writer schema 2", "cannot be read", "field `amount_cents`"],
        "mend the producer, or read the range once more with `gristmill replay` and the new columns"
    ),
    day!(
        "producers of several versions of the schema write in turn",
        RUN,
        schemas::alternating,
        [],
        "nothing to do"
    ),
    day!(
        "a record that cannot be decoded, and no `dead_letters`",
        RUN,
        schemas::undecodable,
        ["orders-0", "offset 20", "`dead_letters`"],
        "add `dead_letters`"
    ),
    day!("the bucket is missing", START, stores::bucket_missing, ["404", "create the bucket"], "create it"),
    day!(
        "the bucket may not be written to",
        START,
        stores::bucket_not_allowed,
        ["403", "gs://lake", "Storage Object User"],
        "grant the role"
    ),
    day!(
        "Cloud Storage refuses the token",
        START,
        stores::token_refused,
        ["401", "check the credentials"],
        "correct them"
    ),
    day!(
        "the permission is withdrawn",
        RUN,
        stores::permission_withdrawn,
        ["orders-0", "403", "Storage Object User"],
        "grant the role again"
    ),
    day!("the disk is full", RUN, stores::disk_full, ["orders-0", "free some space"], "free some space"),
    Day {
        what: "the folder is read-only",
        noticed: START,
        live: stores::folder_read_only,
        words: &["rows", "right to write"],
        go_on: "make it writable",
    },
    day!(
        "a file is where the folder has to be",
        START,
        stores::file_in_the_way,
        ["rows", "a file is where"],
        "move it away"
    ),
    day!(
        "the clock is a day behind at a start, and right at the next",
        RUN,
        stores::clock_set_back,
        [],
        "nothing to do"
    ),
];

const HEAD: &str = "# Bad input and bad days

What goes wrong, when it is noticed, what becomes of the pipeline, and the first line of what it says; exit codes are
those of `gristmill --help`. After every one of these days, once the mend is done, every record is a row or a dead
letter, exactly once. An offset that was moved, a range that retention took, a ledger or a file that is gone have
[stops with a command of their own](../README.md#running-it).

The table is what `bad_days` in `tests/` has seen; `UPDATE_DOCS=1` with that test writes it anew.

| what | noticed | fate | first line | to go on |
|---|---|---|---|---|
";

fn row(day: &Day, told: &Told) -> String {
    let message = match told.message.as_str() {
        "" => "—".to_owned(),
        // In a table a bar ends the cell, also in code.
        text => format!("`` {} ``", text.replace('|', "\\|")),
    };
    format!("| {} | {} | {} | {message} | {} |", day.what, day.noticed, told.fate, day.go_on)
}

/// Enough to have one day wait while others work.
const AT_ONCE: usize = 6;

#[test]
fn every_bad_day_is_told_and_mended_and_nothing_is_lost() {
    let Some(kafka) = shared_kafka() else { return };
    let only = std::env::var("BAD_DAY").unwrap_or_default();
    let days: Vec<&Day> = DAYS.iter().filter(|day| day.what.contains(&only)).collect();
    let world = World::new(kafka);
    let (next, seen) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(day) = days.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let lived = catch_unwind(AssertUnwindSafe(|| (day.live)(&world)));
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push((day.what, lived));
                }
            });
        }
    });
    let mut seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bad_days.md");
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let (mut table, mut wrong) = (HEAD.to_owned(), String::new());
    for day in &days {
        let at = seen.iter().position(|(what, _)| *what == day.what).expect("every day was lived");
        let line = match seen.swap_remove(at).1 {
            Ok(Some(told)) => {
                for word in day.words.iter().filter(|word| !told.message.contains(**word)) {
                    writeln!(wrong, "{}: {word:?} is not in {:?}", day.what, told.message).unwrap();
                }
                row(day, &told)
            }
            Ok(None) => {
                assert!(!std::env::var("CI").is_ok_and(|v| v == "true"), "{}: may not mount", day.what);
                gristmill_tests::say(format_args!("SKIPPED: {}: it takes the right to mount", day.what));
                let start = format!("| {} |", day.what);
                written.lines().find(|line| line.starts_with(&start)).unwrap_or_default().to_owned()
            }
            Err(_) => {
                writeln!(wrong, "{}: the panic is above", day.what).unwrap();
                continue;
            }
        };
        writeln!(table, "{line}").unwrap();
    }
    gristmill_tests::say(&table);
    assert!(wrong.is_empty(), "{wrong}");
    if !only.is_empty() {
        return;
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &table).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(table, written, "docs/bad_days.md is not what was seen; UPDATE_DOCS=1 writes it anew");
}
