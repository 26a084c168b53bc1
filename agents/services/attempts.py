"""Attempts: recorded first, then made so in the cluster, then read back from it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from agents.attestation.base import AttestationError
from agents.cluster import get_cluster
from agents.cluster.base import (
    DISRUPTIONS,
    Cluster,
    ClusterUnavailable,
    WorkloadBlocked,
    WorkloadPhase,
    WorkloadSpec,
    WorkloadStatus,
)
from agents.domain.naming import MODEL_VARIABLE
from agents.domain.states import FINISHED_STATES, AttemptState, DesiredState
from agents.identity import get_trust_domain, spiffe_id
from agents.models import Agent, Attempt, TaskOutput
from agents.services.blocked import BLOCKED, blockage_words, status_words, with_holders
from agents.services.identity import (
    identity_environment,
    prepare_identity,
    token_audience,
)
from agents.services.revocation import revoke_identity
from agents.services.withdrawal import withdraw_identity
from agents.workloads import PodTemplate, workload_name
from governance.services.journal import append_record, journaled
from lineage.domain import Actor, ActorKind

logger = logging.getLogger(__name__)

RECONCILER = Actor(ActorKind.SYSTEM, "reconcile")
DELETE_GRACE_SECONDS = 5.0
# A process of this machine inherits nothing of ours; a container has what its image says.
PROCESS_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}

# Reasons of the cluster that are the platform's doing: the attempt is lost, not failed.
PLATFORM_REASONS = DISRUPTIONS | {"Killed", "ControlPlaneGone", "StartFailed"}
# Roles whose pods the cluster may prefer, and the PriorityClass that says so.
PRIORITY_CLASSES = {"revenue-critical": "revenue-critical"}
PHASE_STATES = {
    WorkloadPhase.PENDING: AttemptState.PENDING,
    WorkloadPhase.RUNNING: AttemptState.RUNNING,
    WorkloadPhase.PAUSED: AttemptState.PAUSED,
    WorkloadPhase.SUCCEEDED: AttemptState.SUCCEEDED,
    WorkloadPhase.FAILED: AttemptState.FAILED,
}


@dataclass(frozen=True, slots=True)
class AttemptRequest:
    """What asks for an attempt: a node of the graph as it was judged and approved."""

    goal_uid: UUID
    goal: str
    graph_digest: str
    iteration: int
    number: int
    template: PodTemplate
    environment: Mapping[str, str]
    hold_gpus_on_pause: bool
    scope: Mapping[str, Sequence[str]] = field(default_factory=dict)


def record_attempt(agent: Agent, request: AttemptRequest) -> Attempt:
    """Write the attempt and what proves who it is; asking again returns the same attempt.

    Runs in the caller's transaction, so that reservation and attempt commit together.
    """
    template = request.template
    name = workload_name(
        goal=request.goal,
        task=template.task,
        goal_uid=str(request.goal_uid),
        graph_digest=request.graph_digest,
        iteration=request.iteration,
        number=request.number,
    )
    with journaled():
        attempt, is_new = Attempt.objects.get_or_create(
            workload=name,
            defaults={
                "goal_uid": request.goal_uid,
                "namespace": template.namespace,
                "graph_digest": request.graph_digest,
                "iteration": request.iteration,
                "task": template.task,
                "number": request.number,
                "agent": agent,
                "agent_name": agent.name,
                # As judged: the agent may have been registered anew since.
                "agent_role": template.role,
                "service_account": template.service_account,
                "spiffe_id": spiffe_id(
                    get_trust_domain().name,
                    namespace=template.namespace,
                    service_account=template.service_account,
                    goal_uid=str(request.goal_uid),
                    agent=agent.name,
                ),
                "gpus": template.gpus,
                "specification": {
                    "goal": request.goal,
                    "image": template.image,
                    "command": list(template.command),
                    "env": dict(request.environment),
                    "memory_bytes": template.memory_bytes,
                    "labels": dict(template.labels),
                    "hold_gpus_on_pause": request.hold_gpus_on_pause,
                    "first_allowance_ms": 0,
                    "scope": {name: list(entries) for name, entries in request.scope.items()},
                    "models": list(template.models),
                },
            },
        )
        if is_new:
            prepare_identity(attempt)
            _journal(
                attempt,
                "attempt.created",
                {
                    "task": attempt.task,
                    "number": attempt.number,
                    "iteration": attempt.iteration,
                    "workload": attempt.workload,
                    "spiffe_id": attempt.spiffe_id,
                    "graph_digest": attempt.graph_digest,
                    "image": template.image,
                    "gpus": attempt.gpus,
                    **({"models": list(template.models)} if template.models else {}),
                },
            )
    return attempt


def allow_gpu(attempt: Attempt, gpu_ms: int) -> None:
    """Set the first GPU allowance of a new attempt, in the transaction that reserved it."""
    specification = {**attempt.specification, "first_allowance_ms": gpu_ms}
    Attempt.objects.filter(pk=attempt.pk).update(
        gpu_allowance_ms=gpu_ms, specification=specification
    )
    attempt.gpu_allowance_ms, attempt.specification = gpu_ms, specification


def scope_of(attempt: Attempt) -> dict[str, list[str]]:
    """What the attempt may touch: the scope of the graph that was judged."""
    scope: dict[str, list[str]] | None = attempt.specification.get("scope")
    if scope is None:
        scope = attempt.agent.manifest.get("spec", {}).get("scope", {})
    return scope


def models_of(attempt: Attempt) -> list[str]:
    """The language models the attempt may use, the preferred first; empty when none is named."""
    return [str(one) for one in attempt.specification.get("models", [])]


def workload_spec(attempt: Attempt) -> WorkloadSpec:
    """The workload of an attempt; always the same for the same attempt."""
    spec: dict[str, Any] = attempt.specification
    models = models_of(attempt)
    audience = token_audience()  # of tokens that clusters give; "" for processes
    return WorkloadSpec(
        name=attempt.workload,
        namespace=attempt.namespace,
        goal_uid=str(attempt.goal_uid),
        task=attempt.task,
        attempt_uid=str(attempt.uid),
        agent=attempt.agent_name,
        service_account=attempt.service_account,
        image=spec["image"],
        command=tuple(spec["command"]),
        environment={
            **({} if audience else PROCESS_ENVIRONMENT),
            **spec["env"],
            "CLEARANCE_API_URL": settings.WEB_URL,
            **identity_environment(attempt),
            "OTEL_EXPORTER_OTLP_ENDPOINT": settings.OTLP_URL,
            "CLEARANCE_NAMESPACE": attempt.namespace,
            "CLEARANCE_GOAL_UID": str(attempt.goal_uid),
            "CLEARANCE_GOAL": spec["goal"],
            "CLEARANCE_TASK": attempt.task,
            "CLEARANCE_ATTEMPT_UID": str(attempt.uid),
            "CLEARANCE_AGENT": attempt.agent_name,
            **({MODEL_VARIABLE: models[0]} if models else {}),
        },
        token_audience=audience,
        labels=spec["labels"],
        gpus=attempt.gpus,
        memory_bytes=spec["memory_bytes"],
        hold_gpus_on_pause=spec["hold_gpus_on_pause"],
        # The first allowance is part of the specification; later ones are set, never lowered.
        gpu_allowance_ms=spec["first_allowance_ms"] if attempt.gpus else None,
        priority_class=PRIORITY_CLASSES.get(attempt.agent_role, ""),
    )


def enforce_attempt(attempt: Attempt, *, cluster: Cluster | None = None) -> WorkloadStatus | None:
    """Make the cluster do what is desired of the attempt and return what is.

    Idempotent; raises `ClusterError`s. A workload that vanished under a started attempt is not
    made again: the attempt is lost.
    """
    cluster = cluster or get_cluster()
    status = cluster.get(attempt.workload)
    desired = DesiredState(attempt.desired)
    if status is None:
        if attempt.started_at is not None or desired is DesiredState.STOPPED:
            return None
        cluster.create(workload_spec(attempt))
        # Whoever asked for its end meanwhile may have looked for the workload before it was there:
        # the row says so by now, because it is written first.
        rows = Attempt.objects.filter(pk=attempt.pk)
        desired = DesiredState(rows.values_list("desired", flat=True).get())
        status = cluster.get(attempt.workload)
    elif status.is_finished:
        return status
    if attempt.identity_revoked_at is not None and _take_back(attempt):
        return cluster.get(attempt.workload)
    if status is not None and not cluster.keeps_paused and _is_as_desired(attempt, status, desired):
        return with_holders(status, gpus=attempt.gpus, cluster=cluster)
    if attempt.gpus:
        cluster.set_gpu_allowance(attempt.workload, attempt.gpu_allowance_ms)
    match desired:
        case DesiredState.PAUSED:
            cluster.pause(attempt.workload)
        case DesiredState.STOPPED:
            cluster.delete(attempt.workload, grace_seconds=DELETE_GRACE_SECONDS)
        case DesiredState.RUNNING:
            cluster.resume(attempt.workload)
    status = cluster.get(attempt.workload)
    return status and with_holders(status, gpus=attempt.gpus, cluster=cluster)


def _is_as_desired(attempt: Attempt, status: WorkloadStatus, desired: DesiredState) -> bool:
    """Whether nothing is to be asked: each question costs the cluster as much as a change.

    Only where the status is read from what was asked: elsewhere another process tells it, and may
    not have heard of the last change yet.
    """
    if attempt.gpus and (status.gpu_allowance_ms or 0) < attempt.gpu_allowance_ms:
        return False
    if desired is DesiredState.PAUSED:
        return (status.phase, status.reason) == (WorkloadPhase.PAUSED, "Paused")
    if desired is DesiredState.RUNNING:
        is_running = status.phase is WorkloadPhase.RUNNING and not status.reason
        return is_running or status.phase is WorkloadPhase.PENDING
    return False


def _take_back(attempt: Attempt) -> bool:
    """End what a revoked attempt has of the cluster; False where clusters give nothing.

    Raises ClusterUnavailable.
    """
    try:
        return withdraw_identity(attempt) is not None
    except AttestationError as error:
        raise ClusterUnavailable(str(error)) from error


def stop_orphans(*, cluster: Cluster | None = None) -> int:
    """Delete workloads whose attempt has ended: how many were found.

    A worker that was stopped in the middle of `enforce_attempt` may create its workload after
    another has closed the attempt. Raises `ClusterError`s.
    """
    cluster = cluster or get_cluster()
    running = {one.name for one in cluster.list() if not one.is_finished}
    ended = Attempt.objects.filter(workload__in=running, state__in=FINISHED_STATES)
    names = list(ended.values_list("workload", flat=True))
    for name in names:
        logger.warning("workload %s outlived its attempt: deleted", name)
        cluster.delete(name, grace_seconds=DELETE_GRACE_SECONDS)
    return len(names)


def record_refusal(attempt: Attempt, error: Exception) -> Attempt:
    """The cluster will never run this workload: the attempt failed before it began."""
    with journaled():
        unfinished = Attempt.objects.filter(pk=attempt.pk).exclude(state__in=FINISHED_STATES)
        changes = {"reason": type(error).__name__, "message": str(error)}
        if unfinished.update(state=AttemptState.FAILED, finished_at=timezone.now(), **changes):
            _journal(attempt, "attempt.failed", {"from": attempt.state, **changes})
            revoke_identity(attempt, reason="attempt failed", actor=RECONCILER)
    attempt.refresh_from_db()
    return attempt


def record_blocked(attempt: Attempt, error: WorkloadBlocked) -> Attempt:
    """The cluster takes the workload later: the attempt waits and says for what."""
    message = BLOCKED + blockage_words(error.blockage, namespace=attempt.namespace)
    with journaled():
        waiting = Attempt.objects.filter(pk=attempt.pk, state=AttemptState.PENDING)
        changed = waiting.update(reason=error.reason, message=message)
        if changed and attempt.reason != error.reason:
            _journal(attempt, "attempt.blocked", {"reason": error.reason, "message": message})
    attempt.refresh_from_db()
    return attempt


def record_status(attempt: Attempt, status: WorkloadStatus | None) -> Attempt:
    """Write down what the cluster reports. Meters only grow; a finished attempt stays finished."""
    now = timezone.now()
    state, reason, message = _read_state(attempt, status)
    changes: dict[str, Any] = {"state": state, "reason": reason, "message": message}
    if status is not None:
        changes |= {
            "running_ms": max(attempt.running_ms, status.running_ms),
            "gpu_ms": max(attempt.gpu_ms, status.gpu_ms),
            "gpu_idle_held_ms": max(attempt.gpu_idle_held_ms, status.gpu_idle_held_ms),
            "gpu_ids": list(status.gpu_ids) or attempt.gpu_ids,
            "exit_code": status.exit_code,
            "started_at": attempt.started_at or status.started_at,
            "last_seen_at": now,
        }
    if state in FINISHED_STATES:
        changes["finished_at"] = (status.finished_at if status else None) or now
    with journaled():
        unfinished = Attempt.objects.filter(pk=attempt.pk).exclude(state__in=FINISHED_STATES)
        if unfinished.update(**changes) == 1 and (state, reason) != (attempt.state, attempt.reason):
            _journal(
                attempt,
                f"attempt.{state.value}",
                {
                    "from": attempt.state,
                    "reason": reason,
                    "exit_code": changes.get("exit_code"),
                    "running_ms": str(changes.get("running_ms", attempt.running_ms)),
                    "gpu_ms": str(changes.get("gpu_ms", attempt.gpu_ms)),
                },
            )
            if state in FINISHED_STATES:
                revoke_identity(attempt, reason=f"attempt {state.value}", actor=RECONCILER)
    attempt.refresh_from_db()
    return attempt


def _read_state(attempt: Attempt, status: WorkloadStatus | None) -> tuple[AttemptState, str, str]:
    if status is None:
        if attempt.desired == DesiredState.STOPPED:
            return AttemptState.STOPPED, "Stopped", "Ended before it was started."
        if attempt.started_at is None:
            return AttemptState.PENDING, attempt.reason, attempt.message
        return AttemptState.LOST, "Vanished", "The cluster no longer knows this workload."
    state = PHASE_STATES[status.phase]
    if state is AttemptState.FAILED:
        if attempt.desired == DesiredState.STOPPED:
            state = AttemptState.STOPPED
        elif status.reason in PLATFORM_REASONS:
            state = AttemptState.LOST
    return state, status.reason, status_words(status)


def set_desired(attempt: Attempt, desired: DesiredState, *, actor: Actor) -> bool:
    """Say what is wanted of an attempt; True when that was news. Stopped is final."""
    with journaled():
        changed = (
            Attempt.objects.filter(pk=attempt.pk)
            .exclude(desired__in=(desired, DesiredState.STOPPED))
            .exclude(state__in=FINISHED_STATES)
            .update(desired=desired)
        )
        if changed:
            _journal(attempt, f"attempt.desired_{desired.value}", {}, actor=actor)
    attempt.refresh_from_db()
    return bool(changed)


def record_output(
    attempt: Attempt, *, name: str, value: Any, digest: str = "", span_id: str = ""
) -> TaskOutput:
    """Keep a named output of an attempt; the same again is success, another value replaces it."""
    with journaled():
        output, is_new = TaskOutput.objects.get_or_create(
            attempt=attempt,
            name=name,
            defaults={"value": value, "digest": digest, "span_id": span_id},
        )
        if not is_new and (output.value, output.digest, output.span_id) == (
            value,
            digest,
            span_id,
        ):
            return output
        TaskOutput.objects.filter(pk=output.pk).update(value=value, digest=digest, span_id=span_id)
        _journal(
            attempt,
            "output.recorded",
            {"name": name, "digest": digest, "span": span_id},
            actor=Actor(ActorKind.AGENT, attempt.spiffe_id),
        )
    output.refresh_from_db()
    return output


def _journal(
    attempt: Attempt, action: str, body: dict[str, Any], *, actor: Actor = RECONCILER
) -> None:
    append_record(
        action=action,
        actor=actor,
        object_kind="attempt",
        object_id=str(attempt.uid),
        namespace=attempt.namespace,
        goal_uid=attempt.goal_uid,
        body=body,
    )
