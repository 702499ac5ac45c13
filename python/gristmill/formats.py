"""How the values of a topic become columns."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from gristmill import _lib
from gristmill.errors import InvalidArgumentError
from gristmill.registry import Registry


class Bytes:
    """Any bytes: one column ``value``, as it came. The default.

    >>> frame = gristmill.read("orders", bootstrap_servers="localhost:9092", format=gristmill.Bytes())
    >>> frame.column_names[0], frame.to_arrow()["value"][0].as_py()
    ('value', b'{"id": 1, "customer": "Ada"}')
    """

    def _described(self) -> _lib.Format:
        return _lib.Format.bytes()

    def __repr__(self) -> str:
        return "Bytes()"


class Json:
    """JSON objects with declared fields, as in a pipeline file's ``decode.fields``.

    >>> gristmill.Json({"id": "int64 not null", "name": "string", "price": "decimal(10, 2)"})
    Json({'id': 'int64 not null', 'name': 'string', 'price': 'decimal(10, 2)'})

    A number that does not fit its type exactly does not decode: nothing is rounded. ``json`` takes any value; in columns and
    objects it is a text of JSON, and ``send_arrow`` writes it as a text.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        if not isinstance(fields, Mapping) or not all(isinstance(name, str) for name in fields):
            raise TypeError(f"the fields are a dict of names and types, not {fields!r}")
        self.fields = dict(fields)
        self._format = _lib.Format.json(json.dumps(self.fields))

    def _described(self) -> _lib.Format:
        return self._format

    def __repr__(self) -> str:
        return f"Json({self.fields!r})"


class Avro:
    """Avro with a schema id in front, as the Schema Registry's serialisers write it.

    The columns are the fields of ``schema`` (Avro as JSON), or of the latest schema of ``subject``, which without one is
    ``<topic>-value``, for each topic its own. Records are resolved from the schema that they were written with to that one.

    A union of several types and a record that contains itself are refused, or with ``recursive="json"`` texts of JSON; there a value
    of such a union is an object with the name of its type: ``{"long": 5}``.

    ``registry`` is a :class:`Registry`, or its URL.

    >>> gristmill.Avro("http://localhost:8081", subject="order")
    Avro('http://localhost:8081', subject='order')
    """

    def __init__(
        self,
        registry: Registry | str,
        *,
        subject: str | None = None,
        schema: str | Mapping[str, Any] | None = None,
        recursive: Recursive = "refuse",
    ) -> None:
        self.registry = _registry(registry)
        self.subject = subject
        self.schema = schema if schema is None or isinstance(schema, str) else json.dumps(schema)
        self.recursive = _recursive(recursive)

    def _described(self) -> _lib.Format:
        as_json = self.recursive == "json"
        return _lib.Format.of("AVRO", self.registry._lib, self.subject, self.schema, None, as_json)

    def __repr__(self) -> str:
        return f"Avro({self.registry.url!r}, subject={self.subject!r})"


class Protobuf:
    """Protobuf messages with a schema id in front, as the Schema Registry's serialisers write them; without ``registry`` bare.

    The columns are the fields of a message of ``schema``, or of the latest schema of ``subject``, which without one is
    ``<topic>-value``, for each topic its own. ``schema`` is the text of a ``.proto`` file, or a generated class
    (``order_pb2.Order``), which says ``message`` too. ``message`` is needed where the schema has several.

    What contains itself is refused, or with ``recursive="json"`` a text of JSON. Fields are known by their numbers: what a newer
    writer has more is left out, and a change that the wire format does not bear makes its records undecodable.

    >>> gristmill.Protobuf(schema='syntax = "proto3"; message Order { int64 id = 1; }')
    Protobuf(None, subject=None, message=None)
    """

    def __init__(
        self,
        registry: Registry | str | None = None,
        *,
        subject: str | None = None,
        schema: str | type[Any] | None = None,
        message: str | None = None,
        recursive: Recursive = "refuse",
    ) -> None:
        self.generated = isinstance(schema, type)
        if isinstance(schema, type):
            schema, message = _generated(schema, message)
        _needs_schema("Protobuf", registry, schema)
        self.registry = None if registry is None else _registry(registry)
        self.subject = subject
        self.schema = schema
        self.message = message
        self.recursive = _recursive(recursive)

    def _described(self) -> _lib.Format:
        registry = None if self.registry is None else self.registry._lib
        as_json = self.recursive == "json"
        return _lib.Format.of("PROTOBUF", registry, self.subject, self.schema, self.message, as_json)

    def __repr__(self) -> str:
        url = None if self.registry is None else self.registry.url
        return f"Protobuf({url!r}, subject={self.subject!r}, message={self.message!r})"


