"""Ways to go on with less: what there is to take from a Goal, and whether an answer takes it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from django.db.models import Max

from goals.domain.degrade import Degradation, DegradeInvalid, parse_degradation
from goals.models import Goal
from goals.services.degrade import degradation_of, iterations_allowed, open_tasks
from goals.services.planning import graph_document
from governance.domain import ApprovalInvalid, ModelPrice, ModelWay, Ways


def ways_to_degrade(goal: Goal) -> Ways:
    """What there is to take now; prices of models are left unknown, see `priced_ways`."""
    now = degradation_of(goal)
    tasks = open_tasks(goal)
    names = list(tasks.values_list("name", flat=True))
    return Ways(
        gpus=now.gpus_of(tasks.aggregate(most=Max("gpus"))["most"] or 0),
        parallel=len(names) if now.parallel is None else min(now.parallel, len(names)),
        iterations=max(iterations_allowed(goal) - goal.iteration, 0),
        models=_model_ways(goal, now, names) if names else (),
    )


def _model_ways(goal: Goal, now: Degradation, names: Sequence[str]) -> tuple[ModelWay, ...]:
    """The models that open tasks list after the one they use first, in the agents' order."""
    is_open = frozenset(names)
    lists = Counter(
        now.models_of(node["agent"]["models"])
        for node in graph_document(goal)["tasks"]
        if node["name"] in is_open and node["agent"].get("models")
    )
    tasks: Counter[str] = Counter()
    instead_of: dict[str, dict[str, None]] = {}
    for (first, *smaller), count in lists.items():
        for name in smaller:
            tasks[name] += count
            instead_of.setdefault(name, {})[first] = None
    return tuple(
        ModelWay(ModelPrice(name), tuple(ModelPrice(one) for one in bigger), tasks[name])
        for name, bigger in instead_of.items()
    )


def check_degradation(goal: Goal, document: Any) -> Degradation:
    """The degradation, if it takes something from the Goal. Raises ApprovalInvalid."""
    try:
        wanted = parse_degradation(document)
    except DegradeInvalid as error:
        raise ApprovalInvalid(str(error)) from error
    ways = ways_to_degrade(goal)
    if wanted.gpus is not None and wanted.gpus >= ways.gpus:
        raise ApprovalInvalid(
            f"degrade.gpus: no open task gets more than {ways.gpus} GPUs: enter less."
        )
    if wanted.parallel is not None and wanted.parallel >= ways.parallel:
        raise ApprovalInvalid(
            f"degrade.parallel: {ways.parallel} tasks are open at once: enter less."
        )
    if wanted.last_iteration and not ways.iterations:
        raise ApprovalInvalid("degrade.last_iteration: this iteration is the last anyway.")
    _check_models(wanted, ways)
    return wanted


def _check_models(wanted: Degradation, ways: Ways) -> None:
    smaller = [one.name for one in ways.models]
    if not wanted.models or set(wanted.models) <= set(smaller):
        return
    if not smaller:
        raise ApprovalInvalid("degrade.model: no open task has a smaller model: leave it out.")
    wrong = next(one for one in wanted.models if one not in smaller)
    raise ApprovalInvalid(
        f"degrade.model: no open task lists {wrong!r} after the model it uses first: "
        f"choose {' or '.join(smaller)}."
    )
