"""The catalogue's rows: what a scan found, what a person made of it, what was registered."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from agents.catalogue.domain import LOOKS_LIKE, TemplateFacts, evidence_of, score_of
from agents.catalogue.proposals import FROM, UNKNOWN_IMAGE, Entry, propose, proposed_name
from agents.catalogue.reading import Scan
from agents.models import Agent, ClusterSurvey, ClusterWorkload
from agents.services.registry import Outcome, Registered, register_agent
from agents.services.survey import SURVEY
from agents.survey.domain import Holder, Kind
from governance.services.journal import append_record, journaled
from lineage.domain import Actor

ROWS_AT_ONCE: Final = 400
REASON_MAX: Final = 255


class CatalogueConflict(Exception):
    """The entry is not in a state for that; the text says which it is in."""


def record_scan(scan: Scan, *, cluster: str, at: dt.datetime) -> int:
    """Make the rows say what the scan found; how many changed.

    Safe to repeat: the same scan again changes nothing. Marks of people are never touched. What a
    refused list would have told stays as it was.
    """
    rows = {row.uid: row for row in ClusterWorkload.objects.all()}
    judged = _judged(scan.facts)
    inserts, changed = [], []
    for facts, told in judged:
        uid = facts.holder.uid
        row = rows.get(uid)
        if row is None:
            holder = facts.holder
            inserts.append(
                ClusterWorkload(
                    uid=uid, kind=holder.kind, namespace=holder.namespace, name=holder.name,
                    first_seen_at=at, changed_at=at, **told,
                )
            )  # fmt: skip
        elif new := {name: value for name, value in told.items() if getattr(row, name) != value}:
            changed.append((row.pk, new))
    seen = {facts.holder.uid for facts in scan.facts}
    unlisted = [
        row.pk
        for row in rows.values()
        if row.is_listed and row.pk not in seen and row.kind not in scan.unread
    ]
    with transaction.atomic():
        ClusterWorkload.objects.bulk_create(inserts, batch_size=ROWS_AT_ONCE, ignore_conflicts=True)
        for pk, new in changed:
            ClusterWorkload.objects.filter(pk=pk).update(**new, changed_at=at)
        for start in range(0, len(unlisted), ROWS_AT_ONCE):
            part = unlisted[start : start + ROWS_AT_ONCE]
            ClusterWorkload.objects.filter(pk__in=part).update(is_listed=False, changed_at=at)
        ClusterSurvey.objects.update_or_create(
            pk=SURVEY,
            defaults={
                "cluster": cluster[:253],
                "scanned_at": at,
                "scan_trouble": "\n".join(scan.troubles),
            },
        )
    return len(inserts) + len(changed) + len(unlisted) + match_agents()


def _judged(found: Sequence[TemplateFacts]) -> list[tuple[TemplateFacts, dict[str, Any]]]:
    """Each with its row's fields; accounts after what runs as them."""
    runs: dict[tuple[str, str], list[str]] = {}
    judged = []
    for facts in (one for one in found if one.holder.kind != Kind.SERVICE_ACCOUNT):
        told = _told(facts)
        judged.append((facts, told))
        if told["score"] >= LOOKS_LIKE:
            key = facts.holder.namespace, facts.service_account
            runs.setdefault(key, []).append(f"{facts.holder.kind} {facts.holder.name}")
    for facts in (one for one in found if one.holder.kind == Kind.SERVICE_ACCOUNT):
        running = tuple(sorted(runs.get((facts.holder.namespace, facts.holder.name), ())))
        judged.append((facts, _told(facts, runs=running)))
    return judged


def _told(facts: TemplateFacts, *, runs: tuple[str, ...] = ()) -> dict[str, Any]:
    facts = replace(facts, runs=runs)
    evidence = evidence_of(facts)
    return {
        "is_listed": True,
        "images": list(facts.images),
        "service_account": facts.service_account,
        "facts": facts.document(),
        "score": score_of(evidence),
        "evidence": [one.document() for one in evidence],
        "gone_at": None,
    }


