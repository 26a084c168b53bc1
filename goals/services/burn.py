"""What agents at work hold and cost: the figures that a person sees before steering many."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from agents.domain.states import AttemptState
from goals.services.metering import PriceUnknown, gpu_cost

MINUTE_MS: Final = 60_000
MICRO: Final = 1_000_000
BURN_COLUMNS: Final = ("state", "gpus", "specification__hold_gpus_on_pause")


@dataclass(frozen=True, slots=True)
class Burn:
    """So many agents hold so many GPUs; micro-USD a minute is None while no price is set."""

    agents: int = 0
    gpus: int = 0
    micro_usd_per_minute: int | None = 0

    @property
    def words(self) -> str:
        """As on the confirm: "37 agents, 12.40 USD a minute"."""
        agents = f"{self.agents:,} agent{'' if self.agents == 1 else 's'}"
        if not self.gpus:
            return f"{agents}, no GPU held"
        gpus = f"{self.gpus:,} GPU{'' if self.gpus == 1 else 's'}"
        if self.micro_usd_per_minute is None:
            return f"{agents}, {gpus}, cost unknown: no GPU price is set"
        return f"{agents}, {gpus}, {self.micro_usd_per_minute / MICRO:,.2f} USD a minute"


def burn_of(rows: Iterable[tuple[Any, Any, Any]]) -> Burn:
    """Sum rows of `BURN_COLUMNS`; a paused agent holds its GPUs only where its Goal keeps them."""
    agents = gpus = 0
    for state, count, is_holding in rows:
        agents += 1
        if state == AttemptState.RUNNING or (state == AttemptState.PAUSED and is_holding):
            gpus += count
    return Burn(agents, gpus, cost_a_minute(gpus))


def cost_a_minute(gpus: int) -> int | None:
    """Micro-USD; None while no price is set."""
    try:
        return gpu_cost(gpus * MINUTE_MS) if gpus else 0
    except PriceUnknown:
        return None
