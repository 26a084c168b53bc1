"""Conduct: what attempts did lately, put before policy at the point drift when it is news."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import rfc8785
from django.db.models import Q
from django.utils import timezone

from agents.domain.states import ACTIVE_STATES
from agents.models import Attempt
from agents.services.attempts import models_of, scope_of
from goals.models import AttemptConduct, Goal
from goals.services.parents import living_children, parent_of
from governance.domain import Stage
from governance.models import BundleVersion, Decision
from governance.policy.base import Outcome, PolicyPoint
from governance.services.decisions import (
    Case,
    Judgement,
    Subject,
    effective_outcome,
    evaluate,
    input_digest_of,
    preview,
    worst,
)
from lineage.telemetry import get_telemetry
from lineage.telemetry.conduct import REPEAT_SECONDS, Conduct, Witness

# The same rules speaking again are recorded so often, whatever the counts in their input.
RECORD_SECONDS: Final = 60.0
JUDGED_MAX: Final = 320  # attempts of one Goal in one pass: all that run, and what ended since
BASELINE_ATTEMPTS: Final = 20  # earlier attempts of the agent that its confidence is compared with
BASELINE_SAMPLES: Final = 20  # fewer than these say nothing
TARGETS_SHOWN: Final = 100
MESSAGES_KEPT: Final = 100  # of rules, beside those in the recorded decisions
DIGITS: Final = 4  # of a mean
SPAN_ID: Final = re.compile(r"\b[0-9a-f]{16}\b")
SUBJECT_KIND: Final = "attempt"
# What an engine that works answers without an error, whatever the rules.
PROBE: Final[Mapping[str, Any]] = {
    "agent": {"name": "probe", "namespace": "", "role": ""},
    "actions": {"total": 0, "orphans": 0, "names": [], "kinds": [], "foreign": [], "unlisted": 0},
    "models": {"used": []},
}


@dataclass(frozen=True, slots=True)
class Judged:
    """One attempt's conduct, the input made of it, and the decisions that policy took on it."""

    attempt: Attempt
    row: AttemptConduct
    conduct: Conduct
    document: Mapping[str, Any]
    input_digest: str
    decisions: tuple[Decision, ...] = ()  # none where nothing is to be judged anew

    @property
    def decided(self) -> Judgement:
        """What was decided; decisions for want of an answer left out."""
        found = tuple(one for one in self.decisions if not one.error)
        return Judgement(worst([effective_outcome(one) for one in found]), found)

    @property
    def counted(self) -> Judgement:
        """The same of the bundles that are in force."""
        found = tuple(one for one in self.decided.decisions if one.stage == Stage.ENFORCE)
        return Judgement(self.decided.outcome, found)

    @property
    def undecided(self) -> str:
        """Why a bundle that counts could not answer, or ""."""
        for one in self.decisions:
            if one.error and one.stage == Stage.ENFORCE:
                return str(one.messages[0]["text"]) if one.messages else one.error
        return ""

    @property
    def says(self) -> str:
        """Digest of which rules of which bundles spoke: the counts they name are left out."""
        said = []
        for one in self.decisions:
            rules = sorted(
                f"{m['outcome']} {m['rule']} {m['path']}:{m['line']}" for m in one.messages
            )
            said.append([one.bundle_digest, one.stage, str(one.outcome), one.error, *rules])
        return f"sha256:{hashlib.sha256(rfc8785.dumps(said)).hexdigest()}"

    def is_worth_recording(self) -> bool:
        """Anything new in what was said, or nothing recorded for a while."""
        if not self.decisions:
            return False
        last = self.row.recorded_at
        is_old = last is None or (timezone.now() - last).total_seconds() >= RECORD_SECONDS
        return is_old or self.says != self.row.says


def attempts_to_judge(goal: Goal) -> list[Attempt]:
    """What runs of this iteration, and what ended without its last spans having been judged."""
    closed = AttemptConduct.objects.filter(goal_uid=goal.uid, is_closed=True)
    mine = Attempt.objects.filter(goal_uid=goal.uid)
    this = Q(graph_digest=goal.graph_digest, iteration=goal.iteration)
    found = mine.filter(this | Q(state__in=ACTIVE_STATES))
    unjudged = found.exclude(pk__in=closed.values("attempt_uid")).select_related("agent")
    return list(unjudged.order_by("created_at")[:JUDGED_MAX])


def bundles_in_force() -> str:
    """Digest of which bundles judge now, and how far each counts."""
    found = BundleVersion.objects.exclude(stage=Stage.DRAFT).order_by("name", "version")
    pairs = [list(pair) for pair in found.values_list("digest", "stage")]
    return f"sha256:{hashlib.sha256(rfc8785.dumps(pairs)).hexdigest()}"


