// Attacks the host by what it answers: one attack a name, on rows whose `text` is `poison`.

import { Transform } from "gristmill-transform";

const keep = { tag: "keep" };
const fine = (rows) => ({
  verdicts: Array(rows).fill(keep),
  computed: [Array(rows).fill(1), Array(rows).fill("x"), Array(rows).fill("1.50"), Array(rows).fill('["a"]')],
});
const with_ = (column, value) => (rows) => {
  const answer = fine(rows);
  answer.computed[column] = Array(rows).fill(value);
  return answer;
};
const verdicts = (make) => (rows) => ({ ...fine(rows), verdicts: make(rows) });

const attacks = {
  "too-few-verdicts": verdicts((rows) => Array(rows - 1).fill(keep)),
  "too-many-verdicts": verdicts((rows) => Array(rows + 1).fill(keep)),
  "no-verdicts": verdicts(() => []),
  "emit-first": verdicts((rows) => [{ tag: "emit", val: 0 }, ...Array(rows).fill(keep)]),
  "emit-without-values": verdicts((rows) => [...Array(rows).fill(keep), { tag: "emit", val: 0 }]),
  "emit-bomb": verdicts((rows) => [...Array(rows).fill(keep), ...Array(100 * rows + 1).fill({ tag: "emit", val: 0 })]),
  "unknown-output": verdicts((rows) => Array(rows).fill({ tag: "route", val: 7 })),
  "output-out-of-range": verdicts((rows) => Array(rows).fill({ tag: "route", val: 4294967295 })),
  "too-few-values": (rows) => ({ ...fine(rows), computed: fine(rows).computed.map((c) => c.slice(1)) }),
  "too-many-values": (rows) => ({ ...fine(rows), computed: fine(rows).computed.map((c) => [...c, c[0]]) }),
  "too-few-columns": (rows) => ({ ...fine(rows), computed: fine(rows).computed.slice(0, 3) }),
  "narrow-integer": with_(0, 128),
  "null-where-none-may-be": with_(1, null),
  "decimal-of-too-many-digits": with_(2, "12345678.00"),
  "decimal-that-is-none": with_(2, "NaN"),
  "list-that-is-no-json": with_(3, '["a"'),
  "list-of-another-type": with_(3, "[1]"),
  "list-that-ends-its-document": with_(3, '["a"]},{"v":["b"]'),
  "huge-text": with_(1, "x".repeat(1 << 21)),
  "throws": () => {
    throw new Error("on purpose");
  },
  "throws-nothing-much": () => {
    throw null;
  },
  "loops": () => {
    for (;;);
  },
  "hoards": () => {
    const all = [];
    for (;;) all.push(new Uint8Array(1 << 20));
  },
  "recurses": () => {
    const down = (n) => down(n + 1) + 1;
    return down(0);
  },
};

const bindings = {
  "reads-nothing-there": { reads: [{ path: "texd", type: "string", optional: false }] },
  "reads-as-another-type": { reads: [{ path: "text", type: "int64", optional: false }] },
  "reads-as-not-null": { reads: [{ path: "text", type: "string not null", optional: false }] },
  "reads-twice": { reads: [{ path: "text", type: "string", optional: false }, { path: "text", type: "string", optional: false }] },
  "removes-nothing-there": { removes: ["nobody"] },
  "removes-nothing-often": { removes: Array.from({ length: 5000 }, (_, i) => `nobody${i}`) },
  "removes-too-much": { removes: Array.from({ length: 20000 }, () => "nobody") },
  "removes-all": { removes: ["text"], adds: {} },
  "renames-to-nothing": { renames: { text: "" } },
  "renames-to-another": { renames: { text: "narrow" } },
  "adds-no-type": { adds: { narrow: "int46" } },
  "adds-a-struct": { adds: { narrow: "struct" } },
  "adds-a-name-twice": { adds: { text: "int8" } },
  "replaces-nothing-there": { replaces: { texd: "string" } },
  "replaces-and-removes": { replaces: { text: "string" }, removes: ["text"] },
};

class Hostile extends Transform {
  bind(config) {
    Object.assign(this, bindings[config.attack] ?? {});
    const attack = attacks[config.attack];
    return {
      apply: ([texts], rows) => (texts.includes("poison") && attack !== undefined ? attack(rows) : fine(rows)),
    };
  }
}

export default new Hostile({
  name: "simple-hostile",
  version: "0.1.0",
  description: "Attacks the host.",
  config: { type: "object", properties: { attack: { type: "string" } }, required: ["attack"] },
  reads: [{ path: "text", type: "string", optional: false }],
  replaces: {},
  adds: { narrow: "int8", name: "string not null", price: "decimal(4,2)", tags: "list<string>" },
  removes: [],
  renames: {},
  outputs: { other: "" },
  computed: ["int8", "string not null", "decimal(4,2)", "list<string>"].map((type) => ({ type })),
});
