//! The demo's orders, and the tally of what has to become of them, which is kept apart from the pipeline.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Orders from this amount on go to the output `high_value`.
pub(crate) const HIGH_VALUE_CENTS: i64 = 100_000;

/// What has to become of the orders made so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Orders made.
    pub(crate) made: u64,
    /// Rows in `main`.
    pub(crate) main: u64,
    /// Rows in `high_value`.
    pub(crate) high_value: u64,
    /// Test orders, to be dropped.
    pub(crate) test: u64,
    /// Not JSON.
    pub(crate) malformed: u64,
    /// Without an order id.
    pub(crate) missing: u64,
    /// With a negative amount.
    pub(crate) negative: u64,
    /// Sum of the amounts of all rows.
    pub(crate) amount_cents: i64,
}

impl Tally {
    /// Records that have to be rejected.
    pub(crate) fn rejected(&self) -> u64 {
        self.malformed + self.missing + self.negative
    }
}

/// Makes orders: the same ones for the same seed.
#[derive(Debug)]
pub(crate) struct Orders {
    random: SmallRng,
    /// What was made so far.
    pub(crate) tally: Tally,
}

/// One record to produce.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
    /// Milliseconds since the Unix epoch.
    pub(crate) timestamp: i64,
}

const COUNTRIES: &[(&str, &str)] =
    &[("DE", "EUR"), ("FR", "EUR"), ("GB", "GBP"), ("US", "USD"), ("JP", "JPY"), ("BR", "BRL")];
const NAMES: &[&str] = &["Ada", "Grace", "Edsger", "Barbara", "Alan", "Katherine", "Donald", "Frances"];
/// 2026-11-01T00:00:00Z; the orders spread over the hours that follow.
const START_MS: i64 = 1_793_491_200_000;

impl Orders {
    pub(crate) fn new(seed: u64) -> Self {
        Orders { random: SmallRng::seed_from_u64(seed), tally: Tally::default() }
    }

    pub(crate) fn make(&mut self) -> Order {
        let r = &mut self.random;
        let tally = &mut self.tally;
        let number = tally.made;
        tally.made += 1;
        let id = format!("o-{number:07}");
        let timestamp = START_MS + number as i64 * 40;
        let (country, currency) = COUNTRIES[r.random_range(0..COUNTRIES.len())];
        let name = NAMES[r.random_range(0..NAMES.len())];
        let kind = r.random_range(0..1000);
        let high = r.random_range(0..10) == 0;
        let mut amount: i64 = if high {
            r.random_range(HIGH_VALUE_CENTS..500_000)
        } else {
            r.random_range(99..HIGH_VALUE_CENTS)
        };
        let card: u64 = r.random_range(4_000_000_000_000_000..5_000_000_000_000_000);
        let items: Vec<String> = (0..r.random_range(1..4))
            .map(|_| {
                format!(r#"{{"sku":"S-{:05}","qty":{}}}"#, r.random_range(0..100_000), r.random_range(1..9))
            })
            .collect();
        let mut order_id = format!(r#""order_id":"{id}","#);
        let mut test = false;
        match kind {
            0..30 => {
                test = true;
                tally.test += 1;
            }
            30..35 => {
                order_id.clear();
                tally.missing += 1;
            }
            35..40 => {
                amount = -amount;
                tally.negative += 1;
            }
            40..50 => tally.malformed += 1,
            _ => {
                tally.amount_cents += amount;
                if amount >= HIGH_VALUE_CENTS {
                    tally.high_value += 1;
                } else {
                    tally.main += 1;
                }
            }
        }
        let mut value = format!(
            r#"{{{order_id}"customer":{{"name":"{name} #{number}","email":"{}{number}@example.com","card":"{card}"}},"country":"{country}","currency":"{currency}","amount_cents":{amount},"created_at":{timestamp},"test":{test},"items":[{}]}}"#,
            name.to_lowercase(),
            items.join(",")
        );
        if (40..50).contains(&kind) {
            value.truncate(value.len() / 2);
        }
        Order { key: id, value: value.into_bytes(), timestamp }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_has_one_fate() {
        let mut orders = Orders::new(7);
        for _ in 0..20_000 {
            orders.make();
        }
        let t = orders.tally;
        assert_eq!(t.made, t.main + t.high_value + t.test + t.rejected());
        assert!(t.high_value > 0 && t.test > 0 && t.malformed > 0 && t.missing > 0 && t.negative > 0);
    }

    #[test]
    fn whole_orders_are_json_and_the_same_seed_makes_the_same_ones() {
        let (mut a, mut b) = (Orders::new(1), Orders::new(1));
        let mut whole = 0;
        for _ in 0..1000 {
            let order = a.make();
            assert_eq!(order.value, b.make().value);
            whole += u64::from(serde_json::from_slice::<serde_json::Value>(&order.value).is_ok());
        }
        assert_eq!(whole, a.tally.made - a.tally.malformed);
    }
}
