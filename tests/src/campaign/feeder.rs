//! Orders from every kind of producer, while the pipeline is tortured.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::orders::{Encoding, Fate, Order, Orders};
use crate::produce::{OrderProducer, Sent, Way};

/// What the producer said of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Knowledge {
    /// It is in the log, and stays there.
    Acknowledged,
    /// Its transaction was aborted.
    Aborted,
    /// A broker was away, or compaction may take it: the log decides.
    Unknown,
}

/// What was produced.
#[derive(Default)]
pub(super) struct Fed {
    /// Every order by its number.
    pub(super) orders: Vec<(Fate, Knowledge)>,
    /// How many orders each kind of producer has sent.
    pub(super) ways: BTreeMap<&'static str, u64>,
}

impl Fed {
    pub(super) fn count(&self, known: Knowledge) -> u64 {
        self.orders.iter().filter(|(_, k)| *k == known).count() as u64
    }
}

/// One producer of each kind, and what they have sent.
pub(super) struct Source {
    topic: String,
    partitions: i32,
    orders: Orders,
    random: SmallRng,
    producer: OrderProducer,
    round: u64,
    fed: Fed,
}

impl Source {
    pub(super) fn new(bootstrap: &str, topic: &str, partitions: i32, encoding: Encoding, seed: u64) -> Self {
        Source {
            topic: topic.to_owned(),
            partitions,
            orders: Orders::new(encoding, seed),
            random: SmallRng::seed_from_u64(seed ^ 1),
            producer: OrderProducer::new(bootstrap, &format!("{topic}-feed")),
            round: 0,
            fed: Fed::default(),
        }
    }

    /// A batch of the next kind of producer; one in five is aborted. With `keys`, the orders share that many
    /// keys, so that compaction may take all but the newest of each. Gives how many may be visible.
    pub(super) fn send(&mut self, size: usize, keys: Option<usize>) -> u64 {
        self.round += 1;
        let way = match self.round % 5 {
            0 => Way::Aborted,
            1 => Way::Plain,
            2 => Way::Idempotent,
            _ => Way::Committed,
        };
        let batch = (0..size)
            .map(|_| {
                let mut order = self.orders.make();
                if let Some(keys) = keys {
                    order.key = format!("key-{}", self.random.random_range(0..keys));
                }
                (self.random.random_range(0..self.partitions), order)
            })
            .collect::<Vec<_>>();
        self.produce(way, &batch, keys.is_some());
        if way == Way::Aborted { 0 } else { size as u64 }
    }

    /// A record in each partition that no control record follows, so that the group's offsets come to the end.
    fn close(&mut self) {
        let last: Vec<(i32, Order)> = (0..self.partitions).map(|p| (p, self.orders.make())).collect();
        self.produce(Way::Idempotent, &last, false);
    }

    fn produce(&mut self, way: Way, batch: &[(i32, Order)], compacted: bool) {
        let sent = self.producer.send(way, &self.topic, batch);
        let known = match sent {
            Sent::Visible if !compacted => Knowledge::Acknowledged,
            Sent::Hidden => Knowledge::Aborted,
            Sent::Visible | Sent::Unknown => Knowledge::Unknown,
        };
        self.fed.orders.extend(batch.iter().map(|(_, order)| (order.fate, known)));
        let name = match way {
            Way::Plain => "plain",
            Way::Idempotent => "idempotent",
            Way::Committed => "committed",
            Way::Aborted => "aborted",
        };
        *self.fed.ways.entry(name).or_default() += batch.len() as u64;
    }
}

/// A thread that feeds a topic: fast while it is behind its quota, else in small steps, so that the pipeline
/// always has something to do.
pub(super) struct Feeder {
    thread: Option<JoinHandle<Fed>>,
    quota: Arc<AtomicU64>,
    fed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Feeder {
    pub(super) fn start(mut source: Source) -> Self {
        let (quota, fed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let (wanted, done, stopped) = (quota.clone(), fed.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let behind = done.load(Ordering::Relaxed) < wanted.load(Ordering::Relaxed);
                let sizes = if behind { 1_000..6_000 } else { 20..200 };
                let size = source.random.random_range(sizes);
                done.fetch_add(source.send(size, None), Ordering::Relaxed);
                if !behind {
                    std::thread::sleep(Duration::from_millis(40));
                }
            }
            source.close();
            source.fed
        });
        Feeder { thread: Some(thread), quota, fed, stop }
    }

    /// Asks for that many orders in all, aborted ones not counted.
    pub(super) fn want(&self, orders: u64) {
        self.quota.fetch_max(orders, Ordering::Relaxed);
    }

    /// How many orders were produced so far, aborted ones not counted.
    pub(super) fn fed(&self) -> u64 {
        self.fed.load(Ordering::Relaxed)
    }

    /// Whether its thread has ended by itself, which it does only if it panicked.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends, and says what was produced.
    pub(super) fn finish(mut self) -> Fed {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it is running").join().expect("the feeder ended well")
    }
}

impl Drop for Feeder {
    /// Also if a test panics.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
