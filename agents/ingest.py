"""Who may export spans: attempts that present their JWT-SVID, and nobody else."""

import logging

from channels.db import database_sync_to_async
from django.db import InterfaceError, OperationalError

from agents.identity.base import TrustDomain
from agents.models import Attempt
from agents.services.identity import (
    CredentialRefused,
    IdentityNotAvailable,
    authenticate_attempt,
)
from lineage.telemetry.base import SpanOwner

logger = logging.getLogger(__name__)

SCHEME = "bearer"  # RFC 6750, 2.1; the scheme's case does not count (RFC 9110, 11.1)


def bearer_token(authorization: str | None) -> str:
    """The token of an `Authorization: Bearer <token>` header. Raises CredentialRefused."""
    if not authorization:
        raise CredentialRefused(
            "Authorization is missing: send `Authorization: Bearer <JWT-SVID>`."
        )
    scheme, _, token = authorization.strip().partition(" ")
    if scheme.lower() != SCHEME or not token.strip():
        raise CredentialRefused("Authorization must be `Bearer <JWT-SVID>`.")
    return token.strip()


def span_owner(attempt: Attempt) -> SpanOwner:
    """Whom the spans of an attempt belong to."""
    return SpanOwner(
        namespace=attempt.namespace,
        goal_uid=str(attempt.goal_uid),
        agent=attempt.agent_name,
        task=attempt.task,
        attempt_uid=str(attempt.uid),
    )


async def authenticate_export(
    authorization: str | None, *, trust_domain: TrustDomain | None = None
) -> SpanOwner:
    """The owner of an export, taken from its `Authorization` header and from nothing else.

    The database is read each time, in a thread of the pool, so a revocation counts at once.
    Raises CredentialRefused, IdentityRevoked, AttemptFinished, or IdentityNotAvailable when the
    export may be repeated later.
    """
    token = bearer_token(authorization)
    try:
        return span_owner(await _attempt_of(token, trust_domain=trust_domain))
    except (OperationalError, InterfaceError) as error:
        logger.error("Cannot authenticate an export: %s", error)
        raise IdentityNotAvailable("Identities cannot be checked now.") from error


_attempt_of = database_sync_to_async(authenticate_attempt, thread_sensitive=False)
