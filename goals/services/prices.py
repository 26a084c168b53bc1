"""The price table: what a GPU-hour and a million tokens cost; an unknown price denies."""

from goals.models import Price
from governance.services.journal import append_record, journaled
from lineage.domain import Actor


def set_price(*, kind: str, name: str, micro_usd: int, actor: Actor) -> Price:
    """Set a price from now on: micro-USD per GPU-hour (kind `gpu`) or per million tokens.

    The same price again changes nothing.
    """
    newest = Price.objects.filter(kind=kind, name=name).order_by("-created_at").first()
    if newest is not None and newest.micro_usd == micro_usd:
        return newest
    with journaled():
        price = Price.objects.create(kind=kind, name=name, micro_usd=micro_usd, set_by=actor.id)
        append_record(
            action="price.set",
            actor=actor,
            object_kind="price",
            object_id=f"{kind}/{name}",
            namespace="",
            body={"micro_usd": str(micro_usd)},
        )
    return price
