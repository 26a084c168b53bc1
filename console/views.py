"""Pages of the shell: sign in and out, preferences, the palette, health."""

from http import HTTPStatus

from django.contrib.auth import login, logout
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.forms import AuthenticationForm
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from console.context import pending_approvals
from console.incidents import BROKEN, broken_detail, name_incident
from console.middleware import refusal
from console.palette import actions_for, find_objects
from console.preferences import KEYS, THEME, Preference
from console.throttling import LoginThrottled, check_login_allowed, note_login
from governance.sessions import session_principal

USERNAME_MAX = 150  # the column's


@require_GET
def index(request: HttpRequest) -> HttpResponse:
    """The first page is the Tower."""
    return redirect("tower")


@sensitive_post_parameters("password")
@never_cache
@login_not_required
@require_http_methods(["GET", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    """Name and password; a wrong pair says the same whichever of the two was wrong."""
    target = _next(request)
    if request.user.is_authenticated:
        return redirect(target)
    if request.method == "GET":
        return render(request, "console/login.html", {"form": AuthenticationForm(), "next": target})
    username = request.POST.get("username", "")[:USERNAME_MAX]
    try:
        check_login_allowed(request, username)
    except LoginThrottled as error:
        context = {"form": AuthenticationForm(), "next": target, "refused": str(error)}
        status = HTTPStatus.TOO_MANY_REQUESTS
        return render(request, "console/login.html", context, status=status)
    form = AuthenticationForm(request, data=request.POST)
    is_right = form.is_valid()
    note_login(request, username, succeeded=is_right)
    if is_right:
        login(request, form.get_user())
        return redirect(target)
    context = {"form": form, "next": target, "refused": "The name or the password is wrong."}
    return render(request, "console/login.html", context, status=HTTPStatus.UNPROCESSABLE_ENTITY)


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """End the session."""
    logout(request)
    return redirect("login")


@login_not_required
@require_POST
def set_theme(request: HttpRequest) -> HttpResponse:
    """Remember light, dark or the system's choice."""
    return _prefer(request, THEME)


@login_not_required
@require_POST
def set_keys(request: HttpRequest) -> HttpResponse:
    """Remember whether shortcuts of a single key are on."""
    return _prefer(request, KEYS)


def _prefer(request: HttpRequest, preference: Preference) -> HttpResponse:
    word = request.POST.get(preference.name, "")
    if word not in preference.choices:
        return refusal(
            request,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "No such choice",
            f"{preference.name}: one of {', '.join(preference.choices)}.",
        )
    response = redirect(_next(request))
    preference.keep(response, word, secure=request.is_secure())
    return response


@never_cache
@require_GET
def palette(request: HttpRequest) -> JsonResponse:
    """What the palette offers for a text: actions, and objects by name that the person may see."""
    principal = session_principal(request)
    text = request.GET.get("q", "").strip()
    entries = [*actions_for(principal), *find_objects(principal, text)]
    return JsonResponse({"entries": [entry.document() for entry in entries]})


@never_cache
@require_GET
def pending_count(request: HttpRequest) -> HttpResponse:
    """How many approvals wait, for the navigation; asked again whenever something changed."""
    context = {"pending_approvals": pending_approvals(request)}
    return render(request, "_pending_count.html", context)


@never_cache
@login_not_required
@require_GET
def health(request: HttpRequest) -> JsonResponse:
    """200 while the database answers, 503 otherwise."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return JsonResponse(
            {"status": "unavailable", "database": "does not answer"},
            status=HTTPStatus.SERVICE_UNAVAILABLE,
        )
    return JsonResponse({"status": "ok"})


@login_not_required
def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """What no browser of ours sends: a forged host, a path that climbs, too many fields."""
    return refusal(
        request,
        HTTPStatus.BAD_REQUEST,
        "Not understood",
        "The request is not one that a page here sends. Nothing was done.",
    )


@login_not_required
def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """No such page."""
    return refusal(request, HTTPStatus.NOT_FOUND, "Not here", "There is no such page.")


@login_not_required
def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Refused."""
    return refusal(request, HTTPStatus.FORBIDDEN, "Not allowed", "You may not do this.")


@login_not_required
def form_expired(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A form without the token of this session: `CSRF_FAILURE_VIEW`."""
    return refusal(
        request,
        HTTPStatus.FORBIDDEN,
        "Form expired",
        "The form was sent without this session's token, so nothing was done. "
        "Go back, reload the page and send it again.",
    )


@login_not_required
def server_error(request: HttpRequest) -> HttpResponse:
    """Something broke on our side; the log has it, the page does not."""
    incident = name_incident(request)
    return refusal(
        request,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        BROKEN,
        broken_detail(request, incident),
        incident=incident,
    )


def _next(request: HttpRequest) -> str:
    """Where to go afterwards: only ever a path of this site."""
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    is_safe = url_has_allowed_host_and_scheme(
        wanted, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return wanted if is_safe and wanted.startswith("/") else "/"
