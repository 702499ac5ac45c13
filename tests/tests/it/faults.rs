//! The promise under fire, against a real Apache Kafka: every committed order exactly once, none of an aborted
//! transaction, dead letters complete, and a reader that never sees a file that is not whole and there to stay.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill::EmbeddedRegistry;
use gristmill_tests::campaign::{
    Campaign, FakeBucket, Fault, Folder, Kind, Place, Recovery, Report, Scenario, ServerBucket, StoreFault,
    Tables,
};
use gristmill_tests::orders::{AVRO_SCHEMA, Encoding};
use gristmill_tests::{RealKafka, say, seed, shared_kafka, unique};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

/// Seconds are short for a session: tests wait for its end after every kill.
const SESSION: &[(&str, &str)] = &[("group.consumer.session.timeout.ms", "4000")];

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/transforms/prebuilt").join(name);
    path.canonicalize().expect("the component is committed").display().to_string()
}

fn json_orders(name: &str, protocol: &str, seed: u64) -> Scenario {
    Scenario {
        name: name.to_owned(),
        seed,
        protocol: protocol.to_owned(),
        encoding: Encoding::Json,
        stages: format!(
            "transforms:
  - wasm: {}
    config: {{mask: '***', high_value_cents: 100000}}
  # The same once more, on columns: what the first has left stays where it is.
  - wasm: {}
    config: {{high_value_cents: 100000}}
decode:
  format: json
  fields:
    order_id: string not null
    customer: {{name: string, email: string, card: string}}
    amount_cents: int64 not null
    created_at: timestamp_ms
",
            example("orders.wasm"),
            example("typed-orders.wasm")
        ),
        format: "parquet".to_owned(),
        rotate_rows: 3_000,
        compacted: true,
    }
}

fn avro_orders(name: &str, protocol: &str, seed: u64, registry: &str, schema: u32) -> Scenario {
    Scenario {
        name: name.to_owned(),
        seed,
        protocol: protocol.to_owned(),
        encoding: Encoding::Avro(schema),
        stages: format!(
            "schema_registry: {{url: '{registry}'}}
transforms:
  - wasm: {}
decode: {{format: avro}}
",
            example("headers.wasm")
        ),
        format: "parquet".to_owned(),
        rotate_rows: 300,
        compacted: false,
    }
}

fn register(runtime: &tokio::runtime::Runtime, subject: &str) -> (EmbeddedRegistry, u32) {
    runtime.block_on(async {
        let registry = EmbeddedRegistry::start().await.unwrap();
        let client = gristmill::RegistryConfig::builder().url(registry.url()).build().unwrap();
        let client = gristmill::SchemaRegistry::new(client).unwrap();
        let schema = client.register(subject, &gristmill::SchemaType::Avro, AVRO_SCHEMA, &[]).await.unwrap();
        (registry, schema.id)
    })
}

/// Every fault of the plan, with that many orders spread over it.
fn carry_out(mut campaign: Campaign<'_>, plan: &[Fault], orders: u64) -> Report {
    for fault in plan {
        campaign.feed(orders / plan.len() as u64 + 1);
        campaign.inject(*fault);
    }
    let report = campaign.finish();
    say(&report);
    assert_eq!(report.missing(), Vec::<String>::new());
    assert!(report.tally.visible >= orders, "{} orders", report.tally.visible);
    assert!(report.tally.letters > 0 && report.tally.dropped > 0 && report.tally.aborted > 0);
    report
}

#[test]
fn half_a_million_orders_arrive_exactly_once_through_kills_at_every_step_and_frozen_owners() {
    let seed = seed();
    let Some(kafka) = shared_kafka() else { return };
    let scenario = json_orders("json-orders", "cooperative", seed);
    let plan = Fault::plan(&mut SmallRng::seed_from_u64(seed ^ 2), 20);
    let campaign = Campaign::start(kafka, Arc::new(Folder::default()), scenario);
    let report = carry_out(campaign, &plan, 500_000);
    assert!(report.tally.compacted > 0);
    assert!(report.recoveries(Recovery::Swept) > 0, "nobody swept what killed processes had staged");
}

#[test]
fn json_lines_arrive_exactly_once_with_the_range_assignor() {
    let seed = seed();
    let Some(kafka) = shared_kafka() else { return };
    let scenario = Scenario {
        format: "jsonl".to_owned(),
        rotate_rows: 300,
        compacted: false,
        ..json_orders("json-lines", "range", seed)
    };
    let plan = Fault::plan(&mut SmallRng::seed_from_u64(seed ^ 2), 2);
    carry_out(Campaign::start(kafka, Arc::new(Folder::default()), scenario), &plan, 20_000);
}

#[test]
fn orders_arrive_exactly_once_while_brokers_die_and_hang() {
    let seed = seed();
    let Some(kafka) = RealKafka::start_with(3, SESSION) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (registry, schema) = register(&runtime, "avro-orders-value");
    let scenario = avro_orders("avro-orders", "consumer", seed, &registry.url(), schema);
    let mut random = SmallRng::seed_from_u64(seed ^ 2);
    let mut plan = Fault::plan(&mut random, 2);
    plan.push(Fault::KillBroker(random.random_range(1..=3)));
    plan.push(Fault::FreezeBroker(random.random_range(1..=3)));
    plan.shuffle(&mut random);
    let campaign = Campaign::start(&kafka, Arc::new(Folder::default()), scenario);
    let report = carry_out(campaign, &plan, 30_000);
    assert!([Kind::BrokerKilled, Kind::BrokerFrozen].iter().all(|kind| report.faults.contains_key(kind)));
}

