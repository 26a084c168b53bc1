"""Metering: what attempts use is reserved ahead, settled from meters, and never overspent."""

from dataclasses import dataclass
from uuid import UUID

from django.db.models import F, Sum

from agents.models import Attempt
from goals.domain.states import EntryKind, Unit
from goals.models import Account, Goal, LedgerEntry, Price
from goals.services.conditions import set_condition
from goals.services.lease import Lease, fenced
from goals.services.ledger import (
    NotCovered,
    Source,
    post_entry,
    reserve_up_to,
)
from governance.services.journal import append_record
from lineage.domain import Actor, ActorKind
from lineage.telemetry.base import TokenUsage

METER = Actor(ActorKind.SYSTEM, "meter")
# An attempt holds between LOW and CHUNK of allowance ahead: long enough that a restart of the
# control plane does not stop it, short enough that little is tied up in one attempt.
CHUNK_MS_PER_GPU = 10_000
LOW_MS_PER_GPU = 6_000
LEAST_MS_PER_GPU = 250  # below this a start or resume is not worth its overhead
MS_PER_HOUR = 3_600_000
TOKENS_PER_PRICE = 1_000_000
ALLOWANCE_EXHAUSTED = "AllowanceExhausted"  # the cluster's reason, see WorkloadStatus
DECLARED_GPU = "declared"  # price name of GPU slots that are only declared


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


def price_of(kind: str, name: str) -> int:
    """Micro-USD per GPU-hour or per million tokens. Raises PriceUnknown."""
    price = Price.objects.filter(kind=kind, name=name).order_by("-created_at").first()
    if price is None:
        raise PriceUnknown(f"No price is set for {kind} {name!r}: set one before it is used.")
    return price.micro_usd


def account_or_none(goal: Goal, unit: Unit) -> Account | None:
    return Account.objects.filter(goal=goal, unit=unit).first()


def reserve_start(goal: Goal, *, gpus: int, key: str, attempt_uid: UUID | None = None) -> int:
    """Reserve the first chunk of an attempt; GPU-milliseconds reserved (0 without GPUs).

    Runs in the caller's transaction. Raises NotCovered, PriceUnknown.
    """
    if gpus == 0:
        return 0
    account = account_or_none(goal, Unit.GPU_MS)
    if account is None:
        raise NotCovered(unit=Unit.GPU_MS, wanted=gpus * LEAST_MS_PER_GPU, held=0)
    entry = reserve_up_to(
        account,
        amount=gpus * CHUNK_MS_PER_GPU,
        least=gpus * LEAST_MS_PER_GPU,
        key=key,
        source=Source(actor=METER, attempt_uid=attempt_uid, note="start"),
    )
    _reserve_money(goal, gpu_ms=entry.amount, key=f"{key}:usd", attempt_uid=attempt_uid)
    return entry.amount


def _reserve_money(goal: Goal, *, gpu_ms: int, key: str, attempt_uid: UUID | None) -> None:
    account = account_or_none(goal, Unit.MICRO_USD)
    if account is None:
        return
    cost = _gpu_cost(gpu_ms)
    if cost:
        post_entry(
            account,
            kind=EntryKind.RESERVE,
            amount=cost,
            key=key,
            source=Source(actor=METER, attempt_uid=attempt_uid, note=f"{gpu_ms} GPU-ms"),
        )


