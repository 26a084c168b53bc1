"""The lease of a Goal: one worker acts at a time, and a stale one cannot write (I3)."""

import datetime as dt
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from goals.models import Goal

# Longer than any single step between two renewals; shorter than a person's patience after kill -9.
LEASE_SECONDS = 20


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
    with transaction.atomic():
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
    with transaction.atomic():
        held = Goal.objects.filter(
            pk=lease.goal_uid, epoch=lease.epoch, lease_owner=lease.owner
        ).update(lease_expires_at=_expiry())
        if held != 1:
            raise LeaseLost(f"epoch {lease.epoch} of Goal {lease.goal_uid} is over")
        yield


def release_lease(lease: Lease) -> None:
    """Give the lease back; somebody else's is left alone."""
    Goal.objects.filter(pk=lease.goal_uid, epoch=lease.epoch, lease_owner=lease.owner).update(
        lease_owner="", lease_expires_at=None
    )


def _expiry() -> dt.datetime:
    return timezone.now() + dt.timedelta(seconds=LEASE_SECONDS)
