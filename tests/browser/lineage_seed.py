"""Makes a small provenance in a tower that runs, through the services, for the browser to show."""

import json
import os
import sys
import time
from typing import Any

NEWS = 30  # records more, so that the journal has a second page
PATIENCE_SECONDS = 120.0
AGENT = """
apiVersion: orchestration.ai/v1
kind: Agent
metadata: {name: tuner, namespace: default}
spec:
  role: worker
  image: examples/tuner:1.0
  command: [python, -c, "import time; time.sleep(600)"]
  serviceAccountName: tuner
  estimate: {seconds: 1}
  scope: {releases: [checkout/production]}
"""
GOAL = """
apiVersion: orchestration.ai/v1
kind: Goal
metadata: {name: calmer-checkout, namespace: default}
spec:
  objective: "loss < 0.1"
  budget: 400 GPU-seconds
  agents: [tuner]
"""


def _attempt(goal_uid: Any) -> Any:
    """The Goal's first attempt, once the tower's worker has made it."""
    from agents.models import Attempt

    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if found := Attempt.objects.filter(goal_uid=goal_uid).first():
            return found
        time.sleep(0.1)
    raise AssertionError("the worker made no attempt")


def _main() -> None:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
    django.setup()
    from django.contrib.auth.models import User

    from agents.domain.documents import load_documents
    from goals.domain.manifest import parse_goal
    from goals.services.apply import apply_goal
    from goals.services.manifests import apply_manifests, parse_documents
    from goals.services.releases import ReleaseRequest, request_release
    from governance.access import principal_of
    from lineage.domain import Actor, ActorKind, ArtifactKind
    from lineage.services.artifacts import Origin, push_evidence, record_use
    from tests.goals.provenance import push

    admin = principal_of(User.objects.get(username="root"))
    apply_manifests(parse_documents(load_documents(AGENT)), principal=admin, is_dry_run=False)
    goal = apply_goal(parse_goal(load_documents(GOAL)[0]), principal=admin).goal
    attempt = _attempt(goal.uid)
    actor = Actor(ActorKind.AGENT, attempt.spiffe_id)
    dataset = push(b"rows of rides", name="rides", kind=ArtifactKind.DATASET)
    record_use(dataset, attempt_uid=attempt.uid, goal_uid=goal.uid)
    models = [push(b"weights one", name="risk-model")]
    models.append(push(b"weights two", name="risk-model", attempt=attempt))
    evidence = push_evidence(
        name="ab-result",
        about=[models[1]],
        predicate_type="https://orchestration.ai/ab/v1",
        predicate={"better": True},
        origin=Origin(actor, attempt.spiffe_id, "default", goal.uid, attempt.uid),
    )
    for number, (model, by) in enumerate(((models[0], None), (models[1], attempt))):
        request_release(
            ReleaseRequest(
                namespace="default",
                service="checkout",
                environment="production",
                digest=model.digest,
                actor=actor if by else admin.actor,
                reason="p99 falls from 130 to 96 ms." if by else "The first one.",
                evidence=[evidence.digest] if number else [],
                attempt=by,
            )
        )
    made = {
        "goal": str(goal.uid),
        "dataset": dataset.digest,
        "model": models[1].digest,
        "first_model": models[0].digest,
        "evidence": evidence.digest,
    }
    sys.stdout.write("\n" + json.dumps(made))


if __name__ == "__main__":
    _main()
