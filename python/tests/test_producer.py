"""Writing records: one report, with what failed by its index."""

from __future__ import annotations

import pytest
from conftest import Kafka

import gristmill
from gristmill.testing import Cluster


def test_records_arrive_in_order_with_their_headers(broker: Kafka) -> None:
    topic = broker.topic("orders")
    with gristmill.Producer(broker.bootstrap_servers, compression="zstd") as producer:
        report = producer.send_many(
            topic,
            [b"%d" % n for n in range(2000)],
            keys=[f"key-{n}" for n in range(2000)],
            headers=[{"n": str(n)} for n in range(2000)],
        )
        assert (len(report), report.delivered, report.failed, report.errors) == (2000, 2000, 0, {})
        assert report[1999] == gristmill.Delivered(0, 1999)
        assert report[-1].offset == 1999
        assert producer.send(topic, b"last", headers=[("a", None)]) == (0, 2000)
        producer.flush()
        assert producer.buffered == 0
    with gristmill.Consumer(topic, group_id=topic, bootstrap_servers=broker.bootstrap_servers) as consumer:
        for n, record in enumerate(consumer.records()):
            if n == 2000:
                assert record.headers == [("a", None)]
                break
            assert (record.key, record.value) == (f"key-{n}".encode(), b"%d" % n)
            assert record.headers == [("n", str(n).encode())]


def test_one_that_fails_does_not_hide_the_others(broker: Kafka) -> None:
    topic = broker.topic("orders")
    with gristmill.Producer(broker.bootstrap_servers, properties={"message.max.bytes": "2000"}) as producer:
        values = [b"small", b"x" * 10_000, b"small too"]
        with pytest.raises(gristmill.SendError, match="1 of 3 records .* record 1: ") as raised:
            producer.send_many(topic, values)
        report = raised.value.report
        assert (report.delivered, report.failed) == (2, 1)
        assert isinstance(report.errors[1], gristmill.TooLargeError)
        with pytest.raises(gristmill.TooLargeError):
            report[1]
        again = producer.send_many(topic, values, raise_errors=False)
        assert list(again.errors) == [1]
        with pytest.raises(gristmill.TooLargeError):
            producer.send(topic, b"x" * 10_000)


def test_a_partition_that_does_not_exist_is_named(broker: Kafka) -> None:
    topic = broker.topic("orders")
    with gristmill.Producer(broker.bootstrap_servers) as producer:
        with pytest.raises(gristmill.GristmillError) as raised:
            producer.send(topic, b"x", partition=7)
    assert raised.value.topic == topic


def test_mistakes_say_what_is_right(kafka: Cluster) -> None:
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        with pytest.raises(TypeError, match="not dict; encode it"):
            producer.send("orders", {"id": 1})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="2 values, 1 keys"):
            producer.send_many("orders", [b"a", b"b"], keys=[b"k"])
        with pytest.raises(TypeError, match="send\\(\\) takes one record"):
            producer.send_many("orders", "hello")
        with pytest.raises(TypeError, match="pairs of a name and a value"):
            producer.send("orders", b"x", headers=[["a", "b"]])  # type: ignore[list-item]
        with pytest.raises(gristmill.InvalidArgumentError, match="timestamp_ms: -5"):
            producer.send("orders", b"x", timestamp_ms=-5)
    with pytest.raises(gristmill.ClosedError):
        producer.send("orders", b"late")
    producer.close()
    with pytest.raises(gristmill.InvalidConfigError, match="none, lz4, zstd"):
        gristmill.Producer(kafka.bootstrap_servers, compression="brotli")  # type: ignore[arg-type]
    with pytest.raises(gristmill.InvalidArgumentError, match="-1"):
        gristmill.Producer(kafka.bootstrap_servers, linger=-1)


@pytest.mark.parametrize("value", [b"x", "x", bytearray(b"x"), memoryview(b"x")])
def test_bytes_come_in_many_forms(kafka: Cluster, value: bytes) -> None:
    kafka.create_topic("forms")
    with gristmill.Producer(kafka.bootstrap_servers) as producer:
        producer.send("forms", value, key=value)
    assert gristmill.read("forms", bootstrap_servers=kafka.bootstrap_servers).objects() == [{"value": b"x"}]
