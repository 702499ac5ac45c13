//! Registries that are down, refuse or are late, and records whose schema is not the one of the columns.

use std::time::Duration;

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use gristmill::{EmbeddedRegistry, RegistryConfig, SchemaRegistry, SchemaType};
use gristmill_tests::orders::AVRO_SCHEMA;

use super::bench::{AVRO, Bench, JSON, PATIENCE, Told, World, visible};
use super::registry::{Mood, MoodyRegistry};
use crate::service::free_address;

/// An order as `schema` has it, in Confluent's wire format.
fn encoded(schema: &str, schema_id: u32, fields: Vec<(&str, Value)>) -> Vec<u8> {
    let schema = Schema::parse_str(schema).expect("the schema is right");
    let record = Value::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
    let writer = GenericDatumWriter::builder(&schema).build().expect("the schema is right");
    let mut value = vec![0];
    value.extend(schema_id.to_be_bytes());
    value.extend(writer.write_value_to_vec(record).expect("the record fits the schema"));
    value
}

/// An order of [`AVRO_SCHEMA`].
fn order(schema_id: u32, id: &str) -> Vec<u8> {
    let fields = vec![
        ("order_id", Value::String(id.into())),
        ("amount_cents", Value::Long(499)),
        ("note", Value::Union(0, Box::new(Value::Null))),
        ("created_at", Value::TimestampMillis(1_704_067_200_000)),
    ];
    encoded(AVRO_SCHEMA, schema_id, fields)
}

fn orders_of_schema_1(bench: &Bench<'_>) {
    (0..20).for_each(|_| bench.record(None, |id| order(1, id)));
}

fn with_registry(bench: &Bench<'_>, address: &str, more: &str) {
    bench.call(address, "registry:8081");
    bench.file(|p| {
        p.decode = AVRO.into();
        p.more = format!(
            "schema_registry: {{url: 'http://{address}'{more}}}\ndead_letters: {{folder: dead_letters}}\n"
        );
    });
}

/// A registry in a mood in which nothing can start, until it is well again.
fn refused(world: &World, mood: Mood) -> Told {
    let bench = Bench::empty(world);
    orders_of_schema_1(&bench);
    let registry = MoodyRegistry::start(mood);
    with_registry(&bench, &registry.address(), "");
    let told = bench.refuses_to_start(1);
    registry.set(Mood::Well);
    bench.goes_on();
    told
}

pub(super) fn down(world: &World) -> Told {
    let bench = Bench::empty(world);
    orders_of_schema_1(&bench);
    with_registry(&bench, &free_address().to_string(), "");
    let told = bench.refuses_to_start(1);
    with_registry(&bench, &MoodyRegistry::start(Mood::Well).address(), "");
    bench.goes_on();
    told
}

pub(super) fn wrong_password(world: &World) -> Told {
    let bench = Bench::empty(world);
    orders_of_schema_1(&bench);
    // ada:lovelace
    let registry = MoodyRegistry::start(Mood::Wants("Basic YWRhOmxvdmVsYWNl"));
    bench.beside("password", "byron");
    with_registry(&bench, &registry.address(), ", username: ada, password: '${file:password}'");
    let told = bench.refuses_to_start(1);
    bench.beside("password", "lovelace");
    bench.goes_on();
    told
}

pub(super) fn no_subject(world: &World) -> Told {
    refused(world, Mood::Status(404, 40401, "Subject 'orders-value' not found."))
}

pub(super) fn broken(world: &World) -> Told {
    refused(world, Mood::Status(500, 50001, "Error in the backend datastore"))
}

pub(super) fn silent(world: &World) -> Told {
    refused(world, Mood::Silent)
}

pub(super) fn slow(world: &World) -> Told {
    let bench = Bench::empty(world);
    orders_of_schema_1(&bench);
    let registry = MoodyRegistry::start(Mood::Slow(Duration::from_secs(3)));
    with_registry(&bench, &registry.address(), "");
    bench.goes_on();
    Told::silently("waits, and goes on")
}

/// The schema of a record is asked for once the registry is away.
pub(super) fn down_in_mid_stream(world: &World) -> Told {
    let bench = Bench::empty(world);
    orders_of_schema_1(&bench);
    let registry = MoodyRegistry::start(Mood::Well);
    with_registry(&bench, &registry.address(), "");
    let mut run = bench.start();
    bench.wait_for_the_end(&mut run);
    registry.set(Mood::Status(503, 50003, "Error while forwarding the request to the primary"));
    bench.record(None, |id| order(2, id));
    let told = bench.ends(run, 1);
    registry.set(Mood::Well);
    bench.goes_on();
    told
}

/// A real registry with schemas of the subject `orders-value`, and a pipeline that reads [`AVRO_SCHEMA`] from it.
struct Schemas<'w> {
    bench: Bench<'w>,
    url: String,
    client: SchemaRegistry,
    first: u32,
    _embedded: EmbeddedRegistry,
}

