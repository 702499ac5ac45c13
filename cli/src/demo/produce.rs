//! Produces the orders, no faster than the pipeline reads them.

use std::sync::Arc;
use std::time::Duration;

use gristmill::{Producer, ProducerConfig, ProducerRecord};
use gristmill_pipeline::Metrics;

use super::orders::{Orders, Tally};
use super::{PARTITIONS, TOPIC};
use crate::exit::Exit;

/// The mock cluster keeps 5 MiB a partition and silently drops what is older. With less than that under way
/// in all partitions together, nothing can be dropped unread.
const UNDER_WAY_BYTES: u64 = 2 << 20;
const CHUNK: usize = 500;

pub(super) async fn produce(
    bootstrap: String,
    mut orders: Orders,
    count: u64,
    metrics: Arc<Metrics>,
) -> Result<Tally, Exit> {
    let config = ProducerConfig::builder().bootstrap_servers(bootstrap).build().map_err(Exit::failed)?;
    let producer = Producer::new(config).map_err(Exit::failed)?;
    // Sizes of what was produced and not yet read, oldest first.
    let (mut sent, mut sent_bytes) = (0u64, 0u64);
    while sent < count {
        // What is read counts index and columns too, so this never overstates the room.
        while sent_bytes > mean_read_bytes(&metrics, sent_bytes, sent) + UNDER_WAY_BYTES {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let chunk = CHUNK.min((count - sent) as usize);
        let records: Vec<ProducerRecord> = (0..chunk)
            .map(|i| {
                let order = orders.make();
                sent_bytes += order.value.len() as u64;
                let partition = (sent + i as u64) % PARTITIONS as u64;
                ProducerRecord::to(TOPIC)
                    .partition(partition as i32)
                    .key(order.key)
                    .value(order.value)
                    .timestamp(order.timestamp)
            })
            .collect();
        let report = producer.send_all(records).await;
        if let Some((index, error)) = report.failures().next() {
            return Err(Exit::failed(format!("order {} was not produced: {error}", sent + index as u64)));
        }
        sent += chunk as u64;
    }
    producer.close(Duration::from_secs(10)).await.map_err(Exit::failed)?;
    Ok(orders.tally)
}

/// Bytes of values read so far, from the count of records: all orders are of nearly one size.
fn mean_read_bytes(metrics: &Metrics, sent_bytes: u64, sent: u64) -> u64 {
    if sent == 0 { 0 } else { metrics.records_in.get().min(sent) * (sent_bytes / sent) }
}
