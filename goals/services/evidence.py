"""The evidence pack of a Goal: every fact of its chain, with proofs, for an auditor alone."""

from typing import Any

import rfc8785
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from agents.identity import get_trust_domain
from agents.models import Attempt
from goals.models import Goal, LedgerEntry, Release
from goals.selectors import attempts_of, goal_resource, ledger_of, releases_of
from governance.models import Approval, BundleVersion, Checkpoint, Decision, JournalRecord
from governance.policy.base import PolicyModule
from governance.policy.bundle import canonical_bundle
from governance.services.checkpoints import journal_tree, make_checkpoint
from governance.services.journal import rfc3339
from lineage.evidence.base import (
    EvidenceError,
    OlderCheckpoint,
    PackContents,
    PackedRecord,
    SignedFile,
)
from lineage.evidence.pack import build_pack
from lineage.models import Artifact, Edge
from lineage.registry import get_registry
from lineage.registry.base import RegistryError
from lineage.services.directories import DIRECTORY_MEDIA_TYPE
from lineage.signing import get_signer
from lineage.telemetry import get_telemetry
from lineage.telemetry.base import Span, TelemetryError

OLDER_CHECKPOINTS = 10  # of those before the pack's own, to prove that the journal only grew
PAYLOAD_MAX_BYTES = 16 << 20  # bigger blobs stay in the registry; the pack has their SHA-256
SPANS_MAX = 50_000


def evidence_pack(goal: Goal) -> bytes:
    """The pack as a ZIP. The journal is signed as it stands first, so that nothing is missing.

    Raises EvidenceError, `SigningError`s, `RegistryError`s. What cannot be had (a telemetry store
    that is down, say) is listed in the pack as a gap.
    """
    signer = get_signer()
    checkpoint = make_checkpoint(signer=signer)
    if checkpoint is None:
        raise EvidenceError("The journal is empty: there is nothing to prove.")
    with transaction.atomic():
        read_one_moment()
        contents = _contents(goal, checkpoint)
    return build_pack(contents, signer=signer, identity=f"{settings.WEB_URL}/evidence")


def read_one_moment() -> None:
    """Accounts, entries and records of one moment, however busy the Goal is."""
    # It must be a transaction's first statement; one within another sees what that one sees.
    if connection.vendor == "postgresql" and not connection.savepoint_ids:
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


def _contents(goal: Goal, checkpoint: Checkpoint) -> PackContents:
    gaps: list[str] = []
    artifacts = _artifacts(goal)
    decisions = list(Decision.objects.filter(goal_uid=goal.uid).order_by("at"))
    records = [
        PackedRecord(seq, canonical.encode())
        for seq, canonical in JournalRecord.objects.filter(
            goal_uid=goal.uid, seq__lt=checkpoint.size
        )
        .order_by("seq")
        .values_list("seq", "canonical")
    ]
    tree = journal_tree()
    return PackContents(
        goal_uid=str(goal.uid),
        namespace=goal.namespace,
        goal_name=goal.name,
        exported_at=rfc3339(timezone.now()),
        issuer=get_signer().issuer,
        records=records,
        siblings=tree.siblings([record.index for record in records], checkpoint.size),
        checkpoint=checkpoint.note,
        older=older_checkpoints(checkpoint),
        documents=_documents(goal, artifacts, decisions, gaps),
        policies=policies_of(decisions, gaps),
        manifests=manifests_of(artifacts, gaps),
        bundles=bundles_of(artifacts),
        svid_bundle=rfc8785.dumps(dict(get_trust_domain().bundle())),
        gaps=_known_gaps(goal, artifacts) + gaps,
    )


def older_checkpoints(checkpoint: Checkpoint) -> list[OlderCheckpoint]:
    """Those before it, with the proofs that the journal only grew."""
    tree = journal_tree()
    older = Checkpoint.objects.filter(size__lt=checkpoint.size).order_by("-size")
    return [
        OlderCheckpoint(one.note, tuple(tree.consistency_proof(one.size, checkpoint.size)))
        for one in reversed(older[:OLDER_CHECKPOINTS])
    ]


