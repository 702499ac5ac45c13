"""read() and scan(): what is in a range, and what is said of what is not."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from typing import Any

import duckdb
import polars
import pyarrow
import pytest
from conftest import Kafka

import gristmill
from gristmill.testing import Cluster

FIELDS = {"id": "int64 not null", "price": "decimal(10, 2)"}


def orders(count: int, first: int = 0) -> list[bytes]:
    return [json.dumps({"id": n, "price": f"{n}.25"}).encode() for n in range(first, first + count)]


def ids(frame: gristmill.Frame) -> list[int]:
    return sorted(row["id"] for row in frame.to_pylist())


def test_every_record_of_every_partition_is_there_once_with_its_place(broker: Kafka) -> None:
    topic = broker.topic("orders", 3)
    broker.fill(topic, orders(5000))
    frame = gristmill.read(topic, bootstrap_servers=broker.bootstrap_servers, format=gristmill.Json(FIELDS))
    assert len(frame) == 5000
    assert ids(frame) == list(range(5000))
    table = frame.to_arrow()
    places = set(zip(table["_kafka_partition"].to_pylist(), table["_kafka_offset"].to_pylist()))
    assert len(places) == 5000
    assert table["price"].type == pyarrow.decimal128(10, 2)


def test_pyarrow_polars_duckdb_and_pandas_take_it_as_it_is(broker: Kafka) -> None:
    topic = broker.topic("orders")
    broker.fill(topic, orders(1500))
    frame = gristmill.read(topic, bootstrap_servers=broker.bootstrap_servers, format=gristmill.Json(FIELDS))
    total = sum(Decimal(f"{n}.25") for n in range(1500))
    assert sum(price or 0 for price in pyarrow.table(frame)["price"].to_pylist()) == total
    assert polars.DataFrame(frame)["price"].sum() == total
    assert frame.to_polars().height == 1500
    assert frame.to_pandas()["price"].sum() == total
    found = duckdb.sql("select sum(price) from frame")
    assert found is not None and found.fetchall() == [(total,)]


def test_ends_are_offsets_times_and_spans_and_the_end_is_outside(broker: Kafka) -> None:
    topic = broker.topic("orders")
    servers = broker.bootstrap_servers
    format = gristmill.Json(FIELDS)
    now = datetime.datetime.now(datetime.timezone.utc)
    with gristmill.Producer(servers) as producer:
        for hour in range(10):
            at = int((now - datetime.timedelta(hours=10 - hour)).timestamp() * 1000)
            producer.send(topic, orders(1, hour)[0], timestamp_ms=at)

    def read(**range: object) -> list[int]:
        return ids(gristmill.read(topic, bootstrap_servers=servers, format=format, **range))  # type: ignore[arg-type]

    assert read(start=3, end=5) == [3, 4]
    assert read(start="3", end="5") == [3, 4]
    assert read(start="150m") == [8, 9]
    assert read(start=datetime.timedelta(minutes=-150)) == [8, 9]
    assert read(end=now - datetime.timedelta(hours=8, minutes=30)) == [0, 1]
    assert read(start=100) == []


def test_an_offset_that_retention_took_is_an_error_and_a_time_is_not(broker: Kafka) -> None:
    topic = broker.topic("orders")
    broker.fill(topic, orders(100))
    broker.delete_records(topic, 0, 40)
    with pytest.raises(gristmill.OffsetOutOfRangeError) as raised:
        gristmill.read(topic, bootstrap_servers=broker.bootstrap_servers, start=5)
    error = raised.value
    assert (error.kind, error.topic, error.partition, error.offset) == ("offset_out_of_range", topic, 0, 5)
    assert "earliest record is 40" in str(error)
    assert len(gristmill.read(topic, bootstrap_servers=broker.bootstrap_servers, start="1h")) == 60


def test_a_record_that_does_not_decode_is_an_error_or_is_listed(broker: Kafka) -> None:
    topic = broker.topic("orders")
    broker.fill(topic, [*orders(3), b'{"id": "three"}', b"{", *orders(2, 5)])
    servers, format = broker.bootstrap_servers, gristmill.Json(FIELDS)
    with pytest.raises(gristmill.DecodeError) as raised:
        gristmill.read(topic, bootstrap_servers=servers, format=format)
    error = raised.value
    assert (error.topic, error.partition, error.offset, error.field) == (topic, 0, 3, "id")
    assert 'undecodable="keep"' in str(error)
    frame = gristmill.read(topic, bootstrap_servers=servers, format=format, undecodable="keep")
    assert ids(frame) == [0, 1, 2, 5, 6]
    assert [(bad.offset, bad.code) for bad in frame.undecodable] == [(3, "DECODE_MISMATCH"), (4, "DECODE_MALFORMED")]
    assert "three" not in repr(frame.undecodable)


def test_scan_gives_the_same_in_parts_and_ends(broker: Kafka) -> None:
    topic = broker.topic("orders")
    broker.fill(topic, orders(4000))
    scan = gristmill.scan(topic, bootstrap_servers=broker.bootstrap_servers, format=gristmill.Json(FIELDS))
    assert scan.column_names[:2] == ["id", "price"]
    parts = list(scan)
    assert len(parts) > 1
    assert sorted(n for part in parts for n in ids(part)) == list(range(4000))
    assert scan.progress == (4000, 4000)
    assert list(scan) == []
    again = gristmill.scan(topic, bootstrap_servers=broker.bootstrap_servers, format=gristmill.Json(FIELDS))
    reader = pyarrow.RecordBatchReader.from_stream(again)
    assert ids(gristmill.read(topic, bootstrap_servers=broker.bootstrap_servers, format=gristmill.Json(FIELDS))) == sorted(
        n for n in reader.read_all()["id"].to_pylist() if n is not None
    )
    assert list(again) == []


def test_avro_is_resolved_to_the_latest_schema(kafka: Cluster, schema_registry: gristmill.testing.SchemaRegistry) -> None:
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    kafka.create_topic("orders")
    first: dict[str, Any] = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}
    second: dict[str, Any] = {
        "type": "record",
        "name": "Order",
        "fields": [{"name": "id", "type": "long"}, {"name": "note", "type": "string", "default": "-"}],
    }
    context = SerializationContext("orders", MessageField.VALUE)
    values: list[bytes | str | None] = []
    with SchemaRegistryClient({"url": schema_registry.url}) as client:
        for schema, row in [(first, {"id": 1}), (second, {"id": 2, "note": "two"})]:
            values.append(AvroSerializer(client, json.dumps(schema))(row, context))
            client.register_schema("orders-value", Schema(json.dumps(schema), "AVRO"))
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        producer.send_many("orders", values, partition=0)
    for format in [
        gristmill.Avro(schema_registry.url),
        gristmill.Avro(gristmill.Registry(schema_registry.url), subject="orders-value"),
        gristmill.Avro(schema_registry.url, schema=second),
    ]:
        frame = gristmill.read("orders", bootstrap_servers=kafka.bootstrap_servers, format=format)
        assert frame.objects() == [{"id": 1, "note": "-"}, {"id": 2, "note": "two"}]
    with pytest.raises(gristmill.NotFoundError, match="subject nobody"):
        gristmill.read(
            "orders",
            bootstrap_servers=kafka.bootstrap_servers,
            format=gristmill.Avro(schema_registry.url, subject="nobody"),
        )


def test_mistakes_say_what_is_right(kafka: Cluster) -> None:
    servers = kafka.bootstrap_servers
    with pytest.raises(gristmill.NotFoundError) as missing:
        gristmill.read("nowhere", bootstrap_servers=servers)
    assert missing.value.topic == "nowhere"
    with pytest.raises(gristmill.InvalidArgumentError, match="start: `yesterday` is neither a time"):
        gristmill.read("orders", bootstrap_servers=servers, start="yesterday")
    with pytest.raises(ValueError, match="time zone"):
        gristmill.read("orders", bootstrap_servers=servers, start=datetime.datetime(2026, 1, 1))
    with pytest.raises(gristmill.InvalidConfigError, match="field id: `int46` is not a type; did you mean"):
        gristmill.Json({"id": "int46"})
    with pytest.raises(gristmill.InvalidConfigError, match="group.id"):
        gristmill.read("orders", bootstrap_servers=servers, properties={"group.id": "x"})
    with pytest.raises(gristmill.InvalidConfigError, match="no.such.thing"):
        gristmill.read("orders", bootstrap_servers=servers, properties={"no.such.thing": "x"})
