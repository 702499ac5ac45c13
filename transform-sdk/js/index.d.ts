/** Write transforms for Gristmill in JavaScript: a function that is given a typed row as an object. */

/** A value of a column, by the type that the transform declared; see README.md. */
export type Value = any;
/** Values by dotted path. */
export type Row = Record<string, Value>;

/** What a transform knows besides the row. */
export interface Context<Config = any> {
  readonly config: Config;
  readonly topic: string;
  readonly partition: number;
}

/** The row goes on, with these values of the computed columns. An object alone means the same, to the output `main`:
 * where it was going, if an earlier transform sent it elsewhere. */
export class Keep {
  constructor(values?: Row, options?: { output?: string | null; more?: Keep[] });
  readonly values: Row;
  readonly output: string | null;
  /** Rows that go on besides, with the other columns of this row. */
  readonly more: Keep[];
}

/** The row is left out; rows may go on in its place. */
export class Drop {
  constructor(more?: Keep[]);
  readonly more: Keep[];
}

/** The row is left out. */
export const DROP: Drop;

/**
 * Throw or return it: the row becomes a dead letter. `code` is for machines, up to 64 visible ASCII characters; `message` for
 * people, up to 4,096 bytes.
 */
export class Reject extends Error {
  constructor(code: string, message?: string);
  readonly code: string;
}

/** A column that may be missing. */
export interface Optional {
  readonly type: string;
}

/** The column is null where there is no such column; without it the pipeline does not start. */
export function optional(type: string): Optional;

export interface Options {
  name: string;
  version: string;
  description: string;
  /** JSON Schema of the configuration; fields with `writeOnly: true` are secrets. */
  config?: object;
  /** Types of the columns that are read, by dotted path, as pipeline files write them: `int64`, `string not null`. */
  reads?: Record<string, string | Optional>;
  /** Columns that are replaced by computed ones. */
  replaces?: Record<string, string>;
  /** Computed columns that are put at the end. */
  adds?: Record<string, string>;
  removes?: string[];
  /** New names by path. */
  renames?: Record<string, string>;
  /** Outputs besides `main`, and what goes there. */
  outputs?: Record<string, string>;
}

export class Transform {
  private constructor();
}

/**
 * Makes a transform, which is the default export of transform.js. What the function throws but no `Reject` rejects the row with
 * the code `TRANSFORM_EXCEPTION`.
 */
export function transform<Config = any>(
  options: Options,
  apply: (row: Row, context: Context<Config>) => Row | Keep | Drop | Reject,
): Transform;

/** Log lines. They count only if the batch is accepted. Do not log values of records. */
export const log: Record<"trace" | "debug" | "info" | "warn" | "error", (message: string) => void>;

/** Counters and histograms, by names that Prometheus takes. They count only if the batch is accepted. */
export const metrics: {
  count(name: string, by?: number): void;
  observe(name: string, value: number): void;
};
