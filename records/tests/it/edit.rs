//! What a guest writes is what a host reads, and no words at all make the reader panic or lie.

use gristmill_records::{
    Edit, EditBounds, EditErrorKind, EditWriter, Edits, Header, MAX_CODE_LEN, MAX_MESSAGE_LEN,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

type Cell = Option<Vec<u8>>;
type OwnedHeaders = Vec<(Vec<u8>, Cell)>;

#[derive(Clone, Debug, PartialEq)]
struct OwnedEmit {
    output: u32,
    key: Cell,
    value: Cell,
    headers: OwnedHeaders,
    timestamp: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct OwnedChange {
    key: Option<Cell>,
    value: Option<Cell>,
    headers: Option<OwnedHeaders>,
    timestamp: Option<Option<i64>>,
    output: u32,
}

#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    Keep,
    Drop,
    Reject(String, String),
}

#[derive(Clone, Debug)]
struct Row {
    change: OwnedChange,
    emits: Vec<OwnedEmit>,
    verdict: Verdict,
}

fn cell() -> impl Strategy<Value = Cell> {
    option::of(vec(any::<u8>(), 0..12))
}

fn headers() -> impl Strategy<Value = OwnedHeaders> {
    vec((vec(any::<u8>(), 0..5), cell()), 0..3)
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let timestamp = || option::of(0..i64::MAX);
    let change =
        (option::of(cell()), option::of(cell()), option::of(headers()), option::of(timestamp()), 0..4u32)
            .prop_map(|(key, value, headers, timestamp, output)| OwnedChange {
                key,
                value,
                headers,
                timestamp,
                output,
            });
    let change = prop_oneof![3 => Just(OwnedChange::default()), 1 => change];
    let emit = (0..4u32, cell(), cell(), headers(), timestamp()).prop_map(
        |(output, key, value, headers, timestamp)| OwnedEmit { output, key, value, headers, timestamp },
    );
    let emits = prop_oneof![4 => Just(Vec::new()), 1 => vec(emit, 1..3)];
    let verdict = prop_oneof![
        4 => Just(Verdict::Keep),
        2 => Just(Verdict::Drop),
        1 => ("[!-~]{1,64}", ".{0,20}").prop_map(|(c, m)| Verdict::Reject(c, m)),
    ];
    vec((change, emits, verdict).prop_map(|(change, emits, verdict)| Row { change, emits, verdict }), 0..60)
}

fn as_headers(headers: &OwnedHeaders) -> impl Iterator<Item = Header<'_>> {
    headers.iter().map(|(name, value)| Header { name, value: value.as_deref() })
}

fn write(rows: &[Row]) -> (Vec<u32>, Vec<u8>) {
    let mut writer = EditWriter::new();
    for row in rows {
        if let Some(key) = &row.change.key {
            writer.set_key(key.as_deref());
        }
        if let Some(value) = &row.change.value {
            // What is set last counts.
            writer.set_value(Some(b"first thought"));
            writer.set_value(value.as_deref());
        }
        if let Some(headers) = &row.change.headers {
            writer.set_headers(as_headers(headers));
        }
        if let Some(timestamp) = row.change.timestamp {
            writer.set_timestamp(timestamp);
        }
        if row.change.output > 0 {
            writer.route(row.change.output);
        }
        for e in &row.emits {
            writer.emit(e.output, e.key.as_deref(), e.value.as_deref(), as_headers(&e.headers), e.timestamp);
        }
        match &row.verdict {
            Verdict::Keep => writer.keep(),
            Verdict::Drop => writer.drop_row(),
            Verdict::Reject(code, message) => writer.reject(code, message),
        }
    }
    writer.finish()
}

fn bounds(rows: usize) -> EditBounds {
    EditBounds { rows, outputs: 4, max_records: u64::MAX, max_bytes: u64::MAX }
}

/// What the list says of each row: its change, its emits, its verdict.
fn read(operations: &[u32], data: &[u8]) -> Vec<Row> {
    let own = |h: gristmill_records::Headers<'_>| -> OwnedHeaders {
        h.map(|h| (h.name.to_vec(), h.value.map(<[u8]>::to_vec))).collect()
    };
    let cell = |c: Option<&[u8]>| c.map(<[u8]>::to_vec);
    let mut rows = Vec::new();
    let plain = |verdict| Row { change: OwnedChange::default(), emits: Vec::new(), verdict };
    for edit in Edits::new(operations, data) {
        match edit {
            Edit::Keep(n) => rows.extend((0..n).map(|_| plain(Verdict::Keep))),
            Edit::Drop(n) => rows.extend((0..n).map(|_| plain(Verdict::Drop))),
            Edit::Change(c) => {
                let change = OwnedChange {
                    key: c.key.map(cell),
                    value: c.value.map(cell),
                    headers: c.headers.map(own),
                    timestamp: c.timestamp,
                    output: c.output,
                };
                rows.push(Row { change, ..plain(Verdict::Keep) });
            }
            Edit::Reject { code, message } => rows.push(plain(Verdict::Reject(code.into(), message.into()))),
            Edit::Emit(e) => rows.last_mut().unwrap().emits.push(OwnedEmit {
                output: e.output,
                key: cell(e.key),
                value: cell(e.value),
                headers: own(e.headers),
                timestamp: e.timestamp,
            }),
        }
    }
    rows
}

