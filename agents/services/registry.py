"""The registry: which agents exist, as their manifests declare them."""

from dataclasses import dataclass
from enum import StrEnum

from django.utils import timezone

from agents.domain.manifest import AgentManifest
from agents.models import Agent, AgentRevision
from governance.services.journal import append_record, journaled
from lineage.domain import Actor


class Outcome(StrEnum):
    """What applying a manifest did."""

    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Registered:
    """The agent and what applying its manifest did."""

    agent: Agent
    outcome: Outcome


def register_agent(manifest: AgentManifest, *, actor: Actor) -> Registered:
    """Register an agent or change it; the same manifest again changes nothing."""
    document = manifest.to_document()
    with journaled():
        agent, is_new = Agent.objects.select_for_update().get_or_create(
            namespace=manifest.namespace,
            name=manifest.name,
            defaults={
                "role": manifest.role,
                "image": manifest.image,
                "service_account": manifest.service_account,
                "manifest": document,
                "registered_by": actor.id,
            },
        )
        if is_new:
            outcome = Outcome.CREATED
        elif agent.manifest == document and agent.retired_at is None:
            return Registered(agent, Outcome.UNCHANGED)
        else:
            outcome = Outcome.CONFIGURED
            Agent.objects.filter(pk=agent.pk).update(
                role=manifest.role,
                image=manifest.image,
                service_account=manifest.service_account,
                manifest=document,
                generation=agent.generation + 1,
                updated_at=timezone.now(),
                retired_at=None,
            )
            agent.refresh_from_db()
        AgentRevision.objects.create(
            agent=agent,
            generation=agent.generation,
            manifest=document,
            registered_by=actor.id,
        )
        append_record(
            action=f"agent.{outcome.value}",
            actor=actor,
            object_kind="agent",
            object_id=str(agent.uid),
            namespace=agent.namespace,
            body={
                "name": agent.name,
                "generation": agent.generation,
                "role": agent.role,
                "image": agent.image,
                "service_account": agent.service_account,
            },
        )
    return Registered(agent, outcome)
