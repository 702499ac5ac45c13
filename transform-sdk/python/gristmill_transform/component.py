"""The transform as a component of the world ``simple-transform``. Imported inside WebAssembly alone."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

from componentize_py_types import Err
from wit_world.imports import log as host_log
from wit_world.imports import metrics as host_metrics
from wit_world.imports import simple, types

from . import _types, log, metrics
from ._transform import Plan, Transform, described

_VALUES = {
    "booleans": simple.Values_Booleans,
    "integers": simple.Values_Integers,
    "numbers": simple.Values_Numbers,
    "texts": simple.Values_Texts,
    "blobs": simple.Values_Blobs,
}
_LEVELS = {level.name.lower(): level for level in host_log.Level}
_KEEP, _DROP = simple.Verdict_Keep(), simple.Verdict_Drop()


def world(module: ModuleType) -> type:
    """What componentize-py exports, of the one transform in ``module``."""
    found = [value for value in vars(module).values() if isinstance(value, Transform)]
    if len(found) != 1:
        raise TypeError(f"{module.__name__}.py has {len(found)} transforms: one function is decorated with @transform")
    [transform] = found

    # Each call is made on an object of its own.
    bound: list[Plan] = []

    class WitWorld:
        def describe(self) -> types.Manifest:
            return types.Manifest(
                name=transform.name,
                version=transform.version,
                description=transform.description,
                config_schema=json.dumps(transform.config_schema),
                outputs=[types.Output(name, about) for name, about in transform.outputs.items()],
                reads=types.Reads(0),
                columns=[
                    types.ColumnNeed(path, _types.base(read.data_type), not read.optional)
                    for path, read in transform.reads.items()
                ],
            )

        def configure_simple(self, configuration: simple.SimpleConfiguration) -> simple.SimpleBinding:
            log._sink = lambda level, message: host_log.log(_LEVELS[level], message)
            metrics._sink = host_metrics
            columns = {column.path: column.data_type for column in configuration.columns}
            try:
                bound[:] = [
                    transform.bind(configuration.config, configuration.topic, configuration.partition, columns)
                ]
            except Exception as error:
                raise Err(f"{type(error).__name__}: {error}") from None

            def typed(columns: dict[str, str]) -> list[simple.TypedColumn]:
                return [simple.TypedColumn(path, data_type) for path, data_type in columns.items()]

            return simple.SimpleBinding(
                reads=[
                    simple.SimpleRead(path, read.data_type, read.optional)
                    for path, read in transform.reads.items()
                ],
                removes=transform.removes,
                renames=[simple.SimpleRename(path, name) for path, name in transform.renames.items()],
                replaces=typed(transform.replaces),
                adds=typed(transform.adds),
                wide_integers_as_texts=False,
            )

        def apply_simple(self, batch: simple.SimpleBatch) -> simple.SimpleEdits:
            try:
                return self.edits(batch)
            except BaseException as error:
                # The host shows what was logged last beside the trap that this ends in.
                host_log.log(host_log.Level.ERROR, described(error))
                raise

        def edits(self, batch: simple.SimpleBatch) -> simple.SimpleEdits:
            columns = [getattr(values, "value", None) for values in batch.columns]
            verdicts, computed = bound[0].apply(columns, batch.rows)
            types_of = [*transform.replaces.values(), *transform.adds.values()]
            return simple.SimpleEdits(
                verdicts=[_verdict(verdict) for verdict in verdicts],
                computed=[_VALUES[_types.case(t)](values) for t, values in zip(types_of, computed)],
            )

    return WitWorld


def _verdict(verdict: Any) -> Any:
    if verdict == "keep":
        return _KEEP
    if verdict == "drop":
        return _DROP
    match verdict:
        case ("route", output):
            return simple.Verdict_Route(output)
        case ("emit", output):
            return simple.Verdict_Emit(output)
        case (_, code, message):
            return simple.Verdict_Reject(simple.Rejection(code, message))
