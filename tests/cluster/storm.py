"""Tell stories under seeded faults: `python -m tests.cluster.storm PLANE.json --count 300`.

A process of its own, with a database of its own. Prints one line of JSON for each run: its story,
its seed, what it came to and what was wrong with that (nothing, it is hoped).
"""

import argparse
import json
import logging
import os
import re
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

TWINS = {
    "TELEMETRY_URL": "memory:",
    "REGISTRY_URL": "memory:",
    "SIGNING_URL": "memory:",
    "CLUSTER_URL": "memory:?gpus=4",
    "TRUST_DOMAIN_URL": "memory:clearance.test",
    "REDIS_URL": "redis://127.0.0.1:1",  # nobody hears the doorbell
    "DJANGO_SETTINGS_MODULE": "console.settings",
}
CALLS_TOO_MANY = 3  # the proxy's clock and the client's differ by a few milliseconds


def prepare(directory: Path) -> None:
    """A fresh database in a directory, and Django on it."""
    os.environ.update(TWINS, CLEARANCE_DATA=str(directory))
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from lineage.telemetry import get_telemetry

    get_telemetry().ensure_schema()


def lanes_of(plane: Any, proxy: Any, count: int, directory: Path) -> Iterator[Any]:
    """Namespaces to tell stories in, each with its agent."""
    from agents.cluster.kubernetes.api import KubernetesApi
    from agents.domain.documents import load_documents
    from agents.domain.manifest import parse_agent
    from agents.services.registry import register_agent
    from tests.cluster.control_plane import CONTEXT
    from tests.cluster.telling import PERSON, Place
    from tests.towers import AGENT

    for number in range(count):
        namespace = f"storm-{os.getpid()}-{number}"
        plane.add_namespace(namespace, "optimizer")
        text = AGENT.format(name="profiler", role="worker", gpus=0, consumes="", produces="")
        document = load_documents(text)[0]
        document["metadata"]["namespace"] = namespace
        register_agent(parse_agent(document), actor=PERSON.actor)
        admin = KubernetesApi(CONTEXT, config_file=str(plane.kubeconfig))
        yield Place(plane, proxy, namespace, directory, admin)


class Canaries:
    """What belongs to others, and must stay untouched to the last byte."""

    def __init__(self, plane: Any, namespaces: Sequence[str]) -> None:
        self._plane, self._paths = plane, []
        for namespace in namespaces:
            self._paths += list(self._add(namespace))
        self._versions: dict[str, str] = {}

    def _add(self, namespace: str) -> Iterator[str]:
        from agents.cluster.kubernetes.record import WORKLOAD

        pod = {
            "restartPolicy": "Never",
            "containers": [{"name": "agent", "image": "registry.example/others:1.0"}],
        }
        job = {"suspend": True, "template": {"spec": pod}}
        group = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        yield self._make(group, "batch/v1", "Job", "others", spec=job)
        labels = {WORKLOAD: "others-too", "app.kubernetes.io/managed-by": "clearance"}
        yield self._make(group, "batch/v1", "Job", "others-too", labels=labels, spec=job)
        core = f"/api/v1/namespaces/{namespace}"
        yield self._make(f"{core}/secrets", "v1", "Secret", "others", data={"key": "dmFsdWU="})
        yield self._make(f"{core}/configmaps", "v1", "ConfigMap", "goals", data={"a": "b"})

    def _make(self, path: str, version: str, kind: str, name: str, **more: Any) -> str:
        labels = more.pop("labels", {})
        body = {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}}
        self._plane.request("POST", path, body | more)
        return f"{path}/{name}"

    def remember(self) -> None:
        """From now on nothing of them may change; their own controllers have seen them."""
        self._versions = self._read()

    def touched(self) -> list[str]:
        """Which have changed."""
        now = self._read()
        return [path for path, version in self._versions.items() if now[path] != version]

    def _read(self) -> dict[str, str]:
        found = {path: self._plane.request("GET", path) for path in self._paths}
        return {path: one["metadata"]["resourceVersion"] for path, one in found.items()}


def judge(run: Any) -> list[str]:
    """What was wrong on the way, whatever the end: foreign objects, duplicates, haste."""
    from agents.cluster.kubernetes.cluster import JOBS
    from tests.cluster.telling import BURST, REQUESTS_PER_SECOND

    space = re.escape(run.place.namespace)
    name = re.escape(run.name)
    own = re.compile(
        rf"/apis/orchestration\.ai/v1/namespaces/{space}/goals/{name}(/status)?"
        rf"|/api/v1/namespaces/{space}/(events|secrets|serviceaccounts)"
        rf"|/api/v1/namespaces/{space}/(secrets/{name}|pods/{name}-[a-z0-9]+)"
        rf"|/apis/batch/v1/namespaces/{space}/jobs(/{name})?"
        rf"|/apis/coordination\.k8s\.io/v1/namespaces/{space}/leases(/{name})?"
    )
    calls = [call for route in run.routes for call in route.calls]
    wrong = [
        f"wrote {call.method} {call.path}"
        for call in calls
        if call.is_write and not own.fullmatch(call.path)
    ]
    group, _, plural = JOBS.rpartition("/")
    jobs = f"/{group}/namespaces/{run.place.namespace}/{plural}"
    made = [c for c in calls if c.method == "POST" and c.path == jobs and c.status == 201]
    if len(made) > 1:
        wrong.append(f"made {len(made)} Jobs")
    excesses = [
        over_limit([c.at for c in route.calls], per_second=REQUESTS_PER_SECOND, burst=BURST)
        for route in run.routes
    ]
    return wrong + [f"{excess:.0f} requests over the limit" for excess in excesses if excess]


