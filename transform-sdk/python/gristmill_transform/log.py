"""Log lines of a transform. They count only if the batch is accepted, and their number is bounded.

Do not log values of records: logs are read by other people than the records.
"""

from __future__ import annotations

from collections.abc import Callable

_sink: Callable[[str, str], None] | None = None


def _say(level: str, message: str) -> None:
    if _sink is not None:
        _sink(level, str(message))


def trace(message: str) -> None:
    """Logs at this level."""
    _say("trace", message)


def debug(message: str) -> None:
    """Logs at this level."""
    _say("debug", message)


def info(message: str) -> None:
    """Logs at this level."""
    _say("info", message)


def warn(message: str) -> None:
    """Logs at this level."""
    _say("warn", message)


def error(message: str) -> None:
    """Logs at this level."""
    _say("error", message)
