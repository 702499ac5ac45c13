//! The command as people use it, and as they get it wrong.

use std::path::Path;
use std::process::Command;

fn gristmill(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_gristmill"))
        .args(arguments)
        .env_remove("GRISTMILL_FAILPOINT")
        .output()
        .expect("the command starts");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text)
}

fn example(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(path).display().to_string()
}

#[test]
fn help_names_every_command_and_every_exit_code() {
    let (code, text) = gristmill(&["--help"]);
    assert_eq!(code, Some(0));
    for word in ["run", "replay", "pipeline", "ledger", "transform", "demo", "Exit codes", "GRISTMILL_LOG"] {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
}

#[test]
fn help_of_replay_shows_how_a_range_is_written_and_what_goes_where() {
    let (code, text) = gristmill(&["replay", "--help"]);
    assert_eq!(code, Some(0));
    for word in
        ["--from 2026-11-24 --to 2026-11-25 --into again", "24h", "dead_letters-again", "same\ncommand again"]
    {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
    let (code, text) = gristmill(&["replay", "nowhere.yaml", "--from", "noon", "--into", "again"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("`noon` is neither a time with its zone (2026-11-24T10:00:00Z)"), "{text}");
}

#[test]
fn a_mistyped_command_exits_with_2_and_says_what_was_meant() {
    let (code, text) = gristmill(&["pipelin", "check", "x"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("similar subcommand exists: 'pipeline'"), "{text}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let (code, text) = gristmill(&["run", "nowhere.yaml"]);
    assert_eq!(code, Some(2));
    assert!(text.starts_with("nowhere.yaml: cannot be read: "), "{text}");
}

#[test]
fn the_example_pipeline_is_fine_and_passes_its_test() {
    let file = example("orders/orders.yaml");
    let (code, text) = gristmill(&["pipeline", "check", &file]);
    assert_eq!((code, text.trim_end()), (Some(0), &format!("{file}: the pipeline `orders` is fine")[..]));
    let (code, text) = gristmill(&["pipeline", "test", &file]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.ends_with("3 passed, 0 failed\n"), "{text}");
}

#[test]
fn a_pipeline_that_has_written_nothing_has_no_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.yaml");
    let text = "name: p\nsource: {kafka: {bootstrap_servers: 'h:1', topics: [t]}}\ndecode: {format: bytes}\nsink: {files: {folder: rows}}\n";
    std::fs::write(&file, text).unwrap();
    let (code, text) = gristmill(&["ledger", "ls", &file.display().to_string()]);
    assert_eq!(code, Some(2));
    assert!(text.contains("the pipeline has not written anything yet"), "{text}");
}

#[test]
fn a_configuration_that_the_transform_refuses_is_found_by_check() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(example("orders/orders.yaml")).unwrap();
    let text = text
        .replace("../transforms/prebuilt/orders.wasm", &example("transforms/prebuilt/orders.wasm"))
        .replace("      high_value_cents: 100000\n", "");
    let file = folder.path().join("p.yaml");
    std::fs::write(&file, text).unwrap();
    let (code, text) = gristmill(&["pipeline", "check", &file.display().to_string()]);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("transforms[0].config: ") && text.contains("high_value_cents is missing"),
        "{text}"
    );
}

#[test]
fn a_transform_that_is_no_component_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.wasm");
    std::fs::write(&file, "not wasm").unwrap();
    let (code, text) = gristmill(&["transform", "inspect", &file.display().to_string()]);
    assert_eq!(code, Some(2));
    assert!(text.contains("x.wasm: this is not a WebAssembly component"), "{text}");
}

#[test]
fn the_demo_accounts_for_every_order_and_leaves_a_ledger_that_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out").display().to_string();
    let (code, text) = gristmill(&["demo", "--orders", "20000", "--folder", &out]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("Every order is accounted for"), "{text}");
    let (code, text) = gristmill(&["ledger", "verify", &format!("{out}/pipeline.yaml")]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = gristmill(&["demo", "--orders", "10", "--folder", &out]);
    assert_eq!(code, Some(2), "a second run does not mix with the first");
    assert!(text.contains("is not empty"), "{text}");
}
