"""Kueue: attempts queue for quota, and what Clearance says of them is an AdmissionCheck.

Kueue alone writes `spec.suspend` of a Job that carries a queue's name. An attempt that may run gets
`Ready` in our check; one that may not now is evicted by `Retry` and its Workload set inactive, so
that it reserves no quota while it waits; one that ended is `Rejected`. docs/kueue.md says why.
"""

import datetime as dt
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from fractions import Fraction
from typing import Any, Final

from agents.cluster.base import (
    Blockage,
    ClusterError,
    Holder,
    WorkloadBlocked,
    WorkloadSpec,
    WorkloadStatus,
)
from agents.cluster.kubernetes.api import (
    KubernetesApi,
    ObjectAbsent,
    ObjectConflict,
    ObjectRefused,
    object_path,
)
from agents.cluster.kubernetes.reading import instant
from agents.cluster.kubernetes.record import WORKLOAD
from agents.domain.naming import GPU_RESOURCE
from agents.domain.quantity import parse_quantity

logger = logging.getLogger(__name__)

Object = Mapping[str, Any]

API: Final = "kueue.x-k8s.io/v1beta2"  # served from Kueue 0.15 on
QUEUES: Final = f"apis/{API}/localqueues"
WORKLOADS: Final = f"apis/{API}/workloads"
CHECKS: Final = f"apis/{API}/admissionchecks"
QUEUE: Final = "kueue.x-k8s.io/queue-name"  # label of the Job; Kueue takes over what carries it
JOB_UID: Final = "kueue.x-k8s.io/job-uid"  # label that Kueue puts on the Workload
CONTROLLER: Final = (
    "orchestration.ai/clearance"  # `controllerName` of the AdmissionChecks we answer
)
PICKED: Final = "orchestration.ai/queue"  # annotation of a namespace that has several LocalQueues
DEFAULT_QUEUE: Final = "default"  # as Kueue's own LocalQueueDefaulting calls it
HELD: Final = "orchestration.ai/held"  # annotation: it was us who set the Workload inactive
CHECK_MANAGER: Final = "clearance-check"
FRESH_SECONDS: Final = 5.0  # of the list of our checks, and of who holds a ClusterQueue


class Stance(Enum):
    """What Clearance says of an attempt now."""

    RUN = auto()
    HOLD = auto()  # paused, or its allowance is used up
    END = auto()  # denied, cancelled, revoked, deleted


# Reasons of an attempt that Kueue has not started.
QUEUE_REASONS: Final = frozenset({"Queued", "QueuedForQuota", "Preempted", "Checking", "Inactive"})
ABSENT_SECONDS: Final = 10.0  # between looks for Kueue where it is not installed
TAKES_SECONDS: Final = 10.0  # so long Kueue may take to see a new Job before that is worth a word


