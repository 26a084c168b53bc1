"""Every kind of process is killed with -9 at random moments while both examples run."""

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lineage.evidence.inspect import inspect_pack
from tests.console.real_tower import ROOT, RealTower, descendants, eventually, is_alive
from tests.kill import victims
from tests.kill.people import Person, admin_password, sign_in, team_member

KILLS = int(os.environ.get("N", "60"))
SEED = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
# Between two kills: from the middle of a start to well after it.
PAUSE_SECONDS = (0.3, 3.0)
VICTIM_SECONDS = 6.0  # how long to wait for one of the kind that is its turn
TOWERS_MAX_SHARE = 0.06  # a whole restart takes longer than all other kills together
SETTLE_SECONDS = 180.0
TERMINAL = {"Satisfied", "Exhausted", "Failed", "Cancelled", "Denied"}
GRANTS = (12_000, 9_000)  # GPU-milliseconds, before the third question is denied
EXAMPLES = ROOT / "examples" / "checkout"
VERIFY = ROOT / "lineage" / "evidence" / "verify.py"

pytestmark = [
    pytest.mark.kill,
    pytest.mark.slow,
    pytest.mark.timeout(600 + 15 * KILLS),
]

SPAN_WRITER = """
apiVersion: orchestration.ai/v1
kind: Agent
metadata: {name: span_writer, namespace: default}
spec:
  role: worker
  image: tests/span_writer:1.0
  command: [python, tests/kill/span_writer.py]
  serviceAccountName: span-writer
  consumes: []
  produces: [spans]
  estimate: {seconds: 600}
  scope: {releases: [], artifacts: []}
"""
SPAN_GOAL = """
apiVersion: orchestration.ai/v1
kind: Goal
metadata: {name: write-spans, namespace: default}
spec:
  objective: "level >= 100 %"
  budget: 1 GPU-minute
  agents: [span_writer]
"""


class Operators(threading.Thread):
    """Keeps one Goal of each kind at work and answers budget questions, until told to land."""

    def __init__(self, admin: Person, team: Person) -> None:
        super().__init__(daemon=True)
        self.admin, self.team = admin, team
        self.is_ending = threading.Event()
        self.asked: Counter[str] = Counter()  # budget questions by Goal
        self.applied: Counter[str] = Counter()
        self.error: BaseException | None = None
        self.manifests = {
            "reduce-p99-latency": (EXAMPLES / "goal.yaml").read_text(),
            "rogue-fine-tune": (EXAMPLES / "rogue-fine-tune.yaml").read_text(),
            "write-spans": f"{SPAN_WRITER}---{SPAN_GOAL}",
        }

    def run(self) -> None:
        try:
            while not self.is_ending.wait(0.7):
                self.answer_questions()
                self.keep_busy()
        except BaseException as error:
            self.error = error

    def keep_busy(self) -> None:
        """Apply a Goal again, by another name, when all of its kind have landed."""
        goals = self.admin.goals()
        for kind, text in self.manifests.items():
            of_kind = [goal for name, goal in goals.items() if name.startswith(kind)]
            if all(goal["phase"] in TERMINAL for goal in of_kind):
                self.applied[kind] += 1
                name = f"{kind}-{self.applied[kind]}" if of_kind else kind
                self.team.insist("POST", "apply", text.replace(kind, name).encode())

    def answer_questions(self, *, is_denying: bool = False) -> None:
        """Grant twice what is asked for a Goal, then deny."""
        for approval in self.admin.insist("GET", "approvals?state=pending")["results"]:
            times = self.asked[approval["goal_uid"]]
            grant = GRANTS[times] if times < len(GRANTS) and not is_denying else None
            status = self.admin.answer(approval, grant=grant)
            # 409: the first answer was lost with its web process, or the question is void.
            assert status in (0, 200, 409, 502, 503), status
            if status == 200:
                self.asked[approval["goal_uid"]] += 1


def schedule(rng: random.Random) -> list[str]:
    """Whom to kill, in which order: every kind in turn, the tower itself less often."""
    towers = max(2, round(KILLS * TOWERS_MAX_SHARE))
    others = [kind for kind in victims.KINDS if kind != victims.TOWER]
    deck = [others[number % len(others)] for number in range(KILLS - towers)]
    deck += [victims.TOWER] * towers
    rng.shuffle(deck)
    return deck


def kill_all(tower: RealTower, rng: random.Random) -> Counter[str]:
    """Kill KILLS processes; a kind that has none alive for a while comes later, or another does."""
    deck, done, passed = schedule(rng), Counter[str](), 0
    while deck:
        kind = deck.pop(0)
        time.sleep(rng.uniform(*PAUSE_SECONDS))
        if kind == victims.TOWER:
            restart(tower)
            done[kind] += 1
            continue
        pids = wait_for(tower, kind)
        if pids:
            victims.kill(rng.choice(pids))
            done[kind] += 1
            passed = 0
        else:
            passed += 1
            assert passed < 3 * len(victims.KINDS), f"nothing of {deck} lives: {tower.state()}"
            deck.append(kind)
    return done