def _artifacts(goal: Goal) -> list[Artifact]:
    """Artifacts the Goal made, and those its releases put in force or replaced."""
    digests = set(Artifact.objects.filter(goal_uid=goal.uid).values_list("digest", flat=True))
    for release in releases_of(goal):
        digests |= {release.digest, release.previous_digest, *release.evidence}
    return list(
        Artifact.objects.filter(namespace=goal.namespace, digest__in=digests - {""}).order_by(
            "created_at"
        )
    )


def _documents(
    goal: Goal, artifacts: list[Artifact], decisions: list[Decision], gaps: list[str]
) -> dict[str, bytes]:
    documents = {
        "goal.json": goal_resource(goal),
        "ledger.json": _ledger(goal),
        "decisions.json": {"decisions": [decision_document(one) for one in decisions]},
        "approvals.json": {
            "approvals": [approval_document(a) for a in Approval.objects.filter(goal_uid=goal.uid)]
        },
        "attempts.json": {"attempts": [_attempt(one) for one in attempts_of(goal)]},
        "releases.json": {"releases": [release_document(one) for one in releases_of(goal)]},
        "artifacts.json": {"artifacts": [artifact_document(one) for one in artifacts]},
        "provenance.json": {"edges": _edges(goal)},
    }
    files = {name: rfc8785.dumps(plain(content)) for name, content in documents.items()}
    for graph in goal.graphs.all():
        if graph.digest == goal.graph_digest:
            files["graph.json"] = graph.canonical.encode()
            continue
        name = graph.digest.removeprefix("sha256:")[:16]
        files[f"graphs/{name}.json"] = graph.canonical.encode()
    files["spans.jsonl"] = _spans(goal, gaps)
    return files


