import unittest

from gristmill_transform.testing import Harness

from transform import {{function}}


class Test(unittest.TestCase):
    def test_addresses_become_domains_and_large_amounts_are_refused(self):
        harness = Harness({{function}}, {"most": 100})
        kept, refused = harness.apply([{"amount": 100, "customer.email": "ada@example.org"}, {"amount": 101}])
        self.assertEqual(kept.values["email_domain"], "example.org")
        self.assertEqual(refused.code, "AMOUNT_TOO_LARGE")
