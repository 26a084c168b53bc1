"""Drafts of Goals: checked and planned without effect, cloned, edited, begun from an example."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from django.conf import settings
from django.db import transaction

from agents.domain.documents import load_documents
from agents.domain.problems import FieldProblem, ManifestError
from goals.domain.forecast import Total
from goals.domain.graph import TaskGraph
from goals.domain.manifest import GoalManifest, parse_goal
from goals.domain.manifest_form import write_form
from goals.domain.manifest_text import ManifestText, Place, UneditableText, parse_path
from goals.domain.states import Unit
from goals.models import Goal
from goals.services.apply import Applied, GoalConflict, apply_goal, check_goal
from goals.services.metering import GPU_PRICE, PriceUnknown, price_of
from goals.services.planning import manifest_of, preview_graph
from governance.access import Principal
from governance.domain import Permission
from governance.services.decisions import Judgement

EXAMPLES_MAX = 50  # offered to begin from
NAME_MAX = 63  # of a Goal
MS_PER_SECOND = 1000
MS_PER_HOUR = 3_600_000
_PLACED = re.compile(r"line (\d+), column (\d+): (.*)", re.DOTALL)
_CHARACTER = re.compile(r"\bat character (\d+)\b")
_DOCUMENT = re.compile(r"^---[^\n]*\n", re.MULTILINE)
_NUMBERED = re.compile(r"-\d+$")


@dataclass(frozen=True, slots=True)
class PlacedProblem:
    """A problem with its place in the text; `place` is None where it has none."""

    path: str
    message: str
    place: Place | None


@dataclass(frozen=True, slots=True)
class PriceRange:
    """What it may cost in micro-USD: one pass at its median to every pass at its P90.

    Both are None when it is unknown, and `why` says for want of what.
    """

    low: int | None
    high: int | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Need:
    """One dimension of the budget: what one pass needs at P90 (None unknown) and what is given."""

    unit: Unit
    needed: int | None
    at_least: int  # the part that is known
    given: int | None  # None: the budget does not limit it

    @property
    def is_short(self) -> bool:
        """Is the budget less than what one pass is known to need?"""
        return self.given is not None and self.at_least > self.given


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a manifest would do if it were applied now."""

    manifest: GoalManifest
    graph: TaskGraph
    judgement: Judgement
    price: PriceRange
    needs: tuple[Need, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A Goal of the examples to begin from."""

    key: str
    name: str
    objective: str
    text: str


def read_draft(text: str) -> GoalManifest:
    """The one Goal of a text. Raises ManifestError."""
    documents = load_documents(text)
    if len(documents) != 1:
        raise ManifestError(
            [FieldProblem("", f"One Goal at a time: the text holds {len(documents)} documents.")]
        )
    return parse_goal(documents[0])


def problems_of(text: str, *, principal: Principal) -> list[PlacedProblem]:
    """What is wrong with a draft, in order of place; what is registered counts, policy does not."""
    try:
        manifest = read_draft(text)
        found: Sequence[FieldProblem] = _refusal(manifest, principal)
        if not found:
            check_goal(manifest)
    except ManifestError as error:
        found = error.problems
    return sorted(placed(text, found), key=_order)


def _refusal(manifest: GoalManifest, principal: Principal) -> list[FieldProblem]:
    """What is registered in a namespace is told to those who work there alone."""
    if principal.may(Permission.OPERATE, namespace=manifest.namespace):
        return []
    whom = principal.whom_to_ask(Permission.OPERATE, namespace=manifest.namespace)
    words = f"needs the role operator in namespace {manifest.namespace}; {whom}"
    return [FieldProblem("metadata.namespace", words)]


def _order(problem: PlacedProblem) -> tuple[int, int]:
    place = problem.place
    return (place.line, place.column) if place else (0, 0)


def placed(text: str, problems: Sequence[FieldProblem]) -> list[PlacedProblem]:
    """The problems of a manifest, each with its line and column in the text."""
    try:
        manifest = ManifestText(text)
    except (ManifestError, UneditableText):
        manifest = None
    return [_placed(manifest, problem) for problem in problems]


def _placed(manifest: ManifestText | None, problem: FieldProblem) -> PlacedProblem:
    if found := _PLACED.fullmatch(problem.message):
        line, column, message = found.groups()
        return PlacedProblem(problem.path, message, Place(int(line), int(column)))
    if manifest is None:
        return PlacedProblem(problem.path, problem.message, None)
    path = parse_path(problem.path)
    place = manifest.place_of(path)
    if within := _CHARACTER.search(problem.message):
        offset = int(within.group(1)) - 1 + manifest.quote_of(path)
        if 0 < offset < place.length:
            place = Place(place.line, place.column + offset, place.length - offset)
    return PlacedProblem(problem.path, problem.message, place)


def dry_run(manifest: GoalManifest, *, principal: Principal) -> DryRun:
    """Plan and judge without keeping anything. Raises NotAllowed, ManifestError."""
    principal.require(Permission.OPERATE, namespace=manifest.namespace)
    graph = check_goal(manifest)
    judgement = preview_graph(graph, requested_by=principal.username)
    return DryRun(
        manifest,
        graph,
        judgement,
        price_range(graph, passes=manifest.spec.max_iterations),
        needs_of(graph, manifest),
    )


def price_range(graph: TaskGraph, *, passes: int) -> PriceRange:
    """From the price table: GPU time and what the agents declare to spend besides."""
    total = graph.total_estimate()
    seconds, money = total.gpu_seconds, total.micro_usd
    if seconds.p50 is None or seconds.p90 is None:
        return PriceRange(None, None, _without_estimate(seconds, "GPU time"))
    price = 0
    if seconds.p90 > 0:
        try:
            price = price_of("gpu", GPU_PRICE)
        except PriceUnknown as error:
            return PriceRange(None, None, str(error))
    low = round(seconds.p50 * MS_PER_SECOND * price / MS_PER_HOUR + money.known_p50)
    high = round((seconds.p90 * MS_PER_SECOND * price / MS_PER_HOUR + money.known_p90) * passes)
    return PriceRange(low, high, "" if money.p90 is not None else _besides(total.tokens))


def _without_estimate(total: Total, what: str) -> str:
    several = "s have" if total.unknown_tasks != 1 else " has"
    return f"{total.unknown_tasks} task{several} no estimate of {what}."


def _besides(tokens: Total) -> str:
    return "GPU time alone" + (
        "; tokens are not priced in." if tokens.p90 is None or tokens.p90 > 0 else "."
    )


def needs_of(graph: TaskGraph, manifest: GoalManifest) -> tuple[Need, ...]:
    """What one pass needs of each dimension at P90, beside what the budget gives."""
    total = graph.total_estimate()
    given: Mapping[str, int] = manifest.spec.budget.amounts()
    rows = (
        (Unit.GPU_MS, total.gpu_seconds, MS_PER_SECOND),
        (Unit.TOKENS, total.tokens, 1),
        (Unit.MICRO_USD, total.micro_usd, 1),
    )
    return tuple(
        Need(
            unit,
            None if sums.p90 is None else round(sums.p90 * scale),
            round(sums.known_p90 * scale),
            given.get(unit.value),
        )
        for unit, sums, scale in rows
        if unit.value in given or sums.known_p90 > 0
    )


def apply_edit(
    manifest: GoalManifest, *, goal: Goal, generation: int, principal: Principal
) -> Applied:
    """Apply a changed manifest to the Goal it was begun from, unless that changed meanwhile.

    Raises NotAllowed, ManifestError, GoalConflict.
    """
    if (manifest.namespace, manifest.name) != (goal.namespace, goal.name):
        raise ManifestError(
            [
                FieldProblem(
                    "metadata.name", f"must stay {goal}: clone it to make another Goal of it."
                )
            ]
        )
    with transaction.atomic():
        held = Goal.objects.select_for_update().get(pk=goal.pk)
        if held.generation != generation:
            by = held.editors[-1] if len(held.editors) == 1 else "somebody"
            raise GoalConflict(
                f"{goal} was changed by {by} meanwhile: it is generation {held.generation} and you "
                f"began from {generation}. Nothing was kept; look at the change, then apply again."
            )
        return apply_goal(manifest, principal=principal)


def manifest_text(goal: Goal, *, name: str = "") -> str:
    """The Goal's manifest as YAML, under another name if one is given."""
    document = manifest_of(goal).to_document()
    document["spec"]["objective"] = goal.objective
    if name:
        document["metadata"]["name"] = name
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=4096))


