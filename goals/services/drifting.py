"""Drift: what policy says of conduct is acted upon at once, and a human has the next word.

A denial ends the attempt: in one transaction its identity is revoked, nothing is issued to it any
more, its end is wanted and a person is asked; then this process ends the workload. The verdict
`require_approval` pauses the attempt and asks. Whoever dies in between leaves the rest to the next
reconcile, which reads the same rows. Siblings go on; the task of the drifter is not started again
before the answer.

Without an answer of the policy engine nothing new is started (I8), and nothing that runs is ended:
an engine that is down must not revoke a whole fleet. Where the engine is well and only the conduct
of one attempt cannot be judged, that attempt is paused and a person asked, as nobody knows better.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from django.utils import timezone

from agents.cluster import get_cluster
from agents.cluster.base import Cluster, ClusterError
from agents.domain.states import DesiredState
from agents.models import Attempt
from agents.services.attempts import record_status, set_desired
from agents.services.revocation import revoke_identity
from agents.services.stopping import stop_workloads
from agents.services.withdrawal import withdraw_at_once
from goals.domain.states import Phase
from goals.events import hint_on_commit
from goals.models import AttemptConduct, Goal
from goals.services.approval_facts import quorum_asked
from goals.services.conditions import condition_of, set_condition
from goals.services.conduct import (
    SUBJECT_KIND,
    Judged,
    attempts_to_judge,
    bundles_in_force,
    conduct_changes,
    is_engine_well,
    judge_attempts,
    offending,
)
from goals.services.drift_facts import drift_facts, drift_words, ended_fact
from goals.services.landing import start_landing
from goals.services.lease import Lease, fenced
from goals.services.metering import release_attempt, settle_gpu
from goals.services.planning import barred_from
from governance.domain import ApprovalKind, ApprovalState, Stage
from governance.models import Approval
from governance.policy.base import Outcome
from governance.services.approvals import Question, open_approval, restate_facts
from governance.services.decisions import Judgement, quorum_of, record_judgement
from governance.services.journal import append_record
from lineage.domain import Actor, ActorKind
from lineage.telemetry.base import TelemetryError

logger = logging.getLogger(__name__)

JUDGE: Final = Actor(ActorKind.SYSTEM, "drift")
DRIFTED: Final = "Drifted"  # the condition; also the reason of a Goal that lands for it
JUDGED: Final = "Judged"  # False while policy cannot answer
STOP_SECONDS: Final = 2.0  # to end the workload at once; the reconciler goes on after that
ASKED, STOPPED = "asked", "stopped"


def watch_conduct(goal: Goal, lease: Lease) -> None:
    """Judge what attempts did since the last look, and act on it.

    While the telemetry store does not answer nothing is judged; what it kept is judged afterwards.
    """
    attempts = attempts_to_judge(goal)
    if not attempts:
        _say_judged(goal, attempts, lease)
        return
    bundles = bundles_in_force()
    try:
        found = judge_attempts(goal, attempts, bundles=bundles)
    except TelemetryError as error:
        logger.warning("what the attempts of %s did is not judged now: %s", goal, error)
        return
    is_well: bool | None = None
    for one in found:
        if one.undecided and is_well is None:
            is_well = is_engine_well()
        _settle(goal, one, lease, bundles=bundles, is_well=is_well is not False)
    _close_ended(goal, attempts, found)
    _say_judged(goal, attempts, lease)


def _settle(goal: Goal, judged: Judged, lease: Lease, *, bundles: str, is_well: bool) -> None:
    """Write down one look; where policy objects, act."""
    standing, why = _consequence(judged, is_well=is_well)
    changes = conduct_changes(judged, bundles=bundles)
    if standing and not judged.row.standing:
        _act(goal, judged, lease, standing=standing, why=why, changes=changes)
        return
    with fenced(lease):
        if judged.is_worth_recording():
            record_judgement(Judgement(judged.decided.outcome, judged.decisions))
        _write(judged.row, changes)
        _say_warned(goal, judged)


def _consequence(judged: Judged, *, is_well: bool) -> tuple[str, list[dict[str, Any]]]:
    """What becomes of the attempt ("" when it goes on), and the messages that say so."""
    counted = judged.counted
    if counted.outcome is Outcome.DENY:
        return STOPPED, counted.messages(Outcome.DENY)
    asked = counted.messages(Outcome.REQUIRE_APPROVAL)
    if judged.undecided and is_well:
        asked.append({"text": f"Policy could not judge what it did: {judged.undecided}"})
    fresh = [one for one in asked if _rule(one) not in judged.row.accepted]
    return (ASKED, fresh) if fresh else ("", [])


def _rule(message: Mapping[str, Any]) -> list[str]:
    """What an approval lets pass: a rule, not the counts its message names."""
    return [str(message.get("path", "")), str(message.get("rule", ""))]


def _act(
    goal: Goal,
    judged: Judged,
    lease: Lease,
    *,
    standing: str,
    why: Sequence[Mapping[str, Any]],
    changes: dict[str, Any],
) -> None:
    """Revoke, stop (or pause), record and ask, in one transaction; then end the workload."""
    attempt = judged.attempt
    witness = offending(judged, [str(one["text"]) for one in why])
    words = drift_words(goal, witness.span_id if witness else "")  # asks the telemetry store
    now = timezone.now()
    row = {
        **changes,
        "standing": standing,
        "answer": "",
        "drifted_at": now,
        "revoked_at": now if standing == STOPPED else None,
        "ended_at": None,
        "offence_span_id": witness.span_id if witness else "",
        "offence_at": witness.stored_at if witness else None,
    }
    with fenced(lease):
        kept = AttemptConduct.objects.filter(pk=attempt.uid).values_list("standing", flat=True)
        if any(kept):
            return
        # Recorded whenever it is acted upon, however short ago the same was said.
        record_judgement(Judgement(judged.decided.outcome, judged.decisions))
        approval = open_approval(_question(goal, judged, standing, why, row, words))
        row["approval_uid"] = approval.uid
        _write(judged.row, row)
        if standing == STOPPED:
            _take_down(attempt, reason=f"drift: {why[0]['text']}")
        else:
            set_desired(attempt, DesiredState.PAUSED, actor=JUDGE)
        _say_drifted(goal, judged.row, str(why[0]["text"]))
        _journal_drift(judged, approval, why)
        hint_on_commit(goal_uid=goal.uid, namespace=goal.namespace, topic="approval")
    logger.warning("%s of %s drifted: %.300r", attempt.workload, goal, why[0]["text"])
    if standing == ASKED:
        _pause_at_once(attempt)
    elif not attempt.is_finished:
        end_drifter(goal, attempt, lease)
    record_drift_ends(goal, lease)


def _pause_at_once(attempt: Attempt) -> None:
    """Not at the next look; what fails here is reconciled."""
    try:
        get_cluster().pause(attempt.workload)
    except ClusterError as error:
        logger.warning("%s is paused a little later: %s", attempt.workload, error)


def _take_down(attempt: Attempt, *, reason: str) -> None:
    """Nothing is accepted or issued any more, its end is wanted; in the caller's transaction."""
    revoke_identity(attempt, reason=reason, actor=JUDGE)
    set_desired(attempt, DesiredState.STOPPED, actor=JUDGE)


