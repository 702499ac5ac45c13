import assert from "node:assert/strict";
import test from "node:test";

import { DROP, Drop, Keep, Reject, log, metrics, optional, transform } from "../index.js";
import { Harness } from "../testing.js";
import { reader, valuesCase, writer } from "../types.js";

const made = (apply, options = {}) =>
  transform(
    { name: "t", version: "1", description: "", reads: { x: "int32" }, adds: { y: "int64" }, outputs: { big: "" }, ...options },
    apply,
  );
const answers = (apply, rows, options) => new Harness(made(apply, options)).apply(rows);
const numbered = (count) => Array.from({ length: count }, (_, x) => ({ x }));

test("each way to answer", () => {
  const ways = [
    () => ({ y: 1 }),
    () => new Keep({ y: null }, { output: "big", more: [new Keep({ y: 5n }), new Keep({ y: 6 }, { output: "big" })] }),
    () => DROP,
    () => new Drop([new Keep({ y: 9 })]),
    () => {
      throw new Reject("TOO_MUCH", "of it");
    },
    () => new Reject("RETURNED"),
  ];
  const [kept, routed, dropped, replaced, rejected, returned] = answers(({ x }) => ways[x](), numbered(6));
  assert.deepEqual(kept, { verdict: "keep", output: "main", values: { y: "1" }, more: [] });
  assert.deepEqual([routed.output, routed.values], ["big", { y: null }]);
  assert.deepEqual(routed.more.map((m) => [m.output, m.values.y]), [["main", "5"], ["big", "6"]]);
  assert.deepEqual(dropped, { verdict: "drop", more: [] });
  assert.deepEqual([replaced.verdict, replaced.more[0].values], ["drop", { y: "9" }]);
  assert.deepEqual([rejected.code, rejected.message], ["TOO_MUCH", "of it"]);
  assert.equal(returned.code, "RETURNED");
});

test("what goes wrong rejects that row alone and says what", () => {
  const wrong = [
    [() => undefined, /return an object .* DROP to leave the row out/],
    [() => ({ z: 1 }), /no value of `y`: null is null/],
    [() => ({ y: "1" }), /`y`: String for int64/],
    [() => ({ y: 1.5 }), /`y`: Number for int64/],
    [() => ({ y: 2 ** 60 }), /`y`: Number for int64/],
    [() => ({ y: 2n ** 63n }), /does not fit int64/],
    [() => ({ y: 1, z: 1 }), /does not compute `z`/],
    [() => new Keep({ y: 1 }, { output: "bgi" }), /no output `bgi`.*main, big/],
    [() => new Keep({ y: 1 }, { more: [{ y: 2 }] }), /not made by new Keep/],
    [() => null.x, /TypeError: .*transform\.test\.js:\d+/],
    [() => { throw 7; }, /thrown: 7/],
  ];
  const all = answers(({ x }) => (x < wrong.length ? wrong[x][0]() : { y: 7 }), numbered(wrong.length + 1));
  wrong.forEach(([, pattern], x) => {
    assert.equal(all[x].code, "TRANSFORM_EXCEPTION");
    assert.match(all[x].message, pattern);
  });
  assert.deepEqual(all.at(-1).values, { y: "7" });
});

test("a null where none may be is refused", () => {
  const [answer] = answers(() => ({ y: null }), [{ x: 1 }], { adds: { y: "int64 not null" } });
  assert.match(answer.message, /int64 not null/);
});

test("log and metrics", () => {
  const harness = new Harness(
    made(({ x }) => {
      log.warn("seen");
      metrics.count("rows");
      metrics.observe("x", x);
      return { y: 0 };
    }),
  );
  harness.apply(numbered(2));
  assert.deepEqual([harness.counters, harness.observed], [{ rows: 2 }, { x: [0, 1] }]);
  assert.deepEqual(harness.logs, [["warn", "seen"], ["warn", "seen"]]);
  assert.throws(() => harness.apply([{ xx: 1 }]), /does not read `xx`; it reads x/);
});

test("mistakes are found when the module is loaded", () => {
  assert.throws(() => made(() => DROP, { adds: { y: "int46" } }), /`int46` is not a type that can be computed/);
  assert.throws(() => made(() => DROP, { replaces: { y: "int64" } }), /both replaced and added/);
  assert.throws(() => made(() => DROP, { replace: {} }), /no option `replace`/);
  assert.equal(made(() => DROP, { reads: { x: optional("int8") } }).reads[0].optional, true);
});

test("what crosses comes back as it was", () => {
  const moment = new Date(-1);
  for (const [type, tag, value, crossed] of [
    ["bool", "booleans", true, true],
    ["int8", "integers", -128, -128],
    ["int64", "texts", -(2n ** 63n), String(-(2n ** 63n))],
    ["uint64 not null", "texts", 2n ** 64n - 1n, String(2n ** 64n - 1n)],
    ["float32", "numbers", 0.5, 0.5],
    ["string", "texts", "ä", "ä"],
    ["bytes", "blobs", Uint8Array.of(255), Uint8Array.of(255)],
    ["decimal(18,2)", "texts", "-1000.00", "-1000.00"],
    ["date", "integers", new Date(-86_400_000), -1],
    ["timestamp_ms", "texts", moment, "-1"],
    ["timestamp_us", "texts", -1n, "-1"],
    ["list<string>", "texts", ["a", null], '["a",null]'],
    ["map<int64>", "texts", { a: 1 }, '{"a":1}'],
  ]) {
    assert.equal(valuesCase(type), tag, type);
    assert.deepEqual(writer(type)(value), crossed, type);
    const read = reader(type);
    assert.deepEqual(read === null ? crossed : read(crossed), value, type);
  }
});

test("values of another type are refused", () => {
  for (const [type, value] of [
    ["string", 1],
    ["bytes", "a"],
    ["bool", 1],
    ["float64", "1"],
    ["uint8", -1],
    ["date", 5],
    ["timestamp_ms", new Date(NaN)],
    ["timestamp_us", 5],
    ["decimal(4,2)", 1.5],
  ]) {
    assert.throws(() => writer(type)(value), (error) => error instanceof TypeError || error instanceof RangeError, type);
  }
});
