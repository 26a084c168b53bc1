"""What the product asks of a policy engine, and the shapes that cross that line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol


class PolicyError(Exception):
    """The engine could not be used at all; never a verdict, since what is undecidable denies."""


class PolicyPoint(StrEnum):
    """Where a decision is taken."""

    GRAPH = "graph"
    WORKLOAD = "workload"
    RELEASE = "release"
    APPROVAL = "approval"
    DRIFT = "drift"


class Outcome(StrEnum):
    """A verdict in order of severity; the worst message wins."""

    ALLOW = "allow"
    WARN = "warn"
    REQUIRE_APPROVAL = "require_approval"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class PolicyModule:
    """One Rego file: `path` inside its bundle and the text."""

    path: str
    source: str


@dataclass(frozen=True, slots=True)
class PolicyBundle:
    """Modules and data that are evaluated together; `digest` (`sha256:…`) identifies them."""

    digest: str
    modules: tuple[PolicyModule, ...]
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PolicyMessage:
    """One thing a rule said. `line` counts from 1 at the head of the rule, 0 when unknown."""

    outcome: Outcome
    text: str
    rule: str = ""  # e.g. "clearance.workload.deny"
    path: str = ""
    line: int = 0
    quorum: int = 1  # people that must approve, when that is what the rule requires


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one input. `error` is set when the denial is for want of an answer (I8)."""

    outcome: Outcome
    messages: tuple[PolicyMessage, ...] = ()
    error: str = ""  # "", "timeout", "crash", "memory", "missing", "invalid"
    duration_seconds: float = 0.0
    engine: str = ""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """A parse or compile error of a bundle; line and column count from 1."""

    path: str
    line: int
    column: int
    text: str


@dataclass(frozen=True, slots=True)
class RegoTestResult:
    """One `test_*` rule: passed or not, and how long it took."""

    rule: str
    path: str
    line: int
    passed: bool
    text: str = ""
    duration_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class FileCoverage:
    """Lines of one file (from 1) on which tests evaluated something, and where none did.

    A covered line was reached; that is not to say that what stands on it came out true.
    """

    path: str
    covered: tuple[int, ...]
    missed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TestRun:
    """The results of a bundle's tests, and their coverage where the engine counts it."""

    __test__ = False  # for pytest, which takes the name for a test's

    results: tuple[RegoTestResult, ...]
    coverage: tuple[FileCoverage, ...] = ()


class PolicyEngine(Protocol):
    """Evaluates Rego v0 and v1. Evaluation never raises for what a policy does: it denies."""

    def evaluate(
        self, bundle: PolicyBundle, point: PolicyPoint, inputs: Sequence[Mapping[str, Any]]
    ) -> Sequence[Verdict]:
        """One verdict per input, in order. Error, timeout, crash or missing policy denies."""

    def check(self, bundle: PolicyBundle) -> Sequence[Diagnostic]:
        """Parse and compile errors; empty when the bundle is good. Raises `PolicyError`."""

    def run_tests(self, bundle: PolicyBundle) -> Sequence[RegoTestResult]:
        """Run every `test_*` rule of the bundle. Raises `PolicyError`."""

    def cover_tests(self, bundle: PolicyBundle) -> TestRun:
        """The same, and which lines the tests reached. Raises `PolicyError`."""

    def close(self) -> None:
        """End child processes; the engine may be used again afterwards."""
