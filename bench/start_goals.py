"""Start Goals on Kubernetes as the workers do: `python -m bench.start_goals COUNT` prints seconds.

From the manifest that is applied to the Job in the cluster: planned, judged by policy, covered by
the ledger, journaled, with an identity for the attempt.
"""

import sys
import time

import django

django.setup()

from django.core.management import call_command  # noqa: E402  needs the settings

from agents.cluster import get_cluster  # noqa: E402
from agents.domain.documents import load_documents  # noqa: E402
from agents.domain.manifest import parse_agent  # noqa: E402
from agents.models import Attempt  # noqa: E402  needs loaded models
from agents.services.registry import register_agent  # noqa: E402
from goals.domain.manifest import parse_goal  # noqa: E402
from goals.operator.mirror import OPERATOR  # noqa: E402
from goals.services.apply import apply_goal  # noqa: E402
from goals.services.reconcile import reconcile_goal  # noqa: E402
from governance.services.bundles import ensure_starter_bundle  # noqa: E402
from lineage.telemetry import get_telemetry  # noqa: E402
from tests.towers import AGENT, GOAL  # noqa: E402

LOOKS = 50


def start(name: str) -> None:
    """Apply a Goal, and reconcile it until its attempt is in the cluster."""
    text = GOAL.format(name=name, agents="profiler", budget="50 GPU-minutes", more="")
    goal = apply_goal(parse_goal(load_documents(text)[0]), principal=OPERATOR).goal
    for _ in range(LOOKS):
        if not reconcile_goal(goal.uid):
            break
    attempt = Attempt.objects.filter(goal_uid=goal.uid).first()
    if attempt is None or get_cluster().get(attempt.workload) is None:
        goal.refresh_from_db()
        raise RuntimeError(f"{name} did not start: {goal.phase}, {goal.conditions}")


def prepare() -> None:
    """A database, an agent and the policy in force; one Goal, so that everything is loaded."""
    call_command("migrate", verbosity=0)
    get_telemetry().ensure_schema()
    text = AGENT.format(name="profiler", role="worker", gpus=0, consumes="", produces="")
    register_agent(parse_agent(load_documents(text)[0]), actor=OPERATOR.actor)
    ensure_starter_bundle(identity="https://clearance.bench/bootstrap")
    start("warm-up")


if __name__ == "__main__":
    prepare()
    began = time.perf_counter()
    for number in range(int(sys.argv[1])):
        start(f"goal-{number}")
    print(time.perf_counter() - began)