def judge_attempts(goal: Goal, attempts: Sequence[Attempt], *, bundles: str) -> list[Judged]:
    """What is new about these attempts, judged; writes nothing. Raises `TelemetryError`s.

    An attempt whose input and bundles are those of its last judgement has no decisions.
    """
    by_uid = {str(one.uid): one for one in attempts}
    rows = _rows(goal, attempts)
    marks = {uid: _mark(rows[uid], bundles) for uid in by_uid}
    found = []
    for conduct in get_telemetry().conduct(goal.namespace, str(goal.uid), seen=marks):
        attempt, row = by_uid[conduct.attempt_uid], rows[conduct.attempt_uid]
        document = conduct_document(goal, attempt, conduct)
        digest, _ = input_digest_of(document)
        found.append(Judged(attempt, row, conduct, document, digest))
    fresh = [one for one in found if _is_news(one, bundles)]
    if not fresh:
        return found
    subjects = [Subject(SUBJECT_KIND, str(one.attempt.uid), one.document) for one in fresh]
    case = Case(PolicyPoint.DRIFT, goal.namespace, goal.uid, goal.graph_digest)
    decisions: dict[str, list[Decision]] = {}
    for decision in evaluate(case, subjects).decisions:
        decisions.setdefault(decision.subject_id, []).append(decision)
    return [
        Judged(
            one.attempt, one.row, one.conduct, one.document, one.input_digest,
            tuple(decisions.get(str(one.attempt.uid), ())) if one in fresh else (),
        )
        for one in found
    ]  # fmt: skip


def _rows(goal: Goal, attempts: Sequence[Attempt]) -> dict[str, AttemptConduct]:
    kept = AttemptConduct.objects.filter(pk__in=[one.uid for one in attempts])
    rows = {str(row.attempt_uid): row for row in kept}
    for one in attempts:
        rows.setdefault(
            str(one.uid),
            AttemptConduct(
                attempt_uid=one.uid, goal_uid=goal.uid, namespace=one.namespace,
                agent_name=one.agent_name,
            ),
        )  # fmt: skip
    return rows


def _mark(row: AttemptConduct, bundles: str) -> str:
    is_settled = row.bundles == bundles and not row.is_awaited and not row.is_undecided
    return row.mark if is_settled else ""


def _is_news(one: Judged, bundles: str) -> bool:
    did = one.conduct
    if not (did.actions or did.targets or did.models):
        return False
    same = (one.row.input_digest, one.row.bundles) == (one.input_digest, bundles)
    return one.row.is_undecided or not same


def is_engine_well() -> bool:
    """Whether the bundles in force can judge at all; asks them about nothing in particular."""
    probed = preview(PolicyPoint.DRIFT, [Subject(SUBJECT_KIND, "probe", PROBE)])
    return not any(one.error for one in probed.decisions if one.stage == Stage.ENFORCE)


def conduct_document(goal: Goal, attempt: Attempt, conduct: Conduct) -> dict[str, Any]:
    """The input of point `drift`, as docs/policies.md describes it; it holds no times."""
    scope = scope_of(attempt)
    targets = list(scope.get("targets", ()))
    allowed = models_of(attempt)
    foreign = _strangers(goal, conduct)
    agent: dict[str, Any] = {
        "name": attempt.agent_name,
        "namespace": attempt.namespace,
        "role": attempt.agent_role,
    }
    if targets:
        # A release is a change of its environment: what it may release it may change.
        agent["scope"] = sorted({*targets, *scope.get("releases", ())})
    return {
        "agent": agent,
        "goal": {"uid": str(goal.uid), "name": goal.name, "objective": goal.objective},
        "attempt": {
            "uid": str(attempt.uid), "task": attempt.task,
            "number": attempt.number, "iteration": attempt.iteration,
        },
        "actions": {
            "total": conduct.actions,
            "orphans": conduct.orphans,
            "names": sorted(clean(name) for name in conduct.targets),
            "unlisted": conduct.targets_unlisted,
            "kinds": sorted({clean(name) for name in conduct.kinds}),
            "foreign": sorted(foreign),
            "repeats": {
                "name": clean(conduct.repeats.name),
                "target": clean(conduct.repeats.target),
                "in_row": conduct.repeats.in_row,
                "in_window": conduct.repeats.in_window,
                "step": clean(conduct.repeats.step),
                "steps_in_row": conduct.repeats.steps_in_row,
                "window_seconds": int(REPEAT_SECONDS),
            },
        },
        "confidence": _confidence(attempt, conduct),
        "models": {
            "used": sorted(clean(name) for name in conduct.models),
            **({"allowed": allowed} if allowed else {}),
        },
        "spans": _spans(conduct, foreign),
    }  # fmt: skip


def _confidence(attempt: Attempt, conduct: Conduct) -> dict[str, Any]:
    """Means; one that is not known is left out, so that a rule about it does not speak."""
    said = conduct.confidence
    baseline, samples = _baseline(attempt, conduct)
    document: dict[str, Any] = {"samples": said.recent_samples, "baseline_samples": samples}
    if said.recent is not None:
        document["recent"] = round(said.recent, DIGITS)
    if baseline is not None:
        document["baseline"] = round(baseline, DIGITS)
    return document


