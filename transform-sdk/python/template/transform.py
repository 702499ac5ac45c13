"""Says in a sentence what the transform is for."""

from dataclasses import dataclass, field

from gristmill_transform import Reject, transform


@dataclass
class Settings:
    """What the pipeline file may say under `config`."""

    most: int = field(metadata={"description": "Amounts above this are refused."})


@transform(
    name="{{name}}",
    version="0.1.0",
    description="Replaces e-mail addresses by their domains, and refuses amounts that cannot be.",
    config=Settings,
    # Columns by name, members of structs by path. All that are not named go on as they are.
    reads={"amount": "int64 not null", "customer.email": "string"},
    replaces={"customer.email": "string"},
    adds={"email_domain": "string"},
)
def {{function}}(row, ctx):
    if row["amount"] > ctx.config.most:
        raise Reject("AMOUNT_TOO_LARGE", "the amount is above what is allowed")
    _, at, domain = (row["customer.email"] or "").rpartition("@")
    return {"customer.email": None, "email_domain": domain if at else None}
