"""Records of one partition, each with a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, overload

from gristmill import _lib
from gristmill._asyncio import call
from gristmill._lib import Record, Undecodable
from gristmill.frame import Frame

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

T = TypeVar("T")

_ALL = object()


def _rows(rows: object) -> list[int]:
    """Nobody means all rows by None, or none of them by a text."""
    if not isinstance(rows, Iterable) or isinstance(rows, (str, bytes)):
        raise TypeError(f"rows are a list of numbers, not {rows!r}; ack() without an argument is for all that are left")
    return list(rows)


class Batch:
    """One or more records of one partition, in the order of their offsets.

    Each row needs a verdict, :meth:`ack` or :meth:`reject`; the group's offset passes the batch when all have theirs. Rows
    without one are delivered again, before what follows in their partition: at once after :meth:`nack`, else when the last
    reference to the batch goes (a loop's variable is one, until the next batch is there).

    It is an Arrow stream of its decoded rows (``__arrow_c_stream__``).

    >>> format = gristmill.Json({"id": "int64", "customer": "string"})
    >>> consumer = gristmill.Consumer(
    ...     "orders", group_id="mail", bootstrap_servers="localhost:9092", format=format, dead_letter_topic="orders.dead"
    ... )
    >>> batch = consumer.next_batch()
    >>> batch.objects()[1]
    {'id': 2, 'customer': 'Grace'}
    >>> batch[1].key, batch[1].offset
    (b'b', 1)
    >>> batch.reject([1], "no address")
    True
    >>> batch.rows_left
    2
    >>> batch.ack()
    True
    >>> consumer.close()
    """

    def __init__(self, batch: _lib.Batch) -> None:
        self._lib = batch

    @property
    def topic(self) -> str:
        """The topic."""
        return self._lib.topic

    @property
    def partition(self) -> int:
        """The partition."""
        return self._lib.partition

    @property
    def first_offset(self) -> int:
        """The offset of the first record."""
        return self._lib.first_offset

    @property
    def last_offset(self) -> int:
        """The offset of the last record."""
        return self._lib.last_offset

    @property
    def times_delivered(self) -> int:
        """How often this consumer has delivered these records; 1 for the first time."""
        return self._lib.times_delivered

    @property
    def rows_left(self) -> int:
        """How many rows have no verdict yet."""
        return self._lib.rows_left

    def __len__(self) -> int:
        """The number of records."""
        return len(self._lib)

    @overload
    def __getitem__(self, row: int) -> Record: ...
    @overload
    def __getitem__(self, row: slice) -> list[Record]: ...
    def __getitem__(self, row: int | slice) -> Record | list[Record]:
        """The record of a row, or those of a slice."""
        if isinstance(row, slice):
            return [self[at] for at in range(*row.indices(len(self)))]
        at = row + len(self) if row < 0 else row
        record = self._lib.record(at) if at >= 0 else None
        if record is None:
            raise IndexError(f"there is no row {row} in a batch of {len(self)}")
        return record

    def __iter__(self) -> Iterator[Record]:
        """The records, undecoded."""
        for row in range(len(self._lib)):
            yield self[row]

    def values(self) -> list[bytes | None]:
        """The values, undecoded: the fastest way to have all."""
        return self._lib.values()

    def keys(self) -> list[bytes | None]:
        """The keys."""
        return self._lib.keys()

    @property
    def undecodable(self) -> list[Undecodable]:
        """The rows that do not decode, and why."""
        return self._lib.undecodable()

    def decodable(self) -> Batch:
        """The rows that decode, as a batch of their own, so that its rows are those of its columns and objects. A verdict on
        one of them is a verdict here; those that do not decode need theirs from this batch."""
        return Batch(self._lib.decodable())

    def decode(self) -> Frame:
        """The rows as columns, decoded by the consumer's format, a row each. Raises :class:`DecodeError` if there are
        :attr:`undecodable` ones; :meth:`decodable` has the others."""
        return Frame(self._lib.decoded())

    def to_arrow(self) -> pyarrow.Table:
        """As :meth:`decode`, as a pyarrow table."""
        return self.decode().to_arrow()

    def to_pandas(self) -> pandas.DataFrame:
        """As :meth:`decode`, as a pandas frame."""
        return self.decode().to_pandas()

    def to_polars(self) -> polars.DataFrame:
        """As :meth:`decode`, as a polars frame."""
        return self.decode().to_polars()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The Arrow PyCapsule interface."""
        return self.decode().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        """The Arrow PyCapsule interface."""
        return self.decode().__arrow_c_schema__()

    @overload
    def objects(self) -> list[dict[str, Any]]: ...
    @overload
    def objects(self, model: type[T]) -> list[T]: ...
    def objects(self, model: type[Any] = dict) -> list[Any]:
        """The rows as objects, one each; see :meth:`Frame.objects`. Raises as :meth:`decode`."""
        return self.decode().objects(model)

    @overload
    def ack(self) -> bool: ...
    @overload
    def ack(self, rows: Iterable[int]) -> bool: ...
    def ack(self, rows: Any = _ALL) -> bool:
        """Says that rows, or all that are left, need not be delivered again. Never waits: the commit follows by itself.

        ``False`` if that does not count, because the partition is another member's now or the consumer was closed; the
        records go to whoever has the partition.
        """
        return self._lib.ack(None if rows is _ALL else _rows(rows))

    def nack(self) -> None:
        """Gives the rows without a verdict back: they are delivered again, to this consumer or another, as a batch with a
        higher :attr:`times_delivered`. This one can no longer be given a verdict."""
        self._lib.nack()

    def reject(self, rows: Iterable[int], reason: str, *, code: str = "REJECTED") -> bool:
        """Puts rows aside in the dead-letter topic, with Kafka Connect's context headers, and takes that for their verdict.

        Waits for the brokers; :meth:`areject` is for asyncio. ``code`` is a class of faults and ``reason`` a sentence: who
        reads that topic can read both. At least once: a call that is repeated may write twice. Answers as :meth:`ack`.
        """
        return self._lib.reject(_rows(rows), code, reason)

    async def areject(self, rows: Iterable[int], reason: str, *, code: str = "REJECTED") -> bool:
        """As :meth:`reject`. When it is cancelled, the rows have no verdict."""
        return bool(await call(self._lib.reject_async, _rows(rows), code, reason))

    def __repr__(self) -> str:
        return f"<Batch: {self.topic}-{self.partition}, {len(self)} records, offsets {self.first_offset} to {self.last_offset}>"
