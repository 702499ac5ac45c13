"""Pipeline files from Python: the same exactly-once run as the command's."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pyarrow.parquet
import pytest
from conftest import Kafka

import gristmill

FILE = """
name: orders
source: {{kafka: {{bootstrap_servers: "{servers}", topics: [{topic}]}}}}
decode: {{format: json, fields: {{id: int64 not null}}}}
sink: {{files: {{folder: rows, rotate: {{age: 300ms}}}}}}
dead_letters: {{folder: dead_letters}}
"""


def pipeline_file(folder: Path, broker: Kafka, topic: str) -> Path:
    path = folder / "orders.yaml"
    path.write_text(FILE.format(servers=broker.bootstrap_servers, topic=topic))
    return path


def ids(folder: Path) -> list[int]:
    files = [path for path in (folder / "rows").rglob("*.parquet") if "_gristmill" not in path.parts]
    tables = [pyarrow.parquet.read_table(path, partitioning=None) for path in files]
    return sorted(n for table in tables for n in table["id"].to_pylist() if n is not None)


def fill(broker: Kafka, topic: str, first: int, count: int) -> None:
    broker.fill(topic, [json.dumps({"id": n}).encode() for n in range(first, first + count)])


def test_it_runs_until_it_is_stopped_and_goes_on_where_it_was(broker: Kafka, tmp_path: Path) -> None:
    topic = broker.topic("orders", 2)
    fill(broker, topic, 0, 2000)
    path = pipeline_file(tmp_path, broker, topic)
    for round in range(2):
        pipeline = gristmill.Pipeline.from_file(path)
        assert pipeline.status is None

        def watch() -> None:
            while (status := pipeline.status) is None or status.rows_written < 2000:
                time.sleep(0.02)
            pipeline.stop()

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert pipeline.run(progress=True)
        watcher.join()
        assert pipeline.status is not None and pipeline.status.records_in == 2000
        assert ids(tmp_path) == list(range(2000 * (round + 1)))
        fill(broker, topic, 2000, 2000)


def test_ctrl_c_finishes_what_is_open(broker: Kafka, tmp_path: Path) -> None:
    topic = broker.topic("orders")
    fill(broker, topic, 0, 500)
    path = pipeline_file(tmp_path, broker, topic)
    path.write_text(path.read_text().replace("300ms", "1h"))
    program = """
        import sys, threading, time, gristmill
        pipeline = gristmill.Pipeline.from_file(sys.argv[1])
        def told():
            while (status := pipeline.status) is None or status.records_in < 500:
                time.sleep(0.02)
            time.sleep(0.5)
            print("read", flush=True)
        threading.Thread(target=told, daemon=True).start()
        try:
            pipeline.run()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(path)], stdout=subprocess.PIPE, text=True, cwd=tempfile.gettempdir()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "read\n"
    assert ids(tmp_path) == [], "it is open for an hour"
    process.send_signal(2)
    assert process.communicate(timeout=60)[0] == "interrupted\n"
    assert ids(tmp_path) == list(range(500))


async def test_it_runs_under_asyncio(broker: Kafka, tmp_path: Path) -> None:
    topic = broker.topic("orders")
    fill(broker, topic, 0, 100)
    pipeline = gristmill.Pipeline.from_file(pipeline_file(tmp_path, broker, topic))
    running = asyncio.create_task(pipeline.arun())
    while (status := pipeline.status) is None or status.checkpoints == 0:
        await asyncio.sleep(0.02)
    pipeline.stop()
    assert await running
    assert ids(tmp_path) == list(range(100))


def test_mistakes_are_told_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("name: orders\nsurce: {}\n")
    with pytest.raises(gristmill.InvalidConfigError, match="wrong.yaml:2") as raised:
        gristmill.Pipeline.from_file(path)
    assert "source" in str(raised.value)
    with pytest.raises(gristmill.InvalidConfigError, match="nowhere.yaml"):
        gristmill.Pipeline.from_file(tmp_path / "nowhere.yaml")
