import assert from "node:assert/strict";
import test from "node:test";

import { Harness } from "gristmill-transform/testing";

import transform from "./transform.js";

test("addresses become domains and large amounts are refused", () => {
  const harness = new Harness(transform, { most: 100 });
  const [kept, refused] = harness.apply([
    { amount: 100n, "customer.email": "ada@example.org" },
    { amount: 101n },
  ]);
  assert.equal(kept.values.email_domain, "example.org");
  assert.equal(refused.code, "AMOUNT_TOO_LARGE");
});
