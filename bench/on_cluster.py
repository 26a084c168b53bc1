"""What the benches on a real control plane share: its start, and Django on a database of theirs."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.conftest import install_resources
from tests.cluster.control_plane import ControlPlane, MissingControlPlane, control_plane

ENVIRONMENT = {
    "TELEMETRY_URL": "memory:",
    "REGISTRY_URL": "memory:",
    "SIGNING_URL": "memory:",
    "TRUST_DOMAIN_URL": "memory:clearance.bench",
    "REDIS_URL": "redis://127.0.0.1:1",  # nobody hears the doorbell
    "DJANGO_SETTINGS_MODULE": "console.settings",
}


@contextlib.contextmanager
def bench_plane() -> Iterator[tuple[ControlPlane, Path]]:
    """A control plane with our resources, and a directory. Raises RuntimeError without one."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-plane-")))
        (directory / "plane").mkdir()
        try:
            plane = stack.enter_context(control_plane(directory / "plane"))
        except MissingControlPlane as missing:
            raise RuntimeError(str(missing)) from missing
        install_resources(plane)
        yield plane, directory


def environment(directory: Path, *, cluster: str = "memory:?gpus=4") -> dict[str, str]:
    """Variables for a process of ours that keeps its data in this directory."""
    return {
        "PATH": os.environ["PATH"],
        **ENVIRONMENT,
        "CLEARANCE_DATA": str(directory),
        "CLUSTER_URL": cluster,
    }


def write_plane(plane: ControlPlane, directory: Path) -> Path:
    """How another process finds the control plane."""
    path = directory / "plane.json"
    found = {"url": plane.url, "token": plane.token, "directory": str(plane.directory)}
    path.write_text(json.dumps(found))
    return path
