//! Schemas that change while a pipeline runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use gristmill::{EmbeddedRegistry, SchemaRegistry, SchemaType};
use gristmill_sinks::fake_bigquery::{Call, Effect, FakeBigQuery};
use gristmill_tests::orders::{Fate, Order};
use gristmill_tests::pipeline::{Pipeline, wait_until};
use gristmill_tests::{OrderProducer, RealKafka, shared_kafka, unique};
use serde_json::Value;
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(90);

/// What schemas and records are written in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Language {
    Avro,
    Protobuf,
    Json,
}

impl Language {
    /// As a pipeline file calls records in it.
    fn format(self) -> &'static str {
        match self {
            Language::Avro => "avro",
            Language::Protobuf => "protobuf",
            Language::Json => "json_schema",
        }
    }

    /// The schema of orders with so many columns besides their id.
    fn schema(self, columns: usize) -> (SchemaType, String) {
        let each = |of: &dyn Fn(usize) -> String| (1..=columns).map(of).collect::<String>();
        match self {
            Language::Avro => {
                let columns = each(&|i| {
                    format!(
                        r#", {{"name": "c{i}", "type": ["null", "string"], "default": null, "doc": "Number \"{i}\"."}}"#
                    )
                });
                let id = r#"{"name": "id", "type": "long"}"#;
                let text = format!(
                    r#"{{"type": "record", "name": "Order", "doc": "Orders.", "fields": [{id}{columns}]}}"#
                );
                (SchemaType::Avro, text)
            }
            Language::Protobuf => {
                let columns =
                    each(&|i| format!("  // Number \"{i}\".\n  optional string c{i} = {};\n", i + 1));
                let text = format!(
                    "syntax = \"proto3\";\n// Orders.\nmessage Order {{\n  int64 id = 1;\n{columns}}}\n"
                );
                (SchemaType::Protobuf, text)
            }
            Language::Json => {
                let columns = each(&|i| {
                    format!(r#", "c{i}": {{"type": ["null", "string"], "description": "Number \"{i}\"."}}"#)
                });
                let text = format!(
                    r#"{{"type": "object", "description": "Orders.", "properties": {{"id": {{"type": "integer"}}{columns}}}, "required": ["id"]}}"#
                );
                (SchemaType::Json, text)
            }
        }
    }

    /// An order with that schema, with a value in each of its columns, behind the schema's id.
    fn value(self, schema: &str, columns: usize, id: i64) -> Vec<u8> {
        let text = |column: usize| format!("{column} of {id}");
        match self {
            Language::Avro => {
                let schema = Schema::parse_str(schema).unwrap();
                let mut fields = vec![("id".to_owned(), Avro::Long(id))];
                for column in 1..=columns {
                    let value = Avro::Union(1, Box::new(Avro::String(text(column))));
                    fields.push((format!("c{column}"), value));
                }
                let writer = GenericDatumWriter::builder(&schema).build().unwrap();
                writer.write_value_to_vec(Avro::Record(fields)).unwrap()
            }
            Language::Protobuf => {
                // The first message of the schema.
                let mut value = vec![0];
                prost::encoding::int64::encode(1, &id, &mut value);
                for column in 1..=columns {
                    prost::encoding::string::encode(column as u32 + 1, &text(column), &mut value);
                }
                value
            }
            Language::Json => {
                let mut object = serde_json::Map::from_iter([("id".to_owned(), Value::from(id))]);
                object.extend((1..=columns).map(|column| (format!("c{column}"), text(column).into())));
                Value::Object(object).to_string().into_bytes()
            }
        }
    }
}

/// A topic of two partitions whose schema gets one more column with each version.
struct Orders {
    language: Language,
    producer: OrderProducer,
    topic: String,
    runtime: Runtime,
    registry: EmbeddedRegistry,
    client: SchemaRegistry,
    /// Each with its id.
    versions: Vec<(u32, String)>,
    next: i64,
    /// The version of each order.
    expected: BTreeMap<i64, usize>,
}

impl Orders {
    fn new(kafka: &RealKafka, name: &str, language: Language) -> Self {
        let (topic, runtime) = (unique(name), Runtime::new().unwrap());
        let registry = runtime.block_on(async {
            kafka.create_topic(&topic, 2, &[]).await;
            EmbeddedRegistry::start().await.unwrap()
        });
        let client = gristmill::RegistryConfig::builder().url(registry.url()).build().unwrap();
        let client = SchemaRegistry::new(client).unwrap();
        let producer = OrderProducer::new(&kafka.bootstrap_servers(), &topic);
        let (versions, expected) = (Vec::new(), BTreeMap::new());
        let mut orders =
            Orders { language, producer, topic, runtime, registry, client, versions, next: 0, expected };
        orders.change_schema();
        orders
    }

