"""The GPUs of this machine as NVIDIA's management library sees them; the only user of pynvml."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pynvml

from agents.cluster.base import ClusterUnavailable
from agents.gpus.domain import ComputeProcess, DeviceKind, NodeReading, Reading, Throttle

# What NVML answers on a machine that simply has no NVIDIA card or driver.
_ABSENT = (
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
)
# One card is out of order; the others may well answer.
_CARD_LOST = (
    pynvml.NVML_ERROR_GPU_IS_LOST,
    pynvml.NVML_ERROR_RESET_REQUIRED,
    pynvml.NVML_ERROR_GPU_NOT_FOUND,
    pynvml.NVML_ERROR_IRQ_ISSUE,
)
# NVML as a whole is out of order. Any other error is about one question: the card does not tell.
_OVER = (
    pynvml.NVML_ERROR_UNINITIALIZED,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
)
_THROTTLES: Final = (
    (pynvml.nvmlClocksEventReasonHwThermalSlowdown, Throttle.HW_THERMAL),
    (pynvml.nvmlClocksEventReasonSwThermalSlowdown, Throttle.SW_THERMAL),
    (pynvml.nvmlClocksEventReasonHwSlowdown, Throttle.HW_SLOWDOWN),
    (pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown, Throttle.POWER_BRAKE),
    (pynvml.nvmlClocksEventReasonSwPowerCap, Throttle.POWER_CAP),
)
_MIG_WORD = " MIG "  # "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
EVENTS_MAX: Final = 256  # of one look: a card that falls apart must not hold the sampler up


class DriverReplaced(ClusterUnavailable):
    """The driver was replaced under the loaded library: only a new process can read it again."""


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU that a workload can be given. Figures are None where it does not tell."""

    uuid: str
    name: str
    memory_total_bytes: int | None
    memory_used_bytes: int | None
    utilisation: float | None  # 0..1


