// Values as they cross the sandbox's border, and as JavaScript has them.

const BITS = /^(u?)int(8|16|32|64)$/;

/** A type without `not null`. */
export const base = (type) => type.replace(/\s*not null\s*$/, "").trim();

export const nullable = (type) => !/not null\s*$/.test(type);

const isNested = (kind) => kind.startsWith("list<") || kind.startsWith("map<") || kind === "struct";

/** In which kind of list values of this type cross. */
export function valuesCase(type) {
  const kind = base(type);
  if (kind === "bool") return "booleans";
  if (kind === "float32" || kind === "float64") return "numbers";
  if (kind === "bytes" || kind.startsWith("fixed(")) return "blobs";
  if (kind === "uint64") return "texts";
  if (kind === "int64" || /^(date64|(local_)?timestamp_.*|time_[un]s)$/.test(kind)) return "texts";
  if (BITS.test(kind) || /^(date|time_m?s)$/.test(kind)) return "integers";
  return "texts";
}

/** What makes a JavaScript value of one that crossed; null where it is one already. */
export function reader(type) {
  const kind = base(type);
  const bits = BITS.exec(kind);
  // What takes 64 bits crosses as digits: a number of JavaScript holds 53.
  if (bits !== null) return bits[2] === "64" ? BigInt : null;
  if (/^(local_)?timestamp_ms$/.test(kind)) return (value) => new Date(Number(value));
  if (kind === "date") return (value) => new Date(value * 86_400_000);
  if (/^(date64|(local_)?time(stamp)?_[un]?s)$/.test(kind)) return BigInt;
  if (valuesCase(kind) === "blobs") return (value) => Uint8Array.from(value);
  if (isNested(kind)) return JSON.parse;
  return null;
}

function wrong(value, type) {
  const what = value === null ? "null" : Array.isArray(value) ? "an array" : (value.constructor?.name ?? typeof value);
  return new TypeError(`${what} for ${type}`);
}

/** What makes of a JavaScript value one that crosses; throws where it is of another type. */
export function writer(type) {
  const kind = base(type);
  const bits = BITS.exec(kind);
  if (bits !== null) {
    const width = Number(bits[2]);
    const [low, high] = bits[1] === "u" ? [0n, 1n << BigInt(width)] : [-(1n << BigInt(width - 1)), 1n << BigInt(width - 1)];
    return (value) => {
      const isWhole = typeof value === "bigint" || Number.isSafeInteger(value);
      if (!isWhole) throw wrong(value, type);
      const integer = BigInt(value);
      if (integer < low || integer >= high) throw new RangeError(`${value} does not fit ${kind}`);
      return width === 64 ? String(integer) : Number(integer);
    };
  }
  const exactly = (name) => (value) => {
    if (typeof value !== name) throw wrong(value, type);
    return value;
  };
  if (kind === "bool") return exactly("boolean");
  if (kind === "string") return exactly("string");
  if (kind === "float32" || kind === "float64") return exactly("number");
  if (kind === "bytes") {
    return (value) => {
      if (!(value instanceof Uint8Array)) throw wrong(value, type);
      return value;
    };
  }
  const milliseconds = (value) => {
    if (!(value instanceof Date) || Number.isNaN(value.getTime())) throw wrong(value, type);
    return value.getTime();
  };
  if (kind === "date") return (value) => Math.floor(milliseconds(value) / 86_400_000);
  if (kind === "timestamp_ms") return (value) => String(milliseconds(value));
  if (/^timestamp_(s|us|ns)$/.test(kind)) return (value) => String(exactly("bigint")(value));
  if (kind.startsWith("decimal(")) {
    return (value) => {
      if (typeof value !== "string" && typeof value !== "bigint") throw wrong(value, type);
      return String(value);
    };
  }
  if (isNested(kind) && kind !== "struct") return (value) => JSON.stringify(value);
  throw new TypeError(`\`${type}\` is not a type that can be computed`);
}
