"""Metering: what attempts use is reserved ahead, settled from meters, and never overspent."""

import datetime as dt
from dataclasses import dataclass
from uuid import UUID

from django.db.models import F, Sum

from agents.models import Attempt
from goals.domain.states import EntryKind, Unit
from goals.models import Account, Goal, LedgerEntry, Price
from goals.services.lease import Lease, fenced
from goals.services.ledger import (
    NotCovered,
    Source,
    post_entry,
    reserve_up_to,
)
from lineage.domain import Actor, ActorKind

METER = Actor(ActorKind.SYSTEM, "meter")
# An attempt holds between LOW and CHUNK of allowance ahead: long enough that a restart of the
# control plane does not stop it, short enough that little is tied up in one attempt.
CHUNK_MS_PER_GPU = 10_000
LOW_MS_PER_GPU = 6_000
LEAST_MS_PER_GPU = 250  # below this a start or resume is not worth its overhead
MS_PER_HOUR = 3_600_000
ALLOWANCE_EXHAUSTED = "AllowanceExhausted"  # the cluster's reason, see WorkloadStatus
GPU_PRICE = "default"  # one price per GPU-hour for every card and slot of this cluster


class PriceUnknown(Exception):
    """Money is budgeted but something has no price: deny."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """What the budget could not cover."""

    unit: Unit
    wanted: int
    available: int
    attempt_uid: UUID | None
    why: str


def price_of(kind: str, name: str, *, at: dt.datetime | None = None) -> int:
    """Micro-USD per GPU-hour or per million tokens, as it stood at `at` (now when None).

    What was used before the first price was set costs that first price. Raises PriceUnknown.
    """
    prices = Price.objects.filter(kind=kind, name=name).order_by("-created_at")
    price = prices.filter(created_at__lte=at).first() if at is not None else prices.first()
    price = price or prices.last()
    if price is None:
        raise PriceUnknown(f"No price is set for {kind} {name!r}: set one before it is used.")
    return price.micro_usd


def account_or_none(goal: Goal, unit: Unit) -> Account | None:
    return Account.objects.filter(goal=goal, unit=unit).first()


def reserve_start(
    goal: Goal,
    *,
    gpus: int,
    key: str,
    attempt_uid: UUID | None = None,
    priced_at: dt.datetime | None = None,
) -> int:
    """Reserve a chunk for an attempt; GPU-milliseconds reserved (0 without GPUs).

    With money budgeted, no longer a chunk than the money covers at the price of `priced_at`. Runs
    in the caller's transaction. Raises NotCovered, PriceUnknown.
    """
    if gpus == 0:
        return 0
    account = account_or_none(goal, Unit.GPU_MS)
    least = gpus * LEAST_MS_PER_GPU
    if account is None:
        raise NotCovered(unit=Unit.GPU_MS, wanted=least, held=0)
    entry = reserve_up_to(
        account,
        amount=_affordable(goal, gpus * CHUNK_MS_PER_GPU, least, priced_at),
        least=least,
        key=key,
        source=Source(actor=METER, attempt_uid=attempt_uid, note="ahead of use"),
    )
    _reserve_money(goal, entry.amount, f"{key}:usd", attempt_uid, priced_at)
    return entry.amount


def _affordable(goal: Goal, gpu_ms: int, least: int, priced_at: dt.datetime | None) -> int:
    """How much of `gpu_ms` the money covers. Raises NotCovered when less than `least`."""
    money = account_or_none(goal, Unit.MICRO_USD)
    if money is None:
        return gpu_ms
    price = price_of("gpu", GPU_PRICE, at=priced_at)
    affordable = money.available * MS_PER_HOUR // price if price else gpu_ms
    if affordable < least:
        cost = gpu_cost(least, priced_at)
        raise NotCovered(unit=Unit.MICRO_USD, wanted=cost, held=money.available)
    return min(gpu_ms, affordable)


def _reserve_money(
    goal: Goal, gpu_ms: int, key: str, attempt_uid: UUID | None, priced_at: dt.datetime | None
) -> None:
    account = account_or_none(goal, Unit.MICRO_USD)
    cost = gpu_cost(gpu_ms, priced_at) if account is not None else 0
    if account is not None and cost:
        post_entry(
            account,
            kind=EntryKind.RESERVE,
            amount=cost,
            key=key,
            source=Source(actor=METER, attempt_uid=attempt_uid, note=f"{gpu_ms} GPU-ms"),
        )


def gpu_cost(gpu_ms: int, priced_at: dt.datetime | None = None) -> int:
    """Micro-USD of GPU time, rounded up. Raises PriceUnknown."""
    return -(-gpu_ms * price_of("gpu", GPU_PRICE, at=priced_at) // MS_PER_HOUR)


def settle_gpu(goal: Goal, attempt: Attempt) -> None:
    """Settle metered GPU time up to the allowance, in the caller's transaction.

    Repeating it settles nothing.
    """
    metered = min(attempt.gpu_ms, attempt.gpu_allowance_ms)
    used = metered - attempt.gpu_settled_ms
    if used <= 0:
        return
    source = Source(actor=METER, attempt_uid=attempt.uid, note="metered by the cluster")
    account = Account.objects.get(goal=goal, unit=Unit.GPU_MS)
    key = f"{attempt.uid}:gpu:{metered}"
    post_entry(account, kind=EntryKind.SETTLE, amount=used, key=key, source=source)
    _settle_money(goal, attempt, before=attempt.gpu_settled_ms, after=metered, key=key)
    Attempt.objects.filter(pk=attempt.pk).update(gpu_settled_ms=metered)
    attempt.gpu_settled_ms = metered


def _settle_money(goal: Goal, attempt: Attempt, *, before: int, after: int, key: str) -> None:
    account = account_or_none(goal, Unit.MICRO_USD)
    if account is None:
        return
    at = attempt.created_at
    cost = min(gpu_cost(after, at) - gpu_cost(before, at), held_by(account, attempt.uid))
    if cost > 0:
        post_entry(
            account,
            kind=EntryKind.SETTLE,
            amount=cost,
            key=f"{key}:usd",
            source=Source(actor=METER, attempt_uid=attempt.uid, note=f"{after - before} GPU-ms"),
        )


def top_up(goal: Goal, attempt: Attempt, lease: Lease) -> Shortage | None:
    """Reserve another chunk for a running attempt that runs low; a shortage when none is left."""
    ahead = attempt.gpu_allowance_ms - attempt.gpu_ms
    if attempt.gpus == 0 or attempt.is_finished or ahead >= attempt.gpus * LOW_MS_PER_GPU:
        return None
    key = f"{attempt.uid}:reserve:{attempt.gpu_allowance_ms}"
    try:
        with fenced(lease):
            more = reserve_start(
                goal,
                gpus=attempt.gpus,
                key=key,
                attempt_uid=attempt.uid,
                priced_at=attempt.created_at,
            )
            Attempt.objects.filter(pk=attempt.pk).update(
                gpu_allowance_ms=F("gpu_allowance_ms") + more
            )
    except NotCovered as error:
        if attempt.reason != ALLOWANCE_EXHAUSTED:
            return None  # it may use up what it holds; the cluster stops it at the end
        unit = Unit(error.unit)
        return Shortage(unit, error.wanted, error.held, attempt.uid, "The budget is used up.")
    attempt.gpu_allowance_ms += more
    return None


def release_attempt(goal: Goal, attempt: Attempt) -> None:
    """Give back what a finished attempt had reserved and not used, in the caller's transaction.

    Repeating it gives nothing.
    """
    for account in goal.accounts.all():
        release_held(account, attempt.uid)
    if attempt.gpu_allowance_ms != attempt.gpu_settled_ms:
        Attempt.objects.filter(pk=attempt.pk).update(gpu_allowance_ms=F("gpu_settled_ms"))
        attempt.gpu_allowance_ms = attempt.gpu_settled_ms


def release_all(goal: Goal) -> None:
    """Give back whatever any attempt of a landing Goal still holds, in the caller's transaction."""
    for account in goal.accounts.filter(reserved__gt=0):
        holders = account.entries.filter(attempt_uid__isnull=False)
        for attempt_uid in holders.order_by().values_list("attempt_uid", flat=True).distinct():
            if attempt_uid is not None:
                release_held(account, attempt_uid)


