"""Pages of the shell: sign in and out, the theme, health."""

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

from console.context import THEME_COOKIE, THEMES
from console.middleware import refusal
from console.throttling import LoginThrottled, check_login_allowed, note_login

THEME_SECONDS = 365 * 86_400
USERNAME_MAX = 150  # the column's


@require_GET
def index(request: HttpRequest) -> HttpResponse:
    """The first page is the list of Goals."""
    return redirect("goal_list")


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
    """Remember light, dark or the system's choice in a cookie, so that no page flashes."""
    theme = request.POST.get("theme", "")
    if theme not in THEMES:
        return refusal(
            request,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "No such theme",
            f"theme: one of {', '.join(THEMES)}.",
        )
    response = redirect(_next(request))
    response.set_cookie(
        THEME_COOKIE, theme, max_age=THEME_SECONDS, samesite="Lax", secure=request.is_secure()
    )
    return response


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
def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """No such page."""
    return refusal(request, HTTPStatus.NOT_FOUND, "Not here", "There is no such page.")


@login_not_required
def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Refused."""
    return refusal(request, HTTPStatus.FORBIDDEN, "Not allowed", "You may not do this.")


@login_not_required
def server_error(request: HttpRequest) -> HttpResponse:
    """Something broke on our side; the log has it, the page does not."""
    return refusal(
        request,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "Something went wrong on our side",
        "The error was logged. Nothing of this request was kept.",
    )


def _next(request: HttpRequest) -> str:
    """Where to go afterwards: only ever a path of this site."""
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    is_safe = url_has_allowed_host_and_scheme(
        wanted, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return wanted if is_safe and wanted.startswith("/") else "/"
