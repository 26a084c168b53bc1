"""API of policy bundles: read versions, try drafts out, save them, move them between stages."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from ninja import Router, Schema, Status
from pydantic import Field

from governance.access import NotAllowed, Principal
from governance.comparison import compare_files
from governance.domain import GovernanceError, Stage
from governance.export import file_answer
from governance.models import BundleVersion
from governance.policy.base import Diagnostic, PolicyPoint, Verdict
from governance.policy_selectors import files_of, get_version, get_visible_decision
from governance.schemas import BundleOut
from governance.services.bundle_exports import BundleForm, export_version
from governance.services.drafts import (
    MAX_FILE_BYTES,
    MAX_FILES,
    PATH_MAX,
    Draft,
    DraftInvalid,
    check_draft,
    evaluate_draft,
    read_draft,
    require_reviewer,
    run_draft_tests,
    save_draft,
    silent_points,
)
from governance.services.impact import (
    DEFAULT_DECISIONS,
    MAX_DECISIONS,
    Flip,
    replay_history,
    total_spent,
)
from governance.services.signatures import signature_of
from governance.services.stages import change_stage, return_to_previous

policy_router = Router(tags=["policies"])


class FileIn(Schema):
    """One file of a bundle; `data.json` holds its data."""

    path: str = Field(max_length=PATH_MAX)
    source: str = Field(max_length=MAX_FILE_BYTES)


class DraftIn(Schema):
    """A bundle that need not be saved."""

    files: list[FileIn] = Field(max_length=MAX_FILES)

    def draft(self) -> Draft:
        """Raises DraftInvalid."""
        return read_draft([(file.path, file.source) for file in self.files])


class SaveIn(DraftIn):
    """A draft to keep; `base_version` is what it was made from, 0 for a new bundle."""

    base_version: int = Field(0, ge=0)


class EvaluateIn(DraftIn):
    """A draft and what to judge: the input of a recorded decision, or an input for a point."""

    decision: UUID | None = None
    point: PolicyPoint | None = None
    input: dict[str, Any] | None = None


class ImpactIn(DraftIn):
    """A draft of the bundle `name` and how many decisions of each point to judge again."""

    name: str = Field(max_length=63)
    limit: int = Field(DEFAULT_DECISIONS, ge=1, le=MAX_DECISIONS)


class StageIn(Schema):
    """Where to; `seen_enforced` is the version in force that was looked at, 0 for none."""

    stage: Stage
    seen_enforced: int | None = Field(None, ge=0)


class ReturnIn(Schema):
    """`seen_enforced` is the version in force that was looked at."""

    seen_enforced: int | None = Field(None, ge=0)


class VersionOut(BundleOut):
    """A version with its data and whether its signature holds."""

    parameters: dict[str, Any]
    signature: str
    signature_text: str

    @staticmethod
    def resolve_signature(version: BundleVersion) -> str:
        return signature_of(version).word

    @staticmethod
    def resolve_signature_text(version: BundleVersion) -> str:
        return signature_of(version).text


def _person(request: HttpRequest) -> Principal:
    """The person who asks. Raises NotAllowed for agents."""
    principal: Principal | None = getattr(request.auth, "principal", None)  # type: ignore[attr-defined]
    if principal is None:
        raise NotAllowed("An agent may not do this; it is for people.")
    return principal


def _reviewer(request: HttpRequest) -> Principal:
    principal = _person(request)
    require_reviewer(principal)
    return principal


@policy_router.post("/check")
def check(request: HttpRequest, payload: DraftIn) -> dict[str, Any]:
    """Parse and compile errors at line and column, and points without a rule."""
    _reviewer(request)
    try:
        draft = payload.draft()
    except DraftInvalid as error:
        return {"diagnostics": _diagnostics(error.diagnostics), "silent_points": []}
    found = check_draft(draft)
    silent = [] if found else [point.value for point in silent_points(draft)]
    return {"diagnostics": _diagnostics(found), "silent_points": silent}


@policy_router.post("/evaluate")
def evaluate(request: HttpRequest, payload: EvaluateIn) -> dict[str, Any]:
    """What the draft says to one input; nothing is recorded."""
    principal = _reviewer(request)
    draft = payload.draft()
    if payload.decision is not None:
        decision = get_visible_decision(principal, payload.decision)
        document = json.loads(decision.input_canonical)
        return _verdict(evaluate_draft(draft, PolicyPoint(decision.point), document))
    if payload.point is None or payload.input is None:
        raise GovernanceError("Give decision, or point and input: what shall be judged?")
    return _verdict(evaluate_draft(draft, payload.point, payload.input))


@policy_router.post("/test")
def test(request: HttpRequest, payload: DraftIn) -> dict[str, Any]:
    """Run the draft's Rego tests, with the lines they reach."""
    _reviewer(request)
    run = run_draft_tests(payload.draft())
    return {
        "passed": all(result.passed for result in run.results),
        "results": [
            {
                "rule": result.rule,
                "path": result.path,
                "line": result.line,
                "passed": result.passed,
                "text": result.text,
                "duration_seconds": result.duration_seconds,
            }
            for result in run.results
        ],
        "coverage": [
            {"path": file.path, "covered": file.covered, "missed": file.missed}
            for file in run.coverage
        ],
    }


