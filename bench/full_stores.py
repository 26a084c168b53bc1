"""Fill the stores: `python -m bench.full_stores` makes what the pages are measured with.

10,000 registered agents, 1,000 Goals with 10,000 attempts, 1,000,000 spans, and what comes with
them: journal, decisions, ledger, approvals, releases, artifacts, people. Written as rows and, for
spans, through the telemetry port: a year of the services' work does not fit a benchmark. One Goal
is larger than all others, and the facts that are printed (as JSON) name it.

The stores are those of DATABASE_URL, TELEMETRY_URL and REDIS_URL; the database is made first.
"""

import binascii
import datetime as dt
import hashlib
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import django
import numpy as np

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
django.setup()

from django.contrib.auth.models import User  # noqa: E402 - needs loaded settings
from django.core.management import call_command  # noqa: E402
from django.db import transaction  # noqa: E402
from django.utils import timezone  # noqa: E402

from agents.models import Agent, Attempt, IssuedSvid  # noqa: E402
from bench.fleet import PILOT, take_off  # noqa: E402
from bench.full_roles import work_for_roles  # noqa: E402
from goals.models import Account, Goal, LedgerEntry, Release  # noqa: E402
from governance.models import Approval, Decision, Membership  # noqa: E402
from governance.services.journal import News, append_records, journaled  # noqa: E402
from lineage.models import Artifact, Edge  # noqa: E402
from lineage.telemetry import get_telemetry  # noqa: E402
from lineage.telemetry.base import SpanBatch, SpanOwner  # noqa: E402
from tests.browser.filling import fill  # noqa: E402
from tests.otlp_exports import export, span  # noqa: E402

AGENTS = 10_000
GOALS = 1_000
SPANS = 1_000_000
SPANS_PER_EXPORT = 1_000  # of which the largest Goal has fifty exports
EXPORTS_OF_LARGEST = 50
EXPORTS_PER_WRITE = 25
RECORDS = 100_000
DECISIONS = 20_000
ENTRIES = 40_000
ENTRY = 100  # of each, GPU-milliseconds or tokens
APPROVALS = 2_000
RELEASES = 3_000
ARTIFACTS = 5_000
PEOPLE = 300
BATCH = 500
OF_LARGEST = 10  # one row in ten belongs to the largest Goal
ID_BYTES = 8


def main() -> None:
    """Fill and print the facts."""
    began = time.monotonic()
    call_command("migrate", verbosity=0, skip_checks=True)
    get_telemetry().ensure_schema()
    found = fill()
    with transaction.atomic():
        take_off(agents=AGENTS, goals=GOALS, namespaces=5)
    largest = Goal.objects.get(pk=found["facts"]["goal_uid"])
    chance = random.Random(1)
    for step in (agents, attempts_of_largest, records, decisions, entries, approvals, artifacts,
                 releases, people):  # fmt: skip
        with transaction.atomic():
            step(largest, chance)
        print(f"{step.__name__}: {time.monotonic() - began:.1f} s", file=sys.stderr)
    spans(largest)
    print(f"spans: {time.monotonic() - began:.1f} s", file=sys.stderr)
    work_for_roles()
    print(f"work for roles: {time.monotonic() - began:.1f} s", file=sys.stderr)
    print(json.dumps(found))


def agents(largest: Goal, chance: random.Random) -> None:
    """Every agent is registered like the one that the largest Goal uses."""
    like = Agent.objects.get(namespace="default", name="profiler")
    Agent.objects.bulk_create(
        [
            Agent(namespace=_namespace(number), name=f"agent-{number}", role=like.role,
                  image=like.image, service_account=like.service_account, manifest=like.manifest,
                  registered_by="bench")
            for number in range(AGENTS)
        ],
        batch_size=BATCH,
    )  # fmt: skip


def _namespace(number: int) -> str:
    """One in ten is where the largest Goal is."""
    return "default" if number % OF_LARGEST == 0 else f"flight-{number % 5}"


def _goal_of(largest: Goal, goals: list[Goal], number: int) -> Goal:
    return largest if number % OF_LARGEST == 0 else goals[number % len(goals)]


def _flights() -> list[Goal]:
    return list(Goal.objects.filter(requested_by="bench").only("uid", "namespace", "name"))