impl<'w> Schemas<'w> {
    fn new(world: &'w World) -> Self {
        let bench = Bench::empty(world);
        let embedded = world.runtime.block_on(EmbeddedRegistry::start()).unwrap();
        let url = embedded.url();
        let config = RegistryConfig::builder().url(&url).build().unwrap();
        let client = SchemaRegistry::new(config).unwrap();
        let mut schemas = Schemas { bench, url, client, first: 0, _embedded: embedded };
        schemas.first = schemas.register(AVRO_SCHEMA);
        with_registry(&schemas.bench, schemas.url.trim_start_matches("http://").trim_end_matches('/'), "");
        schemas
    }

    fn register(&self, schema: &str) -> u32 {
        let registered = self.client.register("orders-value", &SchemaType::Avro, schema, &[]);
        self.bench.world.runtime.block_on(registered).unwrap().id
    }
}

pub(super) fn unknown_id(world: &World) -> Told {
    let schemas = Schemas::new(world);
    let bench = &schemas.bench;
    for number in 0..20 {
        match number % 5 {
            4 => bench.record(Some("DECODE_UNKNOWN_SCHEMA"), |id| order(4711, id)),
            _ => bench.record(None, |id| order(schemas.first, id)),
        }
    }
    bench.goes_on();
    Told { fate: "dead letters `DECODE_UNKNOWN_SCHEMA`".into(), message: reason(bench) }
}

/// What the first dead letter says.
fn reason(bench: &Bench<'_>) -> String {
    let folder = bench.folder.path().join("dead_letters");
    let files = visible(&folder);
    let text = std::fs::read_to_string(files.first().expect("there is one")).unwrap();
    let letter: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    bench.steady(letter["message"].as_str().expect("it has a message"))
}

/// The amount has become a text, which no number can be read from.
pub(super) fn incompatible(world: &World) -> Told {
    let schemas = Schemas::new(world);
    let bench = &schemas.bench;
    (0..10).for_each(|_| bench.record(None, |id| order(schemas.first, id)));
    let mut run = bench.start();
    bench.wait_for_the_end(&mut run);
    let changed =
        AVRO_SCHEMA.replace(r#""amount_cents", "type": "long""#, r#""amount_cents", "type": "string""#);
    let second = schemas.register(&changed);
    for number in 0..20 {
        if number % 2 == 0 {
            bench.record(None, |id| order(schemas.first, id));
            continue;
        }
        bench.record(Some("DECODE_INCOMPATIBLE_SCHEMA"), |id| {
            let fields = vec![
                ("order_id", Value::String(id.into())),
                ("amount_cents", Value::String("4.99".into())),
                ("note", Value::Union(0, Box::new(Value::Null))),
                ("created_at", Value::TimestampMillis(1_704_067_200_000)),
            ];
            encoded(&changed, second, fields)
        });
    }
    bench.wait_for_the_end(&mut run);
    assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", bench.pipeline.logs());
    bench.assert_nothing_lost();
    Told { fate: "dead letters `DECODE_INCOMPATIBLE_SCHEMA`".into(), message: reason(bench) }
}

/// Producers of three versions write in turn; each can be read as the columns' schema, whichever came first.
pub(super) fn alternating(world: &World) -> Told {
    let schemas = Schemas::new(world);
    let bench = &schemas.bench;
    let narrower = r#"{"type": "record", "name": "Order", "namespace": "gristmill.test", "fields": [
        {"name": "created_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "order_id", "type": "string"},
        {"name": "amount_cents", "type": "int"}
    ]}"#;
    let wider = AVRO_SCHEMA
        .replace(r#""fields": ["#, r#""fields": [{"name": "country", "type": "string", "default": "DE"},"#);
    // The columns are those of the latest version: registered last.
    let (second, third) = (schemas.register(narrower), schemas.register(&wider));
    let latest = wider.replace("country", "land");
    schemas.register(&latest);
    for number in 0..30 {
        bench.record(None, |id| {
            let at = Value::TimestampMillis(1_704_067_200_000);
            let order_id = Value::String(id.into());
            match number % 3 {
                0 => order(schemas.first, id),
                1 => encoded(
                    narrower,
                    second,
                    vec![("created_at", at), ("order_id", order_id), ("amount_cents", Value::Int(499))],
                ),
                _ => encoded(
                    &wider,
                    third,
                    vec![
                        ("country", Value::String("AT".into())),
                        ("order_id", order_id),
                        ("amount_cents", Value::Long(499)),
                        ("note", Value::Union(1, Box::new(Value::String("wrapped".into())))),
                        ("created_at", at),
                    ],
                ),
            }
        });
    }
    bench.goes_on();
    Told::silently("rows")
}

/// A record that is not what the file says, where nothing is said of such records.
pub(super) fn undecodable(world: &World) -> Told {
    let bench = Bench::new(world);
    bench.record(Some("DECODE_MALFORMED"), |_| b"{\"order_id\": ".to_vec());
    bench.orders(20);
    bench.file(|p| p.decode = JSON.into());
    let told = bench.stops(1);
    bench.file(|p| p.more = "dead_letters: {folder: dead_letters}\n".into());
    bench.goes_on();
    told
}
