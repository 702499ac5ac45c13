import { Row, Transform } from "./index.js";

/** What became of a row. */
export interface Answer {
  verdict: "keep" | "drop" | "reject";
  output?: string;
  /** The computed columns, as they cross: what takes 64 bits, decimals and what is nested as text. */
  values?: Row;
  code?: string;
  message?: string;
  /** Rows that were emitted with it. */
  more: Answer[];
}

/** Runs a transform natively, without WebAssembly. */
export class Harness {
  constructor(transform: Transform, config?: object, stream?: { topic?: string; partition?: number });
  readonly counters: Record<string, number>;
  readonly observed: Record<string, number[]>;
  readonly logs: [string, string][];
  apply(rows: Row[]): Answer[];
}
