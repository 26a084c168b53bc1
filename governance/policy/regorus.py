"""Regorus in sandboxed child processes: the embedded policy engine."""

import contextlib
import json
import os
import queue
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from governance.policy.base import (
    Diagnostic,
    FileCoverage,
    PolicyBundle,
    PolicyError,
    PolicyPoint,
    RegoTestResult,
    TestRun,
    Verdict,
)
from governance.policy.child import (
    LoadedPlan,
    SandboxLimits,
    SandboxLost,
    SandboxProcess,
    as_policy_error,
)
from governance.policy.normalise import graph_input
from governance.policy.verdict import compose_verdict, denied
from governance.policy.wire import MAX_FRAME_BYTES

MAX_INPUT_BYTES = MAX_FRAME_BYTES // 2
MAX_LOSSES_PER_CALL = 8  # each may cost the whole time limit; the rest is denied unheard
SLOT_WAIT_SECONDS = 60.0
GRAPH_POINTS = (PolicyPoint.GRAPH, PolicyPoint.APPROVAL)  # both are asked about a task graph


class RegorusPolicy:
    """A small pool of sandboxes; safe to share between threads, and across a fork."""

    def __init__(
        self,
        *,
        workers: int = 2,
        timeout_seconds: float = 5.0,
        cpu_seconds: int = 4,
        memory_bytes: int = 512 << 20,
    ) -> None:
        """Start nothing. Limits are for each input: wall and CPU seconds, bytes of memory."""
        self._workers = workers
        self._limits = SandboxLimits(timeout_seconds, cpu_seconds, memory_bytes)
        self._lock = threading.Lock()
        self._owner = 0
        self._slots: queue.LifoQueue[SandboxProcess] = queue.LifoQueue()
        self._sandboxes: list[SandboxProcess] = []

    def evaluate(
        self, bundle: PolicyBundle, point: PolicyPoint, inputs: Sequence[Mapping[str, Any]]
    ) -> list[Verdict]:
        """One verdict per input, in order; never raises for what a policy or an input does."""
        verdicts: list[Verdict | None] = [None] * len(inputs)
        encoded: dict[int, bytes] = {}
        for index, given in enumerate(inputs):
            try:
                encoded[index] = encode_input(given, point=point)
            except ValueError as error:
                verdicts[index] = denied("invalid", f"The input cannot be judged: {error}.")
        try:
            with self._sandbox() as sandbox:
                _judge_all(sandbox, bundle, point, encoded, verdicts)
        except SandboxLost as lost:
            _deny_rest(verdicts, lost)
        return [verdict for verdict in verdicts if verdict is not None]

    def check(self, bundle: PolicyBundle) -> list[Diagnostic]:
        """Parse and compile errors and unknown functions. Raises `PolicyError`."""
        plan = self.describe(bundle)
        found = [*plan.diagnostics, *plan.answer.get("unknown_functions", ())]
        return [
            Diagnostic(entry["path"], entry["line"], entry["column"], entry["text"])
            for entry in found
        ]

    def run_tests(self, bundle: PolicyBundle) -> list[RegoTestResult]:
        """Run every `test_*` rule; one that hangs or crashes fails alone. Raises `PolicyError`."""
        return list(self._run_tests(bundle, with_coverage=False).results)

    def cover_tests(self, bundle: PolicyBundle) -> TestRun:
        """The same with coverage; a test that hangs or crashes adds none. Raises `PolicyError`."""
        return self._run_tests(bundle, with_coverage=True)

    def _run_tests(self, bundle: PolicyBundle, *, with_coverage: bool) -> TestRun:
        replies: list[dict[str, Any]] = []
        try:
            with self._sandbox() as sandbox:
                plan = _load(sandbox, bundle, detail=True)
                if plan.diagnostics:
                    raise PolicyError(_first_problem(plan))
                tests = plan.answer["tests"]
                while len(replies) < len(tests):
                    rest = tests[len(replies) :]
                    replies += _run_some_tests(sandbox, bundle, rest, with_coverage=with_coverage)
        except SandboxLost as lost:
            raise as_policy_error(lost) from lost
        results = [_test_result(*pair) for pair in zip(tests, replies, strict=True)]
        return TestRun(tuple(results), _coverage(replies))

    def describe(self, bundle: PolicyBundle, *, prefix: str = "") -> LoadedPlan:
        """What is in the bundle: clauses, tests, and with `prefix` its text for OPA.

        Raises `PolicyError`.
        """
        try:
            with self._sandbox() as sandbox:
                return _load(sandbox, bundle, detail=True, prefix=prefix)
        except SandboxLost as lost:
            raise as_policy_error(lost) from lost

    def close(self) -> None:
        """End the children; the next call starts new ones."""
        if self._owner != os.getpid():
            return
        held = [self._slots.get() for _ in range(self._workers)]
        for sandbox in held:
            sandbox.kill()
            self._slots.put(sandbox)

    @contextlib.contextmanager
    def _sandbox(self) -> Iterator[SandboxProcess]:
        self._open_pool()
        try:
            sandbox = self._slots.get(timeout=SLOT_WAIT_SECONDS)
        except queue.Empty:
            text = f"all {self._workers} policy sandboxes were busy for {SLOT_WAIT_SECONDS:g} s"
            raise SandboxLost("timeout", text) from None
        try:
            yield sandbox
        except BaseException:  # its answers must not be taken for the next caller's
            sandbox.kill()
            raise
        finally:
            self._slots.put(sandbox)

    def _open_pool(self) -> None:
        with self._lock:
            if self._owner == os.getpid():
                return
            for inherited in self._sandboxes:
                inherited.abandon()
            spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="policy-spawner")
            self._sandboxes = [
                SandboxProcess(limits=self._limits, spawner=spawner) for _ in range(self._workers)
            ]
            self._slots = queue.LifoQueue()
            for sandbox in self._sandboxes:
                self._slots.put(sandbox)
            self._owner = os.getpid()
            weakref.finalize(self, _end, self._sandboxes, spawner, os.getpid())


