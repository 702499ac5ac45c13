"""With confluent-kafka's serialisers, over generated Avro schemas, both ways."""

from __future__ import annotations

import json
import math
import uuid
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gristmill
from gristmill.testing import Cluster, SchemaRegistry

_TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
_SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    ("boolean", st.booleans()),
    ("int", st.integers(-(2**31), 2**31 - 1)),
    ("long", st.integers(-(2**63), 2**63 - 1)),
    ("double", st.floats(allow_nan=False)),
    ("float", st.floats(width=32, allow_nan=False)),
    ("string", _TEXT),
    ("bytes", st.binary(max_size=6)),
    ({"type": "int", "logicalType": "date"}, st.dates()),
    ({"type": "string", "logicalType": "uuid"}, st.uuids()),
    (
        {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 3},
        st.decimals(-(10**12), 10**12, places=3),
    ),
]

Typed = tuple[Any, st.SearchStrategy[Any]]


def _nullable(of: Typed) -> Typed:
    return ["null", of[0]], st.none() | of[1]


def _listed(of: Typed) -> Typed:
    return {"type": "array", "items": of[0]}, st.lists(of[1], max_size=3)


def _mapped(of: Typed) -> Typed:
    return {"type": "map", "values": of[0]}, st.dictionaries(_TEXT, of[1], max_size=3)


def _record(fields: list[Typed], name: str) -> Typed:
    described = [{"name": f"f{i}", "type": of[0]} for i, of in enumerate(fields)]
    return (
        {"type": "record", "name": name, "fields": described},
        st.fixed_dictionaries({f"f{i}": of[1] for i, of in enumerate(fields)}),
    )


def _enum(symbols: list[str]) -> Typed:
    return {"type": "enum", "name": f"E{uuid.uuid4().hex}", "symbols": symbols}, st.sampled_from(symbols)


_LEAVES = st.sampled_from(_SCALARS) | st.lists(st.sampled_from(["A", "B", "C"]), min_size=1, unique=True).map(_enum)
_TYPES = st.recursive(
    _LEAVES | _LEAVES.map(_nullable),
    lambda inner: (
        inner.map(_listed)
        | inner.map(_mapped)
        | st.lists(inner, min_size=1, max_size=3).map(lambda fields: _record(fields, f"R{uuid.uuid4().hex}"))
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture(scope="module")
def registry() -> SchemaRegistry:
    return SchemaRegistry()


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-6) or left == right
    # Both are the text of one.
    return bool(str(left) == str(right)) if isinstance(left, uuid.UUID) else bool(left == right)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data(), fields=st.lists(_TYPES, min_size=1, max_size=4))
def test_what_confluent_writes_is_read_and_what_is_written_confluent_reads(
    cluster: Cluster, registry: SchemaRegistry, data: st.DataObject, fields: list[Typed]
) -> None:
    schema, of_rows = _record(fields, "Row")
    rows = data.draw(st.lists(of_rows, min_size=1, max_size=3))
    topic = f"t{uuid.uuid4().hex}"
    cluster.create_topic(topic)
    context = SerializationContext(topic, MessageField.VALUE)
    with SchemaRegistryClient({"url": registry.url}) as client:
        serialise = AvroSerializer(client, json.dumps(schema))
        with gristmill.Producer(cluster.bootstrap_servers, linger=0) as producer:
            producer.send_many(topic, [serialise(row, context) for row in rows], partition=0)
            format = gristmill.Avro(registry.url)
            frame = gristmill.read(topic, bootstrap_servers=cluster.bootstrap_servers, format=format)
            made = frame.objects()
            assert all(map(_same, rows, made)), (rows, made)
            # The same columns out again, by the same schema.
            producer.send_arrow(topic, frame, format=format, partition=0)
        values = gristmill.read(topic, bootstrap_servers=cluster.bootstrap_servers).objects()[len(rows) :]
        deserialise = AvroDeserializer(client)
        assert all(_same(row, deserialise(value["value"], context)) for row, value in zip(rows, values, strict=True))


def test_references_are_followed(kafka: Cluster, schema_registry: SchemaRegistry) -> None:
    kafka.create_topic("orders")
    line = {"type": "record", "name": "Line", "namespace": "shop", "fields": [{"name": "sku", "type": "string"}]}
    order = {
        "type": "record",
        "name": "Order",
        "namespace": "shop",
        "fields": [{"name": "id", "type": "long"}, {"name": "lines", "type": {"type": "array", "items": "shop.Line"}}],
    }
    row = {"id": 1, "lines": [{"sku": "tea"}]}
    with SchemaRegistryClient({"url": schema_registry.url}) as client:
        client.register_schema("lines", Schema(json.dumps(line), "AVRO"))
        schema = Schema(json.dumps(order), "AVRO", [SchemaReference("shop.Line", "lines", 1)])
        value = AvroSerializer(client, schema)(row, SerializationContext("orders", MessageField.VALUE))
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        producer.send("orders", value)
    frame = gristmill.read("orders", bootstrap_servers=kafka.bootstrap_servers, format=gristmill.Avro(schema_registry.url))
    assert frame.objects() == [row]
