"""Questions about provenance, and the sentence that answers each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.urls import reverse

from agents.models import Attempt
from goals.domain.states import ReleaseState
from goals.lineage.subjects import (
    ANY_KIND,
    Completion,
    artifact_completions,
    find_artifact,
    find_node,
    find_release,
    find_target,
    release_completions,
    target_completions,
)
from goals.models import Goal, Release
from governance.access import Principal
from governance.domain import ApprovalState
from governance.models import Approval, Decision
from governance.time_range import TimeRange
from lineage.domain import ActorKind, ArtifactKind, NodeKind, NodeRef, Relation
from lineage.models import Artifact, Edge
from lineage.selectors import Direction
from lineage.services.recall import touched_by

NAMED_MAX = 8  # things that a sentence names; the rest is counted
ROWS_MAX = 200  # releases that an answer lists


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a sentence, with the page it leads to."""

    text: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A sentence, and where the graph behind it begins."""

    sentence: tuple[Part, ...]
    namespace: str
    starts: tuple[NodeRef, ...]
    subject: str  # what was asked about, as its field shows it
    depth: int = 2
    direction: Direction = Direction.BOTH
    relations: frozenset[Relation] = frozenset(Relation)
    releases: tuple[Release, ...] = ()
    note: str = ""

    @property
    def text(self) -> str:
        """The sentence as plain text."""
        return "".join(part.text for part in self.sentence)


@dataclass(frozen=True, slots=True)
class Question:
    """One thing people ask: its words, its one field, and how it is answered."""

    key: str
    words: str
    field: str
    example: str
    answer: Callable[[Principal, str, TimeRange], Answer]
    complete: Callable[[Principal, str], list[Completion]]


def who_approved(principal: Principal, text: str, _: TimeRange) -> Answer:
    """Who approved this release? Raises SubjectUnknown."""
    release = find_release(principal, text)
    return Answer(
        sentence=(_release_part(release), Part(" "), *_approved(release)),
        namespace=release.namespace,
        starts=(NodeRef(NodeKind.RELEASE, str(release.uid)),),
        subject=_release_name(release),
    )


def _approved(release: Release) -> Sequence[Part]:
    approval = (
        Approval.objects.filter(namespace=release.namespace, pk=release.approval_uid).first()
        if release.approval_uid
        else Approval.objects.filter(
            namespace=release.namespace, subject_kind="release", subject_id=str(release.uid)
        ).first()
    )
    asked = (Part(" It was asked for by "), _actor_part(release), Part("."))
    if approval is None:
        return (
            Part("was approved by nobody: "),
            *_decision_parts(release),
            Part(" did not ask for a human."),
            *asked,
        )
    url = reverse("approval_detail", args=[approval.uid])
    when = f" on {approval.decided_at:%Y-%m-%d at %H:%M} UTC" if approval.decided_at else ""
    because = f": “{approval.reason[:160]}”" if approval.reason else ""
    by = Part(approval.decided_by, url)
    verb: tuple[Part, ...]
    match approval.state:
        case ApprovalState.APPROVED:
            verb = (Part("was approved by "), by, Part(f"{when}{because}."))
        case ApprovalState.DENIED:
            verb = (Part("was denied by "), by, Part(f"{when}{because}."))
        case ApprovalState.PENDING:
            verb = (Part("is approved by nobody yet: "), Part("its approval", url), Part(" waits."))
        case _:
            end = Part(f" {approval.state}.")
            verb = (Part("was approved by nobody: "), Part("its approval", url), end)
    return (*verb, *asked)


def _decision_parts(release: Release) -> tuple[Part, ...]:
    decision = (
        Decision.objects.filter(namespace=release.namespace, pk=release.decision_uid).first()
        if release.decision_uid
        else None
    )
    if decision is None:
        return (Part("policy"),)
    url = reverse("decision_detail", args=[decision.uid])
    return (Part("policy "), Part(decision.bundle_name or "(none in force)", url))


def which_goals_used(principal: Principal, text: str, time: TimeRange) -> Answer:
    """Which Goals used this dataset (or any artifact)? Raises SubjectUnknown."""
    artifact = find_artifact(principal, text)
    used = Edge.objects.filter(
        time.q("created_at"),
        namespace=artifact.namespace,
        relation=Relation.USED,
        target_kind=NodeKind.ARTIFACT,
        target_id=artifact.digest,
    )
    used = used.filter(goal_uid__isnull=False)
    uids = [
        str(uid)
        for uid in used.order_by().values_list("goal_uid", flat=True).distinct()[: NAMED_MAX + 1]
    ]
    total = len(uids)
    if total > NAMED_MAX:
        total = used.order_by().values("goal_uid").distinct().count()
    goals = Goal.objects.filter(namespace=artifact.namespace, pk__in=uids[:NAMED_MAX])
    named = [
        Part(goal.name, reverse("goal_detail", args=[str(goal.uid)]))
        for goal in goals.order_by("-created_at")
    ]
    some = f"{_count(total, 'Goal')} used "
    return Answer(
        sentence=_said_of(artifact, named, total, none="No Goal used ", some=some),
        namespace=artifact.namespace,
        starts=(NodeRef(NodeKind.ARTIFACT, artifact.digest),),
        subject=artifact.digest,
        relations=frozenset({Relation.USED, Relation.RAN, Relation.PRODUCED}),
    )


def what_it_touched(principal: Principal, text: str, _: TimeRange) -> Answer:
    """What did this digest touch? Raises SubjectUnknown."""
    artifact = find_artifact(principal, text)
    touched = touched_by(artifact)
    releases = list(
        Release.objects.filter(namespace=artifact.namespace, pk__in=touched.releases).order_by(
            "-created_at"
        )[:ROWS_MAX]
    )
    serving = [one for one in releases if one.state == ReleaseState.ACTIVE]
    at_least = "at least " if touched.is_cut else ""
    if not touched.attempts and not touched.releases and not touched.artifacts:
        sentence: tuple[Part, ...] = (_artifact_part(artifact), Part(" touched nothing so far."))
    else:
        things = ", ".join(
            (
                _count(len(touched.goals), "Goal"),
                _count(len(touched.attempts), "agent run"),
                _count(len(touched.artifacts), "other artifact"),
                _count(len(touched.releases), "release"),
            )
        )
        sentence = (
            _artifact_part(artifact),
            Part(f" touched {at_least}{things}. "),
            *_served_now(serving),
        )
    return Answer(
        sentence=sentence,
        namespace=artifact.namespace,
        starts=(NodeRef(NodeKind.ARTIFACT, artifact.digest),),
        subject=artifact.digest,
        depth=4,
        direction=Direction.EFFECTS,
        releases=tuple(releases),
        note=f"It is recalled: {artifact.recall_reason}" if artifact.recalled_at else "",
    )


def _served_now(serving: Sequence[Release]) -> tuple[Part, ...]:
    if not serving:
        return (Part("Nothing that is served now rests on it."),)
    named = [_release_part(one) for one in serving[:NAMED_MAX]]
    verb = "rests" if len(serving) == 1 else "rest"
    return (*_listed(named, len(serving)), Part(f" {verb} on it now."))


def which_releases_rest_on(principal: Principal, text: str, time: TimeRange) -> Answer:
    """Which releases rest on this evidence? Raises SubjectUnknown."""
    evidence = find_artifact(principal, text, kinds=[ArtifactKind.EVIDENCE])
    edges = Edge.objects.filter(
        time.q("created_at"),
        namespace=evidence.namespace,
        relation=Relation.SUPPORTED_BY,
        target_kind=NodeKind.ARTIFACT,
        target_id=evidence.digest,
    ).order_by("-pk")
    uids = list(edges.values_list("source_id", flat=True)[:ROWS_MAX])
    rows = Release.objects.filter(namespace=evidence.namespace, pk__in=uids).order_by("-created_at")
    releases = list(rows)
    named = [_release_part(one) for one in releases[:NAMED_MAX]]
    total = len(releases)
    some = f"{_count(total, 'release')} rest{'s' if total == 1 else ''} on "
    return Answer(
        sentence=_said_of(evidence, named, total, none="No release rests on ", some=some),
        namespace=evidence.namespace,
        starts=(NodeRef(NodeKind.ARTIFACT, evidence.digest),),
        subject=evidence.digest,
        releases=tuple(releases),
    )


def what_changed(principal: Principal, text: str, time: TimeRange) -> Answer:
    """What changed an environment in the time asked for? Raises SubjectUnknown."""
    target = find_target(principal, text)
    served = (ReleaseState.ACTIVE, ReleaseState.SUPERSEDED)
    rows = target.releases.filter(time.q("created_at"), state__in=served).order_by("-number")
    releases = list(rows[:ROWS_MAX])
    if not releases:
        during = "in that time" if time.text else "so far"
        sentence: tuple[Part, ...] = (Part(f"Nothing changed {target} {during}."),)
        newest = target.releases.filter(state__in=served).order_by("-number").first()
        starts = newest or target.releases.order_by("-number").first()
    else:
        first, last = releases[-1], releases[0]
        sentence = (
            Part(f"{_count(rows.count(), 'release')} changed {target}: from "),
            _digest_part(first.previous_digest),
            Part(" to "),
            _digest_part(last.digest),
            Part(", last by "),
            _actor_part(last),
            Part(f" on {last.created_at:%Y-%m-%d at %H:%M} UTC."),
        )
        starts = last
    return Answer(
        sentence=sentence,
        namespace=target.namespace,
        starts=(NodeRef(NodeKind.RELEASE, str(starts.uid)),) if starts else (),
        subject=str(target),
        depth=1,
        releases=tuple(releases),
    )


def explore(principal: Principal, text: str, _: TimeRange) -> Answer:
    """Whatever is around a node. Raises SubjectUnknown."""
    node, namespace = find_node(principal, text)
    return Answer(
        sentence=(),
        namespace=namespace,
        starts=(node,),
        subject=text.strip(),
        depth=1,
    )


def _datasets_first(principal: Principal, text: str) -> list[Completion]:
    sets = artifact_completions(principal, text, kinds=[ArtifactKind.DATASET])
    return sets or artifact_completions(principal, text)


def _evidence(principal: Principal, text: str) -> list[Completion]:
    return artifact_completions(principal, text, kinds=[ArtifactKind.EVIDENCE])


def _any_artifact(principal: Principal, text: str) -> list[Completion]:
    return artifact_completions(principal, text, kinds=ANY_KIND)


QUESTIONS = (
    Question(
        "approved",
        "Who approved this release?",
        "Release",
        "checkout/production #3",
        who_approved,
        release_completions,
    ),
    Question(
        "goals",
        "Which Goals used this dataset?",
        "Dataset, by name or digest",
        "sha256:… or its name",
        which_goals_used,
        _datasets_first,
    ),
    Question(
        "touched",
        "What did this digest touch?",
        "Digest or name",
        "sha256:… or its name",
        what_it_touched,
        _any_artifact,
    ),
    Question(
        "evidence",
        "Which releases rest on this evidence?",
        "Evidence, by name or digest",
        "sha256:… or its name",
        which_releases_rest_on,
        _evidence,
    ),
    Question(
        "changed",
        "What changed this environment?",
        "Service/environment",
        "checkout/production",
        what_changed,
        target_completions,
    ),
    Question(
        "around",
        "What is around this?",
        "Digest, or kind:id",
        "sha256:… or goal:…",
        explore,
        _any_artifact,
    ),
)
BY_KEY = {question.key: question for question in QUESTIONS}


def agent_words_of(releases: Sequence[Release]) -> dict[Any, str]:
    """The reasons that agents gave for releases, by release."""
    return {one.pk: one.reason for one in releases if one.attempt_uid and one.reason}


def _release_name(release: Release) -> str:
    return f"{release.service}/{release.environment} #{release.number}"


def _release_part(release: Release) -> Part:
    return Part(_release_name(release), reverse("release_detail", args=[release.uid]))


def _artifact_part(artifact: Artifact) -> Part:
    return Part(
        f"{artifact.name} ({artifact.digest[7:19]})",
        reverse("artifact_detail", args=[artifact.digest]),
    )


def _digest_part(digest: str) -> Part:
    if not digest:
        return Part("nothing")
    return Part(digest.removeprefix("sha256:")[:12], reverse("artifact_detail", args=[digest]))


def _actor_part(release: Release) -> Part:
    if release.released_by_kind != ActorKind.AGENT or release.attempt_uid is None:
        return Part(release.released_by_id)
    attempt = Attempt.objects.filter(namespace=release.namespace, pk=release.attempt_uid).first()
    name = attempt.agent_name if attempt else release.released_by_id
    return Part(f"agent {name}", reverse("attempt_detail", args=[release.attempt_uid]))


def _said_of(
    artifact: Artifact, named: Sequence[Part], total: int, *, none: str, some: str
) -> tuple[Part, ...]:
    """What is said of an artifact: that there is nothing, or how many, and their names."""
    if not named:
        return Part(none), _artifact_part(artifact), Part(".")
    return Part(some), _artifact_part(artifact), Part(": "), *_listed(named, total), Part(".")


def _listed(parts: Sequence[Part], total: int) -> tuple[Part, ...]:
    """Names as an enumeration: `a, b and 3 more`."""
    left = total - len(parts)
    words: list[Part] = []
    for place, part in enumerate(parts):
        is_last = place == len(parts) - 1 and left == 0
        if place:
            words.append(Part(" and " if is_last else ", "))
        words.append(part)
    if left > 0:
        words.append(Part(f" and {left} more"))
    return tuple(words)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