def read_cards() -> tuple[Card, ...]:
    """What can be given to workloads, in NVML's order: cards, and of a card in MIG mode its slices.

    Empty on a machine without cards or driver. Opens and closes NVML each time, so that a process
    which forks later carries nothing over.

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
        return tuple(
            _read_card(handle)
            for index in range(pynvml.nvmlDeviceGetCount())
            for handle in _givable(pynvml.nvmlDeviceGetHandleByIndex(index))
        )
    except pynvml.NVMLError as error:
        raise ClusterUnavailable(f"NVML could not list the GPUs: {error}.") from error
    finally:
        pynvml.nvmlShutdown()


def _givable(card: Any) -> Iterator[Any]:
    """The card, or its slices: with MIG on, CUDA runs on slices alone."""
    if _is_mig_on(card):
        yield from (handle for _, handle in _slices(card))
    else:
        yield card


def _read_card(handle: Any) -> Card:
    memory = _told(pynvml.nvmlDeviceGetMemoryInfo, handle)
    rates = _told(pynvml.nvmlDeviceGetUtilizationRates, handle)
    return Card(
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        name=pynvml.nvmlDeviceGetName(handle),
        memory_total_bytes=None if memory is None else int(memory.total),
        memory_used_bytes=None if memory is None else int(memory.used),
        utilisation=None if rates is None else rates.gpu / 100,  # NVML gives percent
    )


@dataclass(slots=True)
class _Session:
    """What lives between nvmlInit and nvmlShutdown: the event set and who is in it."""

    driver_version: str
    events: Any = None
    registered: dict[str, bool] = field(default_factory=dict)  # by UUID: whether it tells XIDs


class NvmlNode:
    """All GPUs of this machine, looked at again and again. The constructor opens nothing.

    NVML stays open between looks, because it reports XID errors only to who has asked before they
    happened. After an error the next look starts it afresh.
    """

    def __init__(self) -> None:
        self._session: _Session | None = None
        self._uuids: dict[int, str] = {}  # of cards by index, to name one that no longer answers

    def read(self) -> NodeReading:
        """Every card followed by its slices; nothing on a machine without cards or driver.

        Raises:
            DriverReplaced: this process cannot read the GPUs any more, a new one can.
            ClusterUnavailable: the driver is there but does not answer.
        """
        try:
            session = self._opened()
            if session is None:
                return NodeReading()
            return self._look(session)
        except pynvml.NVMLError as error:
            self.close()
            if error.value in _ABSENT:
                return NodeReading()
            kind = (
                DriverReplaced
                if error.value == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
                else ClusterUnavailable
            )
            raise kind(f"NVML does not answer: {error}.") from error

    def close(self) -> None:
        """Let NVML go; closing twice is closing once."""
        session, self._session = self._session, None
        if session is None:
            return
        for close in (lambda: _free(session.events), pynvml.nvmlShutdown):
            try:
                close()
            except pynvml.NVMLError:
                continue  # it is gone already

    def _opened(self) -> _Session | None:
        if self._session is None:
            try:
                pynvml.nvmlInit()
            except pynvml.NVMLError as error:
                if error.value in _ABSENT:
                    return None
                raise
            self._session = _Session("")
            self._session.driver_version = str(_told(pynvml.nvmlSystemGetDriverVersion) or "")
            self._session.events = _told(pynvml.nvmlEventSetCreate)
        return self._session

    def _look(self, session: _Session) -> NodeReading:
        cards: list[tuple[int, str, Any]] = []
        lost: list[Reading] = []
        notes: list[str] = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                uuid = pynvml.nvmlDeviceGetUUID(handle)
            except pynvml.NVMLError as error:
                if error.value not in _CARD_LOST:
                    raise
                if known := self._uuids.get(index):
                    lost.append(_lost(known, index, error))
                else:
                    notes.append(f"GPU {index} does not answer: {error}.")
                continue
            self._uuids[index] = uuid
            cards.append((index, uuid, handle))
            self._listen(session, uuid, handle)
        xids = _xids(session)
        found = [
            reading
            for index, uuid, handle in cards
            for reading in _readings(index, uuid, handle, xids, session.registered[uuid])
        ]
        return NodeReading(
            driver_version=session.driver_version,
            devices=tuple(found + lost),
            notes=tuple(notes),
        )

    def _listen(self, session: _Session, uuid: str, handle: Any) -> None:
        if uuid in session.registered:
            return
        heard = False
        if session.events is not None:
            kind = pynvml.nvmlEventTypeXidCriticalError
            try:
                pynvml.nvmlDeviceRegisterEvents(handle, kind, session.events)
                heard = True
            except pynvml.NVMLError as error:
                if error.value in _OVER:
                    raise
        session.registered[uuid] = heard


def _free(events: Any) -> None:
    if events is not None:
        pynvml.nvmlEventSetFree(events)


def _xids(session: _Session) -> dict[str, list[int]]:
    """XID errors that happened since the last look, by card; never waits."""
    found: dict[str, list[int]] = {}
    for _ in range(EVENTS_MAX if session.events is not None else 0):
        try:
            event = pynvml.nvmlEventSetWait_v2(session.events, 0)
            uuid = pynvml.nvmlDeviceGetUUID(event.device)
        except pynvml.NVMLError as error:
            if error.value == pynvml.NVML_ERROR_TIMEOUT:
                break
            if error.value in _CARD_LOST:
                continue
            raise
        found.setdefault(uuid, []).append(int(event.eventData))
    return found


def _readings(
    index: int, uuid: str, handle: Any, xids: dict[str, list[int]], hears_xids: bool
) -> Iterator[Reading]:
    """The card and its slices; a card that fails in between is lost, and so are its slices."""
    try:
        yield from [
            _card_reading(index, uuid, handle, xids, hears_xids),
            *_slice_readings(handle, uuid),
        ]
    except pynvml.NVMLError as error:
        if error.value not in _CARD_LOST:
            raise
        yield _lost(uuid, index, error, xids=tuple(xids.get(uuid, ())))


def _lost(uuid: str, index: int, error: Exception, *, xids: tuple[int, ...] = ()) -> Reading:
    return Reading(
        id=uuid, kind=DeviceKind.CARD, name="", position=index, xids=xids,
        trouble=f"The card does not answer: {error}.",
    )  # fmt: skip


def _card_reading(
    index: int, uuid: str, handle: Any, xids: dict[str, list[int]], hears_xids: bool
) -> Reading:
    memory = _told(pynvml.nvmlDeviceGetMemoryInfo, handle)
    rates = _told(pynvml.nvmlDeviceGetUtilizationRates, handle)
    ecc = _told(pynvml.nvmlDeviceGetEccMode, handle)
    return Reading(
        id=uuid,
        kind=DeviceKind.CARD,
        name=pynvml.nvmlDeviceGetName(handle),
        position=index,
        memory_total_bytes=None if memory is None else int(memory.total),
        memory_used_bytes=None if memory is None else int(memory.used),
        utilisation=None if rates is None else rates.gpu / 100,
        temperature_c=_told(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        temperature_limit_c=_told(
            pynvml.nvmlDeviceGetTemperatureThreshold,
            handle,
            pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,
        ),
        power_mw=_told(pynvml.nvmlDeviceGetPowerUsage, handle),
        power_limit_mw=_told(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle),
        throttles=_throttles(handle),
        is_ecc_on=None if ecc is None else bool(ecc[0]),
        ecc_corrected=_ecc_count(handle, pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
        ecc_uncorrected=_ecc_count(handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
        is_mig_on=_is_mig_on(handle),
        hears_xids=hears_xids,
        xids=tuple(xids.get(uuid, ())),
        processes=_processes(handle),
    )


def _slice_readings(card: Any, uuid: str) -> Iterator[Reading]:
    if not _is_mig_on(card):
        return
    for position, handle in _slices(card):
        memory = _told(pynvml.nvmlDeviceGetMemoryInfo, handle)
        name = pynvml.nvmlDeviceGetName(handle)
        yield Reading(
            id=pynvml.nvmlDeviceGetUUID(handle),
            kind=DeviceKind.SLICE,
            name=name,
            position=position,
            parent=uuid,
            profile=name.partition(_MIG_WORD)[2] or _profile(handle),
            memory_total_bytes=None if memory is None else int(memory.total),
            memory_used_bytes=None if memory is None else int(memory.used),
            processes=_processes(handle),
        )


def _profile(handle: Any) -> str:
    """The slice's profile as nvidia-smi names it, for drivers whose device name lacks it."""
    told = _told(pynvml.nvmlDeviceGetAttributes_v2, handle)
    if told is None:
        return ""
    return f"{told.gpuInstanceSliceCount}g.{round(told.memorySizeMB / 1024)}gb"