def _baseline(attempt: Attempt, conduct: Conduct) -> tuple[float | None, int]:
    """Mean confidence of the agent's earlier actions: of this attempt, and of those before it."""
    earlier = AttemptConduct.objects.filter(
        namespace=attempt.namespace, agent_name=attempt.agent_name, confidence__isnull=False,
        standing="",
    ).exclude(pk=attempt.uid)  # fmt: skip
    pairs = list(earlier.values_list("confidence", "confidence_samples")[:BASELINE_ATTEMPTS])
    if conduct.confidence.earlier is not None:
        pairs.append((conduct.confidence.earlier, conduct.confidence.earlier_samples))
    samples = sum(count for _, count in pairs)
    if samples < BASELINE_SAMPLES:
        return None, samples
    return sum((mean or 0.0) * count for mean, count in pairs) / samples, samples


def _strangers(goal: Goal, conduct: Conduct) -> dict[str, Witness]:
    """The other Goals it acted on; a parent and its sub-goals are none of them."""
    if not conduct.foreign:
        return {}
    parent = parent_of(goal)
    family = {str(parent.uid)} if parent else set()
    family |= {str(uid) for uid in living_children(goal).values_list("uid", flat=True)}
    return {uid: seen for uid, seen in conduct.foreign.items() if uid not in family}


def _spans(conduct: Conduct, foreign: Mapping[str, Witness]) -> dict[str, Any]:
    """Which span shows it, for rules to name: a span that a message names is linked."""
    spans: dict[str, Any] = {
        "targets": {clean(name): one.span_id for name, one in conduct.targets.items()},
        "models": {clean(name): one.span_id for name, one in conduct.models.items()},
        "foreign": {uid: one.span_id for uid, one in foreign.items()},
    }
    for name, one in (("orphan", conduct.orphan), ("repeated", conduct.repeated),
                      ("newest", conduct.newest)):  # fmt: skip
        if one is not None:
            spans[name] = one.span_id
    return spans


def offending(judged: Judged, texts: Iterable[str]) -> Witness | None:
    """The span that messages are about: the first they name, else the newest action."""
    did = judged.conduct
    known = [*did.targets.values(), *did.models.values(), *did.foreign.values()]
    known += [one for one in (did.orphan, did.repeated, did.newest) if one is not None]
    by_id = {one.span_id: one for one in reversed(known)}
    for text in texts:
        for span_id in SPAN_ID.findall(text):
            if span_id in by_id:
                return by_id[span_id]
    return did.newest or (known[0] if known else None)


def clean(text: str) -> str:
    """A name an agent chose, without what no database or JSON takes."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def conduct_changes(judged: Judged, *, bundles: str) -> dict[str, Any]:
    """Columns of the attempt's row after this look."""
    did = judged.conduct
    means = [
        (mean, count)
        for mean, count in (
            (did.confidence.recent, did.confidence.recent_samples),
            (did.confidence.earlier, did.confidence.earlier_samples),
        )
        if mean is not None
    ]
    samples = sum(count for _, count in means)
    changes: dict[str, Any] = {
        "mark": did.mark,
        "bundles": bundles,
        "is_awaited": bool(did.awaited),
        "document": _shown(judged.document),
        "confidence": sum(mean * count for mean, count in means) / samples if samples else None,
        "confidence_samples": samples,
    }
    if judged.decisions:
        decided, undecided = judged.decided, judged.undecided
        messages = [m for d in decided.decisions if d.stage != Stage.SHADOW for m in d.messages]
        changes |= {
            "input_digest": judged.input_digest,
            "is_undecided": bool(undecided),
            "outcome": "undecided" if undecided else decided.outcome.value,
            "messages": messages[:MESSAGES_KEPT],
            "judged_at": timezone.now(),
        }
    if judged.is_worth_recording():
        gravest = max(judged.decisions, key=lambda one: _weight(one))
        changes |= {"says": judged.says, "decision_uid": gravest.uid,
                    "recorded_at": timezone.now()}  # fmt: skip
    return changes


def _weight(decision: Decision) -> tuple[bool, int]:
    order = [Outcome.ALLOW, Outcome.WARN, Outcome.REQUIRE_APPROVAL, Outcome.DENY]
    return decision.stage == Stage.ENFORCE, order.index(effective_outcome(decision))


def _shown(document: Mapping[str, Any]) -> dict[str, Any]:
    """The input as pages show it: the recorded decision holds all of it."""
    spans = dict(document["spans"])
    actions = dict(document["actions"])
    actions["names"] = actions["names"][:TARGETS_SHOWN]
    spans["targets"] = {
        name: span for name, span in spans["targets"].items() if name in actions["names"]
    }
    return {**document, "actions": actions, "spans": spans}
