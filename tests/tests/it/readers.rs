//! What those find who read the files with the tools they have: directories as columns, types as they were.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gristmill_tests::orders::{Fate, Order};
use gristmill_tests::pipeline::{Pipeline, wait_until};
use gristmill_tests::{OrderProducer, shared_kafka, unique};

const PATIENCE: Duration = Duration::from_secs(60);

fn order(number: u64, country: serde_json::Value) -> Order {
    let value = serde_json::json!({
        "n": number, "country": country, "total": "12.50", "day": "2026-11-01", "at_s": 1_793_491_200,
        "at_us": 1_793_491_200_000_001_u64, "buyer": {"name": "Ada", "tags": ["a", "b"]}, "notes": {"k": "v"}, "big": u64::MAX,
    });
    Order {
        id: number.to_string(),
        key: number.to_string(),
        value: Some(value.to_string().into_bytes()),
        headers: Vec::new(),
        timestamp: 1_793_491_200_000 + number as i64 * 86_400_000,
        fate: Fate::Row("main"),
    }
}

/// The columns and the rows.
pub(crate) fn read(engine: &str, folder: &Path) -> (String, Vec<serde_json::Value>) {
    let python = std::env::var("GRISTMILL_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("read_partitioned.py");
    let output = Command::new(python).arg(script).arg(engine).arg(folder).output().expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let (columns, rows) = text.split_once('\n').expect("a line of columns");
    (columns.to_owned(), rows.lines().map(|l| serde_json::from_str(l).expect("json")).collect())
}

#[test]
fn partitioned_folders_are_read_without_settings_and_every_type_is_what_it_was() {
    let Some(kafka) = shared_kafka() else { return };
    let topic = unique("partitioned");
    tokio::runtime::Runtime::new().unwrap().block_on(kafka.create_topic(&topic, 1, &[]));
    let countries = [
        "DE".into(),
        "a/b=c %".into(),
        serde_json::Value::Null,
        "".into(),
        "x".repeat(129).into(),
        "Österreich".into(),
    ];
    let orders: Vec<_> =
        countries.iter().enumerate().map(|(n, country)| (0, order(n as u64, country.clone()))).collect();
    OrderProducer::new(&kafka.bootstrap_servers(), &topic).plain(&topic, &orders);
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "name: readers
source:
  kafka: {{bootstrap_servers: '{}', topics: [{topic}]}}
decode:
  format: json
  fields:
    n: int64 not null
    country: string
    total: decimal(10,2)
    day: date
    at_s: timestamp_s
    at_us: timestamp_us
    buyer: {{name: string, tags: list<string>}}
    notes: map<string>
    big: uint64
sink:
  files:
    folder: rows
    directories: country={{country}}/dt=%Y-%m-%d
    rotate: {{age: 1s}}
dead_letters: {{folder: dead_letters}}
",
        kafka.bootstrap_servers()
    );
    let pipeline = Pipeline::new(folder.path(), &text);
    let mut run = pipeline.start(None);
    run.wait_for("published partition=0", PATIENCE);
    let group = "gristmill-readers";
    wait_until("all is published", PATIENCE, || kafka.committed_offsets(group, &topic, 1) == [6]);
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());

    let mut dead = Vec::new();
    for file in std::fs::read_dir(folder.path().join("dead_letters").join(&topic)).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for line in text.lines() {
            let letter: serde_json::Value = serde_json::from_str(line).unwrap();
            dead.push((letter["offset"].as_i64().unwrap(), letter["code"].as_str().unwrap().to_owned()));
            assert_eq!(letter["stage"], "write");
        }
    }
    assert_eq!(dead, [(3, "DIRECTORY_VALUE".to_owned()), (4, "DIRECTORY_VALUE".to_owned())]);

    for (engine, columns) in [
        (
            "pyarrow",
            "n int64; total decimal128(10, 2); day date32[day]; at_s timestamp[ms, tz=UTC]; at_us timestamp[us, tz=UTC]; buyer \
             struct<name: string, tags: list<element: string>>; notes map<string, string ('notes')>; big uint64",
        ),
        (
            "duckdb",
            "n BIGINT; total DECIMAL(10,2); day DATE; at_s TIMESTAMP WITH TIME ZONE; at_us TIMESTAMP WITH TIME ZONE; buyer \
             STRUCT(\"name\" VARCHAR, tags VARCHAR[]); notes MAP(VARCHAR, VARCHAR); big UBIGINT",
        ),
    ] {
        let (found, rows) = read(engine, &folder.path().join("rows").join(&topic));
        assert!(found.starts_with(columns), "{engine}: {found}\n{columns}");
        assert_eq!(rows.len(), 4, "{engine}");
        for row in rows {
            let n = row["n"].as_u64().unwrap();
            let day = format!("2026-11-{:02}", 1 + n);
            // What a key is read as is the reader's choice: text to pyarrow, a date to DuckDB.
            let dt = if engine == "duckdb" { format!("date {day}") } else { day };
            let expected = serde_json::json!({
                "n": n, "country": countries[n as usize], "dt": dt, "total": "Decimal 12.50", "day": "date 2026-11-01",
                "at_s": "2026-11-01T00:00:00+00:00", "at_us": "2026-11-01T00:00:00.000001+00:00",
                "buyer": {"name": "Ada", "tags": ["a", "b"]}, "notes": [["k", "v"]], "big": u64::MAX,
            });
            for (column, value) in expected.as_object().unwrap() {
                assert_eq!(row[column], *value, "{engine}: row {n}: {column}");
            }
            assert_eq!(row["_kafka_offset"], n, "{engine}");
        }
    }
}
