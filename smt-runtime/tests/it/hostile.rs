//! One test an attack: the error's kind and message, and that the next batch works.

use std::time::{Duration, Instant};

use gristmill_smt::{ErrorKind, Limits};
use serde_json::json;

use crate::support::{assert_only_rejected, assert_works, attacker, batch, configured, poisoned};

/// Short, so that the tests are; the verdicts do not depend on it.
fn limits() -> Limits {
    Limits::default().with_call_timeout(Duration::from_millis(300)).with_record_fuel(100_000_000)
}

/// One poisoned row among 500 is rejected alone, whatever the attack; the next batch works.
fn one_row_is_rejected(attack: &str, code: &str, message: &str) {
    let Some(mut instance) = attacker(attack, limits()) else { return };
    let applied = instance.apply(&poisoned(500, &[137])).unwrap();
    assert_only_rejected(&applied, &[137], code, message);
    assert!(applied.stats().failed_calls > 0 && applied.stats().bisections > 0, "{:?}", applied.stats());
    assert_works(&mut instance);
}

#[test]
fn one_record_that_traps_among_500_is_rejected_alone() {
    one_row_is_rejected(
        "trap",
        "TRANSFORM_TRAP",
        "the transform trapped: wasm `unreachable` instruction executed",
    );
}

#[test]
fn several_records_that_trap_are_all_found() {
    let Some(mut instance) = attacker("trap", limits()) else { return };
    let rows = [0, 1, 250, 251, 498, 499];
    let applied = instance.apply(&poisoned(500, &rows)).unwrap();
    assert_only_rejected(&applied, &rows, "TRANSFORM_TRAP", "unreachable");
    assert_works(&mut instance);
}

#[test]
fn a_batch_of_one_record_that_traps_is_one_reject() {
    let Some(mut instance) = attacker("trap", limits()) else { return };
    let applied = instance.apply(&poisoned(1, &[0])).unwrap();
    assert_only_rejected(&applied, &[0], "TRANSFORM_TRAP", "unreachable");
    assert_works(&mut instance);
}

#[test]
fn an_endless_loop_is_judged_by_fuel() {
    one_row_is_rejected("loop", "TRANSFORM_FUEL", "limit record_fuel of 100000000");
}

#[test]
fn memory_growth_is_rejected_with_what_was_asked_for() {
    one_row_is_rejected(
        "hoard",
        "TRANSFORM_MEMORY",
        "limit memory of 67108864 bytes: the transform asked for ",
    );
}

#[test]
fn a_stack_overflow_is_a_trap() {
    one_row_is_rejected("recurse", "TRANSFORM_TRAP", "call stack exhausted");
    one_row_is_rejected("recurse_with_large_frames", "TRANSFORM_TRAP", "out of bounds memory access");
}

#[test]
fn a_huge_answer_is_not_copied_into_the_host() {
    one_row_is_rejected("huge_output", "TRANSFORM_OUTPUT", "limit output_bytes of 33554432");
}

#[test]
fn the_last_words_before_a_trap_are_in_the_reject_and_its_telemetry_does_not_count() {
    let Some(mut instance) = attacker("log_then_trap", limits()) else { return };
    let applied = instance.apply(&poisoned(20, &[3])).unwrap();
    assert_only_rejected(&applied, &[3], "TRANSFORM_TRAP", "(my last words)");
    assert!(applied.logs().is_empty() && applied.metrics().is_empty());
    assert_works(&mut instance);
}

