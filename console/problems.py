"""Problem documents (RFC 9457): how every error of the API looks."""

import json
from http import HTTPStatus
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpResponse


def problem_response(
    status: HTTPStatus, *, title: str, detail: str, **members: Any
) -> HttpResponse:
    """An `application/problem+json` answer; `members` are further fields of the document."""
    document = {
        "type": "about:blank",
        "title": title,
        "status": int(status),
        "detail": detail,
        **members,
    }
    response = HttpResponse(
        json.dumps(document, cls=DjangoJSONEncoder),
        status=int(status),
        content_type="application/problem+json",
    )
    if status == HTTPStatus.UNAUTHORIZED:
        response["WWW-Authenticate"] = 'Bearer realm="clearance"'
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response["Retry-After"] = "2"
    return response
