"""Delegation: an approver lends the right to approve to another person until an end date."""

import datetime as dt
from typing import Final
from uuid import UUID

from django.contrib.auth.models import User
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from governance.access import (
    NotVisible,
    Principal,
    delegations_in_force,
    principal_of,
    within,
)
from governance.domain import EVERY_NAMESPACE, ApprovalInvalid, Permission
from governance.models import Delegation
from governance.services.approvals import checked_reason
from governance.services.journal import append_record, journaled

DELEGATION_MAX: Final = dt.timedelta(days=30)  # a longer absence is a change of roles
DELEGATION_LEAST: Final = dt.timedelta(minutes=5)
HELD_MAX: Final = 100  # in force at once, given by one person
__all__ = [
    "delegate_approvals",
    "revoke_delegation",
    "visible_delegations",
    "who_may_receive",
]


def visible_delegations(principal: Principal) -> QuerySet[Delegation]:
    """One's own, given and received, and those of the namespaces one may see."""
    mine = Q(delegator__username=principal.username) | Q(delegate__username=principal.username)
    found = Delegation.objects.select_related("delegator", "delegate")
    if principal.namespaces(Permission.VIEW) is None:
        return found
    return found.filter(mine | within(principal, Permission.VIEW))


def who_may_receive(principal: Principal, *, namespace: str) -> list[str]:
    """People that may see the namespace and so can be lent the right there."""
    sees = Q(memberships__namespace__in=(namespace, EVERY_NAMESPACE)) | Q(is_superuser=True)
    people = User.objects.filter(sees, is_active=True).exclude(username=principal.username)
    return list(people.order_by("username").values_list("username", flat=True).distinct()[:200])


def delegate_approvals(
    principal: Principal, *, to: str, namespace: str, ends_at: dt.datetime, reason: str
) -> Delegation:
    """Lend one's own right to approve in `namespace` to `to` until `ends_at` (at most 30 days).

    A right that was itself lent cannot be lent on, and neither of the two may decide what four
    eyes keep from either. The same again while it is in force is the same delegation. Raises
    NotAllowed, ApprovalInvalid.
    """
    principal.require(Permission.APPROVE, namespace=namespace)
    reason = checked_reason(reason)
    now = timezone.now()
    if ends_at.tzinfo is None or not now + DELEGATION_LEAST <= ends_at <= now + DELEGATION_MAX:
        raise ApprovalInvalid(
            f"until: from {DELEGATION_LEAST.seconds // 60} minutes to {DELEGATION_MAX.days} days "
            "from now, with its zone."
        )
    delegate = _recipient(principal, to, namespace)
    delegator = User.objects.get(username=principal.username)
    with journaled():
        mine = delegations_in_force().filter(delegator=delegator)
        same = mine.filter(delegate=delegate, namespace=namespace, ends_at=ends_at).first()
        if same is not None:
            return same
        if mine.count() >= HELD_MAX:
            raise ApprovalInvalid(f"to: {HELD_MAX} delegations of yours are in force: revoke some.")
        delegation = Delegation.objects.create(
            delegator=delegator,
            delegate=delegate,
            namespace=namespace,
            reason=reason,
            created_at=now,
            ends_at=ends_at,
        )
        _journal(delegation, "delegation.given", principal)
    return delegation


def _recipient(principal: Principal, name: str, namespace: str) -> User:
    person = User.objects.filter(username=name, is_active=True).first()
    if person is None or person.username == principal.username:
        raise ApprovalInvalid("to: name another person who has an account here.")
    if not principal_of(person).may(Permission.VIEW, namespace=namespace):
        whom = principal.whom_to_ask(Permission.ADMINISTER, namespace=namespace)
        raise ApprovalInvalid(
            f"to: {name} may not see namespace {namespace}; for a role there, {whom}"
        )
    return person


def revoke_delegation(principal: Principal, uid: UUID) -> Delegation:
    """Take a lent right back at once; whoever lent it, received it, or administers there may.

    Revoking it again changes nothing. Raises NotVisible, NotAllowed.
    """
    delegation = visible_delegations(principal).filter(pk=uid).first()
    if delegation is None:
        raise NotVisible(f"There is no delegation {uid} that you may see.")
    if principal.username not in (delegation.delegator.username, delegation.delegate.username):
        principal.require(Permission.ADMINISTER, namespace=delegation.namespace)
    with journaled():
        open_one = Delegation.objects.filter(pk=uid, revoked_at__isnull=True, ends_at__gt=Now())
        if open_one.update(revoked_at=timezone.now(), revoked_by=principal.username) == 1:
            delegation.refresh_from_db()
            _journal(delegation, "delegation.revoked", principal)
    return delegation


def _journal(delegation: Delegation, action: str, principal: Principal) -> None:
    append_record(
        action=action,
        actor=principal.actor,
        object_kind="delegation",
        object_id=str(delegation.uid),
        namespace="" if delegation.namespace == EVERY_NAMESPACE else delegation.namespace,
        body={
            "from": delegation.delegator.username,
            "to": delegation.delegate.username,
            "namespace": delegation.namespace,
            "until": delegation.ends_at.isoformat(),
            "reason": delegation.reason,
        },
    )
