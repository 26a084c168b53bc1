"""API of steering many: bulk steps with their preview, and the kill switch."""

import datetime as dt
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest
from ninja import Field, Router, Schema
from ninja.pagination import CursorPagination, paginate

from agents.authentication import caller_of
from goals.domain.killing import KillScope
from goals.models import KillSwitch
from goals.schemas import ReasonIn
from goals.services.burn import Burn
from goals.services.kill import (
    Kill,
    find_target,
    get_visible_switch,
    lift_switch,
    preview_kill,
    throw_switch,
    visible_switches,
)
from goals.services.steering import (
    AGENTS_MAX,
    GOALS_MAX,
    SteerPreview,
    Step,
    preview_steps,
    steer_many,
)

steer_router = Router(tags=["steering"])


class SteerIn(Schema):
    """A step, and whom it is asked of: Goals, and the Goals behind attempts."""

    step: Step
    attempts: list[UUID] = Field(default_factory=list, max_length=AGENTS_MAX)
    goals: list[UUID] = Field(default_factory=list, max_length=GOALS_MAX)
    reason: str = Field("", max_length=2000)
    dry_run: bool = False


class KillIn(Schema):
    """What to end. `name` is an agent's name, or a Goal's uid or name."""

    scope: KillScope
    namespace: str = Field("", max_length=63)
    name: str = Field("", max_length=130)
    reason: str = Field("", max_length=500)
    dry_run: bool = False


class KillSwitchOut(Schema):
    """A thrown switch."""

    uid: UUID
    scope: str
    namespace: str
    target: str
    label: str
    reason: str
    thrown_by: str
    thrown_at: dt.datetime
    attempts: int
    lifted_by: str
    lifted_at: dt.datetime | None


@steer_router.post("/steer")
def steer(request: HttpRequest, payload: SteerIn) -> dict[str, Any]:
    """Pause, resume or cancel many Goals; a dry run says what would be hit and what skipped."""
    principal = caller_of(request).person
    preview = preview_steps(
        payload.step, principal=principal, attempts=payload.attempts, goals=payload.goals
    )
    document = preview_document(preview)
    if not payload.dry_run:
        uids = [one.goal.uid for one in preview.goals]
        results = steer_many(payload.step, uids, principal=principal, reason=payload.reason)
        document["results"] = [
            {
                "uid": one.goal.uid,
                "goal": str(one.goal),
                "outcome": one.outcome,
                "message": one.message,
            }
            for one in results
        ]
    return document


@steer_router.post("/kill")
def kill(request: HttpRequest, payload: KillIn) -> dict[str, Any]:
    """Throw the kill switch: everything of the target ends within two seconds and stays ended.

    A dry run says what it would hit.
    """
    principal = caller_of(request).person
    target = find_target(
        principal, scope=payload.scope, namespace=payload.namespace, name=payload.name
    )
    if payload.dry_run:
        preview = preview_kill(target, principal=principal)
        return {
            "target": str(target),
            "words": preview.burn.words,
            **burn_document(preview.burn),
            "goals": preview.goals,
        }
    return kill_document(throw_switch(target, principal=principal, reason=payload.reason))


@steer_router.get("/kill-switches", response=list[KillSwitchOut])
@paginate(CursorPagination, ordering=("-thrown_at",))
def list_kill_switches(request: HttpRequest, standing: bool = False) -> QuerySet[KillSwitch]:
    """Switches, newest first; only those that stand when `standing`."""
    found = visible_switches(caller_of(request).person)
    return found.filter(lifted_at__isnull=True) if standing else found


@steer_router.post("/kill-switches/{uid}/lift", response=KillSwitchOut)
def lift(request: HttpRequest, uid: UUID, payload: ReasonIn) -> KillSwitch:
    """Let things start again; what was ended stays ended."""
    principal = caller_of(request).person
    switch = get_visible_switch(principal, uid)
    return lift_switch(switch, principal=principal, reason=payload.reason)


def preview_document(preview: SteerPreview) -> dict[str, Any]:
    """A preview as the API says it."""
    return {
        "step": preview.step.value,
        "words": preview.words,
        **burn_document(preview.burn),
        "goals": [
            {
                "uid": one.goal.uid,
                "goal": str(one.goal),
                "phase": one.goal.phase,
                "agents": one.agents,
                "skipped": one.skipped,
            }
            for one in preview.goals
        ],
        "left_out": preview.left_out,
    }


def burn_document(burn: Burn) -> dict[str, Any]:
    """Amounts that are unknown are null."""
    return {
        "agents": burn.agents,
        "gpus": burn.gpus,
        "micro_usd_per_minute": burn.micro_usd_per_minute,
    }


def kill_document(kill: Kill) -> dict[str, Any]:
    """What a throw did, as the API says it."""
    return {
        "switch": kill.switch.uid,
        "target": str(kill.switch.kill_target),
        "words": kill.burn.words,
        **burn_document(kill.burn),
        "goals": kill.goals,
        "stopped": kill.stopped,
        "running": kill.running,
        "problems": kill.problems,
        "seconds": round(kill.seconds, 3),
    }
