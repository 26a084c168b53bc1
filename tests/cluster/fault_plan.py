"""What goes wrong between a client and the API server: drawn from a seed, the same each time."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Fault(StrEnum):
    """One thing that can go wrong with a request, or with an event of a watch."""

    RESET_BEFORE = "reset before it reached the server"
    RESET_AFTER = "reset after the server did it"
    TORN = "an answer cut in its middle"
    HANG = "done, and never answered"
    SLOW = "an answer in small pieces"
    CONFLICT = "409"
    THROTTLE = "429 with Retry-After"
    ERROR_BEFORE = "500 before it reached the server"
    ERROR_AFTER = "504 after the server did it"
    STALE = "a list of an earlier moment"
    GONE = "410"
    DROP = "an event nobody hears"
    DUPLICATE = "an event twice"
    LATE = "an old event again"
    GONE_IN_WATCH = "410 within a watch"
    CUT = "a watch that breaks"
    TORN_LINE = "a watch that breaks within an event"


ANY = (Fault.RESET_BEFORE, Fault.THROTTLE, Fault.ERROR_BEFORE)
DONE = (Fault.RESET_AFTER, Fault.TORN, Fault.HANG, Fault.SLOW, Fault.ERROR_AFTER)
WRITES = (*ANY, *DONE, Fault.CONFLICT)
READS = (*ANY, *DONE)
LISTS = (*READS, Fault.STALE, Fault.GONE)
WATCHES = (*ANY, Fault.GONE)
EVENTS = (
    Fault.DROP, Fault.DUPLICATE, Fault.LATE, Fault.GONE_IN_WATCH, Fault.CUT, Fault.TORN_LINE,
    Fault.SLOW,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kill:
    """The client dies at its n-th write: before it reached the server, or after it was done."""

    write: int
    is_after: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Chances of each fault, for so many seconds; when nothing answers; where the client dies."""

    seed: int = 0
    rates: Mapping[Fault, float] = field(default_factory=dict)
    seconds: float = 0.0  # from the first request on
    outage: tuple[float, float] | None = None  # from, to: seconds after the first request
    kills: tuple[Kill, ...] = ()  # one after the other; each counts the writes since the last

    def draw(self, place: str, number: int, among: Sequence[Fault]) -> Fault | None:
        """What goes wrong with the n-th request (or event) of one place."""
        point = random.Random(f"{self.seed}/{place}/{number}").random()
        for fault in among:
            point -= self.rates.get(fault, 0.0)
            if point < 0:
                return fault
        return None


CALM = Plan()
TOGETHER = (1, 5)  # kinds of faults in one plan
RATE = (0.1, 0.4)
SECONDS = (1.5, 4.0)
KILLED_PLANS, OUTAGE_PLANS = 0.4, 0.15
KILL_WRITES = 10  # more than a story has


def plan_of(seed: int) -> Plan:
    """The plan of a seed: some weather, often a kill, sometimes an outage."""
    chance = random.Random(seed)
    kinds = chance.sample(list(Fault), chance.randint(*TOGETHER))
    kills = tuple(
        Kill(chance.randint(1, KILL_WRITES), chance.random() < 0.5)
        for _ in range(chance.randint(1, 3) if chance.random() < KILLED_PLANS else 0)
    )
    outage = None
    if chance.random() < OUTAGE_PLANS:
        begins = chance.uniform(0.0, 1.5)
        outage = begins, begins + chance.uniform(1.0, 5.0)
    return Plan(
        seed=seed,
        rates={kind: chance.uniform(*RATE) for kind in kinds},
        seconds=chance.uniform(*SECONDS),
        outage=outage,
        kills=kills,
    )
