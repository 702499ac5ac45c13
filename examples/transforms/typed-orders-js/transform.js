// Orders as typed rows, whatever they were encoded in: the e-mail address masked, test orders left out, large orders apart,
// and columns added. The same as `typed-orders`, in JavaScript.

import { DROP, Keep, Reject, metrics, optional, transform } from "gristmill-transform";

export default transform(
  {
    name: "typed-orders-js",
    version: "0.1.0",
    description:
      "Masks e-mail addresses but for their domains, drops test orders, and sends large ones to an output of their own.",
    config: {
      type: "object",
      properties: {
        high_value_cents: {
          type: "integer",
          minimum: 0,
          description: "Orders of this amount and above go to the output high_value.",
        },
      },
      required: ["high_value_cents"],
      additionalProperties: false,
    },
    outputs: { high_value: "orders of a large amount" },
    reads: {
      amount_cents: "int64 not null",
      "customer.email": "string",
      test: optional("bool"),
      _kafka_timestamp: optional("timestamp_ms"),
    },
    replaces: { "customer.email": "string" },
    adds: { email_domain: "string", received_at: "timestamp_ms" },
    removes: ["customer.card"],
    renames: { created_at: "ordered_at" },
  },
  (row, { config }) => {
    if (row.test) {
      metrics.count("test_orders");
      return DROP;
    }
    if (row.amount_cents < 0n) {
      throw new Reject("NEGATIVE_AMOUNT", "amount_cents is below 0");
    }
    const email = row["customer.email"];
    const at = email === null ? -1 : email.lastIndexOf("@");
    const domain = at < 0 ? null : email.slice(at + 1);
    const values = {
      "customer.email": email === null ? null : `***@${domain ?? "***"}`,
      email_domain: domain,
      received_at: row._kafka_timestamp,
    };
    return row.amount_cents >= config.high_value_cents ? new Keep(values, { output: "high_value" }) : values;
  },
);