def fresh_name(namespace: str, name: str) -> str:
    """The name itself if it is free in the namespace, else with the next number behind it."""
    taken = set(
        Goal.objects.filter(
            namespace=namespace,
            deleted_at__isnull=True,
            name__startswith=_NUMBERED.sub("", name)[: NAME_MAX - 8],
        ).values_list("name", flat=True)
    )
    if name not in taken:
        return name
    stem, number = _NUMBERED.sub("", name), 2
    while (candidate := f"{stem[: NAME_MAX - len(str(number)) - 1]}-{number}") in taken:
        number += 1
    return candidate


@cache
def examples() -> tuple[Example, ...]:
    """The Goals in the manifests of `examples/`, with their comments; none where none ship."""
    found = []
    folder = Path(settings.BASE_DIR) / "examples"
    for path in sorted(folder.glob("*/*.yaml")):
        for number, part in enumerate(_DOCUMENT.split(path.read_text(encoding="utf-8"))):
            if example := _example(f"{path.parent.name}/{path.stem}", number, part):
                found.append(example)
    return tuple(found[:EXAMPLES_MAX])


def _example(stem: str, number: int, text: str) -> Example | None:
    try:
        (document,) = load_documents(text)
        manifest = parse_goal(document)
        goal = ManifestText(text)
        if "status" in document:
            goal.remove(("status",))
    except (ManifestError, UneditableText, ValueError):
        return None
    key = f"{stem}/{number}" if number else stem
    return Example(key, manifest.name, manifest.spec.objective.text, goal.text)


def example_text(key: str) -> str:
    """An example under a name that is free, "" when there is no such example."""
    example: Any = next((one for one in examples() if one.key == key), None)
    if example is None:
        return ""
    namespace = read_draft(example.text).namespace
    text, _ = write_form(example.text, {"name": fresh_name(namespace, example.name)})
    return text
