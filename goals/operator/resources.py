"""A Goal's row as a custom resource, and a custom resource as a manifest."""

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Prefetch, prefetch_related_objects

from agents.domain.metadata import API_VERSION
from goals.domain.budget import Budget, gpu_unit
from goals.domain.manifest import GoalManifest, parse_goal
from goals.domain.states import EntryKind, Unit
from goals.models import Account, Goal, LedgerEntry

Object = dict[str, Any]

AGREED: Final = "orchestration.ai/agreed"  # annotation: what row and resource last agreed on
MADE_FROM: Final = "orchestration.ai/made-from"  # annotation: uid of the row it was made from
FINALIZER: Final = "orchestration.ai/landing"
MESSAGE_MAX: Final = 32_000  # of a condition, as the API server allows
# Annotations that tools keep on the object, and that are no part of what is asked.
FOREIGN: Final = (
    "kubectl.kubernetes.io/",
    "orchestration.ai/",
    "meta.helm.sh/",
    "argocd.argoproj.io/",
)

# What an account returned whenever its Goal landed, beside it, so that ten thousand Goals cost no
# query each (`finish_landing` writes these entries).
RETURNS: Final = "landing_returns"
WITH_ACCOUNTS: Final = (
    "accounts",
    Prefetch(
        "accounts__entries",
        queryset=LedgerEntry.objects.filter(
            kind=EntryKind.RETURN, idempotency_key__startswith="landed:"
        ),
        to_attr=RETURNS,
    ),
)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Row, its generation, and digest of what was asked when both sides were the same."""

    uid: str
    generation: int
    digest: str

    def annotation(self, found: Object) -> str:
        """As it stands on this resource; a copy of the resource has agreed on nothing."""
        return f"{self.uid}/{self.generation}/{self.digest}/{found['metadata']['uid']}"


def read_agreement(found: Object) -> Agreement | None:
    """What the resource and a row last agreed on; None when they never did."""
    text = (found["metadata"].get("annotations") or {}).get(AGREED, "")
    parts = text.split("/")
    if len(parts) != 4 or not parts[1].isdecimal() or parts[3] != found["metadata"]["uid"]:
        return None
    return Agreement(parts[0], int(parts[1]), parts[2])


def manifest_of(found: Object) -> GoalManifest:
    """What the resource asks. Raises ManifestError naming each wrong field."""
    metadata = found["metadata"]
    return parse_goal(
        {
            "apiVersion": API_VERSION,
            "kind": "Goal",
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "labels": metadata.get("labels") or {},
                "annotations": _asked(metadata.get("annotations") or {}),
            },
            "spec": found.get("spec") or {},
        }
    )


def manifest_of_row(goal: Goal) -> GoalManifest:
    """What the row asks."""
    return parse_goal(
        {
            "apiVersion": API_VERSION,
            "kind": "Goal",
            "metadata": {
                "name": goal.name,
                "namespace": goal.namespace,
                "labels": goal.labels,
                "annotations": _asked(goal.annotations),
            },
            "spec": goal.spec,
        }
    )


def digest_of(manifest: GoalManifest) -> str:
    """SHA-256 (first 32 hex digits) of what a manifest asks, however it was spelt."""
    asked = [manifest.spec_document(), dict(manifest.labels), dict(manifest.annotations)]
    content = json.dumps(asked, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def resource_of(goal: Goal) -> Object:
    """The resource that a row asks for, without what only the cluster knows."""
    document = manifest_of_row(goal).to_document()
    asked = document["metadata"]
    metadata: Object = {
        "name": goal.name,
        "namespace": goal.namespace,
        "annotations": {**asked.get("annotations", {}), MADE_FROM: str(goal.uid)},
        "finalizers": [FINALIZER],
    }
    if asked.get("labels"):
        metadata["labels"] = asked["labels"]
    return {**document, "metadata": metadata}


def status_of(goal: Goal | None, found: Object, extra: Iterable[Mapping[str, str]]) -> Object:
    """The status of the resource: the row's, and what the operator itself has to say.

    A condition keeps its time as long as its status does.
    """
    generation = int(found["metadata"].get("generation") or 0)
    known = {one["type"]: one for one in (found.get("status") or {}).get("conditions") or []}
    conditions = [] if goal is None else [dict(one) for one in goal.conditions]
    for one in extra:
        before = known.get(one["type"])
        since = before["lastTransitionTime"] if before and before["status"] == one["status"] else ""
        conditions.append({**one, "observedGeneration": generation, "lastTransitionTime": since})
    for one in conditions:
        one["message"] = str(one.get("message", ""))[:MESSAGE_MAX]
        one["lastTransitionTime"] = one["lastTransitionTime"] or _now()
    status: Object = {"observedGeneration": generation, "conditions": conditions}
    if goal is None:
        return status
    returned = _returned(goal)
    accounts = list(goal.accounts.all())
    limits = {one.unit: one.limit + returned.get(one.pk, 0) for one in accounts}
    status |= {
        "phase": goal.phase,
        "satisfied": goal.satisfied,
        "uid": str(goal.uid),
        "rowGeneration": goal.generation,
        "spent": _said({one.pk: one.settled for one in accounts}, accounts, limits),
        "limit": _limit(limits),
    }
    if returned:
        status["returned"] = _said(returned, accounts, limits)
    if goal.measured_value is not None:
        status["measured"] = f"{goal.measured_value:.6g} {goal.measured_unit}".strip()
    return status


def condition(kind: str, status: bool, reason: str, message: str) -> dict[str, str]:
    """A condition of the operator's own."""
    return {"type": kind, "status": str(status), "reason": reason, "message": message}


def _asked(annotations: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in annotations.items() if not key.startswith(FOREIGN)}


def _returned(goal: Goal) -> dict[int, int]:
    """What each account gave back when the Goal landed, by which its limit has sunk."""
    if not goal.is_landed:
        return {}
    prefetch_related_objects([goal], *WITH_ACCOUNTS)
    key = f"landed:{goal.generation}"
    amounts = {
        account.pk: sum(
            entry.amount for entry in getattr(account, RETURNS) if entry.idempotency_key == key
        )
        for account in goal.accounts.all()
    }
    return {account: amount for account, amount in amounts.items() if amount}


def _limit(amounts: Mapping[str, int]) -> str:
    some = {unit: amount for unit, amount in amounts.items() if amount > 0}
    return Budget(**some).as_text() if some else "0"


def _said(
    amounts: Mapping[int, int], accounts: Iterable[Account], limits: Mapping[str, int]
) -> str:
    """An amount of each account, in the unit of its limit."""
    parts = []
    for account in accounts:
        amount = amounts.get(account.pk, 0)
        match Unit(account.unit):
            case Unit.GPU_MS:
                noun, length = gpu_unit(limits[account.unit])
                parts.append(f"{amount / length:.1f} {noun}s")
            case Unit.TOKENS:
                parts.append(f"{amount} tokens")
            case Unit.MICRO_USD:
                parts.append(f"{amount / 1e6:.2f} USD")
    return ", ".join(parts)


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
