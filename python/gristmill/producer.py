"""Writing records."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, NamedTuple, TypeAlias

from gristmill import _lib, _settings
from gristmill._asyncio import call
from gristmill.avro import avro_schema
from gristmill.errors import GristmillError, InvalidArgumentError, SendError
from gristmill.formats import Avro, JsonSchema, Protobuf

Payload: TypeAlias = bytes | str | bytearray | memoryview | None
"""A key, a value or a header's value; text is UTF-8, and ``None`` is null."""

Headers: TypeAlias = Mapping[str, Payload] | Iterable[tuple[str, Payload]]
"""Names and values; as pairs, a name may come more than once."""


Written: TypeAlias = Avro | Protobuf | JsonSchema | Literal["json"]
"""How rows become values."""


class Delivered(NamedTuple):
    """Where a record lies."""

    partition: int
    offset: int


class Report:
    """What became of records that were sent together, by their index.

    >>> with gristmill.Producer("localhost:9092") as producer:
    ...     report = producer.send_many("orders", ["fine", b"x" * 2_000_000], partition=0, raise_errors=False)
    >>> report
    <Report: 1 delivered, 1 failed>
    >>> report[0]
    Delivered(partition=0, offset=3)
    >>> report.errors[1].kind
    'too_large'
    """

    def __init__(self, report: _lib.Report | _Outcomes) -> None:
        self._lib = report

    def __len__(self) -> int:
        """How many records were sent."""
        return len(self._lib)

    @property
    def delivered(self) -> int:
        """How many were delivered."""
        return self._lib.delivered

    @property
    def failed(self) -> int:
        """How many were not, or are not known to be."""
        return len(self) - self.delivered

    @property
    def errors(self) -> dict[int, GristmillError]:
        """Why, by index."""
        return self._lib.errors

    def __getitem__(self, index: int) -> Delivered:
        """Where a record lies; raises its error if it was not delivered."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"there is no record {index} in a report of {len(self)}")
        place = self._lib.place(index % len(self))
        if place is None:
            raise self.errors[index % len(self)]
        return Delivered(*place)

    def raise_for_errors(self) -> None:
        """Raises :class:`SendError` if a record was not delivered."""
        if self.failed:
            index, first = next(iter(self.errors.items()))
            raise SendError(f"{self.failed} of {len(self)} records were not delivered; record {index}: {first}", self)

    def __reduce__(self) -> tuple[Callable[..., Report], tuple[object, ...]]:
        return _report, ([self._lib.place(index) for index in range(len(self))], self.errors)

    def __repr__(self) -> str:
        return f"<Report: {self.delivered} delivered, {self.failed} failed>"


@dataclasses.dataclass
class _Outcomes:
    """What ``_lib.Report`` says, without it."""

    places: list[tuple[int, int] | None]
    errors: dict[int, GristmillError]

    def __len__(self) -> int:
        return len(self.places)

    @property
    def delivered(self) -> int:
        return len(self.places) - len(self.errors)

    def place(self, index: int) -> tuple[int, int] | None:
        return self.places[index]


def _report(places: list[tuple[int, int] | None], errors: dict[int, GristmillError]) -> Report:
    """A report that was pickled."""
    return Report(_Outcomes(places, errors))


_SHORTLY = 5.0
"""How long leaving ``with`` by an exception waits, in seconds."""

_Record: TypeAlias = tuple[str, Payload, Payload, list[tuple[str, Payload]], int | None, int | None]


class Producer:
    """An idempotent producer: a record is reported as delivered when all in-sync replicas have it, and lies in its
    partition once and in the order of sending, whatever was retried.

    Methods that begin with ``a`` are for asyncio. A full buffer makes sending wait. ``linger`` and ``delivery_timeout`` are
    seconds, ``compression`` is ``"none"``, ``"lz4"`` or ``"zstd"``; ``properties`` are librdkafka's. Leaving ``with``
    delivers what is buffered; by an exception, for 5 s at most.

    >>> with gristmill.Producer("localhost:9092") as producer:
    ...     producer.send("orders", '{"id": 4, "customer": "Ada"}', key="a", headers={"source": "shop"})
    Delivered(partition=0, offset=3)
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        linger: float | None = None,
        compression: Literal["none", "lz4", "zstd"] = "lz4",
        delivery_timeout: float | None = None,
        max_buffered_bytes: int | None = None,
        client_id: str | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        self._lib = _lib.Producer(
            _settings.kafka(bootstrap_servers, properties),
            linger=linger,
            compression=compression,
            delivery_timeout=delivery_timeout,
            max_buffered_bytes=max_buffered_bytes,
            client_id=client_id,
        )

    def send(
        self,
        topic: str,
        value: Payload = None,
        *,
        key: Payload = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Delivered:
        """Writes a record and waits until it is delivered; many go faster together: :meth:`send_many`.

        Without ``partition`` the key's murmur2 hash chooses, as with Kafka's own clients. Raises what the brokers say;
        :class:`TimedOutError` after ``delivery_timeout``, when it is not known whether it was written.
        """
        record = (topic, value, key, _headers(headers), partition, _timestamp(timestamp_ms))
        return Report(self._lib.send([record]))[0]

    async def asend(
        self,
        topic: str,
        value: Payload = None,
        *,
        key: Payload = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Delivered:
        """As :meth:`send`. A record that is cancelled may have been sent."""
        record = (topic, value, key, _headers(headers), partition, _timestamp(timestamp_ms))
        return Report(await call(self._lib.send_async, [record]))[0]

    def send_many(
        self,
        topic: str,
        values: Iterable[Payload],
        *,
        keys: Iterable[Payload] | None = None,
        headers: Headers | Sequence[Headers | None] | None = None,
        partition: int | None = None,
        raise_errors: bool = True,
    ) -> Report:
        """Writes records and waits until each is delivered or has failed.

        ``headers`` are for all, or a list with those of each. One that fails does not hide the others: :class:`SendError`
        has the report; with ``raise_errors=False`` it is only returned.
        """
        records = _records(topic, values, keys, headers, partition)
        return _checked(Report(self._lib.send(records)), raise_errors)

    async def asend_many(
        self,
        topic: str,
        values: Iterable[Payload],
        *,
        keys: Iterable[Payload] | None = None,
        headers: Headers | Sequence[Headers | None] | None = None,
        partition: int | None = None,
        raise_errors: bool = True,
    ) -> Report:
        """As :meth:`send_many`. What is cancelled may have been sent."""
        records = _records(topic, values, keys, headers, partition)
        return _checked(Report(await call(self._lib.send_async, records)), raise_errors)

    def send_arrow(
        self,
        topic: str,
        columns: Any,
        *,
        format: Written = "json",
        key: str | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        register: bool = False,
        raise_errors: bool = True,
    ) -> Report:
        """Writes a record for each row of anything with Arrow columns, and waits as :meth:`send_many` does.

        As JSON objects, without nulls; decimals of more than 15 digits are texts. As :class:`Avro`, :class:`Protobuf` or
        :class:`JsonSchema` by the latest schema of the subject (``<topic>-value`` unless ``format`` names one), or by
        ``format.schema``, which must be registered; ``register=True`` registers it, or, of Avro, the schema of the columns if none is
        given. A schema given so stands by itself. A union of several types in Avro is written from texts of JSON, as
        ``Avro(recursive="json")`` reads it. Without a registry Protobuf is bare and JSON has nothing in front. ``key`` is a column of texts, bytes or integers. Columns that :func:`read` has added
        (``_kafka_offset`` and so on) are left out.

        >>> import pyarrow
        >>> payments = pyarrow.table({"order": [1, 2], "cents": [1250, None]})
        >>> with gristmill.Producer("localhost:9092") as producer:
        ...     producer.send_arrow("payments", payments, format=gristmill.Avro("http://localhost:8081"), register=True)
        <Report: 2 delivered, 0 failed>
        >>> gristmill.read(
        ...     "payments", bootstrap_servers="localhost:9092", format=gristmill.Avro("http://localhost:8081")
        ... ).objects()
        [{'order': 1, 'cents': 1250}, {'order': 2, 'cents': None}]
        """
        values, keys = self._encoded(topic, columns, format, key, register)
        return self.send_many(topic, values, keys=keys, headers=headers, partition=partition, raise_errors=raise_errors)

    async def asend_arrow(
        self,
        topic: str,
        columns: Any,
        *,
        format: Written = "json",
        key: str | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        register: bool = False,
        raise_errors: bool = True,
    ) -> Report:
        """As :meth:`send_arrow`. Rows are encoded on another thread."""
        values, keys = await asyncio.to_thread(self._encoded, topic, columns, format, key, register)
        return await self.asend_many(
            topic, values, keys=keys, headers=headers, partition=partition, raise_errors=raise_errors
        )

    def _encoded(
        self, topic: str, columns: Any, format: Written, key: str | None, register: bool
    ) -> tuple[list[bytes], list[bytes | None] | None]:
        if not hasattr(columns, "__arrow_c_stream__"):
            raise TypeError(f"send_arrow() takes anything with Arrow columns, not {type(columns).__name__}")
        if isinstance(format, str):
            if format != "json":
                raise InvalidArgumentError(f'format: {format!r} is none of "json", Avro(..), Protobuf(..), JsonSchema(..)')
            return _lib.encode(columns, None, topic, None, False, key)
        if not isinstance(format, (Avro, Protobuf, JsonSchema)):
            raise InvalidArgumentError(f'format: {format!r} is none of "json", Avro(..), Protobuf(..), JsonSchema(..)')
        schema = format.schema
        if register and format.registry is None:
            raise InvalidArgumentError("register: the format has no registry")
        if isinstance(format, Protobuf) and format.generated and format.registry is not None:
            text = "a generated class is no schema that a registry takes: leave it out to write by the latest, or give the .proto's text"
            raise InvalidArgumentError(f"schema: {text}")
        if register and schema is None:
            if not isinstance(format, Avro):
                raise InvalidArgumentError("register: only Avro makes a schema of columns; give the format a `schema`")
            schema = json.dumps(avro_schema(columns, name=_record_name(topic)))
        return _lib.encode(columns, format._described(), topic, schema, register, key)

    @property
    def buffered(self) -> int:
        """Records in the buffer or on their way."""
        return self._lib.buffered

    def flush(self, timeout: float = 60.0) -> None:
        """Waits until every record so far has its report."""
        self._lib.flush(timeout)

    async def aflush(self, timeout: float = 60.0) -> None:
        """As :meth:`flush`."""
        await call(self._lib.flush_async, timeout)

    def close(self, timeout: float = 60.0) -> None:
        """Delivers what is buffered, and ends the producer. Closing twice is fine."""
        self._lib.close(timeout)

    async def aclose(self, timeout: float = 60.0) -> None:
        """As :meth:`close`."""
        await call(self._lib.close_async, timeout)

    def __enter__(self) -> Producer:
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

    async def __aenter__(self) -> Producer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.aclose()
            return
        with suppress(GristmillError):
            await self.aclose(_SHORTLY)


def _record_name(topic: str) -> str:
    """A name that Avro takes."""
    name = re.sub("[^A-Za-z0-9_]", "_", topic)
    return f"_{name}" if name[:1].isdigit() else name


def _headers(headers: Headers | None) -> list[tuple[str, Payload]]:
    if headers is None:
        return []
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise TypeError(f"headers are a dict, or pairs of a name and a value, not {pair!r}")
    return pairs


def _timestamp(milliseconds: int | None) -> int | None:
    if milliseconds is not None and milliseconds <= 0:
        raise InvalidArgumentError(f"timestamp_ms: {milliseconds} cannot be sent; Kafka's client takes 1 and above")
    return milliseconds


def _records(
    topic: str,
    values: Iterable[Payload],
    keys: Iterable[Payload] | None,
    headers: Headers | Sequence[Headers | None] | None,
    partition: int | None,
) -> list[_Record]:
    for name, given in ("values", values), ("keys", keys):
        if isinstance(given, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"{name} is a list of records' {name}, not one {type(given).__name__}; send() takes one record")
    values = list(values)
    keys = [None] * len(values) if keys is None else list(keys)
    if _is_of_each(headers):
        each = [_headers(of) for of in headers]  # type: ignore[union-attr, arg-type]
    else:
        each = [_headers(headers)] * len(values)  # type: ignore[arg-type]
    if not len(values) == len(keys) == len(each):
        raise ValueError(f"{len(values)} values, {len(keys)} keys and {len(each)} lists of headers do not go together")
    return [(topic, value, key, of, partition, None) for value, key, of in zip(values, keys, each)]


def _is_of_each(headers: object) -> bool:
    """A list whose items are headers themselves, and not pairs."""
    if not isinstance(headers, (list, tuple)) or not headers:
        return False
    first = headers[0]
    return first is None or isinstance(first, Mapping) or not (isinstance(first, tuple) and first and isinstance(first[0], str))


def _checked(report: Report, raise_errors: bool) -> Report:
    if raise_errors:
        report.raise_for_errors()
    return report
