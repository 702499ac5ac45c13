"""Kafka to BigQuery and Cloud Storage, exactly once; topics as Arrow frames; consumers that lose nothing.

- :func:`read` and :func:`scan`: a range of a topic as columns, without a group.
- :class:`Consumer`: a member of a group, with ``for`` or ``async for``.
- :class:`Producer`: records out, with one report.
- :class:`Json`, :class:`Avro`, :class:`Protobuf`, :class:`JsonSchema`, :class:`Bytes`: how values become columns; :class:`Registry`, :func:`avro_schema`.
- :class:`Transform`: a WebAssembly component on records or columns; :class:`Pipeline`: a pipeline file, exactly once.
- :mod:`gristmill.errors`: every exception; :mod:`gristmill.testing`: a Kafka for tests.

Examples here run in the tests, against an embedded Kafka and Schema Registry in the place of ``localhost``. The topic ``orders`` has
three records, such as ``{"id": 1, "customer": "Ada"}``.

The command ``gristmill`` comes with the package. What happens inside is told to :mod:`logging`, to loggers below
``gristmill``.
"""

import atexit
import logging

from gristmill import _lib
from gristmill._lib import Record, Rejected, TransformedRecord, Undecodable
from gristmill.avro import Digits, avro_schema
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
from gristmill.formats import Avro, Bytes, Format, Json, JsonSchema, Protobuf
from gristmill.frame import Frame
from gristmill.pipelines import Pipeline, Status
from gristmill.producer import Delivered, Producer, Report
from gristmill.reading import Scan, read, scan
from gristmill.registry import Compatibility, Reference, Registry, Schema
from gristmill.transforms import Transform, TransformedColumns, TransformedRecords

__version__: str = _lib.__version__

__all__ = [
    "Avro",
    "Batch",
    "Bytes",
    "ClosedError",
    "Compatibility",
    "Consumer",
    "DeadLetterError",
    "DecodeError",
    "Delivered",
    "Digits",
    "FatalError",
    "FencedError",
    "Format",
    "Frame",
    "GristmillError",
    "InvalidArgumentError",
    "InvalidConfigError",
    "Json",
    "JsonSchema",
    "LogTruncatedError",
    "MalformedError",
    "NotFoundError",
    "OffsetOutOfRangeError",
    "Pipeline",
    "Producer",
    "Protobuf",
    "RebalancingError",
    "Record",
    "Reference",
    "RefusedError",
    "Registry",
    "Rejected",
    "Report",
    "Scan",
    "Schema",
    "SchemaRegistryError",
    "SendError",
    "SinkError",
    "Status",
    "TimedOutError",
    "TooLargeError",
    "Transform",
    "TransformError",
    "TransformedColumns",
    "TransformedRecord",
    "TransformedRecords",
    "UnauthenticatedError",
    "UnauthorizedError",
    "Undecodable",
    "UnreachableError",
    "avro_schema",
    "read",
    "scan",
]

logging.getLogger("gristmill").addHandler(logging.NullHandler())
atexit.register(_lib.close_interpreter)
