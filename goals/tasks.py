"""Celery tasks of Goals: wrappers round one service call each."""

from uuid import UUID

from celery import shared_task

from goals.events import EXPIRE_TASK, RECONCILE_TASK, RESYNC_TASK, ring
from goals.services.lapse import lapse_grants
from goals.services.reconcile import RING_LIFE_SECONDS, claim_due_goals, reconcile_goal
from governance.services.approvals import escalate_approvals, expire_approvals


@shared_task(name=RECONCILE_TASK)
def reconcile(goal_uid: str) -> None:
    """Reconcile one Goal; ring again when there is more to do."""
    if reconcile_goal(UUID(goal_uid)):
        ring(goal_uid)


@shared_task(name=RESYNC_TASK)
def resync() -> None:
    """Ring for every Goal that is due, whether or not its doorbell was heard."""
    for goal_uid in claim_due_goals():
        ring(goal_uid, life_seconds=RING_LIFE_SECONDS)


@shared_task(name=EXPIRE_TASK)
def expire() -> None:
    """Deny by timeout what nobody answered, put it before more people first, end grants."""
    expire_approvals()
    escalate_approvals()
    lapse_grants()