#[test]
fn lies_in_the_edit_list_cost_the_row_that_they_are_about() {
    for (attack, message) in [
        ("start_beyond_data", "1 bytes at 1073741824 are not inside the 16 bytes of data"),
        ("length_beyond_data", "1073741824 bytes out"),
        ("start_and_length_overflow", "bytes out"),
        ("no_headers", "header bytes are not whole headers"),
        ("bad_timestamp", "-9223372036854775808 is not a timestamp"),
        ("set_twice", "one cell of a row is set twice"),
        ("missing_row", "only 0 of 1 rows have a verdict"),
        ("doubled_row", "more rows described than the 1 that came in"),
        ("too_many_rows", "more rows described than the 1 that came in"),
        ("empty_run", "a run of no rows"),
        ("undeclared_output", "output 2 is not one of the 2 declared (main is 0)"),
        ("undeclared_emit", "output 9 is not one of the 2 declared (main is 0)"),
        ("unknown_operation", "there is no operation 200"),
        ("truncated", "the list ends inside an operation"),
        ("code_not_text", "a reject's code is not 1 to 64 visible ASCII characters"),
    ] {
        let Some(mut instance) = attacker(attack, limits()) else { return };
        let applied = instance.apply(&poisoned(100, &[42])).unwrap();
        let output = message.ends_with("bytes out");
        let (code, message) = match output {
            true => ("TRANSFORM_OUTPUT", "limit output_bytes of 33554432"),
            false => ("TRANSFORM_INVALID_EDITS", message),
        };
        assert_only_rejected(&applied, &[42], code, message);
        assert_works(&mut instance);
    }
}

#[test]
fn amplification_is_bounded_in_records_and_in_bytes() {
    for (attack, message) in [
        ("amplify_records", "limit output_records_per_row of 100: 1 rows gave more than 100 records"),
        ("amplify_bytes", "limit output_bytes of 33554432: the records refer to more than that"),
    ] {
        let Some(mut instance) = attacker(attack, limits()) else { return };
        let applied = instance.apply(&poisoned(10, &[9])).unwrap();
        assert_only_rejected(&applied, &[9], "TRANSFORM_OUTPUT", message);
        assert_works(&mut instance);
    }
}

#[test]
fn a_log_flood_is_cut_and_said_so() {
    let Some(mut instance) = attacker("log_flood", limits()) else { return };
    let applied = instance.apply(&poisoned(10, &[5])).unwrap();
    assert_eq!(applied.kept(), 10);
    assert_eq!(applied.logs().len(), 100);
    assert_eq!(applied.logs()[99].message, "line 99");
    let [warning] = applied.warnings() else { panic!("{:?}", applied.warnings()) };
    assert_eq!(warning.kind(), ErrorKind::Limit);
    assert_eq!(
        warning.to_string(),
        "limit log_lines of 100 and log_bytes of 65536 per batch: 99900 more log lines were left out"
    );
    let next = instance.apply(&poisoned(10, &[])).unwrap();
    assert!(next.logs().is_empty() && next.warnings().is_empty());
    assert_works(&mut instance);
}

#[test]
fn a_huge_log_line_is_cut() {
    let Some(mut instance) = attacker("log_one_huge_line", limits()) else { return };
    let applied = instance.apply(&poisoned(10, &[5])).unwrap();
    assert_eq!(applied.logs()[0].message.len(), 65536);
    assert_eq!(applied.warnings()[0].kind(), ErrorKind::Limit);
    assert!(
        applied.warnings()[0].to_string().contains("log_bytes of 65536 per batch: 1 more"),
        "{:?}",
        applied.warnings()
    );
    assert_works(&mut instance);
}

#[test]
fn log_lines_that_do_not_fit_hold_no_memory() {
    let Some(mut instance) = attacker("log_lines_that_do_not_fit", limits()) else { return };
    let applied = instance.apply(&poisoned(10, &[5])).unwrap();
    let held: usize = applied.logs().iter().map(|line| line.message.capacity()).sum();
    assert_eq!((applied.logs().len(), held), (1, 65535));
    assert!(applied.warnings()[0].to_string().contains(": 20 more"), "{:?}", applied.warnings());
    assert_works(&mut instance);
}

/// Four calls.
fn large_batch() -> gristmill_records::RawBatch {
    let value = "v".repeat(400 << 10);
    batch([value.as_str(); 4])
}

