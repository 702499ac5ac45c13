"""Under asyncio and uvloop: nothing blocks the loop, and what is cancelled loses nothing."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from conftest import Kafka

import gristmill
from gristmill.testing import Cluster


def consumer(kafka: Kafka | Cluster, topic: str, **more: object) -> gristmill.Consumer:
    settings = {"group_id": f"group-of-{topic}", "bootstrap_servers": kafka.bootstrap_servers, **more}
    return gristmill.Consumer(topic, **settings)  # type: ignore[arg-type]


async def test_the_same_class_is_used_with_async_for(broker: Kafka) -> None:
    topic = broker.topic("orders", 2)
    async with gristmill.Producer(broker.bootstrap_servers) as producer:
        report = await producer.asend_many(topic, [b'{"id": %d}' % n for n in range(3000)], headers={"a": "1", "b": None})
        assert report.delivered == 3000
        assert (await producer.asend(topic, b'{"id": 3000}', partition=1, headers={"a": "1"})).partition == 1
        await producer.aflush()
    seen: list[int] = []
    async with consumer(broker, topic, format=gristmill.Json({"id": "int64"})) as first:
        async for batch in first:
            assert batch[0].headers[0] == ("a", b"1")
            seen += [row["id"] for row in batch.objects()]
            assert batch.ack()
            if len(seen) == 3001:
                break
    assert sorted(seen) == list(range(3001))
    assert sum(broker.committed(f"group-of-{topic}", topic).values()) == 3001


async def test_records_that_were_done_are_committed_when_the_loop_is_left(broker: Kafka) -> None:
    topic = broker.topic("orders")
    broker.fill(topic, [b"%d" % n for n in range(100)])
    async with consumer(broker, topic) as first:
        async for record in first.arecords():
            if record.offset == 42:
                break
    assert broker.committed(f"group-of-{topic}", topic) == {0: 42}


async def test_a_hundred_waits_that_are_cancelled_lose_nothing(broker: Kafka) -> None:
    topic = broker.topic("orders", 3)
    seen: list[bytes] = []
    cancelled, written = 0, 0
    chance = random.Random(7)
    async with consumer(broker, topic) as first, gristmill.Producer(broker.bootstrap_servers) as producer:
        while cancelled < 100 or len(seen) < written:
            if cancelled < 100 and chance.random() < 0.3:
                await producer.asend_many(topic, [b"%d" % n for n in range(written, written + 20)])
                written += 20
            try:
                batch = await asyncio.wait_for(first.anext_batch(), chance.random() * 0.02)
            except asyncio.TimeoutError:
                cancelled += 1
                continue
            assert batch is not None
            seen += [value for value in batch.values() if value is not None]
            assert batch.times_delivered == 1
            assert batch.ack()
    assert sorted(seen) == sorted(b"%d" % n for n in range(written))


async def test_the_loop_goes_on_while_a_consumer_waits_and_while_it_is_busy(kafka: Cluster) -> None:
    kafka.create_topic("orders")
    async with gristmill.Producer(kafka.bootstrap_servers) as producer:
        await producer.asend_many("orders", [b"x" * 100] * 20_000)
    turns, running = 0, True

    async def watch() -> None:
        nonlocal turns
        while running:
            await asyncio.sleep(0)
            turns += 1

    watcher = asyncio.create_task(watch())
    async with consumer(kafka, "orders") as first:
        seen = 0
        async for batch in first:
            before = turns
            seen += len(batch)
            assert batch.ack()
            if seen == 20_000:
                break
            await asyncio.sleep(0)
            assert turns > before, "others have their turn between batches"
        before = turns
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(first.anext_batch(), 0.5)
        assert turns > before + 10, "and while nothing comes"
    running = False
    await watcher


async def test_many_tasks_may_take_batches(broker: Kafka) -> None:
    topic = broker.topic("orders", 4)
    broker.fill(topic, [b"%d" % n for n in range(8000)])
    seen: list[bytes | None] = []
    async with consumer(broker, topic) as first:

        async def work() -> None:
            async for batch in first:
                seen.extend(batch.values())
                await asyncio.sleep(0)
                assert batch.ack()
                if len(seen) >= 8000:
                    await first.aclose()

        await asyncio.gather(*(work() for _ in range(5)))
    assert len(seen) == len(set(seen)) == 8000


async def test_rejecting_does_not_block_the_loop(broker: Kafka) -> None:
    topic, dead = broker.topic("orders"), broker.topic("dead")
    broker.fill(topic, [b"{", b'{"id": 1}'])
    format = gristmill.Json({"id": "int64"})
    async with consumer(broker, topic, format=format, dead_letter_topic=dead, undecodable="reject") as first:
        batch = await first.anext_batch()
        assert batch is not None and len(batch) == batch.rows_left == 1
        assert await batch.areject([0], "I do not like it")
        assert batch.rows_left == 0
    assert len(gristmill.read(dead, bootstrap_servers=broker.bootstrap_servers)) == 2


async def test_errors_come_out_of_awaits(kafka: Cluster) -> None:
    async with gristmill.Producer(kafka.bootstrap_servers) as producer:
        with pytest.raises(gristmill.SendError):
            await producer.asend_many("orders", [b"x" * 20_000_000])
    with pytest.raises(gristmill.ClosedError):
        await producer.asend("orders", b"x")


def test_it_lives_in_an_application_of_fastapi(kafka: Cluster) -> None:
    from collections.abc import AsyncIterator
    from contextlib import asynccontextmanager, suppress

    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    kafka.create_topic("orders")
    seen: list[bytes | None] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with gristmill.Producer(kafka.bootstrap_servers) as app.state.producer, consumer(kafka, "orders") as orders:

            async def work() -> None:
                async for batch in orders:
                    seen.extend(batch.values())
                    batch.ack()

            working = asyncio.create_task(work())
            yield
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working

    app = FastAPI(lifespan=lifespan)

    @app.post("/orders/{id}")
    async def order(id: int) -> int:
        delivered = await app.state.producer.asend("orders", b"%d" % id, headers={"a": "b"})
        return int(delivered.offset)

    with TestClient(app) as client:
        for id in range(20):
            assert client.post(f"/orders/{id}").status_code == 200
        until = time.monotonic() + 30
        while len(seen) < 20 and time.monotonic() < until:
            time.sleep(0.01)
    assert sorted(seen, key=lambda value: int(value or 0)) == [b"%d" % id for id in range(20)]
