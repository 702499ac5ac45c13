"""The guide's snippets and the notebook."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pydantic
import pytest

import gristmill
from gristmill.testing import Cluster, SchemaRegistry

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "python.md").read_text()
SNIPPETS = re.findall(r"```python here\n(.*?)```", GUIDE, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.splitlines()[0][:40])
def test_every_snippet_of_the_guide_runs(kafka: Cluster, schema_registry: SchemaRegistry, snippet: str) -> None:
    import pyarrow

    kafka.create_topic("orders")
    kafka.create_topic("orders.dead")
    handled: list[Any] = []

    async def ahandle(what: Any) -> None:
        handled.append(what)

    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        if "Avro(" in snippet:
            format = gristmill.Avro(schema_registry.url)
            producer.send_arrow("orders", pyarrow.table({"id": [1, 2]}), format=format, register=True)
        else:
            producer.send_many("orders", [b'{"id": 1}', b"{"])
    program = snippet.replace("localhost:9092", kafka.bootstrap_servers).replace("http://localhost:8081", schema_registry.url)
    exec(  # noqa: S102
        compile(program, "docs/python.md", "exec"),
        {"gristmill": gristmill, "pydantic": pydantic, "asyncio": asyncio, "handle": handled.append, "ahandle": ahandle},
    )
    assert handled or "handle" not in snippet


def test_the_notebook_runs() -> None:
    path = ROOT / "examples" / "notebooks" / "first_steps.ipynb"
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    client = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": path.parent}})
    client.execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in shown if output.output_type == "error"]
    assert any("3000 delivered" in str(output.get("data", "")) for output in shown)
