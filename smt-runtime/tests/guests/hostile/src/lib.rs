//! One attack per name; `configure` takes the name, and the value `poison` sets it off. Speaks the contract
//! without the SDK, which would not let it lie.

wit_bindgen::generate!({ world: "record-transform", path: "../../../../wit" });

use std::cell::{Cell, RefCell};

use gristmill::transform::{log, metrics, types};
use gristmill_records::{EditWriter, Rows};

struct Hostile;
export!(Hostile);

thread_local! {
    static ATTACK: RefCell<String> = const { RefCell::new(String::new()) };
    static SEEN: Cell<u64> = const { Cell::new(0) };
    static HOARD: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

const KEEP: u32 = 0;
const SET_VALUE: u32 = 3;
const SET_HEADERS: u32 = 4;
const SET_TIMESTAMP: u32 = 5;
const ROUTE: u32 = 6;
const EMIT: u32 = 7;
const REJECT: u32 = 8;
const NULL: u32 = u32::MAX;

impl Guest for Hostile {
    fn describe() -> Manifest {
        Manifest {
            name: "hostile".into(),
            version: "1".into(),
            description: "attacks its host".into(),
            config_schema: r#"{"type": "object", "required": ["attack"], "properties": {
                "attack": {"type": "string"}, "token": {"type": "string", "writeOnly": true}}}"#
                .into(),
            outputs: vec![types::Output { name: "side".into(), description: String::new() }],
            reads: types::Reads::VALUES,
            columns: Vec::new(),
        }
    }

    fn configure(c: Configuration) -> Result<(), String> {
        let attack =
            c.config.split("\"attack\":\"").nth(1).and_then(|s| s.split('"').next()).unwrap_or_default();
        match attack {
            "trap_in_configure" => std::process::abort(),
            "loop_in_configure" => spin(),
            "hoard_in_configure" => hoard(),
            "refuse" => return Err(format!("no, and I tell everybody: {}", c.config)),
            _ => {}
        }
        ATTACK.with(|a| *a.borrow_mut() = attack.to_owned());
        Ok(())
    }

    fn apply(batch: RecordBatch) -> Edits {
        let attack = ATTACK.with(|a| a.borrow().clone());
        let rows = Rows { index: &batch.index, values: &batch.values, ..Rows::default() };
        let poisoned = rows.iter().any(|r| r.value() == Some(b"poison"));
        if poisoned {
            match attack.as_str() {
                "trap" => std::process::abort(),
                "loop" => spin(),
                "hoard" => hoard(),
                "recurse" => _ = recurse(rows.len() as u64),
                "recurse_with_large_frames" => _ = recurse_with_large_frames(rows.len() as u64),
                "fill" => fill(),
                "huge_output" => {
                    return Edits { operations: vec![batch.count << 8], data: vec![7; 48 << 20] };
                }
                "log_flood" => (0..100_000).for_each(|i| log::log(log::Level::Info, &format!("line {i}"))),
                "log_one_huge_line" => log::log(log::Level::Info, &"x".repeat(8 << 20)),
                "log_lines_that_do_not_fit" => {
                    log::log(log::Level::Info, &"x".repeat(65535));
                    let line = "é".repeat(1 << 20);
                    (0..20).for_each(|_| log::log(log::Level::Info, &line));
                }
                "log_then_trap" => {
                    log::log(log::Level::Error, "my last words");
                    metrics::count("before_the_end", 1);
                    std::process::abort()
                }
                "log_a_secret" => log::log(log::Level::Info, "the token is hunter2, I say: hunter2"),
                "metric_flood" => (0..10_000).for_each(|i| metrics::count(&format!("series_{i}"), 1)),
                "metric_nonsense" => {
                    metrics::count("", 1);
                    metrics::count("a b{c=\"d\"}\n", 1);
                    metrics::observe("fine", f64::NAN);
                    metrics::observe("fine", 3.0);
                }
                _ => {}
            }
        }
        if attack == "large_answers" {
            (0..60).for_each(|i| log::log(log::Level::Info, &format!("line {i}")));
            return Edits { operations: vec![batch.count << 8], data: vec![7; 10 << 20] };
        }
        if attack == "leak" {
            HOARD.with(|h| h.borrow_mut().push(vec![1; 1 << 20]));
        }
        if attack == "count" {
            return count(rows);
        }
        // The lies are told row by row, so that only the poisoned row is to blame.
        let mut operations = Vec::new();
        let mut data = Vec::new();
        for record in rows.iter() {
            if record.value() != Some(b"poison") {
                operations.push(word(KEEP, 1));
                continue;
            }
            data.resize(data.len() + 16, b'd');
            let lie: &[u32] = match attack.as_str() {
                "start_beyond_data" => &[SET_VALUE, 1 << 30, 1, word(KEEP, 1)],
                "length_beyond_data" => &[SET_VALUE, 0, 1 << 30, word(KEEP, 1)],
                "start_and_length_overflow" => &[SET_VALUE, NULL - 1, NULL - 1, word(KEEP, 1)],
                "no_headers" => &[SET_HEADERS, 0, 9, word(KEEP, 1)],
                "bad_timestamp" => &[SET_TIMESTAMP, 0, 1 << 31, word(KEEP, 1)],
                "set_twice" => &[SET_VALUE, 0, 1, SET_VALUE, 0, 1, word(KEEP, 1)],
                "missing_row" => &[],
                "doubled_row" => &[word(KEEP, 1), word(KEEP, 1)],
                "too_many_rows" => &[word(KEEP, (1 << 24) - 1)],
                "empty_run" => &[word(KEEP, 0), word(KEEP, 1)],
                "undeclared_output" => &[word(ROUTE, 2), word(KEEP, 1)],
                "undeclared_emit" => &[word(KEEP, 1), word(EMIT, 9), 0, NULL, 0, NULL, 0, 0, 0, 0],
                "unknown_operation" => &[200],
                "truncated" => &[word(KEEP, 1), REJECT, 0],
                "code_not_text" => {
                    data[..2].copy_from_slice(&[0xff, 0xfe]);
                    &[REJECT, 0, 2, 0, 0]
                }
                "amplify_records" => {
                    operations.push(word(KEEP, 1));
                    for _ in 0..100_000 {
                        operations.extend_from_slice(&[word(EMIT, 0), 0, NULL, 0, NULL, 0, 0, 0, 0]);
                    }
                    continue;
                }
                "amplify_bytes" => {
                    data.resize(1 << 20, b'd');
                    operations.push(word(KEEP, 1));
                    for _ in 0..50 {
                        operations.extend_from_slice(&[word(EMIT, 0), 0, NULL, 0, 1 << 20, 0, 0, 0, 0]);
                    }
                    continue;
                }
                _ => &[KEEP | 1 << 8],
            };
            operations.extend_from_slice(lie);
        }
        Edits { operations, data }
    }
}

