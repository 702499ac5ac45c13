"""confluent-kafka's configuration as arguments of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gristmill.errors import InvalidConfigError

_ALWAYS = (
    "offsets are committed by themselves, but only of batches that were acknowledged: call batch.ack()",
    "records come in batches, so poll() is `for batch in consumer` (or `for record in consumer.records()`)",
    "a slow handler is not expelled from the group: max.poll.interval.ms has no meaning",
)

_GONE = {
    "enable.auto.commit": "the offset passes a record when it has its verdict, whatever was set",
    "enable.auto.offset.store": "the offset passes a record when it has its verdict, whatever was set",
    "auto.commit.interval.ms": "commits follow acknowledgements by themselves, every 500 ms at most",
    "max.poll.interval.ms": "a slow handler is not expelled from the group",
    "enable.partition.eof": "the end of a partition is not told: batches stop coming",
    "queued.min.messages": "memory_budget bounds what is prefetched",
    "queued.max.messages.kbytes": "memory_budget bounds what is prefetched",
    "fetch.message.max.bytes": "memory_budget bounds what is prefetched",
    "max.partition.fetch.bytes": "memory_budget bounds what is prefetched",
    "fetch.queue.backoff.ms": "there is no pause to set: partitions are fetched on as batches are taken",
    "on_commit": "callbacks are not called; commits that fail are logged",
    "error_cb": "callbacks are not called; errors that need a person are raised, others logged",
    "stats_cb": "callbacks are not called",
    "throttle_cb": "callbacks are not called",
    "log_cb": "callbacks are not called; librdkafka's lines go to the logger `gristmill`",
    "logger": "librdkafka's lines go to the logger `gristmill`",
}

_START = {
    "smallest": "earliest",
    "earliest": "earliest",
    "beginning": "earliest",
    "largest": "latest",
    "latest": "latest",
    "end": "latest",
    "error": "committed",
    "none": "committed",
}


def arguments(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Keywords of :class:`Consumer`, and what is done differently."""
    left = {name: value for name, value in config.items() if value is not None}
    differences = list(_ALWAYS)
    keywords: dict[str, Any] = {
        "bootstrap_servers": _take(left, "bootstrap.servers", "metadata.broker.list"),
        "group_id": _take(left, "group.id"),
    }
    reset = str(left.pop("auto.offset.reset", "largest")).lower()
    if reset not in _START:
        raise InvalidConfigError(f"auto.offset.reset: {reset!r} is not one of {', '.join(_START)}")
    keywords["start"] = _START[reset]
    if keywords["start"] != "committed":
        differences.append(
            f"auto.offset.reset={reset} counts at the group's first start only; an offset that was there and is gone is an error, "
            "not a jump over records"
        )
    if "isolation.level" in left:
        keywords["isolation"] = left.pop("isolation.level")
    if "session.timeout.ms" in left:
        keywords["session_timeout"] = float(left.pop("session.timeout.ms")) / 1000
    if "client.id" in left:
        keywords["client_id"] = left.pop("client.id")
    if str(left.pop("group.protocol", "classic")) == "consumer":
        keywords["group_protocol"] = "consumer"
    strategy = left.pop("partition.assignment.strategy", None)
    if strategy is not None and keywords.get("group_protocol") != "consumer":
        if "cooperative-sticky" in str(strategy):
            keywords["group_protocol"] = "cooperative"
        else:
            keywords["group_protocol"] = "range"
            if strategy != "range":
                differences.append(f"partition.assignment.strategy={strategy}: members share partitions by range")
    elif strategy is None and "group_protocol" not in keywords:
        # What librdkafka's default can join: a group's members must agree.
        keywords["group_protocol"] = "range"
    for name, why in _GONE.items():
        if name in left:
            del left[name]
            differences.append(f"{name} is left out: {why}")
    if "default.topic.config" in left:
        raise InvalidConfigError("default.topic.config: write its properties beside the others, as librdkafka has it since 1.0")
    for name in [name for name, value in left.items() if callable(value)]:
        raise InvalidConfigError(f"{name}: a function cannot be taken over; tokens are given by librdkafka's sasl.oauthbearer.* properties")
    keywords["properties"] = left
    return keywords, differences


def _take(config: dict[str, Any], *names: str) -> str:
    for name in names:
        if name in config:
            return str(config.pop(name))
    raise InvalidConfigError(f"the configuration has no {names[0]}")
