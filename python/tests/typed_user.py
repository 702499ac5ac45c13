"""What a user's type checker sees. Not run: checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from typing_extensions import assert_type

import gristmill


@dataclass
class Order:
    id: int


def sync() -> None:
    frame = gristmill.read("orders", bootstrap_servers="localhost:9092", start="1h")
    assert_type(frame.objects(), list[dict[str, Any]])
    assert_type(frame.objects(Order), list[Order])
    assert_type(len(frame), int)
    with gristmill.Consumer("orders", group_id="g", bootstrap_servers="localhost:9092") as consumer:
        for batch in consumer:
            assert_type(batch.values(), list[bytes | None])
            assert_type(batch.objects(Order), list[Order])
            for record in batch:
                assert_type(record.headers, list[tuple[str, bytes | None]])
            assert_type(batch.ack(), bool)


async def asynchronous() -> None:
    async with gristmill.Consumer("orders", group_id="g", bootstrap_servers="localhost:9092") as consumer:
        async for batch in consumer:
            assert_type(batch, gristmill.Batch)
            await batch.areject([0], "no")
        async for record in consumer.arecords():
            assert_type(record.value, bytes | None)
    async with gristmill.Producer("localhost:9092") as producer:
        delivered = await producer.asend("orders", b"x", headers={"a": "b"})
        assert_type(delivered.offset, int)
        report = await producer.asend_many("orders", [b"x", "y", None])
        assert_type(report.errors, dict[int, gristmill.GristmillError])