def attempts_of_largest(largest: Goal, chance: random.Random) -> None:
    """Each tenth attempt is one of the largest Goal; every fourth has two identities."""
    moved = list(Attempt.objects.filter(workload__startswith="flight-")[: AGENTS // OF_LARGEST])
    agent = Agent.objects.get(namespace="default", name="profiler")
    for number, attempt in enumerate(moved):
        attempt.goal_uid, attempt.namespace, attempt.agent = largest.uid, "default", agent
        attempt.agent_name, attempt.number = agent.name, number + 100
    fields = ["goal_uid", "namespace", "agent", "agent_name", "number"]
    Attempt.objects.bulk_update(moved, fields, batch_size=100)
    now = timezone.now()
    IssuedSvid.objects.bulk_create(
        [
            IssuedSvid(attempt=attempt, kind=kind, serial=f"{number}-{kind}",
                       spiffe_id=attempt.spiffe_id, expires_at=now + dt.timedelta(minutes=5))
            for number, attempt in enumerate(Attempt.objects.all()[::4]) for kind in ("x509", "jwt")
        ],
        batch_size=BATCH,
    )  # fmt: skip


def records(largest: Goal, chance: random.Random) -> None:
    """The journal of some weeks."""
    goals = _flights()
    actions = ("attempt.running", "attempt.failed", "goal.phase_changed", "ledger.settled")
    for start in range(0, RECORDS, BATCH):
        with journaled():
            append_records(
                [
                    News(chance.choice(actions), PILOT, "goal", str(goal.uid), goal.namespace,
                         goal.uid, {"number": number})
                    for number in range(start, start + BATCH)
                    for goal in [_goal_of(largest, goals, number)]
                ]
            )  # fmt: skip


def decisions(largest: Goal, chance: random.Random) -> None:
    """Copies of a decision that was really made."""
    like = Decision.objects.filter(goal_uid=largest.uid).first()
    assert like is not None
    goals, now = _flights(), timezone.now()

    def one(number: int) -> Decision:
        goal = _goal_of(largest, goals, number)
        return _copy(
            like, uid=uuid4(), goal_uid=goal.uid, namespace=goal.namespace,
            at=now - dt.timedelta(seconds=number),
            outcome=chance.choice(("allow", "allow", "deny", "warn")),
        )  # fmt: skip

    Decision.objects.bulk_create(map(one, range(DECISIONS)), batch_size=100)


def _copy(row: Any, **changes: Any) -> Any:
    fields = {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}
    return type(row)(**{**fields, **changes})


def entries(largest: Goal, chance: random.Random) -> None:
    """Settlements. The sums of the largest Goal's accounts are not what is measured."""
    mine = list(Account.objects.filter(goal=largest))
    others = list(Account.objects.filter(goal__requested_by="bench"))
    now = timezone.now()
    made = [
        LedgerEntry(
            account=chance.choice(mine if number % OF_LARGEST == 0 else others),
            kind="settle", debit="reserved", credit="settled", amount=ENTRY,
            idempotency_key=f"bench-{number}", created_at=now - dt.timedelta(seconds=number),
        )
        for number in range(ENTRIES)
    ]  # fmt: skip
    LedgerEntry.objects.bulk_create(made, batch_size=BATCH)
    counts = Counter(entry.account_id for entry in made)
    for account in others:
        account.settled += counts[account.pk] * ENTRY
    Account.objects.bulk_update(others, ["settled"], batch_size=BATCH)
    LedgerEntry.objects.bulk_create(
        [
            LedgerEntry(account=account, kind="reserve", debit="available", credit="reserved",
                        amount=counts[account.pk] * ENTRY, idempotency_key="bench",
                        created_at=now - dt.timedelta(seconds=ENTRIES))
            for account in others
            if counts[account.pk]
        ],
        batch_size=BATCH,
    )  # fmt: skip


def approvals(largest: Goal, chance: random.Random) -> None:
    """Answered ones; what waits is asked by `full_roles`."""
    like = Approval.objects.filter(state="pending").first()
    assert like is not None
    goals, now = _flights(), timezone.now()

    def one(number: int) -> Approval:
        goal = _goal_of(largest, goals, number)
        return _copy(
            like, uid=uuid4(), goal_uid=goal.uid, namespace=goal.namespace, agent_words="",
            title=f"More budget for {goal.namespace}/{goal.name}", requested_by=goal.requested_by,
            reason=chance.choice(("It converges.", "It has not moved for a day.")),
            subject_id=f"bench-{number}", request_digest=f"sha256:{number:064x}",
            state=chance.choice(("approved", "denied")),
            created_at=now - dt.timedelta(minutes=number + 2),
            decided_at=now - dt.timedelta(minutes=number + 1),
            decided_by="eva", expires_at=now + dt.timedelta(hours=2),
        )  # fmt: skip

    Approval.objects.bulk_create(map(one, range(APPROVALS)), batch_size=100)


def _digest(word: str) -> str:
    return f"sha256:{hashlib.sha256(word.encode()).hexdigest()}"


def artifacts(largest: Goal, chance: random.Random) -> None:
    """Each made from the one before by an attempt of its Goal: long chains of provenance."""
    like = Artifact.objects.filter(namespace="default", name="risk", recalled_at=None).first()
    assert like is not None
    goals = _flights()
    made = [
        _copy(like, uid=uuid4(), namespace=goal.namespace, goal_uid=goal.uid,
              name=f"model-{number}", digest=_digest(f"{number}"),
              blob_digest=_digest(f"blob {number}"))
        for number in range(ARTIFACTS)
        for goal in [_goal_of(largest, goals, number)]
    ]  # fmt: skip
    Artifact.objects.bulk_create(made, batch_size=100)
    Edge.objects.bulk_create(_edges(made), batch_size=BATCH, ignore_conflicts=True)


def _edges(made: list[Artifact]) -> Iterator[Edge]:
    last: dict[str, Artifact] = {}
    for artifact in made:
        attempt = str(uuid4())
        about = {"namespace": artifact.namespace, "goal_uid": artifact.goal_uid}
        if before := last.get(artifact.namespace):
            yield Edge(source_kind="attempt", source_id=attempt, relation="used",
                       target_kind="artifact", target_id=before.digest, **about)  # fmt: skip
        yield Edge(source_kind="artifact", source_id=artifact.digest, relation="produced-by",
                   target_kind="attempt", target_id=attempt, **about)  # fmt: skip
        last[artifact.namespace] = artifact


def releases(largest: Goal, chance: random.Random) -> None:
    """Old ones of many services."""
    like = Release.objects.exclude(state="active").first()
    assert like is not None
    now = timezone.now()
    Release.objects.bulk_create(
        (
            _copy(like, uid=uuid4(), namespace=_namespace(number), service=f"service-{number % 50}",
                  environment="canary", number=number, digest=_digest(f"{number}"),
                  created_at=now - dt.timedelta(minutes=number),
                  goal_uid=largest.uid if _namespace(number) == largest.namespace else None)
            for number in range(RELEASES)
        ),
        batch_size=100,
    )  # fmt: skip


def people(largest: Goal, chance: random.Random) -> None:
    """Viewers of one namespace each."""
    made = User.objects.bulk_create(
        [User(username=f"viewer-{number}", password="!") for number in range(PEOPLE)]
    )
    Membership.objects.bulk_create(
        [
            Membership(user=user, namespace=_namespace(number), role="viewer")
            for number, user in enumerate(made)
        ]
    )


# --- Spans ---------------------------------------------------------------------------------------


def spans(largest: Goal) -> None:
    """A million spans, in chains of ten that act on one observation an export."""
    owners = [_owner(largest)] * EXPORTS_OF_LARGEST
    goals = _flights()
    owners += [
        _owner(goals[n % len(goals)]) for n in range(SPANS // SPANS_PER_EXPORT - len(owners))
    ]
    fresh = exports()
    batches = [SpanBatch(owner, fresh()) for owner in owners]
    telemetry = get_telemetry()
    for start in range(0, len(batches), EXPORTS_PER_WRITE):
        telemetry.write_spans(batches[start : start + EXPORTS_PER_WRITE])


def _owner(goal: Goal) -> SpanOwner:
    attempt = Attempt.objects.filter(goal_uid=goal.uid).first()
    uid: UUID | str = attempt.uid if attempt else goal.uid
    return SpanOwner(goal.namespace, str(goal.uid), "profiler", "profiler", str(uid))


def exports() -> Callable[[], bytes]:
    """Makes exports of SPANS_PER_EXPORT spans: one is built, then all ids in it are replaced."""
    ids = [os.urandom(ID_BYTES) for _ in range(SPANS_PER_EXPORT)]
    trace = os.urandom(16)
    built = [
        span(
            one.hex(),
            parent="" if number % 10 == 0 else ids[number - 1].hex(),
            because="" if number == 0 else ids[0].hex(),
            at=number, name="tune_model", trace=trace.hex(), action__confidence=0.9,
            **({"observation__metric": "latency", "observation__value": 200.0} if number == 0 else
               {"gen_ai__usage__input_tokens": number, "gen_ai__request__model": "small-model"}),
        )
        for number, one in enumerate(ids)
    ]  # fmt: skip
    body = np.frombuffer(export(*built).SerializeToString(), dtype=np.uint8).copy()
    raw = body.tobytes()
    places = [(n, at) for n, one in enumerate(ids) for at in _all(raw, one)]
    first = np.array(list(_all(raw, ids[0].hex().encode())))
    traces = np.array(list(_all(raw, trace)))
    numbers = np.array([n for n, _ in places])
    offsets = np.array([at for _, at in places])[:, None] + np.arange(ID_BYTES)

    def fresh() -> bytes:
        new = np.frombuffer(os.urandom(ID_BYTES * len(ids)), dtype=np.uint8).reshape(-1, ID_BYTES)
        body[offsets] = new[numbers]
        words = np.frombuffer(binascii.hexlify(new[0].tobytes()), dtype=np.uint8)
        body[first[:, None] + np.arange(len(words))] = words
        body[traces[:, None] + np.arange(16)] = np.frombuffer(os.urandom(16), dtype=np.uint8)
        return body.tobytes()

    return fresh


def _all(text: bytes, part: bytes) -> Iterator[int]:
    at = text.find(part)
    while at >= 0:
        yield at
        at = text.find(part, at + 1)


if __name__ == "__main__":
    main()
