"""Pipeline files, run from Python."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass

from gristmill import _lib
from gristmill._asyncio import call
from gristmill._progress import Progress


@dataclass(frozen=True)
class Status:
    """What a pipeline has done since it began to run here."""

    records_in: int
    bytes_in: int
    rows_written: int
    records_dropped: int
    dead_letters: int
    files: int
    file_bytes: int
    checkpoints: int
    partitions: int
    """How many this process reads now."""


class Pipeline:
    """A pipeline file, as ``gristmill run`` runs it: Kafka topics, through transforms, into files or tables, exactly once.

    ``gristmill.Pipeline.from_file("orders.yaml").run()`` runs until Ctrl-C; in a thread of its own, until :meth:`stop`:

    >>> import threading, time
    >>> pipeline = gristmill.Pipeline.from_file("orders.yaml", topic_ids=False)
    >>> running = threading.Thread(target=pipeline.run)
    >>> running.start()
    >>> while pipeline.status is None or pipeline.status.records_in < 3:
    ...     time.sleep(0.01)
    >>> pipeline.stop()
    >>> running.join()
    >>> pipeline.status.rows_written
    3

    More processes may run the same file; they share the partitions.
    """

    def __init__(self, pipeline: _lib.Pipeline, path: str) -> None:
        self._lib = pipeline
        self._path = path

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, topic_ids: bool = True) -> Pipeline:
        """Checks a file; nothing is reached for. Raises :class:`InvalidConfigError` with every mistake and its line.

        ``topic_ids=False`` is for clusters that tell none, such as :class:`gristmill.testing.Cluster`: a topic that is made
        anew then goes unnoticed.
        """
        return cls(_lib.Pipeline(os.fspath(path), topic_ids), os.fspath(path))

    def run(self, *, progress: bool | None = None) -> bool:
        """Runs it until :meth:`stop` or Ctrl-C: the first finishes the open checkpoints, the second drops them, and
        ``KeyboardInterrupt`` is raised when that is done. Whether all were finished; nothing is lost either way, the next
        start goes on where the ledger ends.

        ``progress`` shows a line with what it does; by default on a terminal and in a notebook. Raises what stops a pipeline,
        with the way out in its message.
        """
        with Progress(os.path.basename(self._path), progress) as line:
            if line is None:
                return self._lib.run()
            done = threading.Event()
            shower = threading.Thread(target=self._show, args=(line, done), daemon=True)
            shower.start()
            try:
                return self._lib.run()
            finally:
                done.set()
                shower.join()

    async def arun(self) -> bool:
        """As :meth:`run`, without the line and without Ctrl-C. When it is cancelled, it stops as a crash does: nothing is
        lost, nothing is doubled."""
        return bool(await call(self._lib.run_async))

    def stop(self, *, drop: bool = False) -> None:
        """Asks it to end: it finishes the open checkpoints, or drops them. From any thread; does not wait."""
        self._lib.stop(drop)

    @property
    def status(self) -> Status | None:
        """What it has done; ``None`` before it has begun."""
        status = self._lib.status()
        return None if status is None else Status(**status)

    def _show(self, line: Progress, done: threading.Event) -> None:
        began = time.monotonic()
        while not done.wait(0.2):
            if (status := self.status) is not None:
                rate = status.records_in / max(time.monotonic() - began, 1e-9)
                line.show(
                    f"{status.records_in:,} records read, {status.rows_written:,} rows written, {status.checkpoints:,} checkpoints, "
                    f"{status.dead_letters:,} dead letters, {rate:,.0f} records/s"
                )

    def __repr__(self) -> str:
        return f"<Pipeline {self._path}>"
