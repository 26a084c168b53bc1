"""What the platform takes back once an identity is revoked: the pod with its token, the Secret."""

import logging
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from agents.attestation import get_attestor
from agents.attestation.base import AttestationError, Attestor, Withdrawal
from agents.domain.states import ACTIVE_STATES
from agents.models import Agent, Attempt
from governance.models import JournalRecord
from governance.services.journal import append_record, journaled
from lineage.domain import Actor, ActorKind

logger = logging.getLogger(__name__)

ACTION: Final = "identity.withdrawn"
ACTOR: Final = Actor(ActorKind.SYSTEM, "reconcile")
AT_ONCE: Final = 16  # each waits for the API server, not for the processor
PEOPLE_WAIT_SECONDS: Final = 10.0  # for many attempts; the reconciler does what is left


def withdraw_identity(attempt: Attempt, *, attestor: Attestor | None = None) -> Withdrawal | None:
    """Make the platform end what a revoked attempt still has, and write down what that was.

    None, and nothing done, while the identity stands or where join tokens are used: those are
    spent. Safe to repeat. Raises `AttestationError`s.
    """
    attestor = attestor or get_attestor()
    if attestor is None or attempt.identity_revoked_at is None:
        return None
    taken = attestor.withdraw(attempt.workload, namespace=attempt.namespace)
    _record(attempt, taken)
    return taken


def withdraw_agent_identities(agent: Agent, *, attestor: Attestor | None = None) -> int:
    """The same for all that still runs of an agent and is revoked; how many it was done for."""
    revoked = Attempt.objects.filter(agent=agent, identity_revoked_at__isnull=False)
    return withdraw_at_once(revoked.filter(state__in=ACTIVE_STATES), attestor=attestor)


def withdraw_at_once(
    attempts: Iterable[Attempt],
    *,
    attestor: Attestor | None = None,
    within_seconds: float = PEOPLE_WAIT_SECONDS,
) -> int:
    """Withdraw from revoked attempts while a person waits; how many it was done for.

    What fails or takes too long is left to the reconciler, which repeats it.
    """
    attestor = attestor or get_attestor()
    if attestor is None:
        return 0
    give_up_at = time.monotonic() + within_seconds

    def withdraw(attempt: Attempt) -> Withdrawal | None:
        if time.monotonic() >= give_up_at:
            return None
        try:
            return attestor.withdraw(attempt.workload, namespace=attempt.namespace)
        except AttestationError as error:
            logger.warning("%s is left to be withdrawn: %s", attempt.workload, error)
            return None

    wanted = [one for one in attempts if one.identity_revoked_at is not None]
    if not wanted:
        return 0
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="withdraw") as pool:
        found = list(pool.map(withdraw, wanted))
    done = 0
    for attempt, taken in zip(wanted, found, strict=True):
        if taken is not None:
            _record(attempt, taken)
            done += 1
    return done


def _record(attempt: Attempt, taken: Withdrawal) -> None:
    """One record an attempt, and one more whenever there was more to take.

    Also one when nothing was left: a process that died after the deed has said nothing of it.
    """
    with journaled():
        said = JournalRecord.objects.filter(
            goal_uid=attempt.goal_uid, action=ACTION, object_id=str(attempt.uid)
        )
        if not taken.is_news and said.exists():
            return
        append_record(
            action=ACTION,
            actor=ACTOR,
            object_kind="attempt",
            object_id=str(attempt.uid),
            namespace=attempt.namespace,
            goal_uid=attempt.goal_uid,
            body={
                "workload": attempt.workload,
                "evicted": list(taken.evicted),
                "deleted": list(taken.deleted),
                "secret": taken.secret,
                "reason": attempt.identity_revoked_reason,
            },
        )
