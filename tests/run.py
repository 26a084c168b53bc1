"""All tests, in the passes that suit them: `python -m tests.run [PYTEST ARGUMENT …]`.

First everything that may run side by side; then, one after the other, what kills processes,
drives a browser or takes long, and beside it the tests on a real Kubernetes control plane; then
the behaviour tests that touch a database once more on PostgreSQL and Redis. A few
failures of a pass are tried once more, alone: what then passes is named as unsteady, since real
processes on a busy machine miss a deadline now and then, and what fails twice has failed. Every
skip is printed with its reason, and the last line adds all passes up.
"""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

from tests.cluster.control_plane import BUILT
from tests.with_servers import MissingServer, servers

WORKERS = str(min(os.cpu_count() or 1, 4))  # beyond that the servers of the tests get in the way
ALONE = "kill or browser or slow"
BEHAVIOUR = [f"tests/{app}" for app in ("console", "goals", "agents", "governance", "lineage")]
TESTS_FAILED, NOTHING_COLLECTED = 1, 5  # pytest's exit statuses
SECOND_TRIES = 5  # of one pass: more failures than these are no accident
SLOWEST = 15  # printed with their times: where the minutes of a pass go
PARALLEL = ("-n", WORKERS, "--dist", "loadfile")


@dataclass(slots=True)
class Totals:
    """What all passes together came to."""

    passed: int = 0
    failed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    unsteady: list[str] = field(default_factory=list)

    def add(self, cases: Mapping[str, Mapping[str, str]]) -> None:
        """Count the cases of one pass; an error outside a test's body is a failure, too."""
        for kinds in cases.values():
            if is_failure(kinds):
                self.failed += 1
            elif "skipped" in kinds:
                self.skipped[kinds["skipped"]] += 1
            else:
                self.passed += 1

    def include(self, other: "Totals") -> None:
        """Count what another came to."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.unsteady += other.unsteady

    def closing_line(self) -> str:
        """The line a reader, or a machine, takes the result from."""
        return f"{self.passed} passed, {self.failed} failed, {self.skipped.total()} skipped"


def read_report(report: Path) -> dict[str, dict[str, str]]:
    """Outcomes by test of a JUnit report: what went wrong, or why it was skipped; {} is a pass."""
    cases: dict[str, dict[str, str]] = {}
    if report.exists():
        for case in ElementTree.parse(report).getroot().iter("testcase"):
            name = f"{case.get('classname')}::{case.get('name')}"
            said = {child.tag: child.get("message") or "" for child in case}
            cases.setdefault(name, {}).update(said)  # a failed teardown is a second entry
    return cases


def is_failure(kinds: Mapping[str, str]) -> bool:
    """The test, or what surrounds it, went wrong."""
    return "failure" in kinds or "error" in kinds


def run_pass(
    name: str,
    arguments: Sequence[str],
    *,
    totals: Totals,
    environment: Mapping[str, str],
    output: IO[str] | None = None,
) -> bool:
    """One run of pytest; returns whether it is a success. `output` is where it is printed."""
    print(f"\n=== {name} ===", file=output, flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="clearance-tests-") as directory:
        where = Path(directory)
        common = ["-q", f"--durations={SLOWEST}", "-o", f"cache_dir={where / 'cache'}"]

        def run(report: Path, *more: str) -> int:
            command = [sys.executable, "-m", "pytest", *common, f"--junitxml={report}", *more]
            given = {**os.environ, **environment}
            done = subprocess.run(
                command, env=given, stdout=output, stderr=output and subprocess.STDOUT, check=False
            )
            return done.returncode

        status = run(where / "report.xml", *arguments)
        cases = read_report(where / "report.xml")
        failed = {test for test, kinds in cases.items() if is_failure(kinds)}
        if status == TESTS_FAILED and 0 < len(failed) <= SECOND_TRIES:
            again = f"--- {name}: once more, alone: {', '.join(sorted(failed))}"
            print(again, file=output, flush=True)
            words = [word for word in arguments if word not in PARALLEL]
            status = run(
                where / "again.xml", *words, "--last-failed", "--last-failed-no-failures=none"
            )
            second = read_report(where / "again.xml")
            if failed - set(second):
                status = TESTS_FAILED  # not run again is not passed
            totals.unsteady += sorted(
                test for test in failed & set(second) if not is_failure(second[test])
            )
            cases |= {test: kinds for test, kinds in second.items() if test in failed}
        totals.add(cases)
    spent = time.monotonic() - began
    print(f"=== {name}: exit {status} after {spent:.0f} s ===", file=output, flush=True)
    return status in (0, NOTHING_COLLECTED)


def run_on_kubernetes(arguments: Sequence[str], *, totals: Totals, output: IO[str]) -> bool:
    """The pass on a real control plane, once nobody builds its programs any more."""
    lock = BUILT / ".lock"
    if lock.exists():
        with lock.open() as held:
            fcntl.flock(held, fcntl.LOCK_SH)
    return run_pass("Kubernetes", arguments, totals=totals, environment={}, output=output)


def main(extra: Sequence[str]) -> int:
    """Run every pass, even after a failed one."""
    # Started in the background a shell lets us ignore SIGINT, and every program a test starts and
    # interrupts would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    totals, meanwhile = Totals(), Totals()
    is_all = all(word.startswith("-") for word in extra)
    alone = ["-m", ALONE, *(["--ignore=tests/cluster"] if is_all else []), *extra]
    ok = [
        run_pass("side by side", [*PARALLEL, "-m", f"not ({ALONE})", *extra],
                 totals=totals, environment={})
    ]  # fmt: skip
    with ThreadPoolExecutor(1) as beside, tempfile.TemporaryFile("w+") as output:
        # A control plane waits more than it works: its tests cost little beside the others.
        cluster = beside.submit(
            run_on_kubernetes, ["-m", ALONE, "tests/cluster", *extra],
            totals=meanwhile, output=output,
        ) if is_all else None  # fmt: skip
        ok.append(run_pass("one by one", alone, totals=totals, environment={}))
        if cluster is not None:
            ok.append(cluster.result())
            output.seek(0)
            print(output.read(), flush=True)
            totals.include(meanwhile)
    try:
        with servers() as environment:
            ok.append(
                run_pass("behaviour on PostgreSQL and Redis",
                         [*PARALLEL, "--database-only", "-m", f"not ({ALONE} or contract)",
                          *(BEHAVIOUR if is_all else []), *extra],
                         totals=totals, environment=environment)
            )  # fmt: skip
    except MissingServer as missing:
        totals.skipped[f"behaviour on PostgreSQL and Redis: {missing}"] += 1
    for reason, count in sorted(totals.skipped.items()):
        print(f"skipped {count}: {reason}")
    for test in totals.unsteady:
        print(f"unsteady, passed at the second try: {test}")
    if totals.passed == 0:
        ok.append(False)  # a run without a test proves nothing
    print(totals.closing_line(), flush=True)
    return 0 if all(ok) and totals.failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
