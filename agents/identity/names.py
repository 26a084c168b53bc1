"""The grammar of SPIFFE IDs and the shape of ours."""

import re

from agents.identity.base import InvalidSpiffeId

# https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md, sections 2.1 to 2.3
SCHEME = "spiffe://"
TRUST_DOMAIN_MAX_BYTES = 255
SPIFFE_ID_MAX_BYTES = 2048
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")
_SEGMENT = re.compile(r"[a-zA-Z0-9._-]+")
_SHOWN_CHARACTERS = 80  # of a bad value in an error sentence


def validate_trust_domain(name: str) -> str:
    """`name` itself when it is a trust domain. Raises `InvalidSpiffeId`."""
    if not _TRUST_DOMAIN.fullmatch(name):
        raise InvalidSpiffeId(
            f"The trust domain {_shown(name)} must be lower-case letters, digits, dots, dashes "
            "and underscores."
        )
    if len(name) > TRUST_DOMAIN_MAX_BYTES:
        raise InvalidSpiffeId(f"The trust domain is longer than {TRUST_DOMAIN_MAX_BYTES} bytes.")
    return name


def validate_segment(value: str, *, field: str) -> str:
    """`value` itself when it may stand between two slashes of a SPIFFE ID.

    `field` names it in the error. Raises `InvalidSpiffeId`.
    """
    if value in {".", ".."}:
        raise InvalidSpiffeId(f"{field} must not be {value!r}: it would walk the path.")
    if not _SEGMENT.fullmatch(value):
        raise InvalidSpiffeId(
            f"{field} is {_shown(value)}, but a SPIFFE ID takes only letters, digits, dots, "
            "dashes and underscores there, and at least one."
        )
    return value


def spiffe_id(
    trust_domain: str, *, namespace: str, service_account: str, goal_uid: str, agent: str
) -> str:
    """`spiffe://<trust domain>/ns/<namespace>/sa/<service account>/goal/<uid>/agent/<name>`.

    Raises `InvalidSpiffeId` naming the part that cannot stand in a path.
    """
    segments = (
        "ns",
        validate_segment(namespace, field="namespace"),
        "sa",
        validate_segment(service_account, field="service account"),
        "goal",
        validate_segment(goal_uid, field="goal uid"),
        "agent",
        validate_segment(agent, field="agent name"),
    )
    return _within_limit(f"{SCHEME}{validate_trust_domain(trust_domain)}/{'/'.join(segments)}")


def validate_workload_spiffe_id(spiffe_id: str, *, trust_domain: str) -> str:
    """`spiffe_id` itself when it names a workload (a path is required) of `trust_domain`.

    Raises `InvalidSpiffeId`.
    """
    prefix = f"{SCHEME}{trust_domain}/"
    if not spiffe_id.startswith(prefix):
        raise InvalidSpiffeId(
            f"The SPIFFE ID {_shown(spiffe_id)} is not a workload of the trust domain "
            f"{trust_domain}."
        )
    _within_limit(spiffe_id)
    for segment in spiffe_id.removeprefix(prefix).split("/"):
        validate_segment(segment, field="a path segment of the SPIFFE ID")
    return spiffe_id


def _within_limit(spiffe_id: str) -> str:
    if len(spiffe_id) > SPIFFE_ID_MAX_BYTES:
        raise InvalidSpiffeId(f"The SPIFFE ID is longer than {SPIFFE_ID_MAX_BYTES} bytes.")
    return spiffe_id


def _shown(value: str) -> str:
    clipped = value if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}…"
    return ascii(clipped)
