"""Keys of the trust domain: the JWT key is replaced every day, as SPIFFE advises."""

from agents.identity import get_trust_domain
from agents.identity.base import TrustDomain
from governance.services.journal import append_record, journaled
from lineage.domain import Actor, ActorKind

ROTATION = Actor(ActorKind.SYSTEM, "key-rotation")


def rotate_identity_keys(*, trust_domain: TrustDomain | None = None) -> bool:
    """Replace the key that signs JWT-SVIDs; documents signed before stay valid until they expire.

    False where the trust domain keeps its keys itself (a SPIRE server, say). A crash between the
    rotation and its record costs the record of one rotation. Raises `IdentityError`s.
    """
    trust_domain = trust_domain or get_trust_domain()
    rotate = getattr(trust_domain, "rotate_jwt_key", None)
    if rotate is None:
        return False
    rotate()
    with journaled():
        append_record(
            action="identity.key_rotated",
            actor=ROTATION,
            object_kind="trust_domain",
            object_id=trust_domain.name,
            namespace="",
        )
    return True
