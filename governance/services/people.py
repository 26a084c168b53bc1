"""People: who may sign in and what they may do; one-time passwords, roles, ends of access."""

import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.utils import timezone

from governance.access import NotAllowed, NotVisible, Principal, principal_of
from governance.domain import EVERY_NAMESPACE, GovernanceError, Permission, Role
from governance.models import ApiToken, Credential, Membership
from governance.services.journal import append_record, journaled
from governance.services.sessions import end_all_sessions

PASSWORD_BYTES: Final = 12  # 96 bits, 16 characters to type once
ROLES_MAX: Final = 200  # of one person
ROLE_WORDS: Final = {
    Role.VIEWER: "looks at everything of the namespace",
    Role.OPERATOR: "makes, steers and ends Goals, releases and rolls back",
    Role.APPROVER: "decides approvals, signs policies into force",
    Role.POLICY_AUTHOR: "writes, tests and saves policies",
    Role.AUDITOR: "looks at everything and verifies it",
    Role.ADMIN: "does all of it; everywhere also people and prices",
}
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")


class PeopleInvalid(GovernanceError):
    """A person cannot be made or changed like that; the text names the field."""


class PeopleConflict(GovernanceError):
    """The name is taken."""


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """A role in a namespace; `*` is every namespace."""

    namespace: str
    role: Role

    def __str__(self) -> str:
        return f"{self.namespace}:{self.role.value}"

    @property
    def word(self) -> str:
        """The role as people say it."""
        return self.role.value.replace("_", " ")

    @property
    def meaning(self) -> str:
        """What the role may do."""
        return ROLE_WORDS[self.role]


def parse_grant(text: str) -> Grant:
    """`NAMESPACE:ROLE` as a grant. Raises PeopleInvalid naming what is wrong."""
    namespace, colon, word = text.strip().partition(":")
    if not colon:
        raise PeopleInvalid(f"roles: {text!r} is not NAMESPACE:ROLE, such as default:operator.")
    if namespace != EVERY_NAMESPACE and not _NAMESPACE.fullmatch(namespace):
        raise PeopleInvalid(f"roles: {namespace!r} is no namespace; write a name, or * for all.")
    if word not in {role.value for role in Role}:
        known = ", ".join(role.value for role in Role)
        raise PeopleInvalid(f"roles: {word!r} is not one of {known}.")
    return Grant(namespace, Role(word))


def grants_of(user: User) -> frozenset[Grant]:
    """The roles a person has; a superuser is an administrator of every namespace."""
    rows = Membership.objects.filter(user=user).values_list("namespace", "role")
    held = {Grant(namespace, Role(role)) for namespace, role in rows}
    return frozenset(held | ({_EVERYTHING} if user.is_superuser else set()))


_EVERYTHING: Final = Grant(EVERY_NAMESPACE, Role.ADMIN)


def require_people_admin(principal: Principal) -> None:
    """Raise NotAllowed unless this person may change people."""
    principal.require(Permission.ADMINISTER, namespace=EVERY_NAMESPACE)


def get_person(principal: Principal, username: str) -> User:
    """A person, for an administrator. Raises NotAllowed, NotVisible."""
    require_people_admin(principal)
    user = User.objects.filter(username=username).first()
    if user is None:
        raise NotVisible(f"There is no person {username!r}.")
    return user


def add_person(
    username: str, *, grants: Collection[Grant], by: Principal, full_name: str = ""
) -> tuple[User, str]:
    """A person and their one-time password, which is shown this once and must be changed.

    Raises NotAllowed, PeopleInvalid, PeopleConflict.
    """
    if not _NAME.fullmatch(username):
        raise PeopleInvalid(
            "username: up to 63 of a-z, 0-9, '.', '_' and '-', beginning and ending with a "
            "letter or digit."
        )
    if len(grants) > ROLES_MAX:
        raise PeopleInvalid(f"roles: at most {ROLES_MAX}.")
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    try:
        with journaled():
            _require_still_admin(by)
            user = User.objects.create_user(
                username=username, password=password, first_name=full_name[:150]
            )
            Credential.objects.create(user=user, must_change=True)
            _write_grants(user, frozenset(grants))
            _journal("person.added", user, by, {"roles": sorted(str(one) for one in grants)})
    except IntegrityError as error:
        raise PeopleConflict(f"username: there is a person {username!r} already.") from error
    return user, password


