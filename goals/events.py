"""Names of tasks and topics, and the doorbells rung when a transaction commits."""

import logging
from typing import Any
from uuid import UUID

from asgiref.sync import async_to_sync
from celery import current_app
from channels.layers import get_channel_layer
from django.db import transaction

RECONCILE_TASK = "goals.reconcile"
RESYNC_TASK = "goals.resync"
EXPIRE_TASK = "goals.expire_approvals"

GOAL_TOPIC = "goal.{uid}"
NAMESPACE_TOPIC = "namespace.{namespace}"

logger = logging.getLogger(__name__)


def ring_on_commit(goal_uid: UUID | str) -> None:
    """Ask a worker to reconcile a Goal once this transaction commits.

    A lost ring costs one resync period and nothing else, so a broker that is down is logged only.
    """
    transaction.on_commit(lambda: _send_task(RECONCILE_TASK, str(goal_uid)))


def hint_on_commit(*, goal_uid: UUID | str | None, namespace: str, topic: str) -> None:
    """Tell open pages that something of a Goal changed; they fetch the rows themselves."""
    message = {"type": "hint", "topic": topic, "goal": str(goal_uid or "")}
    groups = [NAMESPACE_TOPIC.format(namespace=namespace)]
    if goal_uid:
        groups.append(GOAL_TOPIC.format(uid=goal_uid))
    transaction.on_commit(lambda: _send_hint(groups, message))


def ring(goal_uid: UUID | str, *, life_seconds: float | None = None) -> None:
    """Ask a worker to reconcile a Goal now; an unheard ring goes away after its life."""
    _send_task(RECONCILE_TASK, str(goal_uid), life_seconds=life_seconds)


def _send_task(name: str, *args: str, life_seconds: float | None = None) -> None:
    try:
        current_app.send_task(
            name, args=args, retry=False, ignore_result=True, expires=life_seconds
        )
    except Exception as error:  # the broker is a doorbell: whatever is wrong with it, go on
        logger.warning("doorbell %s not rung: %s", name, type(error).__name__)


def _send_hint(groups: list[str], message: dict[str, Any]) -> None:
    layer = get_channel_layer()
    if layer is None:
        return
    try:
        for group in groups:
            async_to_sync(layer.group_send)(group, message)
    except Exception as error:  # a lost hint costs one poll of the page
        logger.warning("hint not sent: %s", type(error).__name__)
