"""`Idempotency-Key`: a repeated request gets the first one's answer and has no second effect."""

import datetime as dt
import hashlib
from collections.abc import Callable
from http import HTTPStatus

from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone

from console.models import KeptAnswer
from console.problems import problem_response

API_PREFIX = "/api/v1/"
HEADER = "Idempotency-Key"
KEY_MAX = 200
KEPT = dt.timedelta(hours=24)
# A request that never finished (its process was killed) blocks its key no longer than this.
ABANDONED = dt.timedelta(minutes=1)
# Answers that are never kept: a push is content-addressed anyway and its body is streamed; the
# others hold a token or an identity, which are shown once and stored nowhere.
NEVER_KEPT = frozenset(
    {
        "/api/v1/artifacts",
        "/api/v1/login",
        "/api/v1/tokens",
        "/api/v1/identity/exchange",
        "/api/v1/identity/renew",
        "/api/v1/users",
    }
)
NEVER_KEPT_BELOW = "/api/v1/users/"  # a reset of a password answers with the new one

GetResponse = Callable[[HttpRequest], HttpResponseBase]


class IdempotencyMiddleware:
    """Keeps the answers of unsafe API requests that carry a key."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        key = request.headers.get(HEADER, "")
        is_unsafe = request.method in ("POST", "PUT", "PATCH", "DELETE")
        path = request.path
        if not key or not is_unsafe or not path.startswith(API_PREFIX) or _is_secret(path):
            return self.get_response(request)
        if len(key) > KEY_MAX:
            return problem_response(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                title="Invalid Idempotency-Key",
                detail=f"{HEADER}: at most {KEY_MAX} characters.",
            )
        return self._once(request, key)

    def _once(self, request: HttpRequest, key: str) -> HttpResponseBase:
        caller, fingerprint = _caller(request), _fingerprint(request)
        KeptAnswer.objects.filter(created_at__lt=timezone.now() - KEPT).delete()
        try:
            with transaction.atomic():
                kept = KeptAnswer.objects.create(caller=caller, key=key, fingerprint=fingerprint)
        except IntegrityError:
            earlier = KeptAnswer.objects.filter(caller=caller, key=key).first()
            if earlier is None or not _take_over(earlier, fingerprint):
                return _replay(earlier, fingerprint)
            kept = earlier
        response = self.get_response(request)
        if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR or response.streaming:
            KeptAnswer.objects.filter(pk=kept.pk).delete()
        elif isinstance(response, HttpResponse):
            KeptAnswer.objects.filter(pk=kept.pk).update(
                status=response.status_code,
                content_type=response.get("Content-Type", ""),
                body=response.content,
            )
        return response


def _is_secret(path: str) -> bool:
    return path in NEVER_KEPT or path.startswith(NEVER_KEPT_BELOW)


def _take_over(earlier: KeptAnswer, fingerprint: str) -> bool:
    """Whether an abandoned request with the same key is now ours to do."""
    if earlier.status is not None or earlier.fingerprint != fingerprint:
        return False
    abandoned = KeptAnswer.objects.filter(
        pk=earlier.pk, status__isnull=True, created_at__lt=timezone.now() - ABANDONED
    )
    return abandoned.update(created_at=timezone.now()) == 1


def _replay(earlier: KeptAnswer | None, fingerprint: str) -> HttpResponse:
    if earlier is not None and earlier.fingerprint != fingerprint:
        return problem_response(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            title="Idempotency-Key reused",
            detail=f"{HEADER}: this key was used for another request; take a new one.",
        )
    if earlier is None or earlier.status is None:
        return problem_response(
            HTTPStatus.CONFLICT,
            title="Still being done",
            detail="The first request with this key has not finished; ask again in a moment.",
        )
    response = HttpResponse(
        bytes(earlier.body), status=earlier.status, content_type=earlier.content_type
    )
    response["Idempotency-Replayed"] = "true"
    return response


def _caller(request: HttpRequest) -> str:
    """Who asks, as a hash: one caller never sees the answer kept for another."""
    credential = request.headers.get("Authorization") or request.COOKIES.get("sessionid", "")
    return hashlib.sha256(credential.encode("utf-8", "surrogatepass")).hexdigest()


def _fingerprint(request: HttpRequest) -> str:
    head = f"{request.method} {request.get_full_path()}\n".encode()
    return hashlib.sha256(head + request.body).hexdigest()
