"""A policy engine that answers from a script, as strictly as a real one, for tests."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from governance.policy.base import (
    Diagnostic,
    Outcome,
    PolicyBundle,
    PolicyError,
    PolicyMessage,
    PolicyPoint,
    RegoTestResult,
    TestRun,
    Verdict,
)
from governance.policy.regorus import encode_input
from governance.policy.verdict import denied

ENGINE = "memory"
Script = Callable[[PolicyBundle, PolicyPoint, Mapping[str, Any]], Verdict]
ALLOWED = Verdict(Outcome.ALLOW, engine=ENGINE)


def refuse(text: str, *, outcome: Outcome = Outcome.DENY) -> Verdict:
    """A verdict with one message, for scripts."""
    message = PolicyMessage(outcome, text, rule="scripted", path="scripted.rego", line=1)
    return Verdict(outcome, (message,), engine=ENGINE)


class MemoryPolicy:
    """Allows what a bundle with modules is asked, unless scripted otherwise.

    As the real engines do, it denies an empty bundle and an input that is not JSON, and an engine
    that fails denies rather than raises. `calls` keeps every (bundle digest, point, input).
    """

    def __init__(self) -> None:
        """Begin with no script."""
        self._lock = threading.Lock()
        self._scripts: dict[PolicyPoint, Script] = {}
        self._failures: list[Exception] = []
        self._diagnostics: dict[str, tuple[Diagnostic, ...]] = {}
        self._tests: dict[str, tuple[RegoTestResult, ...]] = {}
        self.calls: list[tuple[str, PolicyPoint, Mapping[str, Any]]] = []

    def script(self, point: PolicyPoint, answer: Verdict | Script) -> None:
        """From now on answer so at this point."""
        with self._lock:
            self._scripts[point] = answer if callable(answer) else lambda *_: answer

    def script_check(self, bundle: PolicyBundle, diagnostics: Sequence[Diagnostic]) -> None:
        """`check` of this bundle answers so; a bundle with diagnostics denies every input."""
        self._diagnostics[bundle.digest] = tuple(diagnostics)

    def script_tests(self, bundle: PolicyBundle, results: Sequence[RegoTestResult]) -> None:
        """`run_tests` of this bundle answers so."""
        self._tests[bundle.digest] = tuple(results)

    def fail_next(self, error: Exception) -> None:
        """The next call fails: `evaluate` denies with its text, the others raise `PolicyError`."""
        with self._lock:
            self._failures.append(error)

    def evaluate(
        self, bundle: PolicyBundle, point: PolicyPoint, inputs: Sequence[Mapping[str, Any]]
    ) -> list[Verdict]:
        """One verdict per input, in order; never raises."""
        failure = self._next_failure()
        if failure is not None:
            return [denied("crash", str(failure), engine=ENGINE) for _ in inputs]
        return [self._judge(bundle, point, given) for given in inputs]

    def check(self, bundle: PolicyBundle) -> list[Diagnostic]:
        """The scripted diagnostics, none by default. Raises `PolicyError` when told to fail."""
        self._raise_failure()
        return list(self._diagnostics.get(bundle.digest, ()))

    def run_tests(self, bundle: PolicyBundle) -> list[RegoTestResult]:
        """The scripted results, none by default. Raises `PolicyError` when told to fail."""
        self._raise_failure()
        return list(self._tests.get(bundle.digest, ()))

    def cover_tests(self, bundle: PolicyBundle) -> TestRun:
        """The scripted results, without lines: nothing is evaluated. Raises `PolicyError`."""
        return TestRun(tuple(self.run_tests(bundle)))

    def close(self) -> None:
        """Nothing to end."""

    def _judge(self, bundle: PolicyBundle, point: PolicyPoint, given: Mapping[str, Any]) -> Verdict:
        try:
            encode_input(given, point=point)
        except ValueError as error:
            return denied("invalid", f"The input cannot be judged: {error}.", engine=ENGINE)
        if not bundle.modules:
            text = f"The bundle has no rule for the point {point.value}."
            return denied("missing", text, engine=ENGINE)
        broken = self._diagnostics.get(bundle.digest)
        if broken:
            text = f"The policy bundle does not compile: {broken[0].text}."
            return denied("invalid", text, engine=ENGINE)
        with self._lock:
            self.calls.append((bundle.digest, point, given))
            script = self._scripts.get(point)
        return script(bundle, point, given) if script else ALLOWED

    def _next_failure(self) -> Exception | None:
        with self._lock:
            return self._failures.pop(0) if self._failures else None

    def _raise_failure(self) -> None:
        failure = self._next_failure()
        if failure is not None:
            raise PolicyError(str(failure)) from failure
