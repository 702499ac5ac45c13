"""Columns of records."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints, overload

from gristmill import _lib
from gristmill._lib import Undecodable

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

T = TypeVar("T")


class Frame:
    """Decoded records as Arrow columns, and beside them where each row comes from: ``_kafka_partition``,
    ``_kafka_offset``, ``_kafka_timestamp`` and ``_kafka_key`` (``_kafka_sub`` is 0).

    It is an Arrow stream (``__arrow_c_stream__``): pyarrow, polars, DuckDB and pandas take it as it is, without a copy. It can be
    pickled, for another process; so can records, reports and errors.

    >>> import duckdb
    >>> frame = gristmill.read("orders", bootstrap_servers="localhost:9092", format=gristmill.Json({"id": "int64"}))
    >>> duckdb.sql("select sum(id), max(_kafka_offset) from frame").fetchall()
    [(6, 2)]
    >>> frame.to_polars()["id"].to_list()
    [1, 2, 3]
    """

    def __init__(self, frame: _lib.Frame) -> None:
        self._lib = frame

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._lib)

    @property
    def column_names(self) -> list[str]:
        """The names of the columns, in order."""
        return self._lib.column_names

    @property
    def nbytes(self) -> int:
        """The size of the columns in memory, in bytes."""
        return self._lib.nbytes

    @property
    def undecodable(self) -> list[Undecodable]:
        """The records that did not decode, in the order in which they were read."""
        return self._lib.undecodable

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The Arrow PyCapsule interface."""
        return self._lib.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        """The Arrow PyCapsule interface."""
        return self._lib.__arrow_c_schema__()

    def to_arrow(self) -> pyarrow.Table:
        """A pyarrow table, without a copy."""
        of: Callable[[object], pyarrow.Table] = _package("pyarrow", "arrow").table
        return of(self)

    def to_pandas(self) -> pandas.DataFrame:
        """A pandas frame, by pyarrow."""
        _package("pandas", "pandas")
        made: pandas.DataFrame = self.to_arrow().to_pandas()
        return made

    def to_polars(self) -> polars.DataFrame:
        """A polars frame."""
        of: Callable[[object], polars.DataFrame] = _package("polars", "polars").DataFrame
        return of(self)

    @overload
    def objects(self) -> list[dict[str, Any]]: ...
    @overload
    def objects(self, model: type[T]) -> list[T]: ...
    def objects(self, model: type[Any] = dict) -> list[Any]:
        """The rows as objects of a dataclass or a pydantic model, or as dicts; without Kafka's columns.

        Columns are given as keywords of the same name; those that the class does not have are left out. Decimals are :class:`decimal.Decimal`, timestamps
        :class:`datetime.datetime` (with UTC where the column has a time zone). Pydantic validates; dataclasses take what
        comes.

        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Order:
        ...     id: int
        ...     customer: str
        >>> format = gristmill.Json({"id": "int64", "customer": "string"})
        >>> gristmill.read("orders", bootstrap_servers="localhost:9092", format=format).objects(Order)[0]
        Order(id=1, customer='Ada')
        """
        return objects(self._lib, model)

    def to_pylist(self) -> list[dict[str, Any]]:
        """The rows as dicts, with Kafka's columns."""
        return self._lib.rows(True)

    def __repr__(self) -> str:
        return f"<Frame: {len(self):,} rows, columns {', '.join(self.column_names)}>"


def objects(frame: _lib.Frame, model: type[Any]) -> list[Any]:
    """See :meth:`Frame.objects`."""
    if model is dict:
        return frame.rows(False)
    if dataclasses.is_dataclass(model):
        return frame.rows(False, _shape(model))
    if hasattr(model, "model_validate"):
        return list(_adapter(model).validate_python(frame.rows(False)))
    raise TypeError(f"objects() makes objects of a dataclass, a pydantic model or dict, not of {model!r}")


_ADAPTERS: dict[type[Any], Any] = {}


def _adapter(model: type[Any]) -> Any:
    adapter = _ADAPTERS.get(model)
    if adapter is None:
        adapter = _ADAPTERS[model] = _package("pydantic", "pydantic").TypeAdapter(list[model])  # type: ignore[valid-type]
    return adapter


def _shape(model: type[Any], within: tuple[type[Any], ...] = ()) -> tuple[type[Any], set[str], Mapping[str, Any]]:
    """The class, what it takes, and those of its fields that are dataclasses themselves, or lists, maps or optionals of
    them."""
    try:
        hints = get_type_hints(model)
    except NameError:  # a name that only type checkers see: nested classes are not known then
        hints = {}
    fields = [field.name for field in dataclasses.fields(model) if field.init]
    shapes = {name: _inner(hints.get(name)) for name in fields}
    # Columns do not contain themselves, so a class that does ends there.
    below = (*within, model)
    return model, set(fields), {n: _shape(of, below) for n, of in shapes.items() if of is not None and of not in below}


def _inner(hint: Any) -> type[Any] | None:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return hint
    if get_origin(hint) is None:
        return None
    found = [inner for inner in map(_inner, get_args(hint)) if inner is not None]
    return found[0] if found else None


def _package(name: str, extra: str) -> Any:
    try:
        __import__(name)
    except ImportError as error:
        raise ImportError(f"this needs {name}: pip install 'gristmill[{extra}]'") from error
    return sys.modules[name]
