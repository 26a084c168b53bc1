"""Page: who changed what of a Goal's spec, generation by generation, each with its record."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from goals.access import get_visible_goal
from goals.views.goal_detail import goal_page
from governance.access import visible_records
from governance.models import JournalRecord
from governance.sessions import session_principal

RECORDS_MAX = 500  # changes read; a Goal is seldom changed more than a few times
ACTIONS = ("goal.created", "goal.changed")


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field before and after; None where it was not there."""

    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Generation:
    """One change of the spec and who made it."""

    number: int
    record: JournalRecord
    changes: tuple[FieldChange, ...]
    is_first: bool


@require_GET
@vary_on_headers("HX-Request")
def goal_changes(request: HttpRequest, reference: str) -> HttpResponse:
    """Every generation, newest first; `?field=` narrows them to one field of the spec."""
    principal = session_principal(request)
    goal = get_visible_goal(principal, reference)
    records = visible_records(principal).filter(goal_uid=goal.uid).order_by("-seq")
    # One action at a time, which the index has in order: a Goal has thousands of other records.
    found = [one for action in ACTIONS for one in records.filter(action=action)[:RECORDS_MAX]]
    newest = sorted(found, key=lambda one: -one.seq)[:RECORDS_MAX]
    generations = _generations(newest[::-1])
    fields = sorted(_flat(goal.spec))
    wanted = request.GET.get("field", "")
    if wanted in fields:
        generations = [one for one in (_only(g, wanted) for g in generations) if one.changes]
    context = {
        "generations": generations[::-1],
        "fields": fields,
        "field": wanted if wanted in fields else "",
        "value": _flat(goal.spec).get(wanted),
    }
    return goal_page(request, goal, "changes", context)


def _generations(records: Iterable[JournalRecord]) -> list[Generation]:
    found: list[Generation] = []
    before: Mapping[str, str] = {}
    for record in records:
        body: Any = json.loads(record.canonical).get("body", {})
        after = _flat(body.get("spec") or {})
        changes = tuple(
            FieldChange(path, before.get(path), after.get(path))
            for path in sorted({*before, *after})
            if before.get(path) != after.get(path)
        )
        found.append(Generation(body.get("generation", 0), record, changes, not found))
        before = after
    return found


def _only(generation: Generation, path: str) -> Generation:
    kept = tuple(one for one in generation.changes if one.path == path)
    return Generation(generation.number, generation.record, kept, generation.is_first)


def _flat(spec: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The spec's fields by path, each value as it reads in a line."""
    flat: dict[str, str] = {}
    for name, value in spec.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            flat[prefix + name] = ", ".join(str(one) for one in value)
        else:
            flat[prefix + name] = value if isinstance(value, str) else json.dumps(value)
    return flat
