"""A small provenance: a Goal's run used a dataset, made a model, proved it better, released it."""

import io
from dataclasses import dataclass
from typing import Any

from django.test import Client

from agents.models import Attempt
from goals.models import Goal, Release
from goals.services.releases import ReleaseRequest, request_release
from lineage.domain import Actor, ActorKind, ArtifactKind
from lineage.models import Artifact
from lineage.services.artifacts import Origin, Upload, push_artifact, push_evidence, record_use

ADA = Actor(ActorKind.HUMAN, "ada")
TRUST = "https://clearance.test"


@dataclass(frozen=True)
class Provenance:
    """What was made, by name."""

    goal: Goal
    attempt: Attempt
    dataset: Artifact
    model: Artifact
    evidence: Artifact
    release: Release


def push(
    content: bytes,
    *,
    name: str,
    kind: ArtifactKind = ArtifactKind.MODEL,
    attempt: Attempt | None = None,
    namespace: str = "default",
) -> Artifact:
    """Push some bytes, by a person or by an attempt."""
    actor = Actor(ActorKind.AGENT, attempt.spiffe_id) if attempt else ADA
    origin = Origin(
        actor,
        attempt.spiffe_id if attempt else f"{TRUST}/ada",
        namespace,
        goal_uid=attempt.goal_uid if attempt else None,
        attempt_uid=attempt.uid if attempt else None,
    )
    return push_artifact(Upload(io.BytesIO(content), kind, name, f"{name}.bin"), origin)


def provenance(tower: Any, *, goal: str = "reduce-p99-latency") -> Provenance:
    """Make all of it through the services, as the API does."""
    tower.register("profiler")
    made = tower.reconcile(tower.apply(goal).goal)
    (attempt,) = tower.attempts(made)
    dataset = push(b"rows", name="rides", kind=ArtifactKind.DATASET)
    record_use(dataset, attempt_uid=attempt.uid, goal_uid=made.uid)
    model = push(b"weights", name="risk", attempt=attempt)
    actor = Actor(ActorKind.AGENT, attempt.spiffe_id)
    evidence = push_evidence(
        name="ab-result",
        about=[model],
        predicate_type="https://clearance.test/ab/v1",
        predicate={"better": True},
        origin=Origin(actor, attempt.spiffe_id, "default", made.uid, attempt.uid),
    )
    release = request_release(
        ReleaseRequest(
            namespace="default",
            service="checkout",
            environment="canary",
            digest=model.digest,
            actor=actor,
            reason="It is faster.",
            evidence=[evidence.digest],
            attempt=attempt,
        )
    )
    return Provenance(made, attempt, dataset, model, evidence, release)


def as_(people: dict[str, Any], name: str) -> Client:
    """A client signed in as one of the people."""
    browser = Client()
    browser.force_login(people[name])
    return browser
