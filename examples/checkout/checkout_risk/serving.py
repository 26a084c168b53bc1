"""Which model scores which order: the production one, or for a share of the traffic the canary."""

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from .console_api import ConsoleApi, ConsoleUnavailable, WeightsRefused
from .load import percentile
from .model import ModelInvalid, RiskModel, load_verified

POLL_SECONDS = 2.0
RECENT = 2_000  # latencies kept for each model, for /metrics
MODELS_MAX = 4  # kept loaded, the longest unused go first: both lanes and what they served before
LANES = ("production", "canary")
PINS = {"always": "canary", "never": "production"}  # values of the header X-Canary


@dataclass(slots=True)
class ServedModel:
    """A loaded model with workers of its own: a slow one does not queue before a fast one."""

    digest: str
    blob: str
    model: RiskModel
    workers: ThreadPoolExecutor
    waiting: int = 0
    requests: int = 0
    errors: int = 0
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))

    def figures(self) -> dict[str, Any]:
        """Counts and latency percentiles (ms, over the last `RECENT` orders) as JSON."""
        recent = list(self.latencies_ms)
        latency = {f"p{p}_ms": percentile(recent, p) if recent else None for p in (50, 95, 99)}
        return {"requests": self.requests, "errors": self.errors, **latency}


class Router:
    """The lanes' models. `follow` keeps them up to date; `pick` chooses one for an order."""

    def __init__(
        self,
        api: ConsoleApi,
        *,
        service: str,
        canary_share: float,
        workers: int,
        cache: Path,
        say: Callable[[str], None] = print,
    ) -> None:
        self._api = api
        self._service = service
        self.canary_share = canary_share
        self._workers = workers
        self._cache = cache
        self._say = say
        self._lanes: dict[str, ServedModel] = {}
        self._kept: dict[str, ServedModel] = {}  # by digest, last used last
        self._refused: dict[str, str] = {}  # digest -> why; not fetched again until it changes
        self.last_error = "The console has not been asked yet."
        self.polled_at: float | None = None

    def follow(self, stop: Event) -> None:
        """Serve the last known models, then ask for releases until `stop` is set."""
        self._restore()
        while True:
            self.poll()
            if stop.wait(POLL_SECONDS):
                return

    def poll(self) -> None:
        """Ask once what each lane should serve; whatever fails, the lanes keep what they have."""
        problem = ""
        for lane in LANES:
            try:
                digest = self._api.current_release(environment=lane, service=self._service)
                self._serve(lane, digest)
                self.polled_at = time.time()
            except (ConsoleUnavailable, WeightsRefused, ModelInvalid, OSError) as error:
                problem = problem or str(error)
        if problem != self.last_error:
            self._say(f"checkout: {problem}" if problem else "checkout: the console answers")
        self.last_error = problem

    def pick(self, request_id: str, *, pin: str = "") -> ServedModel | None:
        """The model for an order; the same id always goes the same way. None before any release.

        `pin` is the header X-Canary: `always`, `never`, or empty for the configured share.
        """
        production, canary = self._lanes.get("production"), self._lanes.get("canary")
        if canary is None or production is None or canary.digest == production.digest:
            return production
        if pin in PINS:
            return canary if PINS[pin] == "canary" else production
        place = int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:8], "big") / 2**64
        return canary if place < self.canary_share else production

    def state(self) -> dict[str, Any]:
        """What is served and why not more, as JSON."""
        lanes = {lane: self._lanes[lane].digest if lane in self._lanes else None for lane in LANES}
        age = None if self.polled_at is None else round(time.time() - self.polled_at, 1)
        return {
            "status": "serving" if lanes["production"] else "waiting",
            **lanes,
            "canary_share": self.canary_share,
            "console_age_seconds": age,
            "problem": self.last_error or None,
        }

    def figures(self) -> dict[str, Any]:
        """Counts and latencies of each digest that is kept loaded."""
        return {digest: served.figures() for digest, served in list(self._kept.items())}

    def _serve(self, lane: str, digest: str | None) -> None:
        current = self._lanes.get(lane)
        if digest is None:
            if lane == "canary" and current is not None:
                self._set(lane, None)
            return  # production keeps serving: an empty answer must not take the shop down
        if current is not None and current.digest == digest:
            return
        if digest in self._refused:
            raise WeightsRefused(self._refused[digest])
        self._set(lane, self._kept.get(digest) or self._fetch(digest))

    def _fetch(self, digest: str) -> ServedModel:
        weights = self._api.weights(digest)
        path = self._weights_path(weights.blob)
        try:
            if not path.is_file():
                self._api.download(weights, path)
            return self._load(digest, weights.blob)
        except (WeightsRefused, ModelInvalid) as error:
            path.unlink(missing_ok=True)
            if isinstance(error, ModelInvalid):  # the right bytes, and no model: they never will be
                self._refused[digest] = str(error)
            raise

    def _load(self, digest: str, blob: str) -> ServedModel:
        model = load_verified(self._weights_path(blob), blob=blob)
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix=digest[7:15])
        return ServedModel(digest, blob, model, pool)

    def _weights_path(self, blob: str) -> Path:
        return self._cache / f"{blob.removeprefix('sha256:')}.npz"

    def _set(self, lane: str, served: ServedModel | None) -> None:
        before = self._lanes.get(lane)
        others = {name: model for name, model in self._lanes.items() if name != lane}
        # One assignment: an order that arrives meanwhile sees the lanes before or after, whole.
        self._lanes = others if served is None else {**others, lane: served}
        if served is not None:
            kept = {k: v for k, v in self._kept.items() if k != served.digest}
            self._kept = dict([*kept.items(), (served.digest, served)][-MODELS_MAX:])
        self._remember()
        name = served.digest if served else "nothing"
        self._say(f"checkout: {lane} serves {name} (before: {before.digest if before else '-'})")

    def _remember(self) -> None:
        """Note what is served, so that a restart serves it while the console is away."""
        served = {lane: {"digest": s.digest, "blob": s.blob} for lane, s in self._lanes.items()}
        partial = self._cache / ".served.json.partial"
        partial.write_text(json.dumps(served))
        partial.replace(self._cache / "served.json")
        needed = {self._weights_path(s.blob) for s in [*self._kept.values(), *self._lanes.values()]}
        for path in set(self._cache.glob("*.npz")) - needed:
            path.unlink(missing_ok=True)

    def _restore(self) -> None:
        try:
            kept = json.loads((self._cache / "served.json").read_text())
            for lane in LANES:
                if lane in kept:
                    named = kept[lane]
                    found = self._kept.get(named["digest"])
                    self._set(lane, found or self._load(named["digest"], named["blob"]))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._say(f"checkout: what was served before cannot be restored: {error}")