def release_held(account: Account, attempt_uid: UUID) -> None:
    """Release what an attempt holds of one account, in the caller's transaction."""
    held = held_by(account, attempt_uid)
    if held > 0:
        released = account.entries.filter(attempt_uid=attempt_uid, kind=EntryKind.RELEASE).count()
        post_entry(
            account,
            kind=EntryKind.RELEASE,
            amount=held,
            key=f"{attempt_uid}:release:{account.unit}:{released}",
            source=Source(actor=METER, attempt_uid=attempt_uid, note="not used"),
        )


def held_by(account: Account, attempt_uid: UUID) -> int:
    """What an attempt has reserved and neither settled nor released."""
    sums = dict(
        LedgerEntry.objects.filter(account=account, attempt_uid=attempt_uid)
        .order_by()
        .values_list("kind")
        .annotate(total=Sum("amount"))
    )
    return int(
        sums.get(EntryKind.RESERVE, 0)
        - sums.get(EntryKind.SETTLE, 0)
        - sums.get(EntryKind.RELEASE, 0)
    )


def soft_limit_condition(goal: Goal) -> tuple[bool, str, str] | None:
    """Status, reason and message of condition BudgetAvailable; None without any account."""
    soft = int(goal.spec.get("throttle", {}).get("softLimitPercent", 80))
    worst: tuple[float, Account] | None = None
    for account in goal.accounts.all():
        share = _share(account)
        if worst is None or share > worst[0]:
            worst = (share, account)
    if worst is None:
        return None
    share, account = worst
    if share < soft:
        return True, "WithinBudget", ""
    return share < 100, "SoftLimitReached", f"{share:.0f} % of {account.unit} is spent."


def _share(account: Account) -> float:
    """How much of an account is spent, in percent."""
    spent = account.settled + account.overrun
    if account.limit == 0:
        return 100.0 if spent else 0.0
    return 100 * spent / account.limit
