"""A member of a group: what is acknowledged is passed, everything else comes again."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass

import pydantic
import pytest
from conftest import Kafka

import gristmill
from gristmill.testing import Cluster, SchemaRegistry


def consumer(broker: Kafka | Cluster, topic: str, **more: object) -> gristmill.Consumer:
    settings = {"group_id": f"group-of-{topic}", "bootstrap_servers": broker.bootstrap_servers, **more}
    return gristmill.Consumer(topic, **settings)  # type: ignore[arg-type]


def take(consumer: gristmill.Consumer, records: int) -> list[bytes | None]:
    values: list[bytes | None] = []
    while len(values) < records:
        batch = consumer.next_batch()
        assert batch is not None
        values += batch.values()
        assert batch.ack()
    return values


def test_what_is_acknowledged_is_committed_and_does_not_come_again(broker: Kafka) -> None:
    topic = broker.topic("orders", 2)
    values = [b"%d" % n for n in range(3000)]
    broker.fill(topic, values)
    with consumer(broker, topic) as first:
        assert sorted(v for v in take(first, 3000) if v) == sorted(values)
    assert sum(broker.committed(f"group-of-{topic}", topic).values()) == 3000
    broker.fill(topic, [b"later"])
    with consumer(broker, topic) as second:
        assert take(second, 1) == [b"later"]


def test_a_batch_that_is_given_back_comes_again_though_nothing_else_does(kafka: Cluster) -> None:
    kafka.create_topic("orders")
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        producer.send("orders", b"only")
    with consumer(kafka, "orders") as first:
        deliveries = 0
        for batch in first:
            deliveries = batch.times_delivered
            if deliveries == 3:
                assert batch.ack()
                break
            batch.nack()
            with pytest.raises(gristmill.ClosedError, match="nack"):
                batch.ack()
            if deliveries == 2:
                continue
            # Without nack, the loop's variable is the last reference.
            del batch
    assert deliveries == 3


def test_rows_are_numbers(kafka: Cluster) -> None:
    kafka.create_topic("orders")
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        producer.send_many("orders", [b"x"] * 4, partition=0)
    with consumer(kafka, "orders") as first:
        batch = first.next_batch()
        assert batch is not None
        for mask in [False, False, True], [True]:
            with pytest.raises(TypeError, match="not a mask"):
                batch.ack(mask)
        with pytest.raises(TypeError, match="without an argument"):
            batch.ack(None)  # type: ignore[call-overload]
        with pytest.raises(gristmill.InvalidArgumentError, match="no row -1"):
            batch.ack([-1])
        assert batch.rows_left == 4
        assert len(batch[1:3]) == 2
        with pytest.raises(IndexError):
            batch[-5]


def test_a_batch_without_a_verdict_is_delivered_again(broker: Kafka) -> None:
    topic = broker.topic("orders")
    broker.fill(topic, [b"%d" % n for n in range(10)])
    with consumer(broker, topic) as first:
        batch = first.next_batch()
        assert batch is not None and (len(batch), batch.times_delivered) == (10, 1)
        assert batch.ack([0, 1])
        assert batch.rows_left == 8
        del batch
        again = first.next_batch()
        assert again is not None and again.times_delivered == 2
        assert again.values() == [b"%d" % n for n in range(2, 10)]
    assert broker.committed(f"group-of-{topic}", topic) == {0: 2}
    with consumer(broker, topic) as second:
        assert take(second, 8) == [b"%d" % n for n in range(2, 10)]


def test_an_exception_in_the_handler_loses_nothing(broker: Kafka) -> None:
    topic = broker.topic("orders")
    broker.fill(topic, [b"%d" % n for n in range(10)])
    with pytest.raises(ZeroDivisionError), consumer(broker, topic) as first:
        for batch in first:
            1 / 0
    with consumer(broker, topic) as second:
        assert len(take(second, 10)) == 10


def test_records_show_what_came(broker: Kafka) -> None:
    topic = broker.topic("orders")
    with gristmill.Producer(broker.bootstrap_servers) as producer:
        headers = [("a", b"1"), ("a", None), ("b", "zwei")]
        producer.send(topic, b"value", key="key", headers=headers, timestamp_ms=1_700_000_000_000)
        producer.send(topic, None, key=b"")
    with consumer(broker, topic) as first:
        records = []
        for record in first.records():
            records.append(record)
            if len(records) == 2:
                break
    full, empty = records
    assert (full.topic, full.partition, full.offset, full.row) == (topic, 0, 0, 0)
    assert (full.key, full.value, full.timestamp_ms) == (b"key", b"value", 1_700_000_000_000)
    assert full.headers == [("a", b"1"), ("a", None), ("b", "zwei".encode())]
    assert (empty.key, empty.value, empty.headers) == (b"", None, [])
    assert "value 5 bytes" in repr(full)


def test_a_record_counts_as_done_when_the_next_is_asked_for(broker: Kafka) -> None:
    topic = broker.topic("orders")
    broker.fill(topic, [b"%d" % n for n in range(5)])
    with consumer(broker, topic) as first:
        for record in first.records():
            if record.offset == 3:
                break  # 3 was not done
        batch = first.next_batch()
        assert batch is not None
        assert batch.values() == [b"3", b"4"]


@dataclass
class Line:
    sku: str
    quantity: int


@dataclass
class Order:
    id: int
    lines: list[Line]
    note: str | None


class Model(pydantic.BaseModel):
    id: int
    lines: list[dict[str, object]]
    note: str | None


FIELDS = {
    "id": "int64 not null",
    "lines": [{"sku": "string", "quantity": "int32"}],
    "note": "string",
}


def test_rows_become_objects_of_dataclasses_and_pydantic_models(kafka: Cluster) -> None:
    kafka.create_topic("orders")
    rows = [{"id": n, "lines": [{"sku": "tea", "quantity": n}], "note": None} for n in range(3)]
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        producer.send_many("orders", [json.dumps(row) for row in rows])
    with consumer(kafka, "orders", format=gristmill.Json(FIELDS)) as first:
        batch = first.next_batch()
        assert batch is not None
        assert batch.objects() == rows
        assert batch.objects(Order) == [Order(n, [Line("tea", n)], None) for n in range(3)]
        assert batch.objects(Model) == [Model.model_validate(row) for row in rows]
        with pytest.raises(TypeError, match="dataclass"):
            batch.objects(int)
        assert batch.to_arrow().num_rows == 3
        assert batch.ack()


@dataclass
class Node:
    id: int
    child: Node | None = None


def test_a_dataclass_may_have_fewer_fields_and_contain_itself(kafka: Cluster) -> None:
    kafka.create_topic("nodes")
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        producer.send("nodes", '{"id": 1, "other": 2}')
    format = gristmill.Json({"id": "int64", "other": "int64"})
    frame = gristmill.read("nodes", bootstrap_servers=kafka.bootstrap_servers, format=format)
    assert frame.objects(Node) == [Node(1)]


def test_each_topic_has_its_own_columns(kafka: Cluster, schema_registry: SchemaRegistry) -> None:
    import pyarrow

    format = gristmill.Avro(schema_registry.url)
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        for topic, columns in [
            ("a", pyarrow.table({"id": [1], "note": ["x"]})),
            ("b", pyarrow.table({"id": [2], "amount": [777]})),
        ]:
            kafka.create_topic(topic)
            producer.send_arrow(topic, columns, format=format, register=True)
    seen = {}
    with gristmill.Consumer(["a", "b", "a"], group_id="g2", bootstrap_servers=kafka.bootstrap_servers, format=format) as both:
        for batch in both:
            seen[batch.topic] = batch.objects()
            assert batch.ack()
            if len(seen) == 2:
                break
    assert seen == {"a": [{"id": 1, "note": "x"}], "b": [{"id": 2, "amount": 777}]}


def test_a_value_that_python_cannot_hold_names_its_record(kafka: Cluster) -> None:
    kafka.create_topic("times")
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        producer.send_many("times", ['{"at": "2026-01-01T00:00:00Z"}', '{"at": "0000-01-01T00:00:00Z"}'], partition=0)
    with consumer(kafka, "times", format=gristmill.Json({"at": "timestamp_ms"})) as first:
        batch = first.next_batch()
        assert batch is not None and batch.undecodable == []
        with pytest.raises(gristmill.DecodeError, match="partition 0, offset 1: field at: .*years") as raised:
            batch.objects()
    assert (raised.value.partition, raised.value.offset, raised.value.field) == (0, 1, "at")


def test_a_column_named_as_kafkas_is_refused(kafka: Cluster) -> None:
    kafka.create_topic("orders")
    with pytest.raises(gristmill.InvalidConfigError, match="_kafka_offset"):
        gristmill.read("orders", bootstrap_servers=kafka.bootstrap_servers, format=gristmill.Json({"_kafka_offset": "int64"}))


def test_what_was_raised_is_what_leaves_with() -> None:
    def send(producer: gristmill.Producer) -> None:
        with pytest.raises(gristmill.GristmillError):
            producer.send("orders", b"x")

    with pytest.raises(ZeroDivisionError):
        with gristmill.Producer("127.0.0.1:1") as producer:
            threading.Thread(target=send, args=(producer,), daemon=True).start()
            while producer.buffered == 0:
                time.sleep(0.01)
            1 / 0


def test_records_that_were_done_are_committed_when_the_loop_is_left(broker: Kafka) -> None:
    topic = broker.topic("orders")
    broker.fill(topic, [b"%d" % n for n in range(100)])
    with consumer(broker, topic) as first:
        for record in first.records():
            if record.offset == 42:
                break
    assert broker.committed(f"group-of-{topic}", topic) == {0: 42}


def test_undecodable_rows_are_told_and_the_others_can_be_had(broker: Kafka) -> None:
    topic, dead = broker.topic("orders"), broker.topic("dead")
    broker.fill(topic, [b'{"id": 1}', b"{", b'{"id": 2}'])
    format = gristmill.Json({"id": "int64"})
    with consumer(broker, topic, format=format, dead_letter_topic=dead) as first:
        batch = first.next_batch()
        assert batch is not None
        with pytest.raises(gristmill.DecodeError, match="offset 1: .*batch.undecodable") as raised:
            batch.to_arrow()
        assert raised.value.offset == 1
        assert batch.reject([bad.row for bad in batch.undecodable], "cannot be read", code="UNREADABLE")
        others = batch.decodable()
        assert others.objects() == [{"id": 1}, {"id": 2}]
        assert [record.offset for record in others] == [0, 2]
        assert others.ack([1]) and batch.rows_left == 1
        assert others.ack() and batch.rows_left == 0
    letter = next(iter(gristmill.scan(dead, bootstrap_servers=broker.bootstrap_servers))).objects()
    assert letter == [{"value": b"{"}]
    with consumer(broker, dead) as letters:
        headers = dict(next(letters.records()).headers)
    assert headers["__connect.errors.topic"] == topic.encode()
    assert headers["__connect.errors.offset"] == b"1"
    assert headers["__connect.errors.exception.class.name"] == b"UNREADABLE"


def test_a_consumer_can_reject_what_does_not_decode_by_itself(broker: Kafka) -> None:
    topic, dead = broker.topic("orders"), broker.topic("dead")
    broker.fill(topic, [b'{"id": 1}', b"{", b'{"id": 2}'])
    format = gristmill.Json({"id": "int64"})
    with consumer(broker, topic, format=format, dead_letter_topic=dead, undecodable="reject") as first:
        batch = first.next_batch()
        assert batch is not None and batch.rows_left == 2
        assert batch.objects() == [{"id": 1}, {"id": 2}]
        assert batch.values() == [b'{"id": 1}', b'{"id": 2}']
        assert batch.reject([1], "I do not like 2")
        assert batch.ack()
    dead_letters = gristmill.read(dead, bootstrap_servers=broker.bootstrap_servers).objects()
    assert dead_letters == [{"value": b"{"}, {"value": b'{"id": 2}'}]
    assert broker.committed(f"group-of-{topic}", topic) == {0: 3}


def test_waits_end_with_their_timeout_and_with_close(kafka: Cluster) -> None:
    import threading

    kafka.create_topic("orders")
    first = consumer(kafka, "orders")
    assert first.next_batch(timeout=0.2) is None
    closer = threading.Timer(0.3, first.close)
    closer.start()
    assert list(first) == []
    closer.join()
    first.close()


def test_mistakes_say_what_is_right(kafka: Cluster) -> None:
    with pytest.raises(gristmill.InvalidConfigError, match="earliest, latest, committed"):
        consumer(kafka, "orders", start="beginning")
    with pytest.raises(gristmill.InvalidConfigError, match="dead_letter_topic"):
        consumer(kafka, "orders", undecodable="reject")
    with pytest.raises(gristmill.InvalidConfigError, match="enable.auto.commit"):
        consumer(kafka, "orders", properties={"enable.auto.commit": True})
    with consumer(kafka, "orders") as first:
        kafka.create_topic("full")
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        producer.send("full", b"x")
    with consumer(kafka, "full") as first:
        batch = first.next_batch()
        assert batch is not None
        with pytest.raises(gristmill.InvalidConfigError, match="no dead-letter topic"):
            batch.reject([0], "bad")
        with pytest.raises(gristmill.InvalidArgumentError, match="no row 7 in a batch of 1"):
            batch.ack([7])
        with pytest.raises(IndexError):
            batch[1]
        assert batch[-1].value == b"x"


def test_a_configuration_of_confluent_is_taken_and_its_differences_are_told(broker: Kafka) -> None:
    topic = broker.topic("orders")
    broker.fill(topic, [b"1"])
    config = {
        "bootstrap.servers": broker.bootstrap_servers,
        "group.id": f"group-of-{topic}",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "max.poll.interval.ms": 600000,
        "session.timeout.ms": 30000,
        "socket.keepalive.enable": True,
    }
    with gristmill.Consumer.from_confluent(config, [topic]) as first:
        assert take(first, 1) == [b"1"]
        told = "\n".join(first.differences)
    for word in ["batch.ack()", "max.poll.interval.ms", "enable.auto.commit", "auto.offset.reset=earliest"]:
        assert word in told
    with pytest.raises(gristmill.InvalidConfigError, match="no group.id"):
        gristmill.Consumer.from_confluent({"bootstrap.servers": "x"}, topic)
    with pytest.raises(gristmill.InvalidConfigError, match="oauth_cb"):
        gristmill.Consumer.from_confluent({**config, "oauth_cb": print}, topic)
