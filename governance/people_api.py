"""API of people: who there is, their roles, ends of access, and one's own sessions."""

import datetime as dt
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.http import HttpRequest
from ninja import Router, Schema, Status
from pydantic import Field

from governance.access import NotAllowed, Principal
from governance.people_selectors import people, person_documents
from governance.services.people import (
    ROLES_MAX,
    Grant,
    activate_person,
    add_person,
    change_roles,
    deactivate_person,
    get_person,
    parse_grant,
    require_people_admin,
    reset_password,
)
from governance.services.sessions import end_session, sessions_of

people_router = Router(tags=["people"])
LIST_MAX = 500


class PersonOut(Schema):
    """A person; `roles` are written NAMESPACE:ROLE, the namespace * is all of them."""

    username: str
    full_name: str
    is_active: bool
    must_change_password: bool
    roles: list[str]
    last_sign_in_at: dt.datetime | None
    created_at: dt.datetime
    sessions: int
    tokens: int


class NewPersonOut(PersonOut):
    """A person with their one-time password, shown this once."""

    password: str


class PersonIn(Schema):
    """Somebody to add; `roles` are written NAMESPACE:ROLE."""

    username: str = Field(max_length=63)
    full_name: str = Field("", max_length=150)
    roles: list[str] = Field(default_factory=list, max_length=ROLES_MAX)


class RolesIn(Schema):
    """Roles to give and to take, each written NAMESPACE:ROLE; taken first."""

    give: list[str] = Field(default_factory=list, max_length=ROLES_MAX)
    take: list[str] = Field(default_factory=list, max_length=ROLES_MAX)


class SessionOut(Schema):
    """Where somebody is signed in."""

    uid: UUID
    device: str
    address: str | None
    created_at: dt.datetime
    last_seen_at: dt.datetime


def _person(request: HttpRequest) -> Principal:
    """The person who asks. Raises NotAllowed for agents."""
    principal: Principal | None = getattr(request.auth, "principal", None)  # type: ignore[attr-defined]
    if principal is None:
        raise NotAllowed("An agent may not do this; it is for people.")
    return principal


def _document(user: User) -> dict[str, Any]:
    """The person as they are after a change."""
    return person_documents([people().get(pk=user.pk)])[0]


@people_router.get("/users", response=list[PersonOut])
def list_users(request: HttpRequest, name: str = "") -> list[dict[str, Any]]:
    """People by name, at most 500; for administrators."""
    require_people_admin(_person(request))
    return person_documents(list(people(name)[:LIST_MAX]))


@people_router.post("/users", response={201: NewPersonOut})
def add_user(request: HttpRequest, payload: PersonIn) -> Status[dict[str, Any]]:
    """Add a person; the password in the answer is shown this once and must be changed."""
    principal = _person(request)
    require_people_admin(principal)
    user, password = add_person(
        payload.username, grants=_grants(payload.roles), by=principal, full_name=payload.full_name
    )
    return Status(201, {**_document(user), "password": password})


@people_router.get("/users/{username}", response=PersonOut)
def get_user(request: HttpRequest, username: str) -> dict[str, Any]:
    """One person."""
    return _document(get_person(_person(request), username))


@people_router.post("/users/{username}/roles", response=PersonOut)
def change_user_roles(request: HttpRequest, username: str, payload: RolesIn) -> dict[str, Any]:
    """Give and take roles; both or neither, and at once."""
    principal = _person(request)
    user = get_person(principal, username)
    change_roles(user, give=_grants(payload.give), take=_grants(payload.take), by=principal)
    return _document(user)


def _grants(texts: list[str]) -> set[Grant]:
    """Raises PeopleInvalid."""
    return {parse_grant(text) for text in texts}


@people_router.post("/users/{username}/deactivate", response=PersonOut)
def deactivate_user(request: HttpRequest, username: str) -> dict[str, Any]:
    """End a person's access at once."""
    principal = _person(request)
    user = get_person(principal, username)
    deactivate_person(user, by=principal)
    return _document(user)


@people_router.post("/users/{username}/activate", response=PersonOut)
def activate_user(request: HttpRequest, username: str) -> dict[str, Any]:
    """Let a person sign in again."""
    principal = _person(request)
    user = get_person(principal, username)
    activate_person(user, by=principal)
    return _document(user)


@people_router.post("/users/{username}/reset-password", response=NewPersonOut)
def reset_user_password(request: HttpRequest, username: str) -> dict[str, Any]:
    """A new one-time password; every session of the person ends."""
    principal = _person(request)
    user = get_person(principal, username)
    password = reset_password(user, by=principal)
    return {**_document(user), "password": password}


@people_router.get("/users/{username}/sessions", response=list[SessionOut])
def list_user_sessions(request: HttpRequest, username: str) -> list[Any]:
    """The living sessions of a person, for an administrator."""
    return sessions_of(get_person(_person(request), username))


@people_router.get("/sessions", response=list[SessionOut])
def list_sessions(request: HttpRequest) -> list[Any]:
    """Your own living sessions."""
    return sessions_of(User.objects.get(username=_person(request).username))


@people_router.delete("/sessions/{uid}", response={204: None})
def delete_session(request: HttpRequest, uid: UUID) -> Status[None]:
    """End a session of yours, or anybody's as an administrator."""
    end_session(uid, by=_person(request))
    return Status(204, None)