def over_limit(times: Sequence[float], *, per_second: float, burst: int) -> float:
    """By how many requests a token bucket was overdrawn; 0 when it never was."""
    tokens, last, worst = float(burst), None, 0.0
    for at in sorted(times):
        tokens = min(burst, tokens + (at - last) * per_second) if last is not None else tokens
        last = at
        tokens -= 1
        worst = max(worst, -tokens)
    return worst if worst > CALLS_TOO_MANY else 0.0


def run_one(place: Any, seed: int, story: Any, expected: Any, plan: Any) -> dict[str, Any]:
    """One perturbed run."""
    from django.db import close_old_connections

    from tests.cluster.stories import tell
    from tests.cluster.telling import Unlike

    began = time.monotonic()
    close_old_connections()
    said: dict[str, Any] = {"seed": seed, "story": story.__name__, "wrong": []}
    try:
        end, run = tell(place, f"s{seed}-{story.__name__.replace('_', '-')}"[:50], story,
                        plan, expected)  # fmt: skip
        if end != expected:
            said["wrong"].append(f"ended as {json.dumps(end)}, not as {json.dumps(expected)}")
        said["wrong"] += judge(run)
        calls = [call for route in run.routes for call in route.calls]
        said["requests"] = len(calls)
        said["faults"] = sum(call.fault is not None for call in calls)
        said["kills"] = sum(route.was_killed.is_set() for route in run.routes)
    except Unlike as error:
        said["wrong"].append(str(error))
    except Exception:
        said["wrong"].append(traceback.format_exc())
    said["seconds"] = round(time.monotonic() - began, 2)
    return said


def main(arguments: Sequence[str]) -> int:
    """Run the seeds; 1 when anything was wrong."""
    asked = _parser().parse_args(arguments)
    found = json.loads(asked.plane.read_text())
    # Dozens of operators share this database, of which each has its own in life: on no disk.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="clearance-storm-", dir=memory) as name:
        directory = Path(name)
        prepare(directory)
        logging.basicConfig(filename=os.environ.get("STORM_LOG", os.devnull), force=True)
        from tests.cluster.control_plane import ControlPlane
        from tests.cluster.fault_proxy import fault_proxy

        home = Path(found["directory"])
        plane = ControlPlane(found["url"], home / "kubeconfig", home, found["token"])
        with fault_proxy(plane) as proxy:
            return storm(plane, proxy, asked, directory)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Stories under seeded faults.")
    parser.add_argument("plane", type=Path, help="url, token and directory of the control plane")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=300, help="how many runs")
    parser.add_argument("--lanes", type=int, default=16, help="how many at once")
    parser.add_argument("--only", default="", help="stories with this in their name")
    parser.add_argument("--outage", type=float, help="one outage of so many seconds in each run")
    return parser


def plan_for(seed: int, outage: float | None) -> Any:
    """The plan of a seed; with an outage, that and nothing else."""
    from tests.cluster.fault_plan import Plan, plan_of

    return plan_of(seed) if outage is None else Plan(seed=seed, outage=(0.1, 0.1 + outage))


def storm(plane: Any, proxy: Any, asked: argparse.Namespace, directory: Path) -> int:
    """Tell a story for each seed, as many at once as there are lanes."""
    from tests.cluster.stories import STORIES, reference

    lanes = asked.lanes
    seeds = range(asked.first, asked.first + asked.count)
    stories = [one for one in STORIES if asked.only in one.__name__]
    died: list[str] = []
    threading.excepthook = lambda how: died.append(
        "".join(traceback.format_exception(how.exc_type, how.exc_value, how.exc_traceback))
    )
    places: SimpleQueue[Any] = SimpleQueue()
    namespaces = []
    for place in lanes_of(plane, proxy, lanes, directory):
        places.put(place)
        namespaces.append(place.namespace)
    canaries = Canaries(plane, namespaces)

    def in_a_lane(work: Callable[[Any], Any]) -> Any:
        place = places.get()
        try:
            return work(place)
        finally:
            places.put(place)

    with ThreadPoolExecutor(lanes) as pool:
        ends = {
            story: pool.submit(
                in_a_lane,
                lambda place, s=story: reference(place, f"ref-{s.__name__.replace('_', '-')}", s),
            )
            for story in stories
        }
        expected = {story: end.result() for story, end in ends.items()}
        canaries.remember()
        runs = [
            pool.submit(
                in_a_lane,
                lambda place, seed=seed, story=story: run_one(
                    place, seed, story, expected[story], plan_for(seed, asked.outage)
                ),
            )
            for seed in seeds
            for story in [stories[seed % len(stories)]]
        ]
        is_fine = True
        for one in runs:
            said = one.result()
            is_fine &= not said["wrong"]
            print(json.dumps(said), flush=True)
    last = {"touched": canaries.touched(), "died": died, "expected": {
        story.__name__: end for story, end in expected.items()
    }}  # fmt: skip
    print(json.dumps(last), flush=True)
    return 0 if is_fine and not last["touched"] and not died else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
