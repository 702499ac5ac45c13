"""A bar on a terminal or in a notebook."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

_EVERY = 0.2


class Progress:
    """Shows how far something is. ``shown=None``: on a terminal and in a notebook."""

    def __init__(self, what: str, shown: bool | None) -> None:
        self._what = what
        self._notebook = _notebook()
        self._shown = shown if shown is not None else bool(self._notebook) or _is_terminal()
        self._last = time.monotonic()
        self._began = self._last
        self._drawn = False
        self._handle: Any = None

    def __enter__(self) -> Progress | None:
        return self if self._shown else None

    def show(self, text: str) -> None:
        """Shows a line in place of the one before."""
        self._draw(f"{self._what}: {text}")

    def update(self, progress: tuple[int, int]) -> None:
        """Shows how many are done, and of how many."""
        now = time.monotonic()
        if now - self._last < _EVERY:
            return
        self._last = now
        done, total = progress
        share = done / total if total else 1.0
        filled = int(share * 30)
        rate = done / max(now - self._began, 1e-9)
        bar = "█" * filled + "░" * (30 - filled)
        self._draw(f"{self._what} {bar} {share:4.0%} {done:,} of {total:,} offsets, {rate:,.0f}/s")

    def _draw(self, text: str) -> None:
        if self._notebook is None:
            sys.stderr.write("\r\x1b[K" + text)
            sys.stderr.flush()
        elif self._handle is None:
            self._handle = self._notebook({"text/plain": text}, raw=True, display_id=True)
        else:
            self._handle.update({"text/plain": text}, raw=True)
        self._drawn = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn and self._notebook is None:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        elif self._handle is not None:
            self._handle.update({"text/plain": ""}, raw=True)


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is none, or it was closed
        return False


def _notebook() -> Any:
    """IPython's display, in a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or type(shell).__name__ != "ZMQInteractiveShell":
        return None
    from IPython.display import display  # type: ignore[import-not-found, unused-ignore]

    return display
