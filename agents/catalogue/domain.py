"""What a workload's template says, and how much of that speaks for an agent; no Django.

A score is the sum of its evidences, from 0 to 100. The weights are a judgement, not a measurement:
one strong sign (a key to a model) with a weak one is enough, weak ones alone are not.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from agents.survey.domain import Holder, Kind

LOOKS_LIKE: Final = 50  # from this score on it looks like an agent
SCORE_MAX: Final = 100
NAMES_TOLD: Final = 4  # of variables or images in one sentence
NIGHT_HOURS: Final = frozenset({22, 23, 0, 1, 2, 3, 4, 5})
DEFAULT_ACCOUNT: Final = "default"


class Standing(StrEnum):
    """What the catalogue says of an entry."""

    REGISTERED = "registered"
    LOOKS = "looks like an agent"
    IGNORED = "ignored"
    OTHER = "nothing speaks for an agent"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One sign, how much it weighs (0 to 100), and what was seen."""

    code: str
    points: int
    text: str

    def document(self) -> dict[str, Any]:
        return {"code": self.code, "points": self.points, "text": self.text}


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateFacts:
    """A workload's template: names, images and counts, and never the value of a variable.

    Words of its command are looked at and not kept: people write keys into them.

    `replicas` is None where there is no such number; `may_create` are the kinds of objects with
    which its service account can start more pods.
    """

    holder: Holder
    images: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    service_account: str = DEFAULT_ACCOUNT
    gpus: int = 0
    memory: str = ""  # limit of the first container, as written
    schedule: str = ""
    time_zone: str = ""
    replicas: int | None = None
    is_suspended: bool = False
    may_create: tuple[str, ...] = ()
    rules: tuple[Mapping[str, Any], ...] = field(default_factory=tuple)  # of its account there
    are_rights_known: bool = True  # False where roles or bindings may not be listed
    runs: tuple[str, ...] = ()  # of an account: what runs as it and looks like an agent

    def document(self) -> dict[str, Any]:
        """As it is kept with the row."""
        return {
            "variables": list(self.variables),
            "gpus": self.gpus,
            "memory": self.memory,
            "schedule": self.schedule,
            "time_zone": self.time_zone,
            "replicas": self.replicas,
            "is_suspended": self.is_suspended,
            "may_create": list(self.may_create),
            "are_rights_known": self.are_rights_known,
            "rules": [dict(rule) for rule in self.rules],
            "runs": list(self.runs),
        }


# Programs that drive models by themselves, and what people call such programs.
FRAMEWORKS: Final = frozenset((
    "autogen", "autogpt", "agentgpt", "babyagi", "crewai", "haystack", "langchain", "langflow",
    "langgraph", "langserve", "letta", "llamaindex", "metagpt", "openhands", "opendevin",
    "pydanticai", "semantickernel", "smolagents", "superagi", "swarm", "dify", "flowise", "n8n",
))  # fmt: skip
AGENT_WORDS: Final = frozenset((
    "agent", "agents", "agentic", "assistant", "autopilot", "bot", "bots", "copilot", "crew",
    "llm", "mcp", "planner", "rag", "robot",
))  # fmt: skip
# Called agents, and none: they carry figures, logs and certificates.
INFRASTRUCTURE: Final = frozenset((
    "alloy", "appdynamics", "calico", "cilium", "cloudwatch", "collector", "consul", "csi",
    "datadog", "dynatrace", "elastic", "exporter", "falco", "filebeat", "fluentbit", "fluentd",
    "grafana", "instana", "kubelet", "logging", "metricbeat", "metrics", "monitoring",
    "newrelic", "nginx", "node", "oneagent", "opentelemetry", "otel", "prometheus", "promtail",
    "proxy", "splunk", "telegraf", "vault", "velero", "wazuh", "zabbix",
))  # fmt: skip
# Names of variables by which programs are given the key or the address of a model.
MODEL_VARIABLES: Final = re.compile(
    r"(?:AI21|ANTHROPIC|AZURE_OPENAI|CEREBRAS|COHERE|DEEPSEEK|FIREWORKS|GEMINI|GOOGLE_AI|GROQ"
    r"|HUGGINGFACE|HUGGINGFACEHUB|HUGGING_FACE_HUB|LITELLM|MISTRAL|NVIDIA_NIM|OLLAMA|OPENAI"
    r"|OPENROUTER|PERPLEXITY|REPLICATE|TOGETHER|VOYAGE|WATSONX|XAI)"
    r"(?:_[A-Z0-9]+)*_(?:API_KEY|API_TOKEN|AUTH_TOKEN|TOKEN|KEY|API_BASE|BASE_URL|ENDPOINT|HOST)"
    r"|HF_TOKEN|GOOGLE_API_KEY|BEDROCK_[A-Z_]+|(?:LLM|MODEL)_(?:API_KEY|BASE_URL|ENDPOINT)"
)
TRACING_VARIABLES: Final = re.compile(
    r"(?:LANGCHAIN|LANGSMITH|LANGFUSE|TAVILY|SERPAPI|E2B)_[A-Z_]+"
)
_WORD: Final = re.compile(r"[a-z0-9]+")


