"""Exceptions: one base, one subclass for each kind.

Every one has ``kind``, ``retryable``, and, where they are known, ``topic``, ``partition``, ``offset``, ``subject`` and
``field``. ``retryable``: the same call may succeed later without a change by a person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from gristmill.producer import Report


class GristmillError(Exception):
    """What went wrong, and where. ``kind`` is the name of a condition that a program can act on.

    >>> try:
    ...     gristmill.read("no-such-topic", bootstrap_servers="localhost:9092")
    ... except gristmill.GristmillError as error:
    ...     print(type(error).__name__, error.kind, error.retryable, error.topic)
    NotFoundError not_found False no-such-topic
    """

    kind: ClassVar[str] = "other"

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        topic: str | None = None,
        partition: int | None = None,
        offset: int | None = None,
        subject: str | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.subject = subject
        self.field = field


class InvalidConfigError(GristmillError, ValueError):
    """The settings contradict themselves, or there is no such setting."""

    kind = "invalid_config"


class InvalidArgumentError(GristmillError, ValueError):
    """An argument cannot be used."""

    kind = "invalid_argument"


class UnreachableError(GristmillError, ConnectionError):
    """No broker answered, or a connection broke. Clients go on trying."""

    kind = "unreachable"


class TimedOutError(GristmillError, TimeoutError):
    """No answer within the time that was set for it."""

    kind = "timed_out"


class UnauthenticatedError(GristmillError):
    """The broker refused the credentials."""

    kind = "unauthenticated"


class UnauthorizedError(GristmillError):
    """The broker knows the client, but does not allow the operation."""

    kind = "unauthorized"


class NotFoundError(GristmillError):
    """The topic, partition, group, schema or subject does not exist."""

    kind = "not_found"


class OffsetOutOfRangeError(GristmillError):
    """The position is not in the partition: retention removed it, or it was never written."""

    kind = "offset_out_of_range"


class LogTruncatedError(GristmillError):
    """The partition's log was truncated below the position (unclean leader election)."""

    kind = "log_truncated"


class FencedError(GristmillError):
    """Another member or producer has taken this one's place."""

    kind = "fenced"


class RebalancingError(GristmillError):
    """The group is rebalancing, or its coordinator is moving; trying again helps."""

    kind = "rebalancing"


class TooLargeError(GristmillError):
    """The record is larger than the broker takes."""

    kind = "too_large"


class RefusedError(GristmillError):
    """The broker refused the request for a reason of its own."""

    kind = "refused"


class MalformedError(GristmillError):
    """A record or an answer could not be read."""

    kind = "malformed"


class ClosedError(GristmillError):
    """The client was closed, or is another process's."""

    kind = "closed"


class FatalError(GristmillError):
    """The client cannot go on; a new one is needed."""

    kind = "fatal"


class DecodeError(GristmillError):
    """A value is not what its format or schema says; ``topic``, ``partition``, ``offset`` and ``field`` say which."""

    kind = "decode"


class SchemaRegistryError(GristmillError):
    """The Schema Registry did not give a schema that is needed."""

    kind = "schema_registry"


class TransformError(GristmillError):
    """A transform is broken, not only a record of it."""

    kind = "transform"


class SinkError(GristmillError):
    """Files, tables or the ledger could not be written, or do not fit together."""

    kind = "sink"


class DeadLetterError(GristmillError):
    """A dead letter could not be delivered, or there is no place for one."""

    kind = "dead_letter"


class SendError(GristmillError):
    """Some of the records that were sent together were not delivered; ``report`` says which, and why."""

    kind = "send"

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message, retryable=all(error.retryable for error in report.errors.values()))
        self.report = report

    def __reduce__(self) -> tuple[type[SendError], tuple[str, Report], dict[str, object]]:
        return type(self), (str(self), self.report), self.__dict__


def _classes(of: type[GristmillError]) -> dict[str, type[GristmillError]]:
    found = {of.kind: of}
    for below in of.__subclasses__():
        found.update(_classes(below))
    return found


_BY_KIND = _classes(GristmillError)


def _of(kind: str, message: str, **attributes: object) -> GristmillError:
    """For the Rust half: the exception of a kind."""
    return _BY_KIND[kind](message, **attributes)  # type: ignore[arg-type]
