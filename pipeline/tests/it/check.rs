use std::path::PathBuf;

use gristmill_pipeline::{ByteSize, Format, check, schema};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.0.path().join("p.yaml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The mistakes as printed, without the folder.
    fn mistakes(&self, text: &str) -> String {
        let problems = check(&self.file(text)).expect_err("the file has mistakes").to_string();
        problems.replace(&format!("{}/", self.0.path().display()), "")
    }
}

const RIGHT: &str = "\
name: orders
source:
  kafka:
    bootstrap_servers: localhost:9092
    topics: [orders]
decode:
  format: json
  fields:
    order_id: string not null
    customer: {name: string}
sink:
  files:
    folder: rows
    rotate: {bytes: 1MiB}
";

#[test]
fn a_right_file_is_read_with_its_defaults() {
    let folder = Folder::new();
    let checked = check(&folder.file(RIGHT)).unwrap();
    let p = &checked.pipeline;
    assert_eq!(p.decode.format, Format::Json);
    assert_eq!(p.sink.files.as_ref().unwrap().rotate.bytes, ByteSize(1 << 20));
    assert_eq!(p.sink.files.as_ref().unwrap().rotate.rows, 1_000_000);
    assert_eq!(
        checked.path(p.sink.files.as_ref().unwrap().folder.as_ref().unwrap()),
        folder.0.path().join("rows")
    );
    let schema = p.decode.fields.as_ref().unwrap().arrow_schema().unwrap();
    let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names, ["order_id", "customer"], "columns stand in the order of the file");
}

#[test]
fn every_mistake_is_named_at_once_with_its_line_and_what_was_meant() {
    let text = "\
nam: orders
source:
  kafka:
    bootstrap_servers: localhost:9092
    topics: []
    start: earlyest
decode:
  format: jsn
sink:
  files:
    folder: 7
    rotate:
      age: 30 seconds
      byte: 1MiB
";
    assert_eq!(
        Folder::new().mistakes(text),
        "\
p.yaml:1:1: `name` is missing
p.yaml:1:1: nam: there is no such field; did you mean `name`?
p.yaml:5:5: source.kafka.topics: is empty
p.yaml:6:5: source.kafka.start: `earlyest` is none of earliest, latest; did you mean `earliest`?
p.yaml:8:3: decode.format: `jsn` is none of json, avro, protobuf, json_schema, bytes; did you mean `json`?
p.yaml:11:5: sink.files.folder: must be text, is a number
p.yaml:13:7: sink.files.rotate.age: `30 seconds` is not a duration, such as `30s`
p.yaml:14:7: sink.files.rotate.byte: there is no such field; did you mean `bytes`?"
    );
}

#[test]
fn what_a_schema_cannot_say_is_checked_too() {
    let text = "\
name: orders
source:
  kafka:
    bootstrap_servers: localhost:9092
    topics: [orders, letters, orders]
    properties:
      group.id: mine
      sasl.password: ${env:GRISTMILL_NO_SUCH_VARIABLE}
transforms:
  - wasm: nowhere.wasm
decode:
  format: json
  fields:
    order_id: strin
    customer: {name: 'decimal(99,1)'}
sink:
  files:
    folder: rows
dead_letters:
  folder: dead
  topic: letters
schema_registry:
  url: localhost:8081
  username: me
http:
  listen: '9600'
";
    let mistakes = Folder::new().mistakes(text);
    for (line, expected) in [
        (5, "source.kafka.topics[2]: `orders` is named twice"),
        (
            7,
            "source.kafka.properties.group.id: this property belongs to Gristmill; write `source.kafka.group`",
        ),
        (
            8,
            "source.kafka.properties.sasl.password: the environment variable GRISTMILL_NO_SUCH_VARIABLE is not set",
        ),
        (10, "transforms[0].wasm: there is no file "),
        (14, "decode.fields.order_id: "),
        (15, "decode.fields.customer.name: "),
        (21, "dead_letters.topic: `folder` and `topic` exclude each other; keep one"),
        (22, "schema_registry: `username` and `password` go together"),
        (23, "schema_registry.url: `localhost:8081` must begin with http:// or https://"),
        (26, "http.listen: `9600` is not an address and port, such as `127.0.0.1:9600`"),
    ] {
        let found =
            mistakes.lines().any(|l| l.starts_with(&format!("p.yaml:{line}:")) && l.contains(expected));
        assert!(found, "line {line}: {expected}\nis not in\n{mistakes}");
    }
    assert_eq!(mistakes.lines().count(), 10, "{mistakes}");
}

