"""What a Job and its pods say about the attempt: phase, reason, sentence, running time."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agents.cluster.base import WorkloadPhase, WorkloadStatus
from agents.cluster.kubernetes.record import DELETE, EXHAUSTED, RUN, Record

Object = Mapping[str, Any]

CANNOT_START: Final = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "InvalidImageName", "RunContainerError"}
)
CANNOT_PULL: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"})
SIGNALLED: Final = 128  # an exit code above it is a signal's
# What the cluster itself ends a pod for, as people say it.
DISRUPTED: Final[Mapping[str, str]] = {
    "DeletionByPodGC": "its node {node} is gone",
    "DeletionByTaintManager": "{node} got a taint that it does not tolerate",
    "EvictionByEvictionAPI": "evicted from {node}, as when a node is drained",
    "Evicted": "evicted by the kubelet of {node}",
    "NodeLost": "its node {node} no longer answers",
    "NodeShutdown": "{node} was shut down",
    "PreemptionByScheduler": "preempted on {node} by a pod of higher priority",
    "TerminationByKubelet": "ended by the kubelet of {node}",
}


@dataclass(frozen=True, slots=True)
class PodRun:
    """One pod's time: when its container ran, and whether that is over."""

    uid: str
    started_at: dt.datetime | None
    finished_at: dt.datetime | None

    def running_ms(self, now: dt.datetime) -> int:
        """Milliseconds the container ran until `now`."""
        if self.started_at is None:
            return 0
        return max(0, round(((self.finished_at or now) - self.started_at).total_seconds() * 1000))


def instant(text: str | None) -> dt.datetime | None:
    """A time as the API server writes it."""
    return dt.datetime.fromisoformat(text) if text else None


def is_ending(pod: Object) -> bool:
    """The pod was asked to go."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def pod_run(pod: Object) -> PodRun:
    """When the pod's container ran.

    A pod that goes without a word about its container (its node is gone) ran until it was told to
    go: the API server's own clock says when.
    """
    metadata, status = pod["metadata"], pod.get("status") or {}
    state = _container(pod).get("state") or {}
    ended = state.get("terminated")
    if ended:
        started, finished = instant(ended.get("startedAt")), instant(ended.get("finishedAt"))
        if started and finished:
            return PodRun(metadata["uid"], started, finished)
    started = instant((state.get("running") or {}).get("startedAt"))
    gone = metadata.get("deletionTimestamp") if is_lost(pod) else None
    if started is None and ended:
        started = instant(status.get("startTime"))
    if status.get("phase") in ("Succeeded", "Failed"):
        gone = gone or metadata.get("deletionTimestamp")
        gone = gone or _condition_time(status, "Ready") or status.get("startTime")
    return PodRun(metadata["uid"], started, instant(gone) if started else None)


def is_lost(pod: Object) -> bool:
    """The pod goes and its node no longer tells of it."""
    if not is_ending(pod):
        return False
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(
        one.get("type") == "DisruptionTarget" and one.get("reason") == "DeletionByPodGC"
        for one in conditions
    )


def is_over(pod: Object) -> bool:
    """The pod will use nothing any more: it may be metered and let go."""
    status = pod.get("status") or {}
    state = _container(pod).get("state") or {}
    never_ran = is_ending(pod) and not state.get("running") and status.get("phase") == "Pending"
    ended = bool(state.get("terminated")) or status.get("phase") in ("Succeeded", "Failed")
    return ended or never_ran or is_lost(pod)


def read_status(
    job: Object,
    pods: Sequence[Object],
    record: Record,
    *,
    now: dt.datetime,
    events: Sequence[str] = (),
    queued: tuple[str, str] | None = None,
) -> WorkloadStatus:
    """The attempt as the cluster tells it.

    `events` are sentences about pods it could not make; `queued` says why a Job that a queue holds
    has not been started, None for one that is in no queue.
    """
    runs = [pod_run(pod) for pod in pods if pod["metadata"]["uid"] not in record.stopped_ms]
    running_ms = record.stopped_total_ms + sum(run.running_ms(now) for run in runs)
    gpu_ms = running_ms * record.gpus
    if record.allowance_ms is not None:
        gpu_ms = min(gpu_ms, record.allowance_ms)
    alive = [pod for pod in pods if not is_over(pod)]
    phase, reason, message = _phase(job, alive, pods, record, events, queued)
    starts = [run.started_at for run in runs if run.started_at is not None]
    first = instant(record.started_at)
    started = min(starts if first is None else [*starts, first], default=None)
    is_finished = phase in (WorkloadPhase.SUCCEEDED, WorkloadPhase.FAILED)
    return WorkloadStatus(
        name=job["metadata"]["name"],
        namespace=job["metadata"]["namespace"],
        attempt_uid=record.attempt,
        phase=phase,
        reason=reason,
        message=message,
        exit_code=_exit_code(pods) if is_finished else None,
        created_at=instant(job["metadata"]["creationTimestamp"]),
        started_at=started,
        finished_at=_finished_at(job, runs, record) if is_finished else None,
        running_ms=running_ms,
        gpu_ms=gpu_ms,
        gpu_ids=tuple(record.gpu_ids) if alive else (),
        gpu_allowance_ms=record.allowance_ms,
    )


def _phase(
    job: Object,
    alive: Sequence[Object],
    pods: Sequence[Object],
    record: Record,
    events: Sequence[str],
    queued: tuple[str, str] | None,
) -> tuple[WorkloadPhase, str, str]:
    conditions = {
        one["type"]: one
        for one in (job.get("status") or {}).get("conditions") or []
        if one.get("status") == "True"
    }
    if "Complete" in conditions:
        return WorkloadPhase.SUCCEEDED, "", ""
    if "Failed" in conditions and record.wants == DELETE:
        return WorkloadPhase.FAILED, "Deleted", "It was deleted."
    if failed := conditions.get("Failed"):
        return WorkloadPhase.FAILED, *_failure(failed, pods, record)
    runs = any(pod_run(pod).started_at for pod in alive)
    if record.wants == DELETE:
        if alive:
            return WorkloadPhase.RUNNING, "Deleting", "It was told to end."
        return WorkloadPhase.FAILED, "Deleted", "It was deleted."
    is_suspended = bool(job["spec"].get("suspend"))
    if record.wants == RUN and is_suspended and queued is not None:
        if runs:
            return WorkloadPhase.RUNNING, "Evicting", "Its queue takes its place back."
        return WorkloadPhase.PENDING, *queued
    if record.wants != RUN or is_suspended:
        if runs:
            return WorkloadPhase.RUNNING, "Pausing", "It was told to stop."
        reason = "AllowanceExhausted" if record.wants == EXHAUSTED else "Paused"
        return WorkloadPhase.PAUSED, reason, "The Job is suspended; its pod has gone."
    if runs:
        return WorkloadPhase.RUNNING, "", ""
    if any(is_over(pod) and not is_ending(pod) for pod in pods):
        return WorkloadPhase.RUNNING, "Ending", "Its program has ended; the Job has not said so."
    return WorkloadPhase.PENDING, *_waiting(alive, events)


def _failure(condition: Object, pods: Sequence[Object], record: Record) -> tuple[str, str]:
    if condition.get("reason") == "DeadlineExceeded":
        if record.allowance_ms is not None:
            return "AllowanceExhausted", (
                "The cluster ended it at its allowance, since nobody paused it in time."
            )
        return "DeadlineExceeded", "It ran as long as it may."
    said = record.disruption or next(filter(None, map(disruption_of, pods)), {})
    if said:
        return said["reason"], said["message"]
    code = _exit_code(pods)
    if any(_ended(pod).get("reason") == "OOMKilled" for pod in pods):
        return "OutOfMemory", "It used more memory than its limit."
    if code is None:
        return str(condition.get("reason", "Failed")), str(condition.get("message", ""))
    return ("Killed" if code > SIGNALLED else "NonZeroExit"), f"It ended with exit code {code}."


def disruption_of(pod: Object) -> dict[str, str]:
    """Why the cluster ended the pod, in its own words, and where it ran; {} when it did not."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    where = {"node": str(spec.get("nodeName") or ""), "priority": str(spec.get("priority") or 0)}
    for one in status.get("conditions") or []:
        if one.get("type") == "DisruptionTarget" and one.get("status") == "True":
            reason, message = str(one.get("reason", "Disrupted")), str(one.get("message", ""))
            return {"reason": reason, "message": message, **where}
    if status.get("reason"):  # Evicted, NodeLost, …
        message = str(status.get("message", ""))
        return {"reason": str(status["reason"]), "message": message, **where}
    return {}


