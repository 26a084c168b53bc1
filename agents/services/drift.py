"""Drift: where what runs differs from what is registered now, and what it reads that is bad."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agents.domain.manifest import AgentManifest, parse_agent
from agents.domain.problems import ManifestError
from agents.domain.states import ACTIVE_STATES
from agents.models import Agent, AgentRevision, Attempt
from lineage.models import Artifact, Edge

ATTEMPTS_MAX: Final = 100  # running attempts of an agent that are compared, the newest
DIGESTS_MAX: Final = 500  # artifacts they read
NOT_SET: Final = "not set"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that an attempt runs otherwise than the registration says."""

    what: str
    running: str
    registered: str


@dataclass(frozen=True, slots=True)
class ReadDigest:
    """An artifact that an attempt read: `standing` is recalled, in force or not released."""

    digest: str
    name: str
    kind: str
    standing: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AttemptDrift:
    """What is to say of one running attempt; `generation` None when it began before it was kept."""

    attempt: Attempt
    generation: int | None
    differences: tuple[Difference, ...]
    digests: tuple[ReadDigest, ...]

    @property
    def has_drifted(self) -> bool:
        return bool(self.differences) or any(d.standing == "recalled" for d in self.digests)


def drift_of(agent: Agent, *, released: Iterable[str] = ()) -> list[AttemptDrift]:
    """The running attempts of an agent, newest first, each compared with the registration now.

    `released` are the digests that some environment of the agent's namespace serves. Compared are
    image, command, environment, service account, role, GPUs, memory and scope, as the cluster was
    told them; what the program does inside is not seen. Two queries and one more for the digests.
    """
    running = Attempt.objects.filter(agent=agent, state__in=ACTIVE_STATES)
    attempts = list(running.order_by("-created_at")[:ATTEMPTS_MAX])
    if not attempts:
        return []
    registered = registered_manifest(agent)
    began = list(agent.revisions.values_list("created_at", "generation"))
    digests = _digests_of(attempts, released=frozenset(released))
    return [
        AttemptDrift(
            attempt=attempt,
            generation=next((number for at, number in began if at <= attempt.created_at), None),
            differences=tuple(differences(attempt, registered)) if registered else (),
            digests=tuple(digests.get(str(attempt.uid), ())),
        )
        for attempt in attempts
    ]


def registered_manifest(agent: Agent) -> AgentManifest | None:
    """The registration as a value, None when an older version wrote what this one cannot read."""
    try:
        return parse_agent(agent.manifest)
    except ManifestError:
        return None


def differences(attempt: Attempt, registered: AgentManifest) -> list[Difference]:
    """Where the attempt was started otherwise than the agent is registered now."""
    spec: Mapping[str, Any] = attempt.specification
    pairs = [
        ("image", spec.get("image", ""), registered.image),
        ("command", _command(spec.get("command", ())), _command(registered.command)),
        ("service account", attempt.service_account, registered.service_account),
        ("role", attempt.agent_role, registered.role),
        ("GPUs", str(attempt.gpus), str(registered.gpus)),
        ("memory", _bytes(spec.get("memory_bytes")), _bytes(registered.memory_bytes)),
        ("scope", _scope(spec.get("scope") or {}), _scope(registered.scope)),
    ]
    found = [Difference(what, one, other) for what, one, other in pairs if one != other]
    return [*found, *_environment(spec.get("env", {}), registered.env)]


def revisions_of(agent: Agent, *, limit: int) -> list[AgentRevision]:
    """The newest generations of a registration."""
    return list(agent.revisions.order_by("-generation")[:limit])


def _environment(running: Mapping[str, str], registered: Mapping[str, str]) -> list[Difference]:
    return [
        Difference(f"env {name}", running.get(name, NOT_SET), registered.get(name, NOT_SET))
        for name in sorted({*running, *registered})
        if running.get(name) != registered.get(name)
    ]


def _digests_of(
    attempts: list[Attempt], *, released: frozenset[str]
) -> dict[str, list[ReadDigest]]:
    edges = Edge.objects.filter(
        source_kind="attempt", source_id__in=[str(one.uid) for one in attempts], relation="used"
    ).values_list("source_id", "target_id")[:DIGESTS_MAX]
    pairs = list(edges)
    artifacts = {
        one.digest: one
        for one in Artifact.objects.filter(
            digest__in={digest for _, digest in pairs}, namespace=attempts[0].namespace
        )
    }
    found: dict[str, list[ReadDigest]] = {}
    for uid, digest in pairs:
        if digest in artifacts:
            found.setdefault(uid, []).append(_read(artifacts[digest], released=released))
    return found


def _read(artifact: Artifact, *, released: frozenset[str]) -> ReadDigest:
    standing = "in force" if artifact.digest in released else "not released"
    if artifact.recalled_at is not None:
        standing = "recalled"
    return ReadDigest(
        artifact.digest, artifact.name, artifact.kind, standing, artifact.recall_reason
    )


def _command(words: Iterable[str]) -> str:
    return " ".join(words) or "of the image"


def _bytes(number: int | None) -> str:
    return "no limit" if number is None else f"{number:,} bytes"


def _scope(scope: Mapping[str, Iterable[str]]) -> str:
    said = [f"{kind}: {', '.join(entries)}" for kind, entries in sorted(scope.items()) if entries]
    return "; ".join(said) or "nothing"
