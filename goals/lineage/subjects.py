"""What a question is about: the row that a typed text names, and completions for it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.db.models import Q, QuerySet

from agents.models import Attempt
from agents.selectors import artifacts_within
from goals.access import get_visible_goal, visible_releases
from goals.domain.states import ReleaseState
from goals.models import Release
from governance.access import NotVisible, Principal, visible_approvals, visible_decisions, within
from governance.domain import Permission
from lineage.domain import ArtifactKind, NodeKind, NodeRef
from lineage.models import Artifact

COMPLETIONS_MAX = 20
TEXT_MAX = 600  # characters: a kind and the longest id of a node
HEX_PREFIX = re.compile(r"(?:sha256:)?(?P<hex>[0-9a-f]{6,64})")  # 6: what git shows at least
RELEASE = re.compile(
    r"(?:(?P<namespace>[a-z0-9.-]+)/)?(?P<service>[a-z0-9.-]+)/(?P<environment>[a-z0-9.-]+)"
    r"(?:\s*#(?P<number>\d{1,9}))?"
)
ANY_KIND: Final = frozenset(ArtifactKind)
NODE_KINDS: Final = frozenset(kind.value for kind in NodeKind)


class SubjectUnknown(ValueError):
    """Nothing that the person may see has that name; the text says what to type instead."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What a field offers: `value` is typed, `label` explains it."""

    value: str
    label: str


@dataclass(frozen=True, slots=True)
class Target:
    """One environment of a service."""

    namespace: str
    service: str
    environment: str

    def __str__(self) -> str:
        return f"{self.service}/{self.environment}"

    @property
    def releases(self) -> QuerySet[Release]:
        return Release.objects.filter(
            namespace=self.namespace, service=self.service, environment=self.environment
        )


def find_artifact(
    principal: Principal, text: str, *, kinds: Iterable[ArtifactKind] = ANY_KIND
) -> Artifact:
    """By digest (of the artifact or of its content), the start of one, or the newest of a name.

    Raises SubjectUnknown.
    """
    wanted = text.strip()
    visible = artifacts_within(within(principal, Permission.VIEW)).filter(kind__in=list(kinds))
    match = HEX_PREFIX.fullmatch(wanted)
    found: Artifact | None = None
    if match is not None:
        start = f"sha256:{match['hex']}"
        by_digest = Q(digest__startswith=start) | Q(blob_digest__startswith=start)
        found = visible.filter(by_digest).order_by("-created_at").first()
    found = found or visible.filter(name=wanted).order_by("-created_at").first()
    if found is None:
        raise SubjectUnknown(
            f"No artifact that you may see is {_quoted(wanted)}: type its name, or its digest "
            "(sha256:… or the first 6 characters of it)."
        )
    return found


def find_release(principal: Principal, text: str) -> Release:
    """By uid, `service/environment #number`, what `service/environment` serves, or its digest.

    Raises SubjectUnknown.
    """
    wanted = text.strip()
    visible = visible_releases(principal)
    found: Release | None = None
    if (uid := _uid(wanted)) is not None:
        found = visible.filter(pk=uid).first()
    elif (match := RELEASE.fullmatch(wanted)) is not None:
        found = _matching(visible, match)
    elif (match := HEX_PREFIX.fullmatch(wanted)) is not None:
        found = visible.filter(digest__startswith=f"sha256:{match['hex']}").first()
    if found is None:
        raise SubjectUnknown(
            f"No release that you may see is {_quoted(wanted)}: type service/environment, "
            "service/environment #number, or the digest it serves."
        )
    return found


def _matching(visible: QuerySet[Release], match: re.Match[str]) -> Release | None:
    wanted = {name: text for name, text in match.groupdict().items() if text}
    rows = visible.filter(**wanted).order_by("-number")
    return rows.filter(state=ReleaseState.ACTIVE).first() or rows.first()


def find_target(principal: Principal, text: str) -> Target:
    """An environment that was ever released to. Raises SubjectUnknown."""
    wanted = text.strip()
    match = RELEASE.fullmatch(wanted)
    found = _matching(visible_releases(principal), match) if match is not None else None
    if found is None:
        raise SubjectUnknown(
            f"Nothing that you may see was released to {_quoted(wanted)}: type service/environment."
        )
    return Target(found.namespace, found.service, found.environment)


