"""Who may export spans: attempts that present their JWT-SVID, and nobody else."""

import logging

from channels.db import database_sync_to_async
from django.db import InterfaceError, OperationalError

from agents.identity.base import TrustDomain
from agents.models import Attempt
from agents.services.identity import (
    IdentityNotAvailable,
    IdentityRefused,
    authenticate_attempt,
)
from lineage.otlp import OtlpError, OtlpUnauthenticated
from lineage.telemetry.base import SpanOwner

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 1  # a restarted database or restored keys are back within seconds


async def authenticate_export(token: str, *, trust_domain: TrustDomain | None = None) -> SpanOwner:
    """The owner of an export, taken from its bearer token ("" for none) and from nothing else.

    The database is read each time, in a thread of the pool, so a revocation counts at once.
    Raises OtlpUnauthenticated, or OtlpError (503) when the export may be repeated later.
    """
    if not token:
        raise OtlpUnauthenticated("Authorization is missing: send `Bearer <JWT-SVID>`.")
    try:
        attempt = await _attempt_of(token, trust_domain=trust_domain)
    except IdentityNotAvailable as error:
        raise _later(str(error)) from error
    except IdentityRefused as error:
        raise OtlpUnauthenticated(str(error)) from error
    except (OperationalError, InterfaceError) as error:
        logger.error("Cannot authenticate an export: %s", error)
        raise _later("Identities cannot be checked now.") from error
    return span_owner(attempt)


def span_owner(attempt: Attempt) -> SpanOwner:
    """Whom the spans of an attempt belong to."""
    return SpanOwner(
        namespace=attempt.namespace,
        goal_uid=str(attempt.goal_uid),
        agent=attempt.agent_name,
        task=attempt.task,
        attempt_uid=str(attempt.uid),
    )


def _later(message: str) -> OtlpError:
    return OtlpError(503, message, retry_after_seconds=RETRY_AFTER_SECONDS)


_attempt_of = database_sync_to_async(authenticate_attempt, thread_sensitive=False)
