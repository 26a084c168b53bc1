"""Phases of a Goal, conditions and the words of the ledger; no Django."""

from enum import StrEnum


class Phase(StrEnum):
    """Where a Goal stands (DESIGN: Draft to a terminal phase)."""

    DRAFT = "Draft"
    PLANNED = "Planned"
    AWAITING_APPROVAL = "AwaitingApproval"
    RUNNING = "Running"
    PAUSED = "Paused"
    SATISFIED = "Satisfied"
    EXHAUSTED = "Exhausted"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    DENIED = "Denied"


TERMINAL_PHASES = frozenset(
    {Phase.SATISFIED, Phase.EXHAUSTED, Phase.FAILED, Phase.CANCELLED, Phase.DENIED}
)
ACTIVE_PHASES = frozenset(Phase) - TERMINAL_PHASES

# A new generation restarts from Draft; that transition is made by apply and not listed here.
TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.DRAFT: frozenset({Phase.PLANNED, Phase.FAILED, Phase.CANCELLED}),
    Phase.PLANNED: frozenset(
        {Phase.AWAITING_APPROVAL, Phase.RUNNING, Phase.DENIED, Phase.FAILED, Phase.CANCELLED}
    ),
    Phase.AWAITING_APPROVAL: frozenset(
        {Phase.RUNNING, Phase.DENIED, Phase.FAILED, Phase.CANCELLED}
    ),
    Phase.RUNNING: frozenset(
        {
            Phase.PAUSED,
            Phase.SATISFIED,
            Phase.EXHAUSTED,
            Phase.FAILED,
            Phase.CANCELLED,
            Phase.DENIED,
        }
    ),
    Phase.PAUSED: frozenset(
        {Phase.RUNNING, Phase.EXHAUSTED, Phase.FAILED, Phase.CANCELLED, Phase.DENIED}
    ),
}


class TransitionRefused(Exception):
    """The Goal cannot go from where it stands to there."""


def check_transition(current: Phase, wanted: Phase) -> None:
    """Raise TransitionRefused unless `current` may become `wanted`."""
    if wanted not in TRANSITIONS.get(current, frozenset()):
        raise TransitionRefused(f"A Goal cannot go from {current} to {wanted}.")


class DesiredRun(StrEnum):
    """What a person wants of a Goal; reconcile makes it so."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


class TaskState(StrEnum):
    """Where one node of the graph stands within an iteration."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Unit(StrEnum):
    """Dimensions of a budget, in the unit the ledger counts in."""

    GPU_MS = "gpu_ms"  # GPU-milliseconds
    TOKENS = "tokens"
    MICRO_USD = "micro_usd"


class EntryKind(StrEnum):
    """What a ledger entry moves, from which part of the account to which."""

    GRANT = "grant"  # outside -> available
    RESERVE = "reserve"  # available -> reserved
    SETTLE = "settle"  # reserved -> settled
    RELEASE = "release"  # reserved -> available
    RETURN = "return"  # available -> outside, when the Goal lands


class Pool(StrEnum):
    """The parts of an account; every entry debits one and credits another."""

    OUTSIDE = "outside"
    AVAILABLE = "available"
    RESERVED = "reserved"
    SETTLED = "settled"


MOVES: dict[EntryKind, tuple[Pool, Pool]] = {
    EntryKind.GRANT: (Pool.OUTSIDE, Pool.AVAILABLE),
    EntryKind.RESERVE: (Pool.AVAILABLE, Pool.RESERVED),
    EntryKind.SETTLE: (Pool.RESERVED, Pool.SETTLED),
    EntryKind.RELEASE: (Pool.RESERVED, Pool.AVAILABLE),
    EntryKind.RETURN: (Pool.AVAILABLE, Pool.OUTSIDE),
}


class ReleaseState(StrEnum):
    """Where a release stands."""

    ACTIVE = "active"
    AWAITING_APPROVAL = "awaiting_approval"
    SUPERSEDED = "superseded"
    DENIED = "denied"