class JsonSchema:
    """JSON objects, with a schema id in front or without, whose columns a JSON Schema says.

    They are the properties of ``schema`` (a text, a dict, or a pydantic model), or of the latest schema of ``subject``, which
    without one is ``<topic>-value``, for each topic its own. What it asks of values beside their types is not looked at.

    What has several types, none, or contains itself is refused, or with ``recursive="json"`` a text of JSON.

    >>> gristmill.JsonSchema(schema={"type": "object", "properties": {"id": {"type": "integer"}}})
    JsonSchema(None, subject=None)
    """

    def __init__(
        self,
        registry: Registry | str | None = None,
        *,
        subject: str | None = None,
        schema: str | Mapping[str, Any] | type[Any] | None = None,
        recursive: Recursive = "refuse",
    ) -> None:
        if isinstance(schema, type):
            if not hasattr(schema, "model_json_schema"):
                raise TypeError(f"schema: {schema.__name__} is no pydantic model; give a dict or a text")
            schema = schema.model_json_schema()
        _needs_schema("JsonSchema", registry, schema)
        self.registry = None if registry is None else _registry(registry)
        self.subject = subject
        self.schema = schema if schema is None or isinstance(schema, str) else json.dumps(schema)
        self.recursive = _recursive(recursive)

    def _described(self) -> _lib.Format:
        registry = None if self.registry is None else self.registry._lib
        return _lib.Format.of("JSON", registry, self.subject, self.schema, None, self.recursive == "json")

    def __repr__(self) -> str:
        url = None if self.registry is None else self.registry.url
        return f"JsonSchema({url!r}, subject={self.subject!r})"


Recursive: TypeAlias = Literal["refuse", "json"]
"""What becomes of what has no column of one type, such as a record that contains itself: refused, or in columns and objects a text."""

Format: TypeAlias = Bytes | Json | Avro | Protobuf | JsonSchema
"""How values become columns."""


def _registry(registry: Registry | str) -> Registry:
    return Registry(registry) if isinstance(registry, str) else registry


def _needs_schema(name: str, registry: object, schema: object) -> None:
    if registry is None and schema is None:
        raise InvalidArgumentError(f"{name} needs a registry, which has the schema, or `schema`")


def _recursive(recursive: Recursive) -> Recursive:
    if recursive not in ("refuse", "json"):
        raise InvalidArgumentError(f'recursive: {recursive!r} is neither "refuse" nor "json"')
    return recursive


def _generated(message: type[Any], name: str | None) -> tuple[str, str]:
    """The schema of a generated class: its file and what that imports, as a ``FileDescriptorSet`` in base64."""
    descriptor = getattr(message, "DESCRIPTOR", None)
    if not hasattr(descriptor, "full_name") or not hasattr(descriptor, "file"):
        raise TypeError(f"schema: {message.__name__} is no class of a Protobuf message")
    files: dict[str, bytes] = {}

    def add(file: Any) -> None:
        if file.name not in files:
            for imported in file.dependencies:
                add(imported)
            files[file.name] = file.serialized_pb

    assert descriptor is not None
    add(descriptor.file)
    # The first field of the set, again and again: the key 10, the length, the file.
    whole = b"".join(b"\n" + _varint(len(file)) + file for file in files.values())
    return base64.b64encode(whole).decode(), name or descriptor.full_name


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
