"""The evidence pack of a time: the journal of a namespace, or all of it, with what it rests on."""

import datetime as dt
from collections.abc import Iterable
from typing import Any, Final

import rfc8785
from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from agents.identity import get_trust_domain
from goals.models import Goal, Release
from goals.services.evidence import (
    approval_document,
    artifact_document,
    bundles_of,
    decision_document,
    manifests_of,
    older_checkpoints,
    plain,
    policies_of,
    read_one_moment,
    release_document,
)
from governance.models import Approval, Checkpoint, Decision, JournalRecord
from governance.services.checkpoints import journal_tree, make_checkpoint
from governance.services.journal import rfc3339
from governance.services.journal_search import first_since
from lineage.evidence.base import EVERY_NAMESPACE, EvidenceError, PackContents, PackedRecord
from lineage.evidence.pack import build_pack
from lineage.models import Artifact
from lineage.signing import get_signer

# Some 60 MB with the inputs of its decisions; made and verified within a minute.
RECORDS_MAX: Final = 20_000
NAMES_PER_QUERY: Final = 500  # SQLite takes some thousand parameters
KNOWN_GAPS: Final = (
    "Ledgers, spans and task graphs are in the packs of the Goals that goals.json names.",
    "The keys in this pack prove what it says of itself; compare them with keys you obtained "
    "from the operator by another way.",
)


def range_pack(
    *,
    namespace: str,
    since: dt.datetime,
    until: dt.datetime | None = None,
    records_max: int = RECORDS_MAX,
) -> bytes:
    """The pack of a time as a ZIP: from `since` until before `until`, which is now at the latest.

    `namespace` is one, or EVERY_NAMESPACE for the journal whole, in which no record is missing
    between the first and the last. The journal is signed as it stands first. Raises EvidenceError
    where there is nothing or more than `records_max` records, `SigningError`s, `RegistryError`s.
    """
    now = timezone.now()
    until = min(until or now, now)
    if since >= until:
        raise EvidenceError("time: it must begin before now and before it ends.")
    signer = get_signer()
    checkpoint = make_checkpoint(signer=signer)
    if checkpoint is None:
        raise EvidenceError("The journal is empty: there is nothing to prove.")
    with transaction.atomic():
        read_one_moment()
        found = _records(namespace, since, until, checkpoint, records_max=records_max)
        contents = _contents(found, namespace, since, until, checkpoint)
    return build_pack(contents, signer=signer, identity=f"{settings.WEB_URL}/evidence")


def _contents(
    found: list[tuple[int, str, Any]],
    namespace: str,
    since: dt.datetime,
    until: dt.datetime,
    checkpoint: Checkpoint,
) -> PackContents:
    seqs = [seq for seq, _, _ in found]
    where = Q() if namespace == EVERY_NAMESPACE else Q(namespace=namespace)
    decisions = list(Decision.objects.filter(where, at__gte=since, at__lt=until).order_by("at"))
    releases = list(
        Release.objects.filter(where, created_at__gte=since, created_at__lt=until).order_by(
            "created_at"
        )
    )
    artifacts = _artifacts(releases)
    gaps: list[str] = []
    documents = {
        "goals.json": {"goals": _goals({uid for _, _, uid in found if uid})},
        "decisions.json": {"decisions": [decision_document(one) for one in decisions]},
        "approvals.json": {
            "approvals": [approval_document(one) for one in _approvals(where, since, until)]
        },
        "releases.json": {"releases": [release_document(one) for one in releases]},
        "artifacts.json": {"artifacts": [artifact_document(one) for one in artifacts]},
    }
    return PackContents(
        goal_uid="",
        namespace=namespace,
        goal_name="",
        since=rfc3339(since),
        until=rfc3339(until),
        exported_at=rfc3339(timezone.now()),
        issuer=get_signer().issuer,
        records=[PackedRecord(seq, text.encode()) for seq, text, _ in found],
        siblings=journal_tree().siblings(seqs, checkpoint.size),
        checkpoint=checkpoint.note,
        older=older_checkpoints(checkpoint),
        documents={name: rfc8785.dumps(plain(held)) for name, held in documents.items()},
        policies=policies_of(decisions, gaps),
        manifests=manifests_of(artifacts, gaps),
        bundles=bundles_of(artifacts, has_payloads=False),
        svid_bundle=rfc8785.dumps(dict(get_trust_domain().bundle())),
        gaps=[*KNOWN_GAPS, *gaps],
    )


def _records(
    namespace: str,
    since: dt.datetime,
    until: dt.datetime,
    checkpoint: Checkpoint,
    *,
    records_max: int,
) -> list[tuple[int, str, Any]]:
    """Number, text and Goal of each record of the time, in order."""
    records = JournalRecord.objects.filter(
        at__gte=since, at__lt=until, seq__gte=first_since(since), seq__lt=checkpoint.size
    ).order_by("seq")
    if namespace != EVERY_NAMESPACE:
        records = records.filter(namespace=namespace)
    found = list(records.values_list("seq", "canonical", "goal_uid")[: records_max + 1])
    where = "the journal" if namespace == EVERY_NAMESPACE else f"namespace {namespace}"
    if not found:
        raise EvidenceError(f"time: {where} has no record of it.")
    if len(found) > records_max:
        raise EvidenceError(
            f"time: {where} has {records.count():,} records of it, a pack holds {records_max:,}: "
            "choose a shorter time, or one namespace."
        )
    return found


def _goals(uids: Iterable[Any]) -> list[dict[str, Any]]:
    wanted = sorted(uids)
    found: list[dict[str, Any]] = []
    for start in range(0, len(wanted), NAMES_PER_QUERY):
        goals = Goal.objects.filter(uid__in=wanted[start : start + NAMES_PER_QUERY])
        found += [
            {
                "uid": goal.uid,
                "namespace": goal.namespace,
                "name": goal.name,
                "phase": goal.phase,
                "requested_by": goal.requested_by,
                "created_at": rfc3339(goal.created_at),
                "landed_at": rfc3339(goal.landed_at) if goal.landed_at else None,
            }
            for goal in goals
        ]
    return found


def _approvals(where: Q, since: dt.datetime, until: dt.datetime) -> QuerySet[Approval]:
    """Those that were asked for or decided in the time."""
    asked = Q(created_at__gte=since, created_at__lt=until)
    decided = Q(decided_at__gte=since, decided_at__lt=until)
    return Approval.objects.filter(where & (asked | decided)).order_by("created_at")


def _artifacts(releases: list[Release]) -> list[Artifact]:
    """What the releases put in force, and what they rest on, each in its namespace."""
    wanted: dict[str, set[str]] = {}
    for release in releases:
        wanted.setdefault(release.namespace, set()).update({release.digest, *release.evidence})
    found: list[Artifact] = []
    for namespace, digests in sorted(wanted.items()):
        held = Artifact.objects.filter(namespace=namespace, digest__in=digests - {""})
        found += held.order_by("created_at")
    return list({one.digest: one for one in found}.values())
