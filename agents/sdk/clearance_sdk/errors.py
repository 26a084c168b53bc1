"""What can go wrong between an agent and the control plane."""

from collections.abc import Mapping
from typing import Any


class ClearanceError(Exception):
    """The control plane refused or could not do what was asked.

    `problem` is its RFC 9457 answer, {} when there was none; `status` its HTTP status, 0 when
    there was no answer.
    """

    def __init__(
        self,
        title: str,
        *,
        detail: str = "",
        status: int = 0,
        problem: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{title}: {detail}" if detail else title)
        self.title = title
        self.detail = detail
        self.status = status
        self.problem: Mapping[str, Any] = problem or {}


class Denied(ClearanceError):
    """Policy, or the scope of this attempt, does not allow it (403)."""


class BudgetExhausted(ClearanceError):
    """The Goal's budget does not cover it (402)."""


class Revoked(ClearanceError):
    """The identity of this attempt is no longer accepted (401)."""


class Unavailable(ClearanceError):
    """The control plane did not answer in time; the same call may work later."""


def error_for(status: int, problem: Mapping[str, Any]) -> ClearanceError:
    """The error of an HTTP answer."""
    kinds = {401: Revoked, 402: BudgetExhausted, 403: Denied, 429: Unavailable}
    kind = kinds.get(status, Unavailable if status >= 500 else ClearanceError)
    title = str(problem.get("title") or f"The control plane answered {status}")
    detail = str(problem.get("detail") or "")
    return kind(title, detail=detail, status=status, problem=problem)
