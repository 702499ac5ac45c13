"""The Schema Registry, Avro schemas of classes and columns, and records of columns: read back by us and by others."""

from __future__ import annotations

import datetime
import decimal
import enum
import io
import json
import uuid
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import fastavro
import pyarrow
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gristmill
from gristmill.testing import Cluster, SchemaRegistry


class Kind(enum.Enum):
    NEW = "new"
    OLD = "old"


@dataclass
class Line:
    sku: str
    quantity: int = 1


@dataclass
class Order:
    """An order."""

    id: int
    total: Annotated[decimal.Decimal, gristmill.Digits(18, 2)]
    at: datetime.datetime
    day: datetime.date
    kind: Kind
    key: uuid.UUID
    lines: list[Line]
    first: Line
    marks: dict[str, float]
    note: str | None = None
    paid: bool = False
    size: Literal["s", "m"] = "s"
    tags: list[str] = field(default_factory=list)


class Model(pydantic.BaseModel):
    id: int
    total: Annotated[decimal.Decimal, gristmill.Digits(18, 2)]
    note: str | None = None


def test_a_dataclass_has_an_avro_schema_that_others_read() -> None:
    schema = gristmill.avro_schema(Order, namespace="shop")
    assert (schema["name"], schema["namespace"], schema["doc"]) == ("Order", "shop", "An order.")
    types = {of["name"]: of["type"] for of in schema["fields"]}
    assert types["id"] == "long"
    assert types["total"] == {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 2}
    assert types["note"] == ["null", "string"]
    assert types["first"] == "Line", "a record is defined once"
    defaults = {of["name"]: of["default"] for of in schema["fields"] if "default" in of}
    assert defaults == {"note": None, "paid": False, "size": "s"}
    parsed = fastavro.parse_schema(json.loads(json.dumps(schema)))
    out = io.BytesIO()
    row = {
        "id": 1, "total": decimal.Decimal("2.50"), "at": datetime.datetime.now(datetime.timezone.utc), "day": datetime.date.today(),
        "kind": "new", "key": uuid.uuid4(), "lines": [{"sku": "a", "quantity": 1}], "first": {"sku": "b", "quantity": 2},
        "marks": {"x": 1.5}, "note": None, "paid": True, "size": "m", "tags": [],
    }  # fmt: skip
    fastavro.schemaless_writer(out, parsed, row)
    out.seek(0)
    assert fastavro.schemaless_reader(out, parsed, None) == row


def test_a_pydantic_model_has_the_same() -> None:
    schema = gristmill.avro_schema(Model)
    assert [(of["name"], of.get("default", "none")) for of in schema["fields"]] == [("id", "none"), ("total", "none"), ("note", None)]


def test_what_has_no_type_is_named() -> None:
    def refused(hint: Any) -> str:
        model = type("Wrong", (), {"__annotations__": {"inner": hint}})
        with pytest.raises(TypeError) as raised:
            gristmill.avro_schema(dataclass(model))
        return str(raised.value)

    assert "Digits(18, 2)" in refused(decimal.Decimal)
    assert refused(int | str).startswith("field inner: a union")
    assert "field inner[]" in refused(list[object])
    assert "keys of Avro's maps" in refused(dict[int, str])
    with pytest.raises(TypeError, match="dataclass"):
        gristmill.avro_schema(int)


def test_schemas_are_registered_looked_up_and_checked(schema_registry: SchemaRegistry) -> None:
    registry = gristmill.Registry(schema_registry.url)
    with pytest.raises(gristmill.NotFoundError) as missing:
        registry.latest("orders-value")
    assert missing.value.subject == "orders-value"
    id = registry.register("orders-value", Model)
    assert registry.register("orders-value", gristmill.avro_schema(Model)) == id
    latest = registry.latest("orders-value")
    assert (latest.id, latest.type, latest.subject, latest.version) == (id, "AVRO", "orders-value", 1)
    assert json.loads(latest.text) == gristmill.avro_schema(Model)
    assert registry.schema(id).text == registry.version("orders-value", 1).text == latest.text
    assert registry.compatibility("orders-value", Model) == (True, [])
    with pytest.raises(gristmill.NotFoundError):
        registry.compatibility("nobody", Model)
    with pytest.raises(gristmill.SchemaRegistryError):
        registry.register("orders-value", "not a schema")
    with pytest.raises(gristmill.InvalidArgumentError, match="AVRO, JSON, PROTOBUF"):
        registry.register("orders-value", "{}", type="XML")  # type: ignore[arg-type]
    other = {"type": "record", "name": "O", "fields": [{"name": "m", "type": "Model"}]}
    referring = registry.register("others-value", other, references=[gristmill.Reference("Model", "orders-value", 1)])
    assert registry.schema(referring).references == (gristmill.Reference("Model", "orders-value", 1),)