/// Words that look like an edit list more often than random ones do.
fn words() -> impl Strategy<Value = Vec<u32>> {
    let operation =
        (0..10u32, prop_oneof![3 => 0..4u32, 1 => 0..1u32 << 24]).prop_map(|(op, arg)| op | arg << 8);
    let small = prop_oneof![4 => 0..40u32, 1 => Just(u32::MAX), 1 => any::<u32>()];
    vec(prop_oneof![operation, small], 0..40)
}

proptest! {
    #[test]
    fn what_is_written_is_read(rows in rows()) {
        let (operations, data) = write(&rows);
        let counts = Edits::new(&operations, &data).check(&bounds(rows.len())).unwrap();
        let got = read(&operations, &data);
        prop_assert_eq!(got.len(), rows.len());
        for (got, row) in got.iter().zip(&rows) {
            prop_assert_eq!(&got.verdict, &row.verdict);
            let kept = row.verdict == Verdict::Keep;
            prop_assert_eq!(&got.change, if kept { &row.change } else { const { &NO_CHANGE } });
            let rejected = matches!(row.verdict, Verdict::Reject(..));
            prop_assert_eq!(&got.emits[..], if rejected { &[] } else { &row.emits[..] });
        }
        let count = |f: fn(&Verdict) -> bool| rows.iter().filter(|r| f(&r.verdict)).count() as u64;
        prop_assert_eq!(counts.kept, count(|v| *v == Verdict::Keep));
        prop_assert_eq!(counts.dropped, count(|v| *v == Verdict::Drop));
        prop_assert_eq!(counts.rejected, count(|v| matches!(v, Verdict::Reject(..))));
        prop_assert_eq!(counts.emitted, got.iter().map(|r| r.emits.len() as u64).sum::<u64>());
    }

    #[test]
    fn no_words_make_the_reader_panic_and_what_it_accepts_accounts_for_every_row(
        operations in words(), data in vec(any::<u8>(), 0..40), rows in 0..10usize,
    ) {
        let edits = Edits::new(&operations, &data);
        // Unchecked iteration ends, too.
        prop_assert!(edits.count() <= 2 * operations.len());
        let limits = EditBounds { rows, outputs: 3, max_records: 12, max_bytes: 60 };
        if let Ok(counts) = edits.check(&limits) {
            let read = read(&operations, &data);
            prop_assert_eq!(read.len(), rows);
            prop_assert_eq!(counts.kept + counts.dropped + counts.rejected, rows as u64);
            prop_assert!(counts.kept + counts.emitted <= 12 && counts.bytes <= 60);
            for row in &read {
                prop_assert!(row.change.output < 3 && row.emits.iter().all(|e| e.output < 3));
            }
        }
    }

    #[test]
    fn a_list_with_one_word_changed_is_refused_or_still_accounts_for_every_row(
        rows in rows(), at in any::<prop::sample::Index>(), word in any::<u32>(),
    ) {
        let (mut operations, data) = write(&rows);
        prop_assume!(!operations.is_empty());
        let at = at.index(operations.len());
        operations[at] = word;
        if Edits::new(&operations, &data).check(&bounds(rows.len())).is_ok() {
            prop_assert_eq!(read(&operations, &data).len(), rows.len());
        }
    }
}

const NO_CHANGE: OwnedChange =
    OwnedChange { key: None, value: None, headers: None, timestamp: None, output: 0 };

fn refused(operations: &[u32], rows: usize) -> EditErrorKind {
    Edits::new(operations, b"some data")
        .check(&EditBounds { rows, outputs: 2, max_records: 5, max_bytes: 20 })
        .unwrap_err()
        .kind
}

const NULL: u32 = u32::MAX;

fn word(op: u32, argument: u32) -> u32 {
    op | argument << 8
}

