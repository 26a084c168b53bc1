"""Who is asking and what they may do: the only way from a request to a governed object."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from uuid import UUID

from django.contrib.auth.models import AbstractBaseUser, User
from django.db.models import Exists, Model, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from governance.domain import (
    EVERY_NAMESPACE,
    ROLE_PERMISSIONS,
    ApprovalState,
    Permission,
    Role,
)
from governance.models import Approval, Credential, Decision, Delegation, JournalRecord, Membership
from lineage.domain import Actor, ActorKind

FOUR_EYES_REFUSAL = (
    "You asked for, sponsor or changed this Goal: somebody else must decide (four eyes)."
)


WHOM_MAX: Final = 3  # names in one sentence


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
    # Rights lent to this person count in that namespace alone; "" is none of them.
    lent_in: str = EVERY_NAMESPACE
    _lent: dict[str, frozenset[str]] = field(default_factory=dict, compare=False, repr=False)
    _whom: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def lenders(self, *, namespace: str) -> frozenset[str]:
        """Approvers who have lent this person their right there, looked up once."""
        if self.lent_in not in (EVERY_NAMESPACE, namespace):
            return frozenset()
        if not self._lent:
            self._lent.update(_lent_to(self.username))
        return self._lent.get(namespace, frozenset()) | self._lent[EVERY_NAMESPACE]

    def may(self, permission: Permission, *, namespace: str) -> bool:
        return permission in self.permissions.get(
            namespace, frozenset()
        ) or permission in self.permissions.get(EVERY_NAMESPACE, frozenset())

    def namespaces(self, permission: Permission) -> frozenset[str] | None:
        """Namespaces in which the permission holds; None means all of them."""
        if permission in self.permissions.get(EVERY_NAMESPACE, frozenset()):
            return None
        return frozenset(name for name, held in self.permissions.items() if permission in held)

    def whom_to_ask(self, permission: Permission, *, namespace: str = EVERY_NAMESPACE) -> str:
        """Whom this person can ask for something, as `ask_whom` says it; looked up once.

        Who works in a namespace is told to those who may look into it. Anybody else who is signed
        in learns of those who administer everything alone, which tells nothing of what there is.
        """
        is_insider = self.may(Permission.VIEW, namespace=namespace) or (
            namespace == EVERY_NAMESPACE and bool(self.permissions)
        )
        if not is_insider:
            permission, namespace = Permission.ADMINISTER, EVERY_NAMESPACE
        key = f"{permission} {namespace}"
        if key not in self._whom:
            self._whom[key] = ask_whom(permission, namespace=namespace, but=self.username)
        return self._whom[key]

    def require(self, permission: Permission, *, namespace: str) -> None:
        """Raise NotAllowed, naming the role that is missing and where."""
        if not self.may(permission, namespace=namespace):
            roles = " or ".join(r for r in Role if permission in ROLE_PERMISSIONS[r])
            whom = self.whom_to_ask(permission, namespace=namespace)
            where = "every namespace" if namespace == EVERY_NAMESPACE else f"namespace {namespace}"
            raise NotAllowed(f"This needs the role {roles} in {where}; {whom}")


def who_may(permission: Permission, *, namespace: str, limit: int = WHOM_MAX) -> list[str]:
    """Names of active people who may do that there, those of the namespace itself first."""
    roles = [role for role in Role if permission in ROLE_PERMISSIONS[role]]
    spaces = [namespace, EVERY_NAMESPACE]
    held = Membership.objects.filter(
        role__in=roles, namespace__in=spaces, user__is_active=True
    ).order_by("-namespace", "user__username")
    names = list(held.values_list("user__username", flat=True)[: limit * len(Role)])
    if len(names) < limit:
        supers = User.objects.filter(is_superuser=True, is_active=True).order_by("username")
        names += supers.values_list("username", flat=True)[:limit]
    return list(dict.fromkeys(names))[:limit]


def ask_whom(permission: Permission, *, namespace: str, but: str = "") -> str:
    """Whom to ask for something, as the end of a sentence: "ask ada, bob or carol.".

    `but` is who asks, for a person cannot give themselves a role.
    """
    names = [name for name in who_may(permission, namespace=namespace) if name != but]
    if not names:
        return "ask an administrator."
    first, last = ", ".join(names[:-1]), names[-1]
    return f"ask {first} or {last}." if first else f"ask {last}."


def principal_of(user: User | AbstractBaseUser) -> Principal:
    """The principal of a signed-in person. Superusers are administrators everywhere.

    Whoever signed in with a one-time password may do nothing until they have changed it.
    """
    return principals_of([user])[user.pk]


def principals_of(users: Sequence[User | AbstractBaseUser]) -> dict[Any, Principal]:
    """The principals of many people by their key, in two queries at most."""
    held: dict[Any, dict[str, set[Permission]]] = {user.pk: {} for user in users}
    for pk, namespace, role in (
        Membership.objects.filter(user_id__in=list(held))
        .exclude(user__credential__must_change=True)
        .values_list("user_id", "namespace", "role")
    ):
        held[pk].setdefault(namespace, set()).update(ROLE_PERMISSIONS[Role(role)])
    supers = {user.pk for user in users if getattr(user, "is_superuser", False)}
    if supers:
        seen_by_others = Credential.objects.filter(user_id__in=supers, must_change=True)
        for pk in supers - set(seen_by_others.values_list("user_id", flat=True)):
            held[pk].setdefault(EVERY_NAMESPACE, set()).update(Permission)
    return {user.pk: _principal(user.get_username(), held[user.pk]) for user in users}


def _principal(username: str, held: Mapping[str, set[Permission]]) -> Principal:
    return Principal(
        actor=Actor(ActorKind.HUMAN, username),
        username=username,
        permissions={name: frozenset(some) for name, some in held.items()},
    )


def require_auditor(principal: Principal) -> None:
    """Raise NotAllowed unless the person is an auditor of some namespace."""
    if principal.namespaces(Permission.AUDIT) == frozenset():
        whom = principal.whom_to_ask(Permission.AUDIT)
        raise NotAllowed(f"Verifying the journal needs the role auditor; {whom}")


def must_change_password(user: User | AbstractBaseUser) -> bool:
    """Whether somebody else has seen the person's password."""
    return Credential.objects.filter(user_id=user.pk, must_change=True).exists()


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
        lent_in=namespace if Permission.APPROVE in allowed else "",
    )


