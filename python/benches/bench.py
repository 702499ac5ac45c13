"""What a record costs in Python, beside confluent-kafka, aiokafka and fastavro, on a real broker.

Question: how much CPU does a record take, and how long, from the broker to a list of values, to Arrow columns, to dicts and to
objects, and on its way out; and a WebAssembly transform beside the same function in Python?

Each contender is a process of its own, warmed by a tenth of the records, then measured by its own CPU time (user and system, all
threads) and by the clock. Rounds are interleaved, and the least of them counts; an A/A pair shows the noise. The broker shares
the machine, so rates are those of a small one. Not measured: latency, many partitions, TLS.

    make bench-python            # PARTS="consume avro produce transform", SCALE=1
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

SERVERS = os.environ.get("BENCH_SERVERS", "")
REGISTRY = os.environ.get("BENCH_REGISTRY", "")
SCALE = float(os.environ.get("SCALE", "1"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
PLAIN = int(400_000 * SCALE)
SLOW = int(30_000 * SCALE)
AVRO = int(100_000 * SCALE)
ROWS = int(1_000_000 * SCALE)
SCHEMA = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "order_id", "type": "string"},
        {"name": "customer", "type": {"type": "record", "name": "Customer", "fields": [{"name": "name", "type": "string"}, {"name": "email", "type": ["null", "string"]}]}},
        {"name": "country", "type": "string"},
        {"name": "currency", "type": "string"},
        {"name": "amount_cents", "type": "long"},
        {"name": "created_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "paid", "type": "boolean"},
        {"name": "rating", "type": ["null", "double"]},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
    ],
}  # fmt: skip


class Meter:
    """Begins when the warm-up is over, ends when all records are there."""

    def __init__(self, records: int) -> None:
        self.warm = records // 10
        self.records = records
        self.seen = 0
        self.begun: tuple[float, float, int] | None = None

    def took(self, count: int) -> bool:
        self.seen += count
        if self.begun is None and self.seen >= self.warm:
            self.begun = (cpu(), time.perf_counter(), self.seen)
        return self.seen >= self.records

    def tell(self) -> None:
        assert self.begun is not None
        began, at, seen = self.begun
        count = self.seen - seen
        print(json.dumps({"cpu": (cpu() - began) / count * 1e9, "wall": (time.perf_counter() - at) / count * 1e9}))


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def group() -> str:
    return f"bench-{os.getpid()}-{time.time_ns()}"


# --- consume ---------------------------------------------------------------------------------------------------------


def confluent(topic: str, records: int, tuned: bool, handle: Callable[[list[Any]], None] = lambda _: None) -> None:
    from confluent_kafka import Consumer

    config: dict[str, Any] = {"bootstrap.servers": SERVERS, "group.id": group(), "auto.offset.reset": "earliest"}
    if tuned:
        config |= {"fetch.queue.backoff.ms": 10, "enable.auto.commit": False}
    consumer = Consumer(config)
    consumer.subscribe([topic])
    meter = Meter(records)
    while True:
        messages = consumer.consume(500, 1.0)
        handle([message.value() for message in messages])
        if meter.took(len(messages)):
            break
    meter.tell()
    consumer.close()


def confluent_default_poll(topic: str, records: int) -> None:
    from confluent_kafka import Consumer

    consumer = Consumer({"bootstrap.servers": SERVERS, "group.id": group(), "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    meter = Meter(records)
    while True:
        message = consumer.poll(1.0)
        if message is not None and message.value() is not None and meter.took(1):
            break
    meter.tell()
    consumer.close()


async def confluent_aio(topic: str, records: int, one: bool) -> None:
    from confluent_kafka.aio import AIOConsumer

    consumer = AIOConsumer({"bootstrap.servers": SERVERS, "group.id": group(), "auto.offset.reset": "earliest"})
    await consumer.subscribe([topic])
    meter = Meter(records)
    while True:
        if one:
            message = await consumer.poll(1.0)
            messages = [] if message is None else [message]
        else:
            messages = await consumer.consume(500, 1.0)
        if meter.took(len([message.value() for message in messages])):
            break
    meter.tell()
    await consumer.close()


async def aiokafka(topic: str, records: int, one: bool) -> None:
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(topic, bootstrap_servers=SERVERS, group_id=group(), auto_offset_reset="earliest")
    await consumer.start()
    meter = Meter(records)
    if one:
        async for message in consumer:
            if message.value is not None and meter.took(1):
                break
    else:
        while True:
            found = await consumer.getmany(timeout_ms=1000, max_records=500)
            if meter.took(sum(len([message.value for message in batch]) for batch in found.values())):
                break
    meter.tell()
    await consumer.stop()


def ours(topic: str, records: int, handle: Callable[[Any], Any], format: Any = None) -> None:
    import gristmill

    meter = Meter(records)
    with gristmill.Consumer(topic, group_id=group(), bootstrap_servers=SERVERS, format=format) as consumer:
        for batch in consumer:
            handle(batch)
            batch.ack()
            if meter.took(len(batch)):
                meter.tell()
                return


async def ours_async(topic: str, records: int, one: bool) -> None:
    import gristmill

    meter = Meter(records)
    async with gristmill.Consumer(topic, group_id=group(), bootstrap_servers=SERVERS) as consumer:
        if one:
            async for record in consumer.arecords():
                if record.value is not None and meter.took(1):
                    break
        else:
            async for batch in consumer:
                batch.values()
                batch.ack()
                if meter.took(len(batch)):
                    break
        meter.tell()


# --- Avro ------------------------------------------------------------------------------------------------------------


def confluent_avro(topic: str, records: int, make: Callable[[dict[str, Any]], Any]) -> None:
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroDeserializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    deserialise = AvroDeserializer(SchemaRegistryClient({"url": REGISTRY}))
    context = SerializationContext(topic, MessageField.VALUE)
    confluent(topic, records, True, lambda values: [make(deserialise(value, context)) for value in values] and None)


def fastavro(topic: str, records: int) -> None:
    import fastavro as library

    schema = library.parse_schema(SCHEMA)
    read = library.schemaless_reader
    confluent(topic, records, True, lambda values: [read(io.BytesIO(value[5:]), schema, None) for value in values] and None)


def avro(topic: str, records: int, handle: Callable[[Any], Any]) -> None:
    import gristmill

    ours(topic, records, handle, gristmill.Avro(REGISTRY, schema=SCHEMA))


def models() -> tuple[Any, Any]:
    import datetime
    from dataclasses import dataclass

    import pydantic

    @dataclass
    class Customer:
        name: str
        email: str | None

    @dataclass
    class Order:
        order_id: str
        customer: Customer
        country: str
        currency: str
        amount_cents: int
        created_at: datetime.datetime
        paid: bool
        rating: float | None
        tags: list[str]

    class CustomerModel(pydantic.BaseModel):
        name: str
        email: str | None

    class OrderModel(pydantic.BaseModel):
        order_id: str
        customer: CustomerModel
        country: str
        currency: str
        amount_cents: int
        created_at: datetime.datetime
        paid: bool
        rating: float | None
        tags: list[str]

    # Annotations are texts in this file, and these classes are not where they are looked for.
    globals().update(Customer=Customer, CustomerModel=CustomerModel, datetime=datetime)
    OrderModel.model_rebuild()
    return Order, OrderModel


def dataclass_of(row: dict[str, Any]) -> Any:
    order, _ = MODELS
    return order(**{**row, "customer": globals()["Customer"](**row["customer"])})


MODELS: tuple[Any, Any] = (None, None)

# --- produce ---------------------------------------------------------------------------------------------------------


async def confluent_produce(topic: str, records: int) -> None:
    from confluent_kafka.aio import AIOProducer

    producer = AIOProducer({"bootstrap.servers": SERVERS, "enable.idempotence": True})
    meter = Meter(records)
    value = b"x" * 100
    while True:
        waiting = [await producer.produce(topic, value=value) for _ in range(1000)]
        await asyncio.gather(*waiting)
        if meter.took(1000):
            break
    meter.tell()
    await producer.close()


async def aiokafka_produce(topic: str, records: int) -> None:
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=SERVERS, enable_idempotence=True)
    await producer.start()
    meter = Meter(records)
    value = b"x" * 100
    headers = [("trace", b"0123456789"), ("source", b"bench")]
    while True:
        waiting = [await producer.send(topic, value, headers=headers) for _ in range(1000)]
        await asyncio.gather(*waiting)
        if meter.took(1000):
            break
    meter.tell()
    await producer.stop()


async def ours_produce(topic: str, records: int, one: bool) -> None:
    import gristmill

    meter = Meter(records)
    value = b"x" * 100
    headers = {"trace": b"0123456789", "source": b"bench"}
    async with gristmill.Producer(SERVERS, compression="none") as producer:
        while True:
            if one:
                await asyncio.gather(*(producer.asend(topic, value, headers=headers) for _ in range(1000)))
            else:
                await producer.asend_many(topic, [value] * 1000, headers=headers)
            if meter.took(1000):
                break
        meter.tell()


# --- transform -------------------------------------------------------------------------------------------------------


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "order_id": f"o-{n}",
            "customer": {"name": "Ada Lovelace", "email": f"ada{n % 100}@example.org", "card": "4111111111111111"},
            "country": "DE",
            "amount_cents": n % 5000,
            "created_at": 1_700_000_000_000 + n,
        }
        for n in range(count)
    ]


def masked(row: dict[str, Any]) -> dict[str, Any]:
    """What examples/transforms/typed-orders does to a row, as people write it."""
    customer = dict(row["customer"])
    email = customer.pop("email", None)
    customer.pop("card", None)
    domain = email.rpartition("@")[2] if email else None
    if row["amount_cents"] < 0:
        raise ValueError("negative")
    made = {name: value for name, value in row.items() if name not in ("customer", "created_at")}
    made["customer"] = {**customer, "email": None}
    made["email_domain"] = domain
    made["placed_at"] = row["created_at"]
    made["output"] = "high_value" if row["amount_cents"] >= 100_000 else "main"
    return made


def python_transform(count: int) -> None:
    given = rows(100_000)
    meter = Meter(count)
    meter.begun = (cpu(), time.perf_counter(), 0)
    while not meter.took(len([masked(row) for row in given])):
        pass
    meter.tell()


def wasm_transform(count: int) -> None:
    import pyarrow

    import gristmill

    given = pyarrow.Table.from_pylist(rows(100_000))
    component = os.path.join(os.path.dirname(__file__), "../../examples/transforms/prebuilt/typed-orders.wasm")
    transform = gristmill.Transform(component, config={"high_value_cents": 100_000})
    transform.apply(given)
    meter = Meter(count)
    meter.begun = (cpu(), time.perf_counter(), 0)
    while not meter.took(len(transform.apply(given).frame)):
        pass
    meter.tell()


# --- the table -------------------------------------------------------------------------------------------------------

CONTENDERS: dict[str, dict[str, Callable[[], Any]]] = {
    "consume": {
        "confluent consume(500), tuned": lambda: confluent("plain", PLAIN, True),
        "confluent consume(500), tuned (A/A)": lambda: confluent("plain", PLAIN, True),
        "confluent consume(500), defaults": lambda: confluent("plain", PLAIN, False),
        "confluent poll, defaults": lambda: confluent_default_poll("plain", PLAIN),
        "confluent AIOConsumer.consume(500)": lambda: asyncio.run(confluent_aio("plain", PLAIN, False)),
        "confluent AIOConsumer.poll": lambda: asyncio.run(confluent_aio("plain", SLOW, True)),
        "aiokafka getmany": lambda: asyncio.run(aiokafka("plain", PLAIN, False)),
        "aiokafka async for": lambda: asyncio.run(aiokafka("plain", PLAIN, True)),
        "gristmill for batch, values()": lambda: ours("plain", PLAIN, lambda batch: batch.values()),
        "gristmill async for batch, values()": lambda: asyncio.run(ours_async("plain", PLAIN, False)),
        "gristmill async for record": lambda: asyncio.run(ours_async("plain", PLAIN, True)),
    },
    "avro": {
        "confluent AvroDeserializer": lambda: confluent_avro("orders", AVRO, lambda row: row),
        "confluent AvroDeserializer, dataclass": lambda: confluent_avro("orders", AVRO, dataclass_of),
        "confluent AvroDeserializer, pydantic": lambda: confluent_avro("orders", AVRO, lambda row: MODELS[1](**row)),
        "confluent consume + fastavro": lambda: fastavro("orders", AVRO),
        "gristmill to Arrow": lambda: avro("orders", AVRO, lambda batch: batch.decode()),
        "gristmill to dicts": lambda: avro("orders", AVRO, lambda batch: batch.objects()),
        "gristmill to dataclasses": lambda: avro("orders", AVRO, lambda batch: batch.objects(MODELS[0])),
        "gristmill to pydantic": lambda: avro("orders", AVRO, lambda batch: batch.objects(MODELS[1])),
    },
    "produce": {
        "confluent AIOProducer, no headers": lambda: asyncio.run(confluent_produce("out", SLOW)),
        "aiokafka send, two headers": lambda: asyncio.run(aiokafka_produce("out", SLOW)),
        "gristmill asend, two headers": lambda: asyncio.run(ours_produce("out", SLOW, True)),
        "gristmill asend_many, two headers": lambda: asyncio.run(ours_produce("out", PLAIN, False)),
    },
    "transform": {
        "a Python function a row": lambda: python_transform(ROWS),
        "the same in Rust, as WebAssembly": lambda: wasm_transform(ROWS),
    },
}


def fill() -> None:
    import datetime

    import pyarrow

    import gristmill

    with gristmill.Producer(SERVERS, compression="none") as producer:
        for first in range(0, PLAIN, 20_000):
            producer.send_many("plain", [b"%d" % n + b"x" * 90 for n in range(first, min(first + 20_000, PLAIN))])
        registry = gristmill.Registry(REGISTRY)
        registry.register("orders-value", SCHEMA)
        at = datetime.datetime(2026, 11, 1, tzinfo=datetime.timezone.utc)
        table = [
            {
                "order_id": f"o-{n}",
                "customer": {"name": "Ada Lovelace", "email": f"ada{n % 100}@example.org" if n % 3 else None},
                "country": "DE",
                "currency": "EUR",
                "amount_cents": n,
                "created_at": at + datetime.timedelta(milliseconds=n),
                "paid": n % 2 == 0,
                "rating": n / 7 if n % 5 else None,
                "tags": ["new", "eu"][: n % 3],
            }
            for n in range(AVRO)
        ]
        schema = pyarrow.Table.from_pylist(table[:2]).schema
        schema = schema.set(5, pyarrow.field("created_at", pyarrow.timestamp("ms", "UTC")))
        producer.send_arrow("orders", pyarrow.Table.from_pylist(table, schema), format=gristmill.Avro(registry))


def child(part: str, name: str) -> None:
    global MODELS
    if part == "avro":
        MODELS = models()
    CONTENDERS[part][name]()


def main() -> None:
    if len(sys.argv) == 3:
        child(sys.argv[1], sys.argv[2])
        return
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    import gristmill.testing

    parts = os.environ.get("PARTS", "").split() or list(CONTENDERS)
    kafka = subprocess.Popen([os.environ["GRISTMILL_TEST_KAFKA"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert kafka.stdin and kafka.stdout
    registry = gristmill.testing.SchemaRegistry()
    try:
        servers = kafka.stdout.readline().strip()
        global SERVERS, REGISTRY
        SERVERS, REGISTRY = servers, registry.url
        admin = AdminClient({"bootstrap.servers": servers})
        made = admin.create_topics([NewTopic(n, 4) for n in ("plain", "orders", "out")])
        for done in made.values():
            done.result(30)
        if set(parts) - {"transform"}:
            fill()
        for part in parts:
            measure(part, {**os.environ, "BENCH_SERVERS": servers, "BENCH_REGISTRY": registry.url})
    finally:
        kafka.stdin.close()
        kafka.wait(60)


def measure(part: str, environment: dict[str, str]) -> None:
    best: dict[str, dict[str, float]] = {}
    for _ in range(ROUNDS):
        for name in CONTENDERS[part]:
            done = subprocess.run(
                [sys.executable, __file__, part, name], env=environment, capture_output=True, text=True, timeout=600
            )
            if done.returncode:
                print(f"{name}: {done.stderr.strip()[-500:]}", file=sys.stderr)
                continue
            found = json.loads(done.stdout.strip().splitlines()[-1])
            least = best.setdefault(name, found)
            best[name] = {key: min(least[key], found[key]) for key in found}
    first = next(iter(best.values()))
    print(f"\n{part}: least of {ROUNDS} rounds; ratios to the first line")
    print(f"  {'':42} {'CPU ns/record':>14} {'ratio':>7} {'ns/record':>11} {'ratio':>7}")
    for name, found in best.items():
        cpu_ratio, wall_ratio = found["cpu"] / first["cpu"], found["wall"] / first["wall"]
        print(f"  {name:42} {found['cpu']:14,.0f} {cpu_ratio:7.3f} {found['wall']:11,.0f} {wall_ratio:7.3f}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
