from __future__ import annotations

import dataclasses
import inspect
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import _types
from ._verdict import Drop, Keep, Reject

EXCEPTION = "TRANSFORM_EXCEPTION"


@dataclass(frozen=True)
class Read:
    """The type of a column that is read."""

    data_type: str
    optional: bool = False


def optional(data_type: str) -> Read:
    """The column is ``None`` where there is no such column; without it the pipeline does not start."""
    return Read(data_type, optional=True)


@dataclass(frozen=True)
class Context:
    """What a transform knows besides the row."""

    config: Any
    """An instance of the dataclass, or the JSON object as a dict."""
    topic: str
    partition: int


@dataclass(frozen=True)
class Plan:
    """A transform that is bound to the columns of a stream."""

    transform: Transform
    context: Context
    readers: list[Callable[[Any], Any] | None]

    def apply(self, columns: Sequence[Sequence[Any] | None], rows: int) -> tuple[list[Any], list[list[Any]]]:
        """The verdicts, as ``"keep"``, ``"drop"``, ``("route" | "emit", output)`` and ``("reject", code, message)``, and
        the computed columns."""
        bound = self.transform
        paths, function, context = list(bound.reads), bound.function, self.context
        verdicts: list[Any] = []
        computed: list[list[Any]] = [[] for _ in bound.writers]
        for values in zip(*(c if c is not None else [None] * rows for c in columns)) if columns else [()] * rows:
            try:
                row = {
                    path: value if read is None or value is None else read(value)
                    for path, read, value in zip(paths, self.readers, values)
                }
                bound.judge(function(row, context), verdicts, computed)
            except Reject as reject:
                verdicts.append(("reject", reject.code, reject.message))
            except Exception as error:
                verdicts.append(("reject", EXCEPTION, described(error)))
        return verdicts, computed


def described(error: BaseException) -> str:
    """The error, and the last line of the author's own that it passed through."""
    # Not by the module traceback: it reads source files, and a component has none.
    places = []
    step = error.__traceback__
    while step is not None:
        places.append((step.tb_frame.f_code.co_filename, step.tb_lineno))
        step = step.tb_next
    own = [place for place in places if "gristmill_transform" not in place[0]]
    place = f" ({own[-1][0].rsplit('/', 1)[-1]}:{own[-1][1]})" if own else ""
    return f"{type(error).__name__}: {error}{place}"


class Transform:
    """What :func:`transform` makes of a function."""

    def __init__(
        self,
        function: Callable[[dict[str, Any], Context], Any],
        *,
        name: str,
        version: str,
        description: str,
        config: Any,
        reads: Mapping[str, str | Read],
        replaces: Mapping[str, str],
        adds: Mapping[str, str],
        removes: Sequence[str],
        renames: Mapping[str, str],
        outputs: Mapping[str, str],
    ) -> None:
        self.function = function
        self.name = name
        self.version = version
        self.description = description
        self.config = config
        self.config_schema = config_schema(config)
        self.reads = {path: read if isinstance(read, Read) else Read(read) for path, read in reads.items()}
        self.replaces = dict(replaces)
        self.adds = dict(adds)
        self.removes = list(removes)
        self.renames = dict(renames)
        self.outputs = dict(outputs)
        both = self.replaces.keys() & self.adds.keys()
        if both:
            raise ValueError(f"{sorted(both)} are both replaced and added")
        computed = {**self.replaces, **self.adds}
        self.writers = {path: (_types.writer(t), _types.nullable(t)) for path, t in computed.items()}
        self.numbers = {"main": 0, **{output: i + 1 for i, output in enumerate(self.outputs)}}

    def __call__(self, row: dict[str, Any], context: Context) -> Any:
        """The function itself."""
        return self.function(row, context)

    def bind(self, config: str, topic: str, partition: int, columns: Mapping[str, str]) -> Plan:
        """For a stream of these columns, by path."""
        parsed = json.loads(config)
        made = from_json(self.config, parsed) if dataclasses.is_dataclass(self.config) else parsed
        readers = [_types.reader(columns[path]) if path in columns else None for path in self.reads]
        return Plan(self, Context(made, topic, partition), readers)

    def judge(self, answer: Any, verdicts: list[Any], computed: list[list[Any]]) -> None:
        if isinstance(answer, Mapping):
            self.go_on(answer, computed)
            verdicts.append("keep")
            return
        if isinstance(answer, Reject):
            raise answer
        if not isinstance(answer, (Keep, Drop)):
            raise TypeError(
                f"the function returned {type(answer).__name__}: return a dict of the computed columns, Keep(..), or "
                "DROP to leave the row out"
            )
        # All or nothing: what fails half-way leaves no values behind.
        rows = [*([answer] if isinstance(answer, Keep) else []), *answer.more]
        values: list[list[Any]] = [[] for _ in computed]
        outputs = []
        for row in rows:
            if not isinstance(row, Keep):
                raise TypeError(f"a {type(row).__name__} among `more`, where only Keep(..) may be")
            if row is not answer and row.more:
                raise ValueError("a row of `more` has a `more` of its own")
            outputs.append(self.output(row.output))
            self.go_on(row.values, values)
        for column, new in zip(computed, values):
            column.extend(new)
        if isinstance(answer, Drop):
            verdicts.append("drop")
        else:
            output = outputs.pop(0)
            verdicts.append("keep" if output is None else ("route", output))
        verdicts.extend(("emit", output or 0) for output in outputs)

    def output(self, name: str | None) -> int | None:
        if name is None:
            return None
        if name not in self.numbers:
            raise ValueError(f"there is no output {name!r}: the transform declares {', '.join(self.numbers)}")
        return self.numbers[name]

    def go_on(self, values: Mapping[str, Any], computed: list[list[Any]]) -> None:
        if values.keys() != self.writers.keys():
            unknown = sorted(values.keys() - self.writers.keys())
            if unknown:
                raise ValueError(
                    f"the transform does not compute {unknown[0]!r}: name it in `replaces` or `adds`; there are "
                    + ", ".join(self.writers)
                )
        row = []
        for path, (write, nullable) in self.writers.items():
            if path not in values:
                raise ValueError(f"no value of {path!r}: the answer has one for each computed column, None for a null")
            value = values[path]
            if value is None:
                if not nullable:
                    raise ValueError(f"{path!r} is None, and it is `not null`")
                row.append(None)
                continue
            try:
                row.append(write(value))
            except (TypeError, ValueError) as error:
                raise type(error)(f"{path!r}: {error}") from None
        for column, value in zip(computed, row):
            column.append(value)


