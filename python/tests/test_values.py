"""Values as Python's objects: the same as pyarrow makes of the same columns."""

from __future__ import annotations

import json
import math
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gristmill
from gristmill.testing import Cluster

FIELDS = {
    "flag": "bool",
    "i8": "int8",
    "i64": "int64",
    "u64": "uint64",
    "f32": "float32",
    "f64": "float64",
    "text": "string",
    "amount": "decimal(20, 4)",
    "big": "decimal(38, 10)",
    "day": "date",
    "at": "timestamp_us",
    "milli": "timestamp_ms",
    "tags": "list<string>",
    "marks": "map<int64>",
    "inner": {"a": "int32", "b": ["int64"]},
}

_NULLABLE: Any = lambda of: st.none() | of  # noqa: E731
_DAYS = st.dates().map(str)
_TIMES = st.datetimes().map(lambda at: at.isoformat(timespec="microseconds") + "Z")
_MILLIS = st.datetimes().map(lambda at: at.isoformat(timespec="milliseconds") + "Z")
ROWS = st.fixed_dictionaries(
    {
        "flag": _NULLABLE(st.booleans()),
        "i8": _NULLABLE(st.integers(-128, 127)),
        "i64": _NULLABLE(st.integers(-(2**63), 2**63 - 1)),
        "u64": _NULLABLE(st.integers(0, 2**64 - 1)),
        "f32": _NULLABLE(st.floats(width=32, allow_nan=False, allow_infinity=False)),
        "f64": _NULLABLE(st.floats(allow_nan=False, allow_infinity=False)),
        "text": _NULLABLE(st.text(st.characters(codec="utf-8"))),
        "amount": _NULLABLE(st.decimals(-(10**15), 10**15, places=4).map(str)),
        "big": _NULLABLE(st.decimals(-(10**27), 10**27, places=10).map(lambda d: format(d, "f"))),
        "day": _NULLABLE(_DAYS),
        "at": _NULLABLE(_TIMES),
        "milli": _NULLABLE(_MILLIS),
        "tags": _NULLABLE(st.lists(_NULLABLE(st.text(st.characters(codec="utf-8"), max_size=5)), max_size=3)),
        "marks": _NULLABLE(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), st.integers(0, 9), max_size=3)),
        "inner": _NULLABLE(
            st.fixed_dictionaries({"a": _NULLABLE(st.integers(-(2**31), 2**31 - 1)), "b": _NULLABLE(st.lists(st.integers(0, 9)))})
        ),
    }
)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return Cluster()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROWS, min_size=1, max_size=8))
def test_objects_are_what_pyarrow_makes_of_the_columns(cluster: Cluster, rows: list[dict[str, Any]]) -> None:
    topic = f"rows-{uuid.uuid4()}"
    cluster.create_topic(topic)
    with gristmill.Producer(cluster.bootstrap_servers, linger=0) as producer:
        producer.send_many(topic, [json.dumps(row) for row in rows])
    frame = gristmill.read(topic, bootstrap_servers=cluster.bootstrap_servers, format=gristmill.Json(FIELDS))
    table = frame.to_arrow().select(list(FIELDS))
    # Maps are dicts here, pairs there.
    assert frame.objects() == table.to_pylist(maps_as_pydicts="strict")
    for row, made in zip(rows, frame.objects()):
        for name in ["flag", "i8", "i64", "u64", "f64", "text", "tags", "marks", "inner"]:
            assert made[name] == row[name]
        assert row["f32"] is None or math.isclose(made["f32"], row["f32"], rel_tol=1e-6)
        assert row["big"] is None or format(made["big"], "f") == row["big"]


def test_nanoseconds_are_not_cut_off_in_silence(kafka: Cluster) -> None:
    kafka.create_topic("times")
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        producer.send("times", '{"at": "2026-01-01T00:00:00.123456789Z"}')
    format = gristmill.Json({"at": "timestamp_ns"})
    frame = gristmill.read("times", bootstrap_servers=kafka.bootstrap_servers, format=format)
    with pytest.raises(gristmill.DecodeError, match="field at: .*nanoseconds") as raised:
        frame.objects()
    assert raised.value.field == "at"
    assert frame.to_arrow()["at"].type.unit == "ns"
