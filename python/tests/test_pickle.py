"""What is decoded, read or reported goes to other processes."""

from __future__ import annotations

import multiprocessing
import operator
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow
import pytest

import gristmill
from gristmill.errors import _BY_KIND
from gristmill.testing import Cluster

TYPED = Path(__file__).parents[2] / "examples" / "transforms" / "prebuilt" / "typed-orders.wasm"
FORMAT = gristmill.Json(
    {"id": "int64 not null", "total": "decimal(9,2)", "at": "timestamp_ms", "tags": "list<string>", "of": {"a": "bool"}}
)


def filled(kafka: Cluster) -> gristmill.Report:
    kafka.create_topic("orders")
    values = [
        '{"id": 1, "total": "12.50", "at": "2026-11-29T10:00:00Z", "tags": ["a", null], "of": {"a": true}}',
        '{"id": "x"}',
        '{"id": 2}',
    ]
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        return producer.send_many("orders", values, keys=[b"k"] * 3, headers=[("h", b"1"), ("h", None)])


def test_frames(kafka: Cluster) -> None:
    filled(kafka)
    frame = gristmill.read(
        "orders", bootstrap_servers=kafka.bootstrap_servers, format=FORMAT, undecodable="keep"
    )
    assert len(frame) == 2
    again = pickle.loads(pickle.dumps(frame))
    assert again.to_arrow().equals(frame.to_arrow(), check_metadata=True)
    assert again.objects() == frame.objects() and again.to_pylist() == frame.to_pylist()
    assert repr(again) == repr(frame) and repr(again.undecodable) == repr(frame.undecodable)
    assert again.undecodable[0].row == frame.undecodable[0].row
    empty = pickle.loads(pickle.dumps(gristmill.read("orders", start="1h", end="1h", bootstrap_servers=kafka.bootstrap_servers)))
    assert len(empty) == 0
    lib = frame._lib
    with pytest.raises(gristmill.InvalidArgumentError, match="this is no frame"):
        type(lib).from_ipc(b"nonsense", 1, [])


def test_records(kafka: Cluster) -> None:
    filled(kafka)
    with gristmill.Consumer("orders", group_id="g", bootstrap_servers=kafka.bootstrap_servers) as consumer:
        batch = consumer.next_batch(timeout=30)
        assert batch is not None
        for record in batch:
            again = pickle.loads(pickle.dumps(record))
            for name in ("topic", "partition", "row", "offset", "timestamp_ms", "key", "value", "headers"):
                assert getattr(again, name) == getattr(record, name), name
            assert repr(again) == repr(record)
        # A verdict is the consumer's to give, and no other process has it.
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(batch)


def test_reports_and_errors(kafka: Cluster) -> None:
    report = filled(kafka)
    assert list(map(pickle.loads(pickle.dumps(report)).__getitem__, range(3))) == [report[0], report[1], report[2]]
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        with pytest.raises(gristmill.SendError) as raised:
            producer.send_many("orders", [b"fine", b"x" * 2_000_000])
    error = pickle.loads(pickle.dumps(raised.value))
    assert str(error) == str(raised.value) and error.retryable == raised.value.retryable
    assert error.report[0] == raised.value.report[0] and repr(error.report) == "<Report: 1 delivered, 1 failed>"
    with pytest.raises(gristmill.TooLargeError):
        error.report[1]
    with pytest.raises(gristmill.SendError):
        error.report.raise_for_errors()


@pytest.mark.parametrize("kind", sorted(set(_BY_KIND) - {"send"}))
def test_each_error(kind: str) -> None:
    error = _BY_KIND[kind]("why", retryable=True, topic="t", partition=1, offset=2, subject="s", field="f")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == "why"
    assert vars(again) == vars(error)


def test_processes_that_are_spawned(kafka: Cluster) -> None:
    filled(kafka)
    frame = gristmill.read("orders", bootstrap_servers=kafka.bootstrap_servers)
    with gristmill.Consumer("orders", group_id="g", bootstrap_servers=kafka.bootstrap_servers) as consumer:
        batch = consumer.next_batch(timeout=30)
        assert batch is not None
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            assert list(pool.map(len, [frame, frame])) == [3, 3]
            assert list(pool.map(operator.attrgetter("offset"), batch)) == [0, 1, 2]


def test_a_frame_that_is_part_of_a_large_one() -> None:
    """Columns that a transform does not touch are passed on in parts, which share their buffers."""
    order = {"order_id": "o", "customer": {"name": "Ada", "email": "ada@example.org", "card": "4111"}, "amount_cents": 5}
    table = pyarrow.Table.from_pylist([{**order, "created_at": "now"}] * 50_000)
    made = gristmill.Transform(TYPED, config={"high_value_cents": 100_000}).apply(table)
    assert isinstance(made, gristmill.TransformedColumns)
    frame = made.frame
    assert len(frame) == 50_000
    assert frame.nbytes < 10 * table.nbytes
    assert len(pickle.dumps(frame)) < 10 * table.nbytes
    assert pickle.loads(pickle.dumps(frame)).to_arrow().equals(frame.to_arrow())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_each_protocol(kafka: Cluster, protocol: int) -> None:
    filled(kafka)
    frame = gristmill.read("orders", bootstrap_servers=kafka.bootstrap_servers, format=FORMAT, undecodable="keep")
    again = pickle.loads(pickle.dumps(frame, protocol))
    assert again.objects() == frame.objects() and repr(again.undecodable) == repr(frame.undecodable)
