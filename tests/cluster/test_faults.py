"""The operator and the adapter when everything goes wrong: they end where nothing went wrong.

`N` is how many perturbed runs (300), `OUTAGE_SECONDS` how long the API server is away (20; all
times of these operators are a tenth of those in life, so that 20 s are many leases and pauses).
"""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.cluster.kubernetes.api import object_path
from goals.operator.mirror import GOALS
from goals.operator.resources import AGREED
from tests.cluster.conftest import ROOT, install_resources
from tests.cluster.control_plane import CONTEXT, ControlPlane, Refusal
from tests.cluster.fault_plan import CALM, Kill, Plan
from tests.cluster.fault_proxy import FaultProxy, Route, fault_proxy

pytestmark = [pytest.mark.slow, pytest.mark.contract]

RUNS = int(os.environ.get("N", "300"))
OUTAGE_SECONDS = float(os.environ.get("OUTAGE_SECONDS", "20"))
LANES = 16
NODE = "storm-node"
GPUS = 64
SECONDS_A_RUN = 4.0  # ten times what one takes with two cores
TERM_SECONDS = 3
PATIENCE_SECONDS = 60.0
LEASES = "apis/coordination.k8s.io/v1/leases"
MERGE = "application/merge-patch+json"


@pytest.fixture
def gpus(plane: ControlPlane) -> Iterator[None]:
    """A node for the GPUs of many attempts at once; no other test sees it."""
    install_resources(plane)
    plane.add_node(NODE, gpus=GPUS)
    yield
    plane.request("DELETE", f"/api/v1/nodes/{NODE}")


def storm(plane: ControlPlane, directory: Path, *words: str) -> list[dict[str, Any]]:
    """What each run came to."""
    where = directory / "plane.json"
    where.write_text(
        json.dumps({"url": plane.url, "token": plane.token, "directory": str(plane.directory)})
    )
    log = directory / "storm.log"
    command = [sys.executable, "-m", "tests.cluster.storm", str(where), *words]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, check=False,
        env={**os.environ, "STORM_LOG": str(log)},
    )  # fmt: skip
    *runs, last = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = [
        f"{one['story']} of seed {one['seed']}: {one['wrong']}" for one in runs if one["wrong"]
    ]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(runs)} runs:", *wrong])
    assert (last["touched"], last["died"], done.returncode) == ([], [], 0)
    return runs


@pytest.mark.timeout(300 + RUNS * SECONDS_A_RUN)
@pytest.mark.usefixtures("gpus")
def test_perturbed_runs_end_as_the_unperturbed_one(plane: ControlPlane, tmp_path: Path) -> None:
    runs = storm(plane, tmp_path, "--count", str(RUNS), "--lanes", str(LANES))
    assert len(runs) == RUNS
    faults, kills = (sum(one[what] for one in runs) for what in ("faults", "kills"))
    assert faults > RUNS
    assert kills > RUNS / 10
    print(f"{RUNS} runs: {faults} faults of requests, {kills} kills")


@pytest.mark.timeout(300 + 2 * OUTAGE_SECONDS)
@pytest.mark.usefixtures("gpus")
def test_after_an_outage_everything_is_as_if_there_had_been_none(
    plane: ControlPlane, tmp_path: Path
) -> None:
    words = ("--count", "14", "--lanes", "14", "--outage", str(OUTAGE_SECONDS))
    runs = storm(plane, tmp_path, *words)
    hit = [one for one in runs if one["seconds"] > OUTAGE_SECONDS]
    assert len(hit) >= len(runs) - 2, runs  # a story may have been told before it began


# --- Real processes ------------------------------------------------------------------------------


