// Write transforms for Gristmill in JavaScript: a function that is given a typed row as an object. See README.md.

import { nullable, writer, reader } from "./types.js";

/** The row is left out; rows may go on in its place. */
export class Drop {
  constructor(more = []) {
    this.more = more;
  }
}

/** The row is left out. */
export const DROP = Object.freeze(new Drop());

/** The row goes on, with these values of the computed columns. An object alone means the same, to the output `main`:
 * where it was going, if an earlier transform sent it elsewhere. */
export class Keep {
  constructor(values = {}, { output = null, more = [] } = {}) {
    this.values = values;
    this.output = output;
    this.more = more;
  }
}

/** Throw or return it: the row becomes a dead letter. */
export class Reject extends Error {
  constructor(code, message = "") {
    super(message);
    this.name = "Reject";
    this.code = code;
  }
}

class Optional {
  constructor(type) {
    this.type = type;
  }
}

/** The column is null where there is no such column; without it the pipeline does not start. */
export function optional(type) {
  return new Optional(type);
}

// Where log lines and metrics go: to the host, or to a test's harness.
export const sinks = { log: () => {}, count: () => {}, observe: () => {} };

const say = (level) => (message) => sinks.log(level, String(message));
/** Log lines. They count only if the batch is accepted. Do not log values of records. */
export const log = {
  trace: say("trace"),
  debug: say("debug"),
  info: say("info"),
  warn: say("warn"),
  error: say("error"),
};

/** Counters and histograms, by names that Prometheus takes. They count only if the batch is accepted. */
export const metrics = {
  count: (name, by = 1) => sinks.count(name, by),
  observe: (name, value) => sinks.observe(name, value),
};

/** What is thrown but no `Reject` rejects the row with this code. */
export const EXCEPTION = "TRANSFORM_EXCEPTION";

const typeOf = (read) => (read instanceof Optional ? read.type : read);

/** Makes a transform of a function of a row and a context; see index.d.ts. */
export function transform(options, apply) {
  const { name, version, description, reads = {}, replaces = {}, adds = {}, removes = [], renames = {}, outputs = {} } = options;
  const config = options.config ?? { type: "object", properties: {}, additionalProperties: false };
  const known = new Set(["name", "version", "description", "reads", "replaces", "adds", "removes", "renames", "outputs", "config"]);
  const unknown = Object.keys(options).find((option) => !known.has(option));
  if (unknown !== undefined) {
    throw new TypeError(`transform has no option \`${unknown}\`; it has ${[...known].join(", ")}`);
  }
  if (typeof apply !== "function") {
    throw new TypeError("the second argument of transform is a function of a row and a context");
  }
  const both = Object.keys(replaces).find((path) => path in adds);
  if (both !== undefined) {
    throw new TypeError(`${both} is both replaced and added`);
  }
  const computed = [...Object.entries(replaces), ...Object.entries(adds)].map(([path, type]) => ({
    path,
    type,
    write: writer(type),
    nullable: nullable(type),
  }));
  return new Transform({
    name,
    version,
    description,
    config,
    reads: Object.entries(reads).map(([path, read]) => ({ path, type: typeOf(read), optional: read instanceof Optional })),
    replaces,
    adds,
    removes,
    renames,
    outputs,
    computed,
    numbers: new Map([["main", 0], ...Object.keys(outputs).map((output, i) => [output, i + 1])]),
    apply,
  });
}

/** What `transform` makes. */
export class Transform {
  constructor(parts) {
    Object.assign(this, parts);
  }

  /** For a stream of these columns: a map of path to type. */
  bind(config, topic, partition, columns) {
    const context = Object.freeze({ config, topic, partition });
    const readers = this.reads.map(({ path }) => (columns.has(path) ? reader(columns.get(path)) : null));
    return new Plan(this, context, readers);
  }

  output(name) {
    if (name === null || name === undefined) return null;
    const number = this.numbers.get(name);
    if (number === undefined) {
      throw new TypeError(`there is no output \`${name}\`: the transform declares ${[...this.numbers.keys()].join(", ")}`);
    }
    return number;
  }

