"""`manage.py operator` as people start it: from kubectl to the row, and an orderly end."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import ROOT, install_resources
from tests.cluster.control_plane import CONTEXT, ControlPlane

pytestmark = [pytest.mark.slow, pytest.mark.contract]

PATIENCE_SECONDS = 90.0
EXAMPLE = ROOT / "examples" / "checkout"


def until(holds: Callable[[], Any], what: str, process: "subprocess.Popen[bytes]") -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := holds()):
        assert process.poll() is None, f"the operator ended with {process.returncode}"
        assert time.monotonic() < deadline, f"never {what}"
        time.sleep(0.2)
    return found


def manage(*words: str, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, str(ROOT / "manage.py"), *words]
    return subprocess.Popen(command, env=environment, cwd=ROOT)


def test_the_seeds_goal_from_kubectl_to_the_row_and_back(
    plane: ControlPlane, tmp_path: Path
) -> None:
    install_resources(plane)
    plane.add_namespace("checkout-shop")
    goals = "/apis/orchestration.ai/v1/namespaces/checkout-shop/goals"
    agents = "/apis/orchestration.ai/v1/namespaces/checkout-shop/agents"
    environment = {
        "PATH": os.environ["PATH"],
        "CLEARANCE_DATA": str(tmp_path / "data"),
        "CLUSTER_URL": f"kubernetes:{CONTEXT}",
        "KUBECONFIG": str(plane.kubeconfig),
        "REDIS_URL": "redis://127.0.0.1:1",  # doorbells may be missing
    }
    (tmp_path / "data").mkdir(mode=0o700)
    assert manage("migrate", "-v0", environment=environment).wait(PATIENCE_SECONDS) == 0
    process = manage("operator", environment=environment)
    try:
        for document in yaml.safe_load_all((EXAMPLE / "agents.yaml").read_text()):
            name = document["metadata"]["name"]
            document["metadata"] = {"name": name.replace("_", "-")}
            document["spec"]["name"] = name
            plane.request("POST", agents, document)
        goal = yaml.safe_load((EXAMPLE / "goal.yaml").read_text())
        plane.request("POST", goals, goal)
        name = goal["metadata"]["name"]

        def accepted() -> Any:
            status = plane.request("GET", f"{goals}/{name}").get("status") or {}
            conditions = {one["type"]: one["status"] for one in status.get("conditions") or []}
            return status if conditions.get("Accepted") == "True" else None

        status = until(accepted, "accepted", process)
        assert (status["phase"], status["limit"]) == ("Draft", "50 GPU-minutes")
        with sqlite3.connect(f"file:{tmp_path}/data/clearance.sqlite3?mode=ro", uri=True) as rows:
            (row,) = rows.execute("SELECT name, namespace, requested_by FROM goals_goal").fetchall()
        assert row == (name, "checkout-shop", "kubernetes")
        lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/clearance-operator"
        assert str(process.pid) in plane.request("GET", lease)["spec"]["holderIdentity"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert not plane.request("GET", lease)["spec"].get("holderIdentity")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


def test_a_cluster_that_is_none_is_said(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "operator"],
        env={"PATH": os.environ["PATH"], "CLEARANCE_DATA": str(tmp_path)},
        cwd=ROOT, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert b"set it to kubernetes:CONTEXT" in done.stderr