class Kueue:
    """Queues and Workloads of one cluster; everything is absent where Kueue is not installed."""

    def __init__(
        self,
        api: KubernetesApi,
        *,
        clock: Callable[[], dt.datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._clock = clock
        self._monotonic = monotonic
        self._checks: tuple[float, frozenset[str]] | None = None
        self._is_refusal_said = False
        self._admitted: tuple[float, Sequence[Object]] | None = None
        self._absent_until = 0.0

    def queue_for(self, spec: WorkloadSpec) -> str:
        """The LocalQueue of an attempt; "" where none is to be used.

        The attempt's own label, the namespace's annotation, the queue called `default`, the only
        one there is. Raises WorkloadBlocked when there are several and none is picked.
        """
        if self._monotonic() < self._absent_until:
            return ""
        try:
            found = [
                str(one["metadata"]["name"])
                for one in self._api.items(object_path(QUEUES, spec.namespace))
            ]
        except ObjectAbsent:
            self._absent_until = self._monotonic() + ABSENT_SECONDS
            return ""
        except ObjectRefused as error:
            if not self._is_refusal_said:
                logger.info("queues of Kueue are not used: %s", error)
            self._is_refusal_said = True
            return ""
        if asked := spec.labels.get(QUEUE):
            return asked
        if not found:
            return ""
        namespace = self._api.get(f"/api/v1/namespaces/{spec.namespace}")
        if picked := (namespace["metadata"].get("annotations") or {}).get(PICKED):
            return str(picked)
        if DEFAULT_QUEUE in found or len(found) == 1:
            return DEFAULT_QUEUE if DEFAULT_QUEUE in found else found[0]
        what = (
            f"no queue is picked among {', '.join(sorted(found))} of namespace {spec.namespace}: "
            f"name one in the namespace's annotation {PICKED}"
        )
        raise WorkloadBlocked(what, reason="QueueNotPicked", blockage=Blockage(what))

    def workload_of(self, job: Object) -> Object | None:
        """The Workload that Kueue made of a Job; None when it has not, or is not there."""
        metadata = job["metadata"]
        path = object_path(WORKLOADS, metadata["namespace"])
        try:
            items = list(self._api.items(path, labelSelector=f"{JOB_UID}={metadata['uid']}"))
        except ObjectAbsent:
            return None
        return items[0] if items else None

    # --- What we say -----------------------------------------------------------------------------

    def answer(self, workload: Object, stance: Stance, why: str) -> None:
        """Take the next step towards the stance; the same again changes nothing.

        An attempt that runs is evicted by `Retry`, never with `requeueAfterSeconds`: Kueue 0.15
        waits that long before it evicts one that is admitted. It reserves quota anew at once, so
        whatever is held back is set inactive as soon as our check is Pending or nothing is kept.
        Only against the version that was read: what has changed since is seen by the next look.
        """
        status = workload.get("status") or {}
        if _is_true(workload, "Finished"):
            return
        ours = [one for one in status.get("admissionChecks") or [] if one["name"] in self._ours()]
        is_reserved = _is_true(workload, "QuotaReserved") and not _is_true(workload, "Evicted")
        try:
            if stance is Stance.RUN:
                if not _is_active(workload):
                    self._let_queue(workload)
                elif is_reserved:
                    self._say(workload, ours, "Ready", why, over=("Pending",))
            elif stance is Stance.HOLD and is_reserved and _has(ours, "Ready", "Retry"):
                self._say(workload, ours, "Retry", why, over=("Ready",))
            elif stance is Stance.END and is_reserved and ours:
                self._say(workload, ours, "Rejected", why, over=("Pending", "Ready", "Retry"))
            elif _is_active(workload):
                held = "true" if stance is Stance.HOLD else None
                self._merge(workload, is_active=False, held=held)
        except (ObjectAbsent, ObjectConflict):
            return

    def _say(
        self,
        workload: Object,
        checks: Sequence[Object],
        state: str,
        why: str,
        *,
        over: tuple[str, ...],
    ) -> None:
        now = self._clock().isoformat(timespec="seconds").replace("+00:00", "Z")
        said = [
            {
                "name": one["name"],
                "state": state,
                "message": why,
                "lastTransitionTime": now,
            }
            for one in checks
            if one["state"] in over
        ]
        if not said:
            return
        metadata = workload["metadata"]
        body = {
            "apiVersion": API,
            "kind": "Workload",
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "status": {"admissionChecks": said},
        }
        path = object_path(WORKLOADS, metadata["namespace"], metadata["name"])
        self._api.apply(f"{path}/status", body, manager=CHECK_MANAGER)

    def _let_queue(self, workload: Object) -> None:
        """Active again, if it was us who set it inactive: somebody else had a reason."""
        if (workload["metadata"].get("annotations") or {}).get(HELD):
            self._merge(workload, is_active=True, held=None)

    def _merge(self, workload: Object, *, is_active: bool, held: str | None) -> None:
        metadata = workload["metadata"]
        change = {
            "metadata": {
                "resourceVersion": metadata["resourceVersion"],
                "annotations": {HELD: held},
            },
            "spec": {"active": is_active},
        }
        path = object_path(WORKLOADS, metadata["namespace"], metadata["name"])
        self._api.merge(path, change)

    def _ours(self) -> frozenset[str]:
        """Names of the AdmissionChecks that are ours to answer."""
        known, now = self._checks, self._monotonic()
        if known is None or now - known[0] > FRESH_SECONDS:
            known = self._checks = (now, frozenset(_names(our_checks(self._api))))
        return known[1]

    # --- What Kueue says -------------------------------------------------------------------------

    def waiting(self, job: Object, workload: Object | None) -> tuple[str, str]:
        """Why the attempt's Job is still suspended: one of QUEUE_REASONS, and Kueue's own words.

        Both empty while that is about to change.
        """
        queue = job["metadata"]["labels"][QUEUE]
        if workload is None:
            made = instant(job["metadata"]["creationTimestamp"])
            is_new = made is not None and (self._clock() - made).total_seconds() < TAKES_SECONDS
            return ("", "") if is_new else ("Queued", f"Kueue does not take it into queue {queue}")
        if not _is_active(workload):
            is_ours = bool((workload["metadata"].get("annotations") or {}).get(HELD))
            return ("", "") if is_ours else ("Inactive", "its Workload was set inactive in Kueue")
        evicted, reserved = _condition(workload, "Evicted"), _condition(workload, "QuotaReserved")
        if evicted.get("status") == "True" and evicted.get("reason") == "Preempted":
            return "Preempted", _preemption(str(evicted.get("message", "")))
        if reserved.get("status") == "True":
            others = self._others(workload)
            return ("Checking", f"admission checks of Kueue ({others})") if others else ("", "")
        if reserved.get("status") == "False" and evicted.get("status") != "True":
            return "QueuedForQuota", str(reserved.get("message", ""))
        return "", ""

    def _others(self, workload: Object) -> str:
        """What the checks of others say that are not ready."""
        checks = (workload.get("status") or {}).get("admissionChecks") or []
        waits = [
            one for one in checks if one["state"] != "Ready" and one["name"] not in self._ours()
        ]
        return "; ".join(f"{one['name']}: {one.get('message') or one['state']}" for one in waits)

    def blockage(self, job: Object, status: WorkloadStatus) -> Blockage:
        """The same for people, with who holds the quota that the attempt waits for."""
        message = status.message.rstrip(".")
        if status.reason not in ("QueuedForQuota", "Preempted"):
            return Blockage(message)
        metadata = job["metadata"]
        queue = metadata["labels"][QUEUE]
        try:
            local = self._api.get(object_path(QUEUES, metadata["namespace"], queue))
            owner = str(local["spec"].get("clusterQueue", ""))
            holders = self._holders(owner, without=str(metadata["name"]))
        except ClusterError as error:
            logger.info("who holds queue %s cannot be told: %s", queue, error)
            return Blockage(f"queue {queue} of namespace {metadata['namespace']} ({message})")
        what = f"queue {queue} of namespace {metadata['namespace']}"
        return Blockage(f"{what} (ClusterQueue {owner}: {message})", holders)

    def _holders(self, cluster_queue: str, *, without: str) -> tuple[Holder, ...]:
        known, now = self._admitted, self._monotonic()
        if known is None or now - known[0] > FRESH_SECONDS:
            everything = self._api.items(f"/{WORKLOADS}")
            admitted = [one for one in everything if _is_true(one, "QuotaReserved")]
            known = self._admitted = (now, admitted)
        found = [
            _holder(one)
            for one in known[1]
            if ((one.get("status") or {}).get("admission") or {}).get("clusterQueue")
            == cluster_queue
        ]
        others = [one for one in found if one.name != without]
        return tuple(sorted(others, key=lambda one: (-one.amount, one.namespace, one.name)))


def our_checks(api: KubernetesApi) -> Sequence[Object]:
    """The AdmissionChecks whose controller we are; none where Kueue is not installed."""
    try:
        found = list(api.items(f"/{CHECKS}"))
    except ObjectAbsent:
        return []
    return [one for one in found if (one.get("spec") or {}).get("controllerName") == CONTROLLER]


def keep_checks_active(api: KubernetesApi, *, now: dt.datetime) -> int:
    """Mark our AdmissionChecks Active, as Kueue asks of their controller; how many were not.

    Kueue admits nothing through a ClusterQueue one of whose checks is not active.
    """
    changed = 0
    for check in our_checks(api):
        generation = check["metadata"].get("generation", 1)
        known = _condition(check, "Active")
        if known.get("status") == "True" and known.get("observedGeneration") == generation:
            continue
        active = {
            "type": "Active",
            "status": "True",
            "reason": "Active",
            "message": "Clearance answers this check.",
            "observedGeneration": generation,
            "lastTransitionTime": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        }
        name = check["metadata"]["name"]
        body = {
            "apiVersion": API,
            "kind": "AdmissionCheck",
            "metadata": {"name": name},
            "status": {"conditions": [active]},
        }
        api.apply(f"/{CHECKS}/{name}/status", body, manager=CHECK_MANAGER)
        changed += 1
    return changed


def is_queued(job: Object) -> bool:
    """Whether Kueue decides when the Job is suspended."""
    return QUEUE in (job["metadata"].get("labels") or {})


def _holder(workload: Object) -> Holder:
    metadata, spec = workload["metadata"], workload["spec"]
    owners = metadata.get("ownerReferences") or []
    name = next((str(one["name"]) for one in owners if one.get("controller")), metadata["name"])
    labels = [_template_labels(one) for one in spec.get("podSets") or []]
    admission = workload["status"].get("admission") or {}
    amount = Fraction(0)
    for part in admission.get("podSetAssignments") or []:
        amount += parse_quantity(str((part.get("resourceUsage") or {}).get(GPU_RESOURCE, "0")))
    since = instant(_condition(workload, "QuotaReserved").get("lastTransitionTime"))
    is_ours = any(one.get(WORKLOAD) == name for one in labels)
    return Holder(metadata["namespace"], name, is_ours, int(amount), since)


def _template_labels(pod_set: Object) -> Mapping[str, str]:
    found: Mapping[str, str] = pod_set["template"].get("metadata", {}).get("labels") or {}
    return found


def _preemption(message: str) -> str:
    """Without the identifiers, which name a workload to nobody who may not see it."""
    _, _, due = message.partition(" due to ")
    return f"preempted due to {due.partition(';')[0]}" if due else "preempted by another workload"


def _has(checks: Sequence[Object], *states: str) -> bool:
    return any(one["state"] in states for one in checks)


def _is_active(workload: Object) -> bool:
    return bool(workload["spec"].get("active", True))


def _names(found: Sequence[Object]) -> list[str]:
    return [str(one["metadata"]["name"]) for one in found]


def _condition(found: Object, kind: str) -> Mapping[str, Any]:
    conditions = (found.get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one["type"] == kind), {})


def _is_true(found: Object, kind: str) -> bool:
    return bool(_condition(found, kind).get("status") == "True")
