"""The lease of a Goal: one worker acts at a time, and a stale one cannot write (I3).

Every change of what a Goal wants (apply, pause, cancel, an answer) raises the epoch as well: a
worker that had read the Goal before it writes nothing more, and starts over from the new rows.
"""

import datetime as dt
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from django.db import Error as DatabaseError
from django.db import connection
from django.db.models import DateTimeField, ExpressionWrapper, F, Q, QuerySet
from django.db.models.expressions import Combinable
from django.db.models.functions import Now
from django.utils import timezone

from goals.models import Goal
from governance.services.journal import journaled

logger = logging.getLogger(__name__)

# Longer than two renewals take to fail; shorter than a person's patience after kill -9.
LEASE_SECONDS = 20
# A step may wait this long for a cluster, a policy or a store; from then on it is renewed aside.
RENEW_SECONDS = 5.0


class LeaseLost(Exception):
    """Another worker holds the Goal now: nothing this one still wants to write may be written."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to act on a Goal while its `epoch` is the Goal's."""

    goal_uid: UUID
    owner: str
    epoch: int


def worker_identity() -> str:
    """Who this worker is, for the lease and for people reading it."""
    return f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}"


def acquire_lease(goal_uid: UUID, *, owner: str) -> Lease | None:
    """The lease, with a new epoch, or None when somebody else holds it."""
    free = Q(lease_owner="") | Q(lease_expires_at__lt=Now())
    with journaled():
        taken = Goal.objects.filter(free, pk=goal_uid).update(
            lease_owner=owner, lease_expires_at=_expiry(), epoch=F("epoch") + 1
        )
        if taken != 1:
            return None
        epoch = Goal.objects.values_list("epoch", flat=True).get(pk=goal_uid)
    return Lease(goal_uid, owner, epoch)


@contextmanager
def fenced(lease: Lease) -> Iterator[None]:
    """A transaction that commits only if the lease still holds; renews it. Raises LeaseLost."""
    with journaled():
        renew_lease(lease)
        yield


def renew_lease(lease: Lease) -> None:
    """Hold the lease for another term. Raises LeaseLost."""
    if _held(lease).update(lease_expires_at=_expiry()) != 1:
        raise LeaseLost(f"epoch {lease.epoch} of Goal {lease.goal_uid} is over")


def release_lease(lease: Lease, *, again_in: dt.timedelta = dt.timedelta(0)) -> None:
    """Give the lease back and say when to look again; somebody else's is left alone."""
    _held(lease).update(
        lease_owner="", lease_expires_at=None, reconcile_after=timezone.now() + again_in
    )


def break_lease(goal_uid: UUID) -> None:
    """End whatever a worker is about to write from what it read before, in this transaction.

    Called by everything that changes what is wanted of a Goal.
    """
    Goal.objects.filter(pk=goal_uid).update(
        epoch=F("epoch") + 1, lease_owner="", lease_expires_at=None
    )


@contextmanager
def kept_alive(lease: Lease, *, every_seconds: float = RENEW_SECONDS) -> Iterator[None]:
    """Renew the lease from a thread of its own while a step waits for something outside.

    The thread dies with the process, and a stopped process stops it too, so that a worker that
    no longer works loses its lease. It writes nothing in the first `every_seconds`.
    """
    is_over = threading.Event()
    thread = threading.Thread(
        target=_renew_until, args=(lease, is_over, every_seconds), name="lease", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _renew_until(lease: Lease, is_over: threading.Event, every_seconds: float) -> None:
    try:
        while not is_over.wait(every_seconds):
            try:
                renew_lease(lease)
            except LeaseLost:
                return
            except DatabaseError as error:  # the next renewal is still in time
                logger.warning("lease of %s not renewed: %s", lease.goal_uid, error)
    finally:
        connection.close()


def _held(lease: Lease) -> QuerySet[Goal]:
    return Goal.objects.filter(pk=lease.goal_uid, epoch=lease.epoch, lease_owner=lease.owner)


def _expiry() -> Combinable:
    # The database's clock, as in `acquire_lease`: workers' clocks may differ.
    return ExpressionWrapper(
        Now() + dt.timedelta(seconds=LEASE_SECONDS), output_field=DateTimeField()
    )
