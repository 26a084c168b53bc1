"""What the policy pages show: bundles with their hits, inputs to try a draft on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from django.db.models import Count

from governance.access import NotVisible, Principal, visible_decisions
from governance.domain import Stage
from governance.models import BundleVersion, Decision
from governance.policy.base import PolicyPoint
from governance.services.drafts import DATA_FILE
from governance.services.signatures import SignatureState, signature_of
from governance.services.stages import previous_enforced

VERSIONS_SHOWN = 20  # of each bundle, the newest
INPUTS_OFFERED = 50  # of each point
# Decisions looked through for distinct inputs: an iteration repeats what it asks.
INPUTS_SEARCHED = 300


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version with how often each outcome was its verdict, and whether its signature holds."""

    version: BundleVersion
    hits: Mapping[str, int]
    signature: SignatureState

    @property
    def judged(self) -> int:
        """All its decisions that this person may see."""
        return sum(self.hits.values())


@dataclass
class BundleCard:
    """One bundle: its newest versions, and those that judge now however old they are."""

    name: str
    rows: list[VersionRow] = field(default_factory=list)
    versions: int = 0
    enforced: BundleVersion | None = None
    previous: BundleVersion | None = None


def get_version(name: str, number: int) -> BundleVersion:
    """A version of a bundle. Raises NotVisible."""
    version = BundleVersion.objects.filter(name=name, version=number).first()
    if version is None:
        raise NotVisible(f"There is no version {number} of a bundle {name}.")
    return version


def files_of(version: BundleVersion) -> list[tuple[str, str]]:
    """The files of a version as people see them: modules by path, then its data."""
    found = [(module["path"], module["source"]) for module in version.modules]
    data = json.dumps(version.parameters, indent=2, ensure_ascii=False) + "\n"
    return [*sorted(found), *([(DATA_FILE, data)] if version.parameters else [])]


def bundle_cards(principal: Principal) -> list[BundleCard]:
    """Every bundle, by name."""
    hits = hit_counts(principal)
    cards: dict[str, BundleCard] = {}
    for version in BundleVersion.objects.order_by("name", "-version"):
        card = cards.setdefault(version.name, BundleCard(version.name))
        card.versions += 1
        if version.stage == Stage.ENFORCE:
            card.enforced = version
            card.previous = previous_enforced(version)
        if len(card.rows) < VERSIONS_SHOWN or version.stage != Stage.DRAFT:
            found = hits.get((version.name, version.digest), {})
            card.rows.append(VersionRow(version, found, signature_of(version)))
    return list(cards.values())


def hit_counts(principal: Principal) -> dict[tuple[str, str], dict[str, int]]:
    """(bundle name, digest) to outcome to number of decisions that this person may see."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    counted = (
        visible_decisions(principal)
        .exclude(bundle_digest="")
        .order_by()
        .values_list("bundle_name", "bundle_digest", "outcome")
        .annotate(number=Count("*"))
    )
    for name, digest, outcome, number in counted:
        found.setdefault((name, digest), {})[outcome] = number
    return found


def recent_inputs(principal: Principal) -> list[tuple[PolicyPoint, list[Decision]]]:
    """For each point the decisions with the last distinct inputs, newest first, inputs left out."""
    found = []
    for point in PolicyPoint:
        recent = (
            visible_decisions(principal)
            .filter(point=point)
            .only("uid", "point", "subject_kind", "subject_id", "input_digest", "outcome", "at")
            .order_by("-at")[:INPUTS_SEARCHED]
        )
        distinct = {decision.input_digest: decision for decision in reversed(recent)}
        newest = sorted(distinct.values(), key=lambda one: one.at, reverse=True)
        if newest:
            found.append((point, newest[:INPUTS_OFFERED]))
    return found


def get_visible_decision(principal: Principal, uid: UUID) -> Decision:
    """A decision with its input. Raises NotVisible."""
    decision = visible_decisions(principal).filter(pk=uid).first()
    if decision is None:
        raise NotVisible(f"There is no decision {uid} that you may see.")
    return decision