  /** One value for each computed column. */
  values(given) {
    // Plain loops: this is what an interpreter does most.
    const { computed } = this;
    const row = new Array(computed.length);
    for (let c = 0; c < computed.length; c += 1) {
      const column = computed[c];
      const value = given[column.path];
      if (value === undefined) throw new TypeError(`no value of \`${column.path}\`: null is null`);
      if (value !== null) {
        try {
          row[c] = column.write(value);
        } catch (error) {
          throw new TypeError(`\`${column.path}\`: ${error.message}`);
        }
      } else if (column.nullable) {
        row[c] = null;
      } else {
        throw new TypeError(`\`${column.path}\` is null, and it is \`${column.type}\``);
      }
    }
    let named = 0;
    for (const path in given) named += 1;
    if (named > computed.length) {
      const unknown = Object.keys(given).find((path) => !(path in this.replaces) && !(path in this.adds));
      throw new TypeError(`the transform does not compute \`${unknown}\`: name it in \`replaces\` or \`adds\``);
    }
    return row;
  }
}

const KEEP = Object.freeze({ tag: "keep" });

class Plan {
  constructor(transform, context, readers) {
    this.transform = transform;
    this.context = context;
    this.readers = readers;
  }

  /** The verdicts, as `{tag, val}` of the contract's variant, and the computed columns. */
  apply(columns, rows) {
    const { transform, context, readers } = this;
    const paths = transform.reads.map(({ path }) => path);
    const verdicts = [];
    const computed = transform.computed.map(() => []);
    for (let i = 0; i < rows; i += 1) {
      try {
        const row = {};
        for (let c = 0; c < columns.length; c += 1) {
          const value = columns[c] === null ? null : columns[c][i];
          row[paths[c]] = value === null || readers[c] === null ? value : readers[c](value);
        }
        this.judge(transform.apply(row, context), verdicts, computed);
      } catch (error) {
        const isReject = error instanceof Reject;
        const code = isReject ? String(error.code) : EXCEPTION;
        const message = isReject ? error.message : described(error);
        verdicts.push({ tag: "reject", val: { code, message } });
      }
    }
    return { verdicts, computed };
  }

  judge(answer, verdicts, computed) {
    const { transform } = this;
    if (answer instanceof Reject) throw answer;
    if (answer === null || typeof answer !== "object" || Array.isArray(answer)) {
      const what = answer === null ? "null" : Array.isArray(answer) ? "an array" : typeof answer;
      throw new TypeError(
        `the function returned ${what}: return an object of the computed columns, new Keep(..), or DROP to leave the row out`,
      );
    }
    if (!(answer instanceof Keep) && !(answer instanceof Drop)) {
      const values = transform.values(answer);
      for (let c = 0; c < values.length; c += 1) computed[c].push(values[c]);
      verdicts.push(KEEP);
      return;
    }
    const isDrop = answer instanceof Drop;
    const own = isDrop ? null : answer;
    const rows = [...(own === null ? [] : [own]), ...(isDrop ? answer.more : own.more)];
    // All or nothing: what fails half-way leaves no values behind.
    const going = rows.map((row) => {
      if (!(row instanceof Keep)) throw new TypeError("what is in `more` is not made by new Keep(..)");
      if (row !== own && row.more.length > 0) throw new TypeError("a row of `more` has a `more` of its own");
      return { output: transform.output(row.output), values: transform.values(row.values) };
    });
    for (const { values } of going) {
      values.forEach((value, c) => computed[c].push(value));
    }
    if (isDrop) {
      verdicts.push({ tag: "drop" });
    } else {
      const { output } = going.shift();
      verdicts.push(output === null ? KEEP : { tag: "route", val: output });
    }
    for (const { output } of going) {
      verdicts.push({ tag: "emit", val: output ?? 0 });
    }
  }
}

/** The error, and where it was thrown. */
export function described(error) {
  if (!(error instanceof Error)) return `thrown: ${String(error)}`;
  const frames = String(error.stack ?? "").split("\n").filter((line) => /:\d+/.test(line) && !line.includes("gristmill-transform"));
  const place = frames.length > 0 ? ` (${frames[0].trim().replace(/^at /, "")})` : "";
  return `${error.name}: ${error.message}${place}`;
}
