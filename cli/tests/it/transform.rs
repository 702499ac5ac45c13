//! The workbench of those who write transforms.

use std::process::Command;

use crate::{example, gristmill};

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
        assert!(code == Some(0) && text.contains("contract gristmill:transform@0.1.0"), "{text}");
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
                r#""not_decoded":"malformed""#,
                "3 in: 1 kept, 0 emitted, 0 dropped, 1 rejected (1 AMOUNT_TOO_LARGE), 1 not decoded (1 malformed)",
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
        let bench = |what: &str, more: &[&str]| {
            let mut args = vec!["transform", "bench", what, "--config", config, "--input", &input];
            args.extend(fields.iter().flat_map(|fields| ["--fields", *fields]));
            args.extend(more);
            gristmill(&args)
        };
        let (code, text) = bench(&dir, &["--native", "--time", "1ms"]);
        let counts = expected.last().unwrap();
        for part in [*counts, "this transform", "identity", "native", "is what a call costs"] {
            assert!(code == Some(0) && text.contains(part), "{part} is not in {text}");
        }
        let (code, text) = bench(&wasm, &["--native"]);
        assert!(code == Some(2) && text.contains("give it the folder of a crate"), "{text}");
        let (code, text) = bench(&wasm, &["--cost", "--json"]);
        // Behind it comes what is said of so few rows.
        let said: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert!(text.contains("is what a call costs"), "{text}");
        let fuel = |of: &str| said["fuel"][of].as_f64().unwrap();
        assert!(code == Some(0) && fuel("this") > fuel("identity"), "{text}");
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

#[test]
fn what_a_transform_logs_and_counts_is_shown_where_it_is_tried() {
    let config = r#"{"high_value_cents": 10}"#;
    let typed = example("transforms/prebuilt/typed-orders.wasm");
    let fields = r#"{"amount_cents": "int64 not null", "customer": {"email": "string"}}"#;
    let (code, text) = gristmill(&["transform", "run", &typed, "--config", config, "--fields", fields]);
    let missing = "there is no column customer.card to remove; the nearest is customer.email; there is no column created_at to \
                   rename";
    assert!(code == Some(2) && text.contains(missing), "{text}");
    let fields = r#"{"amount_cents": "int64 not null", "customer": {"email": "string", "card": "string"},
        "test": "bool", "created_at": "timestamp_ms"}"#;
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("values.jsonl").display().to_string();
    std::fs::write(&input, "{\"amount_cents\": 1, \"test\": true}\n{\"amount_cents\": -1}\n").unwrap();
    let given = ["--config", config, "--fields", fields, "--input", &input];
    let (code, text) = gristmill(&[["transform", "run", &typed].as_slice(), &given].concat());
    assert!(code == Some(0) && text.contains("counter test_orders: 1\n"), "{text}");
    assert!(text.contains("2 in: 0 kept, 0 emitted, 1 dropped, 1 rejected (1 NEGATIVE_AMOUNT)"), "{text}");
    let (code, text) = gristmill(&[["transform", "diff", &typed, &typed].as_slice(), &given].concat());
    assert!(code == Some(0) && text.contains("2 rows, of which 0 change\n"), "{text}");
    let (code, text) = gristmill(&["transform", "run", &typed, "--config", r#"["x"]"#, "--fields", fields]);
    assert!(code == Some(2) && text.contains("--config is a JSON object, such as '{\"a\": 1}'"), "{text}");
    let (_, text) = gristmill(&["transform", "inspect", &typed]);
    assert!(text.contains("\nimports  log, metrics\n"), "{text}");
}
