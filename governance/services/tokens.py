"""API tokens of people: shown once, kept as a hash, never more than their owner may do."""

import datetime as dt
import hashlib
import secrets
from collections.abc import Sequence
from uuid import UUID

from django.contrib.auth.models import User
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from governance.access import NotVisible, Principal, narrowed, principal_of
from governance.domain import EVERY_NAMESPACE, GovernanceError, Permission
from governance.models import ApiToken
from governance.services.journal import append_record, journaled

TOKEN_PREFIX = "clearance_pat_"  # noqa: S105 - lets secret scanners recognise a leak
TOKEN_BYTES = 32
LAST_USED_STEP = dt.timedelta(minutes=1)  # how exact `last_used_at` is


class TokenInvalid(GovernanceError):
    """A token cannot be made like that."""


def create_token(
    user: User,
    *,
    principal: Principal,
    name: str,
    permissions: Sequence[str] = (),
    namespace: str = EVERY_NAMESPACE,
    life: dt.timedelta | None = None,
) -> tuple[ApiToken, str]:
    """A token of `user` and its text, which is shown this once.

    No permissions means all the owner has. Raises TokenInvalid for an unknown permission.
    """
    name = name.strip()
    if not 0 < len(name) <= 63:  # the column's
        raise TokenInvalid("name: between 1 and 63 characters.")
    wanted = list(permissions) or [permission.value for permission in Permission]
    unknown = sorted(set(wanted) - {permission.value for permission in Permission})
    if unknown:
        known = ", ".join(permission.value for permission in Permission)
        raise TokenInvalid(f"permissions: {unknown[0]!r} is not one of {known}.")
    text = TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    with journaled():
        token = ApiToken.objects.create(
            user=user,
            name=name,
            token_hash=_hash(text),
            permissions=wanted,
            namespace=namespace,
            expires_at=timezone.now() + life if life else None,
        )
        _journal(token, "token.created", principal)
    return token, text


def authenticate_token(text: str) -> Principal | None:
    """The principal of a token's text, or None when it is unknown, expired or revoked."""
    if not text.startswith(TOKEN_PREFIX) or len(text) > 200:
        return None
    alive = Q(expires_at__isnull=True) | Q(expires_at__gt=Now())
    token = (
        ApiToken.objects.select_related("user")
        .filter(alive, token_hash=_hash(text), revoked_at__isnull=True, user__is_active=True)
        .first()
    )
    if token is None:
        return None
    now = timezone.now()
    if token.last_used_at is None or now - token.last_used_at > LAST_USED_STEP:
        ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)
    return narrowed(
        principal_of(token.user), permissions=token.permissions, namespace=token.namespace
    )


def revoke_token(uid: UUID, *, principal: Principal) -> None:
    """End a token at once; its owner or an administrator may. Raises NotVisible."""
    token = ApiToken.objects.select_related("user").filter(pk=uid).first()
    is_owner = token is not None and token.user.get_username() == principal.username
    if token is None or not (
        is_owner or principal.may(Permission.ADMINISTER, namespace=EVERY_NAMESPACE)
    ):
        raise NotVisible(f"There is no token {uid} that you may revoke.")
    with journaled():
        changed = ApiToken.objects.filter(pk=uid, revoked_at__isnull=True).update(
            revoked_at=timezone.now()
        )
        if changed:
            _journal(token, "token.revoked", principal)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _journal(token: ApiToken, action: str, principal: Principal) -> None:
    append_record(
        action=action,
        actor=principal.actor,
        object_kind="token",
        object_id=str(token.uid),
        namespace=token.namespace,
        body={"name": token.name, "permissions": token.permissions},
    )
