"""AdmissionReview: what the API server asks about one request, and the answers it takes."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

API_VERSION: Final = "admission.k8s.io/v1"
FORBIDDEN: Final = 403
UNAVAILABLE: Final = 503
# The API server cuts one warning at 256 bytes and all of them at 4096 (KEP-1693).
WARNING_BYTES: Final = 256
WARNINGS_BYTES: Final = 4096
MESSAGE_CHARACTERS: Final = 4000

Object = dict[str, Any]


class NoReview(ValueError):
    """The body is no AdmissionReview; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Review:
    """One request to the API server, before it is carried out."""

    uid: str
    kind: str
    resource: str  # plural, e.g. `pods`
    subresource: str
    namespace: str
    name: str
    operation: str
    username: str
    is_dry_run: bool
    found: Object  # the object as it would be stored
    before: Object  # as it is stored; empty for CREATE
    request: Object  # all of it, as it was asked

    @property
    def is_update(self) -> bool:
        return self.operation == "UPDATE"

    @property
    def field_manager(self) -> str:
        return str((self.request.get("options") or {}).get("fieldManager") or "")


def read_review(body: bytes) -> Review:
    """The review in a request's body. Raises NoReview."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise NoReview("The body is no JSON.") from None
    request = document.get("request") if isinstance(document, dict) else None
    if not isinstance(request, dict) or document.get("apiVersion") != API_VERSION:
        raise NoReview(f"The body is no AdmissionReview of {API_VERSION}.")
    uid = request.get("uid")
    if not isinstance(uid, str) or not uid:
        raise NoReview("request.uid is missing.")
    found = _mapping(request, "object")
    return Review(
        uid=uid,
        kind=str(_mapping(request, "kind").get("kind", "")),
        resource=str(_mapping(request, "resource").get("resource", "")),
        subresource=str(request.get("subResource") or ""),
        namespace=str(request.get("namespace") or ""),
        name=str(request.get("name") or _mapping(found, "metadata").get("name") or ""),
        operation=str(request.get("operation") or ""),
        username=str(_mapping(request, "userInfo").get("username") or ""),
        is_dry_run=bool(request.get("dryRun")),
        found=found,
        before=_mapping(request, "oldObject"),
        request=request,
    )


def _mapping(parent: Mapping[str, Any], key: str) -> Object:
    found = parent.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise NoReview(f"{key} is no object.")
    return found


def allowed(review: Review, *, warnings: Sequence[str] = ()) -> Object:
    """Let it pass, with what the person should read all the same."""
    return _answer(review.uid, {"allowed": True, **_warnings(warnings)})


def patched(review: Review, operations: Sequence[Object]) -> Object:
    """Let it pass changed: `operations` are a JSON patch (RFC 6902)."""
    if not operations:
        return allowed(review)
    patch = base64.b64encode(json.dumps(list(operations)).encode()).decode()
    return _answer(review.uid, {"allowed": True, "patchType": "JSONPatch", "patch": patch})


def refused(review: Review, message: str, *, warnings: Sequence[str] = ()) -> Object:
    """Refuse it; `message` is what kubectl prints."""
    status = {"code": FORBIDDEN, "reason": "Forbidden", "message": message[:MESSAGE_CHARACTERS]}
    return _answer(review.uid, {"allowed": False, "status": status, **_warnings(warnings)})


def unheard(review: Review, message: str) -> Object:
    """Refuse it for now, for want of a judgement: who asks again may be let in."""
    status = {"code": UNAVAILABLE, "reason": "ServiceUnavailable", "message": message}
    return _answer(review.uid, {"allowed": False, "status": status})


def _answer(uid: str, response: Object) -> Object:
    return {
        "apiVersion": API_VERSION, "kind": "AdmissionReview", "response": {"uid": uid, **response},
    }  # fmt: skip


def _warnings(texts: Sequence[str]) -> Object:
    kept: list[str] = []
    size = 0
    for text in dict.fromkeys(texts):
        clipped = " ".join(text.split()).encode()[:WARNING_BYTES].decode(errors="ignore")
        size += len(clipped.encode())
        if size > WARNINGS_BYTES:
            break
        kept.append(clipped)
    return {"warnings": kept} if kept else {}
