"""Pages of policies: bundles with their stages and hits, the editor, moves between stages."""

import json
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST
from django.views.decorators.vary import vary_on_headers

from governance.access import NotAllowed, NotVisible, Principal
from governance.comparison import compare_files
from governance.domain import GovernanceError, Stage
from governance.export import Columns, file_answer, table_export
from governance.models import BundleVersion
from governance.policy.base import Diagnostic, PolicyPoint
from governance.policy_forms import HISTORY_CHOICES, ReturnForm, StageForm, WorkForm
from governance.policy_selectors import (
    bundle_cards,
    files_of,
    get_version,
    get_visible_decision,
    hit_counts,
    recent_inputs,
)
from governance.services.bundle_exports import BundleForm, ExportRefused, export_version
from governance.services.bundles import STARTER, BundleInvalid
from governance.services.drafts import (
    BundleConflict,
    Draft,
    DraftInvalid,
    check_draft,
    evaluate_draft,
    read_draft,
    require_author,
    require_reviewer,
    run_draft_tests,
    save_draft,
    silent_points,
)
from governance.services.impact import DEFAULT_DECISIONS, replay_history, total_spent
from governance.services.signatures import signature_of
from governance.services.stages import (
    change_stage,
    enforced_version,
    moves_of,
    previous_enforced,
    return_to_previous,
    why_not_return,
)
from governance.sessions import session_principal
from lineage.signing.base import SigningError

FLIPS_SHOWN = 50  # of each direction; the API gives more
VERSION_COLUMNS: Columns = {
    "bundle": "version.name",
    "version": "version.version",
    "stage": "version.stage",
    "allowed": lambda row: row.hits.get("allow", 0),
    "warned": lambda row: row.hits.get("warn", 0),
    "needs_approval": lambda row: row.hits.get("require_approval", 0),
    "denied": lambda row: row.hits.get("deny", 0),
    "saved_by": "version.created_by",
    "saved_at": "version.created_at",
    "digest": "version.digest",
}
OUTCOMES = ("allow", "warn", "require_approval", "deny")
Files = list[tuple[str, str]]
Result = dict[str, Any]


@require_GET
@vary_on_headers("HX-Request")
def policy_list(request: HttpRequest) -> HttpResponse:
    """Every bundle: its versions with stage, hits, author, digest and signature."""
    principal = session_principal(request)
    cards = bundle_cards(principal)
    rows = (row for card in cards for row in card.rows)
    if export := table_export(request, name="policies", columns=VERSION_COLUMNS, rows=rows):
        return export
    context = {
        "cards": [
            (card, why_not_return(card.enforced, principal) if card.enforced else "")
            for card in cards
        ],
        "outcomes": OUTCOMES,
        "why_not_author": _why_not(require_author, principal),
        "nav": "policies",
    }
    part = "#cards" if request.headers.get("HX-Request") else ""
    return render(request, f"governance/policies/policy_list.html{part}", context)


@require_GET
def policy_new(request: HttpRequest) -> HttpResponse:
    """The editor on a bundle that is not there yet, begun from the starter bundle's newest."""
    require_author(session_principal(request))
    source = BundleVersion.objects.filter(name=STARTER).order_by("-version").first()
    files = files_of(source) if source else [("rule.rego", "")]
    return _editor(request, None, files)


@require_GET
def policy_detail(request: HttpRequest, name: str, number: int) -> HttpResponse:
    """One version: its stage and who may move it, its files in the editor."""
    version = get_version(name, number)
    return _editor(request, version, files_of(version))


@require_GET
def policy_export(request: HttpRequest, name: str, number: int, form: str) -> HttpResponse:
    """The version as a file that OPA or Gatekeeper loads."""
    version = get_version(name, number)
    if form not in list(BundleForm):
        raise Http404(f"{form} is not one of {', '.join(BundleForm)}.")
    try:
        found = export_version(version, BundleForm(form))
    except ExportRefused as error:
        messages.error(request, str(error))
        return redirect("policy_detail", name=name, number=number)
    return file_answer(found.name, found.media_type, found.content)


@require_POST
@vary_on_headers("HX-Request")
def policy_work(request: HttpRequest, name: str, number: int) -> HttpResponse:
    """Check, evaluate, test, compare, replay or save what stands in the form."""
    principal = session_principal(request)
    version = get_version(name, number) if number else None
    files = _files_in(request.POST)
    form = WorkForm(request.POST)
    if not form.is_valid():
        problems = [
            Diagnostic(field, 1, 1, str(error))
            for field, errors in form.errors.items()
            for error in errors
        ]
        return _answer(request, version, files, form, _wrong("problems", problems))
    wanted = form.cleaned_data
    try:
        draft = read_draft(files)
        if wanted["do"] == "save":
            saved = save_draft(
                version.name if version else wanted["name"],
                draft,
                base_version=wanted["base"],
                principal=principal,
            )
            return _saved(request, saved, version)
        require_reviewer(principal)
        result = _WORKS[wanted["do"]](draft, wanted, principal, version)
    except DraftInvalid as error:
        result = _wrong("problems", error.diagnostics)
    except (BundleInvalid, BundleConflict) as error:
        status = HTTPStatus.CONFLICT if isinstance(error, BundleConflict) else None
        result = _wrong("problems", [_placed(str(error))], status=status)
    except SigningError as error:
        problem = _placed(f"The version cannot be signed now: {error}")
        result = _wrong("problems", [problem], status=HTTPStatus.SERVICE_UNAVAILABLE)
    return _answer(request, version, files, form, result)


