"""One person's way through the console: each step timed, photographed and listened to."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.browser.chromium import Person

PICTURES = "BENCH_PICTURES"  # a folder here gets a picture of each step


@dataclass
class Walk:
    """Steps of one role as `person` takes them, with the seconds of each."""

    role: str
    person: Person
    seconds: list[tuple[str, float]] = field(default_factory=list)

    @contextlib.contextmanager
    def step(self, says: str) -> Iterator[None]:
        """What is done within is a step; what fails there is told with the step's words."""
        began = time.monotonic()
        try:
            yield
        except Exception as error:
            self._picture(f"{says} FAILED")
            raise RuntimeError(f"{self.role}: {says}: {error}") from error
        took = time.monotonic() - began
        self.seconds.append((says, took))
        print(f"{self.role}: {says}: {took:.2f} s", file=sys.stderr, flush=True)
        self._picture(says)

    def _picture(self, says: str) -> None:
        if folder := os.environ.get(PICTURES):
            words = f"{self.role} {len(self.seconds):02} {says}".replace("/", " ").split()
            self.person.page.screenshot(
                path=Path(folder) / f"{'-'.join(words)}.png", full_page=True
            )

    @property
    def complaints(self) -> list[str]:
        """What the browser's console said, and pages wider than their screen."""
        return self.person.complaints

    def fits(self) -> None:
        """Nothing of the page is wider than the screen. Raises AssertionError."""
        wide = self.person.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= self.person.page.viewport_size["width"], f"the page is {wide} px wide"