@policy_router.post("/impact")
def impact(request: HttpRequest, payload: ImpactIn) -> dict[str, Any]:
    """Judge recorded decisions again by the draft; says how many were judged in time."""
    principal = _reviewer(request)
    found = replay_history(payload.name, payload.draft(), principal=principal, limit=payload.limit)
    kinds = {
        "newly_denied": found.newly_denied,
        "newly_allowed": found.newly_allowed,
        "other_changes": found.other_changes,
    }
    return {
        "recorded": found.recorded,
        "judged": found.judged,
        "seconds": found.seconds,
        "points": [
            {
                "point": point.point.value,
                "recorded": point.recorded,
                "judged": point.judged,
                "changed_records": point.changed_records,
                "undecided": point.undecided,
                "stopped": point.stopped,
                "changes": [
                    {"recorded": before, "now": now, "count": count}
                    for (before, now), count in sorted(point.changes.items())
                ],
            }
            for point in found.points
        ],
        **{
            kind: {
                "count": found.counts[kind],
                "settled": total_spent(flips),
                "flips": [_flip(flip) for flip in flips],
            }
            for kind, flips in kinds.items()
        },
    }


@policy_router.get("/{name}/versions", response=list[BundleOut])
def list_versions(request: HttpRequest, name: str) -> QuerySet[BundleVersion]:
    """The versions of one bundle, newest first."""
    _person(request)
    return BundleVersion.objects.filter(name=name).order_by("-version")


@policy_router.post("/{name}/versions", response={201: VersionOut})
def save_version(request: HttpRequest, name: str, payload: SaveIn) -> Status[BundleVersion]:
    """Check, test, sign and keep a draft; the same content again answers the same version."""
    principal = _person(request)
    version = save_draft(
        name, payload.draft(), base_version=payload.base_version, principal=principal
    )
    return Status(201, version)


@policy_router.get("/{name}/versions/{version}", response=VersionOut)
def read_version(request: HttpRequest, name: str, version: int) -> BundleVersion:
    """One version with its files, data and signature."""
    _person(request)
    return get_version(name, version)


@policy_router.get("/{name}/versions/{version}/export")
def export(request: HttpRequest, name: str, version: int, form: BundleForm) -> HttpResponse:
    """The version as OPA's bundle (a tarball) or as Gatekeeper's objects (YAML)."""
    _person(request)
    found = export_version(get_version(name, version), form)
    return file_answer(found.name, found.media_type, found.content)


@policy_router.get("/{name}/versions/{version}/diff")
def diff(request: HttpRequest, name: str, version: int, base: int) -> list[dict[str, Any]]:
    """The files of a version that differ from version `base`, line by line."""
    _person(request)
    older, newer = get_version(name, base), get_version(name, version)
    return [
        {
            "path": file.path,
            "kind": file.kind,
            "added": file.added,
            "removed": file.removed,
            "rows": [
                {
                    "kind": row.kind,
                    "left_number": row.left_number,
                    "left": row.left,
                    "right_number": row.right_number,
                    "right": row.right,
                }
                for row in file.rows
            ],
        }
        for file in compare_files(dict(files_of(older)), dict(files_of(newer)))
    ]


@policy_router.post("/{name}/versions/{version}/stage", response=VersionOut)
def move(request: HttpRequest, name: str, version: int, payload: StageIn) -> BundleVersion:
    """Put a version in a stage; into force it is the second person's signature."""
    principal = _person(request)
    return change_stage(
        get_version(name, version),
        payload.stage,
        principal=principal,
        seen_enforced=payload.seen_enforced,
    )


@policy_router.post("/{name}/return", response=VersionOut)
def go_back(request: HttpRequest, name: str, payload: ReturnIn) -> BundleVersion:
    """Put the version that was in force before back at once."""
    principal = _person(request)
    return return_to_previous(name, principal=principal, seen_enforced=payload.seen_enforced)


def _diagnostics(found: Sequence[Diagnostic]) -> list[dict[str, Any]]:
    return [
        {"path": one.path, "line": one.line, "column": one.column, "text": one.text}
        for one in found
    ]


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "outcome": verdict.outcome.value,
        "error": verdict.error,
        "engine": verdict.engine,
        "duration_seconds": verdict.duration_seconds,
        "messages": [
            {
                "outcome": message.outcome.value,
                "text": message.text,
                "rule": message.rule,
                "path": message.path,
                "line": message.line,
            }
            for message in verdict.messages
        ],
    }


def _flip(flip: Flip) -> dict[str, Any]:
    decision = flip.decision
    return {
        "decision": decision.uid,
        "at": decision.at,
        "point": decision.point,
        "namespace": decision.namespace,
        "goal_uid": decision.goal_uid,
        "subject": {"kind": decision.subject_kind, "id": decision.subject_id},
        "recorded": decision.outcome,
        "now": _verdict(flip.verdict),
        "settled": flip.spent,
    }
