"""Pods and what makes pods, as admission sees them: where the pod is and what is judged."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from agents.admission.review import API_VERSION, Object, Review
from agents.cluster.kubernetes.record import WORKLOAD
from agents.domain.naming import agent_id_of

AGENT_ID: Final = "agent_id"
DEFAULT_ACCOUNT: Final = "default"
# Where each kind keeps the pod that it makes: metadata and spec are below.
POD_PATHS: Final[Mapping[str, tuple[str, ...]]] = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
CONTAINER_LISTS: Final = ("containers", "initContainers", "ephemeralContainers")
# It repeats the whole object, with values of environment variables in it.
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
WITHHELD: Final = "(withheld)"  # instead of an environment variable's value: it may be a secret
# Controllers that make pods of a Job, with and without service accounts of their own.
JOB_CONTROLLERS: Final = (
    "system:serviceaccount:kube-system:job-controller",
    "system:kube-controller-manager",
)
SAFE_INTEGER: Final = 2**53 - 1  # RFC 8785 has no larger ones; Kubernetes does
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


def pod_of(kind: str, found: Mapping[str, Any]) -> Object | None:
    """The pod, or the template of one, in an object; None where there is none."""
    if kind not in POD_PATHS:
        return None
    level: Any = found
    for step in POD_PATHS[kind]:
        level = level.get(step) if isinstance(level, dict) else None
    return level if isinstance(level, dict) else None


def account_of(pod: Mapping[str, Any]) -> str:
    """The service account a pod will run under."""
    return str((pod.get("spec") or {}).get("serviceAccountName") or DEFAULT_ACCOUNT)


def agent_patch(review: Review) -> list[Object]:
    """The JSON patch that sets `agent_id` on the pod (or the template) from its service account."""
    pod = pod_of(review.kind, review.found)
    if pod is None or review.subresource or asks_nothing_new(review):
        return []
    wanted = agent_id_of(account_of(pod))
    metadata = pod.get("metadata")
    labels = (metadata or {}).get("labels")
    if (labels or {}).get(AGENT_ID) == wanted:
        return []
    base = "".join(f"/{step}" for step in POD_PATHS[review.kind])
    if metadata is None:
        return [_add(f"{base}/metadata", {"labels": {AGENT_ID: wanted}})]
    if labels is None:
        return [_add(f"{base}/metadata/labels", {AGENT_ID: wanted})]
    return [_add(f"{base}/metadata/labels/{AGENT_ID}", wanted)]


def _add(path: str, value: Any) -> Object:
    """RFC 6902: adding what is there replaces it."""
    return {"op": "add", "path": path, "value": value}


def asks_nothing_new(review: Review) -> bool:
    """Does an update leave the pod, or the template of one, as it was?

    Controllers take finalizers off pods that ended; Jobs are suspended and Deployments scaled down
    by an update. What was let in once must never be kept from being counted, stopped and taken
    away, whatever has become of the policy since. More pods of a template are judged one by one.
    """
    if not review.is_update or not review.before or review.subresource:
        return False
    if (review.found.get("metadata") or {}).get("deletionTimestamp"):
        return review.found.get("spec") == review.before.get("spec")
    now, before = (pod_of(review.kind, one) for one in (review.found, review.before))
    return now is not None and before is not None and _asked(now) == _asked(before)


def _asked(pod: Mapping[str, Any]) -> Object:
    metadata = pod.get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    return {
        "labels": metadata.get("labels") or {},
        "annotations": {k: v for k, v in annotations.items() if k != LAST_APPLIED},
        "spec": pod.get("spec") or {},
    }


def is_cleared(review: Review, *, own_users: frozenset[str]) -> bool:
    """Is it an attempt's Job or its pod, whose graph was judged and approved before it was made?

    Labels alone prove nothing. Who asked does: Kubernetes has authenticated them. A Job is cleared
    when we ourselves make it, a pod when the Job controller makes it of a Job under our label; no
    Job of anybody else with that label gets here without having been judged as not cleared.
    """
    metadata = review.found.get("metadata") or {}
    workload = (metadata.get("labels") or {}).get(WORKLOAD)
    if not workload or review.subresource:
        return False
    if review.kind == "Job":
        return workload == review.name and review.username in own_users
    if review.kind != "Pod" or review.username not in JOB_CONTROLLERS:
        return False
    return any(
        owner.get("controller") and owner.get("kind") == "Job" and owner.get("name") == workload
        for owner in metadata.get("ownerReferences") or []
    )


def policy_input(review: Review, *, facts: Mapping[str, Any]) -> Object:
    """The document that policy sees: the review, without values that may be secrets.

    `facts` go into `request`: they reach the rules as `input.request` and `input.review`.
    """
    asked = review.request
    request: Object = {
        key: asked[key]
        for key in ("uid", "kind", "resource", "subResource", "operation", "name", "namespace")
        if key in asked
    }
    user = asked.get("userInfo") or {}
    request["userInfo"] = {key: user[key] for key in ("username", "groups") if key in user}
    request["name"] = review.name
    request["dryRun"] = review.is_dry_run
    request["object"] = _seen(review.kind, review.found)
    if review.before:
        request["oldObject"] = _seen(review.kind, review.before)
    return {"apiVersion": API_VERSION, "kind": "AdmissionReview", "request": {**request, **facts}}


def _seen(kind: str, found: Mapping[str, Any]) -> Object:
    seen: Object = _portable(found)
    metadata = seen.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop("managedFields", None)
        annotations = metadata.get("annotations")
        if isinstance(annotations, dict):
            annotations.pop(LAST_APPLIED, None)
    for container in _containers(pod_of(kind, seen) or {}):
        for variable in container.get("env") or []:
            if isinstance(variable, dict) and variable.get("value"):
                variable["value"] = WITHHELD
    return seen


def _containers(pod: Mapping[str, Any]) -> Iterator[Object]:
    for name in CONTAINER_LISTS:
        for container in (pod.get("spec") or {}).get(name) or []:
            if isinstance(container, dict):
                yield container


def _portable(value: Any) -> Any:
    """A copy that has a canonical form: integers beyond RFC 8785's become text."""
    if isinstance(value, dict):
        return {key: _portable(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_portable(one) for one in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > SAFE_INTEGER:
        return str(value)
    return value


def digests_in(value: Any) -> set[str]:
    """Every SHA-256 digest that an object names, wherever it does."""
    found: set[str] = set()
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, str):
            found.update(DIGEST.findall(one))
        elif isinstance(one, dict):
            stack.extend(one.values())
            stack.extend(one)
        elif isinstance(one, list):
            stack.extend(one)
    return found
