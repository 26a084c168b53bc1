"""Goal manifests: the custom resource `Goal` of `orchestration.ai/v1` as a value.

apiVersion: orchestration.ai/v1
kind: Goal
metadata: {name: reduce-p99-latency}
spec:
  objective: "p99 latency < 120 ms for /checkout"
  budget: 50 GPU-minutes
  agents: [profiler, optimizer, canary_deployer]
  # optional, with their defaults:
  sponsor: ""                         # user who answers for it
  parent: ""                          # Goal whose budget this one narrows
  deadlineSeconds: null
  maxIterations: 3
  retries: 2                          # per task
  requireApproval: false
  priority: 0
  throttle: {softLimitPercent: 80, gpusOnPause: Release}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from agents.domain.fields import Fields
from agents.domain.metadata import API_VERSION, Metadata, read_metadata
from agents.domain.naming import check_agent_name, check_line, check_name
from agents.domain.problems import FieldProblem, ManifestError
from goals.domain.budget import TEXT_MAX as BUDGET_MAX
from goals.domain.budget import Budget, parse_budget
from goals.domain.objective import TEXT_MAX as OBJECTIVE_MAX
from goals.domain.objective import Objective, parse_objective
from goals.domain.syntax import TextSyntaxError

KIND: Final = "Goal"
AGENTS_MAX: Final = 10_000  # as many as a graph may have tasks
SPONSOR_MAX: Final = 150  # characters, as a user name
DEADLINE_MAX: Final = 366 * 86_400
ITERATIONS_MAX: Final = 1000
RETRIES_MAX: Final = 100
PRIORITY_MAX: Final = 1000
DEFAULT_ITERATIONS: Final = 3
DEFAULT_RETRIES: Final = 2
DEFAULT_SOFT_LIMIT_PERCENT: Final = 80

STATUS_NOTE: Final = "status is written by Clearance; the one in this manifest was ignored."
FLAT_NOTE: Final = (
    "The indentation was lost: metadata and spec are empty and their fields stand beside them. "
    "They were read as if indented."
)
_FLAT_METADATA = ("name", "namespace", "labels", "annotations")
_FLAT_STATUS = ("phase", "satisfied", "conditions", "observedGeneration")


class GpusOnPause(StrEnum):
    """What becomes of a paused task's GPUs."""

    RELEASE = "Release"
    HOLD = "Hold"


@dataclass(frozen=True, slots=True)
class Throttle:
    """When spending warns, and what pausing does."""

    soft_limit_percent: int = DEFAULT_SOFT_LIMIT_PERCENT
    gpus_on_pause: GpusOnPause = GpusOnPause.RELEASE


@dataclass(frozen=True, slots=True)
class GoalSpec:
    """What is asked. Equal when the same is asked, however it was spelt."""

    objective: Objective
    budget: Budget
    agents: tuple[str, ...]  # in the order listed, which breaks ties between tasks
    sponsor: str = ""
    parent: str = ""
    deadline_seconds: int | None = None
    max_iterations: int = DEFAULT_ITERATIONS
    retries: int = DEFAULT_RETRIES
    require_approval: bool = False
    priority: int = 0
    throttle: Throttle = field(default_factory=Throttle)
    budget_text: str = field(default="", compare=False)  # as it was written

    def spec_document(self) -> dict[str, Any]:
        """Every field in canonical spelling, defaults written out: equal specs, equal documents."""
        return {
            "objective": self.objective.canonical(),
            "budget": self.budget.as_text(),
            "agents": list(self.agents),
            "sponsor": self.sponsor,
            "parent": self.parent,
            "deadlineSeconds": self.deadline_seconds,
            "maxIterations": self.max_iterations,
            "retries": self.retries,
            "requireApproval": self.require_approval,
            "priority": self.priority,
            "throttle": {
                "softLimitPercent": self.throttle.soft_limit_percent,
                "gpusOnPause": self.throttle.gpus_on_pause.value,
            },
        }


@dataclass(frozen=True, slots=True)
class GoalManifest:
    """A Goal as it was applied. `notes` say what was accepted but not taken as written."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: GoalSpec
    notes: tuple[str, ...] = field(default=(), compare=False)

    def spec_document(self) -> dict[str, Any]:
        """The spec in canonical form (see `GoalSpec.spec_document`)."""
        return self.spec.spec_document()

    def to_document(self, status: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The manifest as plain JSON, as its author spelt it; fields at their default left out.

        `parse_goal` of it gives an equal value.
        """
        spec = self.spec_document()
        defaults = GoalSpec(self.spec.objective, self.spec.budget, ()).spec_document()
        required = ("objective", "budget", "agents")
        written = {
            key: value for key, value in spec.items() if key in required or value != defaults[key]
        }
        written["objective"] = self.spec.objective.text
        written["budget"] = self.spec.budget_text or spec["budget"]
        metadata = Metadata(self.name, self.namespace, self.labels, self.annotations)
        document: dict[str, Any] = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": metadata.document(),
            "spec": written,
        }
        if status is not None:
            document["status"] = dict(status)
        return document


