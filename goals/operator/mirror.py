"""One look at one Goal: what the row and the resource say, and the next step that makes them one.

Level-triggered: it never asks what happened, only what is. Every step may be repeated, and being
killed after any of them loses nothing, since the agreement is written after what was agreed.
"""

import datetime as dt
import hashlib
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.utils import timezone

from agents.cluster.base import ClusterError
from agents.cluster.kubernetes.api import (
    KubernetesApi,
    ObjectAbsent,
    ObjectConflict,
    ObjectRefused,
    object_path,
)
from agents.domain.problems import ManifestError
from agents.services.registry import Outcome
from goals.models import Goal
from goals.operator.pace import USUAL, Pace
from goals.operator.persons import asker, editors, is_asked_by
from goals.operator.resources import (
    AGREED,
    FINALIZER,
    MADE_FROM,
    WITH_ACCOUNTS,
    Agreement,
    condition,
    digest_of,
    manifest_of,
    manifest_of_row,
    read_agreement,
    resource_of,
    status_of,
)
from goals.services.apply import GoalConflict, apply_goal, delete_goal
from governance.access import Principal
from governance.domain import EVERY_NAMESPACE, Permission
from governance.services.journal import journaled
from lineage.domain import Actor, ActorKind

logger = logging.getLogger(__name__)

Object = dict[str, Any]
Key = tuple[str, str]

GOALS: Final = "apis/orchestration.ai/v1/goals"
EVENTS: Final = "api/v1/events"
# A version that no object ever has: what is applied with it is made, or refused when it is there.
NEVER: Final = "1"
STATUS_MANAGER: Final = "clearance-status"
SPEC_MANAGER: Final = "clearance-console"
# A deleted resource waits so long for its Goal to land; then it goes, and the row lands alone.
LANDING_SECONDS: Final = 600.0
ABSENT_SECONDS: Final = 600.0  # rarely: every Goal of such a namespace asks

OPERATOR: Final = Principal(
    actor=Actor(ActorKind.SYSTEM, "operator"),
    username="kubernetes",
    permissions={EVERY_NAMESPACE: frozenset({Permission.VIEW, Permission.OPERATE})},
)


@dataclass(frozen=True, slots=True)
class Seen:
    """Both sides at one moment; either may be absent."""

    goal: Goal | None
    found: Object | None


class Resources:
    """Resources of one kind: `get` answers one as last heard, `put` keeps what was written."""

    def __init__(
        self,
        api: KubernetesApi,
        *,
        get: Callable[[Key], Object | None],
        put: Callable[[Object], None],
        pace: Pace = USUAL,
    ) -> None:
        self._api = api
        self._get = get
        self._put = put
        self._pace = pace


