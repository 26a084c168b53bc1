"""Releases: judged, numbered, one in force, and never a digest that was recalled."""

import hashlib
import io
from typing import Any

import pytest
from django.db import connection

from goals.domain.states import ReleaseState
from goals.models import Release
from goals.services.releases import (
    ArtifactUnknown,
    NeverServed,
    OutOfScope,
    ReleaseDenied,
    ReleaseRequest,
    current_release,
    request_release,
    rollback_release,
)
from governance.domain import ApprovalInvalid, Stage
from governance.models import Approval, Decision
from governance.policy.base import PolicyModule
from governance.services.approvals import decide_approval
from governance.services.bundles import move_stage, save_bundle
from governance.services.verification import verify_journal
from lineage.domain import Actor, ActorKind, ArtifactKind
from lineage.models import Artifact
from lineage.services.artifacts import Origin, Upload, push_artifact, recall_artifact
from tests.agents.identities import shared_database
from tests.goals.test_ledger import race

__all__ = ["shared_database"]

pytestmark = pytest.mark.django_db
ADA = Actor(ActorKind.HUMAN, "ada")
ASK = """
package clearance.release
require_approval[msg] { input.environment == "production"; msg := "a human looks at production" }
"""


def push(content: bytes, *, namespace: str = "default") -> Artifact:
    upload = Upload(io.BytesIO(content), ArtifactKind.MODEL, "risk", "risk.bin")
    return push_artifact(upload, Origin(ADA, "https://clearance.test/ada", namespace))


def ask(artifact: Artifact, **fields: Any) -> ReleaseRequest:
    settings: dict[str, Any] = {
        "namespace": "default",
        "service": "checkout",
        "environment": "canary",
        "digest": artifact.digest,
        "actor": ADA,
        "reason": "It is faster.",
        **fields,
    }
    return ReleaseRequest(**settings)


def held_up(tower: Any) -> None:
    """A policy that wants a human for production."""
    version = save_bundle(
        "starter",
        modules=[PolicyModule("release.rego", ASK)],
        parameters={},
        actor=ADA,
        identity="https://clearance.test/ada",
    )
    move_stage(version, Stage.ENFORCE, actor=ADA)


def answer(tower: Any, release: Release, *, approve: bool) -> Release:
    approval = Approval.objects.get(subject_id=str(release.uid))
    decide_approval(
        approval,
        principal=tower.approver,
        approve=approve,
        reason="Looked at it.",
        request_digest=approval.request_digest,
    )
    release.refresh_from_db()
    return release


def test_one_release_after_the_other_and_back(tower: Any) -> None:
    old, new = push(b"old"), push(b"new")
    first = request_release(ask(old))
    assert request_release(ask(old)).pk == first.pk
    second = request_release(ask(new))
    back = rollback_release(first, actor=ADA, reason="It was worse.")
    assert [r.number for r in (first, second, back)] == [1, 2, 3]
    assert (back.digest, back.previous_digest, back.is_rollback) == (old.digest, new.digest, True)
    states = Release.objects.order_by("number").values_list("state", flat=True)
    assert list(states) == ["superseded", "superseded", "active"]
    assert Decision.objects.filter(point="release").count() == 3


def test_unknown_foreign_and_recalled_digests_are_refused(tower: Any) -> None:
    foreign = push(b"foreign", namespace="other")
    with pytest.raises(ArtifactUnknown):
        request_release(ask(foreign))
    bad = push(b"bad")
    first = request_release(ask(bad))
    request_release(ask(push(b"good")))
    assert recall_artifact(bad, reason="It leaks.", actor=ADA)
    with pytest.raises(ReleaseDenied, match="recalled"):
        rollback_release(first, actor=ADA, reason="Back.")
    Artifact.objects.filter(pk=foreign.pk).update(namespace="default", statement_bundle="")
    with pytest.raises(ReleaseDenied, match="not signed"):
        request_release(ask(foreign))


def test_a_recalled_digest_is_refused_whatever_policy_says(tower: Any) -> None:
    held_up(tower)
    bad = push(b"bad")
    recall_artifact(bad, reason="It leaks.", actor=ADA)
    with pytest.raises(ReleaseDenied, match="recalled: It leaks"):
        request_release(ask(bad))


