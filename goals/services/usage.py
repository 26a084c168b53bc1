"""Token usage: what attempts report after the fact is settled, priced, and never overspent."""

import hashlib
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Sum

from agents.models import Attempt
from goals.domain.states import EntryKind, Unit
from goals.models import Account, Goal, LedgerEntry
from goals.services.lease import Lease, fenced
from goals.services.ledger import BIGGEST_AMOUNT, Source, post_entry
from goals.services.metering import METER, Shortage, account_or_none, held_by, price_of
from governance.services.journal import append_record
from lineage.telemetry.base import TokenUsage

TOKENS_PER_PRICE = 1_000_000
MODEL_HASH_LENGTH = 16  # of a model's name in a ledger key: agents choose the names


@dataclass(frozen=True, slots=True)
class _Meter:
    """One cumulative count: `total` of `unit` that an attempt used with one model so far."""

    account: Account
    usage: TokenUsage
    attempt_uid: UUID
    total: int

    @property
    def prefix(self) -> str:
        digest = hashlib.sha256(self.usage.model.encode("utf-8", "surrogatepass")).hexdigest()
        name = f"{self.account.unit}:{digest[:MODEL_HASH_LENGTH]}"
        return f"{self.usage.attempt_uid}:used:{name}:"

    @property
    def source(self) -> Source:
        return Source(
            actor=METER,
            attempt_uid=self.attempt_uid,
            span_id=self.usage.last_span_id,
            note=self.usage.model[:255],
        )


def settle_tokens(goal: Goal, usage: TokenUsage, lease: Lease) -> list[Shortage]:
    """Settle the tokens an attempt reported for one model, and their price if money is budgeted.

    Only what is new since last time. Tokens are reported after they were used: what neither the
    attempt's reservation nor the rest of the budget covers is kept as overrun and stops the Goal.
    Raises PriceUnknown once the tokens themselves are settled.
    """
    attempt = _attempt_of(goal, usage)
    if attempt is None:
        return []
    total = usage.input_tokens + usage.output_tokens
    with fenced(lease):
        account, _ = Account.objects.get_or_create(goal=goal, unit=Unit.TOKENS)
        short = [_settle(goal, _Meter(account, usage, attempt.uid, total))]
    money = account_or_none(goal, Unit.MICRO_USD)
    if money is not None and total > 0:
        cost = token_cost(usage, attempt)
        with fenced(lease):
            short.append(_settle(goal, _Meter(money, usage, attempt.uid, cost)))
    return [one for one in short if one is not None]


def _attempt_of(goal: Goal, usage: TokenUsage) -> Attempt | None:
    try:
        uid = UUID(usage.attempt_uid)
    except ValueError:
        return None  # no attempt's span: nobody to charge
    return Attempt.objects.filter(goal_uid=goal.uid, pk=uid).first()


def token_cost(usage: TokenUsage, attempt: Attempt) -> int:
    """Micro-USD of a usage at the prices in force when the attempt began. Raises PriceUnknown."""
    at = attempt.created_at
    cost = 0
    for kind, tokens in (
        ("input_token", usage.input_tokens),
        ("output_token", usage.output_tokens),
    ):
        if tokens > 0:
            cost += tokens * price_of(kind, usage.model, at=at)
    return -(-cost // TOKENS_PER_PRICE)


def _settle(goal: Goal, meter: _Meter) -> Shortage | None:
    """Settle what is new of one meter; what is not covered is an overrun and a shortage."""
    counted = int(
        LedgerEntry.objects.filter(
            account=meter.account,
            kind=EntryKind.SETTLE,
            attempt_uid=meter.attempt_uid,
            idempotency_key__startswith=meter.prefix,
        ).aggregate(total=Sum("amount"))["total"]
        or 0
    )
    fresh = min(meter.total, BIGGEST_AMOUNT) - counted
    covered = _cover(meter, fresh, counted) if fresh > 0 else 0
    missing = max(fresh - covered, 0)
    _record_overrun(goal, meter, missing)
    if missing == 0:
        return None
    unit = Unit(meter.account.unit)
    return Shortage(unit, missing, 0, meter.attempt_uid, f"More {unit} were used than are covered.")


def _cover(meter: _Meter, amount: int, counted: int) -> int:
    """Settle up to `amount` from the attempt's reservation and the rest of the budget.

    The keys name how much was settled before: it only grows, so no key can come to mean another
    amount, and a repeat of the same settlement is refused by the count itself.
    """
    account, source, key = meter.account, meter.source, f"{meter.prefix}{counted}"
    held = 0
    if account.unit == Unit.TOKENS:  # money an attempt holds is for its GPUs
        held = min(held_by(account, meter.attempt_uid), amount)
    account.refresh_from_db()
    rest = min(amount - held, account.available)
    if rest > 0:
        post_entry(
            account, kind=EntryKind.RESERVE, amount=rest, key=f"{key}:reserve", source=source
        )
    covered = held + max(rest, 0)
    if covered > 0:
        post_entry(account, kind=EntryKind.SETTLE, amount=covered, key=key, source=source)
    return covered


def _record_overrun(goal: Goal, meter: _Meter, amount: int) -> None:
    """Keep what is not covered; a later grant covers it first."""
    unit = meter.account.unit
    key = f"{unit}:{meter.usage.attempt_uid}:{meter.usage.model}"
    if goal.overruns.get(key, 0) == amount:
        return
    overruns = {**goal.overruns, key: amount}
    Goal.objects.filter(pk=goal.pk).update(overruns=overruns)
    goal.overruns = overruns
    total = sum(value for name, value in overruns.items() if name.startswith(f"{unit}:"))
    Account.objects.filter(pk=meter.account.pk).update(overrun=min(total, BIGGEST_AMOUNT))
    append_record(
        action="ledger.overrun",
        actor=METER,
        object_kind="goal",
        object_id=str(goal.uid),
        namespace=goal.namespace,
        goal_uid=goal.uid,
        body={
            "unit": unit,
            "amount": str(amount),
            "attempt": meter.usage.attempt_uid,
            "model": meter.usage.model,
            "span": meter.usage.last_span_id,
        },
    )
