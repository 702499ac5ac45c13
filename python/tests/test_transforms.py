"""Transforms: the components of the examples, as pipelines run them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars
import pyarrow
import pytest

import gristmill
from gristmill.testing import Cluster

PREBUILT = Path(__file__).parents[2] / "examples" / "transforms" / "prebuilt"
ORDERS = PREBUILT / "orders.wasm"
TYPED = PREBUILT / "typed-orders.wasm"
HIGH = {"high_value_cents": 100_000}


def order(n: int, **more: Any) -> dict[str, Any]:
    return {
        "order_id": f"o-{n}",
        "customer": {"name": "Ada", "email": "ada@example.org", "card": "4111"},
        "country": "DE",
        "currency": "EUR",
        "amount_cents": 100 * n,
        "created_at": "2026-11-22T10:00:00Z",
        **more,
    }


def table(rows: list[dict[str, Any]]) -> pyarrow.Table:
    return pyarrow.Table.from_pylist(rows)


def test_a_transform_of_records_keeps_drops_routes_and_rejects(kafka: Cluster) -> None:
    transform = gristmill.Transform(ORDERS, config={"mask": "***", "high_value_cents": 100_000})
    assert (transform.name, transform.kind) == ("orders", "records")
    assert "high_value" in transform.outputs and "mask" in transform.config_schema["properties"]
    values = [json.dumps(order(1)), json.dumps(order(2000)), "{", json.dumps(order(3, order_id="test-3"))]
    made = transform.apply(values)
    assert len(made.records) + len(made.rejects) + made.dropped == 4
    assert [(reject.row, bool(reject.message)) for reject in made.rejects] == [(2, True)]
    first = made.records[0]
    assert (first.row, first.sub, first.output) == (0, 0, "main")
    assert b"4111" not in (first.value or b"")
    assert [r.output for r in made.records if r.row == 1] == ["high_value"]
    assert made.values() == [record.value for record in made.records]
    kafka.create_topic("orders")
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        producer.send_many("orders", values, partition=0, headers={"trace": "1"}, keys=["a", "b", "c", "d"])
    with gristmill.Consumer("orders", group_id="g", bootstrap_servers=kafka.bootstrap_servers) as consumer:
        batch = consumer.next_batch()
        assert batch is not None
        again = transform.apply(batch)
        assert isinstance(again, gristmill.TransformedRecords)
        assert again.values() == made.values()
        assert (again.records[0].key, again.records[0].headers) == (b"a", [("trace", b"1")])
        assert again.records[0].timestamp_ms == batch[0].timestamp_ms


def test_a_transform_of_columns_takes_any_arrow_and_gives_it(kafka: Cluster) -> None:
    transform = gristmill.Transform(TYPED.read_bytes(), config=HIGH)
    assert transform.kind == "columns"
    rows = [order(n) for n in range(10_000)]
    rows[5000]["amount_cents"] = -1
    made = transform.apply(table(rows))
    assert isinstance(made, gristmill.TransformedColumns)
    assert len(made) == 9_999 and made.rows == [n for n in range(10_000) if n != 5000]
    assert [reject.row for reject in made.rejects] == [5000]
    assert set(made.outputs) <= set(transform.outputs)
    first = made.frame.objects()[0]
    assert first["order_id"] == "o-0" and "card" not in first["customer"]
    assert pyarrow.table(made).num_rows == 9_999
    frame = polars.DataFrame(rows[:10])
    assert len(transform.apply(frame)) == 10
    kafka.create_topic("orders")
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        producer.send_arrow("orders", table(rows[:100]), key="order_id")
    fields = {
        "order_id": "string not null",
        "customer": {"name": "string", "email": "string", "card": "string"},
        "amount_cents": "int64 not null",
        "created_at": "timestamp_ms",
    }
    read = gristmill.read("orders", bootstrap_servers=kafka.bootstrap_servers, format=gristmill.Json(fields))
    from_kafka = transform.apply(read)
    assert len(from_kafka) == 100


def test_mistakes_say_what_is_right(tmp_path: Path) -> None:
    with pytest.raises(gristmill.TransformError, match="nowhere.wasm"):
        gristmill.Transform("nowhere.wasm")
    with pytest.raises(gristmill.TransformError):
        gristmill.Transform(b"not a component")
    with pytest.raises(gristmill.InvalidConfigError, match="high_value_cents"):
        gristmill.Transform(ORDERS, config={"high_value_cents": "many"})
    records, columns = gristmill.Transform(ORDERS, config=HIGH), gristmill.Transform(TYPED, config=HIGH)
    with pytest.raises(TypeError, match="list of values or a batch, not to Table"):
        records.apply(table([order(1)]))
    with pytest.raises(TypeError, match="list of values or a batch, not to str"):
        records.apply("one")
    with pytest.raises(TypeError, match="Arrow table or a frame, not to list"):
        columns.apply([b"x"])
    with pytest.raises(gristmill.InvalidConfigError, match="amount_cents"):
        columns.apply(pyarrow.table({"other": [1]}))


def test_threads_share_a_transform(gristmill_transform: Callable[..., gristmill.Transform]) -> None:
    shared = gristmill_transform(TYPED, **HIGH)
    sizes: list[int] = []

    def work(n: int) -> None:
        rows = [order(i) for i in range(n)]
        for _ in range(10):
            sizes.append(len(shared.apply(table(rows))) - n)
            # Other columns, so that it is bound anew between the others' calls.
            sizes.append(len(shared.apply(table([{**row, "extra": 1} for row in rows]))) - n)

    threads = [threading.Thread(target=work, args=(n,)) for n in (1, 50, 5000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sizes) == 60 and set(sizes) == {0}


def test_limits_are_those_of_pipeline_files() -> None:
    values = [json.dumps(order(1, note="x" * 5_000)), json.dumps(order(2))]
    transform = gristmill.Transform(ORDERS, config=HIGH, limits={"output_bytes": "4KiB"})
    made = transform.apply(values)
    assert [(reject.row, reject.code) for reject in made.rejects] == [(0, "TRANSFORM_OUTPUT")]
    with pytest.raises(gristmill.InvalidConfigError, match="unknown field `memry`, expected one of `memory`"):
        gristmill.Transform(ORDERS, config=HIGH, limits={"memry": "16MiB"})
    with pytest.raises(gristmill.InvalidConfigError, match="16 potatoes"):
        gristmill.Transform(ORDERS, config=HIGH, limits={"memory": "16 potatoes"})


def test_the_plugin_compares_with_golden_files(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(f"""
        def test_orders(gristmill_transform, gristmill_golden):
            made = gristmill_transform({str(ORDERS)!r}, high_value_cents=5).apply(['{{"order_id": "o-1"}}', '{{'])
            gristmill_golden("orders.json", {{"values": made.values(), "rejects": [(r.row, r.code) for r in made.rejects]}})
    """)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(failed=1)
    pytester.runpytest_subprocess("--update-golden", "-p", "no:cacheprovider").assert_outcomes(passed=1)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
    golden = pytester.path / "golden" / "orders.json"
    golden.write_text(golden.read_text().replace("row", "column").replace("1", "2"))
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(failed=1)