def evidence_of(facts: TemplateFacts) -> list[Evidence]:
    """Everything that speaks for an agent, weightiest first; what speaks against has no points."""
    checks = _account_evidence if facts.holder.kind == Kind.SERVICE_ACCOUNT else _template_evidence
    return sorted(checks(facts), key=lambda one: -one.points)


def score_of(evidence: Iterable[Evidence]) -> int:
    """0 to 100."""
    return max(0, min(SCORE_MAX, sum(one.points for one in evidence)))


def _template_evidence(facts: TemplateFacts) -> Iterable[Evidence]:
    yield from _names(facts)
    if keys := [name for name in facts.variables if MODEL_VARIABLES.fullmatch(name)]:
        yield Evidence("model-key", 45, f"is given the key or address of a model: {_some(keys)}")
    if tools := [name for name in facts.variables if TRACING_VARIABLES.fullmatch(name)]:
        yield Evidence("agent-tools", 25, f"is set up for an agent's tools: {_some(tools)}")
    if facts.gpus:
        noun = "GPU" if facts.gpus == 1 else "GPUs"
        text = f"asks for {facts.gpus} {noun}, and no Goal answers for that"
        yield Evidence("unowned-gpus", 25, text)
    if facts.service_account == DEFAULT_ACCOUNT:
        text = "runs as the service account `default`, which says nobody's name"
        yield Evidence("default-account", 15, text)
    yield from _power(facts, points=25)
    yield from _schedule(facts)
    if mutable := [image for image in facts.images if "@sha256:" not in image]:
        text = f"its image can be changed under its name: {_some(mutable)}"
        yield Evidence("mutable-image", 10, text)


def _account_evidence(facts: TemplateFacts) -> Iterable[Evidence]:
    yield from _power(facts, points=40)
    if facts.runs:
        yield Evidence(
            "runs-agents", 30, f"what looks like an agent runs as it: {_some(facts.runs)}"
        )
    if len(facts.runs) > 1:
        text = f"{len(facts.runs)} of them share it: nobody can tell which one acted"
        yield Evidence("shared-account", 20, text)
    if words := _words(facts.holder.name) & (AGENT_WORDS | FRAMEWORKS):
        yield Evidence("name", 20, f"is called like an agent: {_some(sorted(words))}")


