"""Workload inputs in the shapes policies are written for, with quantities as numbers."""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

# Names under which device plug-ins offer GPUs; a MIG slice counts as one, the upper bound.
GPU_RESOURCE = re.compile(
    r"^(gpu|(nvidia|amd)\.com/gpu(\.shared)?|nvidia\.com/mig-[a-z0-9.]+|gpu\.intel\.com/(i915|xe)"
    r"|habana\.ai/gaudi)$"
)
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
_QUANTITY = re.compile(
    r"^(?P<number>[+-]?(\d+(\.\d*)?|\.\d+))(?P<suffix>[eE][+-]?\d{1,3}|[KMGTPE]i|[numkMGTPE]?)$"
)
_BINARY = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_CONTAINER_LISTS = ("containers", "initContainers", "ephemeralContainers")
# Where each kind of workload keeps the pod it will make.
_TEMPLATE_PATHS: Mapping[str, tuple[str, ...]] = {
    "Deployment": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "PodTemplate": ("template",),
}
MAX_LIST_ITEMS = 10_000  # objects judged out of one `List`; more is refused rather than skipped


class UnreadableInput(ValueError):
    """A field that a policy would compare cannot be read; the text names it."""


def parse_quantity(value: object, *, field: str) -> int | float:
    """A Kubernetes quantity as a number (`500m` is 0.5, `1Gi` is 1073741824).

    Raises `UnreadableInput` naming `field`.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    match = _QUANTITY.match(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise UnreadableInput(f"{field}: {str(value)[:80]!r} is not a quantity such as 2 or 500m")
    suffix = match["suffix"]
    try:
        number = Decimal(match["number"])
    except InvalidOperation as error:
        raise UnreadableInput(f"{field}: {str(value)[:80]!r} is not a number") from error
    if suffix in _BINARY:
        number *= _BINARY[suffix]
    elif suffix in _DECIMAL:
        number = number.scaleb(_DECIMAL[suffix])
    else:
        number = number.scaleb(int(suffix[1:]))
    return int(number) if number == number.to_integral_value() else float(number)


def workload_input(document: Mapping[str, Any]) -> dict[str, Any]:
    """The object at the root, plus `request` (AdmissionReview) and `review` (Gatekeeper).

    `document` is a Kubernetes object, or an AdmissionReview around one. Containers get `gpu` as a
    number in `resources.limits`, and every quantity in `resources.limits_normalised` and
    `resources.requests_normalised` (cores, bytes, counts). Raises `UnreadableInput`.
    """
    request = document.get("request")
    if document.get("kind") == "AdmissionReview" and isinstance(request, dict):
        source = request.get("object") or request.get("oldObject") or {}
    else:
        source, request = document, document.get("request")
    if not isinstance(source, dict):
        raise UnreadableInput("request.object: must be a Kubernetes object")
    extra = {key: source[key] for key in ("request", "review", "parameters") if key in source}
    subject = normalised_object({key: source[key] for key in source if key not in extra})
    full_request = {**_admission_request(subject), **(request if isinstance(request, dict) else {})}
    full_request["object"] = subject
    review = extra.get("review")
    full_review = {**full_request, **(review if isinstance(review, dict) else {})}
    full_review["object"] = subject
    parameters = extra.get("parameters", document.get("parameters"))
    return {
        **subject,
        "request": full_request,
        "review": full_review,
        **({} if parameters is None else {"parameters": parameters}),
    }


def workload_documents(
    given: Mapping[str, Any], *, parameters: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """All that is judged for one workload: itself, and what it contains (`derived_objects`).

    `parameters` are the bundle's, for an input that brings none. Raises `UnreadableInput`.
    """
    first = workload_input({"parameters": parameters, **given})
    # What is inside is asked for by the same request; its own kind replaces the outer one's.
    request = {key: value for key, value in first["request"].items() if key != "kind"}
    context = {"request": request, "parameters": first["parameters"]}
    inner = derived_objects(request["object"])
    return [first, *(workload_input({**item, **context}) for item in inner)]


def derived_objects(subject: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The objects inside: items of a `List`, and the Pod that a Job or Deployment would make.

    Raises `UnreadableInput` when a list is too long to judge whole.
    """
    kind = subject.get("kind")
    items = subject.get("items")
    if isinstance(kind, str) and kind.endswith("List") and isinstance(items, list):
        if len(items) > MAX_LIST_ITEMS:
            raise UnreadableInput(f"items: {len(items)} objects, at most {MAX_LIST_ITEMS} allowed")
        for item in items:
            if isinstance(item, dict):
                yield item
                yield from derived_objects(item)
        return
    template: object = subject
    for step in _TEMPLATE_PATHS.get(str(kind), ()):
        template = template.get(step) if isinstance(template, Mapping) else None
    if template is not subject and isinstance(template, Mapping):
        yield _pod_from(template, owner=subject)


