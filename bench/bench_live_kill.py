"""The kill switch: from the throw to the last dead process, broker and telemetry store down."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.with_servers import free_port

ROOT = Path(__file__).resolve().parent.parent
AGENTS = 50  # of real processes; each has a shim, and ignores SIGTERM
ROUNDS = 3
AIM_SECONDS = 2.0
PROGRAM = "trap '' TERM; while :; do sleep 1; done"
# Runs in the configured environment: real database, real processes, nothing else.
SCRIPT = f"""
import json, time, django; django.setup()
from agents.cluster import get_cluster
from agents.cluster.shim.processes import read_process
from agents.domain.documents import load_documents
from agents.domain.manifest import parse_agent
from agents.models import Attempt
from agents.services.attempts import record_attempt, enforce_attempt, record_status, AttemptRequest
from agents.services.registry import register_agent
from agents.workloads import PodTemplate
from django.contrib.auth.models import User
from goals.domain.killing import KillScope, KillTarget
from goals.models import Goal
from goals.services.kill import throw_switch, lift_switch
from governance.access import principal_of
from lineage.domain import Actor, ActorKind
boss = principal_of(User.objects.create_superuser("boss"))
text = '''
apiVersion: orchestration.ai/v1
kind: Agent
metadata: {{name: stubborn, namespace: default}}
spec:
  role: worker
  image: bench/stubborn:1.0
  command: [/bin/sh, -c, "true"]
  serviceAccountName: stubborn
'''
agent = register_agent(parse_agent(load_documents(text)[0]), actor=boss.actor).agent
for turn in range({ROUNDS}):
    goals = [Goal.objects.create(namespace="default", name=f"g{{turn}}-{{n}}", phase="Running",
             spec={{"agents": []}}, objective="x", requested_by="boss") for n in range(10)]
    cluster = get_cluster()
    for number in range({AGENTS}):
        goal = goals[number % len(goals)]
        template = PodTemplate(task=f"t{{number}}", namespace="default", agent="stubborn",
            goal=goal.name, goal_uid=str(goal.uid),
            role="worker", image="bench/stubborn:1.0", service_account="stubborn",
            command=("/bin/sh", "-c", {PROGRAM!r}), gpus=0, memory_bytes=None, labels={{}})
        attempt = record_attempt(agent, AttemptRequest(goal_uid=goal.uid, goal=goal.name,
            graph_digest="sha256:" + "0" * 64, iteration=1, number=1, template=template,
            environment={{}}, hold_gpus_on_pause=False))
        record_status(attempt, enforce_attempt(attempt))
    while True:
        made = Attempt.objects.filter(goal_uid__in=[goal.uid for goal in goals])
        statuses = [cluster.get(name) for name in made.values_list("workload", flat=True)]
        if all(one is not None and one.pid for one in statuses):
            break
        time.sleep(0.05)
    target = KillTarget(KillScope.NAMESPACE, "default", "", "default")
    began = time.monotonic()
    kill = throw_switch(target, principal=boss)
    whole = time.monotonic() - began
    alive = [one.pid for one in statuses if (p := read_process(one.pid)) and p.state not in "ZX"]
    print(json.dumps([kill.stopped, len(alive), kill.seconds, whole]), flush=True)
    lift_switch(kill.switch, principal=boss)
"""


def run() -> list[dict[str, object]]:
    """Rows for `bench`."""
    with tempfile.TemporaryDirectory(prefix="bench-kill-") as name:
        dead = f"127.0.0.1:{free_port()}"  # nothing listens there
        environment = {
            **os.environ,
            "CLEARANCE_DATA": name,
            "DJANGO_SETTINGS_MODULE": "console.settings",
            "CLUSTER_URL": "local:?gpus=0",
            "REDIS_URL": f"redis://{dead}/0",
            "TELEMETRY_URL": f"clickhouse://{dead}/clearance",
        }
        (Path(name) / "run").mkdir()
        _python(environment, "manage.py", "migrate", "-v0")
        lines = _python(environment, "-c", SCRIPT).splitlines()
    rounds = [json.loads(line) for line in lines if line.startswith("[")]
    left = sum(alive for _, alive, _, _ in rounds)
    if left or len(rounds) != ROUNDS:
        raise RuntimeError(f"{left} processes outlived the kill switch in {len(rounds)} rounds")
    ended = [seconds for _, _, seconds, _ in rounds]
    whole = [seconds for _, _, _, seconds in rounds]
    return [
        {"name": f"kill switch -> {AGENTS} agents dead, worst of {ROUNDS}, no broker, no store",
         "value": round(max(ended), 3), "unit": "s", "peer": f"aim {AIM_SECONDS:g} s",
         "ratio": round(max(ended) / AIM_SECONDS, 3)},
        {"name": "kill switch -> written down, too", "value": round(max(whole), 3), "unit": "s"},
    ]  # fmt: skip


def _python(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-2000:])
    return done.stdout
