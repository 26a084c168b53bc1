"""Celery tasks of governance: wrappers round one service call each."""

from celery import shared_task

from governance.services.checkpoints import make_checkpoint
from governance.services.verification_steps import verify_on_schedule

CHECKPOINT_TASK = "governance.checkpoint"
VERIFY_TASK = "governance.verify_journal"


@shared_task(name=CHECKPOINT_TASK)
def checkpoint() -> None:
    """Sign the journal as it stands."""
    make_checkpoint()


@shared_task(name=VERIFY_TASK)
def verify() -> None:
    """Verify the journal further than the last time."""
    verify_on_schedule()
