//! Orders for end-to-end tests: each has an id of its own and a fate that the test knows beforehand.

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// What has to become of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// A row of this output.
    Row(&'static str),
    /// A dead letter with this code.
    DeadLetter(&'static str),
    /// Dropped by the transform.
    Dropped,
}

/// How orders are encoded.
#[derive(Clone, Debug)]
pub enum Encoding {
    /// JSON, for `examples/transforms/orders`.
    Json,
    /// Avro in Confluent's wire format with this schema id, for `examples/transforms/headers`.
    Avro(u32),
}

/// One record to produce.
#[derive(Clone, Debug)]
pub struct Order {
    /// The order's id.
    pub id: String,
    /// The record's key; the order's id, unless a test says otherwise.
    pub key: String,
    /// The record's value.
    pub value: Option<Vec<u8>>,
    /// The record's headers.
    pub headers: Vec<(&'static str, &'static str)>,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// What has to become of it.
    pub fate: Fate,
}

/// The Avro schema of orders.
pub const AVRO_SCHEMA: &str = r#"{
  "type": "record", "name": "Order", "namespace": "gristmill.test",
  "fields": [
    {"name": "order_id", "type": "string"},
    {"name": "amount_cents", "type": "long"},
    {"name": "note", "type": ["null", "string"], "default": null},
    {"name": "created_at", "type": {"type": "long", "logicalType": "timestamp-millis"}}
  ]
}"#;

/// Makes orders: the same ones for the same seed.
#[derive(Debug)]
pub struct Orders {
    random: SmallRng,
    encoding: Encoding,
    avro: Schema,
    made: u64,
}

impl Orders {
    /// Orders of that encoding.
    pub fn new(encoding: Encoding, seed: u64) -> Self {
        let avro = Schema::parse_str(AVRO_SCHEMA).expect("the schema is right");
        Orders { random: SmallRng::seed_from_u64(seed), encoding, avro, made: 0 }
    }

    /// Which one an order was, counted from 0, by its id.
    pub fn number(id: &str) -> Option<usize> {
        id.strip_prefix("o-")?.parse().ok()
    }

    /// The next order.
    pub fn make(&mut self) -> Order {
        let number = self.made;
        self.made += 1;
        let id = format!("o-{number:08}");
        let timestamp = 1_793_491_200_000 + number as i64 * 250;
        let kind = self.random.random_range(0..100);
        let amount = self.random.random_range(1..100_000);
        match self.encoding.clone() {
            Encoding::Json => json(id, timestamp, kind, amount),
            Encoding::Avro(schema_id) => self.avro(schema_id, id, timestamp, kind, amount),
        }
    }

    fn avro(&self, schema_id: u32, id: String, timestamp: i64, kind: u32, amount: i64) -> Order {
        let note = if kind.is_multiple_of(2) {
            Value::Union(0, Box::new(Value::Null))
        } else {
            Value::Union(1, Box::new(Value::String(format!("note of {id}"))))
        };
        let record = Value::Record(vec![
            ("order_id".into(), Value::String(id.clone())),
            ("amount_cents".into(), Value::Long(amount)),
            ("note".into(), note),
            ("created_at".into(), Value::TimestampMillis(timestamp)),
        ]);
        let mut value = vec![0];
        value.extend(schema_id.to_be_bytes());
        let writer = GenericDatumWriter::builder(&self.avro).build().expect("the schema is right");
        value.extend(writer.write_value_to_vec(record).expect("the record fits the schema"));
        let mut headers = vec![("trace", "t-1")];
        let mut value = Some(value);
        let fate = match kind {
            0..4 => {
                headers.push(("test", "true"));
                Fate::Dropped
            }
            4..14 => {
                headers.push(("tier", "gold"));
                Fate::Row("gold")
            }
            14..16 => {
                value = None;
                Fate::DeadLetter("NULL_VALUE")
            }
            16..18 => {
                value.as_mut().expect("it has one").truncate(9);
                Fate::DeadLetter("DECODE_MALFORMED")
            }
            _ => Fate::Row("main"),
        };
        Order { key: id.clone(), id, value, headers, timestamp, fate }
    }
}

fn json(id: String, timestamp: i64, kind: u32, amount: i64) -> Order {
    let order = |id: &str, amount: i64, test: bool| {
        format!(
            r#"{{"order_id":"{id}","customer":{{"name":"Ada","email":"{id}@example.com","card":"4111111111111111"}},"country":"DE","currency":"EUR","amount_cents":{amount},"created_at":{timestamp},"test":{test},"items":[]}}"#
        )
        .into_bytes()
    };
    let (value, fate) = match kind {
        0..4 => (order(&id, amount, true), Fate::Dropped),
        4..14 => (order(&id, amount + 100_000, false), Fate::Row("high_value")),
        14..16 => (order(&id, amount, false)[..40].to_vec(), Fate::DeadLetter("MALFORMED_JSON")),
        16..18 => (order(&id, -amount, false), Fate::DeadLetter("NEGATIVE_AMOUNT")),
        _ => (order(&id, amount, false), Fate::Row("main")),
    };
    Order { key: id.clone(), id, value: Some(value), headers: Vec::new(), timestamp, fate }
}
