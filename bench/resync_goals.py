"""The processes of `bench_resync`: one makes 10,000 Goals on both sides, one is the operator.

Called as `python -m bench.resync_goals make|operate KUBECONFIG COUNT` with Django's variables set.
"""

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import django

django.setup()

from django.core.management import call_command  # noqa: E402  needs the settings

from agents.cluster.kubernetes.api import KubernetesApi, RateLimit, object_path  # noqa: E402
from goals.domain.manifest import parse_goal  # noqa: E402  needs loaded models
from goals.domain.states import Unit  # noqa: E402
from goals.models import Account, Goal  # noqa: E402
from goals.operator import mirror  # noqa: E402
from goals.operator.election import Election  # noqa: E402
from goals.operator.program import Operator  # noqa: E402
from goals.operator.resources import (  # noqa: E402
    AGREED,
    Agreement,
    condition,
    digest_of,
    manifest_of_row,
    resource_of,
    status_of,
)
from tests.cluster.control_plane import CONTEXT  # noqa: E402

NAMESPACES = 20
WRITERS = 8
LOOK_SECONDS = 0.02
SPEC = {"objective": "p99 latency < 120 ms for /checkout", "budget": "50 GPU-minutes"}


def make_rows(count: int) -> None:
    """Every Goal as a row, with its account."""
    call_command("migrate", verbosity=0)
    rows = []
    for number in range(count):
        name, namespace = f"goal-{number}", f"bench-{number % NAMESPACES}"
        document = {
            "apiVersion": "orchestration.ai/v1", "kind": "Goal",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {**SPEC, "agents": ["profiler"]},
        }  # fmt: skip
        spec = parse_goal(document).spec_document()
        rows.append(
            Goal(name=name, namespace=namespace, spec=spec, objective=SPEC["objective"],
                 requested_by="kubernetes")
        )  # fmt: skip
    Goal.objects.bulk_create(rows, batch_size=500)
    Account.objects.bulk_create(
        [Account(goal=row, unit=Unit.GPU_MS, limit=3_000_000) for row in rows], batch_size=500
    )


def make_resources(kubeconfig: str) -> None:
    """Every Goal as a resource that agrees with its row, as the operator itself writes it."""
    limit = RateLimit(per_second=10_000, burst=10_000)
    api = KubernetesApi(CONTEXT, config_file=kubeconfig, limit=limit)
    said = [condition("Accepted", True, "Valid", ""), condition("Synced", True, "Same", "")]

    def make(goal: Goal) -> None:
        path = object_path(mirror.GOALS, goal.namespace, goal.name)
        found = api.apply(path, resource_of(goal), manager=mirror.SPEC_MANAGER)
        agreed = Agreement(str(goal.uid), goal.generation, digest_of(manifest_of_row(goal)))
        found = api.merge(path, {"metadata": {"annotations": {AGREED: agreed.annotation(found)}}})
        body = {
            "apiVersion": found["apiVersion"], "kind": "Goal",
            "metadata": {"name": goal.name, "namespace": goal.namespace},
            "status": status_of(goal, found, said),
        }  # fmt: skip
        api.apply(f"{path}/status", body, manager=mirror.STATUS_MANAGER)

    rows = list(Goal.objects.prefetch_related("accounts"))
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(make, rows))
    api.close()


def operate(kubeconfig: str) -> None:
    """The operator: says when everything has been looked at, and goes on until stdin ends."""
    began = time.monotonic()
    api = KubernetesApi(CONTEXT, config_file=kubeconfig, limit=RateLimit(per_second=50, burst=100))
    election = Election(api, identity="bench", namespace="default", name="bench")
    operator = Operator(api, election=election)
    threading.Thread(target=operator.run, daemon=True).start()
    listed = 0.0
    quiet_since = began
    while time.monotonic() - quiet_since < 1.0:  # the rows are read within this
        time.sleep(LOOK_SECONDS)
        backlog = operator.backlog
        if backlog is None or backlog or not election.is_leader():
            quiet_since = time.monotonic()
        if backlog is not None and not listed:
            listed = time.monotonic() - began
    print(json.dumps({"listed": listed, "looked": quiet_since - began}), flush=True)
    sys.stdin.read()
    operator.stop()


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make_rows(int(sys.argv[3]))
        make_resources(sys.argv[2])
    else:
        operate(sys.argv[2])
