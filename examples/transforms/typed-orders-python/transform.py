"""Orders as typed rows, whatever they were encoded in: the e-mail address masked, test orders left out, large orders apart,
and columns added. The same as `typed-orders`, in Python."""

from dataclasses import dataclass, field

from gristmill_transform import DROP, Keep, Reject, metrics, optional, transform


@dataclass
class Settings:
    """What the pipeline file may say."""

    high_value_cents: int = field(
        metadata={
            "minimum": 0,
            "description": "Orders of this amount and above go to the output high_value.",
        }
    )


@transform(
    name="typed-orders-python",
    version="0.1.0",
    description="Masks e-mail addresses but for their domains, drops test orders, and sends large ones to an output of their own.",
    config=Settings,
    outputs={"high_value": "orders of a large amount"},
    reads={
        "amount_cents": "int64 not null",
        "customer.email": "string",
        "test": optional("bool"),
        "_kafka_timestamp": optional("timestamp_ms"),
    },
    replaces={"customer.email": "string"},
    adds={"email_domain": "string", "received_at": "timestamp_ms"},
    removes=["customer.card"],
    renames={"created_at": "ordered_at"},
)
def typed_orders(row, ctx):
    if row["test"]:
        metrics.count("test_orders")
        return DROP
    if row["amount_cents"] < 0:
        raise Reject("NEGATIVE_AMOUNT", "amount_cents is below 0")
    email = row["customer.email"]
    _, at, domain = (email or "").rpartition("@")
    values = {
        "customer.email": None if email is None else f"***@{domain if at else '***'}",
        "email_domain": domain if at else None,
        "received_at": row["_kafka_timestamp"],
    }
    if row["amount_cents"] >= ctx.config.high_value_cents:
        return Keep(values, output="high_value")
    return values
