import datetime
import decimal
import json
import unittest
from dataclasses import dataclass, field

from gristmill_transform import DROP, Drop, Keep, Reject, log, metrics, optional, transform
from gristmill_transform import _types
from gristmill_transform.testing import Harness

UTC = datetime.timezone.utc


@dataclass
class Settings:
    """About it."""

    most: int = field(metadata={"minimum": 0})
    token: str | None = field(default=None, metadata={"secret": True})


def made(function, **options):
    options = {"reads": {"x": "int64"}, "adds": {"y": "int64"}, "outputs": {"big": ""}, **options}
    return transform(name="t", version="1", description="", **options)(function)


def answers(function, rows, config=None, **options):
    return Harness(made(function, **options), config).apply(rows)


class Verdicts(unittest.TestCase):
    def test_each_way_to_answer(self):
        def function(row, ctx):
            match row["x"]:
                case 0:
                    return {"y": 1}
                case 1:
                    return Keep({"y": None}, output="big", more=[Keep({"y": 5}), Keep({"y": 6}, output="big")])
                case 2:
                    return DROP
                case 3:
                    return Drop(more=[Keep({"y": 9})])
                case 4:
                    raise Reject("TOO_MUCH", "of it")
                case _:
                    return Reject("RETURNED")

        kept, routed, dropped, replaced, rejected, returned = answers(function, [{"x": x} for x in range(6)])
        self.assertEqual((kept.verdict, kept.output, kept.values), ("keep", "main", {"y": 1}))
        self.assertEqual((routed.output, routed.values), ("big", {"y": None}))
        self.assertEqual([(m.output, m.values["y"]) for m in routed.more], [("main", 5), ("big", 6)])
        self.assertEqual((dropped.verdict, dropped.more), ("drop", []))
        self.assertEqual((replaced.verdict, replaced.more[0].values), ("drop", {"y": 9}))
        self.assertEqual((rejected.code, rejected.message), ("TOO_MUCH", "of it"))
        self.assertEqual(returned.code, "RETURNED")

    def test_what_goes_wrong_rejects_that_row_alone_and_says_what(self):
        wrong = {
            0: (lambda: None, "or DROP to leave the row out"),
            1: (lambda: {"z": 1}, "does not compute 'z'.*; there are y"),
            2: (lambda: {"y": "1"}, "'y': a str for int64"),
            3: (lambda: {"y": True}, "'y': a bool for int64"),
            4: (lambda: {"y": 2**63}, "does not fit int64"),
            5: (lambda: {"y": 1, "z": 1}, "does not compute 'z'"),
            6: (lambda: Keep({"y": 1}, output="bgi"), "no output 'bgi'.*main, big"),
            7: (lambda: Keep({"y": 1}, more=[{"y": 2}]), "a dict among `more`"),
            8: (lambda: 1 // 0, r"ZeroDivisionError: .*\(test_transform.py:\d+\)"),
        }
        rows = [{"x": x} for x in [*wrong, 99]]
        *bad, good = answers(lambda row, ctx: wrong[row["x"]][0]() if row["x"] in wrong else {"y": 7}, rows)
        for (_, pattern), answer in zip(wrong.values(), bad):
            self.assertEqual(answer.code, "TRANSFORM_EXCEPTION")
            self.assertRegex(answer.message, pattern)
        self.assertEqual(good.values, {"y": 7})

    def test_a_null_where_none_may_be_is_refused(self):
        [answer] = answers(lambda row, ctx: {"y": None}, [{"x": 1}], adds={"y": "int64 not null"})
        self.assertIn("`not null`", answer.message)

    def test_a_transform_may_compute_nothing(self):
        kept, dropped = answers(lambda row, ctx: {} if row["x"] else DROP, [{"x": 1}, {"x": 0}], adds={})
        self.assertEqual((kept.verdict, kept.values, dropped.verdict), ("keep", {}, "drop"))

    def test_context_log_and_metrics(self):
        def function(row, ctx):
            log.warn("seen")
            metrics.count("rows")
            metrics.observe("x", row["x"])
            return {"y": ctx.config.most}

        harness = Harness(made(function, config=Settings), {"most": 3})
        self.assertEqual([a.values["y"] for a in harness.apply([{"x": 1}, {"x": 2}])], [3, 3])
        self.assertEqual((harness.counters, harness.observed), ({"rows": 2}, {"x": [1, 2]}))
        self.assertEqual(harness.logs, [("warn", "seen")] * 2)
        with self.assertRaisesRegex(ValueError, "does not read 'xx'; it reads x"):
            harness.apply([{"xx": 1}])


class Declarations(unittest.TestCase):
    def test_a_dataclass_gives_the_schema_of_the_configuration(self):
        schema = made(lambda row, ctx: DROP, config=Settings).config_schema
        self.assertEqual(schema["required"], ["most"])
        self.assertEqual(schema["properties"]["most"], {"type": "integer", "minimum": 0})
        self.assertEqual(schema["properties"]["token"], {"type": ["string", "null"], "writeOnly": True})
        self.assertEqual((schema["additionalProperties"], schema["description"]), (False, "About it."))
        json.dumps(schema)

    def test_metadata_that_means_nothing_is_refused(self):
        @dataclass
        class Wrong:
            token: str = field(metadata={"secrte": True})

        with self.assertRaisesRegex(TypeError, "config field token: metadata 'secrte' is neither `secret` nor"):
            made(lambda row, ctx: DROP, config=Wrong)

    def test_mistakes_are_found_when_the_module_is_imported(self):
        with self.assertRaisesRegex(TypeError, "`int46` is not a type that can be computed"):
            made(lambda row, ctx: DROP, adds={"y": "int46"})
        with self.assertRaisesRegex(ValueError, "both replaced and added"):
            made(lambda row, ctx: DROP, replaces={"y": "int64"})
        with self.assertRaisesRegex(TypeError, "a dataclass or a JSON Schema"):
            made(lambda row, ctx: DROP, config=3)
        self.assertTrue(made(lambda row, ctx: DROP, reads={"x": optional("int8")}).reads["x"].optional)


class Types(unittest.TestCase):
    def test_what_crosses_comes_back_as_it_was(self):
        day = datetime.date(1969, 12, 31)
        moment = datetime.datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
        for data_type, case, value, crossed in [
            ("bool", "booleans", True, True),
            ("int8", "integers", -128, -128),
            ("uint64 not null", "texts", 2**64 - 1, str(2**64 - 1)),
            ("float32", "numbers", 0.5, 0.5),
            ("string", "texts", "ä", "ä"),
            ("bytes", "blobs", b"\xff", b"\xff"),
            ("decimal(18,2)", "texts", decimal.Decimal("-1E+3"), "-1000"),
            ("date", "integers", day, -1),
            ("timestamp_ms", "integers", moment, -1),
            ("timestamp_us", "integers", moment, -1000),
            ("timestamp_ns", "integers", -1, -1),
            ("list<string>", "texts", ["a", None], '["a", null]'),
            ("map<int64>", "texts", {"a": 1}, '{"a": 1}'),
        ]:
            with self.subTest(data_type):
                self.assertEqual(_types.case(data_type), case)
                self.assertEqual(_types.writer(data_type)(value), crossed)
                read = _types.reader(data_type)
                self.assertEqual(read(crossed) if read else crossed, value)

    def test_values_of_another_type_are_refused(self):
        for data_type, value in [
            ("string", b"a"),
            ("bytes", "a"),
            ("bool", 1),
            ("float64", "1"),
            ("uint8", -1),
            ("date", datetime.datetime(2026, 1, 1)),
            ("timestamp_ms", datetime.datetime(2026, 1, 1)),
            ("timestamp_ms", 5),
            ("decimal(4,2)", 1.5),
            ("list<float64>", [float("nan")]),
        ]:
            with self.subTest(data_type), self.assertRaises((TypeError, ValueError)):
                _types.writer(data_type)(value)


if __name__ == "__main__":
    unittest.main()
