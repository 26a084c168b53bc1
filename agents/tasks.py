"""Celery tasks of the fleet: wrappers round one service call each."""

from celery import shared_task

from agents.services.attempts import stop_orphans
from agents.services.keys import rotate_identity_keys
from agents.services.retention import forget_workloads

ORPHANS_TASK = "agents.stop_orphans"
ROTATE_TASK = "agents.rotate_identity_keys"
FORGET_TASK = "agents.forget_workloads"


@shared_task(name=ORPHANS_TASK)
def orphans() -> None:
    """End workloads that outlived their attempt."""
    stop_orphans()


@shared_task(name=FORGET_TASK)
def forget() -> None:
    """Remove what is kept of workloads that ended long ago."""
    forget_workloads()


@shared_task(name=ROTATE_TASK)
def rotate() -> None:
    """Sign JWT-SVIDs with a new key from now on."""
    rotate_identity_keys()
