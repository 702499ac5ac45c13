"""Avro schemas of Python's classes and of Arrow's columns."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import types
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from gristmill import _lib

_PLAIN: dict[Any, Any] = {
    bool: "boolean",
    int: "long",
    float: "double",
    str: "string",
    bytes: "bytes",
    uuid.UUID: {"type": "string", "logicalType": "uuid"},
    datetime.datetime: {"type": "long", "logicalType": "timestamp-micros"},
    datetime.date: {"type": "int", "logicalType": "date"},
    datetime.time: {"type": "long", "logicalType": "time-micros"},
}


class Digits:
    """How many digits a :class:`decimal.Decimal` has, and how many of them after the point:
    ``Annotated[Decimal, Digits(18, 2)]``. See :func:`avro_schema`."""

    def __init__(self, precision: int, scale: int) -> None:
        self.precision = precision
        self.scale = scale


def avro_schema(of: Any, *, name: str | None = None, namespace: str | None = None) -> dict[str, Any]:
    """The Avro schema of a dataclass, a pydantic model, or anything with Arrow columns (a table, a frame, a schema).

    ``int`` is ``long``, ``float`` ``double``, ``datetime`` ``timestamp-micros``, ``X | None`` ``["null", X]`` with the default
    null, an :class:`enum.Enum` of texts ``enum``; decimals need :class:`Digits`. Fields with a plain default have it in the
    schema. What has no type in Avro is an error that names the field.

    >>> from dataclasses import dataclass
    >>> from decimal import Decimal
    >>> from typing import Annotated
    >>> @dataclass
    ... class Order:
    ...     id: int
    ...     total: Annotated[Decimal, gristmill.Digits(18, 2)]
    ...     note: str | None = None
    >>> [field["type"] for field in gristmill.avro_schema(Order)["fields"]]
    ['long', {'type': 'bytes', 'logicalType': 'decimal', 'precision': 18, 'scale': 2}, ['null', 'string']]
    """
    if not isinstance(of, type) and (hasattr(of, "__arrow_c_schema__") or hasattr(of, "__arrow_c_stream__")):
        return _of_arrow(of, name or "Record", namespace)
    if not _is_record(of):
        raise TypeError(f"avro_schema() takes a dataclass, a pydantic model or Arrow columns, not {of!r}")
    record = _record(of, set(), "")
    if name is not None:
        record["name"] = name
    return {**record, "namespace": namespace} if namespace is not None else record


def _of_arrow(of: Any, name: str, namespace: str | None) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(_lib.avro_schema(of, name))
    return {**schema, "namespace": namespace} if namespace is not None else schema


def _is_record(of: Any) -> bool:
    return isinstance(of, type) and (dataclasses.is_dataclass(of) or hasattr(of, "model_fields"))


def _record(of: type[Any], known: set[str], path: str) -> Any:
    if of.__name__ in known:
        return of.__name__
    known.add(of.__name__)
    fields: list[dict[str, Any]] = []
    for name, hint, default in _fields(of):
        at = f"{path}.{name}" if path else name
        field: dict[str, Any] = {"name": name, "type": _type(hint, known, at)}
        has_null = isinstance(field["type"], list) and field["type"][0] == "null"
        if has_null and default in (None, dataclasses.MISSING):
            field["default"] = None
        elif isinstance(default, (bool, int, float, str)) and not has_null:
            field["default"] = default.value if isinstance(default, enum.Enum) else default
        fields.append(field)
    record: dict[str, Any] = {"type": "record", "name": of.__name__, "fields": fields}
    # A dataclass without a docstring gets its signature as one.
    if of.__doc__ and not of.__doc__.startswith(f"{of.__name__}("):
        record["doc"] = of.__doc__.strip()
    return record


def _fields(of: type[Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name, type and default of each."""
    hints = get_type_hints(of, include_extras=True)
    if dataclasses.is_dataclass(of):
        for field in dataclasses.fields(of):
            yield field.name, hints[field.name], field.default
        return
    for name, info in of.model_fields.items():
        yield name, hints[name], dataclasses.MISSING if info.is_required() else info.default


def _type(hint: Any, known: set[str], path: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        digits = next((of for of in arguments[1:] if isinstance(of, Digits)), None)
        if arguments[0] is decimal.Decimal and digits is not None:
            return {"type": "bytes", "logicalType": "decimal", "precision": digits.precision, "scale": digits.scale}
        return _type(arguments[0], known, path)
    if origin in (Union, types.UnionType):
        others = [of for of in arguments if of is not type(None)]
        if len(others) == 1 and len(arguments) == 2:
            return ["null", _type(others[0], known, path)]
        raise TypeError(f"field {path}: a union of several types has no column; make it one type, or one type and None")
    if origin in (list, Sequence, set, frozenset) or (origin is tuple and arguments[1:] == (...,)):
        return {"type": "array", "items": _type(arguments[0], known, f"{path}[]")}
    if origin in (dict, Mapping):
        if arguments[0] is not str:
            raise TypeError(f"field {path}: keys of Avro's maps are texts, not {arguments[0]!r}")
        return {"type": "map", "values": _type(arguments[1], known, f"{path}[]")}
    if origin is Literal and all(isinstance(of, str) for of in arguments):
        return "string"
    if hint in _PLAIN:
        return _PLAIN[hint]
    if hint is decimal.Decimal:
        raise TypeError(f"field {path}: say how many digits it has: Annotated[Decimal, gristmill.Digits(18, 2)]")
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        symbols = [of.value for of in hint]
        if not all(isinstance(symbol, str) for symbol in symbols):
            raise TypeError(f"field {path}: symbols of an Avro enum are texts")
        if hint.__name__ in known:
            return hint.__name__
        known.add(hint.__name__)
        return {"type": "enum", "name": hint.__name__, "symbols": symbols}
    if _is_record(hint):
        return _record(hint, known, path)
    raise TypeError(f"field {path}: {hint!r} has no type in Avro")
