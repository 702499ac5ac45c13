"""How to reach Kafka."""

from __future__ import annotations

from collections.abc import Mapping


def kafka(bootstrap_servers: str, properties: Mapping[str, str] | None) -> tuple[str, dict[str, str]]:
    """As the Rust half takes it: librdkafka's properties are text."""
    return bootstrap_servers, {name: _text(value) for name, value in (properties or {}).items()}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
