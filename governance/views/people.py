"""Pages of people: who may do what, for administrators."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers

from governance.access import NotAllowed, Principal, visible_records
from governance.domain import GovernanceError, Permission
from governance.export import table_export
from governance.people_forms import GrantForm, PersonForm
from governance.people_selectors import Person, people, person_rows
from governance.services.people import (
    ROLE_WORDS,
    PeopleConflict,
    activate_person,
    add_person,
    change_roles,
    deactivate_person,
    get_person,
    require_people_admin,
    reset_password,
)
from governance.services.sessions import end_other_sessions, sessions_of
from governance.sessions import session_principal

PAGE_SIZE = 50
HISTORY = 20
COLUMNS = {
    "username": "username",
    "full_name": "first_name",
    "is_active": "is_active",
    "last_sign_in_at": "last_login",
    "created_at": "date_joined",
}


@never_cache
@require_http_methods(["GET", "POST"])
@vary_on_headers("HX-Request")
def people_list(request: HttpRequest) -> HttpResponse:
    """Everybody who may sign in, with their roles; adds somebody. For administrators."""
    require_people_admin(session_principal(request))
    if request.method == "POST":
        return _add(request)
    found = people(request.GET.get("q", "").strip())
    if export := table_export(request, name="people", columns=COLUMNS, rows=found):
        return export
    return _list(request, PersonForm())


def _add(request: HttpRequest) -> HttpResponse:
    """Add somebody; the one-time password is in this one answer and nowhere else."""
    principal = session_principal(request)
    form = PersonForm(request.POST)
    if not form.is_valid():
        return _list(request, form, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    wanted = form.cleaned_data
    try:
        user, password = add_person(
            wanted["username"],
            grants=[wanted["grant"]],
            by=principal,
            full_name=wanted["full_name"],
        )
    except GovernanceError as error:
        field, _, text = str(error).partition(": ")
        form.add_error(field if field in form.fields else None, text or str(error))
        is_conflict = isinstance(error, PeopleConflict)
        status = HTTPStatus.CONFLICT if is_conflict else HTTPStatus.UNPROCESSABLE_ENTITY
        return _list(request, form, status=status)
    return _person_page(request, user, password=password, status=HTTPStatus.CREATED)


@require_GET
def person_detail(request: HttpRequest, username: str) -> HttpResponse:
    """One person: roles, sessions, tokens, history; for administrators."""
    return _person_page(request, get_person(session_principal(request), username))


@require_POST
def person_roles(request: HttpRequest, username: str) -> HttpResponse:
    """Give a role or take it; it counts at once, on open pages too."""
    principal = session_principal(request)
    user = get_person(principal, username)
    form = GrantForm(request.POST)
    if not form.is_valid():
        return _person_page(request, user, form=form, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    grant = form.cleaned_data["grant"]
    is_taken = request.POST.get("do") == "take"
    change = {"take" if is_taken else "give": [grant]}
    said = f"{username} has the role {grant.role.value} in {grant.namespace}"
    return _changed(
        request,
        user,
        lambda: change_roles(user, by=principal, **change),
        f"{said} no more." if is_taken else f"{said} now.",
    )


@require_POST
def person_deactivate(request: HttpRequest, username: str) -> HttpResponse:
    """End a person's access at once."""
    principal = session_principal(request)
    user = get_person(principal, username)
    said = f"{username} is signed out everywhere and may not sign in."
    return _changed(request, user, lambda: deactivate_person(user, by=principal), said)


@require_POST
def person_activate(request: HttpRequest, username: str) -> HttpResponse:
    """Let a person sign in again."""
    principal = session_principal(request)
    user = get_person(principal, username)
    said = f"{username} may sign in again, with the roles below."
    return _changed(request, user, lambda: activate_person(user, by=principal), said)


@never_cache
@require_POST
def person_reset(request: HttpRequest, username: str) -> HttpResponse:
    """A new one-time password, shown in this one answer."""
    principal = session_principal(request)
    user = get_person(principal, username)
    password = reset_password(user, by=principal)
    return _person_page(request, user, password=password)


@require_POST
def person_sign_out(request: HttpRequest, username: str) -> HttpResponse:
    """End every session of a person."""
    principal = session_principal(request)
    user = get_person(principal, username)
    keep = request.session.session_key or "" if username == principal.username else ""
    ended = end_other_sessions(user, keep=keep, by=principal)
    messages.success(request, f"{ended} sessions of {username} are ended.")
    return redirect("person_detail", username)


def _changed(
    request: HttpRequest, user: User, change: Callable[[], bool], said: str
) -> HttpResponse:
    try:
        is_news = change()
    except NotAllowed as error:
        return _person_page(request, user, refused=str(error), status=HTTPStatus.FORBIDDEN)
    except GovernanceError as error:
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        return _person_page(request, user, refused=str(error), status=status)
    messages.success(request, said if is_news else "Nothing changed: it was so already.")
    return redirect("person_detail", user.get_username())


def _list(
    request: HttpRequest, form: PersonForm, *, status: HTTPStatus = HTTPStatus.OK
) -> HttpResponse:
    text = request.GET.get("q", "").strip()
    page = Paginator(people(text), PAGE_SIZE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "rows": person_rows(list(page.object_list)),
        "form": form,
        "roles": ROLE_WORDS,
        "text": text,
        "nav": "people",
    }
    part = "#live" if request.headers.get("HX-Request") and status == HTTPStatus.OK else ""
    return render(request, f"governance/people_list.html{part}", context, status=status)


def _person_page(
    request: HttpRequest,
    user: User,
    *,
    form: GrantForm | None = None,
    password: str = "",
    refused: str = "",
    status: HTTPStatus = HTTPStatus.OK,
) -> HttpResponse:
    principal = session_principal(request)
    fresh = people().get(pk=user.pk)
    row: Person = person_rows([fresh])[0]
    is_self = fresh.get_username() == principal.username
    history = visible_records(principal).filter(
        object_kind="person", object_id=fresh.get_username()
    )
    context: dict[str, Any] = {
        "person": fresh,
        "row": row,
        "sessions": sessions_of(fresh),
        "this_session": request.session.session_key,
        "tokens": fresh.api_tokens.filter(revoked_at__isnull=True)[:PAGE_SIZE],
        "history": history.order_by("-seq").defer("canonical")[:HISTORY],
        "form": form or GrantForm(),
        "roles": ROLE_WORDS,
        "password": password,
        "refused": refused,
        "why_not": _why_not_oneself(principal) if is_self else "",
        "nav": "people",
    }
    return render(request, "governance/person_detail.html", context, status=status)


def _why_not_oneself(principal: Principal) -> str:
    whom = principal.whom_to_ask(Permission.ADMINISTER)
    return f"This is you: another administrator can do it; {whom}"