def wait_for(tower: RealTower, kind: str) -> list[int]:
    deadline = time.monotonic() + VICTIM_SECONDS
    while not (pids := victims.pids_of(tower, kind)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert tower.process is not None
    assert tower.process.poll() is None, f"the tower gave up:\n{tower.said()[-3000:]}"
    return list(pids)


def restart(tower: RealTower) -> None:
    """Kill the supervisor itself; once its processes are gone, start it again."""
    pids = descendants(tower.pid)
    tower.signal(signal.SIGKILL)
    eventually(lambda: not any(is_alive(pid) for pid in pids), seconds=15)
    said = tower.said().count("Clearance is ready at ")
    tower.start().ready(times=said + 1)


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTower]:
    one = RealTower(tmp_path_factory.mktemp("kill"), EXAMPLE="1")
    one.start().ready()
    pids: list[int] = []
    try:
        yield one
    finally:
        pids = [*descendants(one.pid), *victims.workload_pids(one)] if one.process else []
        one.close()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_whatever_is_killed_nothing_is_lost_and_nothing_happens_twice(
    tower: RealTower, tmp_path: Path
) -> None:
    print(f"SEED={SEED} N={KILLS}", flush=True)
    rng = random.Random(SEED)
    eventually(lambda: tower.of("checkout").get("state") == "ready", seconds=90)
    admin, team = sign_in(tower), team_member(tower)
    operators = Operators(admin, team)
    operators.start()
    began = time.monotonic()
    killed = kill_all(tower, rng)
    print(f"killed in {time.monotonic() - began:.0f} s: {dict(killed)}", flush=True)
    operators.is_ending.set()
    operators.join(120)
    assert operators.error is None, operators.error
    land(tower, operators)
    report = judge(tower, [admin.token, team.token, admin_password(tower)])
    print(json.dumps(report, indent=1), flush=True)
    assert report["problems"] == []
    assert sum(killed.values()) == KILLS
    assert all(report["counts"].values()), report["counts"]
    check_packs(admin, tmp_path)
    check_end(tower)
    check_judge(tower, tmp_path / "tampered")


def land(tower: RealTower, operators: Operators) -> None:
    """After the last kill: the example still lands as it should, everything else is ended."""
    eventually(lambda: all(one["state"] in ("ready", "finished")
                           for one in tower.state()["processes"].values()), seconds=90)  # fmt: skip
    admin, team = operators.admin, operators.team
    text = operators.manifests["reduce-p99-latency"]
    team.insist("POST", "apply", text.replace("reduce-p99-latency", "afterwards").encode())
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        operators.answer_questions(is_denying=True)
        goals = admin.goals()
        for name, goal in goals.items():
            if name.startswith("write-spans") and goal["phase"] not in TERMINAL:
                team.insist("POST", f"goals/{goal['uid']}/cancel", {"reason": "enough"})
        phases = {name: goal["phase"] for name, goal in goals.items()}
        if set(phases.values()) <= TERMINAL:
            break
        assert time.monotonic() < deadline, f"not landed: {phases}"
        time.sleep(0.5)
    assert phases["afterwards"] == "Satisfied", admin.goals()["afterwards"]


def judge(tower: RealTower, secrets: list[str], **variables: str) -> dict[str, Any]:
    """What the oracle says of the rows, the cluster, the store and the logs."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kill.oracle"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**tower.environment, "KILL_SECRETS": json.dumps(secrets), **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def check_packs(admin: Person, folder: Path) -> None:
    """Every Goal's evidence holds, for both verifiers."""
    for name, goal in admin.goals().items():
        path = folder / f"{name}.zip"
        path.write_bytes(admin.insist("GET", f"goals/{goal['uid']}/evidence"))
        report = inspect_pack(path)
        assert report.ok, (name, [step for step in report.steps if not step.ok])
        done = subprocess.run(
            [sys.executable, "-I", str(VERIFY), str(path)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (name, done.stdout, done.stderr)


def check_end(tower: RealTower) -> None:
    """Told to end, the tower leaves no process; what it said holds no secret but the first one."""
    pids = [*descendants(tower.pid), *victims.workload_pids(tower)]
    assert tower.signal(signal.SIGTERM) == 0
    eventually(lambda: not [pid for pid in pids if is_alive(pid)], seconds=30)
    marker = str(tower.data).encode()
    left = [path for path in Path("/proc").glob("[0-9]*/environ") if marker in _read(path)]
    assert left == []
    said = tower.said()
    assert said.count(admin_password(tower)) == 1
    assert "Traceback" not in said


# What must not happen, done by hand to a copy of the tower's state, by the check that must see it.
TAMPERED = {
    "goals": "UPDATE goals_goal SET phase = 'Running' WHERE phase = 'Exhausted'",
    "approvals": "UPDATE governance_approval SET barred = '[\"admin\"]' WHERE decided_by = 'admin'",
    "releases": "UPDATE goals_release SET number = number + 1000 WHERE number = 1",
    "identities": "UPDATE agents_jointoken SET used_at = NULL",
    "journal": "UPDATE governance_journalrecord SET hash = leaf_hash WHERE seq = 5",
}


def check_judge(tower: RealTower, folder: Path) -> None:
    """The control: on a state that was tampered with, each check finds something."""
    for name in ("keys", "logs"):
        shutil.copytree(tower.data / name, folder / name)
    database = folder / "clearance.sqlite3"
    shutil.copy(tower.data / database.name, database)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        for change in TAMPERED.values():
            assert connection.execute(change).rowcount > 0, change
        connection.commit()
    with (folder / "logs" / "web.log").open("a") as log:
        log.write((folder / "keys" / "secret_key").read_text())
    checks = {"secrets", *TAMPERED}
    variables = {"CLEARANCE_DATA": str(folder), "KILL_CHECKS": " ".join(checks)}
    found = judge(tower, [], **variables)["problems"]
    assert {problem.partition(":")[0] for problem in found} == checks


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
