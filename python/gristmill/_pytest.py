"""The pytest plugin: an embedded Kafka and an embedded Schema Registry as fixtures."""

from __future__ import annotations

import pytest

from gristmill.testing import Cluster, SchemaRegistry


@pytest.fixture
def kafka() -> Cluster:
    """An embedded Kafka of one broker, for this test alone."""
    return Cluster()


@pytest.fixture
def schema_registry() -> SchemaRegistry:
    """An embedded Schema Registry, for this test alone."""
    return SchemaRegistry()