@require_POST
def policy_stage(request: HttpRequest, name: str, number: int) -> HttpResponse:
    """Move a version to a stage; into force it is the second person's signature."""
    version = get_version(name, number)
    form = StageForm(request.POST)
    if not form.is_valid():
        return _editor(
            request,
            version,
            files_of(version),
            refused="Choose a stage.",
            status=HTTPStatus.UNPROCESSABLE_ENTITY,
        )
    wanted = form.cleaned_data
    return _moved(
        request,
        version,
        lambda: change_stage(
            version,
            Stage(wanted["stage"]),
            principal=session_principal(request),
            seen_enforced=wanted["seen"],
        ),
    )


@require_POST
def policy_return(request: HttpRequest, name: str) -> HttpResponse:
    """Put the version that was in force before back at once."""
    current = enforced_version(name)
    if current is None:
        raise NotVisible(f"No version of a bundle {name} is in force.")
    form = ReturnForm(request.POST)
    seen = form.cleaned_data["seen"] if form.is_valid() else current.version
    principal = session_principal(request)
    return _moved(
        request,
        current,
        lambda: return_to_previous(name, principal=principal, seen_enforced=seen),
    )


def _moved(
    request: HttpRequest, version: BundleVersion, move: Callable[[], BundleVersion]
) -> HttpResponse:
    try:
        moved = move()
    except NotAllowed as error:
        refused, status = str(error), HTTPStatus.FORBIDDEN
    except BundleConflict as error:
        refused, status = str(error), HTTPStatus.CONFLICT
    except GovernanceError as error:
        refused, status = str(error), HTTPStatus.UNPROCESSABLE_ENTITY
    else:
        word = "is in force" if moved.stage == Stage.ENFORCE else f"is in stage {moved.stage}"
        messages.success(request, f"{moved.name} version {moved.version} {word}.")
        return redirect("policy_detail", moved.name, moved.version)
    return _editor(request, version, files_of(version), refused=refused, status=status)


def _saved(
    request: HttpRequest, saved: BundleVersion, version: BundleVersion | None
) -> HttpResponse:
    is_same = version is not None and saved.pk == version.pk
    said = "has this content already: nothing to save." if is_same else "is saved and signed."
    messages.success(request, f"{saved.name} version {saved.version} {said}")
    target = reverse("policy_detail", args=[saved.name, saved.version])
    if request.headers.get("HX-Request"):
        response = HttpResponse(status=HTTPStatus.OK)
        response["HX-Redirect"] = target
        return response
    return redirect(target)


def _check(draft: Draft, wanted: Any, principal: Principal, version: Any) -> Result:
    problems = check_draft(draft)
    silent = [] if problems else silent_points(draft)
    return {"kind": "check", "problems": problems, "silent": silent}


def _evaluate(draft: Draft, wanted: Any, principal: Principal, version: Any) -> Result:
    decision = get_visible_decision(principal, wanted["decision"])
    document = json.loads(decision.input_canonical)
    verdict = evaluate_draft(draft, PolicyPoint(decision.point), document)
    return {
        "kind": "verdict",
        "verdict": verdict,
        "took": f"{verdict.duration_seconds * 1000:.1f} ms",
        "decision": decision,
        "input": json.dumps(document, indent=2, ensure_ascii=False),
    }


def _test(draft: Draft, wanted: Any, principal: Principal, version: Any) -> Result:
    run = run_draft_tests(draft)
    coverage = [
        {"path": file.path, "covered": file.covered, "missed": file.missed} for file in run.coverage
    ]
    judging = [file for file in run.coverage if not file.path.endswith("_test.rego")]
    return {
        "kind": "tests",
        "number": len(run.results),
        "failed": [result for result in run.results if not result.passed],
        "passed": [result for result in run.results if result.passed],
        "coverage": json.dumps(coverage) if coverage else "",
        "covered": sum(len(file.covered) for file in judging),
        "lines": sum(len(file.covered) + len(file.missed) for file in judging),
    }


