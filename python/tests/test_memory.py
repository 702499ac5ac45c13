"""Memory stays flat, whatever way records go."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow
import pytest

import gristmill
from gristmill.testing import Cluster

# So many go each way in each round: 200000 and 50 make 10 million of them. The embedded Kafka keeps 5 MiB a partition, and no more.
RECORDS = int(os.environ.get("GRISTMILL_MEMORY_RECORDS", "10000"))
ROUNDS = int(os.environ.get("GRISTMILL_MEMORY_ROUNDS", "12"))
FORMAT = gristmill.Json({"id": "int64", "text": "string"})


def resident() -> float:
    """MiB of this process, once what was dropped is gone: threads of clients end a little later."""
    gc.collect()
    threads, since = len(os.listdir("/proc/self/task")), time.monotonic()
    until = since + 30
    while time.monotonic() < min(since + 0.2, until):
        time.sleep(0.02)
        if (now := len(os.listdir("/proc/self/task"))) < threads:
            threads, since = now, time.monotonic()
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


def transformed(cluster: Cluster, _: int) -> None:
    """Rows through a transform, and records that are too large: the cluster would keep those that it takes."""
    component = Path(__file__).parents[2] / "examples" / "transforms" / "prebuilt" / "typed-orders.wasm"
    transform = gristmill.Transform(component, config={"high_value_cents": 5})
    rows = [
        {"order_id": f"o-{n}", "customer": {"name": "Ada", "email": "a@b.c", "card": "1"}, "amount_cents": n, "created_at": n}
        for n in range(2_000)
    ]
    columns = pyarrow.Table.from_pylist(rows)
    with gristmill.Producer(cluster.bootstrap_servers, properties={"message.max.bytes": "1500"}) as producer:
        for _ in range(RECORDS // 5_000):
            transform.apply(columns).frame.objects()
            with suppress(gristmill.SendError):
                producer.send_many("orders", [b"x" * 2_000] * 5_000, headers={"a": "b"})


WAYS["transform, and send in vain"] = transformed


def main(way: str) -> None:
    cluster = Cluster()
    cluster.create_topic("orders", 8)
    with gristmill.Producer(cluster.bootstrap_servers) as producer:
        for first in range(0, RECORDS, 100_000):
            numbers = range(first, min(first + 100_000, RECORDS))
            producer.send_many("orders", [json.dumps({"id": n, "text": "x" * 100}) for n in numbers])
    sizes: list[float] = []
    for round in range(ROUNDS):
        WAYS[way](cluster, round)
        # After the first rounds everything that is kept for good is there.
        if round >= 4:
            sizes.append(resident())
    half = len(sizes) // 2
    # By medians: allocators give memory back as they like.
    print(statistics.median(sizes[half:]) - statistics.median(sizes[:half]))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.timeout(3_600 if RECORDS > 10_000 else 120)
def test_a_way_that_records_go_keeps_no_memory(way: str) -> None:
    # In a process of its own: what other tests left free is not what this one needs.
    done = subprocess.run([sys.executable, __file__, way], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Between the halves there are half of the rounds, which have 0.9 MiB for 10,000 records as content alone.
    content = (ROUNDS - 4) / 2 * RECORDS / 10_000 * 0.9
    assert float(done.stdout) < max(12, content / 5)


if __name__ == "__main__":
    main(sys.argv[1])
