"""Write transforms for Gristmill in Python: a function that is given a typed row as a dict.

    from gristmill_transform import DROP, Keep, Reject, optional, transform

    @transform(
        name="mask-orders",
        version="0.1.0",
        description="Masks e-mail addresses and leaves test orders out.",
        reads={"customer.email": "string", "test": optional("bool")},
        replaces={"customer.email": "string"},
    )
    def mask(row, ctx):
        if row["test"]:
            return DROP
        return {"customer.email": "***"}

`gristmill transform build` makes a WebAssembly component of it. The function must not remember anything from one row to the
next: batches are cut anywhere, and instances are replaced at any time.

What a value is in Python:

    ======================================  ==========================================================
    ``bool``, ``string``, ``bytes``         ``bool``, ``str``, ``bytes``
    ``int8`` .. ``uint64``                  ``int``
    ``float32``, ``float64``                ``float``
    ``decimal(p,s)``                        ``decimal.Decimal``
    ``date``, ``timestamp_s|ms|us``         ``datetime.date``, ``datetime.datetime`` in UTC
    ``timestamp_ns``, times, others         ``int``, in the unit of the type
    ``struct``, ``list<T>``, ``map<T>``     what ``json.loads`` gives, decimals inside as ``str``; structs are
                                            read, not computed
    ======================================  ==========================================================
"""

from . import log, metrics
from ._transform import Context, Read, Transform, optional, transform
from ._verdict import DROP, Drop, Keep, Reject

__all__ = [
    "DROP",
    "Context",
    "Drop",
    "Keep",
    "Read",
    "Reject",
    "Transform",
    "log",
    "metrics",
    "optional",
    "transform",
]
