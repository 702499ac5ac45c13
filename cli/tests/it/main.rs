//! The command as people use it, and as they get it wrong.

mod transform;

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

/// A folder in which the demo has run, and its pipeline file.
fn demo() -> (tempfile::TempDir, std::path::PathBuf, String) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let (code, text) = gristmill(&["demo", "--orders", "2000", "--folder", &out.display().to_string()]);
    assert_eq!(code, Some(0), "{text}");
    let file = out.join("pipeline.yaml").display().to_string();
    (folder, out, file)
}

/// Everything in a folder, by name.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

#[test]
fn a_ledger_that_lost_its_genesis_is_named_and_the_others_are_looked_at() {
    let (_folder, out, file) = demo();
    let genesis =
        files(&out.join("rows/_gristmill")).into_iter().find(|f| f.ends_with("genesis.json")).unwrap();
    std::fs::remove_file(&genesis).unwrap();
    let (code, text) = gristmill(&["ledger", "verify", &file]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("genesis.json is gone") && text.contains("Restore it from a copy"), "{text}");
    assert!(text.contains("\nok   orders-"), "the others are checked: {text}");
    let (code, text) = gristmill(&["ledger", "ls", &file]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("genesis.json is gone") && text.contains("next offset"), "{text}");
    let (code, text) = gristmill(&["ledger", "repair", &file]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("1 findings cannot be repaired"), "{text}");
    let (code, text) = gristmill(&["audit", &file]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("genesis.json is gone") && text.matches("FAIL").count() == 1, "{text}");
}

#[test]
fn a_file_of_another_pipeline_does_not_repair_this_ones_ledgers() {
    let (_folder, _, file) = demo();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\nname: orders\n", "\nname: other\n")).unwrap();
    let (code, text) = gristmill(&["ledger", "repair", &file, "--yes"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("belongs to the pipeline \"orders\""), "{text}");
    assert!(text.contains("use the file with `name: orders`"), "{text}");
}

#[test]
fn without_yes_a_repair_creates_nothing() {
    let (_folder, out, file) = demo();
    std::fs::remove_dir_all(out.join("dead_letters")).unwrap();
    let before = files(&out);
    let (code, text) = gristmill(&["ledger", "repair", &file]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(files(&out), before);
}

#[test]
fn a_replay_into_a_place_of_somebody_else_leaves_no_trace_there() {
    let (_folder, out, file) = demo();
    std::fs::create_dir_all(out.join("photos")).unwrap();
    std::fs::write(out.join("photos/one.jpg"), "").unwrap();
    let before = files(&out);
    let (code, text) = gristmill(&["replay", &file, "--from", "0", "--into", "photos"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("one.jpg lies there, and no replay wrote it"), "{text}");
    assert_eq!(files(&out), before);
}

#[test]
fn audit_has_a_file_deleted_only_where_all_of_it_stands_elsewhere() {
    let (_folder, out, file) = demo();
    let rows = out.join("rows/orders");
    let parquet = files(&rows).into_iter().find(|f| f.extension().is_some_and(|e| e == "parquet")).unwrap();
    std::fs::copy(&parquet, rows.join("copy.parquet")).unwrap();
    std::fs::write(rows.join("mine.jsonl"), "{\"id\":7}\n").unwrap();
    let (code, text) = gristmill(&["audit", &file]);
    assert_eq!(code, Some(3), "{text}");
    let deleted: Vec<_> = text.lines().filter(|line| line.contains("rm ")).map(str::trim).collect();
    assert_eq!(deleted, [format!("rm {}", rows.join("copy.parquet").display())], "{text}");
    assert!(
        text.contains("mine.jsonl: no range wrote it") && text.contains("may be the only copy"),
        "{text}"
    );
    // With the ledger gone and begun anew the files are all there is of their rows.
    std::fs::remove_dir_all(out.join("rows/_gristmill/ledger")).unwrap();
    std::fs::remove_file(rows.join("copy.parquet")).unwrap();
    let (_, text) = gristmill(&["audit", &file]);
    assert!(text.contains("no range wrote it") && !text.contains("rm "), "{text}");
}