def end_drifter(
    goal: Goal, attempt: Attempt, lease: Lease, *, cluster: Cluster | None = None
) -> None:
    """End the workload now and write down its end; what fails here is reconciled.

    What ran until the end is metered and settled; what was reserved beyond goes back with it.
    """
    withdraw_at_once([attempt], within_seconds=STOP_SECONDS)
    stopped = stop_workloads([attempt.workload], within_seconds=STOP_SECONDS, cluster=cluster)
    status = stopped.statuses.get(attempt.workload)
    is_unknown = attempt.workload not in stopped.statuses
    if is_unknown or (status is not None and not status.is_finished):
        logger.error("%s drifted and still runs: %s", attempt.workload, dict(stopped.problems))
        return
    with fenced(lease):
        attempt.refresh_from_db()
        if not attempt.is_finished:
            record_status(attempt, status)
            settle_gpu(goal, attempt)
            release_attempt(goal, attempt)


def record_drift_ends(goal: Goal, lease: Lease) -> None:
    """Measure how long each drifter ran on, once it has ended; on the card, too."""
    if condition_of(goal, DRIFTED) is None:
        return  # most Goals: none of its attempts ever drifted
    rows = AttemptConduct.objects.filter(goal_uid=goal.uid, standing=STOPPED, ended_at__isnull=True)
    waiting = {row.attempt_uid: row for row in rows}
    if not waiting:
        return
    for attempt in Attempt.objects.filter(pk__in=waiting, finished_at__isnull=False):
        row = waiting[attempt.uid]
        with fenced(lease):
            if AttemptConduct.objects.filter(pk=row.pk, ended_at__isnull=True).update(
                ended_at=attempt.finished_at
            ):
                row.ended_at = attempt.finished_at
                _journal_end(row)
                approval = Approval.objects.filter(pk=row.approval_uid or row.pk).first()
                if approval is not None:
                    restate_facts(approval, [ended_fact(row)])


