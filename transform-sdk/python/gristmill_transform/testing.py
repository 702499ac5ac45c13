"""Runs a transform natively, without WebAssembly, for the tests of its author.

    harness = Harness(mask, config={})
    [answer] = harness.apply([{"customer.email": "ada@example.org", "test": None}])
    assert answer.values == {"customer.email": "***"}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import log, metrics
from ._transform import Transform


@dataclass
class Answer:
    """What became of a row."""

    verdict: str
    """``keep``, ``drop`` or ``reject``."""
    output: str = "main"
    values: dict[str, Any] = field(default_factory=dict)
    """The computed columns, as they cross: timestamps as numbers, decimals and what is nested as text."""
    code: str | None = None
    message: str | None = None
    more: list[Answer] = field(default_factory=list)
    """Rows that were emitted with it."""


class Harness:
    """A transform with a configuration."""

    def __init__(
        self, transform: Transform, config: Mapping[str, Any] | None = None, topic: str = "test", partition: int = 0
    ) -> None:
        self.transform = transform
        # Rows come as the function gets them: nothing is to be converted.
        self.plan = transform.bind(json.dumps(dict(config or {})), topic, partition, {})
        self.counters: dict[str, int] = {}
        self.observed: dict[str, list[float]] = {}
        self.logs: list[tuple[str, str]] = []

    def count(self, name: str, by: int) -> None:
        self.counters[name] = self.counters.get(name, 0) + by

    def observe(self, name: str, value: float) -> None:
        self.observed.setdefault(name, []).append(value)

    def apply(self, rows: Iterable[Mapping[str, Any]]) -> list[Answer]:
        """One answer for each row. A column that the row does not have is ``None``; one that is not read is refused."""
        rows = list(rows)
        paths = list(self.transform.reads)
        for row in rows:
            unknown = sorted(row.keys() - set(paths))
            if unknown:
                raise ValueError(f"the transform does not read {unknown[0]!r}; it reads {', '.join(paths)}")
        columns = [[row.get(path) for row in rows] for path in paths]
        log._sink = lambda level, message: self.logs.append((level, message))
        metrics._sink = self
        try:
            verdicts, computed = self.plan.apply(columns, len(rows))
        finally:
            log._sink = metrics._sink = None
        outputs = list(self.transform.numbers)
        left = iter(list(zip(*computed)) if computed else [()] * len(verdicts))
        answers: list[Answer] = []
        for verdict in verdicts:
            kind, *rest = (verdict,) if isinstance(verdict, str) else verdict
            if kind == "reject":
                answers.append(Answer("reject", code=rest[0], message=rest[1]))
            elif kind == "drop":
                answers.append(Answer("drop"))
            else:
                values = dict(zip(self.transform.writers, next(left)))
                answer = Answer("keep", outputs[rest[0]] if rest else "main", values)
                (answers[-1].more if kind == "emit" else answers).append(answer)
        return answers


__all__ = ["Answer", "Harness"]