#[test]
fn orders_arrive_in_a_bucket_exactly_once_whatever_the_store_does() {
    let seed = seed();
    let Some(kafka) = shared_kafka() else { return };
    let scenario =
        Scenario { rotate_rows: 600, compacted: false, ..json_orders("bucket-orders", "cooperative", seed) };
    let mut random = SmallRng::seed_from_u64(seed ^ 2);
    let mut plan = Fault::plan(&mut random, 3);
    plan.extend(StoreFault::ALL.map(Fault::Store));
    plan.shuffle(&mut random);
    let campaign = Campaign::start(kafka, Arc::new(FakeBucket::default()), scenario);
    let report = carry_out(campaign, &plan, 60_000);
    assert!(report.noise > 0);
}

#[test]
fn orders_arrive_exactly_once_in_an_independent_emulator() {
    let seed = seed();
    let Some(kafka) = shared_kafka() else { return };
    let Some(bucket) = ServerBucket::start() else { return };
    let scenario = Scenario {
        rotate_rows: 600,
        compacted: false,
        ..json_orders("emulator-orders", "cooperative", seed)
    };
    let plan = Fault::plan(&mut SmallRng::seed_from_u64(seed ^ 2), 2);
    carry_out(Campaign::start(kafka, Arc::new(bucket), scenario), &plan, 30_000);
}

/// Replies lost, connections broken and requests refused all the time, beside kills and frozen owners.
#[test]
fn orders_arrive_in_tables_of_bigquery_exactly_once_whatever_it_does() {
    let seed = seed();
    let Some(kafka) = shared_kafka() else { return };
    let scenario =
        Scenario { rotate_rows: 600, compacted: false, ..json_orders("table-orders", "cooperative", seed) };
    let plan = Fault::plan(&mut SmallRng::seed_from_u64(seed ^ 2), 4);
    let tables = Tables::in_fake(&scenario.name, seed ^ 3);
    carry_out(Campaign::start(kafka, Arc::new(tables), scenario), &plan, 60_000);
}

#[test]
fn orders_arrive_exactly_once_in_tables_of_an_independent_emulator() {
    let seed = seed();
    let Some(kafka) = shared_kafka() else { return };
    let scenario = Scenario {
        rotate_rows: 2_000,
        compacted: false,
        ..json_orders("emulated-tables", "cooperative", seed)
    };
    let Some(tables) = Tables::in_emulator(&scenario.name) else { return };
    let plan = Fault::plan(&mut SmallRng::seed_from_u64(seed ^ 2), 1);
    carry_out(Campaign::start(kafka, Arc::new(tables), scenario), &plan, 10_000);
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|v| !v.is_empty()).unwrap_or_else(|| default.to_owned())
}

/// A campaign's memory grows with its orders: a long soak is many of them.
const ROUND: Duration = Duration::from_secs(300);

fn place_of(name: &str, topic: &str, seed: u64) -> Arc<dyn Place> {
    match name {
        "fake-bigquery" => Arc::new(Tables::in_fake(topic, seed)),
        "folder" => Arc::new(Folder::default()),
        "fake-gcs" => Arc::new(FakeBucket::default()),
        "fake-gcs-server" => Arc::new(ServerBucket::start().expect("the program is there")),
        other => {
            panic!("there is no place {other}: it is folder, fake-gcs, fake-gcs-server or fake-bigquery")
        }
    }
}

/// `make soak`: faults at random until the time is over.
#[test]
#[ignore = "runs as long as it is asked to; see `make soak`"]
fn soak() {
    let minutes: f64 = setting("GRISTMILL_SOAK_MINUTES", "10").parse().expect("minutes");
    let protocol = setting("GRISTMILL_SOAK_PROTOCOL", "cooperative");
    let place = setting("GRISTMILL_SOAK_PLACE", "folder");
    let seed = seed();
    let Some(kafka) = RealKafka::start_with(3, SESSION) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let mut random = SmallRng::seed_from_u64(seed);
    let mut total: Option<Report> = None;
    while Instant::now() < end {
        let round = end.min(Instant::now() + ROUND);
        let scenario = Scenario {
            rotate_rows: random.random_range(200..5_000),
            compacted: false,
            ..json_orders(&unique("soak"), &protocol, random.random())
        };
        let topic = scenario.name.clone();
        let place = place_of(&place, &topic, scenario.seed);
        let faulty = place.store_faults().is_some();
        let mut campaign = Campaign::start(&kafka, place, scenario);
        while Instant::now() < round {
            campaign.feed(15_000);
            campaign.inject(Fault::draw(&mut random, kafka.node_count(), faulty));
        }
        let report = campaign.finish();
        say(&report);
        assert_eq!(report.missing(), Vec::<String>::new());
        runtime.block_on(kafka.delete_topic(&topic));
        total = Some(match total {
            None => report,
            Some(total) => total.and(report),
        });
    }
    let total = total.expect("there was time for a round");
    say(Report { name: format!("soak, {protocol}, {place}"), seed, ..total });
}
