"""The GPUs of this machine as NVIDIA's management library sees them; the only user of pynvml."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pynvml

from agents.cluster.base import ClusterUnavailable

# What NVML answers on a machine that simply has no NVIDIA card or driver.
_ABSENT = (
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
)


@dataclass(frozen=True, slots=True)
class Card:
    """One physical GPU. Figures are None where the card does not tell."""

    uuid: str
    name: str
    memory_total_bytes: int | None
    memory_used_bytes: int | None
    utilisation: float | None  # 0..1


def read_cards() -> tuple[Card, ...]:
    """Every card, in NVML's order; empty on a machine without cards or driver.

    Opens and closes NVML each time, so that a process which forks later carries nothing over.

    Raises:
        ClusterUnavailable: the driver is there but does not answer, which is not "no cards".
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if error.value in _ABSENT:
            return ()
        raise ClusterUnavailable(f"NVML could not be started: {error}.") from error
    try:
        return tuple(_read_card(index) for index in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError as error:
        raise ClusterUnavailable(f"NVML could not list the GPUs: {error}.") from error
    finally:
        pynvml.nvmlShutdown()


def _read_card(index: int) -> Card:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = _if_told(pynvml.nvmlDeviceGetMemoryInfo, handle)
    rates = _if_told(pynvml.nvmlDeviceGetUtilizationRates, handle)
    return Card(
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        name=pynvml.nvmlDeviceGetName(handle),
        memory_total_bytes=None if memory is None else int(memory.total),
        memory_used_bytes=None if memory is None else int(memory.used),
        utilisation=None if rates is None else rates.gpu / 100,  # NVML gives percent
    )


def _if_told(question: Callable[[Any], Any], handle: Any) -> Any:
    """The answer, or None from a card that does not support the question (MIG, old cards)."""
    try:
        return question(handle)
    except pynvml.NVMLError as error:
        if error.value in (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION):
            return None
        raise
