"""States of an attempt and the transitions between them."""

from enum import StrEnum


class AttemptState(StrEnum):
    """Where an attempt stands, as last reported by the cluster."""

    PENDING = "pending"  # recorded, workload not yet running
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # the program ended badly
    STOPPED = "stopped"  # ended by us: cancelled, denied, revoked
    LOST = "lost"  # ended by the platform: killed, node gone; does not count as a retry


class DesiredState(StrEnum):
    """What we want of an attempt; reconcile makes it so."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


FINISHED_STATES = frozenset(
    {AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.STOPPED, AttemptState.LOST}
)
ACTIVE_STATES = frozenset(AttemptState) - FINISHED_STATES
