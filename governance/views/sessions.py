"""One's own page: roles, password, where one is signed in."""

from http import HTTPStatus
from uuid import UUID

from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_POST

from governance.access import ask_whom
from governance.domain import EVERY_NAMESPACE, Permission
from governance.models import PersonSession
from governance.people_forms import PasswordForm
from governance.people_selectors import people, person_rows
from governance.services.people import PeopleInvalid, change_own_password
from governance.services.sessions import (
    end_other_sessions,
    end_session,
    rename_session,
    sessions_of,
)
from governance.sessions import PASSWORD_DUE, is_password_due, session_principal


@require_GET
def profile(request: HttpRequest) -> HttpResponse:
    """Who one is here, what one may do, and where one is signed in."""
    return _page(request, PasswordForm())


@sensitive_post_parameters("old", "new", "again")
@never_cache
@require_POST
def profile_password(request: HttpRequest) -> HttpResponse:
    """A new password; sessions elsewhere end with the old one."""
    form = PasswordForm(request.POST)
    user = _self(request)
    if form.is_valid():
        try:
            change_own_password(user, old=form.cleaned_data["old"], new=form.cleaned_data["new"])
        except PeopleInvalid as error:
            field, _, text = str(error).partition(": ")
            form.add_error(field, text)
    if not form.is_valid():
        return _page(request, form, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    was_due = is_password_due(request)
    before = request.session.session_key or ""
    request.session.pop(PASSWORD_DUE, None)
    update_session_auth_hash(request, user)
    rename_session(before, request.session.session_key or "")
    messages.success(request, "Your password is changed. Sessions elsewhere have ended.")
    return redirect("tower" if was_due else "profile")


@require_POST
def session_end(request: HttpRequest, uid: UUID) -> HttpResponse:
    """End one session: one's own, or anybody's as an administrator."""
    row = PersonSession.objects.filter(pk=uid).select_related("user").first()
    end_session(uid, by=session_principal(request))
    messages.success(request, "The session is ended.")
    if row is not None and row.user_id != request.user.pk:
        return redirect("person_detail", row.user.get_username())
    return redirect("profile")


@require_POST
def sessions_end_others(request: HttpRequest) -> HttpResponse:
    """End every session of one's own but this one."""
    ended = end_other_sessions(
        _self(request),
        keep=request.session.session_key or "",
        by=session_principal(request),
    )
    messages.success(request, f"{ended} other sessions are ended.")
    return redirect("profile")


def _self(request: HttpRequest) -> User:
    return User.objects.get(username=request.user.get_username())


def _page(
    request: HttpRequest, form: PasswordForm, *, status: HTTPStatus = HTTPStatus.OK
) -> HttpResponse:
    session_principal(request)
    user = people().get(pk=_self(request).pk)
    is_due = is_password_due(request)
    context = {
        "person": user,
        "row": person_rows([user])[0],
        "sessions": sessions_of(user),
        "this_session": request.session.session_key,
        "form": form,
        "is_due": is_due,
        "ask_for_roles": ask_whom(
            Permission.ADMINISTER, namespace=EVERY_NAMESPACE, but=user.get_username()
        ),
        "nav": "profile",
        "tokens_url": reverse("token_list"),
    }
    return render(request, "governance/session_list.html", context, status=status)