def change_roles(
    user: User,
    *,
    give: Collection[Grant] = (),
    take: Collection[Grant] = (),
    by: Principal,
) -> bool:
    """Take roles from a person, then give others; counts from the commit. False for no change.

    Nobody changes their own, so the last administrator stays: only another one could remove them.
    Raises NotAllowed, PeopleInvalid.
    """
    with journaled():
        _require_still_admin(by)
        _refuse_self(user, by, "change your own roles")
        user.refresh_from_db(fields=["is_superuser"])
        held = grants_of(user)
        wanted = (held - frozenset(take)) | frozenset(give)
        if held == wanted:
            return False
        if len(wanted) > ROLES_MAX:
            raise PeopleInvalid(f"roles: at most {ROLES_MAX}.")
        _write_grants(user, wanted)
        body = {
            "added": sorted(str(one) for one in wanted - held),
            "removed": sorted(str(one) for one in held - wanted),
        }
        _journal("person.roles_changed", user, by, body)
    return True


def deactivate_person(user: User, *, by: Principal) -> bool:
    """End a person's access at once: sessions, tokens, sign-in. False when it had ended.

    Nobody deactivates themselves. Raises NotAllowed.
    """
    with journaled():
        _require_still_admin(by)
        _refuse_self(user, by, "deactivate yourself")
        if User.objects.filter(pk=user.pk, is_active=True).update(is_active=False) != 1:
            return False
        ended = end_all_sessions(user)
        revoked = ApiToken.objects.filter(user=user, revoked_at__isnull=True).update(
            revoked_at=timezone.now()
        )
        body = {"sessions_ended": ended, "tokens_revoked": revoked}
        _journal("person.deactivated", user, by, body)
    user.is_active = False
    return True


def activate_person(user: User, *, by: Principal) -> bool:
    """Let a person sign in again, with the roles they had. False when they could already."""
    with journaled():
        _require_still_admin(by)
        if User.objects.filter(pk=user.pk, is_active=False).update(is_active=True) != 1:
            return False
        _journal("person.activated", user, by, {})
    user.is_active = True
    return True


def reset_password(user: User, *, by: Principal) -> str:
    """A new one-time password; the old one and every session with it end. Raises NotAllowed."""
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    with journaled():
        _require_still_admin(by)
        _refuse_self(user, by, "reset your own password here: change it on your profile")
        user.set_password(password)
        User.objects.filter(pk=user.pk).update(password=user.password)
        _must_change(user, is_due=True)
        ended = end_all_sessions(user)
        _journal("person.password_reset", user, by, {"sessions_ended": ended})
    return password


def change_own_password(user: User, *, old: str, new: str) -> None:
    """A person's own new password. Raises PeopleInvalid naming the field."""
    if not user.check_password(old):
        raise PeopleInvalid("old: this is not your password.")
    if old == new:
        raise PeopleInvalid("new: choose another one than the old.")
    try:
        validate_password(new, user)
    except ValidationError as error:
        raise PeopleInvalid(f"new: {' '.join(error.messages)}") from error
    with journaled():
        user.set_password(new)
        User.objects.filter(pk=user.pk).update(password=user.password)
        _must_change(user, is_due=False)
        append_record(
            action="person.password_changed",
            actor=principal_of(user).actor,
            object_kind="person",
            object_id=user.get_username(),
            namespace=EVERY_NAMESPACE,
        )


def _must_change(user: User, *, is_due: bool) -> None:
    Credential.objects.update_or_create(
        user=user, defaults={"must_change": is_due, "changed_at": timezone.now()}
    )


def _write_grants(user: User, wanted: frozenset[Grant]) -> None:
    """Rows of exactly these grants; being a superuser is one of them and nothing beside them."""
    Membership.objects.filter(user=user).delete()
    Membership.objects.bulk_create(
        Membership(user=user, namespace=grant.namespace, role=grant.role)
        for grant in sorted(wanted)
    )
    if user.is_superuser and _EVERYTHING not in wanted:
        User.objects.filter(pk=user.pk).update(is_superuser=False, is_staff=False)
        user.is_superuser = False


def _require_still_admin(by: Principal) -> None:
    """Asked again under the journal's lock: two administrators may remove each other at once."""
    require_people_admin(by)
    actor = User.objects.filter(username=by.username, is_active=True).first()
    if actor is None:
        raise NotAllowed("Your account is not active any more.")
    require_people_admin(principal_of(actor))


def _refuse_self(user: User, by: Principal, what: str) -> None:
    if user.get_username() == by.username:
        raise NotAllowed(f"You cannot {what}; another administrator can.")


def _journal(action: str, user: User, by: Principal, body: Mapping[str, object]) -> None:
    append_record(
        action=action,
        actor=by.actor,
        object_kind="person",
        object_id=user.get_username(),
        namespace=EVERY_NAMESPACE,
        body=body,
    )