#[test]
fn what_would_hide_or_mix_data_is_refused() {
    let text = RIGHT
        .replace("topics: [orders]", "topics: ['^ord.*']")
        .replace("    order_id: string", "    _kafka_offset: int64\n    order_id: string")
        .replace("{bytes: 1MiB}", "{age: 0s}")
        + "dead_letters: {folder: rows}\n";
    let mistakes = Folder::new().mistakes(&text);
    for expected in [
        "source.kafka.topics[0]: `^ord.*` is not a topic's name",
        "decode.fields._kafka_offset: names that begin with `_kafka_` are Gristmill's own",
        "sink.files.rotate.age: must be above 0",
        "dead_letters.folder: is where the rows go",
    ] {
        assert!(mistakes.contains(expected), "{expected}\nis not in\n{mistakes}");
    }
}

#[test]
fn directories_and_columns_have_to_fit_together() {
    let folder = Folder::new();
    let with = |template: &str| {
        RIGHT.replace("    folder: rows\n", &format!("    folder: rows\n    directories: '{template}'\n"))
    };
    for good in ["name={customer.name}/dt=%Y-%m-%d", "order_id={order_id}", "c={customer.name}"] {
        check(&folder.file(&with(good))).unwrap();
    }
    for (template, mistake) in [
        ("n={customer.nam}/d=%d", "there is no column `customer.nam`; did you mean `customer.name`?"),
        ("n={price}", "there is no column `price`; the columns are order_id, customer.name"),
        ("n={customer}", "`customer` is of type Struct"),
        ("order_id=%Y", "the key `order_id` is the name of a column with another content"),
        ("n={_kafka_offset}", "there is no column `_kafka_offset`"),
        ("n=x-{order_id}", "a field in braces must stand alone"),
        ("{order_id}", "without a key: write `name={order_id}`"),
    ] {
        let mistakes = folder.mistakes(&with(template));
        let expected = format!("p.yaml:14:5: sink.files.directories: {mistake}");
        let parsed = format!("p.yaml:14:5: sink.files.directories: directory template {template:?}");
        assert!(
            mistakes.starts_with(&expected) || mistakes.starts_with(&parsed) && mistakes.contains(mistake),
            "{mistakes}"
        );
        assert_eq!(mistakes.lines().count(), 1, "{mistakes}");
    }
    let bytes = with("n={value}").replace("format: json", "format: bytes");
    let bytes = bytes.split("  fields:").next().unwrap().to_owned()
        + "sink: {files: {folder: rows, directories: 'n={value}'}}\n";
    assert!(folder.mistakes(&bytes).contains("`value` is of type Binary"));
}

#[test]
fn dead_letters_do_not_go_back_into_the_topic_that_is_read() {
    let mistakes = Folder::new().mistakes(&format!("{RIGHT}dead_letters: {{topic: orders}}\n"));
    assert!(mistakes.contains("its dead letters would come back for ever"), "{mistakes}");
}

#[test]
fn what_is_not_yaml_says_where() {
    let mistakes = Folder::new().mistakes("name: [orders\nsource: 1\n");
    assert!(mistakes.starts_with("p.yaml:") && mistakes.contains("is not YAML"), "{mistakes}");
    assert_eq!(Folder::new().mistakes(""), "p.yaml: is empty");
    let twice = Folder::new().mistakes(&format!("{RIGHT}name: again\n"));
    assert!(twice.contains("p.yaml:14") || twice.contains("p.yaml:15"), "{twice}");
}

#[test]
fn strange_files_are_refused_without_a_panic() {
    let folder = Folder::new();
    let deep = format!("name: {}{}", "[".repeat(500), "]".repeat(500));
    let huge = format!("name: {}", "x".repeat(2 << 20));
    for text in
        ["- 1", "7", "~", "a: &x [*x]", "? [1]\n: 2", "name: !!binary aGk=", "name: .nan", &deep, &huge]
    {
        assert!(check(&folder.file(text)).is_err(), "{text:.40}");
    }
    assert!(check(&folder.0.path().join("nothing.yaml")).is_err());
}

