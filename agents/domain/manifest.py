"""Agent manifests: what an agent is, needs, consumes, produces, costs and may touch.

apiVersion: orchestration.ai/v1
kind: Agent
metadata: {name: optimizer, namespace: default}
spec:
  role: standard                      # any label; policies know experimental, revenue-critical
  image: registry.example/agents/optimizer:1.4
  command: [python, -m, optimizer]
  serviceAccountName: optimizer       # none given: none assumed, a policy may deny it
  env: {BATCH: "64"}
  resources: {limits: {nvidia.com/gpu: 1, memory: 2Gi}}
  consumes: [latency-profile, {name: orders, external: true}]
  produces: [candidate-model]
  estimate: {seconds: 60, gpuSeconds: 60, tokens: 0, usd: "0.02"}
  scope: {releases: [checkout/production], artifacts: [model], targets: [checkout-risk]}
  watch: [latency]                    # metrics it observes
  models: [gpt-4.1, gpt-4.1-mini]     # language models it can work with: the preferred one first,
                                      # each next one smaller; the first it may use now is in its
                                      # environment as CLEARANCE_MODEL. Left out: none is named,
                                      # so none is offered to who approves, and none is refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from agents.domain.documents import load_documents
from agents.domain.fields import Fields, key_path, said
from agents.domain.metadata import API_VERSION, Metadata, read_metadata
from agents.domain.naming import (
    GPU_RESOURCE,
    IMAGE_MAX,
    check_agent_name,
    check_environment_name,
    check_image,
    check_label,
    check_model,
    check_no_nul,
    check_release,
    check_thing,
)
from agents.domain.problems import FieldProblem, ManifestError
from agents.domain.quantity import bytes_quantity

__all__ = [
    "AgentManifest",
    "Estimate",
    "FieldProblem",
    "ManifestError",
    "load_documents",
    "parse_agent",
]

KIND: Final = "Agent"
DEFAULT_ROLE: Final = "standard"
GPUS_MAX: Final = 1024
MEMORY_MIN: Final = 1 << 20
MEMORY_MAX: Final = 1 << 44  # 16 TiB
COMMAND_MAX: Final = 256  # words
ENVIRONMENT_MAX: Final = 256  # variables
ENVIRONMENT_VALUE_MAX: Final = 32 << 10  # characters; Linux allows 128 KiB a variable
THINGS_MAX: Final = 10_000  # an agent may gather what every other task of a graph produced
SCOPE_MAX: Final = 1000
MODELS_MAX: Final = 16  # steps down; more than any provider has sizes of one model
ESTIMATE_SECONDS_MAX: Final = 366 * 86_400.0
ESTIMATE_GPU_SECONDS_MAX: Final = GPUS_MAX * ESTIMATE_SECONDS_MAX
ESTIMATE_TOKENS_MAX: Final = 10**12
ESTIMATE_MICRO_USD_MAX: Final = 10**15
_MICRO_USD_PER_USD: Final = 10**6
_DECIMAL: Final = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,30})?")


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one run is declared to cost; None where the author does not know."""

    seconds: float | None = None
    gpu_seconds: float | None = None
    tokens: int | None = None
    micro_usd: int | None = None

    def document(self) -> dict[str, Any]:
        """The `estimate` of a manifest; unknown amounts are left out."""
        document: dict[str, Any] = {}
        if self.seconds is not None:
            document["seconds"] = self.seconds
        if self.gpu_seconds is not None:
            document["gpuSeconds"] = self.gpu_seconds
        if self.tokens is not None:
            document["tokens"] = self.tokens
        if self.micro_usd is not None:
            document["usd"] = format(Decimal(self.micro_usd) / _MICRO_USD_PER_USD, "f")
        return document