_FIELDS: list[pyarrow.Field[Any]] = [
    pyarrow.field("id", pyarrow.int64(), nullable=False),
    pyarrow.field("text", pyarrow.string()),
    pyarrow.field("flag", pyarrow.bool_()),
    pyarrow.field("n", pyarrow.int32()),
    pyarrow.field("ratio", pyarrow.float64()),
    pyarrow.field("raw", pyarrow.binary()),
    pyarrow.field("amount", pyarrow.decimal128(20, 4)),
    pyarrow.field("day", pyarrow.date32()),
    pyarrow.field("at", pyarrow.timestamp("us", "UTC")),
    pyarrow.field("tags", pyarrow.list_(pyarrow.string())),
    pyarrow.field("inner", pyarrow.struct([pyarrow.field("a", pyarrow.int64()), pyarrow.field("b", pyarrow.string())])),
]
COLUMNS = pyarrow.schema(_FIELDS)
_TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
_ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(-(2**63), 2**63 - 1),
            "text": st.none() | _TEXT,
            "flag": st.none() | st.booleans(),
            "n": st.none() | st.integers(-(2**31), 2**31 - 1),
            "ratio": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "raw": st.none() | st.binary(max_size=8),
            "amount": st.none() | st.decimals(-(10**15), 10**15, places=4),
            "day": st.none() | st.dates(),
            "at": st.none() | st.datetimes(timezones=st.just(datetime.timezone.utc)),
            "tags": st.none() | st.lists(st.none() | _TEXT, max_size=3),
            "inner": st.none() | st.fixed_dictionaries({"a": st.none() | st.integers(-9, 9), "b": st.none() | _TEXT}),
        }
    ),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture(scope="module")
def registry() -> SchemaRegistry:
    return SchemaRegistry()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=_ROWS)
def test_columns_sent_as_avro_come_back_the_same_here_and_elsewhere(
    cluster: Cluster, registry: SchemaRegistry, rows: list[dict[str, Any]]
) -> None:
    topic = f"rows-{uuid.uuid4()}"
    cluster.create_topic(topic)
    columns = pyarrow.Table.from_pylist(rows, COLUMNS)
    format = gristmill.Avro(registry.url)
    with gristmill.Producer(cluster.bootstrap_servers, linger=0) as producer:
        producer.send_arrow(topic, columns, format=format, register=True, key="text")
        # By the subject's latest schema, now that there is one.
        producer.send_arrow(topic, columns, format=format)
    frame = gristmill.read(topic, bootstrap_servers=cluster.bootstrap_servers, format=format)
    assert frame.objects() == rows * 2
    schema = gristmill.Registry(registry.url).latest(f"{topic}-value")
    values = gristmill.read(topic, bootstrap_servers=cluster.bootstrap_servers).objects()
    for value, row in zip(values, rows):
        assert value["value"][:5] == b"\0" + schema.id.to_bytes(4, "big")
        read = fastavro.schemaless_reader(io.BytesIO(value["value"][5:]), json.loads(schema.text), None)
        assert read == row
    keys = frame.to_arrow()["_kafka_key"].to_pylist()[: len(rows)]
    assert keys == [None if row["text"] is None else row["text"].encode() for row in rows]


def test_columns_sent_as_json_come_back_the_same(kafka: Cluster) -> None:
    kafka.create_topic("orders")
    columns = pyarrow.table({"id": [1, 2], "text": ["a\nb", None], "amount": pyarrow.array([1, None], pyarrow.decimal128(20, 4))})
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        report = producer.send_arrow("orders", columns, key="id", headers={"a": "b"}, partition=0)
        assert report.delivered == 2
    fields = {"id": "int64", "text": "string", "amount": "decimal(20,4)"}
    frame = gristmill.read("orders", bootstrap_servers=kafka.bootstrap_servers, format=gristmill.Json(fields))
    assert frame.objects() == columns.to_pylist()
    assert frame.to_arrow()["_kafka_key"].to_pylist() == [b"1", b"2"]
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        # Of a frame, only what the record was.
        kafka.create_topic("copy")
        producer.send_arrow("copy", frame)
    copied = gristmill.read("copy", bootstrap_servers=kafka.bootstrap_servers).objects()
    assert json.loads(copied[0]["value"]) == {"id": 1, "text": "a\nb", "amount": "1.0000"}


def test_what_does_not_fit_is_said(kafka: Cluster, schema_registry: SchemaRegistry) -> None:
    registry = gristmill.Registry(schema_registry.url)
    format = gristmill.Avro(registry)
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        with pytest.raises(gristmill.NotFoundError, match="orders-value"):
            producer.send_arrow("orders", pyarrow.table({"id": [1]}), format=format)
        registry.register("orders-value", Model)
        with pytest.raises(gristmill.InvalidArgumentError, match="the column `other` has no field"):
            producer.send_arrow("orders", pyarrow.table({"id": [1], "other": [1]}), format=format)
        with pytest.raises(gristmill.InvalidArgumentError, match="total"):
            producer.send_arrow("orders", pyarrow.table({"id": [1]}), format=format)
        with pytest.raises(gristmill.InvalidArgumentError, match="no column `nobody`; there are id"):
            producer.send_arrow("orders", pyarrow.table({"id": [1]}), key="nobody")
        with pytest.raises(TypeError, match="Arrow columns, not list"):
            producer.send_arrow("orders", [1])
