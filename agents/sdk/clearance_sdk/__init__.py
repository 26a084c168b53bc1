"""Runs an agent under Clearance: `with clearance.attempt() as run: ...`."""

from .attempt import Attempt, action, attempt, observe
from .errors import (
    BudgetExhausted,
    ClearanceError,
    Denied,
    Revoked,
    Unavailable,
)
from .records import Artifact, Evidence, Input, Release, Reservation
from .tracing import Action, Observation

__all__ = [
    "Action",
    "Artifact",
    "Attempt",
    "BudgetExhausted",
    "ClearanceError",
    "Denied",
    "Evidence",
    "Input",
    "Observation",
    "Release",
    "Reservation",
    "Revoked",
    "Unavailable",
    "action",
    "attempt",
    "observe",
]