def standing_of(attempt: Attempt) -> str:
    """ "held" while a person is asked about this attempt, "again" when its task may run anew."""
    row = AttemptConduct.objects.filter(pk=attempt.uid).exclude(standing="").first()
    if row is None:
        return ""
    if not row.answer:
        return "held"
    return "again" if row.standing == STOPPED else ""


def asked_about(goal: Goal) -> set[UUID]:
    """Attempts that stay paused until a person has answered."""
    rows = AttemptConduct.objects.filter(goal_uid=goal.uid, standing=ASKED, answer="")
    return set(rows.values_list("attempt_uid", flat=True))


def is_unjudged(goal: Goal) -> bool:
    """Whether policy cannot answer for what runs: nothing more is started meanwhile."""
    known = condition_of(goal, JUDGED)
    return known is not None and known["status"] == "False"


def apply_drift_answer(approval: Approval, goal: Goal, request: Mapping[str, Any]) -> None:
    """Let it go on, or end it and land the Goal; in the transaction of the answer."""
    row = (
        AttemptConduct.objects.filter(pk=request["attempt"], answer="").exclude(standing="").first()
    )
    if row is None or row.approval_uid != approval.uid:
        return
    if approval.state == ApprovalState.APPROVED:
        _let_go_on(goal, row, request, approval)
    else:
        row.answer = approval.state
        AttemptConduct.objects.filter(pk=row.pk).update(answer=approval.state)
        if approval.state != ApprovalState.VOIDED:
            _end_for_good(goal, row, approval)
    _say_answered(goal, approval)


def _let_go_on(
    goal: Goal, row: AttemptConduct, request: Mapping[str, Any], approval: Approval
) -> None:
    if row.standing == STOPPED:
        AttemptConduct.objects.filter(pk=row.pk).update(answer=approval.state)
        return
    accepted = [*row.accepted]
    accepted += [rule for rule in request["rules"] if rule not in accepted]
    AttemptConduct.objects.filter(pk=row.pk).update(
        standing="", answer="", drifted_at=None, accepted=accepted
    )
    attempt = Attempt.objects.filter(pk=row.attempt_uid).first()
    if attempt is not None and goal.phase == Phase.RUNNING:
        set_desired(attempt, DesiredState.RUNNING, actor=JUDGE)


def _end_for_good(goal: Goal, row: AttemptConduct, approval: Approval) -> None:
    attempt = Attempt.objects.filter(pk=row.attempt_uid).first()
    if attempt is not None and row.standing == ASKED:
        _take_down(attempt, reason=f"drift: {approval.state}: {approval.reason}")
        AttemptConduct.objects.filter(pk=row.pk).update(standing=STOPPED, revoked_at=timezone.now())
    start_landing(
        goal,
        Phase.FAILED,
        reason=DRIFTED,
        message=f"{row.agent_name} drifted, and to run it again was {approval.state}: "
        f"{approval.reason}",
    )


def _question(
    goal: Goal,
    judged: Judged,
    standing: str,
    why: Sequence[Mapping[str, Any]],
    row: Mapping[str, Any],
    words: str,
) -> Question:
    attempt = judged.attempt
    verb = "drifted" if standing == STOPPED else "is paused: does it drift?"
    return Question(
        kind=ApprovalKind.DRIFT,
        namespace=goal.namespace,
        goal_uid=goal.uid,
        subject_kind=SUBJECT_KIND,
        subject_id=str(attempt.uid),
        title=f"{attempt.agent_name} of {goal} {verb}",
        request={
            "kind": "drift",
            "goal": str(goal.uid),
            "generation": goal.generation,
            "attempt": str(attempt.uid),
            "task": attempt.task,
            "number": attempt.number,
            "standing": standing,
            "input_digest": judged.input_digest,
            "decisions": sorted(str(one.uid) for one in judged.decisions),
            "rules": [_rule(one) for one in why],
            "span": row["offence_span_id"],
        },
        requested_by=goal.requested_by,
        barred=barred_from(goal),
        facts=drift_facts(goal, judged, standing=standing, why=why, row=row),
        agent_words=words,
        quorum=max(quorum_of(judged.counted), quorum_asked(goal)),
    )