class Crew:
    """Operators as people start them, of one database, each on a way of its own to the cluster."""

    numbers = itertools.count(1)

    def __init__(self, plane: ControlPlane, proxy: FaultProxy, directory: Path) -> None:
        self.plane, self.proxy, self.directory = plane, proxy, directory
        self.namespace = f"crew-{next(self.numbers)}"
        self.collection = object_path(GOALS, self.namespace)
        self.processes: list[subprocess.Popen[bytes]] = []
        install_resources(plane)
        plane.add_namespace(self.namespace)
        (directory / "data").mkdir(mode=0o700)
        assert self._start("migrate", "-v0", CALM)[0].wait(PATIENCE_SECONDS) == 0
        self._declare_agent()

    def operator(self, plan: Plan = CALM) -> "tuple[subprocess.Popen[bytes], Route]":
        """One more operator; killed where its plan says so."""
        process, route = self._start(
            "operator", "--namespace", self.namespace, "--only-namespace", self.namespace,
            "--lease-seconds", str(TERM_SECONDS), plan,
        )  # fmt: skip
        route.on_kill = process.kill
        return process, route

    def _start(self, *words: Any) -> "tuple[subprocess.Popen[bytes], Route]":
        *command, plan = words
        route = self.proxy.route(f"{self.namespace}-{next(self.numbers)}", plan)
        environment = {
            "PATH": os.environ["PATH"],
            "CLEARANCE_DATA": str(self.directory / "data"),
            "CLUSTER_URL": f"kubernetes:{CONTEXT}",
            "KUBECONFIG": str(route.kubeconfig(self.directory)),
            "REDIS_URL": "redis://127.0.0.1:1",
        }
        with (self.directory / "operators.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), *command],
                env=environment, cwd=ROOT, stdout=log, stderr=log,
            )  # fmt: skip
        self.processes.append(process)
        return process, route

    def _declare_agent(self) -> None:
        path = object_path("apis/orchestration.ai/v1/agents", self.namespace)
        spec = {"image": "examples/profiler:1.0", "role": "worker"}
        self.plane.request(
            "POST", path,
            {"apiVersion": "orchestration.ai/v1", "kind": "Agent",
             "metadata": {"name": "profiler"}, "spec": spec},
        )  # fmt: skip

    def apply(self, name: str) -> None:
        spec = {
            "objective": "p99 latency < 120 ms for /checkout", "budget": "5 GPU-minutes",
            "agents": ["profiler"],
        }  # fmt: skip
        body = {"apiVersion": "orchestration.ai/v1", "kind": "Goal", "metadata": {"name": name}}
        self.plane.request("POST", self.collection, {**body, "spec": spec})

    def label(self, name: str, value: str) -> None:
        change = {"metadata": {"labels": {"turn": value}}}
        self.plane.request("PATCH", f"{self.collection}/{name}", change, content_type=MERGE)

    def agreed(self, name: str) -> str:
        found = self.plane.request("GET", f"{self.collection}/{name}")
        return str((found["metadata"].get("annotations") or {}).get(AGREED, ""))

    def is_said(self, name: str) -> bool:
        """All of it: both sides agree, and the resource says how it stands."""
        return bool(self.agreed(name)) and "status" in self.plane.request(
            "GET", f"{self.collection}/{name}"
        )

    def holder(self) -> str:
        """Who leads, as the Lease says: the process's id."""
        path = f"/{LEASES.rpartition('/')[0]}/namespaces/{self.namespace}/leases"
        with contextlib.suppress(Refusal):
            found = self.plane.request("GET", f"{path}/clearance-operator")
            return str(found["spec"].get("holderIdentity") or "").rpartition("_")[2]
        return ""

    def until(self, holds: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            assert time.monotonic() < deadline, f"never {what}: {self.log()}"
            time.sleep(0.05)

    def until_leads(self, process: "subprocess.Popen[bytes]") -> None:
        self.until(lambda: self.holder() == str(process.pid), "led")

    def log(self) -> str:
        return (self.directory / "operators.log").read_text()[-3000:]

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait(10)
        for found in self.plane.request("GET", self.collection)["items"]:
            path = f"{self.collection}/{found['metadata']['name']}"
            with contextlib.suppress(Refusal):
                change = {"metadata": {"finalizers": []}}
                self.plane.request("PATCH", path, change, content_type=MERGE)
                self.plane.request("DELETE", path)


@pytest.fixture
def crew(plane: ControlPlane, tmp_path: Path) -> Iterator[Crew]:
    with fault_proxy(plane) as proxy:
        made = Crew(plane, proxy, tmp_path)
        yield made
        made.close()


def took_over_at(route: Route) -> float:
    """When the server said for the first time that this one leads."""
    led = [c.answered_at for c in route.writes() if "/leases" in c.path]
    return min(led)


@pytest.mark.timeout(240)
def test_a_leader_that_was_stopped_writes_nothing_after_another_led(crew: Crew) -> None:
    """Stopped for three terms with a write on its way, which arrives when another has led."""
    first, way = crew.operator()
    crew.until_leads(first)
    second, other_way = crew.operator()
    crew.apply("held")
    crew.until(lambda: crew.agreed("held"), "agreed")
    way.holds = lambda method, path: method == "PATCH" and "/goals/held" in path
    crew.label("held", "one")
    crew.until(way.held.is_set, "held")
    first.send_signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    before = crew.agreed("held")
    for number in range(5):
        crew.apply(f"meanwhile-{number}")
    crew.until_leads(second)
    crew.until(lambda: crew.agreed("held") != before, "agreed by the other")
    time.sleep(max(0.0, stopped_at + 3 * TERM_SECONDS - time.monotonic()))
    way.holds = lambda _method, _path: False
    way.released.set()
    first.send_signal(signal.SIGCONT)
    for number in range(5):
        crew.label(f"meanwhile-{number}", "two")
        crew.label("held", f"two-{number}")
        time.sleep(TERM_SECONDS / 5)
    led_at = took_over_at(other_way)
    late = [call for call in way.calls if call.is_write and call.answered_at > led_at]
    assert [call for call in late if 200 <= call.status < 300] == []
    assert any(call.status == 409 for call in late)  # the one that was held
    assert first.poll() is None
    second.terminate()  # and the first leads again, once the other has gone
    assert second.wait(PATIENCE_SECONDS) == 0
    crew.until_leads(first)
    before = crew.agreed("held")
    crew.label("held", "three")
    crew.until(lambda: crew.agreed("held") != before, "agreed by the first again")


@pytest.mark.timeout(240)
def test_killed_between_writes_for_real_it_leaves_nothing_undone(crew: Crew) -> None:
    kills = tuple(Kill(write, is_after) for write in (2, 3) for is_after in (False, True))
    plan, killed = Plan(kills=kills), 0
    crew.apply("one")
    while True:
        process, route = crew.operator(plan)
        crew.until(lambda p=process: crew.is_said("one") or p.poll() is not None, "said")
        if crew.is_said("one"):
            break
        assert process.wait(10) == -signal.SIGKILL
        plan, killed = route.remaining(), killed + 1
    assert killed >= 2
    found = crew.plane.request("GET", f"{crew.collection}/one")
    assert found["metadata"]["annotations"][AGREED].split("/")[1] == "1"
