"""Celery tasks of the fleet: wrappers round one service call each."""

from celery import shared_task

from agents.services.attempts import stop_orphans
from agents.services.keys import rotate_identity_keys

ORPHANS_TASK = "agents.stop_orphans"
ROTATE_TASK = "agents.rotate_identity_keys"


@shared_task(name=ORPHANS_TASK)
def orphans() -> None:
    """End workloads that outlived their attempt."""
    stop_orphans()


@shared_task(name=ROTATE_TASK)
def rotate() -> None:
    """Sign JWT-SVIDs with a new key from now on."""
    rotate_identity_keys()