def test_an_agent_releases_within_the_scope_that_was_judged(tower: Any) -> None:
    from agents.models import Agent

    tower.register("profiler")
    goal = tower.reconcile(tower.apply().goal)
    (attempt,) = tower.attempts(goal)
    artifact = push(b"weights")
    actor = Actor(ActorKind.AGENT, attempt.spiffe_id)
    manifest = attempt.agent.manifest
    manifest["spec"]["scope"]["releases"].append("bank/production")  # after it was judged
    Agent.objects.filter(pk=attempt.agent.pk).update(manifest=manifest)
    (attempt,) = tower.attempts(goal)
    with pytest.raises(OutOfScope):
        request_release(ask(artifact, service="bank", environment="production", attempt=attempt))
    assert request_release(ask(artifact, attempt=attempt, actor=actor)).attempt_uid == attempt.uid


def test_an_approved_release_takes_effect_and_a_denied_one_does_not(tower: Any) -> None:
    held_up(tower)
    waiting = request_release(ask(push(b"new"), environment="production"))
    assert waiting.state == ReleaseState.AWAITING_APPROVAL
    assert request_release(ask(push(b"new"), environment="production")).pk == waiting.pk
    where = {"service": "checkout", "environment": "production"}
    assert current_release("default", **where) is None
    assert answer(tower, waiting, approve=True).state == ReleaseState.ACTIVE
    other = request_release(ask(push(b"newer"), environment="production"))
    assert answer(tower, other, approve=False).state == ReleaseState.DENIED
    assert current_release("default", **where).digest == waiting.digest  # type: ignore[union-attr]
    with pytest.raises(NeverServed):
        rollback_release(other, actor=ADA, reason="Sneak it in.")


def test_what_waits_is_void_once_another_release_takes_effect(tower: Any) -> None:
    held_up(tower)
    first = request_release(ask(push(b"one"), environment="production"))
    second = request_release(ask(push(b"two"), environment="production"))
    answer(tower, first, approve=True)
    second.refresh_from_db()
    assert second.state == ReleaseState.DENIED
    assert Approval.objects.get(subject_id=str(second.uid)).state == "voided"


def test_a_digest_recalled_while_it_waits_cannot_be_approved(tower: Any) -> None:
    held_up(tower)
    artifact = push(b"new")
    waiting = request_release(ask(artifact, environment="production"))
    recall_artifact(artifact, reason="It leaks.", actor=ADA)
    with pytest.raises(ApprovalInvalid, match="recalled"):
        answer(tower, waiting, approve=True)
    assert answer(tower, waiting, approve=False).state == ReleaseState.DENIED


def test_first_releases_that_race_are_numbered_and_one_is_in_force(
    shared_database: None, tower: Any
) -> None:
    artifacts = [push(f"weights {n}".encode()) for n in range(8)]
    results = race(8, lambda index: request_release(ask(artifacts[index])))
    assert all(isinstance(one, Release) or "too fast" in str(one) for one in results)
    made = [one for one in results if isinstance(one, Release)]
    numbers = sorted(Release.objects.values_list("number", flat=True))
    assert numbers == list(range(1, len(made) + 1))
    assert Release.objects.filter(state=ReleaseState.ACTIVE).count() == 1
    assert verify_journal().holds
    connection.close()


def test_the_same_bytes_pushed_at_once_are_one_artifact(shared_database: None, tower: Any) -> None:
    results = race(8, lambda _: push(b"the same").digest)
    assert len(set(results)) == 1
    assert Artifact.objects.count() == 1
    again = push(b"the same", namespace="other")
    assert again.digest == results[0]
    assert Artifact.objects.count() == 2
    assert again.blob_digest == "sha256:" + hashlib.sha256(b"the same").hexdigest()
    connection.close()


def test_a_failing_signer_leaves_no_row_and_the_next_push_goes_on(tower: Any) -> None:
    from lineage.signing.base import SigningUnavailable

    tower.twins.signer.fail_next(SigningUnavailable("keys are away"))
    with pytest.raises(SigningUnavailable):
        push(b"weights")
    assert Artifact.objects.count() == 0
    assert push(b"weights").is_signed
