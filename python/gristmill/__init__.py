"""Kafka to BigQuery and Cloud Storage, exactly once; topics as Arrow frames; consumers that lose nothing.

- :func:`read` and :func:`scan`: a range of a topic as columns, without a group.
- :class:`Consumer`: a member of a group, with ``for`` or ``async for``.
- :class:`Producer`: records out, with one report.
- :class:`Json`, :class:`Avro`, :class:`Bytes`: how values become columns; :class:`Registry`.
- :mod:`gristmill.errors`: every exception; :mod:`gristmill.testing`: a Kafka for tests.

The command ``gristmill`` comes with the package. What happens inside is told to :mod:`logging`, to loggers below
``gristmill``.
"""

import atexit
import logging

from gristmill import _lib
from gristmill._lib import Record, Undecodable
from gristmill.batch import Batch
from gristmill.consumer import Consumer
from gristmill.errors import (
    ClosedError,
    DeadLetterError,
    DecodeError,
    FatalError,
    FencedError,
    GristmillError,
    InvalidArgumentError,
    InvalidConfigError,
    LogTruncatedError,
    MalformedError,
    NotFoundError,
    OffsetOutOfRangeError,
    RebalancingError,
    RefusedError,
    SchemaRegistryError,
    SendError,
    SinkError,
    TimedOutError,
    TooLargeError,
    TransformError,
    UnauthenticatedError,
    UnauthorizedError,
    UnreachableError,
)
from gristmill.formats import Avro, Bytes, Format, Json
from gristmill.frame import Frame
from gristmill.producer import Delivered, Producer, Report
from gristmill.reading import Scan, read, scan
from gristmill.registry import Registry

__version__: str = _lib.__version__

__all__ = [
    "Avro",
    "Batch",
    "Bytes",
    "ClosedError",
    "Consumer",
    "DeadLetterError",
    "DecodeError",
    "Delivered",
    "FatalError",
    "FencedError",
    "Format",
    "Frame",
    "GristmillError",
    "InvalidArgumentError",
    "InvalidConfigError",
    "Json",
    "LogTruncatedError",
    "MalformedError",
    "NotFoundError",
    "OffsetOutOfRangeError",
    "Producer",
    "RebalancingError",
    "Record",
    "RefusedError",
    "Registry",
    "Report",
    "Scan",
    "SchemaRegistryError",
    "SendError",
    "SinkError",
    "TimedOutError",
    "TooLargeError",
    "TransformError",
    "UnauthenticatedError",
    "UnauthorizedError",
    "Undecodable",
    "UnreachableError",
    "read",
    "scan",
]

logging.getLogger("gristmill").addHandler(logging.NullHandler())
atexit.register(_lib.close_interpreter)
