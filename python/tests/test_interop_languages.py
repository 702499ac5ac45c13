"""With confluent-kafka's serialisers for Protobuf and JSON Schema, over generated schemas, both ways."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from functools import partial
from typing import Any

import pyarrow as pa
import pydantic
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient, header_schema_id_serializer
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2, timestamp_pb2, wrappers_pb2
from google.type import date_pb2  # type: ignore[import-untyped]
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gristmill
from gristmill.testing import Cluster, SchemaRegistry

_Field = descriptor_pb2.FieldDescriptorProto
_TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
_TIMES = st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31), timezones=st.just(dt.timezone.utc))
_INT32, _INT64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
_UINT32, _UINT64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
_FLOATS = st.floats(width=32, allow_nan=False)

# Type, values, and what is read where there is none.
_SCALARS: dict[int, tuple[st.SearchStrategy[Any], Any]] = {
    _Field.TYPE_BOOL: (st.booleans(), False),
    _Field.TYPE_INT32: (_INT32, 0),
    _Field.TYPE_SINT32: (_INT32, 0),
    _Field.TYPE_SFIXED32: (_INT32, 0),
    _Field.TYPE_INT64: (_INT64, 0),
    _Field.TYPE_SINT64: (_INT64, 0),
    _Field.TYPE_SFIXED64: (_INT64, 0),
    _Field.TYPE_UINT32: (_UINT32, 0),
    _Field.TYPE_FIXED32: (_UINT32, 0),
    _Field.TYPE_UINT64: (_UINT64, 0),
    _Field.TYPE_FIXED64: (_UINT64, 0),
    _Field.TYPE_FLOAT: (_FLOATS, 0.0),
    _Field.TYPE_DOUBLE: (st.floats(allow_nan=False), 0.0),
    _Field.TYPE_STRING: (_TEXT, ""),
    _Field.TYPE_BYTES: (st.binary(max_size=6), b""),
    _Field.TYPE_ENUM: (st.sampled_from(["ZERO", "ONE", "MINUS"]), "ZERO"),
}
_KEYS = [_Field.TYPE_STRING, _Field.TYPE_INT64, _Field.TYPE_BOOL, _Field.TYPE_SINT32, _Field.TYPE_FIXED64]


def _read_map(names: dict[int, str] | None, made: dict[Any, Any]) -> tuple[Any, Any]:
    """What a map is made of and what is read: keys are texts."""
    return made, {
        str(key).lower() if isinstance(key, bool) else str(key): names[value] if names else value
        for key, value in made.items()
    }


@st.composite
def _message(draw: st.DrawFn, proto: Any, path: str, depth: int) -> st.SearchStrategy[tuple[dict[str, Any], dict[str, Any]]]:
    """Fills in a description; gives what a message is made of, and what is to be read of it."""
    parts: dict[str, st.SearchStrategy[tuple[Any, Any]]] = {}
    shapes = ["scalar", "optional", "repeated", "map", "time", "date", "json", "wrapped"]
    if depth:
        shapes += ["message", "messages"]
    for number, shape in enumerate(draw(st.lists(st.sampled_from(shapes), min_size=1, max_size=5)), start=1):
        name = f"f{number}"
        field = proto.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
        kind = draw(st.sampled_from(sorted(_SCALARS)))
        values, default = _SCALARS[kind]
        same = values.map(lambda value: (value, value))
        if shape in ("scalar", "optional", "repeated"):
            field.type = kind
            if kind == _Field.TYPE_ENUM:
                field.type_name = ".shop.Kind"
        if shape == "scalar":
            parts[name] = same | st.just((None, default))
        elif shape == "optional":
            field.proto3_optional = True
            field.oneof_index = len(proto.oneof_decl)
            proto.oneof_decl.add(name=f"_{name}")
            parts[name] = same | st.just((None, None))
        elif shape == "repeated":
            field.label = _Field.LABEL_REPEATED
            parts[name] = st.lists(values, max_size=3).map(lambda items: (items, items))
        elif shape == "map":
            entry = proto.nested_type.add(name=f"F{number}Entry")
            entry.options.map_entry = True
            key = draw(st.sampled_from(_KEYS))
            entry.field.add(name="key", number=1, type=key, label=_Field.LABEL_OPTIONAL)
            value = entry.field.add(name="value", number=2, type=kind, label=_Field.LABEL_OPTIONAL)
            if kind == _Field.TYPE_ENUM:
                value.type_name = ".shop.Kind"
                values = st.sampled_from([0, 1, -1])
            names = {0: "ZERO", 1: "ONE", -1: "MINUS"} if kind == _Field.TYPE_ENUM else None
            field.label, field.type = _Field.LABEL_REPEATED, _Field.TYPE_MESSAGE
            field.type_name = f"{path}.F{number}Entry"
            parts[name] = st.dictionaries(_SCALARS[key][0], values, max_size=3).map(partial(_read_map, names))
        else:
            field.type = _Field.TYPE_MESSAGE
            if shape == "time":
                field.type_name = ".google.protobuf.Timestamp"
                parts[name] = _TIMES.map(lambda time: (time, time)) | st.just((None, None))
            elif shape == "date":
                field.type_name = ".google.type.Date"
                dates = st.dates().map(lambda day: ({"year": day.year, "month": day.month, "day": day.day}, day))
                parts[name] = dates | st.just((None, None))
            elif shape == "json":
                field.type_name = ".google.protobuf.Value"
                made = st.booleans().map(lambda value: ({"bool_value": value}, json.dumps(value)))
                parts[name] = made | st.just((None, None))
            elif shape == "wrapped":
                field.type_name = ".google.protobuf.Int64Value"
                parts[name] = _INT64.map(lambda value: ({"value": value}, value)) | st.just((None, None))
            else:
                nested = proto.nested_type.add(name=f"M{number}")
                field.type_name = f"{path}.M{number}"
                inner = draw(_message(nested, field.type_name, depth - 1))
                if shape == "message":
                    parts[name] = inner | st.just((None, None))
                else:
                    field.label = _Field.LABEL_REPEATED
                    parts[name] = st.lists(inner, max_size=2).map(
                        lambda items: ([made for made, _ in items], [read for _, read in items])
                    )
    return st.fixed_dictionaries(parts).map(
        lambda row: (
            {name: made for name, (made, _) in row.items() if made is not None},
            {name: read for name, (_, read) in row.items()},
        )
    )


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name=f"{uuid.uuid4().hex}.proto", package="shop", syntax="proto3")
    file.dependency.extend(
        f"google/{name}.proto" for name in ["protobuf/timestamp", "protobuf/struct", "protobuf/wrappers", "type/date"]
    )
    file.enum_type.add(name="Kind").value.extend(
        descriptor_pb2.EnumValueDescriptorProto(name=name, number=number)
        for name, number in [("ZERO", 0), ("ONE", 1), ("MINUS", -1)]
    )
    return file


def _class(file: descriptor_pb2.FileDescriptorProto, name: str) -> Any:
    pool = descriptor_pool.DescriptorPool()
    for known in (timestamp_pb2, struct_pb2, wrappers_pb2, date_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture(scope="module")
def registry() -> SchemaRegistry:
    return SchemaRegistry()


def _values(topic: str, cluster: Cluster) -> list[bytes]:
    return [row["value"] for row in gristmill.read(topic, bootstrap_servers=cluster.bootstrap_servers).objects()]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_protobuf_is_read_and_written_as_confluent_does(cluster: Cluster, registry: SchemaRegistry, data: st.DataObject) -> None:
    file = _file()
    rows = data.draw(st.lists(data.draw(_message(file.message_type.add(name="Row"), ".shop.Row", 2)), min_size=1, max_size=3))
    message = _class(file, "shop.Row")
    made = [message(**row) for row, _ in rows]
    topic = f"t{uuid.uuid4().hex}"
    cluster.create_topic(topic)
    context = SerializationContext(topic, MessageField.VALUE)
    with SchemaRegistryClient({"url": registry.url}) as client:
        # The types that come with Protobuf are known everywhere.
        serialise = ProtobufSerializer(message, client, {"use.deprecated.format": False})
        with gristmill.Producer(cluster.bootstrap_servers, linger=0) as producer:
            producer.send_many(topic, [serialise(one, context) for one in made], partition=0)
            format = gristmill.Protobuf(registry.url)
            frame = gristmill.read(topic, bootstrap_servers=cluster.bootstrap_servers, format=format)
            assert frame.objects() == [read for _, read in rows]
            # The same columns out again, by the same schema.
            producer.send_arrow(topic, frame, format=format, partition=0)
        deserialise = ProtobufDeserializer(message, {"use.deprecated.format": False}, client)
        again = [deserialise(value, context) for value in _values(topic, cluster)[len(rows) :]]
    assert again == made


_LEAVES: list[tuple[dict[str, Any], st.SearchStrategy[Any]]] = [
    ({"type": "integer"}, _INT64),
    ({"type": "number"}, st.floats(allow_nan=False, allow_infinity=False)),
    ({"type": "boolean"}, st.booleans()),
    ({"type": "string"}, _TEXT),
    ({"enum": ["a", "b"]}, st.sampled_from(["a", "b"])),
    ({"type": "string", "format": "date"}, st.dates().map(str)),
]
_Typed = tuple[dict[str, Any], st.SearchStrategy[Any]]


def _objects(fields: list[_Typed]) -> _Typed:
    properties = {f"f{i}": schema for i, (schema, _) in enumerate(fields)}
    values = {f"f{i}": values for i, (_, values) in enumerate(fields)}
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return schema, st.fixed_dictionaries(values)


_TYPES: st.SearchStrategy[_Typed] = st.recursive(
    st.sampled_from(_LEAVES),
    lambda inner: (
        inner.map(lambda of: ({"anyOf": [{"type": "null"}, of[0]]}, st.none() | of[1]))
        | inner.map(lambda of: ({"type": "array", "items": of[0]}, st.lists(of[1], max_size=3)))
        | inner.map(lambda of: ({"type": "object", "additionalProperties": of[0]}, st.dictionaries(_TEXT, of[1], max_size=3)))
        | st.lists(inner, min_size=1, max_size=3).map(_objects)
    ),
    max_leaves=5,
)


def _texts(value: Any) -> Any:
    """Dates as JSON has them."""
    if isinstance(value, dict):
        return {key: _texts(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_texts(inner) for inner in value]
    return value.isoformat() if isinstance(value, dt.date) else value


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data(), fields=st.lists(_TYPES, min_size=1, max_size=4))
def test_json_schema_is_read_and_written_as_confluent_does(
    cluster: Cluster, registry: SchemaRegistry, data: st.DataObject, fields: list[_Typed]
) -> None:
    schema, of_rows = _objects(fields)
    schema["title"] = "Row"
    rows = data.draw(st.lists(of_rows, min_size=1, max_size=3))
    topic = f"t{uuid.uuid4().hex}"
    cluster.create_topic(topic)
    context = SerializationContext(topic, MessageField.VALUE)
    with SchemaRegistryClient({"url": registry.url}) as client:
        serialise = JSONSerializer(json.dumps(schema), client)
        with gristmill.Producer(cluster.bootstrap_servers, linger=0) as producer:
            producer.send_many(topic, [serialise(row, context) for row in rows], partition=0)
            format = gristmill.JsonSchema(registry.url)
            frame = gristmill.read(topic, bootstrap_servers=cluster.bootstrap_servers, format=format)
            assert _texts(frame.objects()) == rows
            producer.send_arrow(topic, frame, format=format, partition=0)
        # It validates what it reads.
        deserialise = JSONDeserializer(json.dumps(schema), schema_registry_client=client)
        again = [deserialise(value, context) for value in _values(topic, cluster)[len(rows) :]]
    assert again == rows


def test_a_generated_class_says_schema_and_message(kafka: Cluster) -> None:
    kafka.create_topic("orders")
    file = _file()
    file.message_type.add(name="Other").field.add(name="x", number=1, type=_Field.TYPE_BOOL, label=_Field.LABEL_OPTIONAL)
    row = file.message_type.add(name="Row")
    row.field.add(name="id", number=1, type=_Field.TYPE_INT64, label=_Field.LABEL_OPTIONAL)
    row.field.add(
        name="at", number=2, type=_Field.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp", label=_Field.LABEL_OPTIONAL
    )
    message = _class(file, "shop.Row")
    at = dt.datetime(2026, 11, 29, 12, tzinfo=dt.timezone.utc)
    format = gristmill.Protobuf(schema=message)
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        producer.send("orders", message(id=7, at=at).SerializeToString())
        frame = gristmill.read("orders", bootstrap_servers=kafka.bootstrap_servers, format=format)
        assert frame.objects() == [{"id": 7, "at": at}]
        # With a registry it is for reading alone: what registries take is another form.
        with pytest.raises(gristmill.InvalidArgumentError, match="leave it out to write by the latest"):
            producer.send_arrow("orders", frame, format=gristmill.Protobuf("http://127.0.0.1:1", schema=message))
        with pytest.raises(gristmill.InvalidArgumentError, match="the format has no registry"):
            producer.send_arrow("orders", frame, format=format, register=True)
        # Bare, as it was read.
        producer.send_arrow("orders", frame, format=format)
    assert [message.FromString(value) for value in _values("orders", kafka)] == [message(id=7, at=at)] * 2
    with pytest.raises(TypeError, match="int is no class of a Protobuf message"):
        gristmill.Protobuf(schema=int)


def test_schemas_that_do_not_fit_say_what_does(kafka: Cluster, schema_registry: SchemaRegistry) -> None:
    kafka.create_topic("orders")
    registry = gristmill.Registry(schema_registry.url)
    url = schema_registry.url
    text = 'syntax = "proto3"; message Order { int64 id = 1; optional string note = 2; }'
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        with pytest.raises(gristmill.InvalidArgumentError, match='none of "json"'):
            producer.send_arrow("orders", pa.table({"id": [1]}), format=gristmill.Json({"id": "int64"}))  # type: ignore[arg-type]  # a mistake
        with pytest.raises(gristmill.NotFoundError, match="subject orders-value"):
            producer.send_arrow("orders", pa.table({"id": [1]}), format=gristmill.Protobuf(url))
        # Not registered, unless told.
        known = gristmill.Protobuf(url, schema=text)
        with pytest.raises(gristmill.NotFoundError):
            producer.send_arrow("orders", pa.table({"id": [1]}), format=known)
        report = producer.send_arrow("orders", pa.table({"id": [1], "note": [None]}), format=known, register=True)
        assert report.delivered == 1 and registry.latest("orders-value").type == "PROTOBUF"
        with pytest.raises(gristmill.InvalidArgumentError, match="the column `ide` has no field in the message `Order`"):
            producer.send_arrow("orders", pa.table({"ide": [1]}), format=gristmill.Protobuf(url))
        with pytest.raises(gristmill.InvalidArgumentError, match="the column `id`: it has a null"):
            producer.send_arrow("orders", pa.table({"id": pa.array([None], pa.int64())}), format=gristmill.Protobuf(url))
        with pytest.raises(gristmill.InvalidArgumentError, match="only Avro makes a schema of columns"):
            producer.send_arrow("orders", pa.table({"id": [1]}), format=gristmill.JsonSchema(url), register=True)
        with pytest.raises(gristmill.SchemaRegistryError, match="its format is `protobuf`"):
            producer.send_arrow("orders", pa.table({"id": [1]}), format=gristmill.JsonSchema(url))
    with pytest.raises(gristmill.SchemaRegistryError, match="the format is `avro`; its format is `protobuf`"):
        gristmill.read("orders", bootstrap_servers=kafka.bootstrap_servers, format=gristmill.Avro(url))
    frame = gristmill.read("orders", bootstrap_servers=kafka.bootstrap_servers, format=gristmill.Protobuf(url))
    assert frame.objects() == [{"id": 1, "note": None}]
    with pytest.raises(gristmill.InvalidArgumentError, match="Protobuf needs a registry"):
        gristmill.Protobuf()
    with pytest.raises(gristmill.InvalidArgumentError, match='neither "refuse" nor "json"'):
        gristmill.JsonSchema(url, recursive="drop")  # type: ignore[arg-type]  # a typo


def test_a_pydantic_model_is_a_json_schema(kafka: Cluster) -> None:
    class Line(pydantic.BaseModel):
        sku: str
        quantity: int

    class Order(pydantic.BaseModel):
        id: int
        at: dt.datetime
        note: str | None = None
        lines: list[Line]
        extra: object = None

    kafka.create_topic("orders")
    order = Order(id=1, at=dt.datetime(2026, 11, 29, tzinfo=dt.timezone.utc), lines=[Line(sku="a", quantity=2)], extra={"a": 1})
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        producer.send("orders", order.model_dump_json())
    servers = kafka.bootstrap_servers
    with pytest.raises(gristmill.DecodeError, match='field extra: it may be anything'):
        gristmill.read("orders", bootstrap_servers=servers, format=gristmill.JsonSchema(schema=Order))
    format = gristmill.JsonSchema(schema=Order, recursive="json")
    with gristmill.Producer(servers) as producer, pytest.raises(gristmill.InvalidArgumentError, match="`other` has no property"):
        producer.send_arrow("orders", pa.table({"other": [1]}), format=format)
    rows = gristmill.read("orders", bootstrap_servers=servers, format=format).objects()
    assert rows == [{"id": 1, "at": order.at, "note": None, "lines": [{"sku": "a", "quantity": 2}], "extra": '{"a":1}'}]


def test_unions_of_avro_are_texts_of_json(kafka: Cluster, schema_registry: SchemaRegistry) -> None:
    card = {"type": "record", "name": "shop.Card", "fields": [{"name": "number", "type": "string"}]}
    schema = {
        "type": "record",
        "name": "Order",
        "fields": [{"name": "paid", "type": ["null", "long", card]}, {"name": "before", "type": ["null", "Order"], "default": None}],
    }
    orders: list[dict[str, Any]] = [
        {"paid": 5, "before": None},
        {"paid": ("shop.Card", {"number": "é"}), "before": {"paid": None, "before": None}},
        {"paid": None, "before": None},
    ]
    kafka.create_topic("orders")
    servers = kafka.bootstrap_servers
    with SchemaRegistryClient({"url": schema_registry.url}) as client, gristmill.Producer(servers) as producer:
        serialise = AvroSerializer(client, json.dumps(schema))
        for order in orders:
            producer.send("orders", serialise(order, SerializationContext("orders", MessageField.VALUE)))
    with pytest.raises(gristmill.GristmillError, match="field paid: a union of several types"):
        gristmill.read("orders", bootstrap_servers=servers, format=gristmill.Avro(schema_registry.url))
    format = gristmill.Avro(schema_registry.url, recursive="json")
    assert gristmill.read("orders", bootstrap_servers=servers, format=format).objects() == [
        {"paid": '{"long":5}', "before": None},
        {"paid": '{"shop.Card":{"number":"é"}}', "before": '{"paid":null,"before":null}'},
        {"paid": None, "before": None},
    ]
    # And back, as the other library reads it.
    frame = gristmill.read("orders", bootstrap_servers=servers, format=format)
    kafka.create_topic("again")
    with gristmill.Producer(servers) as producer:
        written = gristmill.Avro(schema_registry.url, subject="orders-value")
        producer.send_arrow("again", frame, format=written)
    with SchemaRegistryClient({"url": schema_registry.url}) as client:
        deserialise = AvroDeserializer(client)
        again = gristmill.read("again", bootstrap_servers=servers, format=gristmill.Bytes()).objects()
        read = [deserialise(row["value"], SerializationContext("again", MessageField.VALUE)) for row in again]
    assert read == [orders[0], {**orders[1], "paid": {"number": "é"}}, orders[2]]
    wrong = pa.table({"paid": ["7"], "before": pa.array([None], pa.string())})
    with gristmill.Producer(servers) as producer, pytest.raises(gristmill.GristmillError, match="with the name of its type"):
        producer.send_arrow("again", wrong, format=written)


def test_schema_ids_in_headers_are_read(kafka: Cluster, schema_registry: SchemaRegistry) -> None:
    """As serialisers of Confluent Platform 8 write them: GUIDs, and values as they are."""
    file = _file()
    row = file.message_type.add(name="Row")
    row.field.add(name="id", number=1, type=_Field.TYPE_INT64, label=_Field.LABEL_OPTIONAL)
    message = _class(file, "shop.Row")
    avro = {"type": "record", "name": "Row", "fields": [{"name": "id", "type": "long"}]}
    schema = {"title": "Row", "type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}
    in_header = {"schema.id.serializer": header_schema_id_serializer}
    with SchemaRegistryClient({"url": schema_registry.url}) as client:
        serialisers: list[tuple[str, Any, Any, gristmill.Format]] = [
            ("avro", AvroSerializer(client, json.dumps(avro), conf=in_header), {"id": 7}, gristmill.Avro(schema_registry.url)),
            ("proto", ProtobufSerializer(message, client, in_header), message(id=7), gristmill.Protobuf(schema_registry.url)),
            ("json", JSONSerializer(json.dumps(schema), client, conf=in_header), {"id": 7}, gristmill.JsonSchema(schema_registry.url)),
        ]
        with gristmill.Producer(kafka.bootstrap_servers) as producer:
            for topic, serialise, value, format in serialisers:
                kafka.create_topic(topic)
                headers: list[tuple[str, Any]] = []
                made = serialise(value, SerializationContext(topic, MessageField.VALUE, headers))
                assert [name for name, _ in headers] == ["__value_schema_id"] and made[0] != 0
                producer.send(topic, made, headers=headers)
                frame = gristmill.read(topic, bootstrap_servers=kafka.bootstrap_servers, format=format)
                assert frame.objects() == [{"id": 7}], topic