def _is_mig_on(card: Any) -> bool | None:
    """Whether the card is cut into MIG slices now; None for cards that cannot be."""
    modes = _told(pynvml.nvmlDeviceGetMigMode, card)
    return None if modes is None else bool(modes[0])


def _slices(card: Any) -> Iterator[tuple[int, Any]]:
    """The MIG devices of a card; places between them may be free."""
    for position in range(_told(pynvml.nvmlDeviceGetMaxMigDeviceCount, card) or 0):
        handle = _told(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, card, position)
        if handle is not None:
            yield position, handle


def _throttles(handle: Any) -> tuple[Throttle, ...] | None:
    bits = _told(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    if bits is None:  # drivers before 535 know it by its former name
        bits = _told(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    return None if bits is None else tuple(word for bit, word in _THROTTLES if bits & bit)


def _ecc_count(handle: Any, kind: int) -> int | None:
    count = _told(pynvml.nvmlDeviceGetTotalEccErrors, handle, kind, pynvml.NVML_VOLATILE_ECC)
    return None if count is None else int(count)


def _processes(handle: Any) -> tuple[ComputeProcess, ...] | None:
    found = _told(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
    if found is None:
        return None
    return tuple(ComputeProcess(pid=one.pid, memory_bytes=one.usedGpuMemory) for one in found)


def _told(question: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or None where there is none: MIG devices, old cards, old drivers, no right."""
    try:
        return question(*arguments)
    except pynvml.NVMLError as error:
        if error.value in (*_OVER, *_CARD_LOST):
            raise
        return None
