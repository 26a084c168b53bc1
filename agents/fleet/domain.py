"""Words of the live fleet: what one agent run and one Goal look like on the map; no Django."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from uuid import UUID

from agents.domain.states import AttemptState

# Codes on the wire; the place in this tuple is the code, so new states go to its end.
STATES: tuple[AttemptState, ...] = (
    AttemptState.PENDING,
    AttemptState.RUNNING,
    AttemptState.PAUSED,
    AttemptState.SUCCEEDED,
    AttemptState.FAILED,
    AttemptState.STOPPED,
    AttemptState.LOST,
)
STATE_CODES = {state.value: code for code, state in enumerate(STATES)}

NO_GOAL = 0xFFFF_FFFF  # in place of a Goal's number
UNKNOWN_COUNT = 0xFFFF_FFFF  # tokens nobody has counted
UNKNOWN_SHARE = 0xFFFF  # of a budget without any account
WHOLE_SHARE = 10_000  # shares are hundredths of a percent
CONFIDENCE_STEPS = 200  # a confidence in [0, 1] in steps of 0.005
UNKNOWN_CONFIDENCE = 0xFF
NAME_CHARS = 80  # agents choose the names of spans; more does not fit any strip


class Kind(IntEnum):
    """What sort of agent run it is: the shape on the map."""

    PLAIN = 0  # circle: needs no GPU
    GPU = 1  # square: holds GPUs
    CRITICAL = 2  # diamond: the role the quota keeps GPUs for
    EXPERIMENTAL = 3  # triangle: the role the starter bundle limits
    FOREIGN = 4  # cross: a workload of the cluster that is not ours; nothing here steers it


FOREIGN_ROLE = "not ours"  # no agent can be given it: roles are DNS labels
ROLE_KINDS = {
    "revenue-critical": Kind.CRITICAL,
    "experimental": Kind.EXPERIMENTAL,
    FOREIGN_ROLE: Kind.FOREIGN,
}


def kind_of(*, role: str, gpus: int) -> Kind:
    """The sort of an agent run: its role where that has a meaning of its own, else its GPUs."""
    return ROLE_KINDS.get(role, Kind.GPU if gpus else Kind.PLAIN)


def clip(text: str) -> str:
    """A name as it is shown: without control characters, no longer than `NAME_CHARS`."""
    return "".join(char if char.isprintable() else " " for char in text[:NAME_CHARS])


def confidence_code(value: float | None) -> int:
    """A confidence in [0, 1] as one byte; None, and what is no confidence, is unknown."""
    if value is None or not 0.0 <= value <= 1.0:
        return UNKNOWN_CONFIDENCE
    return round(value * CONFIDENCE_STEPS)


def share_code(part: int, whole: int) -> int:
    """A share of a budget; more than the whole is shown as the whole."""
    if whole <= 0:
        return WHOLE_SHARE if part > 0 else 0
    return min(max(part * WHOLE_SHARE // whole, 0), WHOLE_SHARE)


@dataclass(frozen=True, slots=True)
class RunFact:
    """One attempt as its source knows it. Times are milliseconds since 1970 (UTC)."""

    uid: UUID
    goal_uid: UUID
    namespace: str
    agent: str
    role: str
    task: str
    node: str  # what it holds, e.g. "declared-0"; "" when nobody said
    state: str
    gpus: int
    gpu_ms: int
    created_ms: float
    changed_ms: float


@dataclass(frozen=True, slots=True)
class GoalFact:
    """One Goal and its fuel. Shares are codes (`share_code`); times are milliseconds (UTC)."""

    uid: UUID
    namespace: str
    name: str
    phase: str
    settled_share: int
    reserved_share: int
    unit: str  # the dimension that is nearest to its limit; "" without a budget
    waiting: int  # approvals a human has not answered
    tokens: int  # settled; UNKNOWN_COUNT when none are budgeted or counted
    changed_ms: float


@dataclass(frozen=True, slots=True)
class SpanFact:
    """The last span of an attempt: what it is doing and how sure it is."""

    uid: UUID
    name: str
    confidence: float | None
    at_ms: float


@dataclass(frozen=True, slots=True)
class Changes:
    """News of a source. `is_whole`: these are all the runs and Goals there are."""

    runs: Sequence[RunFact] = field(default_factory=tuple)
    goals: Sequence[GoalFact] = field(default_factory=tuple)
    meters: Sequence[tuple[UUID, int]] = field(default_factory=tuple)  # attempt, GPU-ms
    gone_runs: Sequence[UUID] = field(default_factory=tuple)
    gone_goals: Sequence[UUID] = field(default_factory=tuple)
    is_whole: bool = False