def _write(row: AttemptConduct, changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        setattr(row, name, value)
    if not AttemptConduct.objects.filter(pk=row.pk).update(**changes):
        row.save(force_insert=True)


def _close_ended(goal: Goal, attempts: Sequence[Attempt], found: Sequence[Judged]) -> None:
    """What had ended before this look is not looked at again; unless policy could not answer."""
    open_still = {one.attempt.uid for one in found if one.row.is_undecided or one.row.is_awaited}
    ended = [one for one in attempts if one.is_finished and one.uid not in open_still]
    if not ended:
        return
    known = AttemptConduct.objects.filter(pk__in=[one.uid for one in ended])
    known.filter(is_undecided=False, is_awaited=False).update(is_closed=True)
    present = set(known.values_list("pk", flat=True))
    AttemptConduct.objects.bulk_create(
        [
            AttemptConduct(
                attempt_uid=one.uid, goal_uid=goal.uid, namespace=one.namespace,
                agent_name=one.agent_name, is_closed=True,
            )
            for one in ended
            if one.uid not in present
        ],
        ignore_conflicts=True,
    )  # fmt: skip


def _say_judged(goal: Goal, attempts: Sequence[Attempt], lease: Lease) -> None:
    """Say whether policy can answer for what runs."""
    known = condition_of(goal, JUDGED)
    rows = AttemptConduct.objects.filter(
        pk__in=[one.uid for one in attempts], is_undecided=True, standing=""
    )
    undecided = [one for one in rows.order_by("attempt_uid") if _rule({}) not in one.accepted]
    first = undecided[0] if undecided else None
    if first is not None:
        text = next((str(one["text"]) for one in first.messages if one.get("text")), "")
        message = f"Nothing new is started until policy can judge what runs. {text}".strip()
        if known is None or (known["status"], known["message"]) != ("False", message):
            with fenced(lease):
                set_condition(goal, JUDGED, False, reason="PolicyUndecided", message=message)
    elif known is not None and known["status"] == "False":
        with fenced(lease):
            set_condition(goal, JUDGED, True, reason="PolicyAnswers")


def _say_warned(goal: Goal, judged: Judged) -> None:
    """What would have stopped an attempt, had its bundle been in force, is said on the Goal.

    Rules that only warn are told on the pages of the attempt and its agent.
    """
    tried = [
        message
        for one in judged.decided.decisions
        if one.stage == Stage.WARN
        for message in one.messages
        if message["outcome"] in (Outcome.DENY, Outcome.REQUIRE_APPROVAL)
    ]
    known = condition_of(goal, DRIFTED)
    if tried and (known is None or known["status"] == "False"):
        message = f"{judged.attempt.task}: {tried[0]['text']}"
        set_condition(goal, DRIFTED, False, reason="WouldBeStopped", message=message)


def _say_drifted(goal: Goal, row: AttemptConduct, text: str) -> None:
    reason = "PolicyDenied" if row.standing == STOPPED else "ApprovalRequired"
    set_condition(goal, DRIFTED, True, reason=reason, message=text[:2000])


def _say_answered(goal: Goal, approval: Approval) -> None:
    held = AttemptConduct.objects.filter(goal_uid=goal.uid, answer="").exclude(standing="")
    known = condition_of(goal, DRIFTED)
    is_over = approval.state in (ApprovalState.APPROVED, ApprovalState.VOIDED)
    is_said = known is not None and known["status"] == "True" and not goal.landing
    if is_over and is_said and not held.exists():
        message = f"{approval.decided_by or approval.state}: {approval.reason}"
        set_condition(goal, DRIFTED, False, reason=approval.state.title(), message=message)


def _journal_drift(judged: Judged, approval: Approval, why: Sequence[Mapping[str, Any]]) -> None:
    row, attempt = judged.row, judged.attempt
    append_record(
        action="attempt.drifted",
        actor=JUDGE,
        object_kind="attempt",
        object_id=str(attempt.uid),
        namespace=attempt.namespace,
        goal_uid=attempt.goal_uid,
        body={
            "standing": row.standing,
            "why": [{key: one.get(key) for key in ("text", "rule", "path", "line")} for one in why],
            "decisions": sorted(str(one.uid) for one in judged.decisions),
            "input_digest": judged.input_digest,
            "span": row.offence_span_id,
            "approval": str(approval.uid),
            "spiffe_id": attempt.spiffe_id,
            "revoked_after_ms": _milliseconds(row.revoked_after_seconds),
        },
    )


def _journal_end(row: AttemptConduct) -> None:
    append_record(
        action="attempt.drift_ended",
        actor=JUDGE,
        object_kind="attempt",
        object_id=str(row.attempt_uid),
        namespace=row.namespace,
        goal_uid=row.goal_uid,
        body={
            "span": row.offence_span_id,
            "revoked_after_ms": _milliseconds(row.revoked_after_seconds),
            "ended_after_ms": _milliseconds(row.ended_after_seconds),
        },
    )


def _milliseconds(seconds: float | None) -> str | None:
    """As text: the journal holds no floats."""
    return None if seconds is None else str(round(seconds * 1000))