def graph_input(document: Mapping[str, Any]) -> dict[str, Any]:
    """The graph with `tasks[].gpus` as numbers. Raises `UnreadableInput` naming the task."""
    tasks = document.get("tasks")
    if not isinstance(tasks, list):
        return dict(document)
    if all(isinstance(task, dict) and _is_number(task.get("gpus", 0)) for task in tasks):
        return dict(document)
    return {
        **document,
        "tasks": [_numbered_task(task, index) for index, task in enumerate(tasks)],
    }


def normalised_object(subject: Mapping[str, Any]) -> dict[str, Any]:
    """The object with the quantities of its own containers as numbers, wherever its pod is."""
    path = _TEMPLATE_PATHS.get(str(subject.get("kind")), ())
    return _with_pod_spec(subject, (*path, "spec"), field="")


def _with_pod_spec(
    level: Mapping[str, Any], steps: tuple[str, ...], *, field: str
) -> dict[str, Any]:
    changed = dict(level)
    step = steps[0]
    inner = level.get(step)
    if isinstance(inner, dict):
        where = f"{field}.{step}" if field else step
        changed[step] = (
            _normalised_spec(inner, field=where)
            if len(steps) == 1
            else _with_pod_spec(inner, steps[1:], field=where)
        )
    return changed


def _normalised_spec(spec: dict[str, Any], *, field: str) -> dict[str, Any]:
    changed = dict(spec)
    for name in _CONTAINER_LISTS:
        containers = spec.get(name)
        if isinstance(containers, list):
            changed[name] = [
                _normalised_container(container, field=f"{field}.{name}[{index}]")
                for index, container in enumerate(containers)
            ]
    return changed


def _normalised_container(container: object, *, field: str) -> object:
    resources = container.get("resources") if isinstance(container, dict) else None
    if not isinstance(container, dict) or not isinstance(resources, dict):
        return container
    limits = _quantities(resources.get("limits"), field=f"{field}.resources.limits")
    requests = _quantities(resources.get("requests"), field=f"{field}.resources.requests")
    # Kubernetes wants both alike for a GPU; where they differ the larger one is judged.
    gpus = max((_gpu_sum(amounts) for amounts in (limits, requests)), default=0)
    changed = dict(resources)
    for name, amounts in (("limits", limits), ("requests", requests)):
        if amounts is None and not (name == "limits" and gpus):
            continue
        raw = resources.get(name)
        numeric = {key: value for key, value in (amounts or {}).items() if GPU_RESOURCE.match(key)}
        counted = {"gpu": gpus} if gpus or numeric else {}
        changed[name] = {**(raw if isinstance(raw, dict) else {}), **numeric, **counted}
        changed[f"{name}_normalised"] = {**(amounts or {}), **counted}
    return {**container, "resources": changed}


def _quantities(amounts: object, *, field: str) -> dict[str, int | float] | None:
    if amounts is None:
        return None
    if not isinstance(amounts, dict):
        raise UnreadableInput(f"{field}: must be a mapping of resource names to quantities")
    return {
        str(name): parse_quantity(value, field=f"{field}.{name}") for name, value in amounts.items()
    }


def _gpu_sum(amounts: Mapping[str, int | float] | None) -> int | float:
    """GPUs over all resource names; a plain `gpu` beside named ones repeats them, so the larger."""
    named = [
        value
        for name, value in (amounts or {}).items()
        if name != "gpu" and GPU_RESOURCE.match(name)
    ]
    return max(sum(named), (amounts or {}).get("gpu", 0))


def _numbered_task(task: object, index: int) -> object:
    if not isinstance(task, dict) or "gpus" not in task or _is_number(task["gpus"]):
        return task
    return {**task, "gpus": parse_quantity(task["gpus"], field=f"tasks[{index}].gpus")}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _admission_request(subject: Mapping[str, Any]) -> dict[str, Any]:
    metadata = subject.get("metadata")
    named = metadata if isinstance(metadata, dict) else {}
    group, _, version = str(subject.get("apiVersion", "")).rpartition("/")
    return {
        "uid": str(named.get("uid", "")),
        "kind": {"group": group, "version": version, "kind": subject.get("kind", "")},
        "name": named.get("name", ""),
        "namespace": named.get("namespace", ""),
        "operation": "CREATE",
        "userInfo": {},
    }


def _pod_from(template: Mapping[str, Any], *, owner: Mapping[str, Any]) -> dict[str, Any]:
    metadata = template.get("metadata")
    named = dict(metadata) if isinstance(metadata, dict) else {}
    parent = owner.get("metadata")
    inherited = parent if isinstance(parent, dict) else {}
    for key in ("name", "namespace"):
        if key in inherited:
            named.setdefault(key, inherited[key])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": named,
        "spec": template.get("spec") or {},
    }
