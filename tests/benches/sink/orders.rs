//! The records: one order after the other, the same for the same number, as JSON and as Avro.

use std::io::Write as _;

/// Bytes of an order in JSON.
pub(crate) const JSON_BYTES: usize = 702;

/// The schema of [`avro`].
pub(crate) const AVRO_SCHEMA: &str = r#"{"type":"record","name":"Order","fields":[
  {"name":"order_id","type":"string"},
  {"name":"customer_id","type":"long"},
  {"name":"customer","type":{"type":"record","name":"Customer","fields":[
    {"name":"name","type":"string"},{"name":"email","type":"string"},{"name":"phone","type":"string"}]}},
  {"name":"shipping","type":{"type":"record","name":"Address","fields":[
    {"name":"street","type":"string"},{"name":"city","type":"string"},
    {"name":"zip","type":"string"},{"name":"country","type":"string"}]}},
  {"name":"currency","type":"string"},
  {"name":"amount_cents","type":"long"},
  {"name":"tax_cents","type":"long"},
  {"name":"status","type":"string"},
  {"name":"channel","type":["null","string"],"default":null},
  {"name":"created_at","type":{"type":"long","logicalType":"timestamp-millis"}},
  {"name":"ip","type":"string"},
  {"name":"user_agent","type":"string"},
  {"name":"session","type":"string"},
  {"name":"card","type":"string"},
  {"name":"gift","type":"boolean"},
  {"name":"items","type":{"type":"array","items":{"type":"record","name":"Item","fields":[
    {"name":"sku","type":"string"},{"name":"quantity","type":"int"},{"name":"price_cents","type":"long"}]}}},
  {"name":"note","type":"string"}]}"#;

/// The schema of [`sized`].
pub(crate) const SIZED_SCHEMA: &str = r#"{"type":"record","name":"Event","fields":[
  {"name":"id","type":"long"},
  {"name":"kind","type":"string"},
  {"name":"value","type":"double"},
  {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
  {"name":"payload","type":"string"}]}"#;

const NAMES: [&str; 8] = ["Ada", "Grace", "Edsger", "Barbara", "Alan", "Margaret", "Donald", "Frances"];
const CITIES: [&str; 8] = ["Berlin", "Hamburg", "Wien", "Zagreb", "Lyon", "Turin", "Gent", "Porto"];
const STATUSES: [&str; 4] = ["PAID", "OPEN", "SHIPPED", "RETURNED"];
const WORDS: [&str; 8] = ["please", "ring", "twice", "leave", "parcel", "behind", "the", "gate"];
const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/128.0";

/// When order `n` was made, in milliseconds since the Unix epoch.
pub(crate) fn time(n: u64) -> i64 {
    1_793_491_200_000 + n as i64 * 3
}

/// Whether order `n` carries the header that drops it.
pub(crate) fn is_test(n: u64) -> bool {
    n.is_multiple_of(5)
}

