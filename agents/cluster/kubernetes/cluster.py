"""The cluster port on Kubernetes: an attempt is a Job, a pause is `suspend: true`.

A suspended Job has no pod: the process ends and starts anew when it is resumed, so that an agent
keeps what it needs outside itself, and no GPU is held by a paused attempt. Running time is what
the kubelets report, to the second; it is written on the Job before a pod may leave.
"""

import contextlib
import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from agents.cluster.base import (
    ClusterUnavailable,
    Gpu,
    WorkloadBlocked,
    WorkloadConflict,
    WorkloadInvalid,
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
from agents.cluster.kubernetes.blocked import Blockages, is_over_quota
from agents.cluster.kubernetes.credentials import ensure_account
from agents.cluster.kubernetes.kueue import QUEUE_REASONS, Kueue, Stance, is_queued
from agents.cluster.kubernetes.nodes import PODS, gpu_count, gpu_slots, slot_id
from agents.cluster.kubernetes.objects import (
    PENDING_SECONDS,
    USUAL_TERMS,
    Terms,
    backstop_seconds,
    job,
    secret,
)
from agents.cluster.kubernetes.pods import release_pod, stop_pods
from agents.cluster.kubernetes.reading import disruption_of, instant, is_over, pod_run, read_status
from agents.cluster.kubernetes.record import (
    DELETE,
    EXHAUSTED,
    PAUSE,
    RECORD,
    RUN,
    WORKLOAD,
    Record,
    new_record,
    read_record,
    spec_digest,
)
from agents.cluster.specs import check_allowance, check_grace, check_name, check_slice, check_spec

Object = dict[str, Any]

JOBS: Final = "apis/batch/v1/jobs"
SECRETS: Final = "api/v1/secrets"
EVENTS: Final = "api/v1/events"
PRIORITIES: Final = "apis/scheduling.k8s.io/v1/priorityclasses"
SWAPS: Final = 8  # tries of one compare-and-swap; each loser reads again
# A pod is stopped so long before its allowance ends: what the suspension itself takes.
EARLY_MS: Final = 1500
# What Kueue may take to suspend a Job that we evict, before the cluster ends the Job without it.
EVICTING_SECONDS: Final = 30
LOG_BYTES_MAX: Final = 8 << 20


class KubernetesCluster:
    """Jobs of one Kubernetes context, found by label in every namespace."""

    keeps_paused = False  # a suspended Job has no pod

    def __init__(
        self,
        api: KubernetesApi,
        *,
        terms: Terms = USUAL_TERMS,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._api = api
        self.terms = terms
        self._clock = clock
        self._blockages = Blockages(api)
        self._kueue = Kueue(api, clock=clock)
        self._namespaces: dict[str, str] = {}  # of the Jobs seen; only ever a hint

    # --- the port --------------------------------------------------------------------------------

    def create(self, spec: WorkloadSpec) -> None:
        """Make the service account and the Secret, then the Job.

        Raises WorkloadConflict, WorkloadInvalid, WorkloadBlocked.
        """
        check_spec(spec, gpu_count=gpu_count(self._api) if spec.gpus else 0)
        known = self._find(spec.name)
        if known is None:
            known = self._make(spec)
        record = read_record(known)
        if record is None or record.spec != spec_digest(spec):
            raise WorkloadConflict(f"{spec.name} exists with another specification.")
        self._namespaces[spec.name] = spec.namespace
        self._own_secret(spec, known)

    def pause(self, name: str) -> None:
        """Suspend the Job: its pod ends."""
        self._want(name, PAUSE, from_=(RUN, EXHAUSTED))

    def resume(self, name: str) -> None:
        """Let a suspended Job run again, unless its allowance is used up."""
        self._want(name, RUN, from_=(PAUSE,))

    def set_gpu_allowance(self, name: str, gpu_ms: int) -> None:
        """Raise the allowance; an exhausted attempt runs on."""
        check_allowance(gpu_ms)

        def raised(record: Record) -> bool:
            if record.allowance_ms is None or gpu_ms <= record.allowance_ms:
                return False
            record.allowance_ms = gpu_ms
            if record.wants == EXHAUSTED:
                record.wants = RUN
            return True

        self._change(name, raised)

    def delete(self, name: str, *, grace_seconds: float = 5.0) -> None:
        """End the pod; the suspended Job stays readable until `forget`, or as long as is kept."""
        check_grace(grace_seconds)
        found = self._want(name, DELETE, from_=(RUN, PAUSE, EXHAUSTED))
        if found is None:
            return
        for pod in self._pods(found):
            if not is_over(pod):
                path = object_path(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
                self._api.delete(path, gracePeriodSeconds=round(grace_seconds))
        # No pod of it starts any more: what the Secret holds need not lie there.
        self._api.delete(object_path(SECRETS, found["metadata"]["namespace"], name))
        self.get(name)

    def forget(self, name: str) -> None:
        """Remove the Job, its pods and its Secret, once finished."""
        found = self._find(name)
        if found is None:
            return
        status = self._settle(found)
        if status is not None and not status.is_finished:
            return
        namespace = found["metadata"]["namespace"]
        for pod in self._pods(found):
            release_pod(self._api, pod)
        self._api.delete(object_path(SECRETS, namespace, name))
        self._api.delete(object_path(JOBS, namespace, name), propagationPolicy="Background")
        self._namespaces.pop(name, None)

    def get(self, name: str) -> WorkloadStatus | None:
        """The attempt as the cluster tells it; pods that ended are metered on the way."""
        found = self._find(name)
        if found is None:
            return None
        pods = self._pods(found)
        status = self._settle(found, pods, answers=True)
        if status is None:
            return None
        if status.reason in QUEUE_REASONS and is_queued(found):
            return replace(status, blockage=self._kueue.blockage(found, status))
        record = read_record(found)
        ended = record.disruption if record else {}
        disruption = ended or next(filter(None, map(disruption_of, pods)), {})
        blockage = self._blockages.of(status, pods, disruption=disruption)
        return replace(status, blockage=blockage)

    def list(self) -> Sequence[WorkloadStatus]:
        """Every attempt of ours, in every namespace; what was deleted long ago is forgotten."""
        pods: dict[tuple[str, str], list[Object]] = {}
        for pod in self._api.items(f"/{PODS}", labelSelector=WORKLOAD):
            metadata = pod["metadata"]
            key = metadata["namespace"], metadata["labels"][WORKLOAD]
            pods.setdefault(key, []).append(pod)
        statuses = []
        for one in self._api.items(f"/{JOBS}", labelSelector=WORKLOAD):
            metadata = one["metadata"]
            status = self._settle(one, pods.get((metadata["namespace"], metadata["name"]), ()))
            if status is not None and status.is_finished and self._is_old(one):
                self.forget(status.name)
            elif status is not None:
                statuses.append(status)
        return statuses

    def output(self, name: str, *, offset: int = 0, limit: int = 65536) -> bytes:
        """What the latest pod wrote; that of a suspended one is gone with it."""
        check_slice(offset, limit)
        found = self._find(name)
        if found is None or limit == 0:
            return b""
        pods = sorted(self._pods(found), key=lambda pod: pod["metadata"]["creationTimestamp"])
        if not pods:
            return b""
        record = read_record(found)
        most = min(record.output_bytes_max if record else LOG_BYTES_MAX, offset + limit)
        latest = pods[-1]["metadata"]
        path = object_path(PODS, latest["namespace"], latest["name"]) + "/log"
        try:
            return self._api.text(path, limitBytes=max(most, 1))[offset:most]
        except (ObjectAbsent, ObjectRefused):
            return b""  # its container has not started

    def gpus(self) -> Sequence[Gpu]:
        """Every GPU that nodes offer; which card a device plugin gave, the API does not tell."""
        return gpu_slots(self._api)

    # --- Jobs ------------------------------------------------------------------------------------

    def _find(self, name: str) -> Object | None:
        check_name(name)
        if namespace := self._namespaces.get(name):
            try:
                return self._api.get(object_path(JOBS, namespace, name))
            except ObjectAbsent:
                self._namespaces.pop(name, None)
        for one in self._api.items(f"/{JOBS}", labelSelector=f"{WORKLOAD}={name}"):
            self._namespaces[name] = one["metadata"]["namespace"]
            return one
        return None

    def _make(self, spec: WorkloadSpec) -> Object:
        digest = spec_digest(spec)
        try:
            queue = self._kueue.queue_for(spec)
            ensure_account(self._api, spec)
            self._make_secret(spec, digest=digest)
            placed = replace(spec, priority_class=self._priority_class(spec))
            wanted = job(placed, new_record(spec), queue=queue, terms=self.terms)
            made = self._api.create(object_path(JOBS, spec.namespace), wanted)
        except ObjectConflict:
            made = self._api.get(object_path(JOBS, spec.namespace, spec.name))
        except (ObjectRefused, ObjectAbsent) as error:
            if is_over_quota(str(error)):
                blockage = self._blockages.of_quota(spec.namespace, str(error))
                raise WorkloadBlocked(
                    str(error), reason="QuotaExceeded", blockage=blockage
                ) from error
            raise WorkloadInvalid(f"{spec.name} in namespace {spec.namespace}: {error}") from error
        return made

    def _priority_class(self, spec: WorkloadSpec) -> str:
        """The class that is asked for, if the cluster has it: it refuses pods of any other."""
        if not spec.priority_class:
            return ""
        try:
            self._api.get(f"/{PRIORITIES}/{quote(spec.priority_class, safe='')}")
        except (ObjectAbsent, ObjectRefused):
            return ""
        return spec.priority_class

    def _own_secret(self, spec: WorkloadSpec, made: Object) -> None:
        """The Secret goes with its Job; said each time: the last try may have been cut off."""
        owner = {
            "apiVersion": "batch/v1", "kind": "Job", "name": spec.name,
            "uid": made["metadata"]["uid"],
        }  # fmt: skip
        path = object_path(SECRETS, spec.namespace, spec.name)
        with contextlib.suppress(ObjectAbsent):
            self._api.merge(path, {"metadata": {"ownerReferences": [owner]}})

    def _make_secret(self, spec: WorkloadSpec, *, digest: str) -> None:
        path = object_path(SECRETS, spec.namespace)
        try:
            self._api.create(path, secret(spec, digest=digest))
        except ObjectConflict:
            known = self._api.get(f"{path}/{spec.name}")
            said = (known["metadata"].get("annotations") or {}).get("orchestration.ai/spec")
            if said != digest:
                raise WorkloadConflict(f"{spec.name} exists with another specification.") from None

    def _want(self, name: str, wants: str, *, from_: tuple[str, ...]) -> Object | None:
        def wanted(record: Record) -> bool:
            if record.wants not in from_:
                return False
            record.wants = wants
            if wants == DELETE:
                record.ended_at = self._clock().isoformat(timespec="milliseconds")
            return True

        return self._change(name, wanted)

    def _change(self, name: str, change: Callable[[Record], bool]) -> Object | None:
        """Swap the record of an unfinished Job; gives the Job, None when there is none."""
        for _ in range(SWAPS):
            found = self._find(name)
            record = read_record(found) if found else None
            if found is None or record is None or _is_finished(found):
                return None
            if not change(record):
                return found
            try:
                return self._write(found, record)
            except ObjectConflict:
                continue
        raise ClusterUnavailable(f"{name} changes faster than it can be written; try again.")

    def _write(
        self, found: Object, record: Record, *, pods: Sequence[Object] | None = None
    ) -> Object:
        """Swap the record and what follows from it, only if nobody wrote meanwhile.

        `pods` are the Job's as they were seen, where they were.
        """
        metadata = found["metadata"]
        spec: Object = {}
        suspend = record.wants != RUN or _is_spent(record)
        if not is_queued(found) and bool(found["spec"].get("suspend")) != suspend:
            spec["suspend"] = suspend
        waited = self._waited_seconds(found, record) + EVICTING_SECONDS * is_queued(found)
        if not suspend and (backstop := backstop_seconds(record, waited_seconds=waited)):
            spec["activeDeadlineSeconds"] = backstop
        change = {
            "metadata": {
                "resourceVersion": metadata["resourceVersion"],
                "annotations": {RECORD: record.annotation()},
            },
            **({"spec": spec} if spec else {}),
        }
        path = object_path(JOBS, metadata["namespace"], metadata["name"])
        written = self._api.merge(path, change)
        if spec.get("suspend"):
            stop_pods(self._api, self._pods(written) if pods is None else pods)
        return written

    def _waited_seconds(self, found: Object, record: Record) -> float:
        """How long the Job's own clock has run that the attempt did not."""
        began = instant((found.get("status") or {}).get("startTime"))
        if began is None or found["spec"].get("suspend"):
            return PENDING_SECONDS
        runs = [
            run.started_at
            for run in map(pod_run, self._pods(found))
            if run.started_at and run.uid not in record.stopped_ms
        ]
        # Without a pod that runs, all of it: less would fail the Job of a program that has ended
        # well, before the Job controller has noticed.
        until = min(runs, default=self._clock())
        return max(0.0, (until - began).total_seconds())

    # --- Pods ------------------------------------------------------------------------------------

    def _pods(self, found: Object) -> Sequence[Object]:
        metadata = found["metadata"]
        selector = f"{WORKLOAD}={metadata['name']}"
        items = self._api.items(object_path(PODS, metadata["namespace"]), labelSelector=selector)
        return [*items]

    def _is_old(self, found: Object) -> bool:
        """A suspended Job never finishes, so no TTL of the cluster removes one that was deleted."""
        record = read_record(found)
        ended = instant(record.ended_at) if record else None
        if ended is None:
            return False
        return (self._clock() - ended).total_seconds() > self.terms.kept_seconds

    def _settle(
        self, found: Object, pods: Sequence[Object] | None = None, *, answers: bool = False
    ) -> WorkloadStatus | None:
        """Meter the pods that ended, stop what is at its allowance, and say how it stands.

        `answers` is whether to tell Kueue, too: only for attempts that were asked for by name.
        """
        record = read_record(found)
        if record is None:
            return None
        name = found["metadata"]["name"]
        self._namespaces[name] = found["metadata"]["namespace"]
        pods = self._pods(found) if pods is None else pods
        for _ in range(SWAPS):
            if not self._take(record, pods):
                break
            try:
                found = self._write(found, record, pods=pods)
                break
            except ObjectConflict:
                again = self._find(name)
                record = read_record(again) if again else None
                if again is None or record is None:
                    return None
                found = again
        for pod in pods:
            if pod["metadata"]["uid"] in record.stopped_ms:
                release_pod(self._api, pod)
        # Until its controller has looked at the Job, nothing can have been in the way of its pods.
        is_seen = bool((found.get("status") or {}).get("startTime"))
        events = self._events(found) if is_seen and not pods else ()
        queued = self._queued(found, record, answers=answers) if is_queued(found) else None
        now = self._clock()
        return read_status(found, pods, record, now=now, events=events, queued=queued)

    def _queued(self, found: Object, record: Record, *, answers: bool) -> tuple[str, str]:
        """Tell Kueue what we say of the attempt; why it is not started yet."""
        if not answers or _is_finished(found):
            return "", ""
        workload = self._kueue.workload_of(found)
        if workload is not None:
            self._kueue.answer(workload, *_stance(record))
        return self._kueue.waiting(found, workload)

    def _take(self, record: Record, pods: Sequence[Object]) -> bool:
        """Put into the record what the pods say; whether anything was new."""
        before = record.annotation()
        now = self._clock()
        running_ms = 0
        for pod in pods:
            run = pod_run(pod)
            if run.uid in record.stopped_ms:
                continue
            if run.started_at and not record.started_at:
                record.started_at = run.started_at.isoformat()
            if record.gpus and (node := (pod.get("spec") or {}).get("nodeName")):
                record.gpu_ids = [slot_id(node, run.uid, index) for index in range(record.gpus)]
            if is_over(pod):
                record.stopped_ms[run.uid] = run.running_ms(now)
                record.disruption = disruption_of(pod)
            else:
                running_ms += run.running_ms(now)
        if record.wants == RUN and record.allowance_ms is not None and record.gpus:
            used = (
                record.stopped_total_ms + running_ms + EARLY_MS * bool(running_ms)
            ) * record.gpus
            if used >= record.allowance_ms:
                record.wants = EXHAUSTED
        return record.annotation() != before

    def _events(self, found: Object) -> Sequence[str]:
        metadata = found["metadata"]
        selector = f"involvedObject.uid={metadata['uid']},reason=FailedCreate"
        path = object_path(EVENTS, metadata["namespace"])
        found_events = sorted(
            self._api.items(path, fieldSelector=selector),
            key=lambda one: str(one.get("lastTimestamp") or one.get("eventTime") or ""),
        )
        return [str(one.get("message", "")) for one in found_events]


def _stance(record: Record) -> tuple[Stance, str]:
    """What we say of the attempt, and why."""
    if record.wants == DELETE:
        return Stance.END, "It was ended: cancelled, denied or revoked."
    if record.wants == EXHAUSTED or _is_spent(record):
        return Stance.HOLD, "Its GPU allowance is used up: more of it must be approved."
    if record.wants == PAUSE:
        return Stance.HOLD, "It was paused."
    if record.allowance_ms is None:
        return Stance.RUN, "It is approved; it uses no GPU."
    left = max(0, record.allowance_ms - record.stopped_total_ms * record.gpus) / 1000
    return Stance.RUN, f"It is approved, with {left:.0f} GPU-seconds left of its allowance."


def _is_spent(record: Record) -> bool:
    used = record.stopped_total_ms * record.gpus
    return record.allowance_ms is not None and bool(record.gpus) and used >= record.allowance_ms


def _is_finished(found: Object) -> bool:
    conditions = (found.get("status") or {}).get("conditions") or []
    return any(
        one.get("type") in ("Complete", "Failed") and one.get("status") == "True"
        for one in conditions
    )
