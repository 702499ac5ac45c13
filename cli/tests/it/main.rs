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

/// The five commands of `gristmill transform new --help`, with the crate of this checkout.
#[test]
fn a_new_transform_passes_its_tests_and_runs_at_once() {
    if gristmill_smt::GuestToolchain::find().is_err() && std::env::var("CI").is_ok_and(|ci| ci != "true") {
        eprintln!("SKIPPED: there is no toolchain for guests");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let sdk = example("../transform-sdk/rust");
    // Where `make guests` builds too: what others depend on is there already. And a place that stays the same, since
    // paths are part of what the standard library is built with.
    let cache = std::env::var_os("XDG_CACHE_HOME").map(std::path::PathBuf::from);
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    let cache = cache.map_or_else(|| folder.path().to_owned(), |cache| cache.join("gristmill"));
    let builds = cache.join("guests-native");
    let place = cache.join("new-transform/mask-orders");
    for (kind, config, fields) in [
        (
            "rows",
            r#"{"most": 100}"#,
            Some(r#"{"amount": "int64 not null", "customer": {"email": "string"}}"#),
        ),
        ("records", r#"{"most_bytes": 70}"#, None),
    ] {
        let _ = std::fs::remove_dir_all(&place);
        let dir = place.display().to_string();
        let (code, text) = gristmill(&["transform", "new", &dir, "--kind", kind, "--sdk", &sdk]);
        assert_eq!(code, Some(0), "{text}");
        let native = Command::new(env!("CARGO"))
            .args(["test", "--offline", "--manifest-path", &format!("{dir}/Cargo.toml")])
            .env("CARGO_TARGET_DIR", &builds)
            .output()
            .unwrap();
        assert!(native.status.success(), "{}", String::from_utf8_lossy(&native.stderr));
        let (code, text) = gristmill(&["transform", "test", &dir]);
        assert!(code == Some(0) && text.contains("1 passed, 0 failed"), "{text}");
        let (code, text) = gristmill(&["transform", "build", &dir]);
        assert_eq!(code, Some(0), "{text}");
        let wasm = format!("{dir}/mask-orders.wasm");
        let (code, text) = gristmill(&["transform", "inspect", &wasm]);
        assert_eq!(code, Some(0), "{text}");
        let input = folder.path().join("values.jsonl");
        let values = "{\"amount\": 1, \"customer\": {\"email\": \"ada@example.org\"}}\n\n{\"amount\": 101, \"padding\": \
                      \"------------------------------------------------------\"}\nno json\n";
        std::fs::write(&input, values).unwrap();
        let input = input.display().to_string();
        let mut args = vec!["transform", "run", &wasm, "--config", config, "--input", &input];
        args.extend(fields.iter().flat_map(|fields| ["--fields", *fields]));
        let (code, text) = gristmill(&args);
        assert_eq!(code, Some(0), "{text}");
        let expected: &[&str] = match kind {
            "rows" => &[
                r#""email_domain":"example.org""#,
                r#""rejected":"AMOUNT_TOO_LARGE""#,
                r#""not decoded":"malformed""#,
                "3 in: 1 kept, 0 emitted, 0 dropped, 1 rejected, 1 not decoded",
            ],
            _ => &[
                r#""rejected":"TOO_LONG""#,
                r#""[no json]""#,
                "3 in: 2 kept, 0 emitted, 0 dropped, 1 rejected",
            ],
        };
        for part in expected {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
    let (code, text) = gristmill(&["transform", "new", &folder.path().join("Mask").display().to_string()]);
    assert!(code == Some(2) && text.contains("`Mask` cannot be a transform's name"), "{text}");
    let (code, text) = gristmill(&["transform", "new", &place.display().to_string()]);
    assert!(code == Some(2) && text.contains("is there already"), "{text}");
    let typed = example("transforms/prebuilt/typed-orders.wasm");
    let (code, text) = gristmill(&["transform", "run", &typed]);
    assert!(
        code == Some(2) && text.contains("say with --fields") && text.contains("amount_cents (int64)"),
        "{text}"
    );
    let (code, text) = gristmill(&["transform", "inspect", &typed]);
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "works on columns",
        "reads    amount_cents (int64), customer.email (string), test (bool, if there is one), \
         _kafka_timestamp (timestamp_ms, if there is one)",
        "outputs  main, high_value (orders of a large amount)",
        "  high_value_cents: integer, required  Orders of this amount and above go to the output high_value.",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    let (code, text) = gristmill(&["transform", "inspect", &typed, "--json"]);
    let said: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &said["works_on"]), (Some(0), &"columns".into()), "{text}");
    let fields = r#"{"amount_cents": "int46"}"#;
    let (code, text) = gristmill(&["transform", "run", &typed, "--fields", fields]);
    assert!(code == Some(2) && text.contains("--fields: field amount_cents"), "{text}");
}

/// The same for the languages that are not compiled: their functions are tested natively, then in the sandbox.
#[test]
fn a_new_transform_in_python_or_javascript_passes_its_tests_too() {
    let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    let has = |tool: &str| Command::new(tool).arg("--help").output().is_ok();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (lang, tool, native) in [
        ("python", "componentize-py", ["python3", "-B", "-m", "unittest"].as_slice()),
        ("js", "componentize-qjs", ["node", "--test"].as_slice()),
    ] {
        if !is_ci && !has(tool) {
            eprintln!("SKIPPED: {tool} is not there");
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let sdk = root.join("transform-sdk").join(lang);
        let place = folder.path().join("mask-orders");
        let dir = place.display().to_string();
        let (code, text) =
            gristmill(&["transform", "new", &dir, "--lang", lang, "--sdk", &sdk.display().to_string()]);
        assert_eq!(code, Some(0), "{text}");
        if lang == "js" {
            std::fs::create_dir(place.join("node_modules")).unwrap();
            std::os::unix::fs::symlink(&sdk, place.join("node_modules/gristmill-transform")).unwrap();
        }
        let tests = Command::new(native[0])
            .args(&native[1..])
            .current_dir(&place)
            .env("PYTHONPATH", &sdk)
            .output()
            .unwrap();
        assert!(tests.status.success(), "{}", String::from_utf8_lossy(&tests.stderr));
        let (code, text) = gristmill(&["transform", "test", &dir]);
        assert!(code == Some(0) && text.contains("1 passed, 0 failed"), "{text}");
    }
    let place = tempfile::tempdir().unwrap().path().join("x");
    let place = place.display().to_string();
    let (code, text) = gristmill(&["transform", "new", &place, "--lang", "js", "--kind", "records"]);
    assert!(code == Some(2) && text.contains("--kind records is there for Rust alone"), "{text}");
    let sdk = root.join("transform-sdk/js").display().to_string();
    let (code, text) = gristmill(&["transform", "new", &place, "--lang", "python", "--sdk", &sdk]);
    assert!(code == Some(2) && text.contains("`transform-sdk/python` of a checkout"), "{text}");
}
