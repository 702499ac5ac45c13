"""Counters and histograms of a transform, by names that Prometheus takes. They count only if the batch is accepted."""

from __future__ import annotations

from typing import Protocol


class _Sink(Protocol):
    def count(self, name: str, by: int) -> None: ...

    def observe(self, name: str, value: float) -> None: ...


_sink: _Sink | None = None


def count(name: str, by: int = 1) -> None:
    """Adds to a counter."""
    if _sink is not None:
        _sink.count(name, by)


def observe(name: str, value: float) -> None:
    """Records a value in a histogram."""
    if _sink is not None:
        _sink.observe(name, value)