fn word(operation: u32, argument: u32) -> u32 {
    operation | argument << 8
}

fn spin() -> ! {
    loop {
        SEEN.with(|s| s.set(std::hint::black_box(s.get().wrapping_add(1))));
    }
}

fn hoard() -> ! {
    loop {
        HOARD.with(|h| h.borrow_mut().push(vec![1; 4 << 20]));
    }
}

/// Runs out of the host's stack for guests.
fn recurse(n: u64) -> u64 {
    match std::hint::black_box(n) {
        u64::MAX => 0,
        n => recurse(n + 1).rotate_left(3) ^ n,
    }
}

/// Runs out of the guest's own stack, which lies in its memory.
fn recurse_with_large_frames(n: u64) -> u64 {
    let frame = std::hint::black_box([n; 512]);
    match n {
        u64::MAX => 0,
        n => recurse_with_large_frames(n + 1) + frame[(n % 512) as usize],
    }
}

/// One instruction that does a lot.
fn fill() -> ! {
    let mut block = vec![0u8; 32 << 20];
    loop {
        block.fill(std::hint::black_box(3));
        std::hint::black_box(&mut block);
    }
}

/// State that is kept between batches and seen in the output.
fn count(rows: Rows<'_>) -> Edits {
    let mut writer = EditWriter::new();
    for _ in rows.iter() {
        let n = SEEN.with(|s| s.replace(s.get() + 1));
        writer.set_value(Some(n.to_string().as_bytes()));
        writer.keep();
    }
    let (operations, data) = writer.finish();
    Edits { operations, data }
}