def _waiting(alive: Sequence[Object], events: Sequence[str]) -> tuple[str, str]:
    """Why the attempt does not run yet: a reason and a sentence."""
    for pod in alive:
        waiting = (_container(pod).get("state") or {}).get("waiting") or {}
        said, why = str(waiting.get("reason", "")), str(waiting.get("message", ""))
        if said in CANNOT_PULL:
            return "ImagePull", why or "The image cannot be pulled."
        if said in CANNOT_START:
            return "StartFailed", f"{why or said}{_remedy(why)}"
        for one in (pod.get("status") or {}).get("conditions") or []:
            if one.get("type") == "PodScheduled" and one.get("status") == "False":
                return str(one.get("reason", "Unschedulable")), str(one.get("message", ""))
    if not alive and events:
        quota = any("exceeded quota" in event for event in events)
        return ("QuotaExceeded" if quota else "PodRefused"), events[-1]
    return "", ""


def _remedy(why: str) -> str:
    """What helps against the kubelet's refusal to run an image as root."""
    if "runAsNonRoot" not in why:
        return ""
    return (
        " - give the image a numeric USER other than 0, or have an operator of Clearance name this "
        "namespace in WORKLOAD_ROOT_NAMESPACES."
    )


def _container(pod: Object) -> Object:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    found: Object = next((one for one in statuses if one.get("name") == "agent"), {})
    return found


def _ended(pod: Object) -> Object:
    found: Object = (_container(pod).get("state") or {}).get("terminated") or {}
    return found


def _exit_code(pods: Sequence[Object]) -> int | None:
    """Of the last pod; one that a suspension ended counts only when there is no other."""
    own = [pod for pod in pods if not is_ending(pod)] or pods
    ordered = sorted(own, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
    codes = [_ended(pod)["exitCode"] for pod in ordered if "exitCode" in _ended(pod)]
    return int(codes[-1]) if codes else None


def _condition_time(status: Object, kind: str) -> str | None:
    for one in status.get("conditions") or []:
        if one.get("type") == kind:
            return str(one.get("lastTransitionTime") or "") or None
    return None


def _finished_at(job: Object, runs: Sequence[PodRun], record: Record) -> dt.datetime | None:
    status = job.get("status") or {}
    ends = [run.finished_at for run in runs if run.finished_at]
    told = instant(status.get("completionTime") or _failed_at(status) or record.ended_at)
    return max(ends) if ends else told


def _failed_at(status: Object) -> str | None:
    return _condition_time(status, "Failed")
