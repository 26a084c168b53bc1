"""What the control plane hands back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Input:
    """What an upstream task produced."""

    value: Any
    digest: str | None
    span_id: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """A stored artifact: `digest` names it, `blob_digest` its bytes, `size` in bytes."""

    digest: str
    blob_digest: str
    size: int
    is_signed: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """A signed statement about artifacts."""

    digest: str


@dataclass(frozen=True, slots=True)
class Release:
    """Which digest an environment serves for a service."""

    digest: str
    environment: str
    service: str
    id: str
    decision: str
    released_at: str


@dataclass(frozen=True, slots=True)
class Reservation:
    """Tokens set aside on the Goal's ledger."""

    key: str
    amount: int


def input_from(document: Mapping[str, Any]) -> Input:
    """One entry of `inputs` of GET /api/v1/self."""
    return Input(
        document.get("value"), document.get("digest") or None, document.get("span_id") or ""
    )


def release_from(document: Mapping[str, Any], *, environment: str, service: str) -> Release:
    """An answer about a release."""
    return Release(
        digest=str(document["digest"]),
        environment=str(document.get("environment") or environment),
        service=str(document.get("service") or service),
        id=str(document.get("id") or ""),
        decision=str(document.get("decision") or ""),
        released_at=str(document.get("released_at") or ""),
    )