def plain(value: Any) -> Any:
    """Plain JSON; numbers beyond what JSON keeps exactly become text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)


def _ledger(goal: Goal) -> dict[str, Any]:
    return {
        "accounts": [
            {
                "unit": account.unit,
                "limit": account.limit,
                "reserved": account.reserved,
                "settled": account.settled,
                "overrun": account.overrun,
            }
            for account in goal.accounts.all()
        ],
        "entries": [
            {
                "uid": entry.uid,
                "unit": entry.account.unit,
                "kind": entry.kind,
                "debit": entry.debit,
                "credit": entry.credit,
                "amount": entry.amount,
                "key": entry.idempotency_key,
                "attempt": str(entry.attempt_uid or ""),
                "span": entry.span_id,
                "approval": str(entry.approval_uid or ""),
                "at": rfc3339(entry.created_at),
            }
            for entry in _in_journal_order(goal)
        ],
    }


def _in_journal_order(goal: Goal) -> list[LedgerEntry]:
    """Ledger entries as the journal has them; a clock that stepped back changes nothing."""
    written = JournalRecord.objects.filter(goal_uid=goal.uid, object_kind="ledger_entry")
    place = dict(written.values_list("object_id", "seq"))
    return sorted(ledger_of(goal), key=lambda entry: place.get(str(entry.uid), 0))


def decision_document(decision: Decision) -> dict[str, Any]:
    """A decision as packs have it."""
    return {
        "uid": decision.uid,
        "point": decision.point,
        "subject": {"kind": decision.subject_kind, "id": decision.subject_id},
        "graph_digest": decision.graph_digest,
        "bundle": decision.bundle_name,
        "bundle_digest": decision.bundle_digest,
        "stage": decision.stage,
        "input_digest": decision.input_digest,
        "input_canonical": decision.input_canonical,
        "outcome": decision.outcome,
        "messages": decision.messages,
        "error": decision.error,
        "engine": decision.engine,
        "at": rfc3339(decision.at),
    }


def approval_document(approval: Approval) -> dict[str, Any]:
    """An approval as packs have it."""
    return {
        "uid": approval.uid,
        "kind": approval.kind,
        "request_digest": approval.request_digest,
        "request_canonical": approval.request_canonical,
        "state": approval.state,
        "requested_by": approval.requested_by,
        "barred": approval.barred,
        "decided_by": approval.decided_by,
        "decided_for": approval.decided_for,
        "quorum": approval.quorum,
        "signatures": [
            {"signer": one.signer, "right_of": one.right_of, "at": rfc3339(one.at)}
            for one in approval.signatures.all()
        ],
        "decided_at": rfc3339(approval.decided_at) if approval.decided_at else None,
        "expires_at": rfc3339(approval.expires_at),
        "reason": approval.reason,
        "answer": approval.answer,
        "facts": approval.facts,
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "uid": attempt.uid,
        "task": attempt.task,
        "number": attempt.number,
        "iteration": attempt.iteration,
        "agent": attempt.agent_name,
        "spiffe_id": attempt.spiffe_id,
        "graph_digest": attempt.graph_digest,
        "workload": attempt.workload,
        "image": attempt.specification.get("image", ""),
        "state": attempt.state,
        "reason": attempt.reason,
        "exit_code": attempt.exit_code,
        "gpus": attempt.gpus,
        "gpu_ids": attempt.gpu_ids,
        "gpu_ms": attempt.gpu_ms,
        "running_ms": attempt.running_ms,
        "svids": [
            {
                "kind": svid.kind,
                "serial": svid.serial,
                "issued_at": rfc3339(svid.issued_at),
                "expires_at": rfc3339(svid.expires_at),
            }
            for svid in attempt.svids.all()
        ],
        "identity_revoked_at": rfc3339(attempt.identity_revoked_at)
        if attempt.identity_revoked_at
        else None,
        "identity_revoked_reason": attempt.identity_revoked_reason,
    }


def release_document(release: Release) -> dict[str, Any]:
    """A release as packs have it."""
    return {
        "uid": release.uid,
        "service": release.service,
        "environment": release.environment,
        "number": release.number,
        "digest": release.digest,
        "previous_digest": release.previous_digest,
        "state": release.state,
        "is_rollback": release.is_rollback,
        "evidence": release.evidence,
        "decision": str(release.decision_uid or ""),
        "approval": str(release.approval_uid or ""),
        "attempt": str(release.attempt_uid or ""),
        "span": release.span_id,
        "reason": release.reason,
        "at": rfc3339(release.created_at),
    }


def artifact_document(artifact: Artifact) -> dict[str, Any]:
    """An artifact as packs have it."""
    return {
        "digest": artifact.digest,
        "blob_digest": artifact.blob_digest,
        "kind": artifact.kind,
        "name": artifact.name,
        "filename": artifact.filename,
        "size_bytes": artifact.size_bytes,
        "signer": artifact.signer,
        "attempt": str(artifact.attempt_uid or ""),
        "span": artifact.span_id,
        "predicate_type": artifact.predicate_type,
        "about": artifact.about,
        "recalled_at": rfc3339(artifact.recalled_at) if artifact.recalled_at else None,
        "created_at": rfc3339(artifact.created_at),
    }


def _edges(goal: Goal) -> list[dict[str, Any]]:
    return [
        {
            "source": {"kind": edge.source_kind, "id": edge.source_id},
            "relation": edge.relation,
            "target": {"kind": edge.target_kind, "id": edge.target_id},
            "signed": edge.is_signed,
        }
        for edge in Edge.objects.filter(goal_uid=goal.uid).order_by("pk")
    ]


def _spans(goal: Goal, gaps: list[str]) -> bytes:
    lines: list[bytes] = []
    cursor = ""
    try:
        while len(lines) < SPANS_MAX:
            page = get_telemetry().goal_spans(
                goal.namespace, str(goal.uid), cursor=cursor, limit=1000
            )
            lines += [rfc8785.dumps(plain(_span(span))) for span in page.spans]
            cursor = page.next_cursor
            if not cursor:
                break
        else:
            gaps.append(f"Only the first {SPANS_MAX} spans are in the pack.")
    except TelemetryError as error:
        gaps.append(f"The telemetry store did not answer; spans are missing: {error}")
    return b"".join(line + b"\n" for line in lines)


def _span(span: Span) -> dict[str, Any]:
    return {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_span_id": span.parent_span_id,
        "name": span.name,
        "agent": span.owner.agent,
        "task": span.owner.task,
        "attempt": span.owner.attempt_uid,
        "start_at": rfc3339(span.start_at),
        "end_at": rfc3339(span.end_at),
        "status": span.status,
        "parent_observation": span.parent_observation,
        "confidence": span.confidence,
        "attributes": dict(span.attributes),
    }


def policies_of(decisions: list[Decision], gaps: list[str]) -> dict[str, bytes]:
    """The bundles that decided, by digest; one that is gone is added to the gaps."""
    policies: dict[str, bytes] = {}
    for digest in sorted({one.bundle_digest for one in decisions} - {""}):
        version = BundleVersion.objects.filter(digest=digest).first()
        if version is None:
            gaps.append(f"The policy bundle {digest} is no longer known.")
            continue
        modules = [PolicyModule(m["path"], m["source"]) for m in version.modules]
        policies[digest] = canonical_bundle(modules, version.parameters)
    return policies


def manifests_of(artifacts: list[Artifact], gaps: list[str]) -> dict[str, bytes]:
    """OCI manifests by digest; one that cannot be read is added to the gaps."""
    manifests: dict[str, bytes] = {}
    for artifact in artifacts:
        try:
            manifests[artifact.digest] = get_registry().manifest(artifact.digest)
        except RegistryError as error:
            gaps.append(f"The manifest of {artifact.digest} could not be read: {error}")
    return manifests


def bundles_of(artifacts: list[Artifact], *, has_payloads: bool = True) -> list[SignedFile]:
    """What was signed of the artifacts; without payloads blobs are named by SHA-256 alone."""
    files: list[SignedFile] = []
    for artifact in artifacts:
        name = artifact.digest.removeprefix("sha256:")[:16]
        if artifact.media_type == DIRECTORY_MEDIA_TYPE:
            files.append(SignedFile(f"{name}.model", artifact.blob_bundle, artifact.signer))
        elif artifact.blob_bundle:
            files.append(_blob_bundle(artifact, name, has_payload=has_payloads))
        if artifact.statement_bundle:
            files.append(SignedFile(f"{name}.intoto", artifact.statement_bundle, artifact.signer))
    return files


def _blob_bundle(artifact: Artifact, name: str, *, has_payload: bool) -> SignedFile:
    sha256 = artifact.blob_digest.removeprefix("sha256:")
    payload: bytes | None = None
    if has_payload and artifact.size_bytes <= PAYLOAD_MAX_BYTES:
        try:
            payload = b"".join(get_registry().read_layer(artifact.blob_digest))
        except RegistryError:
            payload = None
    return SignedFile(
        f"{name}.blob",
        artifact.blob_bundle,
        artifact.signer,
        payload=payload,
        sha256="" if payload is not None else sha256,
    )


def _known_gaps(goal: Goal, artifacts: list[Artifact]) -> list[str]:
    gaps = [
        "Spans are what the agents reported under their identity; they are not signed one by one.",
        "GPU time is metered by the cluster adapter; slots that are only declared are not measured "
        "by NVML.",
        "The keys in this pack prove what it says of itself; compare them with keys you obtained "
        "from the operator by another way.",
    ]
    if not goal.is_landed:
        gaps.append(f"The Goal has not landed ({goal.phase}): the pack ends in the middle.")
    gaps += [f"{one.kind} {one.digest} is not signed." for one in artifacts if not one.is_signed]
    unsigned = Edge.objects.filter(goal_uid=goal.uid, is_signed=False).count()
    if unsigned:
        gaps.append(f"{unsigned} provenance edges rest on the journal alone, unsigned.")
    return gaps
