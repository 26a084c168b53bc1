"""What telling a story under faults takes: a place, a way to the cluster, and patience."""

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agents.cluster.kubernetes.api import KubernetesApi, RateLimit
from goals.operator.pace import Pace
from governance.access import Principal
from governance.domain import EVERY_NAMESPACE, Permission
from lineage.domain import Actor, ActorKind
from tests.cluster.control_plane import CONTEXT, ControlPlane
from tests.cluster.fault_plan import Plan
from tests.cluster.fault_proxy import FaultProxy, Route

PATIENCE_SECONDS: Final = 120.0
LOOK_SECONDS: Final = 0.12
QUIET_SECONDS: Final = 0.6
REFERENCE_QUIET_SECONDS: Final = 5.0  # longer than anything is waited for
TIMEOUTS: Final = (1.0, 1.5)  # of the client; shorter than in life, as everything here is
WORK_SECONDS: Final = 0.25  # between two looks of the worker
REQUESTS_PER_SECOND, BURST = 40.0, 60
TERM_SECONDS: Final = 2
FAST: Final = Pace(
    poll_rows=0.1, relist=1.5, watch=5, first_pause=0.05, longest_pause=0.5, first_retry=0.05,
    longest_retry=0.5, again=0.2, refused=0.5,
)  # fmt: skip
PERSON: Final = Principal(
    actor=Actor(ActorKind.HUMAN, "somebody"),
    username="somebody",
    permissions={EVERY_NAMESPACE: frozenset({Permission.VIEW, Permission.OPERATE})},
)
numbers = itertools.count(1)


class Unlike(Exception):
    """The story did not come to the end it must come to."""


@dataclass
class Place:
    """Where stories are told: one namespace, one proxy, and the administrator's own way in."""

    plane: ControlPlane
    proxy: FaultProxy
    namespace: str
    directory: Path
    admin: KubernetesApi


@dataclass
class Told:
    """One run: its routes, to be judged afterwards."""

    place: Place
    name: str
    plan: Plan
    routes: list[Route] = field(default_factory=list)

    def route(self, plan: Plan) -> Route:
        made = self.place.proxy.route(f"{self.name}-{next(numbers)}", plan)
        self.routes.append(made)
        return made

    def client(self, route: Route) -> KubernetesApi:
        return KubernetesApi(
            CONTEXT,
            config_file=str(route.kubeconfig(self.place.directory)),
            limit=RateLimit(per_second=REQUESTS_PER_SECOND, burst=BURST),
            timeouts=TIMEOUTS,
        )

    @property
    def deadline(self) -> float:
        """When whoever waits gives up; an outage is no reason to."""
        return time.monotonic() + PATIENCE_SECONDS + (self.plan.outage or (0.0, 0.0))[1]

    def until(self, holds: Callable[[], Any], what: str) -> Any:
        deadline = self.deadline
        while not (found := holds()):
            if time.monotonic() > deadline:
                raise Unlike(f"never {what}: {self.end()}")
            time.sleep(LOOK_SECONDS)
        return found

    def end(self) -> Any:
        raise NotImplementedError

    def settle(self, expected: Any) -> Any:
        """The end once nothing changes any more; `expected` ends the wait as soon as it is so."""
        quiet = REFERENCE_QUIET_SECONDS if expected is None else QUIET_SECONDS
        deadline = self.deadline
        last, since = None, time.monotonic()
        while True:
            now = self.end()
            if now != last or (expected is not None and now != expected):
                last, since = now, time.monotonic()
            elif time.monotonic() - since > quiet:
                return now
            if time.monotonic() > deadline:
                raise Unlike(f"ended as {json.dumps(now)}, not as {json.dumps(expected)}")
            time.sleep(LOOK_SECONDS)
