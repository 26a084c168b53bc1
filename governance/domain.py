"""Words of governance: roles, approvals, stages of a policy bundle."""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """What a person may do in a namespace (or in all of them)."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    POLICY_AUTHOR = "policy_author"
    AUDITOR = "auditor"
    ADMIN = "admin"


class Permission(StrEnum):
    """What a request may need."""

    VIEW = "view"
    OPERATE = "operate"
    APPROVE = "approve"
    AUTHOR_POLICY = "author_policy"
    AUDIT = "audit"
    ADMINISTER = "administer"


ROLE_PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset({Permission.VIEW}),
    Role.OPERATOR: frozenset({Permission.VIEW, Permission.OPERATE}),
    Role.APPROVER: frozenset({Permission.VIEW, Permission.APPROVE}),
    Role.POLICY_AUTHOR: frozenset({Permission.VIEW, Permission.AUTHOR_POLICY}),
    Role.AUDITOR: frozenset({Permission.VIEW, Permission.AUDIT}),
    Role.ADMIN: frozenset(Permission),
}
EVERY_NAMESPACE = "*"


class ApprovalKind(StrEnum):
    """What is asked."""

    GRAPH = "graph"
    BUDGET = "budget"
    RELEASE = "release"


class ApprovalState(StrEnum):
    """Where an approval stands; all but PENDING are final."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    VOIDED = "voided"


@dataclass(frozen=True, slots=True)
class Stake:
    """What the wait for an answer risks. None is unknown.

    `damage_at` is the first projected loss and `damage` says which; `gpus_held` are kept from
    others meanwhile, at `micro_usd_per_minute`; `asks` is what is asked for, by unit.
    """

    damage_at: dt.datetime | None = None
    damage: str = ""
    gpus_held: int = 0
    micro_usd_per_minute: int | None = 0
    asks: Mapping[str, int] = field(default_factory=dict)
    # What there is to take: GPUs of the widest open task, tasks at once, iterations left.
    ways: Mapping[str, int] = field(default_factory=dict)

    def urgency(self, *, expires_at: dt.datetime) -> tuple[int, float, float]:
        """Sorts by time to damage: what costs already, then what is lost soonest, then unknown."""
        if self.gpus_held:
            return 0, -float(self.micro_usd_per_minute or 0), expires_at.timestamp()
        if self.damage_at is not None:
            return 1, self.damage_at.timestamp(), expires_at.timestamp()
        return 2, expires_at.timestamp(), 0.0


def narrowest(answers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What several people's answers allow together: the least of each amount and the first end."""
    least: dict[str, Any] = {}
    for answer in answers:
        for name, value in answer.items():
            if name not in least:
                least[name] = value
            elif isinstance(value, Mapping):
                least[name] = narrowest([least[name], value])
            else:
                least[name] = min(least[name], value)
    return least


class Stage(StrEnum):
    """How far a policy bundle counts."""

    DRAFT = "draft"
    SHADOW = "shadow"  # judged and recorded, without effect
    WARN = "warn"  # denials become warnings
    ENFORCE = "enforce"


class GovernanceError(Exception):
    """A request that governance refuses; the text is fit for the person who asked."""


class ApprovalConflict(GovernanceError):
    """The approval is already decided, expired or voided."""


class ApprovalForbidden(GovernanceError):
    """This person may not decide this approval."""


class ApprovalInvalid(GovernanceError):
    """The answer is not one the approval accepts."""
