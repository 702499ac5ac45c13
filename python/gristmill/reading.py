"""Reading a range of a topic once: as a member of no group, and nothing is committed."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from typing import Literal

from gristmill import _lib, _settings
from gristmill._progress import Progress
from gristmill.errors import InvalidArgumentError
from gristmill.formats import Bytes, Format
from gristmill.frame import Frame

Place = int | str | datetime.datetime | datetime.timedelta
"""One end of a range: an offset (the same in every partition), a time, or how far back from now. As text: ``"24h"``,
``"2026-11-24T10:00:00Z"``, ``"2026-11-24"`` (its begin in UTC), ``"5000"`` (an offset)."""

Undecodable = Literal["raise", "keep"]


def read(
    topic: str,
    *,
    bootstrap_servers: str,
    start: Place | None = None,
    end: Place | None = None,
    format: Format | None = None,
    undecodable: Undecodable = "raise",
    progress: bool | None = None,
    properties: Mapping[str, str] | None = None,
) -> Frame:
    """Reads a range of a topic into memory: with ``start="1h"`` the last hour, as a frame in one line.

    >>> orders = gristmill.Json({"id": "int64", "customer": "string"})
    >>> frame = gristmill.read("orders", bootstrap_servers="localhost:9092", format=orders)
    >>> frame.objects()[0]
    {'id': 1, 'customer': 'Ada'}

    **What it holds.** Every visible record from ``start``, which is inside, to ``end``, which is not; without them from
    the earliest record to the end as it is when the call begins. Records of a partition come in order; partitions are
    mixed.

    ``undecodable="keep"`` lists records that do not decode in ``frame.undecodable``; otherwise the first is an error.
    ``progress`` shows a bar; by default on a terminal and in a notebook. ``properties`` are librdkafka's, such as
    ``security.protocol``.

    Raises :class:`DecodeError`, :class:`NotFoundError`, :class:`OffsetOutOfRangeError` for a start that retention has
    removed, :class:`TimedOutError` if nothing comes for 5 s, and others of :mod:`gristmill.errors`. Ctrl-C ends it.
    """
    scan_ = scan(
        topic,
        bootstrap_servers=bootstrap_servers,
        start=start,
        end=end,
        format=format,
        undecodable=undecodable,
        properties=properties,
    )
    with Progress(f"reading {topic}", progress) as bar:
        return Frame(scan_._lib.rest(undecodable == "keep", bar.update if bar is not None else None))


class Scan:
    """A range of a topic, in frames of up to 1,000 rows as it is read: for what does not fit into memory. Ends once.

    It is an Arrow stream too: ``pyarrow.RecordBatchReader.from_stream(scan)``, or a query of DuckDB over it. Ctrl-C ends the
    iteration at once, and a stream when its reader comes back to Python.

    >>> import pyarrow
    >>> scan = gristmill.scan("orders", bootstrap_servers="localhost:9092", format=gristmill.Json({"customer": "string"}))
    >>> pyarrow.RecordBatchReader.from_stream(scan).read_all()["customer"].to_pylist()
    ['Ada', 'Grace', 'Alan']
    >>> scan.progress
    (3, 3)
    """

    def __init__(self, scan: _lib.Scan, keep_undecodable: bool) -> None:
        self._lib = scan
        self._keep = keep_undecodable

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        frame = self._lib.next(self._keep)
        if frame is None:
            raise StopIteration
        return Frame(frame)

    @property
    def column_names(self) -> list[str]:
        """The names of the columns, in order."""
        return self._lib.schema.column_names

    @property
    def progress(self) -> tuple[int, int]:
        """How many offsets were read, and of how many."""
        return self._lib.progress

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The Arrow PyCapsule interface: what is left, as it is read."""
        return self._lib.stream(self._keep)

    def __arrow_c_schema__(self) -> object:
        """The Arrow PyCapsule interface: the columns that each frame has."""
        return self._lib.schema.__arrow_c_schema__()


def scan(
    topic: str,
    *,
    bootstrap_servers: str,
    start: Place | None = None,
    end: Place | None = None,
    format: Format | None = None,
    undecodable: Undecodable = "raise",
    properties: Mapping[str, str] | None = None,
) -> Scan:
    """As :func:`read`, frame by frame.

    >>> sum(len(frame) for frame in gristmill.scan("orders", bootstrap_servers="localhost:9092", start=1))
    2
    """
    if undecodable not in ("raise", "keep"):
        raise InvalidArgumentError(f'undecodable: {undecodable!r} is neither "raise" nor "keep"')
    lib = _lib.Scan(
        topic,
        _settings.kafka(bootstrap_servers, properties),
        (format or Bytes())._described(),
        _place("start", start),
        _place("end", end),
    )
    return Scan(lib, undecodable == "keep")


def _place(name: str, place: Place | None) -> str | None:
    if place is None or isinstance(place, str):
        return place
    if isinstance(place, datetime.timedelta):
        milliseconds = round(abs(place) / datetime.timedelta(milliseconds=1))
        return f"{milliseconds}ms"
    if isinstance(place, datetime.datetime):
        if place.tzinfo is None:
            raise InvalidArgumentError(f"{name}: {place} has no time zone; give it one, such as datetime.timezone.utc")
        return place.isoformat()
    return str(place)