#[test]
fn every_rule_of_the_grammar_is_kept() {
    use EditErrorKind::*;
    let keep = |n| word(0, n);
    let emit = |output| [word(7, output), 0, NULL, 0, NULL, 0, 0, NULL, NULL];
    assert_eq!(refused(&[keep(0)], 1), EmptyRun);
    assert_eq!(refused(&[keep(2)], 1), TooManyRows { rows: 1 });
    assert_eq!(refused(&[keep(1)], 3), MissingRows { rows: 3, seen: 1 });
    assert_eq!(refused(&[3, 0, 1], 0), DanglingEdit);
    assert_eq!(refused(&[3, 0, 1, 3, 0, 1, keep(1)], 1), SetTwice);
    assert_eq!(refused(&[6 | 1 << 8, 6, keep(1)], 1), SetTwice);
    assert_eq!(refused(&emit(0), 0), MisplacedEmit);
    assert_eq!(refused(&[&[keep(1), 3, 0, 1][..], &emit(0)].concat(), 2), MisplacedEmit);
    assert_eq!(refused(&[&[keep(1)][..], &emit(2)].concat(), 1), UndeclaredOutput { output: 2, outputs: 2 });
    assert_eq!(refused(&[word(6, 2), keep(1)], 1), UndeclaredOutput { output: 2, outputs: 2 });
    assert_eq!(refused(&[3, 9, 1, keep(1)], 1), OutOfData { start: 9, len: 1, data: 9 });
    assert_eq!(refused(&[3, 10, 0, keep(1)], 1), OutOfData { start: 10, len: 0, data: 9 });
    assert_eq!(refused(&[3, NULL, 9, keep(1)], 1), OutOfData { start: NULL, len: 9, data: 9 });
    assert_eq!(refused(&[4, 0, 9, keep(1)], 1), InvalidHeaders);
    assert_eq!(refused(&[5, NULL - 1, NULL, keep(1)], 1), InvalidTimestamp(-2));
    assert_eq!(refused(&[word(3, 7), 0, 1, keep(1)], 1), StrayArgument(7));
    assert_eq!(refused(&[9], 1), UnknownOperation(9));
    assert_eq!(refused(&[3, 0], 1), Truncated);
    assert_eq!(refused(&[8, 0, 0, 0, 0], 1), InvalidCode);
    assert_eq!(refused(&[8, 0, 5, 0, 0], 1), InvalidCode, "a space is not visible");
    assert_eq!(refused(&[8, 0, 4, 0, NULL], 1), InvalidMessage);
    assert_eq!(refused(&[keep(6)], 6), TooManyRecords { limit: 5 });
    assert_eq!(
        refused(&[3, 0, 9, keep(1), 3, 0, 9, keep(1), 3, 0, 9, keep(1)], 3),
        TooManyBytes { limit: 20 }
    );
}

#[test]
fn an_error_says_where_it_is() {
    let error = Edits::new(&[word(0, 3), 9], &[]).check(&bounds(5)).unwrap_err();
    assert_eq!(error.to_string(), "there is no operation 9 (word 1, row 3)");
}

#[test]
fn edits_belong_to_the_first_row_of_a_run_and_emits_to_the_last() {
    let emit = [word(7, 1), 0, 1, 0, NULL, 0, 0, NULL, NULL];
    let operations = [&[3, 0, 4, word(0, 3)][..], &emit, &[word(1, 1)], &emit, &[word(0, 1)]].concat();
    Edits::new(&operations, b"some data").check(&bounds(5)).unwrap();
    let rows = read(&operations, b"some data");
    assert_eq!(rows[0].change.value, Some(Some(b"some".to_vec())));
    assert_eq!(rows[1].change, NO_CHANGE);
    assert_eq!(rows.iter().map(|r| r.emits.len()).collect::<Vec<_>>(), [0, 0, 1, 1, 0]);
}

#[test]
fn runs_become_one_word() {
    let mut writer = EditWriter::new();
    (0..400).for_each(|_| writer.keep());
    (0..100).for_each(|_| writer.drop_row());
    assert_eq!(writer.finish(), (vec![word(0, 400), word(1, 100)], vec![]));
    assert_eq!(writer.finish(), (vec![], vec![]), "the writer is empty again");
}

#[test]
fn codes_and_messages_are_made_to_fit() {
    let mut writer = EditWriter::new();
    writer.reject("bad code\u{e9}", &"\u{e9}".repeat(MAX_MESSAGE_LEN));
    writer.reject("", "");
    writer.reject(&"x".repeat(100), "m");
    let (operations, data) = writer.finish();
    Edits::new(&operations, &data).check(&bounds(3)).unwrap();
    let rows = read(&operations, &data);
    let code = |i: usize| match &rows[i].verdict {
        Verdict::Reject(code, message) => (code.clone(), message.len()),
        other => panic!("{other:?}"),
    };
    assert_eq!(code(0), ("bad_code_".into(), MAX_MESSAGE_LEN));
    assert_eq!(code(1), ("_".into(), 0));
    assert_eq!(code(2).0.len(), MAX_CODE_LEN);
}

#[test]
fn the_data_of_a_rejected_row_is_given_back() {
    let mut writer = EditWriter::new();
    writer.set_value(Some(&[7; 1000]));
    writer.emit(0, None, Some(&[8; 1000]), [], None);
    writer.reject("NO", "");
    writer.set_value(Some(&[9; 1000]));
    writer.drop_row();
    assert_eq!(writer.finish().1, b"NO");
}
