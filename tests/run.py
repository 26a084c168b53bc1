"""All tests, in the passes that suit them: `python -m tests.run [PYTEST ARGUMENT …]`.

First everything that may run side by side; then, one after the other, what kills processes,
drives a browser or takes long; then the behaviour tests once more on PostgreSQL and Redis. Every
skip is printed with its reason, and the last line adds all passes up.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from tests.with_servers import MissingServer, servers

WORKERS = str(min(os.cpu_count() or 1, 4))  # beyond that the servers of the tests get in the way
ALONE = "kill or browser or slow"
BEHAVIOUR = [f"tests/{app}" for app in ("console", "goals", "agents", "governance", "lineage")]
NOTHING_COLLECTED = 5  # pytest's exit status
PARALLEL = ("-n", WORKERS, "--dist", "loadfile")


@dataclass(slots=True)
class Totals:
    """What all passes together came to."""

    passed: int = 0
    failed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, report: Path) -> None:
        """Count one JUnit report; an error outside a test's body is a failure, too."""
        for case in ElementTree.parse(report).getroot().iter("testcase"):
            kinds = {child.tag: child.get("message", "") for child in case}
            if "failure" in kinds or "error" in kinds:
                self.failed += 1
            elif "skipped" in kinds:
                self.skipped[kinds["skipped"]] += 1
            else:
                self.passed += 1

    def closing_line(self) -> str:
        """The line a reader, or a machine, takes the result from."""
        return f"{self.passed} passed, {self.failed} failed, {self.skipped.total()} skipped"


def run_pass(
    name: str, arguments: Sequence[str], *, totals: Totals, environment: Mapping[str, str]
) -> bool:
    """One run of pytest; returns whether it is a success."""
    print(f"\n=== {name} ===", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="clearance-tests-") as directory:
        report = Path(directory) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *arguments]
        status = subprocess.run(command, env={**os.environ, **environment}, check=False).returncode
        if report.exists():
            totals.add(report)
    print(f"=== {name}: exit {status} after {time.monotonic() - began:.0f} s ===", flush=True)
    return status in (0, NOTHING_COLLECTED)


def main(extra: Sequence[str]) -> int:
    """Run every pass, even after a failed one."""
    # Started in the background a shell lets us ignore SIGINT, and every program a test starts and
    # interrupts would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    totals = Totals()
    ok = [
        run_pass("side by side", [*PARALLEL, "-m", f"not ({ALONE})", *extra],
                 totals=totals, environment={}),
        run_pass("one by one", ["-m", ALONE, *extra], totals=totals, environment={}),
    ]  # fmt: skip
    paths = [] if any(not word.startswith("-") for word in extra) else BEHAVIOUR
    try:
        with servers() as environment:
            ok.append(
                run_pass("behaviour on PostgreSQL and Redis",
                         [*PARALLEL, "-m", f"not ({ALONE} or contract)", *paths, *extra],
                         totals=totals, environment=environment)
            )  # fmt: skip
    except MissingServer as missing:
        totals.skipped[f"behaviour on PostgreSQL and Redis: {missing}"] += 1
    for reason, count in sorted(totals.skipped.items()):
        print(f"skipped {count}: {reason}")
    if totals.passed == 0:
        ok.append(False)  # a run without a test proves nothing
    print(totals.closing_line(), flush=True)
    return 0 if all(ok) and totals.failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
