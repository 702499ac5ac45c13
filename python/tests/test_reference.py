"""The API reference: what docstrings say is run, and the pages are made."""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pdoc
import pytest

import gristmill
import gristmill.testing
from gristmill.testing import Cluster, SchemaRegistry

PREBUILT = Path(__file__).parents[2] / "examples" / "transforms" / "prebuilt"
PIPELINE = """
name: orders
source: {kafka: {bootstrap_servers: 'localhost:9092', topics: [orders]}}
decode: {format: json, fields: {id: int64, customer: string}}
sink: {files: {folder: rows}}
"""


def _public() -> dict[str, object]:
    of_testing = {name: getattr(gristmill.testing, name) for name in ("Cluster", "SchemaRegistry")}
    return {name: getattr(gristmill, name) for name in gristmill.__all__} | of_testing


def _examples() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name, of in _public().items():
        if inspect.isclass(of) or inspect.isfunction(of):
            yield from (found for found in finder.find(of, name, module=False) if found.examples)


EXAMPLES = list(_examples())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_examples_of_the_reference_run(
    example: doctest.DocTest,
    kafka: Cluster,
    schema_registry: SchemaRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for topic in "orders", "orders.dead", "payments":
        kafka.create_topic(topic)
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        values = ['{"id": 1, "customer": "Ada"}', '{"id": 2, "customer": "Grace"}', '{"id": 3, "customer": "Alan"}']
        producer.send_many("orders", values, keys=["a", "b", "c"])
    servers = {"http://localhost:8081": schema_registry.url, "localhost:9092": kafka.bootstrap_servers}

    def here(text: str) -> str:
        return re.sub("|".join(servers), lambda found: servers[found.group()], text)

    (tmp_path / "orders.yaml").write_text(here(PIPELINE))
    (tmp_path / "orders.wasm").write_bytes((PREBUILT / "orders.wasm").read_bytes())
    monkeypatch.chdir(tmp_path)
    for step in example.examples:
        step.source, step.want = here(step.source), here(step.want)
    example.globs = {"gristmill": gristmill}
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    result = runner.run(example, out=told.append)
    assert result.failed == 0 and result.attempted == len(example.examples), "".join(told)


def test_what_is_public_has_an_example() -> None:
    shown = {example.name.split(".")[0] for example in EXAMPLES}
    # What comes out of these, and is shown where they are.
    results = {"Compatibility", "Delivered", "Record", "Reference", "Rejected", "Schema", "Status", "TransformedRecord", "Undecodable"}
    results |= {"Digits", "TransformedColumns", "TransformedRecords"}
    errors = {name for name, of in _public().items() if inspect.isclass(of) and issubclass(of, gristmill.GristmillError)}
    without = set(_public()) - shown - results - errors - {"Format"}
    assert not without


def test_the_reference_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where no folder has the name of the package
    pdoc.render.configure(docformat="restructuredtext", show_source=False)
    pdoc.pdoc("gristmill", "gristmill.errors", "gristmill.testing", output_directory=tmp_path)
    page = (tmp_path / "gristmill.html").read_text()
    for name in gristmill.__all__:
        assert f'id="{name}"' in page, name
    # No role of reStructuredText is left as it is written.
    assert ":class:" not in page and ":func:" not in page and ":meth:" not in page