#[test]
fn the_published_schema_is_a_schema_and_describes_every_field() {
    let schema = schema();
    jsonschema::meta::validate(&schema).unwrap();
    let mut undescribed = Vec::new();
    let mut visit = |name: &str, object: &serde_json::Value| {
        for (field, value) in object["properties"].as_object().into_iter().flatten() {
            if value.get("description").is_none() {
                undescribed.push(format!("{name}.{field}"));
            }
        }
    };
    visit("PipelineFile", &schema);
    for (name, object) in schema["$defs"].as_object().unwrap() {
        visit(name, object);
    }
    assert_eq!(undescribed, Vec::<String>::new());
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let text = format!("{RIGHT}schema_registry: {{url: 'http://r', username: me, password: hunter2}}\n");
    let checked = check(&Folder::new().file(&text)).unwrap();
    assert!(!format!("{checked:?}").contains("hunter2"));
}

#[test]
fn a_bigquery_sink_names_its_tables_and_its_state_and_nothing_else() {
    let folder = Folder::new();
    let head = "name: orders\nsource:\n  kafka: {bootstrap_servers: 'localhost:9092', topics: [orders]}\ndecode: {format: bytes}\n";
    let sink = |text: &str| format!("{head}sink:\n{text}");
    let right = sink("  bigquery: {project: shop, dataset: lake, state: {folder: state}}\n");
    let checked = check(&folder.file(&right)).unwrap();
    let bigquery = checked.pipeline.sink.bigquery.as_ref().unwrap();
    assert_eq!((bigquery.table.as_str(), bigquery.rotate.rows), ("{topic}", 1_000_000));
    let aside = checked.replay(&"again".parse().unwrap()).unwrap().pipeline.sink.bigquery.unwrap();
    assert_eq!((aside.table.as_str(), aside.state.folder.unwrap()), ("{topic}_again", "again".into()));
    for (text, mistake) in [
        ("  {}\n", "sink: name where the rows go: `files` or `bigquery`"),
        (
            "  files: {folder: rows}\n  bigquery: {project: shop, dataset: lake, state: {folder: state}}\n",
            "sink.bigquery: `files` and `bigquery` exclude each other; keep one",
        ),
        (
            "  bigquery: {project: shop, dataset: lake, state: {}}\n",
            "sink.bigquery.state: name where the ledger lies: a `folder`, or `gcs` with a `bucket`",
        ),
        (
            "  bigquery: {project: shop, dataset: lake, table: shop.lake.orders, state: {folder: state}}\n",
            "sink.bigquery.table: table \"shop.lake.orders\" is more than the table's name",
        ),
        (
            "  bigquery: {project: shop, dataset: lake, table: '{topic}_{contry}', state: {folder: state}}\n",
            "sink.bigquery.table: there is no column `contry`",
        ),
        (
            "  files: {folder: rows}\ndead_letters: {table: dead}\n",
            "dead_letters.table: is one of BigQuery, where the rows do not go",
        ),
        (
            "  bigquery: {project: shop, dataset: lake, state: {folder: state}}\ndead_letters: {table: '{topic}_{id}'}\n",
            "dead_letters.table: dead letters have no column `id`",
        ),
        (
            "  bigquery: {project: shop, dataset: lake, table: '{topic', state: {folder: state}}\n",
            "sink.bigquery.table: table \"{topic\" has a `{` without a `}`",
        ),
        (
            "  bigquery: {project: shop, dataset: lake, endpoint: 'localhost:9060', state: {folder: state}}\n",
            "sink.bigquery.endpoint: `localhost:9060` must begin with http:// or https://",
        ),
        (
            "  bigquery: {project: shop, dataset: lake, rotate: {age: 0s}, state: {folder: state}}\n",
            "sink.bigquery.rotate.age: must be above 0",
        ),
    ] {
        let mistakes = folder.mistakes(&sink(text));
        assert!(mistakes.contains(mistake), "{mistake} is not in {mistakes}");
    }
}
