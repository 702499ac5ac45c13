"""WebAssembly transforms: the same components that pipelines run, in the same sandbox."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, overload

from gristmill import _lib
from gristmill._lib import Rejected, TransformedRecord
from gristmill.batch import Batch
from gristmill.frame import Frame
from gristmill.producer import Payload


class ArrowStream(Protocol):
    """Anything with Arrow columns: a pyarrow table, a polars frame, a :class:`Frame`."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


class TransformedRecords:
    """What became of records: each that went in is in :attr:`records`, in :attr:`rejects` or counted in :attr:`dropped`."""

    def __init__(self, made: _lib.TransformedRecords) -> None:
        self._lib = made

    @property
    def records(self) -> list[TransformedRecord]:
        """The records that go on, in the order of the input rows that they come from."""
        return self._lib.records()

    def values(self) -> list[bytes | None]:
        """The values of the records that go on."""
        return self._lib.values()

    @property
    def rejects(self) -> list[Rejected]:
        """The rows that were refused, and why."""
        return self._lib.rejects

    @property
    def dropped(self) -> int:
        """How many rows were left out."""
        return self._lib.dropped

    def __repr__(self) -> str:
        return f"<TransformedRecords: {len(self.values())} go on, {len(self.rejects)} rejected, {self.dropped} dropped>"


class TransformedColumns:
    """What became of rows: each that went in is in :attr:`frame`, in :attr:`rejects` or counted in :attr:`dropped`.

    It is an Arrow stream of the rows that go on.
    """

    def __init__(self, made: _lib.TransformedColumns) -> None:
        self._lib = made

    @property
    def frame(self) -> Frame:
        """The rows that go on, in the columns that the transform makes."""
        return Frame(self._lib.frame)

    @property
    def rows(self) -> list[int]:
        """For each row that goes on, the input row that it comes from."""
        return self._lib.rows

    @property
    def outputs(self) -> list[str]:
        """For each row that goes on, the output that it goes to; ``main`` if nothing else was said."""
        return self._lib.outputs

    @property
    def rejects(self) -> list[Rejected]:
        """The rows that were refused, and why."""
        return self._lib.rejects

    @property
    def dropped(self) -> int:
        """How many rows were left out."""
        return self._lib.dropped

    def __len__(self) -> int:
        """The number of rows that go on."""
        return len(self.frame)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The Arrow PyCapsule interface."""
        return self.frame.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        """The Arrow PyCapsule interface."""
        return self.frame.__arrow_c_schema__()

    def __repr__(self) -> str:
        return f"<TransformedColumns: {len(self)} go on, {len(self.rejects)} rejected, {self.dropped} dropped>"


class Transform:
    """A WebAssembly component that works on records or on columns, in the sandbox that pipelines run it in.

    One record that makes it trap, loop or answer nonsense is rejected alone. ``component`` is a file or its bytes; compiling
    takes up to seconds, and is kept in the user's cache folder. ``topic`` and ``partition`` are what it is told. ``limits`` are those
    of a pipeline file's ``transform.limits``, such as ``{"memory": "16MiB", "call_timeout": "2s", "record_fuel": 50_000_000}``.
    Several threads may use it; calls wait for each other.

    Raises :class:`TransformError` for what is not such a component, :class:`InvalidConfigError` for a configuration that it
    does not take; of one that works on columns at the first :meth:`apply`, which tells it the columns.

    >>> transform = gristmill.Transform("orders.wasm", config={"mask": "***", "high_value_cents": 100_000})
    >>> transform.name, transform.kind, transform.outputs
    ('orders', 'records', ['main', 'high_value'])
    >>> made = transform.apply(["{", None])
    >>> made
    <TransformedRecords: 0 go on, 2 rejected, 0 dropped>
    >>> made.rejects[0].code
    'MALFORMED_JSON'
    """

    def __init__(
        self,
        component: str | os.PathLike[str] | bytes,
        *,
        config: Mapping[str, Any] | None = None,
        topic: str = "transform",
        partition: int = 0,
        limits: Mapping[str, int | float | str] | None = None,
    ) -> None:
        source = component if isinstance(component, bytes) else os.fspath(component)
        self._lib = _lib.Transform(source, json.dumps(dict(config or {})), topic, partition, json.dumps(dict(limits or {})))

    @property
    def name(self) -> str:
        """What it calls itself."""
        return self._lib.name

    @property
    def version(self) -> str:
        """Its version."""
        return self._lib.version

    @property
    def description(self) -> str:
        """What it says of itself."""
        return self._lib.description

    @property
    def kind(self) -> str:
        """What it works on: ``records`` or ``columns``."""
        return self._lib.kind

    @property
    def digest(self) -> str:
        """SHA-256 of the component, in hexadecimal."""
        return self._lib.digest

    @property
    def config_schema(self) -> dict[str, Any]:
        """The JSON Schema of its configuration."""
        schema: dict[str, Any] = json.loads(self._lib.config_schema)
        return schema

    @property
    def outputs(self) -> list[str]:
        """The outputs that it routes to, ``main`` first."""
        return self._lib.outputs

    @overload
    def apply(self, to: Batch) -> TransformedRecords | TransformedColumns: ...  # type: ignore[overload-overlap]
    @overload
    def apply(self, to: ArrowStream) -> TransformedColumns: ...
    @overload
    def apply(self, to: Iterable[Payload]) -> TransformedRecords: ...
    def apply(self, to: Any) -> TransformedRecords | TransformedColumns:
        """Applies it: one of records to a list of values or a :class:`Batch`, one of columns to anything with Arrow columns (a
        pyarrow table, a polars frame, a :class:`Frame`, a :class:`Batch`).

        Raises :class:`TransformError` if the transform is broken and not only a record of it. Ctrl-C ends it between parts
        of 4,096 rows.
        """
        if self.kind == "columns":
            if not hasattr(to, "__arrow_c_stream__"):
                raise TypeError(f"{self.name} is a transform of columns: apply it to an Arrow table or a frame, not to {type(to).__name__}")
            return TransformedColumns(self._lib.apply_columns(to))
        if isinstance(to, Batch):
            return TransformedRecords(self._lib.apply_batch(to._lib))
        if hasattr(to, "__arrow_c_stream__") or isinstance(to, (str, bytes)):
            raise TypeError(f"{self.name} is a transform of records: apply it to a list of values or a batch, not to {type(to).__name__}")
        return TransformedRecords(self._lib.apply_values(list(to)))

    def __repr__(self) -> str:
        return f"<Transform {self.name} {self.version}, of {self.kind}>"
