"""Reading topics as a member of a consumer group."""

from __future__ import annotations

import asyncio
import logging
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


class Consumer:
    """A member of a consumer group, for ``with`` and ``for`` or for ``async with`` and ``async for``.

    **Guarantee.** At least once: the group's offset passes a record only after it has a verdict (:meth:`Batch.ack` or
    :meth:`Batch.reject`), and so have all before it in its partition. A batch that is let go of without one is delivered
    again; so is what was on its way at a crash, or when its partition went to another member. A handler that is slow
    costs nobody the group membership: heartbeats are not its business.

        with gristmill.Consumer("orders", group_id="billing", bootstrap_servers="localhost:9092") as consumer:
            for batch in consumer:
                handle(batch.values())
                batch.ack()

    It joins the group when it is made. Several threads or tasks may take batches. ``close`` (and leaving ``with``) commits
    what has its verdict and leaves the group; ``for`` then ends.

    ``start`` is where partitions begin for which the group has no offset: ``"earliest"``, ``"latest"``, or
    ``"committed"``, which is an error without one. ``group_protocol`` is ``"cooperative"``, ``"range"`` or
    ``"consumer"`` (KIP-848). ``undecodable="reject"`` puts records that do not decode aside by itself, which needs
    ``dead_letter_topic``. ``memory_budget`` bounds in bytes what is prefetched. ``properties`` are librdkafka's.
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
        self.topics = [topics] if isinstance(topics, str) else list(topics)
        self.group_id = group_id
        self._decodes = format is not None and not isinstance(format, Bytes)
        self._rejects = undecodable == "reject"
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
        self.close()

    def __iter__(self) -> Iterator[Batch]:
        """Batches, until the consumer is closed."""
        while (batch := self.next_batch()) is not None:
            yield batch

    def next_batch(self, timeout: float | None = None) -> Batch | None:
        """The next batch; ``None`` after ``timeout`` seconds, or when the consumer was closed. Ctrl-C ends the wait.

        Raises what trying again does not help against, such as :class:`OffsetOutOfRangeError`,
        :class:`UnauthorizedError`, :class:`FatalError`. There are no more batches then.
        """
        batch = self._lib.try_next()
        while batch is None:
            if not self._lib.wait(timeout):
                return None
            batch = self._lib.try_next()
            if timeout is not None:
                break
        if batch is None:
            return None
        given = Batch(batch)
        if self._rejects:
            for bad in given.undecodable:
                given.reject([bad.row], bad.reason, code=bad.code)
        return given

    def records(self) -> Iterator[_lib.Record]:
        """Record by record: each counts as done when the next is asked for, or the one before it when the loop is left."""
        for batch in self:
            done = 0
            try:
                for record in batch:
                    done = record.row
                    yield record
                done = len(batch)
            finally:
                batch.ack(range(done))

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
        await self.aclose()

    async def __aiter__(self) -> AsyncIterator[Batch]:
        """Batches, until the consumer is closed."""
        while (batch := await self.anext_batch()) is not None:
            yield batch

    async def anext_batch(self) -> Batch | None:
        """As :meth:`next_batch`. Cancelling it loses nothing: a batch that is on its way to here is delivered again."""
        # A busy topic must not keep the loop for itself.
        await asyncio.sleep(0)
        while (batch := self._lib.try_next()) is None:
            if not await call(self._lib.wait_async):
                return None
        if self._decodes:
            # Not on the loop's thread; an error is told when the rows are asked for.
            with suppress(GristmillError):
                await call(batch.decode_async)
        given = Batch(batch)
        if self._rejects:
            for bad in given.undecodable:
                await given.areject([bad.row], bad.reason, code=bad.code)
        return given

    async def arecords(self) -> AsyncIterator[_lib.Record]:
        """As :meth:`records`."""
        async for batch in self:
            done = 0
            try:
                for record in batch:
                    done = record.row
                    yield record
                done = len(batch)
            finally:
                batch.ack(range(done))

    async def aclose(self, timeout: float = 30.0) -> None:
        """As :meth:`close`."""
        await call(self._lib.close_async, timeout)

    def __repr__(self) -> str:
        return f"<Consumer of {', '.join(self.topics)} in group {self.group_id}>"
