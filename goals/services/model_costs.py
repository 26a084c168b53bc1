"""What a smaller model would cost: prices, and what the tokens used so far would have come to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final
from uuid import UUID

from agents.models import Attempt
from goals.models import Goal, Price
from goals.services.usage import TOKENS_PER_PRICE
from governance.domain import ModelPrice, ModelWay, Ways
from lineage.telemetry import get_telemetry
from lineage.telemetry.base import TelemetryError, TokenUsage

MINUTE_MS: Final = 60_000
INPUT: Final = "input_token"
OUTPUT: Final = "output_token"


def priced_ways(goal: Goal, ways: Ways) -> Ways:
    """The ways with what each model costs. Asks the telemetry store: never within a transaction."""
    if not ways.models:
        return ways
    named = {one.name for way in ways.models for one in (way.model, *way.instead_of)}
    prices = model_prices(named)
    usages = _usages(goal)
    attempts = Attempt.objects.filter(goal_uid=goal.uid) if usages else Attempt.objects.none()
    running_ms = dict(attempts.values_list("uid", "running_ms"))
    return replace(
        ways,
        models=tuple(_priced(way, prices, usages, running_ms) for way in ways.models),
    )


def model_prices(names: Iterable[str]) -> dict[str, ModelPrice]:
    """The newest price of each model."""
    newest: dict[tuple[str, str], int] = {}
    rows = Price.objects.filter(kind__in=(INPUT, OUTPUT), name__in=sorted(set(names)))
    for kind, name, micro_usd in rows.order_by("created_at", "pk").values_list(
        "kind", "name", "micro_usd"
    ):
        newest[kind, name] = micro_usd
    return {
        name: ModelPrice(name, newest.get((INPUT, name)), newest.get((OUTPUT, name)))
        for name in names
    }


def _usages(goal: Goal) -> list[TokenUsage]:
    try:
        return list(get_telemetry().token_usage(goal.namespace, str(goal.uid)))
    except TelemetryError:
        return []  # unknown, and said so


def _uid(usage: TokenUsage) -> UUID | None:
    try:
        return UUID(usage.attempt_uid)
    except ValueError:
        return None


def _priced(
    way: ModelWay,
    prices: Mapping[str, ModelPrice],
    usages: Iterable[TokenUsage],
    running_ms: Mapping[UUID, int],
) -> ModelWay:
    """One way with its prices, and its burn where tokens, time and all prices are known."""
    bigger = {one.name for one in way.instead_of}
    used = [one for one in usages if one.model in bigger and _uid(one) in running_ms]
    spent_ms = sum(running_ms[uid] for uid in {_uid(one) for one in used} if uid)
    then = [_cost(one, prices[way.name]) for one in used]
    now = [_cost(one, prices[one.model]) for one in used]
    return replace(
        way,
        model=prices[way.name],
        instead_of=tuple(prices[one.name] for one in way.instead_of),
        micro_usd_per_minute=_a_minute(then, spent_ms),
        micro_usd_per_minute_now=_a_minute(now, spent_ms),
    )


def _cost(usage: TokenUsage, price: ModelPrice) -> int | None:
    """Millionths of a micro-USD; None when a price that is needed is unknown."""
    cost = 0
    for tokens, each in ((usage.input_tokens, price.input), (usage.output_tokens, price.output)):
        if tokens and each is None:
            return None
        cost += tokens * (each or 0)
    return cost


def _a_minute(costs: Sequence[int | None], spent_ms: int) -> int | None:
    known = [one for one in costs if one is not None]
    if not known or len(known) != len(costs) or not spent_ms:
        return None
    return sum(known) * MINUTE_MS // (spent_ms * TOKENS_PER_PRICE)