def _names(facts: TemplateFacts) -> Iterable[Evidence]:
    said = {
        "name": _words(facts.holder.name),
        "image": {word for image in facts.images for word in _words(_repository(image))},
        "command": {word for part in facts.command[:4] for word in _words(part)},
    }
    every = set().union(*said.values())
    joined = {word for one in (facts.holder.name, *facts.images) for word in _joined(one)}
    if frameworks := (every | joined) & FRAMEWORKS:
        text = f"names a framework for agents: {_some(sorted(frameworks))}"
        yield Evidence("framework", 40, text)
    if infrastructure := (every | joined) & INFRASTRUCTURE:
        said_so = _some(sorted(infrastructure))
        text = f"carries figures or logs by its name ({said_so}): being called agent is no sign"
        yield Evidence("infrastructure", 0, text)
        return
    for where, words in said.items():
        if found := words & AGENT_WORDS:
            yield Evidence("name", 25, f"its {where} says so: {_some(sorted(found))}")
            return


def _power(facts: TemplateFacts, *, points: int) -> Iterable[Evidence]:
    if not facts.are_rights_known:
        text = "what its service account may do is not known: roles or bindings cannot be listed"
        yield Evidence("rights-unknown", 0, text)
    if facts.may_create:
        text = (
            f"its service account may create {_some(facts.may_create)}: it can start more of itself"
        )
        yield Evidence("creates-workloads", points, text)


def _schedule(facts: TemplateFacts) -> Iterable[Evidence]:
    if not facts.schedule:
        return
    zone = facts.time_zone or "the cluster's time zone"
    if is_at_night(facts.schedule):
        text = f"starts by itself at night: {facts.schedule} in {zone}"
        yield Evidence("night-schedule", 15, text)
    else:
        yield Evidence("schedule", 5, f"starts by itself: {facts.schedule} in {zone}")


def is_at_night(schedule: str) -> bool:
    """Whether a cron schedule names hours, and all of them are from 22 to 5."""
    fields = schedule.split()
    if schedule.strip() in ("@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"):
        return True  # all of them at midnight
    if len(fields) != 5 or fields[1].startswith("*"):
        return False
    hours: set[int] = set()
    for part in fields[1].split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        if not (first.isdigit() and (last or first).isdigit() and (step or "1").isdigit()):
            return False
        low, high = int(first), int(last or first)
        if step and not last:
            high = 23
        if not 0 <= low <= high <= 23 or int(step or 1) < 1:
            return False
        hours |= set(range(low, high + 1, int(step or 1)))
    return hours <= NIGHT_HOURS


def creates_workloads(rules: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Kinds of objects that start pods and that these RBAC rules allow to create."""
    found = {
        resource
        for group, resource in STARTERS
        for rule in rules
        if not rule.get("resourceNames") and allows(rule, "create", group, resource)
    }
    return tuple(sorted(found))


STARTERS: Final = (
    ("", "pods"), ("", "replicationcontrollers"), ("apps", "daemonsets"), ("apps", "deployments"),
    ("apps", "replicasets"), ("apps", "statefulsets"), ("batch", "cronjobs"), ("batch", "jobs"),
)  # fmt: skip


def allows(rule: Mapping[str, Any], verb: str, group: str, resource: str) -> bool:
    """Whether one RBAC rule allows that."""
    return (
        _has(rule.get("verbs"), verb)
        and _has(rule.get("apiGroups"), group)
        and _has(rule.get("resources"), resource)
    )


def _has(listed: Any, wanted: str) -> bool:
    return isinstance(listed, list) and ("*" in listed or wanted in listed)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _joined(text: str) -> set[str]:
    """Parts of a path without their hyphens: llama-index is llamaindex."""
    parts = re.split(r"[/:@]", text.lower())
    return {re.sub(r"[-_.]", "", part) for part in parts}


def _repository(image: str) -> str:
    """An image without its host, tag and digest: a host's name says nothing of a program."""
    path = image.partition("@")[0]
    head, slash, rest = path.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        path = rest
    return path.partition(":")[0]


def _some(names: Sequence[str]) -> str:
    left = len(names) - NAMES_TOLD
    told = ", ".join(names[:NAMES_TOLD])
    return f"{told} and {left} more" if left > 0 else told