def parse_goal(document: Mapping[str, Any]) -> GoalManifest:
    """The Goal a document states. Raises `ManifestError` with every problem there is."""
    notes: list[str] = []
    problems: list[FieldProblem] = []
    if _is_flat(document):
        notes.append(FLAT_NOTE)
        document = _regrouped(document)
    fields = Fields(document, "", problems)
    metadata = read_metadata(fields, kind=KIND, check_name=check_name)
    spec = _read_spec(fields.fields("spec", is_required=True))
    if fields.has("status"):
        notes.append(STATUS_NOTE)
    fields.ignore("status")
    fields.close()
    if problems or spec is None:
        raise ManifestError(problems)
    if spec.parent == metadata.name:
        raise ManifestError([FieldProblem("spec.parent", "must be another Goal, not this one")])
    return GoalManifest(
        metadata.name,
        metadata.namespace,
        metadata.labels,
        metadata.annotations,
        spec,
        tuple(notes),
    )


def _is_flat(document: object) -> bool:
    """Was the manifest copied from a page that dropped its indentation?"""
    return (
        isinstance(document, Mapping)
        and {"metadata", "spec", "name", "objective"} <= document.keys()
        and document["metadata"] is None
        and document["spec"] is None
    )


def _regrouped(document: Mapping[str, Any]) -> dict[str, Any]:
    grouped: dict[str, Any] = {"metadata": {}, "spec": {}}
    for key, value in document.items():
        if key in ("apiVersion", "kind"):
            grouped[key] = value
        elif key in _FLAT_METADATA:
            grouped["metadata"][key] = value
        elif key in _FLAT_STATUS:
            grouped.setdefault("status", {})[key] = value
        elif key not in ("metadata", "spec", "status"):
            grouped["spec"][key] = value
    return grouped


def _read_spec(fields: Fields) -> GoalSpec | None:
    objective_text = fields.text(
        "objective", is_required=True, max_length=OBJECTIVE_MAX, check=_any_text
    )
    budget_text = fields.text("budget", is_required=True, max_length=BUDGET_MAX, check=_any_text)
    agents = fields.texts("agents", is_required=True, max_items=AGENTS_MAX, check=check_agent_name)
    deadline = fields.whole("deadlineSeconds", low=1, high=DEADLINE_MAX)
    iterations = fields.whole("maxIterations", low=1, high=ITERATIONS_MAX)
    retries = fields.whole("retries", low=0, high=RETRIES_MAX)
    priority = fields.whole("priority", low=-PRIORITY_MAX, high=PRIORITY_MAX)
    rest: dict[str, Any] = {
        "sponsor": fields.text("sponsor", max_length=SPONSOR_MAX, check=check_line),
        "parent": fields.text("parent", check=check_name),
        "deadline_seconds": deadline,
        "max_iterations": DEFAULT_ITERATIONS if iterations is None else iterations,
        "retries": DEFAULT_RETRIES if retries is None else retries,
        "require_approval": fields.boolean("requireApproval", default=False),
        "priority": priority or 0,
        "throttle": _read_throttle(fields.fields("throttle")),
    }
    fields.close()
    objective = _read_objective(fields, objective_text)
    budget = _read_budget(fields, budget_text)
    if objective is None or budget is None:
        return None
    return GoalSpec(objective, budget, agents, budget_text=budget_text.strip(), **rest)


def _any_text(_: str) -> str:
    return ""  # the grammar says what is wrong, and where


def _read_objective(fields: Fields, text: str) -> Objective | None:
    if not text:
        return None
    try:
        return parse_objective(text)
    except TextSyntaxError as error:
        fields.refuse("objective", _without_noun(error))
        return None


def _read_budget(fields: Fields, text: str) -> Budget | None:
    if not text:
        return None
    try:
        return parse_budget(text)
    except TextSyntaxError as error:
        fields.refuse("budget", _without_noun(error))
        return None


def _without_noun(error: TextSyntaxError) -> str:
    return str(error).removeprefix(f"{error.noun}: ")


def _read_throttle(fields: Fields) -> Throttle:
    percent = fields.whole("softLimitPercent", low=1, high=100)
    gpus_on_pause = fields.choice(
        "gpusOnPause", [choice.value for choice in GpusOnPause], default=GpusOnPause.RELEASE
    )
    fields.close()
    return Throttle(
        DEFAULT_SOFT_LIMIT_PERCENT if percent is None else percent, GpusOnPause(gpus_on_pause)
    )
