"""Whether a workload can run at all, and whether two requests ask for the same one."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from agents.cluster.base import WorkloadInvalid, WorkloadSpec

# RFC 1123 label, as Kubernetes asks of a Job's name.
NAME_PATTERN = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def check_name(name: str) -> str:
    """The name itself. Raises WorkloadInvalid when it is no DNS-1123 label (and so no path)."""
    if not NAME_PATTERN.fullmatch(name):
        raise WorkloadInvalid(
            f"name {name!r} is not a DNS-1123 label: use at most 63 of a-z, 0-9 and '-', "
            "beginning and ending with a letter or digit."
        )
    return name


def check_spec(spec: WorkloadSpec, *, gpu_count: int) -> None:
    """Raises WorkloadInvalid naming the first field that can never run on `gpu_count` GPUs."""
    check_name(spec.name)
    if not spec.command or not spec.command[0]:
        raise WorkloadInvalid(f"command of {spec.name} is empty: name a program.")
    if any("\0" in word for word in spec.command):
        raise WorkloadInvalid(f"command of {spec.name} contains a NUL character.")
    for key, value in spec.environment.items():
        if not key or "=" in key or "\0" in key + value:
            raise WorkloadInvalid(f"environment of {spec.name}: {key!r} is not a variable's name.")
    if spec.gpus < 0:
        raise WorkloadInvalid(f"gpus of {spec.name} is {spec.gpus}: use 0 or more.")
    if spec.gpus > gpu_count:
        raise WorkloadInvalid(
            f"gpus of {spec.name} is {spec.gpus}, and this cluster has {gpu_count}: ask for fewer."
        )
    if spec.memory_bytes is not None and spec.memory_bytes <= 0:
        raise WorkloadInvalid(f"memory_bytes of {spec.name} must be above 0.")
    deadline = spec.deadline_seconds
    if deadline is not None and not (math.isfinite(deadline) and deadline > 0):
        raise WorkloadInvalid(f"deadline_seconds of {spec.name} must be a number above 0.")
    if spec.output_bytes_max < 0:
        raise WorkloadInvalid(f"output_bytes_max of {spec.name} must be 0 or more.")
    if spec.gpu_allowance_ms is not None:
        check_allowance(spec.gpu_allowance_ms)


def check_allowance(gpu_ms: int) -> None:
    """Raises WorkloadInvalid for a negative allowance."""
    if gpu_ms < 0:
        raise WorkloadInvalid(f"gpu_allowance_ms is {gpu_ms}: use 0 or more GPU-milliseconds.")


def check_grace(seconds: float) -> None:
    """Raises WorkloadInvalid for a grace that is no number of seconds."""
    if not (math.isfinite(seconds) and seconds >= 0):
        raise WorkloadInvalid(f"grace_seconds is {seconds}: use 0 or more seconds.")


def check_slice(offset: int, limit: int) -> None:
    """Raises WorkloadInvalid for a slice of output that cannot be."""
    if offset < 0 or limit < 0:
        raise WorkloadInvalid("offset and limit of an output are 0 or more bytes.")


def spec_content(spec: WorkloadSpec) -> Mapping[str, Any]:
    """The request as JSON would give it back: equal contents are the same request."""
    content = asdict(spec)
    content["command"] = list(spec.command)
    content["environment"] = dict(spec.environment)
    content["labels"] = dict(spec.labels)
    return content
