"""Records of one partition, each with a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, overload

from gristmill import _lib
from gristmill._asyncio import call
from gristmill._lib import Record, Undecodable
from gristmill.frame import Frame

if TYPE_CHECKING:
    import pyarrow

T = TypeVar("T")


class Batch:
    """One or more records of one partition, in the order of their offsets.

    Each row needs a verdict, :meth:`ack` or :meth:`reject`; the group's offset passes the batch when all have theirs. When
    the last reference to a batch goes, the rows without one are delivered again, before everything else.

    It is an Arrow stream of its decoded rows (``__arrow_c_stream__``).
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

    def __getitem__(self, row: int) -> Record:
        """The record of a row."""
        record = self._lib.record(row + len(self._lib) if row < 0 else row)
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
        return self._lib.decoded(True).undecodable

    def decode(self, *, keep_undecodable: bool = False) -> Frame:
        """The rows as columns, decoded by the consumer's format.

        Raises :class:`DecodeError` if there are :attr:`undecodable` rows, unless ``keep_undecodable``: the frame then holds
        the others.
        """
        return Frame(self._lib.decoded(keep_undecodable))

    def to_arrow(self, *, keep_undecodable: bool = False) -> pyarrow.Table:
        """As :meth:`decode`, as a pyarrow table."""
        return self.decode(keep_undecodable=keep_undecodable).to_arrow()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The Arrow PyCapsule interface."""
        return self.decode().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        """The Arrow PyCapsule interface."""
        return self.decode(keep_undecodable=True).__arrow_c_schema__()

    @overload
    def objects(self, *, keep_undecodable: bool = False) -> list[dict[str, Any]]: ...
    @overload
    def objects(self, model: type[T], *, keep_undecodable: bool = False) -> list[T]: ...
    def objects(self, model: type[Any] = dict, *, keep_undecodable: bool = False) -> list[Any]:
        """The rows as objects; see :meth:`Frame.objects`."""
        return self.decode(keep_undecodable=keep_undecodable).objects(model)

    def ack(self, rows: Iterable[int] | None = None) -> bool:
        """Says that rows, or all that are left, need not be delivered again. Never waits: the commit follows by itself.

        ``False`` if that does not count, because the partition is another member's now or the consumer was closed; the
        records go to whoever has the partition.
        """
        return self._lib.ack(None if rows is None else list(rows))

    def reject(self, rows: Iterable[int], reason: str, *, code: str = "REJECTED") -> bool:
        """Puts rows aside in the dead-letter topic, with Kafka Connect's context headers, and takes that for their verdict.

        Waits for the brokers; :meth:`areject` is for asyncio. ``code`` is a class of faults and ``reason`` a sentence: who
        reads that topic can read both. At least once: a call that is repeated may write twice. Answers as :meth:`ack`.
        """
        return self._lib.reject(list(rows), code, reason)

    async def areject(self, rows: Iterable[int], reason: str, *, code: str = "REJECTED") -> bool:
        """As :meth:`reject`. When it is cancelled, the rows have no verdict."""
        return bool(await call(self._lib.reject_async, list(rows), code, reason))

    def __repr__(self) -> str:
        return f"<Batch: {self.topic}-{self.partition}, {len(self)} records, offsets {self.first_offset} to {self.last_offset}>"