def _gpu_cost(gpu_ms: int) -> int:
    """Micro-USD of GPU time, rounded up."""
    return -(-gpu_ms * price_of("gpu", DECLARED_GPU) // MS_PER_HOUR)


def meter_gpu(goal: Goal, attempt: Attempt, lease: Lease) -> Shortage | None:
    """Settle what an attempt has used and top its allowance up; a shortage if that fails."""
    if attempt.gpus == 0:
        return None
    settle_gpu(goal, attempt, lease)
    if attempt.is_finished:
        release_gpu(goal, attempt, lease)
        return None
    return _top_up(goal, attempt, lease)


def settle_gpu(goal: Goal, attempt: Attempt, lease: Lease) -> None:
    """Settle metered GPU time up to the allowance; repeating it settles nothing."""
    metered = min(attempt.gpu_ms, attempt.gpu_allowance_ms)
    used = metered - attempt.gpu_settled_ms
    if used <= 0:
        return
    with fenced(lease):
        source = Source(actor=METER, attempt_uid=attempt.uid, note="metered by the cluster")
        account = Account.objects.get(goal=goal, unit=Unit.GPU_MS)
        key = f"{attempt.uid}:gpu:{metered}"
        post_entry(account, kind=EntryKind.SETTLE, amount=used, key=key, source=source)
        _settle_money(goal, attempt, before=attempt.gpu_settled_ms, after=metered, key=key)
        Attempt.objects.filter(pk=attempt.pk, gpu_settled_ms=attempt.gpu_settled_ms).update(
            gpu_settled_ms=metered
        )
    attempt.gpu_settled_ms = metered


def _settle_money(goal: Goal, attempt: Attempt, *, before: int, after: int, key: str) -> None:
    account = account_or_none(goal, Unit.MICRO_USD)
    if account is None:
        return
    cost = min(_gpu_cost(after) - _gpu_cost(before), held_by(account, attempt.uid))
    if cost > 0:
        post_entry(
            account,
            kind=EntryKind.SETTLE,
            amount=cost,
            key=f"{key}:usd",
            source=Source(actor=METER, attempt_uid=attempt.uid, note=f"{after - before} GPU-ms"),
        )


def _top_up(goal: Goal, attempt: Attempt, lease: Lease) -> Shortage | None:
    ahead = attempt.gpu_allowance_ms - attempt.gpu_ms
    if ahead >= attempt.gpus * LOW_MS_PER_GPU:
        return None
    key = f"{attempt.uid}:reserve:{attempt.gpu_allowance_ms}"
    try:
        with fenced(lease):
            more = reserve_start(goal, gpus=attempt.gpus, key=key, attempt_uid=attempt.uid)
            Attempt.objects.filter(pk=attempt.pk, gpu_allowance_ms=attempt.gpu_allowance_ms).update(
                gpu_allowance_ms=F("gpu_allowance_ms") + more
            )
    except NotCovered as error:
        if attempt.reason != ALLOWANCE_EXHAUSTED:
            return None  # it may use up what it holds; the cluster stops it at the end
        unit = Unit(error.unit)
        return Shortage(unit, error.wanted, error.held, attempt.uid, "The budget is used up.")
    attempt.gpu_allowance_ms += more
    return None


def release_gpu(goal: Goal, attempt: Attempt, lease: Lease) -> None:
    """Give back what a finished attempt had reserved and not used; repeating it gives nothing."""
    with fenced(lease):
        for unit in (Unit.GPU_MS, Unit.MICRO_USD):
            _release_held(goal, attempt, unit)
        Attempt.objects.filter(pk=attempt.pk).update(gpu_allowance_ms=F("gpu_settled_ms"))
    attempt.gpu_allowance_ms = attempt.gpu_settled_ms


def release_tokens(goal: Goal, attempt: Attempt) -> None:
    """Give back tokens a finished attempt reserved and did not use."""
    _release_held(goal, attempt, Unit.TOKENS)


def _release_held(goal: Goal, attempt: Attempt, unit: Unit) -> None:
    account = account_or_none(goal, unit)
    if account is None:
        return
    held = held_by(account, attempt.uid)
    if held > 0:
        released = account.entries.filter(attempt_uid=attempt.uid, kind=EntryKind.RELEASE).count()
        post_entry(
            account,
            kind=EntryKind.RELEASE,
            amount=held,
            key=f"{attempt.uid}:release:{unit}:{released}",
            source=Source(actor=METER, attempt_uid=attempt.uid, note="not used"),
        )


def held_by(account: Account, attempt_uid: UUID) -> int:
    """What an attempt has reserved and neither settled nor released."""
    sums = dict(
        LedgerEntry.objects.filter(account=account, attempt_uid=attempt_uid)
        .values_list("kind")
        .annotate(total=Sum("amount"))
    )
    return int(
        sums.get(EntryKind.RESERVE, 0)
        - sums.get(EntryKind.SETTLE, 0)
        - sums.get(EntryKind.RELEASE, 0)
    )


def settle_tokens(goal: Goal, usage: TokenUsage, lease: Lease) -> Shortage | None:
    """Settle the tokens an attempt reported for one model; only what is new since last time.

    Tokens are reported after they were used: what neither the attempt's reservation nor the rest
    of the budget covers is kept as overrun and stops the Goal.
    """
    total = usage.input_tokens + usage.output_tokens
    attempt_uid = UUID(usage.attempt_uid)
    with fenced(lease):
        account = open_token_account(goal)
        prefix = f"{usage.attempt_uid}:tokens:{usage.model}:"
        counted = LedgerEntry.objects.filter(
            account=account, kind=EntryKind.SETTLE, idempotency_key__startswith=prefix
        ).aggregate(total=Sum("amount"))["total"]
        fresh = total - int(counted or 0)
        if fresh <= 0:
            return None
        source = Source(
            actor=METER, attempt_uid=attempt_uid, span_id=usage.last_span_id, note=usage.model
        )
        covered = _cover(account, fresh, f"{prefix}{total}:{account.limit}", source)
        _record_overrun(goal, account, usage, fresh - covered)
    if covered == fresh:
        return None
    return Shortage(Unit.TOKENS, fresh - covered, 0, attempt_uid, "Tokens were used uncovered.")


def _cover(account: Account, amount: int, key: str, source: Source) -> int:
    """Settle up to `amount` from the attempt's reservation and the rest of the budget."""
    held = held_by(account, source.attempt_uid) if source.attempt_uid else 0
    covered = min(amount, held)
    if amount > held:
        covered += _reserve_rest(account, amount - held, f"{key}:reserve", source)
    if covered:
        post_entry(account, kind=EntryKind.SETTLE, amount=covered, key=key, source=source)
    return covered


def open_token_account(goal: Goal) -> Account:
    """The token account; one that the budget does not name is empty, so first use asks."""
    account, _ = Account.objects.get_or_create(goal=goal, unit=Unit.TOKENS)
    return account


def _reserve_rest(account: Account, wanted: int, key: str, source: Source) -> int:
    account.refresh_from_db()
    take = min(wanted, account.available)
    if take <= 0:
        return 0
    post_entry(account, kind=EntryKind.RESERVE, amount=take, key=key, source=source)
    return take


def _record_overrun(goal: Goal, account: Account, usage: TokenUsage, amount: int) -> None:
    """Keep what is not covered; a later grant covers it first."""
    key = f"{usage.attempt_uid}:{usage.model}"
    if goal.overruns.get(key, 0) == amount:
        return
    overruns = {**goal.overruns, key: amount}
    Goal.objects.filter(pk=goal.pk).update(overruns=overruns)
    goal.overruns = overruns
    Account.objects.filter(pk=account.pk).update(overrun=sum(overruns.values()))
    append_record(
        action="ledger.overrun",
        actor=METER,
        object_kind="goal",
        object_id=str(goal.uid),
        namespace=goal.namespace,
        goal_uid=goal.uid,
        body={
            "unit": Unit.TOKENS.value,
            "amount": str(amount),
            "attempt": usage.attempt_uid,
            "model": usage.model,
            "span": usage.last_span_id,
        },
    )


def warn_at_soft_limit(goal: Goal, lease: Lease) -> None:
    """Set condition BudgetWarning: whether the soft limit of any account is reached."""
    soft = int(goal.spec.get("throttle", {}).get("softLimitPercent", 80))
    worst: tuple[float, Account] | None = None
    for account in goal.accounts.all():
        share = 100 * (account.settled + account.overrun) / account.limit if account.limit else 0.0
        if worst is None or share > worst[0]:
            worst = (share, account)
    if worst is None:
        return
    share, account = worst
    is_near = share >= soft
    with fenced(lease):
        set_condition(
            goal,
            "BudgetWarning",
            is_near,
            reason="SoftLimitReached" if is_near else "WithinBudget",
            message=f"{soft} % of {account.unit} is spent." if is_near else "",
        )