def within(principal: Principal, permission: Permission) -> Q:
    """A filter on `namespace` for everything the principal may see."""
    spaces = principal.namespaces(permission)
    return Q() if spaces is None else Q(namespace__in=spaces)


APPROVING_ROLES = tuple(r for r in Role if Permission.APPROVE in ROLE_PERMISSIONS[r])


def delegations_in_force() -> QuerySet[Delegation]:
    """Delegations that count now, by the database's clock: who lent must still hold the right."""
    holds = Membership.objects.filter(
        Q(namespace=OuterRef("namespace")) | Q(namespace=EVERY_NAMESPACE),
        user_id=OuterRef("delegator_id"),
        role__in=APPROVING_ROLES,
    )
    return Delegation.objects.filter(
        Q(delegator__is_superuser=True) | Exists(holds),
        revoked_at__isnull=True,
        created_at__lte=Now(),
        ends_at__gt=Now(),
        delegator__is_active=True,
    )


def _lent_to(username: str) -> dict[str, frozenset[str]]:
    lent: dict[str, set[str]] = {EVERY_NAMESPACE: set()}
    held = delegations_in_force().filter(delegate__username=username)
    for namespace, lender in held.values_list("namespace", "delegator__username"):
        lent.setdefault(namespace, set()).add(lender)
    return {name: frozenset(lenders) for name, lenders in lent.items()}


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


@dataclass(frozen=True, slots=True)
class SigningRight:
    """Whose right a person would sign with; `why_not` says why with none, "" when they may."""

    right_of: str
    why_not: str = ""


def may_decide(principal: Principal, approval: Approval) -> str:
    """Why this person may not decide this approval, or "" when they may."""
    return signing_right(principal, approval).why_not


def signing_right(principal: Principal, approval: Approval) -> SigningRight:
    """The person's own right, else one that was lent to them; each right signs once."""
    if approval.state != ApprovalState.PENDING:
        return SigningRight("", f"This approval is {approval.state}.")
    barred, namespace = approval.barred, approval.namespace
    rights = _rights(principal, namespace)
    if not rights:
        return SigningRight("", _needs_approver(principal, namespace))
    if principal.username in barred:
        return SigningRight("", FOUR_EYES_REFUSAL)
    if all(name in barred for name in rights):
        return SigningRight(
            "", f"{' and '.join(rights)} lent you the right and may not decide this (four eyes)."
        )
    signed = {}
    if approval.quorum > 1:
        signed = {one.signer: one.right_of for one in approval.signatures.all()}
    if principal.username in signed:
        return SigningRight("", "You have approved this: it waits for somebody else as well.")
    for name in rights:
        if name not in barred and name not in signed.values():
            return SigningRight(name)
    return SigningRight("", "The right that was lent to you has been used for this approval.")


def _needs_approver(principal: Principal, namespace: str) -> str:
    whom = principal.whom_to_ask(Permission.APPROVE, namespace=namespace)
    return f"Deciding needs the role approver in namespace {namespace}; {whom}"


def _rights(principal: Principal, namespace: str) -> list[str]:
    if principal.may(Permission.APPROVE, namespace=namespace):
        return [principal.username]
    return sorted(principal.lenders(namespace=namespace))
