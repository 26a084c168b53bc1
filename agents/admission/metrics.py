"""What admission counts, in Prometheus' text format."""

import bisect
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

# Seconds. The aim is 0.02 at the 99th percentile, the API server's patience 2.
BUCKETS: Final = (0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)


class Metrics:
    """Reviews by what became of them, and how long they took. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: Counter[tuple[str, str]] = Counter()
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0
        self.undecided = 0  # refused without a judgement, so without a decision

    def answered(self, path: str, outcome: str, seconds: float) -> None:
        """One review was answered."""
        with self._lock:
            self._answers[path, outcome] += 1
            self._buckets[bisect.bisect_left(BUCKETS, seconds)] += 1
            self._seconds += seconds

    def text(self, gauges: Iterable[tuple[str, str, float]]) -> str:
        """Everything, and `gauges` of name, help and value."""
        with self._lock:
            answers, buckets = dict(self._answers), list(self._buckets)
            seconds, undecided = self._seconds, self.undecided
        lines = _head("clearance_admission_reviews_total", "counter", "Reviews answered.")
        for (path, outcome), count in sorted(answers.items()):
            labels = f'webhook="{path}",outcome="{outcome}"'
            lines.append(f"clearance_admission_reviews_total{{{labels}}} {count}")
        name = "clearance_admission_undecided_total"
        lines += [*_head(name, "counter", "Reviews refused unheard."), f"{name} {undecided}"]
        lines += _histogram(buckets, seconds)
        for gauge, help_text, value in gauges:
            lines += [*_head(gauge, "gauge", help_text), f"{gauge} {value:.6g}"]
        return "\n".join(lines) + "\n"


def _histogram(buckets: Sequence[int], seconds: float) -> list[str]:
    name = "clearance_admission_review_seconds"
    lines = _head(name, "histogram", "From the whole request to the answer.")
    count = 0
    for bound, number in zip((*map(str, BUCKETS), "+Inf"), buckets, strict=True):
        count += number
        lines.append(f'{name}_bucket{{le="{bound}"}} {count}')
    return [*lines, f"{name}_sum {seconds:.6f}", f"{name}_count {count}"]


def _head(name: str, kind: str, help_text: str) -> list[str]:
    return [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
