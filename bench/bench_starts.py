"""Goals started a second on Kubernetes, beside plain Jobs on the same API server.

One after the other in one process each: Goals as a worker starts them, `kubectl create job`, and
the requests for a Secret and a Job alone, which is what an attempt is at the least.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from agents.cluster.base import WorkloadSpec
from agents.cluster.kubernetes.api import KubernetesApi, RateLimit, object_path
from agents.cluster.kubernetes.cluster import JOBS, SECRETS
from agents.cluster.kubernetes.objects import job, secret
from agents.cluster.kubernetes.record import new_record
from bench.on_cluster import bench_plane, environment
from tests.cluster.control_plane import CONTEXT, ControlPlane

ROOT = Path(__file__).resolve().parents[1]
GOALS = 60
IMAGE = "registry.example/bench:1.0"
NAMESPACE = "plain"


def goals_a_second(plane: ControlPlane, directory: Path) -> float:
    """Goals as a worker starts them."""
    variables = environment(directory, cluster=f"kubernetes:{CONTEXT}")
    command = [sys.executable, "-m", "bench.start_goals", str(GOALS)]
    done = subprocess.run(
        command, cwd=ROOT, env={**variables, "KUBECONFIG": str(plane.kubeconfig)},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return GOALS / float(done.stdout.splitlines()[-1])


def kubectl_a_second(plane: ControlPlane) -> float | None:
    """The loop that people write; None without kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return None
    began = time.perf_counter()
    for number in range(GOALS):
        subprocess.run(
            [kubectl, f"--kubeconfig={plane.kubeconfig}", f"--namespace={NAMESPACE}",
             "create", "job", f"plain-{number}", f"--image={IMAGE}"],
            stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    return GOALS / (time.perf_counter() - began)


def requests_a_second(plane: ControlPlane) -> float:
    """Secret and Job of an attempt, and nothing around them."""
    limit = RateLimit(per_second=10_000, burst=10_000)
    api = KubernetesApi(CONTEXT, config_file=str(plane.kubeconfig), limit=limit)
    began = time.perf_counter()
    for number in range(GOALS):
        spec = WorkloadSpec(
            name=f"raw-{number}", namespace=NAMESPACE, goal_uid="bench", task="bench",
            attempt_uid=f"raw-{number}", agent="bench", service_account="default", image=IMAGE,
            command=("bench",),
        )  # fmt: skip
        api.create(object_path(SECRETS, NAMESPACE), secret(spec, digest="bench"))
        api.create(object_path(JOBS, NAMESPACE), job(spec, new_record(spec)))
    return GOALS / (time.perf_counter() - began)


def run() -> list[dict[str, Any]]:
    """Goals a second beside each of the two; `ratio` is value / peer."""
    with bench_plane() as (plane, directory):
        plane.add_node("bench-node")
        plane.add_namespace(NAMESPACE)
        raw = requests_a_second(plane)
        plain = kubectl_a_second(plane)
        goals = goals_a_second(plane, directory)
    peers = [("Secret and Job by the API alone", raw), ("kubectl create job", plain)]
    return [
        {
            "name": f"Goals started a second, beside {what}",
            "value": round(goals, 1),
            "unit": "/s",
            "peer": "needs kubectl" if peer is None else f"{peer:.1f} /s",
            "ratio": None if peer is None else round(goals / peer, 3),
        }
        for what, peer in peers
    ]


if __name__ == "__main__":
    for line in run():
        print(f"{line['name']}: {line['value']} {line['unit']}; {line['ratio']} x {line['peer']}")
