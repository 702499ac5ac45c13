"""Reading topics as a member of a consumer group."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal

from gristmill import _lib, _settings
from gristmill._asyncio import call
from gristmill.batch import Batch
from gristmill.errors import GristmillError, InvalidConfigError
from gristmill.formats import Bytes, Format

_LOG = logging.getLogger("gristmill")

_SHORTLY = 5.0
"""How long leaving ``with`` by an exception waits, in seconds."""


class Consumer:
    """A member of a consumer group, for ``with`` and ``for`` or for ``async with`` and ``async for``.

    **Guarantee.** At least once: the group's offset passes a record only after it has a verdict (:meth:`Batch.ack` or
    :meth:`Batch.reject`), and so have all before it in its partition. A batch that is let go of without one is delivered
    again; so is what was on its way at a crash, or when its partition went to another member. A handler that is slow
    costs nobody the group membership: heartbeats are not its business.

    >>> with gristmill.Consumer("orders", group_id="billing", bootstrap_servers="localhost:9092") as consumer:
    ...     for batch in consumer:
    ...         print(batch.values()[0])
    ...         batch.ack()
    ...         break
    b'{"id": 1, "customer": "Ada"}'
    True

    It joins the group when it is made; a topic that is not there yet is waited for, with a warning in the log. Several threads or
    tasks may take batches. ``close`` (and leaving ``with``) commits what has its verdict and leaves the group; ``for`` then ends.

    ``start`` is where partitions begin for which the group has no offset: ``"earliest"``, ``"latest"``, or
    ``"committed"``, which is an error without one. ``group_protocol`` is ``"cooperative"``, ``"range"`` or
    ``"consumer"`` (KIP-848). ``undecodable="reject"`` puts records that do not decode aside by itself, which needs
    ``dead_letter_topic``; batches then have the others. ``memory_budget`` bounds in bytes what is prefetched. ``properties`` are
    librdkafka's.
    """

    differences: tuple[str, ...] = ()
    """After :meth:`from_confluent`: what it does differently, a sentence each."""

    def __init__(
        self,
        topics: str | Iterable[str],
        *,
        group_id: str,
        bootstrap_servers: str,
        format: Format | None = None,
        start: Literal["earliest", "latest", "committed"] = "earliest",
        dead_letter_topic: str | None = None,
        undecodable: Literal["raise", "reject"] = "raise",
        isolation: Literal["read_committed", "read_uncommitted"] = "read_committed",
        group_protocol: Literal["cooperative", "range", "consumer"] = "cooperative",
        batch_records: int | None = None,
        memory_budget: int | None = None,
        session_timeout: float | None = None,
        client_id: str | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        if undecodable not in ("raise", "reject"):
            raise InvalidConfigError(f'undecodable: {undecodable!r} is neither "raise" nor "reject"')
        if undecodable == "reject" and dead_letter_topic is None:
            raise InvalidConfigError('undecodable="reject" needs dead_letter_topic: where such records go')
        self.topics = [topics] if isinstance(topics, str) else list(dict.fromkeys(topics))
        self.group_id = group_id
        self._decodes = format is not None and not isinstance(format, Bytes)
        self._rejects = self._decodes and undecodable == "reject"
        self._lib = _lib.Consumer(
            self.topics,
            _settings.kafka(bootstrap_servers, properties),
            group_id,
            (format or Bytes())._described(),
            start=start,
            isolation=isolation,
            group_protocol=group_protocol,
            dead_letter_topic=dead_letter_topic,
            memory_budget=memory_budget,
            batch_records=batch_records,
            session_timeout=session_timeout,
            client_id=client_id,
        )

    @classmethod
    def from_confluent(cls, config: Mapping[str, Any], topics: str | Iterable[str], **more: Any) -> Consumer:
        """From a configuration of confluent-kafka's ``Consumer``; ``more`` are arguments of this class.

        What it does differently stands in :attr:`differences`, and in the log as information.

        >>> config = {"bootstrap.servers": "localhost:9092", "group.id": "billing", "enable.auto.commit": False}
        >>> consumer = gristmill.Consumer.from_confluent(config, "orders", start="earliest")
        >>> len(consumer.next_batch())
        3
        >>> consumer.close()
        """
        from gristmill._confluent import arguments

        keywords, differences = arguments(config)
        consumer = cls(topics, **{**keywords, **more})
        consumer.differences = tuple(differences)
        for difference in differences:
            _LOG.info("from_confluent: %s", difference)
        return consumer

    # --- with, for -----------------------------------------------------------------------------------------------

    def __enter__(self) -> Consumer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        # What was raised is what there is to be told.
        with suppress(GristmillError):
            self.close(_SHORTLY)

    def __iter__(self) -> Iterator[Batch]:
        """Batches, until the consumer is closed."""
        # Not a generator of batches: its frame would hold the last one while it waits for the next.
        return iter(_Batches(self))

    def next_batch(self, timeout: float | None = None) -> Batch | None:
        """The next batch; ``None`` after ``timeout`` seconds, or when the consumer was closed. Ctrl-C ends the wait.

        Raises what trying again does not help against, such as :class:`OffsetOutOfRangeError`,
        :class:`UnauthorizedError`, :class:`FatalError`. There are no more batches then.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            while (batch := self._lib.try_next()) is None:
                left = None if until is None else until - time.monotonic()
                if (left is not None and left <= 0) or not self._lib.wait(left):
                    return None
            given = Batch(batch)
            del batch
            if not self._rejects or not given.undecodable:
                return given
            given._lib.reject_undecodable()
            if len(given := given.decodable()):
                return given

    def records(self) -> Iterator[_lib.Record]:
        """Record by record. A record is done when the next one is asked for; when the loop is left, by ``break`` or by an
        exception, the one at hand is not, and is delivered again with those behind it.

        The group's offset follows when the loop is left or the batch is done: after a crash, up to a batch is done again.
        """
        while (batch := self.next_batch()) is not None:
            done = 0
            try:
                for record in batch:
                    done = record.row
                    yield record
                done = len(batch)
            finally:
                batch.ack(range(done))
                del batch

    def close(self, timeout: float = 30.0) -> None:
        """Commits what has its verdict and leaves the group. Closing twice is fine.

        Raises :class:`TimedOutError` if that takes longer; the group then notices by itself.
        """
        self._lib.close(timeout)

    # --- async with, async for -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Consumer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.aclose()
            return
        with suppress(GristmillError):
            await self.aclose(_SHORTLY)

    def __aiter__(self) -> AsyncIterator[Batch]:
        """Batches, until the consumer is closed."""
        return _Batches(self)

    async def anext_batch(self) -> Batch | None:
        """As :meth:`next_batch`, and the batch is decoded: a Schema Registry that does not answer is told here, and the batch is
        delivered again. Cancelling it loses nothing: so is a batch that is on its way to here."""
        # A busy topic must not keep the loop for itself.
        await asyncio.sleep(0)
        while True:
            while (batch := self._lib.try_next()) is None:
                if not await call(self._lib.wait_async):
                    return None
            given = Batch(batch)
            if self._decodes:
                # Not on the loop's thread.
                await call(batch.decode_async)
            del batch
            if not self._rejects or not given.undecodable:
                return given
            await call(given._lib.reject_undecodable_async)
            if len(given := given.decodable()):
                return given

    async def arecords(self) -> AsyncIterator[_lib.Record]:
        """As :meth:`records`."""
        while (batch := await self.anext_batch()) is not None:
            done = 0
            try:
                for record in batch:
                    done = record.row
                    yield record
                done = len(batch)
            finally:
                batch.ack(range(done))
                del batch

    async def aclose(self, timeout: float = 30.0) -> None:
        """As :meth:`close`."""
        # Asynchronous generators that were left by `break` end in steps of the loop, and then acknowledge what was done.
        for _ in range(3):
            await asyncio.sleep(0)
        await call(self._lib.close_async, timeout)

    def __repr__(self) -> str:
        return f"<Consumer of {', '.join(self.topics)} in group {self.group_id}>"


class _Batches:
    """Iterates over a consumer's batches, and holds none."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = self._consumer.next_batch()
        if batch is None:
            raise StopIteration
        return batch

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        batch = await self._consumer.anext_batch()
        if batch is None:
            raise StopAsyncIteration
        return batch
