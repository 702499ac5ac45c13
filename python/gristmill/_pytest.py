"""The pytest plugin: an embedded Kafka, an embedded Schema Registry, transforms and golden files as fixtures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gristmill.testing import Cluster, SchemaRegistry
    from gristmill.transforms import Transform


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gristmill")
    group.addoption("--update-golden", action="store_true", help="write the files that `gristmill_golden` compares with")


@pytest.fixture
def gristmill_kafka() -> Cluster:
    """An embedded Kafka of one broker, for this test alone."""
    from gristmill.testing import Cluster

    return Cluster()


@pytest.fixture
def gristmill_registry() -> SchemaRegistry:
    """An embedded Schema Registry, for this test alone."""
    from gristmill.testing import SchemaRegistry

    return SchemaRegistry()


@pytest.fixture(scope="session")
def gristmill_transform() -> Callable[..., Transform]:
    """Makes transforms: ``gristmill_transform("mask.wasm", mask="***")``, the configuration as keywords. A path is one from where pytest
    was started."""
    from gristmill.transforms import Transform

    return lambda component, **config: Transform(component, config=config)


@pytest.fixture
def gristmill_golden(request: pytest.FixtureRequest) -> Callable[[str, Any], None]:
    """Compares with a file in the folder ``golden`` beside the test: ``gristmill_golden("orders.json", result)``. What is compared is
    written as JSON; bytes are text where they are UTF-8. ``pytest --update-golden`` writes the files."""
    folder = Path(request.path).parent / "golden"

    def compare(name: str, what: Any) -> None:
        text = json.dumps(what, indent=2, ensure_ascii=False, default=_plain) + "\n"
        path = folder / name
        if request.config.getoption("--update-golden"):
            folder.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        if not path.exists():
            pytest.fail(f"{path} is not there; pytest --update-golden writes it")
        assert text == path.read_text(encoding="utf-8"), f"{name} differs; pytest --update-golden takes what is there now"

    return compare


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"hex": value.hex()}
    for name in ("model_dump", "_asdict"):
        if hasattr(value, name):
            return getattr(value, name)()
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    return str(value)