def find_node(principal: Principal, text: str) -> tuple[NodeRef, str]:
    """A node as `kind:id`, and its namespace. Raises SubjectUnknown."""
    wanted = text.strip()
    kind, separator, node_id = wanted.partition(":")
    if separator and kind in NODE_KINDS:
        namespace = _namespace_of(principal, NodeRef(NodeKind(kind), node_id))
        if namespace:
            return NodeRef(NodeKind(kind), node_id), namespace
    try:
        artifact = find_artifact(principal, wanted)
    except SubjectUnknown as error:
        raise SubjectUnknown(
            f"Nothing that you may see is {_quoted(wanted)}: type a digest or an artifact's name, "
            "or kind:id with a kind of goal, attempt, artifact, release, decision, approval."
        ) from error
    return NodeRef(NodeKind.ARTIFACT, artifact.digest), artifact.namespace


def _namespace_of(principal: Principal, node: NodeRef) -> str:
    """The namespace of a node the person may see, or ""."""
    if node.kind is NodeKind.ARTIFACT:
        visible = artifacts_within(within(principal, Permission.VIEW))
        return visible.filter(digest=node.id).values_list("namespace", flat=True).first() or ""
    if node.kind is NodeKind.GOAL:
        try:
            return get_visible_goal(principal, node.id).namespace
        except NotVisible:
            return ""
    uid = _uid(node.id)
    rows: QuerySet[Attempt] | QuerySet[Release]
    if uid is None:
        return ""
    match node.kind:
        case NodeKind.ATTEMPT:
            rows = Attempt.objects.filter(within(principal, Permission.VIEW))
        case NodeKind.RELEASE:
            rows = visible_releases(principal)
        case NodeKind.DECISION:
            found = visible_decisions(principal).filter(pk=uid).first()
            return found.namespace if found else ""
        case NodeKind.APPROVAL:
            asked = visible_approvals(principal).filter(pk=uid).first()
            return asked.namespace if asked else ""
        case _:
            return ""
    return rows.filter(pk=uid).values_list("namespace", flat=True).first() or ""


def artifact_completions(
    principal: Principal, text: str, *, kinds: Iterable[ArtifactKind] = ANY_KIND
) -> list[Completion]:
    """The newest artifacts whose name or digest begins with the text."""
    wanted = text.strip()
    found = artifacts_within(within(principal, Permission.VIEW)).filter(kind__in=list(kinds))
    if wanted:
        start = wanted.removeprefix("sha256:")
        found = found.filter(
            Q(name__istartswith=wanted)
            | Q(digest__startswith=f"sha256:{start}")
            | Q(blob_digest__startswith=f"sha256:{start}")
        )
    return [
        Completion(one.digest, f"{one.name} ({one.kind}, {one.namespace})")
        for one in found.order_by("-created_at")[:COMPLETIONS_MAX]
    ]


def release_completions(principal: Principal, text: str) -> list[Completion]:
    """The newest releases whose service or environment has the text."""
    found = visible_releases(principal)
    service, _, environment = text.partition("#")[0].strip().partition("/")
    if environment:
        found = found.filter(service__icontains=service, environment__istartswith=environment)
    elif service:
        found = found.filter(Q(service__icontains=service) | Q(environment__icontains=service))
    return [
        Completion(
            f"{one.service}/{one.environment} #{one.number}",
            f"{one.state.replace('_', ' ')}, {one.digest[7:19]} ({one.namespace})",
        )
        for one in found.order_by("-created_at")[:COMPLETIONS_MAX]
    ]


def target_completions(principal: Principal, text: str) -> list[Completion]:
    """The environments that were released to."""
    found = visible_releases(principal).filter(number=1)  # one row for each
    service, _, environment = text.strip().partition("/")
    found = found.filter(service__icontains=service, environment__istartswith=environment)
    return [
        Completion(f"{one.service}/{one.environment}", one.namespace)
        for one in found.order_by("service", "environment")[:COMPLETIONS_MAX]
    ]


def _uid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _quoted(text: str) -> str:
    return f"“{text[:80]}”" if text else "the empty text"
