// Runs a transform natively, without WebAssembly, for the tests of its author.

import { sinks } from "./index.js";

/** A transform with a configuration. */
export class Harness {
  constructor(transform, config = {}, { topic = "test", partition = 0 } = {}) {
    this.transform = transform;
    // Rows come as the function gets them: nothing is to be converted.
    this.plan = transform.bind(config, topic, partition, new Map());
    this.counters = {};
    this.observed = {};
    this.logs = [];
  }

  /** One answer for each row. A column that the row does not have is null; one that is not read is refused. */
  apply(rows) {
    const { reads, computed, numbers } = this.transform;
    for (const row of rows) {
      const unknown = Object.keys(row).find((path) => !reads.some((read) => read.path === path));
      if (unknown !== undefined) {
        throw new TypeError(`the transform does not read \`${unknown}\`; it reads ${reads.map((r) => r.path).join(", ")}`);
      }
    }
    const before = { ...sinks };
    sinks.log = (level, message) => this.logs.push([level, message]);
    sinks.count = (name, by) => (this.counters[name] = (this.counters[name] ?? 0) + Number(by));
    sinks.observe = (name, value) => (this.observed[name] ??= []).push(value);
    let answer;
    try {
      answer = this.plan.apply(reads.map(({ path }) => rows.map((row) => row[path] ?? null)), rows.length);
    } finally {
      Object.assign(sinks, before);
    }
    const names = [...numbers.keys()];
    let next = 0;
    const answers = [];
    for (const { tag, val } of answer.verdicts) {
      if (tag === "reject") {
        answers.push({ verdict: "reject", code: val.code, message: val.message, more: [] });
      } else if (tag === "drop") {
        answers.push({ verdict: "drop", more: [] });
      } else {
        const values = Object.fromEntries(computed.map(({ path }, c) => [path, answer.computed[c][next]]));
        next += 1;
        const kept = { verdict: "keep", output: names[val ?? 0], values, more: [] };
        (tag === "emit" ? answers.at(-1).more : answers).push(kept);
      }
    }
    return answers;
  }
}
