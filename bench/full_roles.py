"""Something real to do for every role in the full stores: Goals, questions, lent rights, prices.

Made through the product's own services. The Goals of namespace STEERED are asked for and no more:
the worker of whatever tower runs on these stores plans, starts and meters them, and they run into
their budgets by themselves. The questions about the fleet's Goals are the throttle's.
"""

import datetime as dt
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone

from agents.domain.documents import load_documents
from agents.domain.manifest import parse_agent
from agents.models import Attempt
from agents.services.registry import register_agent
from bench.fleet import FAR, PILOT
from goals.domain.manifest import parse_goal
from goals.domain.states import EntryKind, Phase, Unit
from goals.models import Goal
from goals.services.apply import apply_goal
from goals.services.ledger import Source, account_of, post_entry
from goals.services.metering import Shortage
from goals.services.prices import set_price
from goals.services.throttle import request_budget, shortage_facts
from governance.access import principal_of
from governance.models import Approval, Membership
from governance.services.approvals import Fact, decide_approval
from governance.services.delegations import delegate_approvals
from tests.browser.filling import PASSWORD, STEERED

# Who may what, beside what `fill` gave them: a namespace of the fleet each, where numbers are real.
FLIGHT = "flight-0"
HELD = {
    "olivia": [(FLIGHT, "operator")],
    "avery": [(FLIGHT, "approver")],
    "vera": [(STEERED, "viewer"), (FLIGHT, "viewer"), ("default", "viewer")],
}
WAITING = 200  # questions about Goals of the fleet
TOLD = 5  # one of so many questions has all its facts
ANSWERED = 20
GPU_HOUR_MICRO_USD = 2_500_000
SHORT_MS = 30_000
TRAINER = """
apiVersion: orchestration.ai/v1
kind: Agent
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  role: worker
  image: examples/{name}:1.0
  command: [python, -u, -c, "import time\\nwhile True: print('step'); time.sleep(1)"]
  serviceAccountName: {name}
  resources: {{limits: {{nvidia.com/gpu: {gpus}}}}}
  estimate: {{seconds: 20}}
  scope: {{releases: []}}
"""
GOAL = """
apiVersion: orchestration.ai/v1
kind: Goal
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  objective: "loss < 0.1"
  budget: {budget}
  agents: [{agents}]
  requireApproval: {asks}
  throttle: {{gpusOnPause: {paused}}}
"""
# Name, how many, budget, agents, whether a person must approve the graph first. Those of `holds`
# keep their GPUs while they wait.
STEERABLE = (
    ("train", 4, "50 GPU-minutes", "trainer, reporter", "false"),
    ("spend", 6, "3 GPU-seconds", "trainer, wide", "false"),
    ("holds", 2, "3 GPU-seconds", "trainer", "false"),
    ("asks", 4, "10 GPU-minutes", "trainer", "true"),
)


def work_for_roles() -> None:
    """All of it, on stores that hold a fleet."""
    _quiet()
    set_price(kind="gpu", name="default", micro_usd=GPU_HOUR_MICRO_USD, actor=PILOT)
    people = _people()
    _steerable(people["olivia"])
    asked = _questions()
    _answer(asked, people["eva"])
    ends_at = timezone.now() + dt.timedelta(days=2)
    delegate_approvals(principal_of(people["eva"]), to="vera", namespace=FLIGHT, ends_at=ends_at,
                       reason="Away until Wednesday.")  # fmt: skip


def _quiet() -> None:
    """What ran on a twin stays as it is: no worker of another process looks at it."""
    Goal.objects.update(reconcile_after=timezone.now() + FAR)


def _people() -> dict[str, User]:
    people = {}
    for name, held in HELD.items():
        people[name] = User.objects.filter(username=name).first() or User.objects.create_user(
            username=name, password=PASSWORD
        )
        for namespace, role in held:
            Membership.objects.create(user=people[name], namespace=namespace, role=role)
    return {**people, "eva": User.objects.get(username="eva")}


def _steerable(operator: User) -> None:
    for name, gpus in (("trainer", 1), ("wide", 2), ("reporter", 0)):
        text = TRAINER.format(name=name, gpus=gpus, namespace=STEERED)
        register_agent(parse_agent(load_documents(text)[0]), actor=PILOT)
    principal: Any = principal_of(operator)
    for name, count, budget, agents, asks in STEERABLE:
        for number in range(1, count + 1):
            text = GOAL.format(name=f"{name}-{number}", namespace=STEERED, budget=budget,
                               agents=agents, asks=asks,
                               paused="Hold" if name == "holds" else "Release")  # fmt: skip
            apply_goal(parse_goal(load_documents(text)[0]), principal=principal)


def _questions() -> list[Approval]:
    """Goals of the fleet that have run into their budget: paused, and a person is asked."""
    short = list(Goal.objects.filter(requested_by="bench", phase=Phase.RUNNING)[:WAITING])
    uids = [goal.uid for goal in short]
    Goal.objects.filter(pk__in=uids).update(phase=Phase.PAUSED)
    Attempt.objects.filter(goal_uid__in=uids, state="running").update(state="paused")
    asked = []
    for goal in short:
        goal.refresh_from_db()
        account = account_of(goal.uid, Unit.GPU_MS)
        for kind, amount in ((EntryKind.RESERVE, account.available),
                             (EntryKind.SETTLE, account.available + account.reserved)):  # fmt: skip
            post_entry(account, kind=kind, amount=amount, key=f"{kind}:all", source=Source(PILOT))
        shortage = Shortage(Unit.GPU_MS, SHORT_MS, 0, None, "The GPU time is used up.")
        facts = [Fact("Why it is asked", shortage.why, "why")]
        if len(asked) % TOLD == 0:  # the store of spans is asked for some of them
            facts = shortage_facts(goal, shortage)
        asked.append(request_budget(goal, shortage, facts))
    return asked


def _answer(asked: list[Approval], approver: User) -> None:
    """Some are granted, some denied, with the effects that this has."""
    for number, approval in enumerate(asked[:ANSWERED]):
        decide_approval(approval, principal=principal_of(approver), approve=number % 3 > 0,
                        reason="It converges." if number % 3 else "It has not moved for a day.",
                        request_digest=approval.request_digest)  # fmt: skip
    Goal.objects.exclude(landing="").update(reconcile_after=timezone.now())  # the denied ones land
