"""Memory stays flat, whatever way records go."""

from __future__ import annotations

import asyncio
import gc
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest

import gristmill
from gristmill.testing import Cluster

# Twelve times as many go each way: 850000 makes 10 million of them.
RECORDS = int(os.environ.get("GRISTMILL_MEMORY_RECORDS", "10000"))
ROUNDS = 12
FORMAT = gristmill.Json({"id": "int64", "text": "string"})


def resident() -> float:
    """MiB of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / (1 << 20)


def consume(cluster: Cluster, handle: Callable[[gristmill.Batch], object], round: int) -> None:
    seen = 0
    with gristmill.Consumer("orders", group_id=f"g{round}", bootstrap_servers=cluster.bootstrap_servers, format=FORMAT) as consumer:
        for batch in consumer:
            handle(batch)
            seen += len(batch)
            batch.ack()
            if seen == RECORDS:
                return


async def awaited(cluster: Cluster, round: int) -> None:
    seen = 0
    async with gristmill.Consumer("orders", group_id=f"a{round}", bootstrap_servers=cluster.bootstrap_servers) as consumer:
        async for record in consumer.arecords():
            seen += 1
            if record.value is not None and seen == RECORDS:
                return


WAYS: dict[str, Callable[[Cluster, int], object]] = {
    "read": lambda cluster, _: gristmill.read("orders", bootstrap_servers=cluster.bootstrap_servers, format=FORMAT).to_arrow(),
    "scan that is dropped": lambda cluster, _: next(gristmill.scan("orders", bootstrap_servers=cluster.bootstrap_servers)),
    "values": lambda cluster, round: consume(cluster, lambda batch: batch.values(), round),
    "objects": lambda cluster, round: consume(cluster, lambda batch: batch.objects(), round),
    "arrow": lambda cluster, round: consume(cluster, lambda batch: batch.to_arrow(), round),
    "records": lambda cluster, round: consume(cluster, lambda batch: [record.headers for record in batch], round),
    "async records": lambda cluster, round: asyncio.run(awaited(cluster, round)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.timeout(3_600 if RECORDS > 10_000 else 120)
def test_a_way_that_records_go_keeps_no_memory(kafka: Cluster, way: str) -> None:
    kafka.create_topic("orders", 2)
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        for first in range(0, RECORDS, 100_000):
            numbers = range(first, min(first + 100_000, RECORDS))
            producer.send_many("orders", [json.dumps({"id": n, "text": "x" * 100}) for n in numbers])
    for round in range(4):
        WAYS[way](kafka, round)
    before = resident()
    for round in range(4, ROUNDS):
        WAYS[way](kafka, round)
    # Eight rounds are far more, as content alone: 0.9 MiB for 10,000 records. Allocators keep some.
    assert resident() - before < max(15, RECORDS / 10_000 * 0.9)


def test_sending_and_transforming_keep_no_memory(kafka: Cluster) -> None:
    component = Path(__file__).parents[2] / "examples" / "transforms" / "prebuilt" / "typed-orders.wasm"
    transform = gristmill.Transform(component, config={"high_value_cents": 5})
    rows = [
        {"order_id": f"o-{n}", "customer": {"name": "Ada", "email": "a@b.c", "card": "1"}, "amount_cents": n, "created_at": n}
        for n in range(2_000)
    ]
    columns = pyarrow.Table.from_pylist(rows)

    def once(producer: gristmill.Producer) -> None:
        transform.apply(columns).frame.objects()
        # Not into the cluster, which keeps what it gets.
        with pytest.raises(gristmill.SendError):
            producer.send_many("orders", [b"x" * 2_000] * 5_000, headers={"a": "b"})

    with gristmill.Producer(kafka.bootstrap_servers, properties={"message.max.bytes": "1500"}) as producer:
        for _ in range(5):
            once(producer)
        before = resident()
        for _ in range(15):
            once(producer)
    assert resident() - before < 15