def transform(
    *,
    name: str,
    version: str,
    description: str,
    reads: Mapping[str, str | Read],
    config: Any = None,
    replaces: Mapping[str, str] | None = None,
    adds: Mapping[str, str] | None = None,
    removes: Sequence[str] = (),
    renames: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
) -> Callable[[Callable[[dict[str, Any], Context], Any]], Transform]:
    """Makes a transform of a function of a row and a :class:`Context`.

    ``reads``, ``replaces`` and ``adds`` give the type of each column by its dotted path, as pipeline files write it:
    ``"int64"``, ``"string not null"``. ``config`` is a dataclass, or a JSON Schema as a dict; ``metadata`` of a field goes into
    its schema: ``field(metadata={"secret": True})`` keeps the value out of every log and message, ``{"minimum": 0}`` is
    checked before the transform starts. ``outputs`` are those besides
    ``main``, with a description each. Columns that are not named go on as they are.

    The function answers a dict of the computed columns, :class:`Keep`, :data:`DROP`, or raises :class:`Reject`. Any other
    exception rejects the row with the code ``TRANSFORM_EXCEPTION``.
    """

    def decorate(function: Callable[[dict[str, Any], Context], Any]) -> Transform:
        return Transform(
            function,
            name=name,
            version=version,
            description=description,
            config=config,
            reads=reads,
            replaces=replaces or {},
            adds=adds or {},
            removes=removes,
            renames=renames or {},
            outputs=outputs or {},
        )

    return decorate


_JSON = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}


def config_schema(config: Any) -> dict[str, Any]:
    """The JSON Schema of a configuration, of which ``transform`` says what it may be."""
    if config is None:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    if isinstance(config, dict):
        return config
    if not dataclasses.is_dataclass(config):
        raise TypeError("`config` is a dataclass or a JSON Schema as a dict")
    hints = typing.get_type_hints(config)
    properties, required = {}, []
    for field in dataclasses.fields(config):
        properties[field.name] = {**_schema_of(hints[field.name], field.name), **_keywords(field)}
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(field.name)
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    about = inspect.getdoc(config) or ""
    return schema if not about or about.startswith(f"{config.__name__}(") else {**schema, "description": about}


_KEYWORDS = {
    *("title", "description", "default", "examples", "enum", "writeOnly", "format", "pattern", "items", "properties"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems"),
    *("required", "additionalProperties"),
}


def _keywords(field: dataclasses.Field[Any]) -> dict[str, Any]:
    keywords = dict(field.metadata)
    if keywords.pop("secret", False):
        keywords["writeOnly"] = True
    for unknown in sorted(keywords.keys() - _KEYWORDS):
        raise TypeError(f"config field {field.name}: metadata {unknown!r} is neither `secret` nor one of {sorted(_KEYWORDS)}")
    return keywords


def _schema_of(hint: Any, name: str) -> dict[str, Any]:
    if hint in _JSON:
        return {"type": _JSON[hint]}
    arguments = [a for a in typing.get_args(hint) if a is not type(None)]
    if typing.get_origin(hint) in (list, dict):
        return {"type": _JSON[typing.get_origin(hint)]}
    if len(arguments) == 1 and type(None) in typing.get_args(hint):
        inner = _schema_of(arguments[0], name)
        return {**inner, "type": [inner["type"], "null"]}
    raise TypeError(f"config field {name}: {hint} is not str, int, float, bool, list, dict or one of them or None")


def from_json(config: Any, parsed: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(config)
    # An integer is a number in JSON.
    widened = {k: float(v) if hints.get(k) is float and isinstance(v, int) else v for k, v in parsed.items()}
    return config(**widened)
