"""Celery tasks of governance: wrappers round one service call each."""

from celery import shared_task

from governance.services.checkpoints import make_checkpoint

CHECKPOINT_TASK = "governance.checkpoint"


@shared_task(name=CHECKPOINT_TASK)
def checkpoint() -> None:
    """Sign the journal as it stands."""
    make_checkpoint()