#[test]
fn the_answers_to_a_batch_are_bounded_together() {
    let limits = limits().with_batch_output_bytes(35 << 20);
    let Some(mut instance) = attacker("large_answers", limits) else { return };
    let error = instance.apply(&large_batch()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(
        error.to_string().contains(
            "limit batch_output_bytes of 36700160: the answers to a batch of 4 rows hold more than that at row 3 \
             (offset 103); nothing of this batch was passed on"
        ),
        "{error}"
    );
    let one = instance.apply(&poisoned(10, &[])).unwrap();
    assert_eq!(one.kept(), 10);
}

#[test]
fn what_records_refer_to_counts_for_the_batch_too() {
    let limits = limits().with_output_bytes(64 << 20).with_batch_output_bytes(40 << 20);
    let Some(mut instance) = attacker("amplify_bytes", limits) else { return };
    let error = instance.apply(&poisoned(10, &[5])).unwrap_err();
    assert!(error.to_string().contains("limit batch_output_bytes of 41943040"), "{error}");
    assert_works(&mut instance);
}

#[test]
fn the_log_of_a_batch_is_bounded_over_its_calls() {
    let Some(mut instance) = attacker("large_answers", limits()) else { return };
    let applied = instance.apply(&large_batch()).unwrap();
    assert_eq!((applied.stats().calls, applied.logs().len()), (4, 100));
    let [warning] = applied.warnings() else { panic!("{:?}", applied.warnings()) };
    assert!(warning.to_string().contains("per batch: 140 more"), "{warning}");
}

#[test]
fn a_flood_of_metric_series_is_cut_and_said_so() {
    let Some(mut instance) = attacker("metric_flood", limits()) else { return };
    let applied = instance.apply(&poisoned(10, &[5])).unwrap();
    assert_eq!(applied.metrics().counters.len(), 100);
    let [warning] = applied.warnings() else { panic!("{:?}", applied.warnings()) };
    assert_eq!(warning.kind(), ErrorKind::Limit);
    assert!(
        warning
            .to_string()
            .starts_with("limit metric_series of 100: 9900 updates under further names were left out"),
        "{warning}"
    );
    assert_works(&mut instance);
}

#[test]
fn metric_names_and_values_that_make_no_sense_are_left_out() {
    let Some(mut instance) = attacker("metric_nonsense", limits()) else { return };
    let applied = instance.apply(&poisoned(10, &[5])).unwrap();
    assert!(applied.metrics().counters.is_empty());
    let fine = &applied.metrics().histograms["fine"];
    assert_eq!((fine.count, fine.sum), (1, 3.0));
    assert!(applied.warnings()[0].to_string().contains("2 updates"), "{:?}", applied.warnings());
    assert_works(&mut instance);
}

#[test]
fn state_between_batches_does_not_survive_a_replacement() {
    let Some(mut instance) = attacker("count", limits()) else { return };
    let values = |applied: &gristmill_smt::Applied| -> Vec<String> {
        applied.records().map(|r| String::from_utf8(r.value.unwrap().to_vec()).unwrap()).collect()
    };
    let two = batch(["a", "b"]);
    assert_eq!(values(&instance.apply(&two).unwrap()), ["0", "1"]);
    assert_eq!(values(&instance.apply(&two).unwrap()), ["2", "3"], "an instance is used again");
    instance.reset();
    assert_eq!(values(&instance.apply(&two).unwrap()), ["0", "1"]);
}

#[test]
fn a_leak_is_met_by_a_fresh_instance_before_it_costs_a_record() {
    let Some(mut instance) = attacker("leak", limits()) else { return };
    let mut instances = 0;
    for _ in 0..200 {
        let applied = instance.apply(&poisoned(5, &[])).unwrap();
        assert_only_rejected(&applied, &[], "", "");
        assert_eq!(applied.stats().failed_calls, 0);
        instances += applied.stats().instances;
    }
    assert!(instances >= 3, "{instances}");
}

#[test]
fn one_instruction_that_does_much_is_judged_by_fuel_too() {
    one_row_is_rejected("fill", "TRANSFORM_FUEL", "limit record_fuel of 100000000");
}

#[test]
fn the_search_ends_with_the_search_time() {
    let limits = limits().with_search_timeout(Duration::from_secs(1)).with_record_fuel(u64::MAX);
    let Some(mut instance) = attacker("loop", limits) else { return };
    let started = Instant::now();
    let error = instance.apply(&poisoned(10, &[5])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    let text = error.to_string();
    assert!(text.contains("transform hostile on orders-3: limit search_timeout of 1s"), "{text}");
    assert!(text.contains("not done at row 5 (offset 105) of 10"), "{text}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_works(&mut instance);
}

#[test]
fn a_transform_that_is_simply_broken_opens_the_breaker() {
    let limits = limits().with_breaker_rows(20);
    let Some(mut instance) = attacker("trap", limits) else { return };
    let all: Vec<usize> = (0..500).collect();
    let error = instance.apply(&poisoned(500, &all)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Breaker);
    let text = error.to_string();
    assert!(text.contains("limit max_reject_ratio of 0.5: 251 of the last 500 rows were rejected"), "{text}");
    assert!(text.contains("offset 350: TRANSFORM_TRAP"), "{text}");
    assert_works(&mut instance);
}

#[test]
fn a_trap_in_configure_is_a_configure_error() {
    let Some(error) = configured("trap_in_configure", limits(), json!({})) else { return };
    assert_eq!(error.kind(), ErrorKind::Configure);
    assert_eq!(
        error.to_string(),
        "transform hostile: configure failed: the transform trapped: wasm `unreachable` instruction executed"
    );
    assert!(!error.is_retryable());
}

#[test]
fn a_loop_and_a_hoard_in_configure_are_configure_errors() {
    let limits = limits().with_configure_timeout(Duration::from_millis(200));
    let Some(error) = configured("loop_in_configure", limits.clone(), json!({})) else { return };
    assert_eq!(error.kind(), ErrorKind::Configure);
    assert!(error.to_string().contains("limit configure_timeout of 200ms"), "{error}");
    let error =
        configured("hoard_in_configure", limits.with_configure_timeout(Duration::from_secs(5)), json!({}))
            .unwrap();
    assert_eq!(error.kind(), ErrorKind::Configure);
    assert!(error.to_string().contains("limit memory of 67108864 bytes"), "{error}");
}

#[test]
fn a_secret_of_the_configuration_is_in_no_error_and_no_log() {
    let Some(error) = configured("refuse", limits(), json!({"token": "hunter2"})) else { return };
    assert_eq!(error.kind(), ErrorKind::Configure);
    assert_eq!(
        error.to_string(),
        r#"transform hostile: it refuses its configuration: no, and I tell everybody: {"attack":"refuse","token":"***"}"#
    );
    let error = configured("refuse", limits(), json!({"token": ["hunter2"]})).unwrap();
    assert_eq!(
        error.to_string(),
        "transform hostile: the configuration does not fit: config.token is an array, wanted string"
    );
    let transform = crate::support::load(limits()).unwrap();
    let config = json!({"attack": "log_a_secret", "token": "hunter2"});
    let mut instance = transform.instantiate(&crate::support::stream(), &config).unwrap();
    let applied = instance.apply(&poisoned(3, &[1])).unwrap();
    assert_eq!(applied.logs()[0].message, "the token is ***, I say: ***");
}

/// A component that brings its lines with it: the reject says which line of the author's trapped, and through which it came.
#[test]
fn a_trap_in_a_component_with_debug_info_says_the_line() {
    if !crate::support::toolchain() {
        return;
    }
    let folder = crate::support::repository().join("smt-runtime/tests/guests/hostile");
    let options = gristmill_smt::GuestOptions::default().with_debug_info(true);
    let built = gristmill_smt::build_guest_with(&folder, &options).unwrap_or_else(|e| panic!("{e}"));
    let transform = crate::support::runtime().load_file(built.component, limits()).unwrap();
    let config = serde_json::json!({"attack": "trap"});
    let mut instance = transform.instantiate(&crate::support::stream(), &config).unwrap();
    let applied = instance.apply(&poisoned(3, &[1])).unwrap();
    let text = &applied.rejects()[0].message;
    let source = std::fs::read_to_string(folder.join("src/lib.rs")).unwrap();
    let place = text.split("; in ").nth(1).unwrap_or_else(|| panic!("{text}"));
    let line = place
        .split("src/lib.rs:")
        .nth(1)
        .and_then(|rest| rest.split(',').next())
        .unwrap_or_else(|| panic!("{text}"));
    let line: usize = line.parse().unwrap_or_else(|_| panic!("{text}"));
    assert!(source.lines().nth(line - 1).is_some_and(|l| l.contains("abort()")), "{text}");
    assert!(!text.contains("/root/") && !text.contains("/home/"), "{text}");
}
