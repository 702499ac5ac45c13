"""Values as they cross the sandbox's border, and as Python has them."""

from __future__ import annotations

import datetime
import decimal
import json
import re
from collections.abc import Callable
from typing import Any

UTC = datetime.timezone.utc
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)
LOCAL_EPOCH = datetime.datetime(1970, 1, 1)
EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000}
INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
CASES = ("booleans", "integers", "numbers", "texts", "blobs")


def base(data_type: str) -> str:
    """A type without ``not null``."""
    return data_type.removesuffix("not null").strip()


def nullable(data_type: str) -> bool:
    return not data_type.rstrip().endswith("not null")


def case(data_type: str) -> str:
    """In which kind of list values of this type cross."""
    kind = base(data_type)
    if kind == "bool":
        return "booleans"
    if kind in ("float32", "float64"):
        return "numbers"
    if kind == "bytes" or kind.startswith("fixed("):
        return "blobs"
    if kind in INTEGERS - {"uint64"} or kind in ("date", "date64") or re.match(r"(local_)?time(stamp)?_", kind):
        return "integers"
    return "texts"


def _datetime_of(unit: str, epoch: datetime.datetime) -> Callable[[Any], Any]:
    per_second = UNITS[unit]
    step = 1_000_000 // per_second
    return lambda value: epoch + datetime.timedelta(microseconds=value * step)


def reader(data_type: str) -> Callable[[Any], Any] | None:
    """What makes a Python value of one that crossed; none where it is one already."""
    kind = base(data_type)
    if kind == "date":
        return lambda value: datetime.date.fromordinal(EPOCH_DAY + value)
    if match := re.fullmatch(r"(local_)?timestamp_(s|ms|us)", kind):
        return _datetime_of(match[2], LOCAL_EPOCH if match[1] else EPOCH)
    if kind == "uint64":
        return int
    if kind.startswith("decimal("):
        return decimal.Decimal
    if kind.startswith(("list<", "map<")) or kind == "struct":
        return json.loads
    return None


def _wrong(value: Any, data_type: str) -> TypeError:
    return TypeError(f"a {type(value).__name__} for {data_type}")


def _digits(value: Any) -> str:
    """A decimal inside a list or a map."""
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    raise TypeError(f"a {type(value).__name__} inside a list or a map")


def _exactly(kinds: type | tuple[type, ...], data_type: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, kinds):
            raise _wrong(value, data_type)
        return value

    return check


def writer(data_type: str) -> Callable[[Any], Any]:
    """What makes of a Python value one that crosses; a ``TypeError`` or ``ValueError`` where it is of another type."""
    kind = base(data_type)
    if kind == "bool":
        return _exactly(bool, data_type)
    if kind == "string":
        return _exactly(str, data_type)
    if kind == "bytes":
        return _exactly(bytes, data_type)
    if kind in INTEGERS:
        bits = int(kind.rsplit("int", 1)[1])
        low, high = (0, 2**bits) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1))

        def integer(value: Any) -> Any:
            if not isinstance(value, int) or isinstance(value, bool):
                raise _wrong(value, data_type)
            if not low <= value < high:
                raise ValueError(f"{value} does not fit {kind}")
            return str(value) if kind == "uint64" else value

        return integer
    if kind in ("float32", "float64"):

        def number(value: Any) -> float:
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise _wrong(value, data_type)
            return float(value)

        return number
    if kind == "date":

        def date(value: Any) -> int:
            if not isinstance(value, datetime.date) or isinstance(value, datetime.datetime):
                raise _wrong(value, data_type)
            return value.toordinal() - EPOCH_DAY

        return date
    if match := re.fullmatch(r"timestamp_(s|ms|us)", kind):
        step = datetime.timedelta(microseconds=1_000_000 // UNITS[match[1]])

        def timestamp(value: Any) -> int:
            if not isinstance(value, datetime.datetime):
                raise _wrong(value, data_type)
            if value.tzinfo is None:
                raise ValueError("a datetime without a time zone")
            return (value - EPOCH) // step

        return timestamp
    if kind == "timestamp_ns":
        return _exactly(int, data_type)
    if kind.startswith("decimal("):

        def number_text(value: Any) -> str:
            if not isinstance(value, (decimal.Decimal, int)) or isinstance(value, bool):
                raise _wrong(value, data_type)
            return format(decimal.Decimal(value), "f")

        return number_text
    if kind.startswith(("list<", "map<")):
        return lambda value: json.dumps(value, allow_nan=False, default=_digits)
    raise TypeError(f"`{data_type}` is not a type that can be computed")