@dataclass(frozen=True, slots=True)
class AgentManifest:
    """An agent as its author declares it. `scope` always has its three keys."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    role: str
    image: str
    command: tuple[str, ...] = ()
    service_account: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0
    memory_bytes: int | None = None
    consumes: tuple[str, ...] = ()
    external: tuple[str, ...] = ()  # of what it consumes: comes from outside the graph
    produces: tuple[str, ...] = ()
    estimate: Estimate = field(default_factory=Estimate)
    scope: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {"releases": (), "artifacts": (), "targets": ()}
    )
    watch: tuple[str, ...] = ()
    models: tuple[str, ...] = ()  # the preferred first, each next one smaller

    def to_document(self) -> dict[str, Any]:
        """The manifest as plain JSON; `parse_agent` of it gives an equal value."""
        metadata = Metadata(self.name, self.namespace, self.labels, self.annotations)
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": metadata.document(),
            "spec": self._spec(),
        }

    def _spec(self) -> dict[str, Any]:
        limits: dict[str, Any] = {GPU_RESOURCE: self.gpus} if self.gpus else {}
        if self.memory_bytes is not None:
            limits["memory"] = bytes_quantity(self.memory_bytes)
        spec: dict[str, Any] = {
            "role": self.role,
            "image": self.image,
            "command": list(self.command),
            "serviceAccountName": self.service_account,
            "env": dict(self.env),
            "resources": {"limits": limits} if limits else {},
            "consumes": [
                {"name": thing, "external": True} if thing in self.external else thing
                for thing in self.consumes
            ],
            "produces": list(self.produces),
            "estimate": self.estimate.document(),
            "scope": {key: list(entries) for key, entries in self.scope.items() if entries},
            "watch": list(self.watch),
            "models": list(self.models),
        }
        return {key: value for key, value in spec.items() if value}


def parse_agent(document: Mapping[str, Any]) -> AgentManifest:
    """The agent a document declares. Raises `ManifestError` with every problem there is."""
    problems: list[FieldProblem] = []
    fields = Fields(document, "", problems)
    metadata = read_metadata(fields, kind=KIND, check_name=check_agent_name)
    spec = fields.fields("spec", is_required=True)
    agent = _read_spec(spec, metadata)
    spec.close()
    fields.ignore("status")
    fields.close()
    if problems:
        raise ManifestError(problems)
    return agent


def _read_spec(spec: Fields, metadata: Metadata) -> AgentManifest:
    resources = spec.fields("resources")
    limits = resources.fields("limits")
    consumes, external = _read_consumes(spec)
    agent = AgentManifest(
        name=metadata.name,
        namespace=metadata.namespace,
        labels=metadata.labels,
        annotations=metadata.annotations,
        role=spec.text("role", default=DEFAULT_ROLE, check=check_label),
        image=spec.text("image", is_required=True, max_length=IMAGE_MAX, check=check_image),
        command=spec.texts(
            "command",
            is_unique=False,
            max_items=COMMAND_MAX,
            max_length=ENVIRONMENT_VALUE_MAX,
            check=check_no_nul,
        ),
        service_account=spec.text("serviceAccountName", check=check_label),
        env=_read_environment(spec),
        gpus=limits.quantity(GPU_RESOURCE, low=0, high=GPUS_MAX) or 0,
        memory_bytes=limits.quantity("memory", low=MEMORY_MIN, high=MEMORY_MAX),
        consumes=consumes,
        external=external,
        produces=spec.texts("produces", max_items=THINGS_MAX, check=check_thing),
        estimate=_read_estimate(spec.fields("estimate")),
        scope=_read_scope(spec.fields("scope")),
        watch=spec.texts("watch", max_items=SCOPE_MAX, max_length=120),
        models=spec.texts("models", max_items=MODELS_MAX, check=check_model),
    )
    limits.close()
    resources.close()
    return agent


def _read_environment(spec: Fields) -> dict[str, str]:
    """`env` as a mapping, or as Kubernetes writes it: a list of `{name, value}`."""
    listed = spec.mapping.get("env")
    if not isinstance(listed, list):
        return spec.text_map(
            "env",
            check_key=check_environment_name,
            check_value=check_no_nul,
            max_items=ENVIRONMENT_MAX,
            max_length=ENVIRONMENT_VALUE_MAX,
        )
    variables: dict[str, str] = {}
    for index, entry in enumerate(spec.items("env", max_items=ENVIRONMENT_MAX)):
        path = f"{key_path(spec.path, 'env')}[{index}]"
        variable = Fields(entry, path, spec.problems)
        name = variable.text("name", is_required=True, check=check_environment_name)
        value = variable.text("value", max_length=ENVIRONMENT_VALUE_MAX, check=check_no_nul)
        variable.close()
        if name in variables:
            variable.refuse("name", f"{said(name)} is listed twice")
        variables[name] = value
    return variables


def _read_consumes(spec: Fields) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is consumed, and which of it is external: entries are names or `{name, external}`."""
    consumes: dict[str, bool] = {}
    for index, entry in enumerate(spec.items("consumes", max_items=THINGS_MAX)):
        path = f"{key_path(spec.path, 'consumes')}[{index}]"
        given = entry if isinstance(entry, Mapping) else {"name": entry}
        thing = Fields(given, path, spec.problems)
        name = thing.text("name", is_required=True, check=check_thing)
        is_external = thing.boolean("external", default=False)
        thing.close()
        if name and name in consumes:
            spec.problems.append(FieldProblem(path, f"{said(name)} is listed twice"))
        consumes[name] = is_external
    return tuple(consumes), tuple(name for name, is_external in consumes.items() if is_external)


def _read_estimate(fields: Fields) -> Estimate:
    estimate = Estimate(
        seconds=fields.number("seconds", low=0, high=ESTIMATE_SECONDS_MAX),
        gpu_seconds=fields.number("gpuSeconds", low=0, high=ESTIMATE_GPU_SECONDS_MAX),
        tokens=fields.whole("tokens", low=0, high=ESTIMATE_TOKENS_MAX),
        micro_usd=_read_micro_usd(fields),
    )
    fields.close()
    return estimate


def _read_micro_usd(fields: Fields) -> int | None:
    """`usd`, a number or a decimal text, exact to the micro-USD."""
    fields.ignore("usd")
    value = fields.mapping.get("usd")
    if value is None:
        return None
    written = value
    if isinstance(value, int | float) and not isinstance(value, bool):
        written = format(Decimal(repr(value)), "f")  # the decimal the author wrote
    if not isinstance(written, str) or not _DECIMAL.fullmatch(written):
        fields.refuse("usd", f'must be an amount such as "0.02", not {said(value)}')
        return None
    micro_usd = Fraction(written) * _MICRO_USD_PER_USD
    if micro_usd.denominator != 1:
        fields.refuse("usd", f"must be exact to the millionth, not {said(value)}")
        return None
    if not 0 <= micro_usd <= ESTIMATE_MICRO_USD_MAX:
        highest = ESTIMATE_MICRO_USD_MAX // _MICRO_USD_PER_USD
        fields.refuse("usd", f"must be from 0 to {highest}, not {said(value)}")
        return None
    return int(micro_usd)


def _read_scope(fields: Fields) -> dict[str, tuple[str, ...]]:
    scope = {
        "releases": fields.texts("releases", max_items=SCOPE_MAX, check=check_release),
        "artifacts": fields.texts("artifacts", max_items=SCOPE_MAX, check=check_thing),
        "targets": fields.texts("targets", max_items=SCOPE_MAX, max_length=512),
    }
    fields.close()
    return scope
