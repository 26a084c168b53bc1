"""Policies that loop, recurse or eat memory are contained, and harm nothing beside them."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from governance.policy.base import Outcome, PolicyBundle, PolicyError, PolicyModule, PolicyPoint
from governance.policy.bundle import build_bundle
from governance.policy.regorus import RegorusPolicy

ROOT = Path(__file__).resolve().parents[2]
GOOD = 'package clearance.graph\n\ndeny["no"] { input.bad }\n'
HEAD = "package clearance.graph\n\nimport rego.v1\n\n"
BOMBS = {
    "endless recursion": (HEAD + "f(x) := f(x + 1)\n\ndeny contains f(1)\n", {"crash"}),
    "rules that use each other": (
        HEAD + "a if b\n\nb if a\n\ndeny contains 1 if a\n",
        {"crash", "invalid"},
    ),
    "exponential comprehension": (
        HEAD
        + "n := numbers.range(1, 300)\n\n"
        + "deny contains count([1 | some a in n; some b in n; some c in n; some d in n])\n",
        {"timeout", "memory"},
    ),
    "memory eater": (
        HEAD
        + "n := numbers.range(1, 3000)\n\n"
        + 'deny contains count([s | some a in n; some b in n; s := sprintf("%v%v", [a, n])])\n',
        {"memory", "timeout"},
    ),
    "loop of 10^9": (
        HEAD + "deny contains count(numbers.range(1, 1000000000))\n",
        {"memory", "timeout", "invalid"},
    ),
    "doubling string": (
        HEAD
        + "".join(
            f's{i} := concat("", [s{i - 1}, s{i - 1}])\n' if i else 's0 := "0123456789abcdef"\n'
            for i in range(40)
        )
        + "deny contains count(s39)\n",
        {"memory"},
    ),
}


def bundle(source: str) -> PolicyBundle:
    return build_bundle([PolicyModule("policy.rego", source)])


@pytest.fixture(scope="module")
def engine():
    small = RegorusPolicy(workers=2, timeout_seconds=1.0, cpu_seconds=4, memory_bytes=128 << 20)
    yield small
    small.close()


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def cpu_seconds_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_of(pid: int) -> list[int]:
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        and b"governance.policy.sandbox" in _read(entry / "cmdline")
        and f"\x00{pid}\x00".encode() in _read(entry / "cmdline")
    ]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_denies_and_engine_goes_on(engine, name):
    source, errors = BOMBS[name]
    (verdict,) = engine.evaluate(bundle(source), PolicyPoint.GRAPH, [{}])
    assert verdict.outcome is Outcome.DENY
    assert verdict.error in errors, verdict
    assert verdict.messages[0].text
    after = engine.evaluate(bundle(GOOD), PolicyPoint.GRAPH, [{"bad": True}, {}])
    assert [entry.outcome for entry in after] == [Outcome.DENY, Outcome.ALLOW]
    assert [entry.error for entry in after] == ["", ""]


def test_regex_bomb_is_harmless(engine):
    source = HEAD + 'deny contains 1 if regex.match("^(a+)+$", input.text)\n'
    given = {"text": "a" * 5000 + "!"}
    (verdict,) = engine.evaluate(bundle(source), PolicyPoint.GRAPH, [given])
    assert verdict.outcome is Outcome.ALLOW


def test_huge_string_in_the_input_is_judged(engine):
    source = HEAD + 'deny contains "long" if count(input.text) > 1000000\n'
    (verdict,) = engine.evaluate(bundle(source), PolicyPoint.GRAPH, [{"text": "x" * 8_000_000}])
    assert [message.text for message in verdict.messages] == ["long"]


def test_input_beyond_the_limit_is_refused(engine):
    (verdict,) = engine.evaluate(bundle(GOOD), PolicyPoint.GRAPH, [{"text": "x" * (33 << 20)}])
    assert (verdict.outcome, verdict.error) == (Outcome.DENY, "invalid")
    assert "at most" in verdict.messages[0].text


def test_deeply_nested_input_denies(engine):
    nested: dict = {}
    for _ in range(100_000):
        nested = {"n": nested}
    deep, good = engine.evaluate(bundle(GOOD), PolicyPoint.GRAPH, [nested, {}])
    assert (deep.outcome, deep.error) == (Outcome.DENY, "invalid")
    assert good.outcome is Outcome.ALLOW


def test_deeply_nested_policy_denies(engine):
    source = HEAD + "deny contains " + "[" * 50_000 + "]" * 50_000 + "\n"
    (verdict,) = engine.evaluate(bundle(source), PolicyPoint.GRAPH, [{}])
    assert verdict.outcome is Outcome.DENY
    assert verdict.error in {"crash", "invalid", "timeout", "memory"}


def test_only_the_input_that_explodes_is_denied(engine):
    source = HEAD + "f(x) := f(x + 1)\n\ndeny contains f(1) if input.explode\n"
    inputs = [{}, {}, {"explode": True}, {}, {"explode": True}, {}]
    verdicts = engine.evaluate(bundle(source), PolicyPoint.GRAPH, inputs)
    assert [verdict.error for verdict in verdicts] == ["", "", "crash", "", "crash", ""]


def test_many_exploding_inputs_cost_a_bounded_time():
    engine = RegorusPolicy(workers=1)
    source = HEAD + "f(x) := f(x + 1)\n\ndeny contains f(1)\n"
    try:
        verdicts = engine.evaluate(bundle(source), PolicyPoint.GRAPH, [{}] * 500)
    finally:
        engine.close()
    assert {(verdict.outcome, verdict.error) for verdict in verdicts} == {(Outcome.DENY, "crash")}
    assert len(verdicts) == 500


def test_good_policy_beside_a_bomb_is_unaffected(engine):
    source, _ = BOMBS["exponential comprehension"]
    started = threading.Event()

    def explode():
        started.set()
        return engine.evaluate(bundle(source), PolicyPoint.GRAPH, [{}])[0]

    with ThreadPoolExecutor(max_workers=1) as pool:
        exploding = pool.submit(explode)
        started.wait()
        judged = 0
        while not exploding.done():
            verdicts = engine.evaluate(bundle(GOOD), PolicyPoint.GRAPH, [{"bad": True}, {}] * 10)
            assert [v.outcome for v in verdicts] == [Outcome.DENY, Outcome.ALLOW] * 10
            assert {v.error for v in verdicts} == {""}
            judged += 1
        assert exploding.result().outcome is Outcome.DENY
    assert judged > 0


def test_threads_get_their_own_answers(engine):
    def ask(number: int) -> bool:
        source = HEAD + f'deny contains "{number}" if input.bad\n'
        verdicts = engine.evaluate(bundle(source), PolicyPoint.GRAPH, [{"bad": True}] * 20)
        return all(verdict.messages[0].text == str(number) for verdict in verdicts)

    with ThreadPoolExecutor(max_workers=8) as pool:
        assert all(pool.map(ask, range(40)))


def test_more_bundles_than_are_kept(engine):
    sources = [HEAD + f'deny contains "{number}"\n' for number in range(40)]
    for source in (*sources, sources[0]):
        (verdict,) = engine.evaluate(bundle(source), PolicyPoint.GRAPH, [{}])
        assert f'"{verdict.messages[0].text}"' in source


def test_sandbox_killed_from_outside_is_started_again():
    engine = RegorusPolicy(workers=1)
    try:
        engine.evaluate(bundle(GOOD), PolicyPoint.GRAPH, [{}])
        (child,) = children_of(os.getpid())[-1:]
        os.kill(child, signal.SIGKILL)
        (verdict,) = engine.evaluate(bundle(GOOD), PolicyPoint.GRAPH, [{}])
    finally:
        engine.close()
    assert (verdict.outcome, verdict.error) == (Outcome.ALLOW, "")


def test_sandbox_killed_while_it_starts_is_started_again():
    engine = RegorusPolicy(workers=1)
    known, killed = set(children_of(os.getpid())), []
    is_over = threading.Event()

    def kill_the_first() -> None:
        while not killed and not is_over.is_set():
            for child in set(children_of(os.getpid())) - known:
                os.kill(child, signal.SIGKILL)
                killed.append(child)

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    try:
        (verdict,) = engine.evaluate(bundle(GOOD), PolicyPoint.GRAPH, [{"bad": True}])
    finally:
        is_over.set()
        killer.join()
        engine.close()
    assert len(killed) == 1
    assert (verdict.outcome, verdict.error) == (Outcome.DENY, "")


def test_close_leaves_no_process():
    engine = RegorusPolicy(workers=1)
    before = set(children_of(os.getpid()))
    engine.evaluate(bundle(GOOD), PolicyPoint.GRAPH, [{}])
    started = set(children_of(os.getpid())) - before
    assert len(started) == 1
    engine.close()
    assert not any(is_alive(pid) for pid in started)


@pytest.mark.parametrize("is_busy", [False, True])
def test_child_dies_with_a_killed_parent(is_busy):
    searching = "some a in n; some b in n; some c in n; some d in n; a + b + c + d < 0"
    endless = HEAD + f"n := numbers.range(1, 300)\n\ndeny contains 1 if {{ {searching} }}\n"
    source = endless if is_busy else GOOD
    program = (
        "import threading\n"
        "from governance.policy.regorus import RegorusPolicy\n"
        "from governance.policy.base import PolicyModule, PolicyPoint\n"
        "from governance.policy.bundle import build_bundle\n"
        "engine = RegorusPolicy(workers=1, timeout_seconds=300, cpu_seconds=300)\n"
        f"bundle = build_bundle([PolicyModule('a.rego', {source!r})])\n"
        "ask = lambda: engine.evaluate(bundle, PolicyPoint.GRAPH, [{}])\n"
        "threading.Thread(target=ask).start()\n"
        "print('ready', flush=True)\n"
        "threading.Event().wait()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        wait_until(lambda: children_of(parent.pid))
        (child,) = children_of(parent.pid)
        # Deep in the bomb it reads no pipe and holds its interpreter: only the kernel ends it.
        wait_until(lambda: not is_busy or cpu_seconds_of(child) > 0.5)
        parent.kill()
    wait_until(lambda: not is_alive(child), seconds=5)


def test_engine_works_in_a_forked_process():
    program = (
        "import os, sys\n"
        "from governance.policy.regorus import RegorusPolicy\n"
        "from governance.policy.base import PolicyModule, PolicyPoint\n"
        "from governance.policy.bundle import build_bundle\n"
        "engine = RegorusPolicy(workers=1)\n"
        f"bundle = build_bundle([PolicyModule('a.rego', {GOOD!r})])\n"
        "ask = lambda: engine.evaluate(bundle, PolicyPoint.GRAPH, [{}])[0].error\n"
        "assert ask() == ''\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    code = 0 if ask() == '' else 1\n"
        "    engine.close()\n"
        "    os._exit(code)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "assert ask() == ''\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def test_child_has_no_secret_and_no_django(engine, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "must-not-leak")
    fresh = RegorusPolicy(workers=1)
    before = set(children_of(os.getpid()))
    try:
        fresh.evaluate(bundle(GOOD), PolicyPoint.GRAPH, [{}])
        (child,) = set(children_of(os.getpid())) - before
        environment = Path(f"/proc/{child}/environ").read_bytes()
        mapped = Path(f"/proc/{child}/maps").read_text()
        limits = Path(f"/proc/{child}/limits").read_text()
        group = os.getpgid(child)
    finally:
        fresh.close()
    assert b"must-not-leak" not in environment
    assert b"SECRET_KEY" not in environment
    assert "_ssl" not in mapped  # nothing that Django or an HTTP client would bring
    assert group == child
    assert "Max address space         unlimited" not in limits


def test_sandbox_imports_no_django():
    program = (
        "import sys, governance.policy.sandbox\n"
        "heavy = [name for name in sys.modules if name.split('.')[0] in ('django', 'httpx')]\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


def test_sandbox_that_cannot_start_denies_and_backs_off(engine, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    broken = RegorusPolicy(workers=1)
    (first,) = broken.evaluate(bundle(GOOD), PolicyPoint.GRAPH, [{}])
    (second,) = broken.evaluate(bundle(GOOD), PolicyPoint.GRAPH, [{}])
    assert (first.outcome, first.error) == (Outcome.DENY, "crash")
    assert "does not start" in first.messages[0].text
    assert "next try in" in second.messages[0].text
    with pytest.raises(PolicyError, match="does not start"):
        broken.check(bundle(GOOD))
    monkeypatch.undo()
    wait_until(lambda: broken.evaluate(bundle(GOOD), PolicyPoint.GRAPH, [{}])[0].error == "")
    broken.close()


def test_test_that_never_ends_fails_alone(engine):
    rules = [
        "test_first { true }",
        "f(x) = f(x + 1)",
        "test_endless { f(1) }",
        "test_last { true }",
    ]
    answers = engine.run_tests(bundle("\n\n".join([GOOD, *rules])))
    results = {result.rule.rpartition(".")[2]: result for result in answers}
    assert {name: result.passed for name, result in results.items()} == {
        "test_first": True,
        "test_endless": False,
        "test_last": True,
    }
    assert "crash" in results["test_endless"].text


def test_data_that_is_no_json_denies(engine):
    bad = PolicyBundle("sha256:x", (PolicyModule("a.rego", GOOD),), {"limits": {1, 2}})
    (verdict,) = engine.evaluate(bad, PolicyPoint.GRAPH, [{}])
    assert (verdict.outcome, verdict.error) == (Outcome.DENY, "invalid")


def test_print_in_a_policy_breaks_nothing(engine):
    source = HEAD + 'deny contains "said" if print("hello", input)\n'
    (verdict,) = engine.evaluate(bundle(source), PolicyPoint.GRAPH, [{"a": 1}])
    assert verdict.error == ""
    assert [message.text for message in verdict.messages] == ["said"]
