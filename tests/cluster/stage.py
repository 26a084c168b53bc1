"""Everything at once: a control plane, a node of real processes, and a tower that works with both.

`python -m tests.cluster.stage DIRECTORY` keeps it running for people with kubectl until Ctrl-C.
"""

import argparse
import contextlib
import json
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from tests.cluster.conftest import install_resources
from tests.cluster.control_plane import (
    BUILT,
    CONTEXT,
    ControlPlane,
    MissingControlPlane,
    control_plane,
)
from tests.cluster.kubelet import kubelet
from tests.console.real_tower import RealTower, eventually, free_ports

PERSON = "developer"  # who kubectl is, for people
GPUS = 4  # of the one node; none is real
READY = "Clearance is ready at "
READY_SECONDS = 240.0  # on a machine that is busy with much else


@dataclass(frozen=True, slots=True)
class Stage:
    """A cluster whose pods run, and Clearance on it."""

    plane: ControlPlane
    tower: RealTower
    pods: Path  # UID/CONTAINER.log of each pod


@contextlib.contextmanager
def stage(
    directory: Path,
    *,
    gpus: int = GPUS,
    server_arguments: Sequence[str] = (),
    entrypoints: Mapping[str, Sequence[str]] | None = None,
    **variables: str,
) -> Iterator[Stage]:
    """All of it, ready; ended afterwards. `variables` are the tower's.

    Raises MissingControlPlane.
    """
    (directory / "plane").mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        plane = stack.enter_context(control_plane(directory / "plane", *server_arguments))
        install_resources(plane)
        stack.enter_context(
            kubelet(plane.kubeconfig, directory / "node", gpus=gpus, entrypoints=entrypoints)
        )
        settings = {
            "CLUSTER_URL": f"kubernetes:{CONTEXT}",
            "KUBECONFIG": str(plane.kubeconfig),
            "ADMISSION_PORT": str(free_ports(1)[0]),
            **variables,
        }
        tower = RealTower(directory, **settings)
        stack.callback(tower.close)
        tower.start()
        eventually(lambda: READY in tower.said(), seconds=READY_SECONDS)
        yield Stage(plane, tower, directory / "node" / "pods")


def _somebodys_kubeconfig(plane: ControlPlane) -> Path:
    """One of a person who is not `admin`, whom four eyes would keep from approving."""
    content = json.loads(plane.kubeconfig.read_text())
    content["users"][0]["user"] |= {"as": PERSON, "as-groups": ["system:masters"]}
    path = plane.directory / f"{PERSON}.kubeconfig"
    path.write_text(json.dumps(content))
    return path


def main() -> int:
    """Keep a stage for people."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--gpus", type=int, default=GPUS)
    parser.add_argument("variables", nargs="*", metavar="NAME=VALUE", help="of the tower")
    options = parser.parse_args()
    variables = dict(word.split("=", 1) for word in options.variables)
    over = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        over.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        with stage(options.directory.resolve(), gpus=options.gpus, **variables) as running:
            print(running.tower.said())
            kubeconfig = _somebodys_kubeconfig(running.plane)
            print(f"export KUBECONFIG={kubeconfig} PATH={BUILT}:$PATH", flush=True)
            over.wait()
    except MissingControlPlane as missing:
        print(missing, file=sys.stderr)
        return 77
    return 0


if __name__ == "__main__":
    sys.exit(main())