def encode_input(given: object, *, point: PolicyPoint) -> bytes:
    """An input as JSON bytes. Raises `ValueError` with a sentence when it has no such form."""
    if not isinstance(given, Mapping):
        raise ValueError(f"it must be an object, not {type(given).__name__}")
    document = graph_input(given) if point in GRAPH_POINTS else dict(given)
    try:
        encoded = json.dumps(document, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"it is not JSON ({error})") from error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if len(encoded) > MAX_INPUT_BYTES:
        raise ValueError(f"it has {len(encoded)} bytes, at most {MAX_INPUT_BYTES} are judged")
    return encoded


def _judge_all(
    sandbox: SandboxProcess,
    bundle: PolicyBundle,
    point: PolicyPoint,
    encoded: Mapping[int, bytes],
    verdicts: list[Verdict | None],
) -> None:
    pending = list(encoded)
    losses = 0
    # Answers come several at a time until something goes wrong; then one by one, to name it.
    is_careful = len(pending) == 1
    retried: set[int] = set()
    while pending:
        plan = _load(sandbox, bundle)
        refusal = refusal_of(plan, point, sandbox.engine)
        if refusal is not None:
            for index in pending:
                verdicts[index] = refusal
            return
        started = time.monotonic()
        items = [encoded[index] for index in pending]
        replies, lost = _ask(sandbox, plan, point, items, is_careful=is_careful)
        for index, reply in zip(pending, replies, strict=False):
            verdicts[index] = _verdict(plan.clauses(point.value), reply, engine=sandbox.engine)
        pending = pending[len(replies) :]
        if lost is None or not pending:
            return
        losses += 1
        if losses > MAX_LOSSES_PER_CALL:
            raise lost
        is_outside_once = lost.is_outside and pending[0] not in retried
        if not is_careful or is_outside_once:
            retried.add(pending[0])
            is_careful = True
            continue
        text = f"The policy could not be evaluated: {lost.text}."
        seconds = time.monotonic() - started
        verdicts[pending[0]] = denied(lost.error, text, engine=sandbox.engine, seconds=seconds)
        pending = pending[1:]


