"""What every answer carries and what every request to a page needs: policy headers, a session."""

import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse

from console.problems import problem_response
from governance.access import AccessError, NotVisible
from governance.sessions import is_password_due
from lineage.telemetry.base import TelemetryError

API_PREFIX = "/api/"  # the API authenticates by credential and answers with problem documents
# Where a session may go that is to change its one-time password.
OPEN_WHILE_DUE = frozenset({"profile", "profile_password", "logout", "theme", "keys", "healthz"})
NONCE_BYTES = 16  # 128 bits, as CSP level 3 asks for

GetResponse = Callable[[HttpRequest], HttpResponseBase]


def content_security_policy(*, nonce: str, host: str) -> str:
    """The one policy of all pages: no inline code, no other origin, DOM sinks only through htmx."""
    socket = "wss:" if settings.IS_HTTPS else "ws:"
    directives = {
        "default-src": "'none'",
        "script-src": f"'self' 'nonce-{nonce}'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "font-src": "'self'",
        "connect-src": f"'self' {socket}//{host}",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "htmx",  # the policy that htmx's hx-csp extension makes
    }
    return "; ".join(f"{name} {value}" for name, value in directives.items())


class ContentSecurityMiddleware:
    """Gives each request a nonce and each answer the headers that browsers enforce."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        nonce = secrets.token_urlsafe(NONCE_BYTES)
        request.csp_nonce = nonce  # type: ignore[attr-defined]
        response = self.get_response(request)
        if "Content-Security-Policy" not in response:
            policy = content_security_policy(nonce=nonce, host=request.META.get("HTTP_HOST", ""))
            response["Content-Security-Policy"] = policy
        response["Permissions-Policy"] = "camera=(), geolocation=(), microphone=(), payment=()"
        response["Cross-Origin-Resource-Policy"] = "same-origin"
        return response


class NulMiddleware:
    """Refuses NUL characters, which no text column of PostgreSQL can hold, before anything runs."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        where = _nul_in(request)
        if where:
            detail = f"{where}: remove the NUL character (U+0000); it cannot be kept."
            return problem_response(
                HTTPStatus.UNPROCESSABLE_ENTITY, title="NUL character", detail=detail
            )
        return self.get_response(request)


def _nul_in(request: HttpRequest) -> str:
    """The part of the request that holds a NUL, or ""."""
    if "\x00" in request.path:
        return "path"
    if "%00" in request.META.get("QUERY_STRING", ""):
        return "query"
    try:
        return "body" if _nul_in_body(request) else ""
    except RequestDataTooBig:
        return ""  # the view says so, in the form its callers expect


def _nul_in_body(request: HttpRequest) -> bool:
    match request.content_type:
        case "application/json":
            return b"\\u0000" in request.body.replace(b"\\\\", b"")
        case "application/x-www-form-urlencoded":
            return b"%00" in request.body
        case _:
            return False


# Refusals of a server that is well, or lacks but its telemetry: what draws the frame needs the
# database.
IN_FRAME = frozenset(
    {
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.SERVICE_UNAVAILABLE,
    }
)


class PageMiddleware(LoginRequiredMiddleware):
    """Pages need a session unless they say otherwise; refusals become pages, not tracebacks."""

    def process_view(
        self,
        request: HttpRequest,
        view_func: Callable[..., Any],
        view_args: tuple[Any, ...],
        view_kwargs: dict[str, Any],
    ) -> HttpResponseBase | None:
        if request.path.startswith(API_PREFIX):
            return None
        answer: HttpResponseBase | None = super().process_view(
            request, view_func, view_args, view_kwargs
        )
        if answer is None and is_password_due(request):
            return self._to_password(request)
        return answer

    def _to_password(self, request: HttpRequest) -> HttpResponseBase | None:
        """A session begun with a one-time password goes nowhere before it is changed."""
        match = request.resolver_match
        if match is not None and match.url_name in OPEN_WHILE_DUE:
            return None
        if request.headers.get("HX-Request") != "true":
            return redirect("profile")
        response = HttpResponse(status=HTTPStatus.FORBIDDEN)
        response["HX-Redirect"] = reverse("profile")
        return response

    def handle_no_permission(  # type: ignore[override]
        self, request: HttpRequest, view_func: Callable[..., Any]
    ) -> HttpResponseBase:
        """To the sign-in page; a part of a page sends the whole page there."""
        is_part = request.headers.get("HX-Request") == "true"
        if not is_part:
            return super().handle_no_permission(request, view_func)
        current = request.headers.get("HX-Current-URL", "")
        path = current.partition(request.get_host())[2] or "/"
        response = HttpResponse(status=HTTPStatus.UNAUTHORIZED)
        response["HX-Redirect"] = f"{reverse('login')}?{urlencode({'next': path})}"
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if request.path.startswith(API_PREFIX):
            return None
        if isinstance(error, NotVisible):
            return refusal(request, HTTPStatus.NOT_FOUND, "Not here", str(error))
        if isinstance(error, AccessError):
            return refusal(request, HTTPStatus.FORBIDDEN, "Not allowed", str(error))
        if isinstance(error, TelemetryError):
            text = "The telemetry store does not answer. Reload in a moment."
            return refusal(request, HTTPStatus.SERVICE_UNAVAILABLE, "Not available", text)
        return None

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        """What is only done by a button was opened as a page, or the other way round."""
        if not isinstance(response, HttpResponseNotAllowed):
            return response
        allowed = response["Allow"]
        words = f"This address takes {allowed}, not {request.method}."
        answer = refusal(request, HTTPStatus.METHOD_NOT_ALLOWED, "Not this way", words)
        answer["Allow"] = allowed
        return answer


def refusal(
    request: HttpRequest, status: HTTPStatus, title: str, detail: str, **members: str
) -> HttpResponse:
    """An error as whoever asked can show it: a document to a program, a line to a part, or a page.

    A page of its own is within the frame, so that one goes on, where that can be drawn. `members`
    are further fields of the document.
    """
    if request.path.startswith(API_PREFIX):
        return problem_response(status, title=title, detail=detail, **members)
    context = {
        "status": int(status),
        "title": title,
        "detail": detail,
        "frame": "bare.html",
        **members,
    }
    if request.headers.get("HX-Request") == "true":
        response = render(request, "_refusal.html", context, status=int(status))
        response["HX-Retarget"] = "#refusal"  # above the page, which stays as it is
        response["HX-Reswap"] = "innerHTML"
        return response
    user = getattr(request, "user", None)
    if status in IN_FRAME and user is not None and user.is_authenticated:
        context["frame"] = "base.html"
    return render(request, "refusal.html", context, status=int(status))