    /// Registers the next version.
    fn change_schema(&mut self) {
        let (schema_type, text) = self.language.schema(self.versions.len());
        let subject = format!("{}-value", self.topic);
        let registered = self.client.register(&subject, &schema_type, &text, &[]);
        let id = self.runtime.block_on(registered).unwrap().id;
        self.versions.push((id, text));
    }

    /// Orders of the last two versions in turn, of which every column has a value.
    fn produce(&mut self, count: i64) {
        let mut batch = Vec::new();
        for id in self.next..self.next + count {
            let version = (self.versions.len() - 1).saturating_sub(usize::from(id % 3 == 0));
            let (schema_id, schema) = &self.versions[version];
            let mut value = vec![0];
            value.extend(schema_id.to_be_bytes());
            value.extend(self.language.value(schema, version, id));
            let order = Order {
                id: String::new(),
                key: String::new(),
                value: Some(value),
                headers: Vec::new(),
                timestamp: 1_793_491_200_000,
                fate: Fate::Row("main"),
            };
            batch.push(((id % 2) as i32, order));
            self.expected.insert(id, version);
        }
        self.next += count;
        self.producer.plain(&self.topic, &batch);
    }

    /// A pipeline whose sink is the rest of its file.
    fn pipeline(&self, kafka: &RealKafka, folder: &Path, sink: &str) -> Pipeline {
        let (topic, servers, url) = (&self.topic, kafka.bootstrap_servers(), self.registry.url());
        let format = self.language.format();
        let text = format!(
            "name: {topic}\nsource:\n  kafka: {{bootstrap_servers: '{servers}', topics: [{topic}], session_timeout: 6s}}\n\
             schema_registry: {{url: '{url}'}}\ndecode: {{format: {format}}}\ndead_letters: {{folder: letters}}\nsink:\n{sink}"
        );
        Pipeline::new(folder, &text)
    }

    fn table(&self) -> String {
        format!("shop.lake.{}", self.topic.replace('-', "_"))
    }
}

/// How many columns of each order have its values; that an order is there twice is a panic.
fn in_table(bigquery: &FakeBigQuery, table: &str) -> BTreeMap<i64, usize> {
    let mut found = BTreeMap::new();
    for rows in bigquery.rows(table) {
        let ids = rows.column_by_name("id").unwrap().as_primitive::<Int64Type>();
        for row in 0..rows.num_rows() {
            let id = ids.value(row);
            let text = |column: &usize| {
                let values = rows.column_by_name(&format!("c{column}"))?.as_string::<i32>();
                (!arrow_array::Array::is_null(values, row)).then(|| values.value(row))
            };
            let columns =
                (1..10).filter(|column| text(column) == Some(&*format!("{column} of {id}"))).count();
            assert!(found.insert(id, columns).is_none(), "order {id} twice");
        }
    }
    found
}

fn in_files(folder: &Path, found: &mut BTreeMap<i64, usize>) {
    for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            in_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "jsonl") {
            for line in std::fs::read_to_string(path).unwrap().lines() {
                let row: Value = serde_json::from_str(line).unwrap();
                let id = row["id"].as_i64().unwrap();
                let is = |column: &usize| row[format!("c{column}")] == format!("{column} of {id}");
                assert!(found.insert(id, (1..10).filter(is).count()).is_none(), "order {id} twice");
            }
        }
    }
}

fn bigquery_sink(bigquery: &FakeBigQuery, tables: &str) -> String {
    format!(
        "  bigquery:\n    project: shop\n    dataset: lake\n    state: {{folder: state}}\n    rotate: {{age: 1s, rows: 100}}\n    \
         endpoint: '{}'\n    rest_endpoint: '{}'\n    tables: {tables}\n",
        bigquery.url(),
        bigquery.rest_url()
    )
}