def _ask(
    sandbox: SandboxProcess,
    plan: LoadedPlan,
    point: PolicyPoint,
    items: Sequence[bytes],
    *,
    is_careful: bool,
) -> tuple[list[dict[str, Any]], SandboxLost | None]:
    """The answers that came, and what ended them early if anything did."""
    replies: list[dict[str, Any]] = []
    request = {
        "op": "evaluate",
        "bundle": plan.key,
        "point": point.value,
        "count": len(items),
        "each": is_careful,
    }
    try:
        sandbox.exchange(request, items, replies=replies, expected=len(items))
    except SandboxLost as error:
        return replies, error
    return replies, None


def _load(
    sandbox: SandboxProcess, bundle: PolicyBundle, *, detail: bool = False, prefix: str = ""
) -> LoadedPlan:
    try:
        return sandbox.load(bundle, detail=detail, prefix=prefix)
    except (TypeError, ValueError, RecursionError) as error:
        raise SandboxLost("invalid", f"the bundle's data is not JSON ({error})") from error


def refusal_of(plan: LoadedPlan, point: PolicyPoint, engine: str) -> Verdict | None:
    """The denial of a bundle that cannot judge at this point; None when it can."""
    if plan.diagnostics:
        return denied("invalid", _first_problem(plan), engine=engine)
    if not plan.clauses(point.value):
        text = (
            f"The bundle has no rule for the point {point.value}: add deny, warn or "
            f"require_approval to package clearance.{point.value}."
        )
        return denied("missing", text, engine=engine)
    return None


def _first_problem(plan: LoadedPlan) -> str:
    first, *others = plan.diagnostics
    more = f" (and {len(others)} more)" if others else ""
    where = f"{first['path']}:{first['line']}:{first['column']}"
    return f"The policy bundle does not compile: {where}: {first['text']}{more}."


def _verdict(
    clauses: Sequence[Mapping[str, Any]], reply: Mapping[str, Any], *, engine: str
) -> Verdict:
    if reply["error"]:
        text = f"The input cannot be judged: {reply['error']}."
        return denied("invalid", text, engine=engine, seconds=reply["seconds"])
    return compose_verdict(
        clauses,
        hits=reply["hits"],
        faults=reply["faults"],
        engine=engine,
        seconds=reply["seconds"],
    )


def _run_some_tests(
    sandbox: SandboxProcess,
    bundle: PolicyBundle,
    tests: Sequence[Mapping[str, Any]],
    *,
    with_coverage: bool,
) -> list[dict[str, Any]]:
    """Replies to the tests up to and with the first that ends the sandbox."""
    plan = _load(sandbox, bundle)
    items = [json.dumps(test["rule"]).encode() for test in tests]
    replies: list[dict[str, Any]] = []
    request = {
        "op": "test",
        "bundle": plan.key,
        "count": len(items),
        "each": True,
        "coverage": with_coverage,
    }
    try:
        sandbox.exchange(request, items, replies=replies, expected=len(items))
    except SandboxLost as lost:
        replies.append({"passed": False, "text": f"{lost.error}: {lost.text}", "seconds": 0.0})
    return replies


def _test_result(test: Mapping[str, Any], reply: Mapping[str, Any]) -> RegoTestResult:
    return RegoTestResult(
        rule=test["rule"],
        path=test["path"],
        line=test["line"],
        passed=reply["passed"],
        text=reply["text"],
        duration_seconds=reply["seconds"],
    )


def _coverage(replies: Sequence[Mapping[str, Any]]) -> tuple[FileCoverage, ...]:
    """The union over all tests: a line is missed when no test reached it."""
    covered: dict[str, set[int]] = {}
    known: dict[str, set[int]] = {}
    for reply in replies:
        for path, (reached, missed) in reply.get("lines", {}).items():
            covered.setdefault(path, set()).update(reached)
            known.setdefault(path, set()).update(reached, missed)
    return tuple(
        FileCoverage(path, tuple(sorted(covered[path])), tuple(sorted(lines - covered[path])))
        for path, lines in sorted(known.items())
    )


def _deny_rest(verdicts: list[Verdict | None], lost: SandboxLost) -> None:
    for index, verdict in enumerate(verdicts):
        if verdict is None:
            verdicts[index] = denied(lost.error, f"The policy could not be evaluated: {lost.text}.")


def _end(sandboxes: list[SandboxProcess], spawner: ThreadPoolExecutor, owner: int) -> None:
    if os.getpid() == owner:
        for sandbox in sandboxes:
            sandbox.kill()
        spawner.shutdown(wait=False)