class Mirror(Resources):
    """Brings one key at a time together."""

    def sync(self, key: Key, *, rows: Mapping[Key, Goal] | None = None) -> float | None:
        """Take the next steps; seconds after which to look again, None when all is said.

        `rows` are those of many keys, read at once a moment ago.
        Raises ClusterError; ObjectConflict when the resource has changed since it was heard of.
        """
        goal = _row(key) if rows is None else rows.get(key)
        seen = Seen(goal, self._get(key))
        if seen.found is None:
            return self._without_resource(seen.goal)
        if seen.found["metadata"].get("deletionTimestamp"):
            return self._deleting(seen.goal, seen.found)
        if seen.goal is None:
            return self._without_row(seen.found)
        if seen.goal.deletion_requested_at is not None:
            self._delete(seen.found)
            return self._pace.again
        return self._both(seen.goal, seen.found)

    # --- One side is absent ----------------------------------------------------------------------

    def _without_resource(self, goal: Goal | None) -> float | None:
        """A Goal made in the console appears in kubectl, where its namespace exists."""
        if goal is None or goal.deletion_requested_at is not None:
            return None
        wanted = resource_of(goal)
        wanted["metadata"]["resourceVersion"] = NEVER
        path = _path((goal.namespace, goal.name))
        try:
            found = self._api.apply(path, wanted, manager=SPEC_MANAGER, is_forced=False)
        except ObjectAbsent:
            return ABSENT_SECONDS  # no such namespace in this cluster, or not yet
        self._put(found)
        self._agree(goal, found)
        return None

    def _without_row(self, found: Object) -> float | None:
        """A resource applied with kubectl becomes a Goal; one whose Goal was deleted goes, too."""
        if _is_leftover(found):
            self._delete(found)
            return self._pace.again
        found = self._guard(found)
        goal = self._apply(found, None)
        if goal is None:
            return self._pace.refused
        self._agree(goal, found)
        return None

    def _deleting(self, goal: Goal | None, found: Object) -> float | None:
        """The resource was deleted: its Goal lands first, within a bounded time."""
        if FINALIZER not in (found["metadata"].get("finalizers") or []):
            return None
        agreed = read_agreement(found)
        if goal is not None and _came_from(goal, agreed, found):
            if goal.deletion_requested_at is None:
                self._check_fresh(found)
                delete_goal(goal, principal=OPERATOR)
            waited = timezone.now() - _instant(found["metadata"]["deletionTimestamp"])
            if waited.total_seconds() < LANDING_SECONDS:
                landing = condition("Deleting", True, "Landing", "Everything of it ends first.")
                self._tell(goal, found, [*_accepted(), landing])
                return self._pace.again
            logger.warning("%s/%s has not landed in time; its resource goes", *_key(found))
        self._release(found)
        return None

    # --- Both are there --------------------------------------------------------------------------

    def _both(self, goal: Goal, found: Object) -> float | None:
        found = self._guard(found)
        row = digest_of(manifest_of_row(goal))
        try:
            resource = digest_of(manifest_of(found))
        except ManifestError as error:
            self._tell(goal, found, [_refused("Invalid", str(error))])
            return None
        agreed = read_agreement(found)
        if resource == row:
            self._agree(goal, found, conflict=_kept_conflict(goal, found))
            return None
        last = agreed.digest if agreed and agreed.uid == str(goal.uid) else None
        is_row_as_agreed = last == row and agreed and agreed.generation == goal.generation
        if is_row_as_agreed:  # only the resource has changed
            changed = self._apply(found, goal)
            if changed is None:
                return self._pace.refused
            self._agree(changed, found)
            return None
        if last == resource:  # only the row has changed
            self._agree(goal, self._overwrite(goal, found))
            return None
        return self._settle(goal, found, agreed)

    def _settle(self, goal: Goal, found: Object, agreed: Agreement | None) -> float | None:
        """Both have changed: the row, which work runs under, stays; the other is told, not lost."""
        since = f"generation {agreed.generation}" if agreed else "no generation"
        lost = manifest_of(found).spec
        said = (
            f"Changed here and in the console since they agreed at {since}: the console's "
            f"generation {goal.generation} is kept. This one asked: objective "
            f"{lost.objective.text!r}, budget {lost.budget_text!r}, agents "
            f"{', '.join(lost.agents[:20])}. Apply it again if it is still wanted."
        )
        conflict = condition("Synced", False, "Conflict", said)
        found = self._tell(goal, found, [*_accepted(), conflict])  # before anything is lost
        self._event(found, "Conflict", said, kind="Warning", about=str(goal.generation))
        self._agree(goal, self._overwrite(goal, found), conflict=conflict)
        return None

    def _apply(self, found: Object, goal: Goal | None) -> Goal | None:
        """Apply the resource to its row; None, and a condition, when it is refused.

        Raises ObjectConflict when either side is no longer what was seen.
        """
        self._check_fresh(found)
        try:
            return _change_row(found, goal)
        except ManifestError as error:
            reason, said = "Invalid", str(error)
        except GoalConflict as error:
            reason, said = "Conflict", str(error)
        key = _key(found)
        self._tell(_row(key), found, [_refused(reason, said)])
        self._event(found, reason, said, kind="Warning")
        return None

    # --- Writing ---------------------------------------------------------------------------------

    def _guard(self, found: Object) -> Object:
        """Nothing leaves before it has landed: the finalizer stands before the row is made."""
        metadata = found["metadata"]
        finalizers = metadata.get("finalizers") or []
        if FINALIZER in finalizers:
            return found
        return self._merge(found, {"finalizers": [*finalizers, FINALIZER]})

    def _check_fresh(self, found: Object) -> None:
        """Before a row is changed: what was heard of the resource is what it is now."""
        now = self._api.get(_path(_key(found)))
        if now["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
            self._put(now)
            raise ObjectConflict("the resource has changed since it was heard of.")

    def _delete(self, found: Object) -> None:
        metadata = found["metadata"]
        seen = {name: metadata[name] for name in ("uid", "resourceVersion")}
        self._api.delete(_path(_key(found)), preconditions=seen)

    def _release(self, found: Object) -> None:
        left = [one for one in found["metadata"].get("finalizers") or [] if one != FINALIZER]
        try:
            self._merge(found, {"finalizers": left})
        except ObjectAbsent:
            return

    def _agree(self, goal: Goal, found: Object, *, conflict: dict[str, str] | None = None) -> None:
        """Write down that both are the same now, then the status."""
        agreed = Agreement(str(goal.uid), goal.generation, digest_of(manifest_of_row(goal)))
        if read_agreement(found) != agreed:
            found = self._merge(found, {"annotations": {AGREED: agreed.annotation(found)}})
        self._tell(goal, found, [*_accepted(), *([conflict] if conflict else [_synced()])])

    def _overwrite(self, goal: Goal, found: Object) -> Object:
        wanted = resource_of(goal)
        for name in ("uid", "resourceVersion"):
            wanted["metadata"][name] = found["metadata"][name]
        written = self._api.apply(_path(_key(found)), wanted, manager=SPEC_MANAGER)
        self._put(written)
        return written

    def _merge(self, found: Object, metadata: Object) -> Object:
        change = {"metadata": {"resourceVersion": found["metadata"]["resourceVersion"], **metadata}}
        written = self._api.merge(_path(_key(found)), change)
        self._put(written)
        return written

    def _tell(self, goal: Goal | None, found: Object, extra: list[dict[str, str]]) -> Object:
        """Write the status, if it says anything new; and an Event when the phase has changed.

        Gives the resource as it is now.
        """
        status = status_of(goal, found, extra)
        before = found.get("status") or {}
        if before == status:
            return found
        metadata = found["metadata"]
        body = {
            "apiVersion": found["apiVersion"], "kind": found["kind"],
            "metadata": {
                name: metadata[name] for name in ("name", "namespace", "uid", "resourceVersion")
            },
            "status": status,
        }  # fmt: skip
        path = f"{_path(_key(found))}/status"
        written = self._api.apply(path, body, manager=STATUS_MANAGER)
        self._put(written)
        if goal is not None and before.get("phase") != goal.phase:
            ready = next((one for one in goal.conditions if one["type"] == "Ready"), None)
            said = f"{before.get('phase') or 'New'} -> {goal.phase}"
            if ready and ready.get("message"):
                said = f"{said}: {ready['message']}"
            self._event(found, goal.phase, said, about=f"{goal.generation}/{len(goal.conditions)}")
        return written

    def _event(
        self, found: Object, reason: str, said: str, *, kind: str = "Normal", about: str = ""
    ) -> None:
        """An Event under a name made of what it says: said twice, it is there once."""
        metadata = found["metadata"]
        now = timezone.now().isoformat(timespec="seconds").replace("+00:00", "Z")
        what = f"{metadata['uid']}/{reason}/{said}/{about}"
        name = (
            f"{metadata['name'][:40].rstrip('-.')}.{hashlib.sha256(what.encode()).hexdigest()[:16]}"
        )
        event = {
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": found["apiVersion"], "kind": found["kind"],
                "name": metadata["name"], "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "type": kind, "reason": reason, "message": said[:1024], "count": 1,
            "firstTimestamp": now, "lastTimestamp": now,
            "source": {"component": "clearance"},
        }  # fmt: skip
        try:
            self._api.create(object_path(EVENTS, metadata["namespace"]), event)
        except (ObjectConflict, ObjectRefused, ObjectAbsent) as error:
            logger.debug("event not written: %s", error)
        except ClusterError as error:
            logger.info("event not written: %s", error)


def _change_row(found: Object, seen: Goal | None) -> Goal:
    """Apply the resource to the row, if that is still the one that was seen."""
    with journaled():
        if _is_other(_row(_key(found)), seen):
            raise ObjectConflict("the row has changed since it was looked at.")
        who = asker(found, fallback=OPERATOR, is_new=seen is None)
        applied = apply_goal(manifest_of(found), principal=who, editors=editors(found))
        if seen is None and applied.outcome is not Outcome.CREATED:
            raise ObjectConflict("the row was made meanwhile.")
        return applied.goal


def _is_other(now: Goal | None, seen: Goal | None) -> bool:
    if now is None or seen is None:
        return now is not seen
    return (now.uid, now.generation, now.labels, now.annotations) != (
        seen.uid, seen.generation, seen.labels, seen.annotations
    )  # fmt: skip


def _came_from(goal: Goal, agreed: Agreement | None, found: Object) -> bool:
    """Is the row this resource's? Before they agreed, only one made of a resource can be."""
    if agreed is None:
        return goal.requested_by == OPERATOR.username or is_asked_by(goal, found)
    return agreed.uid == str(goal.uid)


def _is_leftover(found: Object) -> bool:
    """Was its Goal deleted in the console? One made again from a copy of it is a new Goal."""
    agreed = read_agreement(found)
    made_from = (found["metadata"].get("annotations") or {}).get(MADE_FROM, "")
    uid = agreed.uid if agreed else made_from
    try:
        row = Goal.objects.filter(uid=UUID(uid), deleted_at__isnull=False).first()
    except ValueError:
        return False
    if row is None or row.deleted_at is None:
        return False
    return agreed is not None or _instant(found["metadata"]["creationTimestamp"]) <= row.deleted_at


def _instant(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def rows_of(keys: Collection[Key]) -> dict[Key, Goal]:
    """The rows of many keys, with their accounts, in three queries."""
    namespaces, names = {key[0] for key in keys}, {key[1] for key in keys}
    rows = Goal.objects.filter(
        namespace__in=namespaces, name__in=names, deleted_at__isnull=True
    ).prefetch_related(*WITH_ACCOUNTS)
    return {(row.namespace, row.name): row for row in rows}


def _row(key: Key) -> Goal | None:
    namespace, name = key
    return Goal.objects.filter(namespace=namespace, name=name, deleted_at__isnull=True).first()


def _key(found: Object) -> Key:
    return found["metadata"]["namespace"], found["metadata"]["name"]


def _path(key: Key) -> str:
    return object_path(GOALS, *key)


def _accepted() -> list[dict[str, str]]:
    return [condition("Accepted", True, "Valid", "")]


def _refused(reason: str, said: str) -> dict[str, str]:
    return condition("Accepted", False, reason, said)


def _synced() -> dict[str, str]:
    return condition("Synced", True, "Same", "")


def _kept_conflict(goal: Goal, found: Object) -> dict[str, str] | None:
    """A conflict stays said until either side is changed again."""
    status = found.get("status") or {}
    for one in status.get("conditions") or []:
        is_same = one.get("observedGeneration") == found["metadata"].get("generation")
        is_kept = is_same or status.get("rowGeneration") == goal.generation
        if one["type"] == "Synced" and one["status"] == "False" and is_kept:
            return condition("Synced", False, one["reason"], one["message"])
    return None
