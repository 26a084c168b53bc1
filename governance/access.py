"""Who is asking and what they may do: the only way from a request to a governed object."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from django.contrib.auth.models import AbstractBaseUser, User
from django.db.models import Model, Q, QuerySet

from governance.domain import (
    EVERY_NAMESPACE,
    ROLE_PERMISSIONS,
    ApprovalState,
    Permission,
    Role,
)
from governance.models import Approval, Decision, JournalRecord, Membership
from lineage.domain import Actor, ActorKind


class AccessError(Exception):
    """The request may not proceed; the text is fit for the person who asked."""


class NotVisible(AccessError):
    """Missing or forbidden: the two look the same."""


class NotAllowed(AccessError):
    """The object is visible but this person may not do that to it."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A person (or a person's token) and what they may do, by namespace."""

    actor: Actor
    username: str
    permissions: Mapping[str, frozenset[Permission]]

    def may(self, permission: Permission, *, namespace: str) -> bool:
        return permission in self.permissions.get(
            namespace, frozenset()
        ) or permission in self.permissions.get(EVERY_NAMESPACE, frozenset())

    def namespaces(self, permission: Permission) -> frozenset[str] | None:
        """Namespaces in which the permission holds; None means all of them."""
        if permission in self.permissions.get(EVERY_NAMESPACE, frozenset()):
            return None
        return frozenset(name for name, held in self.permissions.items() if permission in held)

    def require(self, permission: Permission, *, namespace: str) -> None:
        """Raise NotAllowed, naming the role that is missing and where."""
        if not self.may(permission, namespace=namespace):
            roles = " or ".join(r for r in Role if permission in ROLE_PERMISSIONS[r])
            raise NotAllowed(
                f"This needs the role {roles} in namespace {namespace}; ask an administrator."
            )


def principal_of(user: User | AbstractBaseUser) -> Principal:
    """The principal of a signed-in person. Superusers are administrators everywhere."""
    held: dict[str, set[Permission]] = {}
    for namespace, role in Membership.objects.filter(user_id=user.pk).values_list(
        "namespace", "role"
    ):
        held.setdefault(namespace, set()).update(ROLE_PERMISSIONS[Role(role)])
    if getattr(user, "is_superuser", False):
        held.setdefault(EVERY_NAMESPACE, set()).update(Permission)
    username = user.get_username()
    return Principal(
        actor=Actor(ActorKind.HUMAN, username),
        username=username,
        permissions={name: frozenset(some) for name, some in held.items()},
    )


def narrowed(principal: Principal, *, permissions: Iterable[str], namespace: str) -> Principal:
    """The principal as one of its tokens sees it: never more than either allows."""
    allowed = frozenset(Permission(word) for word in permissions)
    spaces = principal.permissions
    if namespace != EVERY_NAMESPACE:
        both = spaces.get(namespace, frozenset()) | spaces.get(EVERY_NAMESPACE, frozenset())
        spaces = {namespace: both}
    return Principal(
        actor=principal.actor,
        username=principal.username,
        permissions={name: held & allowed for name, held in spaces.items()},
    )


def within(principal: Principal, permission: Permission) -> Q:
    """A filter on `namespace` for everything the principal may see."""
    spaces = principal.namespaces(permission)
    return Q() if spaces is None else Q(namespace__in=spaces)


RowT = TypeVar("RowT", bound=Model)


def narrowed_by(rows: QuerySet[RowT], **filters: object) -> QuerySet[RowT]:
    """Rows whose columns equal the filters that were given; an empty one asks for nothing."""
    return rows.filter(**{name: value for name, value in filters.items() if value})


def visible_approvals(principal: Principal) -> QuerySet[Approval]:
    return Approval.objects.filter(within(principal, Permission.VIEW))


def visible_decisions(principal: Principal) -> QuerySet[Decision]:
    return Decision.objects.filter(within(principal, Permission.VIEW))


def visible_records(principal: Principal) -> QuerySet[JournalRecord]:
    return JournalRecord.objects.filter(within(principal, Permission.VIEW))


def get_visible_approval(principal: Principal, uid: UUID) -> Approval:
    """Raises NotVisible."""
    approval = visible_approvals(principal).filter(pk=uid).first()
    if approval is None:
        raise NotVisible(f"There is no approval {uid} that you may see.")
    return approval


def may_decide(principal: Principal, approval: Approval) -> str:
    """Why this person may not decide this approval, or "" when they may."""
    if approval.state != ApprovalState.PENDING:
        return f"This approval is {approval.state}."
    if not principal.may(Permission.APPROVE, namespace=approval.namespace):
        return f"Deciding needs the role approver in namespace {approval.namespace}."
    if principal.username in approval.barred:
        return "You asked for, sponsor or changed this Goal: somebody else must decide (four eyes)."
    return ""
