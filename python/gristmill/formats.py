"""How the values of a topic become columns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from gristmill import _lib
from gristmill.registry import Registry


class Bytes:
    """Any bytes: one column ``value``, as it came. The default."""

    def _described(self) -> _lib.Format:
        return _lib.Format.bytes()

    def __repr__(self) -> str:
        return "Bytes()"


class Json:
    """JSON objects with declared fields, as in a pipeline file's ``decode.fields``.

    >>> from gristmill import Json
    >>> Json({"id": "int64 not null", "name": "string", "price": "decimal(10, 2)"})
    Json({'id': 'int64 not null', 'name': 'string', 'price': 'decimal(10, 2)'})

    A number that does not fit its type exactly does not decode: nothing is rounded.
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

    ``registry`` is a :class:`Registry`, or its URL.
    """

    def __init__(
        self,
        registry: Registry | str,
        *,
        subject: str | None = None,
        schema: str | Mapping[str, Any] | None = None,
    ) -> None:
        self.registry = Registry(registry) if isinstance(registry, str) else registry
        self.subject = subject
        self.schema = schema if schema is None or isinstance(schema, str) else json.dumps(schema)

    def _described(self) -> _lib.Format:
        return _lib.Format.avro(self.registry._lib, self.subject, self.schema)

    def __repr__(self) -> str:
        return f"Avro({self.registry.url!r}, subject={self.subject!r})"


Format: TypeAlias = Bytes | Json | Avro
"""How values become columns."""
