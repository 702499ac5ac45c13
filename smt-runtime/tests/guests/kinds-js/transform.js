// Copies a column of each type, so that a test sees what becomes of values on the way in and out.

import { transform } from "gristmill-transform";

const types = {
  bool: "bool",
  int8: "int8",
  int16: "int16",
  int32: "int32",
  int64: "int64",
  uint8: "uint8",
  uint16: "uint16",
  uint32: "uint32",
  uint64: "uint64",
  float32: "float32",
  float64: "float64",
  string: "string",
  bytes: "bytes",
  decimal: "decimal(18,2)",
  date: "date",
  timestamp_s: "timestamp_s",
  timestamp_ms: "timestamp_ms",
  timestamp_us: "timestamp_us",
  timestamp_ns: "timestamp_ns",
  list: "list<string>",
  map: "map<int64>",
  prices: "list<decimal(38,4)>",
};

export default transform(
  { name: "kinds-js", version: "0.1.0", description: "Copies a column of each type.", reads: types, replaces: types },
  (row) => row,
);
