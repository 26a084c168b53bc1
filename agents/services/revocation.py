"""Revocation: an identity ends at once, of one attempt or of all that runs of an agent."""

from typing import Final

from django.utils import timezone

from agents.domain.states import ACTIVE_STATES
from agents.models import Agent, Attempt
from governance.services.journal import News, append_records, journaled
from lineage.domain import Actor

_REASON_MAX_CHARACTERS: Final = 255  # the column's
_REVOKED_AT_ONCE: Final = 500  # attempts of one transaction, which holds the journal


def revoke_identity(attempt: Attempt, *, reason: str, actor: Actor) -> bool:
    """End an attempt's identity at once: nothing is accepted or renewed after the commit.

    True when that was news; again changes nothing and keeps the first reason.
    """
    clipped = reason[:_REASON_MAX_CHARACTERS]
    with journaled():
        standing = Attempt.objects.filter(pk=attempt.pk, identity_revoked_at__isnull=True)
        is_news = (
            standing.update(identity_revoked_at=timezone.now(), identity_revoked_reason=clipped)
            == 1
        )
        if is_news:
            append_records([_news(attempt, clipped, actor)])
    attempt.refresh_from_db(fields=["identity_revoked_at", "identity_revoked_reason"])
    return is_news


def revoke_agent_identities(agent: Agent, *, reason: str, actor: Actor) -> int:
    """End the identities of all that runs of an agent, 500 a transaction; returns how many.

    What starts afterwards gets an identity of its own. Safe to repeat.
    """
    clipped, revoked = reason[:_REASON_MAX_CHARACTERS], 0
    while True:
        with journaled():
            standing = Attempt.objects.filter(
                agent=agent, identity_revoked_at__isnull=True, state__in=ACTIVE_STATES
            )
            attempts = list(standing.order_by("created_at")[:_REVOKED_AT_ONCE])
            if not attempts:
                return revoked
            Attempt.objects.filter(pk__in=[one.pk for one in attempts]).update(
                identity_revoked_at=timezone.now(), identity_revoked_reason=clipped
            )
            append_records([_news(one, clipped, actor) for one in attempts])
            revoked += len(attempts)


def _news(attempt: Attempt, reason: str, actor: Actor) -> News:
    return News(
        "identity.revoked",
        actor,
        "attempt",
        str(attempt.uid),
        attempt.namespace,
        attempt.goal_uid,
        {"spiffe_id": attempt.spiffe_id, "reason": reason},
    )
