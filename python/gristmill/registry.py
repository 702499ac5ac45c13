"""The Schema Registry."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from gristmill import _lib

SchemaType: TypeAlias = Literal["AVRO", "JSON", "PROTOBUF"]


class Reference(NamedTuple):
    """Another schema that a schema refers to: the name that it is called by, and where it is."""

    name: str
    subject: str
    version: int


@dataclass(frozen=True)
class Schema:
    """A registered schema. ``subject`` and ``version`` are not known of one that was found by its id."""

    id: int
    type: str
    text: str
    subject: str | None
    version: int | None
    references: tuple[Reference, ...]


class Compatibility(NamedTuple):
    """Whether a schema is compatible, and the registry's reasons if not; some registries give none."""

    is_compatible: bool
    messages: list[str]


class Registry:
    """A Schema Registry with Confluent's REST interface. Nothing is sent until a schema is needed.

    ``url`` may be several, with commas between. ``timeout`` is of one request, in seconds; what may pass is retried. What an
    id means is remembered; "latest" for a while. Calls block, and Ctrl-C ends them; under asyncio use
    :func:`asyncio.to_thread`.

    >>> registry = gristmill.Registry("http://localhost:8081")
    >>> order = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}
    >>> id = registry.register("orders-value", order)
    >>> registry.latest("orders-value").id == id
    True
    >>> registry.schema(id).text
    '{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}'
    """

    def __init__(
        self,
        url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        ca_pem: bytes | None = None,
        timeout: float = 10.0,
    ) -> None:
        self.url = url
        self._lib = _lib.Registry(url, username, password, token, ca_pem, timeout)

    def register(
        self,
        subject: str,
        schema: str | Mapping[str, Any] | type[Any],
        *,
        type: SchemaType = "AVRO",
        references: Iterable[Reference] = (),
    ) -> int:
        """Registers a schema under a subject, if it is not there yet, and gives its id.

        ``schema`` is its text, the same as a dict, or a dataclass or pydantic model, of which :func:`avro_schema` makes it.
        Raises :class:`SchemaRegistryError` if the registry refuses it.
        """
        return self._lib.register(subject, _text(schema), type, [(of.name, of.subject, of.version) for of in references])

    def compatibility(
        self,
        subject: str,
        schema: str | Mapping[str, Any] | type[Any],
        *,
        type: SchemaType = "AVRO",
        references: Iterable[Reference] = (),
    ) -> Compatibility:
        """Whether a schema is compatible with the subject's latest version, by the subject's level; nothing is registered.

        Raises :class:`NotFoundError` if the subject has no version yet: any schema can be its first.
        """
        return Compatibility(*self._lib.compatibility(subject, _text(schema), type, [(of.name, of.subject, of.version) for of in references]))

    def schema(self, id: int) -> Schema:
        """The schema with an id. Raises :class:`NotFoundError`."""
        return _schema(self._lib.by_id(id))

    def latest(self, subject: str) -> Schema:
        """The latest version of a subject. Raises :class:`NotFoundError`."""
        return _schema(self._lib.latest(subject))

    def version(self, subject: str, version: int) -> Schema:
        """A version of a subject, deleted ones included. Raises :class:`NotFoundError`."""
        return _schema(self._lib.version(subject, version))

    def __repr__(self) -> str:
        return f"Registry({self.url!r})"


def _schema(found: dict[str, Any]) -> Schema:
    return Schema(**{**found, "references": tuple(Reference(*of) for of in found["references"])})


def _text(schema: str | Mapping[str, Any] | type[Any]) -> str:
    if isinstance(schema, str):
        return schema
    if isinstance(schema, Mapping):
        return json.dumps(schema)
    from gristmill.avro import avro_schema

    return json.dumps(avro_schema(schema))