def _diff(draft: Draft, wanted: Any, principal: Principal, version: Any) -> Result:
    if version is None:
        raise DraftInvalid([Diagnostic("", 1, 1, "A new bundle has no version to compare with.")])
    other = get_version(version.name, wanted["other"])
    shown = BundleVersion(
        modules=[{"path": m.path, "source": m.source} for m in draft.modules],
        parameters=draft.parameters,
    )
    files = compare_files(dict(files_of(other)), dict(files_of(shown)))
    return {"kind": "diff", "files": files, "other": other}


def _impact(draft: Draft, wanted: Any, principal: Principal, version: Any) -> Result:
    name = version.name if version else wanted["name"]
    impact = replay_history(name, draft, principal=principal, limit=int(wanted["limit"]))
    directions = [
        ("newly_denied", "Allowed then, denied now", impact.newly_denied),
        ("newly_allowed", "Denied then, allowed now", impact.newly_allowed),
        ("other_changes", "Other changes", impact.other_changes),
    ]
    return {
        "kind": "impact",
        "impact": impact,
        "limit": wanted["limit"],
        "directions": [
            {
                "word": word,
                "title": title,
                "count": impact.counts[word],
                "flips": flips[:FLIPS_SHOWN],
                "kept": len(flips),
                "settled": total_spent(flips),
            }
            for word, title, flips in directions
        ],
    }


_WORKS: dict[str, Callable[[Draft, Any, Principal, Any], Result]] = {
    "check": _check,
    "evaluate": _evaluate,
    "test": _test,
    "diff": _diff,
    "impact": _impact,
}


def _wrong(
    kind: str, problems: Sequence[Diagnostic], *, status: HTTPStatus | None = None
) -> Result:
    wanted = status or HTTPStatus.UNPROCESSABLE_ENTITY
    return {"kind": kind, "problems": problems, "status": wanted}


def _placed(text: str) -> Diagnostic:
    """`path:line:column: text` or `path:line: text` as a place and a sentence, where it is one."""
    path, _, rest = text.partition(":")
    line, _, rest = rest.partition(":")
    if not path.endswith((".rego", ".json")) or not line.isdigit():
        return Diagnostic("", 1, 1, text)
    column, mark, sentence = rest.partition(":")
    if mark and column.strip().isdigit():
        return Diagnostic(path, int(line), int(column), sentence.strip())
    return Diagnostic(path, int(line), 1, rest.strip())


def _files_in(posted: QueryDict) -> Files:
    """(path, text) of the form's files; one with neither is a slot that was left empty."""
    pairs = zip(posted.getlist("path"), posted.getlist("source"), strict=False)
    return [(path, source) for path, source in pairs if path.strip()]


def _answer(
    request: HttpRequest,
    version: BundleVersion | None,
    files: Files,
    form: WorkForm,
    result: Result,
) -> HttpResponse:
    status = result.get("status", HTTPStatus.OK)
    if request.headers.get("HX-Request"):
        context = {"result": result, "version": version}
        page = "governance/policies/policy_detail.html#results"
        return render(request, page, context, status=status)
    return _editor(request, version, files, form=form, result=result, status=status)


def _editor(
    request: HttpRequest,
    version: BundleVersion | None,
    files: Files,
    *,
    form: WorkForm | None = None,
    result: Result | None = None,
    refused: str = "",
    status: HTTPStatus = HTTPStatus.OK,
) -> HttpResponse:
    principal = session_principal(request)
    why_not_save = _why_not(require_author, principal)
    context = {
        "version": version,
        "files": files,
        "posted": form.data if form else {},
        "result": result,
        "refused": refused,
        "inputs": recent_inputs(principal),
        "history_choices": HISTORY_CHOICES,
        "history_default": DEFAULT_DECISIONS,
        "why_not_save": why_not_save,
        "why_not_try": _why_not(require_reviewer, principal),
        "nav": "policies",
        **(_about(version, principal) if version else {}),
    }
    page = "governance/policies/policy_detail.html"
    return render(request, page, context, status=status)


def _about(version: BundleVersion, principal: Principal) -> dict[str, Any]:
    """What the page says of a saved version."""
    enforced = enforced_version(version.name)
    others = BundleVersion.objects.filter(name=version.name).defer("modules", "parameters")
    hits = hit_counts(principal).get((version.name, version.digest), {})
    return {
        "enforced": enforced,
        "previous": previous_enforced(enforced) if enforced else None,
        "why_not_return": why_not_return(enforced, principal) if enforced else "",
        "moves": moves_of(version, principal),
        "versions": others.order_by("-version")[:100],
        "newest": others.order_by("-version").first(),
        "hits": [(outcome, hits.get(outcome, 0)) for outcome in OUTCOMES],
        "signature": signature_of(version),
    }


def _why_not(require: Callable[[Principal], None], principal: Principal) -> str:
    try:
        require(principal)
    except NotAllowed as error:
        return str(error)
    return ""
