"""Words of governance: roles, approvals, stages of a policy bundle."""

from enum import StrEnum


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