def match_agents() -> int:
    """Tie rows to the registered agents that they are, and untie those that were retired.

    A registration says where it is from by annotation; an agent of the same namespace, name and
    service account is the workload's, too. An account is registered with any agent that runs as it.
    """
    found = Agent.objects.filter(retired_at=None).values_list(
        "uid", "namespace", "name", "service_account", "manifest"
    )
    by_origin: dict[tuple[str, str], UUID] = {}
    by_name: dict[tuple[str, str, str], UUID] = {}
    by_account: dict[tuple[str, str], UUID] = {}
    for uid, namespace, name, account, manifest in found:
        origin = (manifest.get("metadata") or {}).get("annotations", {}).get(FROM, "")
        if origin:
            by_origin[namespace, origin] = uid
        by_name[namespace, name, account] = uid
        if account:
            by_account.setdefault((namespace, account), uid)
    changed = 0
    rows = ClusterWorkload.objects.only(
        "uid", "kind", "namespace", "name", "service_account", "agent_id"
    )
    for row in rows:
        agent = by_origin.get((row.namespace, f"{row.kind}/{row.name}"))
        if agent is None and row.kind == Kind.SERVICE_ACCOUNT:
            agent = by_account.get((row.namespace, row.name))
        elif agent is None:
            name = proposed_name(Holder(row.kind, row.namespace, row.name))
            agent = by_name.get((row.namespace, name, row.service_account))
        if agent != row.agent_id:
            changed += ClusterWorkload.objects.filter(pk=row.pk).update(
                agent_id=agent, changed_at=timezone.now()
            )
    return changed


def entry_of(row: ClusterWorkload) -> Entry:
    """What a proposal is made of."""
    return Entry(
        holder=Holder(row.kind, row.namespace, row.name),
        images=list(row.images),
        service_account=row.service_account,
        facts=dict(row.facts),
    )


def register_entry(row: ClusterWorkload, *, actor: Actor) -> Registered:
    """Register the agent that is proposed; again, when it is registered, changes nothing.

    Raises:
        CatalogueConflict: its image is not known, or an agent of that name is something else.
    """
    proposal = propose(entry_of(row))
    manifest = proposal.manifest
    if manifest.image == UNKNOWN_IMAGE:
        raise CatalogueConflict(
            f"{row}: its image is not known here. Fill in the proposed manifest and apply it with "
            "`clearance apply -f`."
        )
    origin = manifest.annotations[FROM]
    with journaled():
        known = Agent.objects.filter(
            namespace=manifest.namespace, name=manifest.name, retired_at=None
        ).first()
        if known is None:
            registered = register_agent(manifest, actor=actor)
        elif _origin(known) == origin or known.pk == row.agent_id:
            # What people have made of the registration since is not overwritten.
            registered = Registered(known, Outcome.UNCHANGED)
        else:
            raise CatalogueConflict(
                f"An agent {known} is registered already, from something else. Change the name "
                "in the proposed manifest and apply it with `clearance apply -f`."
            )
        ClusterWorkload.objects.filter(pk=row.pk).update(
            agent=registered.agent, ignored_at=None, ignored_by="", ignored_reason="",
            changed_at=timezone.now(),
        )  # fmt: skip
        if row.agent_id != registered.agent.pk:
            _journal(row, "catalogue.registered", actor, agent=str(registered.agent.pk))
    return registered


def _origin(agent: Agent) -> str:
    metadata = agent.manifest.get("metadata") or {}
    return str(metadata.get("annotations", {}).get(FROM, ""))


def ignore_entry(row: ClusterWorkload, *, reason: str, actor: Actor) -> bool:
    """Say that it is no agent; False when that was said already. Raises CatalogueConflict."""
    if row.agent_id is not None:
        raise CatalogueConflict(f"{row} is registered: it is an agent.")
    with journaled():
        is_news = ClusterWorkload.objects.filter(pk=row.pk, ignored_at=None).update(
            ignored_at=timezone.now(), ignored_by=actor.id, ignored_reason=reason[:REASON_MAX],
            changed_at=timezone.now(),
        )  # fmt: skip
        if is_news:
            _journal(row, "catalogue.ignored", actor, reason=reason[:REASON_MAX])
    return bool(is_news)


def restore_entry(row: ClusterWorkload, *, actor: Actor) -> bool:
    """Take the mark back; False when there was none."""
    with journaled():
        is_news = ClusterWorkload.objects.filter(pk=row.pk, ignored_at__isnull=False).update(
            ignored_at=None, ignored_by="", ignored_reason="", changed_at=timezone.now()
        )
        if is_news:
            _journal(row, "catalogue.restored", actor)
    return bool(is_news)


def _journal(row: ClusterWorkload, action: str, actor: Actor, **body: str) -> None:
    append_record(
        action=action,
        actor=actor,
        object_kind="workload",
        object_id=str(row.pk),
        namespace=row.namespace,
        body={"kind": row.kind, "name": row.name, "score": row.score, **body},
    )
