"""Fly a fleet: `python -m bench.fleet` puts agents on the map of a running tower and moves them.

It speaks to the tower that DATABASE_URL and REDIS_URL (or CLEARANCE_DATA) name. Agents are
registered through the registry's own service. Goals and attempts are written as rows, since ten
thousand real workloads do not fit one machine: Goals so that no worker reconciles them, attempts
as the planner's. Each change of state is what the worker's is, an UPDATE and its journal record in
one transaction, a hundred to a transaction. Last spans go to the topic on which `otlp` tells them;
that they were stored is skipped. Everything is in namespaces `flight-<n>`; `--land` takes it away.
"""

import argparse
import datetime as dt
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
django.setup()

from django.conf import settings  # noqa: E402 - needs loaded settings
from django.utils import timezone  # noqa: E402

from agents.domain.documents import load_documents  # noqa: E402
from agents.domain.manifest import parse_agent  # noqa: E402
from agents.domain.states import AttemptState  # noqa: E402
from agents.fleet.domain import SpanFact  # noqa: E402
from agents.fleet.news import MAX_SPANS, Publisher, encode_spans  # noqa: E402
from agents.models import Agent, Attempt  # noqa: E402
from agents.services.registry import register_agent  # noqa: E402
from goals.domain.states import EntryKind, Phase, Pool, Unit  # noqa: E402
from goals.models import Account, Goal, LedgerEntry  # noqa: E402
from governance.services.journal import News, append_records, journaled  # noqa: E402
from lineage.domain import Actor, ActorKind  # noqa: E402

PILOT = Actor(ActorKind.SYSTEM, "bench.fleet")
NAMESPACE = "flight-{}"
ROLES = ("worker", "worker", "worker", "experimental", "revenue-critical")
DOING = ("tune_model", "observe latency", "compare versions", "read dataset", "push weights")
PHASES = (*[Phase.RUNNING] * 14, Phase.PAUSED, Phase.PLANNED, Phase.SATISFIED, Phase.FAILED)
# Where a run goes from where it stands; repeated words are likelier.
NEXT = {
    "pending": ("running",),
    "running": ("paused", "paused", "running", "pending", "failed"),
    "paused": ("running",),
    "failed": ("running",),
}
BATCH = 100
RECORDS = 1000  # of one transaction, when they all take off
MANIFEST = """
apiVersion: orchestration.ai/v1
kind: Agent
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  role: {role}
  image: examples/pilot:1.0
  command: [python, pilot.py]
  serviceAccountName: {name}
  resources: {{limits: {{nvidia.com/gpu: {gpus}}}}}
  consumes: []
  produces: []
  estimate: {{seconds: 20}}
  scope: {{}}
"""


@dataclass(slots=True)
class Flight:
    """One run as the pilot keeps it."""

    uid: UUID
    goal_uid: UUID
    namespace: str
    state: str


def take_off(*, agents: int, goals: int, namespaces: int, seed: int = 1) -> list[Flight]:
    """Put agents on the map; those of an earlier call are taken away first."""
    land()
    chance = random.Random(seed)
    kinds = _register(namespaces)
    now = timezone.now()
    far = now + dt.timedelta(days=3650)
    made = [
        Goal(
            namespace=NAMESPACE.format(number % namespaces), name=f"flight-goal-{number}",
            spec={"agents": []}, objective="p99 latency < 120 ms for /checkout",
            phase=PHASES[number % len(PHASES)], requested_by="bench", reconcile_after=far,
            created_at=now - dt.timedelta(days=1), started_at=now,
            landed_at=now if PHASES[number % len(PHASES)] in ("Satisfied", "Failed") else None,
        )
        for number in range(goals)
    ]  # fmt: skip
    Goal.objects.bulk_create(made, batch_size=50)
    accounts = Account.objects.bulk_create(
        [
            Account(goal=goal, unit=Unit.GPU_MS, limit=3_000_000,
                    settled=chance.randint(0, 2_900_000), reserved=chance.randint(0, 90_000))
            for goal in made
        ],
        batch_size=100,
    )  # fmt: skip
    LedgerEntry.objects.bulk_create(
        [
            LedgerEntry(account=account, kind=EntryKind.GRANT, debit=Pool.OUTSIDE,
                        credit=Pool.AVAILABLE, amount=account.limit, idempotency_key="grant:1")
            for account in accounts
        ],
        batch_size=100,
    )  # fmt: skip
    attempts = [_attempt(chance, made[n % goals], kinds, n) for n in range(agents)]
    Attempt.objects.bulk_create(attempts, batch_size=30)
    news = [_created("goal", goal.uid, goal.namespace, goal.uid) for goal in made]
    news += [_created("attempt", one.uid, one.namespace, one.goal_uid) for one in attempts]
    for start in range(0, len(news), RECORDS):
        with journaled():
            append_records(news[start : start + RECORDS])
    return [Flight(one.uid, one.goal_uid, one.namespace, one.state) for one in attempts]


def _created(kind: str, uid: UUID, namespace: str, goal_uid: UUID) -> News:
    return News(f"{kind}.created", PILOT, kind, str(uid), namespace, goal_uid)


