from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Keep:
    """The row goes on, with these values of the computed columns. A dict alone means the same, to the output ``main``: where
    it was going, if an earlier transform sent it elsewhere."""

    values: Mapping[str, Any] = field(default_factory=dict)
    output: str | None = None
    """The output; by default where the row was going anyhow."""
    more: Sequence[Keep] = ()
    """Rows that go on besides, with the other columns of this row."""


@dataclass(frozen=True)
class Drop:
    """The row is left out; rows may go on in its place."""

    more: Sequence[Keep] = ()


DROP = Drop()
"""The row is left out."""


class Reject(Exception):
    """Raise or return it: the row becomes a dead letter.

    ``code`` is for machines, up to 64 visible ASCII characters; ``message`` for people, up to 4,096 bytes.
    """

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code, message)
        self.code = str(code)
        self.message = str(message)