/// splitmix64.
fn random(n: u64) -> u64 {
    let mut x = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn words(out: &mut Vec<u8>, mut seed: u64, until: usize) {
    while out.len() < until {
        seed = random(seed);
        out.extend_from_slice(WORDS[seed as usize % 8].as_bytes());
        write!(out, " {} ", seed % 97).expect("memory takes it");
    }
    out.truncate(until);
}

/// Order `n` as a JSON object of [`JSON_BYTES`].
pub(crate) fn json(n: u64, out: &mut Vec<u8>) {
    out.clear();
    let r = random(n);
    let (name, city) = (NAMES[r as usize % 8], CITIES[(r >> 3) as usize % 8]);
    let (id, amount, time) = (r % 90_000 + 10_000, (r >> 7) % 100_000, time(n));
    write!(
        out,
        r#"{{"order_id":"o-{n:08}","customer_id":{id},"customer":{{"name":"{name} Nr {id}","email":"{name}.{id}@example.com","phone":"+49 30 {}"}},"shipping":{{"street":"Long Street {}","city":"{city}","zip":"{}","country":"DE"}},"currency":"EUR","amount_cents":{amount},"tax_cents":{},"status":"{}","channel":"web","created_at":{time},"ip":"192.0.2.{}","user_agent":"{AGENT}","session":"{r:016x}","card":"4111111111111111","gift":{},"items":[{{"sku":"a-{}","quantity":{},"price_cents":{}}},{{"sku":"b-{}","quantity":1,"price_cents":{}}}],"note":""#,
        r >> 40,
        r % 200,
        10_000 + r % 80_000,
        amount / 5,
        STATUSES[(r >> 11) as usize % 4],
        r % 250,
        r.is_multiple_of(11),
        (r >> 13) % 5_000,
        1 + r % 4,
        (r >> 17) % 10_000,
        (r >> 19) % 5_000,
        (r >> 23) % 10_000,
    )
    .expect("memory takes it");
    words(out, r, JSON_BYTES - 2);
    out.extend_from_slice(b"\"}");
}

fn long(out: &mut Vec<u8>, n: i64) {
    let mut rest = ((n << 1) ^ (n >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn text(out: &mut Vec<u8>, text: &str) {
    long(out, text.len() as i64);
    out.extend_from_slice(text.as_bytes());
}

fn prefix(out: &mut Vec<u8>, schema_id: u32) {
    out.clear();
    out.push(0);
    out.extend_from_slice(&schema_id.to_be_bytes());
}

/// Order `n` in Avro, in the Schema Registry's wire format.
pub(crate) fn avro(n: u64, schema_id: u32, out: &mut Vec<u8>) {
    prefix(out, schema_id);
    let r = random(n);
    let (name, city) = (NAMES[r as usize % 8], CITIES[(r >> 3) as usize % 8]);
    let (id, amount) = ((r % 90_000 + 10_000) as i64, ((r >> 7) % 100_000) as i64);
    text(out, &format!("o-{n:08}"));
    long(out, id);
    text(out, &format!("{name} Nr {id}"));
    text(out, &format!("{name}.{id}@example.com"));
    text(out, &format!("+49 30 {}", r >> 40));
    text(out, &format!("Long Street {}", r % 200));
    text(out, city);
    text(out, &format!("{}", 10_000 + r % 80_000));
    text(out, "DE");
    text(out, "EUR");
    long(out, amount);
    long(out, amount / 5);
    text(out, STATUSES[(r >> 11) as usize % 4]);
    long(out, 1);
    text(out, "web");
    long(out, time(n));
    text(out, &format!("192.0.2.{}", r % 250));
    text(out, AGENT);
    text(out, &format!("{r:016x}"));
    text(out, "4111111111111111");
    out.push(u8::from(r.is_multiple_of(11)));
    long(out, 2);
    text(out, &format!("a-{}", (r >> 13) % 5_000));
    long(out, 1 + (r % 4) as i64);
    long(out, ((r >> 17) % 10_000) as i64);
    text(out, &format!("b-{}", (r >> 19) % 5_000));
    long(out, 1);
    long(out, ((r >> 23) % 10_000) as i64);
    long(out, 0);
    let mut note = Vec::new();
    words(&mut note, r, 60);
    text(out, std::str::from_utf8(&note).expect("words"));
}

/// Event `n` in Avro with about `size` bytes.
pub(crate) fn sized(n: u64, schema_id: u32, size: usize, out: &mut Vec<u8>) {
    prefix(out, schema_id);
    let r = random(n);
    long(out, n as i64);
    text(out, STATUSES[r as usize % 4]);
    out.extend_from_slice(&((r % 10_000) as f64 / 4.0).to_le_bytes());
    long(out, time(n));
    let mut payload = Vec::new();
    words(&mut payload, r, size.saturating_sub(out.len() + 2));
    text(out, std::str::from_utf8(&payload).expect("words"));
}
