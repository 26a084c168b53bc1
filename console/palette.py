"""What `Ctrl+K` finds: things by name that the person may see, and what the person may begin."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final

from django.db.models import Q
from django.urls import reverse

from agents.selectors import artifacts_within, visible_agents
from goals.access import visible_goals, visible_releases
from governance.access import Principal, visible_approvals, within
from governance.domain import ApprovalState, Permission
from governance.models import BundleVersion

PER_KIND: Final = 6  # of each kind; who wants more narrows the text or opens the list
TEXT_MAX: Final = 100  # characters looked for
ACTIONS: Final = (  # label, route, what one must be allowed somewhere
    ("New Goal", "goal_new", Permission.OPERATE),
    ("Kill switch", "kill_switch", Permission.OPERATE),
    ("Verify an evidence pack", "audit_verify", None),
    ("Make an API token", "token_list", None),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to go to."""

    kind: str
    label: str
    detail: str
    url: str

    def document(self) -> dict[str, str]:
        return {"kind": self.kind, "label": self.label, "detail": self.detail, "url": self.url}


def actions_for(principal: Principal) -> list[Entry]:
    """What this person may begin from anywhere."""
    return [
        Entry("Action", label, "", reverse(route))
        for label, route, permission in ACTIONS
        if permission is None or _may(principal, permission)
    ]


def find_objects(principal: Principal, text: str) -> list[Entry]:
    """The newest few of each kind whose name holds the text, in namespaces the person may see."""
    wanted = text[:TEXT_MAX]
    if not wanted:
        return list(_approvals(principal, ""))
    return list(
        chain(
            _goals(principal, wanted),
            _agents(principal, wanted),
            _approvals(principal, wanted),
            _releases(principal, wanted),
            _artifacts(principal, wanted),
            _policies(wanted),
        )
    )


def _goals(principal: Principal, text: str) -> Iterator[Entry]:
    found = visible_goals(principal).filter(Q(name__icontains=text) | Q(objective__icontains=text))
    for goal in found.order_by("-created_at")[:PER_KIND]:
        reference = f"{goal.namespace}/{goal.name}"
        yield Entry(
            "Goal", goal.name, f"{goal.namespace} · {goal.phase}", _url("goal_detail", reference)
        )


def _agents(principal: Principal, text: str) -> Iterator[Entry]:
    for agent in visible_agents(principal).filter(name__icontains=text)[:PER_KIND]:
        url = reverse("agent_detail", args=[agent.namespace, agent.name])
        yield Entry("Agent", agent.name, f"{agent.namespace} · {agent.role}", url)


def _approvals(principal: Principal, text: str) -> Iterator[Entry]:
    pending = visible_approvals(principal).filter(state=ApprovalState.PENDING)
    for approval in pending.filter(title__icontains=text).order_by("expires_at")[:PER_KIND]:
        url = _url("approval_detail", approval.uid)
        yield Entry("Approval", approval.title, f"{approval.namespace} · waits", url)


def _releases(principal: Principal, text: str) -> Iterator[Entry]:
    found = visible_releases(principal).filter(service__icontains=text)
    for release in found.order_by("-created_at")[:PER_KIND]:
        label = f"{release.service}/{release.environment} #{release.number}"
        detail = f"{release.namespace} · {release.state}"
        yield Entry("Release", label, detail, _url("release_detail", release.uid))


def _artifacts(principal: Principal, text: str) -> Iterator[Entry]:
    match = Q(name__icontains=text)
    if text.startswith("sha256:"):
        match = Q(digest__startswith=text) | Q(blob_digest__startswith=text)
    found = artifacts_within(within(principal, Permission.VIEW)).filter(match)
    for artifact in found[:PER_KIND]:
        detail = f"{artifact.namespace} · {artifact.kind} · {artifact.digest[7:19]}"
        yield Entry("Artifact", artifact.name, detail, _url("artifact_detail", artifact.digest))


def _policies(text: str) -> Iterator[Entry]:
    found = BundleVersion.objects.filter(name__icontains=text).order_by("name", "-version")
    for version in found[:PER_KIND]:
        label = f"{version.name} version {version.version}"
        url = reverse("policy_detail", args=[version.name, version.version])
        yield Entry("Policy", label, version.stage, url)


def _url(route: str, reference: object) -> str:
    return reverse(route, args=[reference])


def _may(principal: Principal, permission: Permission) -> bool:
    spaces = principal.namespaces(permission)
    return spaces is None or bool(spaces)
