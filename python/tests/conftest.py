"""What the tests share: a real Apache Kafka, and topics in it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest
import uvloop
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

import gristmill
from gristmill.testing import Cluster, SchemaRegistry

pytest_plugins = ["pytester"]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Each test of asyncio runs on both."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Kafka:
    """A real broker, and what tests do with it."""

    def __init__(self, servers: str) -> None:
        self.bootstrap_servers = servers
        self._admin = AdminClient({"bootstrap.servers": servers})

    def topic(self, stem: str = "topic", partitions: int = 1) -> str:
        name = f"{stem}-{uuid.uuid4().hex[:12]}"
        for done in self._admin.create_topics([NewTopic(name, partitions)]).values():
            done.result(30)
        return name

    def fill(self, topic: str, values: list[bytes], partition: int | None = None) -> None:
        with gristmill.Producer(self.bootstrap_servers) as producer:
            producer.send_many(topic, values, partition=partition)

    def committed(self, group: str, topic: str) -> dict[int, int]:
        from confluent_kafka import ConsumerGroupTopicPartitions

        asked = self._admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
        found = asked[group].result(30).topic_partitions
        return {at.partition: at.offset for at in found if at.topic == topic and at.offset >= 0}

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        from confluent_kafka import TopicPartition

        for done in self._admin.delete_records([TopicPartition(topic, partition, before)]).values():
            done.result(30)


@pytest.fixture
def kafka(gristmill_kafka: Cluster) -> Cluster:
    return gristmill_kafka


@pytest.fixture
def schema_registry(gristmill_registry: SchemaRegistry) -> SchemaRegistry:
    return gristmill_registry


def missing(what: str) -> NoReturn:
    """A skip for a developer, a failure where everything has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def broker() -> Iterator[Kafka]:
    program = os.environ.get("GRISTMILL_TEST_KAFKA")
    if not program:
        missing("GRISTMILL_TEST_KAFKA names no program that starts a Kafka; `make test` sets it")
    process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    try:
        servers = process.stdout.readline().strip()
        if not servers:
            missing("there is no Kafka here; the program has said why")
        yield Kafka(servers)
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()