/// Columns come while the pipeline runs and dies at every step; the table gets each, and every order is in it once with all of its
/// values.
fn new_columns_are_added_through_kills(language: Language) {
    let Some(kafka) = shared_kafka() else { return };
    let mut orders = Orders::new(kafka, "schema-change", language);
    let bigquery = FakeBigQuery::start();
    let folder = tempfile::tempdir().unwrap();
    let sink = bigquery_sink(&bigquery, "{dataset_location: EU}");
    let pipeline = orders.pipeline(kafka, folder.path(), &sink);
    let table = orders.table();
    for failpoint in ["after-stage:2", "after-seal:2", "after-move:2", "before-commit:2"] {
        let mut run = pipeline.start(Some(failpoint));
        orders.produce(50);
        orders.change_schema();
        bigquery.lag(2);
        bigquery.plan(Call::Append, Effect::LoseReply);
        orders.produce(400);
        run.wait_for_kill(PATIENCE);
    }
    let run = pipeline.start(None);
    orders.produce(50);
    wait_until("all orders are there", PATIENCE, || {
        in_table(&bigquery, &table).len() >= orders.expected.len()
    });
    for _ in 0..2 {
        orders.change_schema();
        orders.produce(50);
        wait_until("those of the new schema, too", PATIENCE, || {
            in_table(&bigquery, &table).len() >= orders.expected.len()
        });
    }
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());
    assert_eq!(in_table(&bigquery, &table), orders.expected, "{}", pipeline.logs());
    assert_eq!(pipeline.count_in_logs("added=\"c6\" gone=\"\""), 1);
    // As the schemas say, also of what came while it ran.
    let made = bigquery.table(&table);
    assert_eq!(made["description"], "Orders.");
    for column in made["schema"]["fields"].as_array().unwrap() {
        let name = column["name"].as_str().unwrap();
        let description = name.strip_prefix('c').map(|number| format!("Number \"{number}\"."));
        assert_eq!(column["description"].as_str().map(str::to_owned), description, "{made}");
    }
    assert!(
        !folder.path().join("letters").exists()
            || crate::bigquery::dead_letters(&folder.path().join("letters")).is_empty()
    );
}

#[test]
fn new_columns_of_avro_are_added_while_the_pipeline_runs_through_kills() {
    new_columns_are_added_through_kills(Language::Avro);
}

#[test]
fn new_columns_of_protobuf_are_added_while_the_pipeline_runs_through_kills() {
    new_columns_are_added_through_kills(Language::Protobuf);
}

#[test]
fn new_columns_of_json_schemas_are_added_while_the_pipeline_runs_through_kills() {
    new_columns_are_added_through_kills(Language::Json);
}

/// What a start would refuse is refused by a running pipeline, after all before it was delivered.
#[test]
fn a_column_that_no_table_may_get_stops_the_pipeline_with_the_statement() {
    let Some(kafka) = shared_kafka() else { return };
    let mut orders = Orders::new(kafka, "schema-fail", Language::Avro);
    let bigquery = FakeBigQuery::start();
    let folder = tempfile::tempdir().unwrap();
    let sink = bigquery_sink(&bigquery, "{dataset_location: EU, new_columns: fail}");
    let pipeline = orders.pipeline(kafka, folder.path(), &sink);
    let table = orders.table();
    let mut run = pipeline.start(None);
    orders.produce(100);
    wait_until("they are there", PATIENCE, || in_table(&bigquery, &table).len() == 100);
    orders.change_schema();
    orders.produce(100);
    assert_eq!(run.wait(PATIENCE).code(), Some(2), "{}", run.log());
    let why = format!(
        "table {table} of BigQuery lacks columns of the rows: ALTER TABLE `{table}` ADD COLUMN `c1` STRING OPTIONS \
         (description = \"Number \\\"1\\\".\");"
    );
    assert!(run.log().contains(&why), "{}", run.log());
    assert_eq!(in_table(&bigquery, &table).len(), 100);
}

/// Files get the column, too, and none is of two schemas.
#[test]
fn files_get_new_columns_while_the_pipeline_runs() {
    let Some(kafka) = shared_kafka() else { return };
    let mut orders = Orders::new(kafka, "schema-files", Language::Avro);
    let folder = tempfile::tempdir().unwrap();
    let sink = "  files: {folder: rows, format: jsonl, rotate: {age: 1s}}\n";
    let pipeline = orders.pipeline(kafka, folder.path(), sink);
    let run = pipeline.start(None);
    let rows = || {
        let mut found = BTreeMap::new();
        in_files(&folder.path().join("rows"), &mut found);
        found
    };
    for _ in 0..3 {
        orders.produce(200);
        wait_until("they are there", PATIENCE, || rows().len() >= orders.expected.len());
        orders.change_schema();
    }
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", pipeline.logs());
    assert_eq!(rows(), orders.expected);
    let (code, text) = pipeline.command(&["audit"]);
    assert_eq!(code, Some(0), "{text}");
}