def _register(namespaces: int) -> dict[str, list[Agent]]:
    """Agents of each role in each namespace, through the registry."""
    found: dict[str, list[Agent]] = {}
    for number in range(namespaces):
        namespace = NAMESPACE.format(number)
        for role in sorted(set(ROLES)):
            for gpus in (0, 1):
                text = MANIFEST.format(
                    name=f"{role}-{'gpu' if gpus else 'cpu'}", namespace=namespace, role=role,
                    gpus=gpus,
                )  # fmt: skip
                register_agent(parse_agent(load_documents(text)[0]), actor=PILOT)
        found[namespace] = list(Agent.objects.filter(namespace=namespace))
    return found


def _attempt(
    chance: random.Random, goal: Goal, kinds: dict[str, list[Agent]], number: int
) -> Attempt:
    role = chance.choice(ROLES)
    has_gpu = chance.random() < 0.6
    wanted = f"{role}-{'gpu' if has_gpu else 'cpu'}"
    agent = next(one for one in kinds[goal.namespace] if one.name == wanted)
    state = chance.choice(["running"] * 12 + ["pending", "pending", "paused", "failed"])
    uid = uuid4()
    began = timezone.now() - dt.timedelta(seconds=chance.randint(1, 3000))
    return Attempt(
        uid=uid, goal_uid=goal.uid, namespace=goal.namespace, graph_digest="sha256:" + "0" * 64,
        iteration=1, task=f"task-{number}", number=1, agent=agent, agent_name=agent.name,
        agent_role=role, service_account=agent.name, spiffe_id=f"spiffe://bench/{uid}",
        workload=f"flight-{uid}", state=state, gpus=1 if has_gpu else 0,
        gpu_ids=[f"node-{number % 24}"] if has_gpu else [],
        gpu_ms=chance.randint(0, 900_000) if has_gpu else 0, created_at=began,
        started_at=None if state == "pending" else began,
        finished_at=timezone.now() if state == "failed" else None,
    )  # fmt: skip


def land() -> None:
    """Take every flight off the map. The journal keeps its records, as it keeps all."""
    mine = Goal.objects.filter(namespace__startswith="flight-", requested_by="bench")
    gone = [News("goal.deleted", PILOT, "goal", str(goal.uid), goal.namespace, goal.uid)
            for goal in mine]  # fmt: skip
    LedgerEntry.objects.filter(account__goal__in=mine).delete()
    Account.objects.filter(goal__in=mine).delete()
    Attempt.objects.filter(namespace__startswith="flight-", workload__startswith="flight-").delete()
    mine.delete()
    if gone:
        with journaled():
            append_records(gone)


def fly(
    flights: Sequence[Flight], *, changes: int, spans: int, seconds: float, seed: int = 2
) -> Iterator[int]:
    """Move the fleet: `changes` and `spans` a second. Yields the changes made, batch by batch."""
    chance = random.Random(seed)
    publisher = Publisher(settings.REDIS_URL)
    began = time.monotonic()
    made = told = 0
    while (passed := time.monotonic() - began) < seconds:
        if made < passed * changes:
            batch = chance.sample(flights, min(BATCH, changes, len(flights)))
            change_states(batch, chance)
            made += len(batch)
            yield len(batch)
        if spans and told < passed * spans:
            some = chance.sample(flights, min(MAX_SPANS, max(spans // 5, 1), len(flights)))
            now_ms = time.time() * 1000
            publisher.publish(
                encode_spans(
                    SpanFact(one.uid, chance.choice(DOING), chance.random(), now_ms) for one in some
                )
            )
            told += len(some)
        time.sleep(0.002)


def change_states(batch: Sequence[Flight], chance: random.Random) -> None:
    """Each goes on to another state: rows and journal in one transaction."""
    news: list[News] = []
    moved: dict[str, list[UUID]] = {}
    for one in batch:
        before, one.state = one.state, chance.choice(NEXT.get(one.state, ("running",)))
        moved.setdefault(one.state, []).append(one.uid)
        news.append(
            News(f"attempt.{one.state}", PILOT, "attempt", str(one.uid), one.namespace,
                 one.goal_uid, {"from": before})
        )  # fmt: skip
    with journaled():
        for state, uids in moved.items():
            ended = timezone.now() if state == AttemptState.FAILED else None
            Attempt.objects.filter(pk__in=uids).update(state=state, finished_at=ended)
        append_records(news)


def main() -> None:
    """Take off, fly until the time is up or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__)
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--goals", type=int, default=100)
    parser.add_argument("--namespaces", type=int, default=5)
    parser.add_argument("--changes", type=int, default=1000, help="changes of state a second")
    parser.add_argument("--spans", type=int, default=1000, help="last spans a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument(
        "--land", action="store_true", help="take every flight off the map, and end"
    )
    asked = parser.parse_args()
    if asked.land:
        land()
        return
    flights = take_off(agents=asked.agents, goals=asked.goals, namespaces=asked.namespaces)
    print(f"{len(flights)} agents on the map", flush=True)
    began, made = time.monotonic(), 0
    for count in fly(flights, changes=asked.changes, spans=asked.spans, seconds=asked.seconds):
        made += count
    print(f"{made / max(time.monotonic() - began, 1e-9):.0f} changes a second")


if __name__ == "__main__":
    main()
