"""Stages of a bundle version: who may move it where; enforcing takes two people."""

from dataclasses import dataclass

from django.conf import settings

from governance.access import NotAllowed, Principal
from governance.domain import EVERY_NAMESPACE, GovernanceError, Permission, Stage
from governance.models import BundleVersion, JournalRecord
from governance.services.bundles import move_stage
from governance.services.drafts import BundleConflict
from governance.services.journal import journaled
from governance.services.signatures import signature_of

ENFORCED_ACTION = "bundle.enforce"
EVERYWHERE = "in every namespace (*), since a bundle judges all of them"


class StageRefused(GovernanceError):
    """The version cannot go there; the text says what would."""


@dataclass(frozen=True, slots=True)
class Move:
    """One stage a version could go to, and why not, "" when it may."""

    stage: Stage
    why_not: str


def enforced_version(name: str) -> BundleVersion | None:
    """The version of a bundle that is in force."""
    return BundleVersion.objects.filter(name=name, stage=Stage.ENFORCE).first()


def previous_enforced(current: BundleVersion) -> BundleVersion | None:
    """The version to return to: of those before this one, the last that was in force.

    Only backwards, so that a version somebody returned from is not brought back by one person.
    """
    records = JournalRecord.objects.filter(
        action=ENFORCED_ACTION,
        object_kind="bundle",
        object_id__startswith=f"{current.name}@",
    ).order_by("-seq")
    for object_id in records.values_list("object_id", flat=True).iterator():
        number = int(object_id.rpartition("@")[2])
        if number < current.version:
            return BundleVersion.objects.filter(name=current.name, version=number).first()
    return None


def moves_of(version: BundleVersion, principal: Principal) -> list[Move]:
    """Every stage but its own, each with the reason this person may not."""
    return [
        Move(stage, why_not_move(version, stage, principal=principal))
        for stage in Stage
        if stage != version.stage
    ]


def why_not_move(version: BundleVersion, stage: Stage, *, principal: Principal) -> str:
    """Why this person may not put this version in that stage, "" when they may."""
    if version.stage == Stage.ENFORCE and stage is not Stage.ENFORCE:
        return (
            f"Version {version.version} is in force: enforce another version or return to the "
            "one before it. Without one, everything would be denied."
        )
    if stage is not Stage.ENFORCE:
        if principal.may(Permission.AUTHOR_POLICY, namespace=EVERY_NAMESPACE):
            return ""
        whom = principal.whom_to_ask(Permission.AUTHOR_POLICY)
        return f"This needs the role policy_author or admin {EVERYWHERE}; {whom}"
    return _why_not_enforce(version, principal)


def _why_not_enforce(version: BundleVersion, principal: Principal) -> str:
    is_signer = principal.may(Permission.APPROVE, namespace=EVERY_NAMESPACE)
    if not settings.FOUR_EYES:
        is_signer = is_signer or principal.may(Permission.AUTHOR_POLICY, namespace=EVERY_NAMESPACE)
    if not is_signer:
        whom = principal.whom_to_ask(Permission.APPROVE)
        return f"Enforcing needs the role approver or admin {EVERYWHERE}; {whom}"
    if settings.FOUR_EYES and principal.username == version.created_by:
        whom = principal.whom_to_ask(Permission.APPROVE)
        return (
            "You saved this version: an approver or administrator other than you must enforce it "
            f"(four eyes); {whom}"
        )
    return ""


def change_stage(
    version: BundleVersion,
    stage: Stage,
    *,
    principal: Principal,
    seen_enforced: int | None = None,
) -> BundleVersion:
    """Put a version in a stage. For `enforce` it is the second person's signature.

    `seen_enforced` is the number of the version that was in force when the person decided, 0 for
    none; when another is by now, nothing happens. Moving to where it is changes nothing. Raises
    NotAllowed, StageRefused, BundleConflict.
    """
    if version.stage == stage:
        return version
    with journaled():
        version.refresh_from_db()
        if why_not := why_not_move(version, stage, principal=principal):
            is_structural = version.stage == Stage.ENFORCE
            raise StageRefused(why_not) if is_structural else NotAllowed(why_not)
        if stage is Stage.ENFORCE:
            _check_seen(version.name, seen_enforced)
            _check_signature(version)
        return move_stage(version, stage, actor=principal.actor)


def why_not_return(current: BundleVersion, principal: Principal) -> str:
    """Why this person may not return to the version in force before, "" when they may."""
    if previous_enforced(current) is None:
        return "No version before this one was ever in force."
    needed = (Permission.AUTHOR_POLICY, Permission.APPROVE)
    if any(principal.may(permission, namespace=EVERY_NAMESPACE) for permission in needed):
        return ""
    whom = principal.whom_to_ask(Permission.APPROVE)
    return f"Returning needs the role policy_author, approver or admin {EVERYWHERE}; {whom}"


def return_to_previous(
    name: str, *, principal: Principal, seen_enforced: int | None = None
) -> BundleVersion:
    """Put the version that was in force before back at once; it had its two people then.

    Raises NotAllowed, StageRefused, BundleConflict.
    """
    with journaled():
        current = enforced_version(name)
        if current is None:
            raise StageRefused(f"No version of {name} is in force, so there is none to leave.")
        _check_seen(name, seen_enforced)
        earlier = previous_enforced(current)
        if earlier is None:
            raise StageRefused("No version before this one was ever in force.")
        if why_not := why_not_return(current, principal):
            raise NotAllowed(why_not)
        _check_signature(earlier)
        return move_stage(earlier, Stage.ENFORCE, actor=principal.actor)


def _check_seen(name: str, seen: int | None) -> None:
    if seen is None:
        return
    current = enforced_version(name)
    if (current.version if current else 0) != seen:
        now = f"version {current.version} is" if current else "no version is"
        raise BundleConflict(f"What is in force changed meanwhile: {now} now. Look again.")


def _check_signature(version: BundleVersion) -> None:
    signature = signature_of(version)
    if not signature.is_valid:
        raise StageRefused(
            f"The signature of version {version.version} does not hold, so it cannot be "
            f"enforced: {signature.text}"
        )
