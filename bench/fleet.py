"""Fly a fleet: `python -m bench.fleet` puts agents on the map of a running tower and moves them.

It speaks to the tower that DATABASE_URL and REDIS_URL (or CLEARANCE_DATA) name. Agents are
registered through the registry's own service. Goals and attempts are written as rows, since ten
thousand real workloads do not fit one machine: Goals so that no worker reconciles them, attempts
as the planner's. Each change of state is what the worker's is, an UPDATE and its journal record in
one transaction, a hundred to a transaction. Last spans go to the topic on which `otlp` tells them;
that they were stored is skipped. What a person asks of these Goals is obeyed: a paused Goal's
agents stand still. Everything is in namespaces `flight-<n>`; `--land` takes it away, `--aboard`
moves what is on the map already.
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
from goals.domain.manifest import parse_goal  # noqa: E402
from goals.domain.states import DesiredRun, EntryKind, Phase, Pool, Unit  # noqa: E402
from goals.models import Account, Goal, LedgerEntry  # noqa: E402
from goals.services.conditions import set_phase  # noqa: E402
from governance.domain import ApprovalKind  # noqa: E402
from governance.models import Approval  # noqa: E402
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
# Where the runs of a Goal stand that does not run.
STILL: dict[str, str] = {Phase.PAUSED: "paused", Phase.PLANNED: "pending"}
REASONS = {Phase.PAUSED: "Paused", Phase.RUNNING: "Resumed"}
BATCH = 100
RECORDS = 1000  # of one transaction, when they all take off
LOOK_SECONDS = 1.0  # how often it is read what people asked of the Goals
FAR = dt.timedelta(days=3650)  # no worker looks at a Goal of the fleet unless it is rung for
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


GOAL = """
apiVersion: orchestration.ai/v1
kind: Goal
metadata: {name: flight}
spec:
  objective: "p99 latency < 120 ms for /checkout"
  budget: 50 GPU-minutes
  agents: [worker-cpu, worker-gpu]
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
    spec = parse_goal(load_documents(GOAL)[0]).spec_document()
    made = [
        Goal(
            namespace=NAMESPACE.format(number % namespaces), name=f"flight-goal-{number}",
            spec=spec, objective=spec["objective"],
            phase=PHASES[number % len(PHASES)], requested_by="bench", reconcile_after=now + FAR,
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
            LedgerEntry(account=account, kind=kind, debit=debit, credit=credit, amount=amount,
                        idempotency_key=f"{kind}:1", created_at=account.goal.created_at)
            for account in accounts
            for kind, debit, credit, amount in (
                (EntryKind.GRANT, Pool.OUTSIDE, Pool.AVAILABLE, account.limit),
                (EntryKind.RESERVE, Pool.AVAILABLE, Pool.RESERVED,
                 account.settled + account.reserved),
                (EntryKind.SETTLE, Pool.RESERVED, Pool.SETTLED, account.settled),
            )
            if amount
        ],
        batch_size=100,
    )  # fmt: skip
    aloft = [goal for goal in made if goal.landed_at is None]
    attempts = [_attempt(chance, aloft[n % len(aloft)], kinds, n) for n in range(agents)]
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
    state = STILL.get(goal.phase) or chance.choice(
        ["running"] * 12 + ["pending", "pending", "paused", "failed"]
    )
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
    moving, looked = list(flights), 0.0
    while (passed := time.monotonic() - began) < seconds:
        if passed >= looked:
            moving, looked = obey(flights), passed + LOOK_SECONDS
        if moving and made < passed * changes:
            batch = chance.sample(moving, min(BATCH, changes, len(moving)))
            change_states(batch, chance)
            made += len(batch)
            yield len(batch)
        if moving and spans and told < passed * spans:
            some = chance.sample(moving, min(MAX_SPANS, max(spans // 5, 1), len(moving)))
            now_ms = time.time() * 1000
            publisher.publish(
                encode_spans(
                    SpanFact(one.uid, chance.choice(DOING), chance.random(), now_ms) for one in some
                )
            )
            told += len(some)
        time.sleep(0.002)


def aboard() -> list[Flight]:
    """The flights of an earlier `take_off` that have not ended."""
    mine = Attempt.objects.filter(workload__startswith="flight-", namespace__startswith="flight-")
    rows = mine.filter(state__in=NEXT).values_list("uid", "goal_uid", "namespace", "state")
    return [Flight(*row) for row in rows]


def obey(flights: Sequence[Flight]) -> list[Flight]:
    """Pause and resume the Goals of which people asked it; the flights that may move on."""
    goals = Goal.objects.filter(requested_by="bench", landing="")
    asks = Approval.objects.filter(state="pending", kind=ApprovalKind.BUDGET)
    waiting = set(asks.values_list("goal_uid", flat=True))
    running = set()
    for goal in goals.filter(phase__in=(Phase.RUNNING, Phase.PAUSED)):
        if any(one["type"] == "Reconciled" for one in goal.conditions):
            _leave_alone(goal)
        is_held = goal.desired == DesiredRun.PAUSE or goal.uid in waiting
        if is_held == (goal.phase == Phase.RUNNING):
            words = ("paused", "running") if is_held else ("running", "paused")
            _stand(goal, Phase.PAUSED if is_held else Phase.RUNNING)
            mine = [one for one in flights if one.goal_uid == goal.uid]
            _follow(mine, state=words[0], before=words[1])
        if not is_held:
            running.add(goal.uid)
    ended = Attempt.objects.filter(workload__startswith="flight-", desired="stopped")
    gone = set(ended.values_list("uid", flat=True))
    return [one for one in flights if one.goal_uid in running and one.uid not in gone]


def _stand(goal: Goal, phase: Phase) -> None:
    """The phase follows, as the worker's would."""
    with journaled():
        set_phase(goal, phase, reason=REASONS[phase])


def _leave_alone(goal: Goal) -> None:
    """Whoever steers a Goal rings for the worker, who finds no graph: it need not look again."""
    said = [one for one in goal.conditions if one["type"] != "Reconciled"]
    Goal.objects.filter(pk=goal.pk).update(conditions=said, reconcile_after=timezone.now() + FAR)
    goal.conditions = said


def _follow(mine: Sequence[Flight], *, state: str, before: str) -> None:
    """The runs of a Goal that was paused or resumed do likewise."""
    moved = [one for one in mine if one.state == before]
    for one in moved:
        one.state = state
    with journaled():
        _update(state, [one.uid for one in moved])
        append_records([_moved(one, before) for one in moved])


def change_states(batch: Sequence[Flight], chance: random.Random) -> None:
    """Each goes on to another state: rows and journal in one transaction."""
    news: list[News] = []
    moved: dict[str, list[UUID]] = {}
    for one in batch:
        before, one.state = one.state, chance.choice(NEXT.get(one.state, ("running",)))
        moved.setdefault(one.state, []).append(one.uid)
        news.append(_moved(one, before))
    with journaled():
        for state, uids in moved.items():
            _update(state, uids)
        append_records(news)


def _moved(one: Flight, before: str) -> News:
    return News(f"attempt.{one.state}", PILOT, "attempt", str(one.uid), one.namespace,
                one.goal_uid, {"from": before})  # fmt: skip


def _update(state: str, uids: list[UUID]) -> None:
    ended = timezone.now() if state == AttemptState.FAILED else None
    Attempt.objects.filter(pk__in=uids).update(state=state, finished_at=ended)


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
    parser.add_argument("--aboard", action="store_true", help="move what is on the map already")
    asked = parser.parse_args()
    if asked.land:
        land()
        return
    flights = (
        aboard()
        if asked.aboard
        else take_off(agents=asked.agents, goals=asked.goals, namespaces=asked.namespaces)
    )
    print(f"{len(flights)} agents on the map", flush=True)
    began, made = time.monotonic(), 0
    for count in fly(flights, changes=asked.changes, spans=asked.spans, seconds=asked.seconds):
        made += count
    print(f"{made / max(time.monotonic() - began, 1e-9):.0f} changes a second")


if __name__ == "__main__":
    main()
