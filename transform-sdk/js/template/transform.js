// Says in a sentence what the transform is for.

import { Reject, transform } from "gristmill-transform";

export default transform(
  {
    name: "{{name}}",
    version: "0.1.0",
    description: "Replaces e-mail addresses by their domains, and refuses amounts that cannot be.",
    // A JSON Schema of what the pipeline file may say under `config`.
    config: {
      type: "object",
      properties: { most: { type: "integer", description: "Amounts above this are refused." } },
      required: ["most"],
      additionalProperties: false,
    },
    // Columns by name, members of structs by path. All that are not named go on as they are.
    reads: { amount: "int64 not null", "customer.email": "string" },
    replaces: { "customer.email": "string" },
    adds: { email_domain: "string" },
  },
  (row, { config }) => {
    // An int64 is a BigInt.
    if (row.amount > config.most) {
      throw new Reject("AMOUNT_TOO_LARGE", "the amount is above what is allowed");
    }
    const email = row["customer.email"] ?? "";
    const at = email.lastIndexOf("@");
    return { "customer.email": null, email_domain: at < 0 ? null : email.slice(at + 1) };
  },
);
