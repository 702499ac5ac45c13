"""Stand-ins for tests, in this process: nothing to install, nothing to start.

The pytest plugin that comes with the package has them as fixtures: ``gristmill_kafka`` and ``gristmill_registry``.
"""

from __future__ import annotations

from gristmill import _lib


class Cluster:
    """librdkafka's mock cluster: produce, consume, groups and transactions, in memory. It is gone when it is collected.

    It shows that code works; guarantees under faults it does not show. It does not find offsets by time, so a ``read`` with
    a ``start`` that is one is empty.

    >>> from gristmill.testing import Cluster
    >>> kafka = Cluster()
    >>> kafka.create_topic("mine", partitions=3)
    >>> with gristmill.Producer(kafka.bootstrap_servers) as producer:
    ...     producer.send("mine", "hello", partition=2)
    Delivered(partition=2, offset=0)
    """

    def __init__(self, brokers: int = 1) -> None:
        self._lib = _lib.Cluster(brokers)

    @property
    def bootstrap_servers(self) -> str:
        """Where it listens, on loopback."""
        return self._lib.bootstrap_servers

    def create_topic(self, topic: str, partitions: int = 1) -> None:
        """Makes a topic."""
        self._lib.create_topic(topic, partitions)


class SchemaRegistry:
    """A Schema Registry in memory, with Confluent's REST interface.

    >>> from gristmill.testing import SchemaRegistry
    >>> server = SchemaRegistry()
    >>> gristmill.Registry(server.url).register("s", {"type": "record", "name": "R", "fields": []})
    1
    """

    def __init__(self) -> None:
        self._lib = _lib.TestRegistry()

    @property
    def url(self) -> str:
        """Where it listens, on loopback."""
        return self._lib.url
