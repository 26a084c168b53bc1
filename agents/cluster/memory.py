"""A cluster without processes for tests: strict, stateful, and moved only by its settable clock."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from agents.cluster.base import (
    ClusterError,
    Gpu,
    WorkloadConflict,
    WorkloadInvalid,
    WorkloadPhase,
    WorkloadSpec,
    WorkloadStatus,
)
from agents.cluster.shim.meter import NS_PER_MS, Meter
from agents.cluster.specs import (
    check_allowance,
    check_grace,
    check_name,
    check_slice,
    check_spec,
    spec_content,
)

EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
FIRST_PID = 1000


@dataclass(slots=True)
class _Workload:
    spec: WorkloadSpec
    meter: Meter
    status: WorkloadStatus
    is_paused: bool = False
    held: tuple[str, ...] = ()
    output: bytearray = field(default_factory=bytearray)


class MemoryCluster:
    """Every rule of the port without a process: nothing moves until `advance` or `finish`.

    `missing_programs` are the program names that `create` refuses, as a real machine would.
    """

    keeps_paused = True  # a test may say otherwise

    def __init__(
        self,
        *,
        gpus: int = 0,
        hold_gpus_on_pause: bool = False,
        now: dt.datetime = EPOCH,
        missing_programs: frozenset[str] = frozenset({"no-such-program"}),
    ) -> None:
        self.slots = tuple(f"gpu-{index}" for index in range(gpus))
        self.hold_gpus_on_pause = hold_gpus_on_pause
        self.now = now
        self.missing_programs = missing_programs
        self._elapsed_ns = 0
        self._workloads: dict[str, _Workload] = {}
        self._failures: list[ClusterError] = []
        self._next_pid = FIRST_PID

    # --- levers for tests ------------------------------------------------------------------------

    def fail_next(self, error: ClusterError) -> None:
        """The next call raises this and changes nothing; several are raised in turn."""
        self._failures.append(error)

    def advance(self, ms: int) -> None:
        """Let time pass: allowances, deadlines and waiting workloads act at their exact moment."""
        if ms < 0:
            raise ValueError("time does not run backwards")
        end = self._elapsed_ns + ms * NS_PER_MS
        while True:
            self._schedule()
            due = [at for at in map(self._next_event, self._workloads.values()) if at is not None]
            moment = min([*due, end])
            self._move_to(moment)
            self._schedule()
            if moment >= end:
                return

    def finish(self, name: str, exit_code: int = 0) -> None:
        """The program ends by itself. Raises ValueError unless it is running."""
        workload = self._workloads[name]
        if workload.status.phase != WorkloadPhase.RUNNING:
            raise ValueError(f"{name} is {workload.status.phase}: only a running program ends")
        if exit_code == 0:
            self._end(workload, WorkloadPhase.SUCCEEDED, exit_code=0)
        elif exit_code > 128:
            self._end(workload, WorkloadPhase.FAILED, "Killed", exit_code=exit_code)
        else:
            self._end(workload, WorkloadPhase.FAILED, "NonZeroExit", exit_code=exit_code)
        self._schedule()

    def disrupt(self, name: str, reason: str) -> None:
        """The platform ends the workload, for one of DISRUPTIONS."""
        self._end(self._workloads[name], WorkloadPhase.FAILED, reason)
        self._schedule()

    def write_output(self, name: str, content: bytes) -> None:
        """The program prints; what passes its limit is dropped."""
        workload = self._workloads[name]
        room = workload.spec.output_bytes_max - len(workload.output)
        workload.output += content[: max(room, 0)]
        workload.status = replace(
            workload.status,
            output_bytes=len(workload.output),
            output_truncated=workload.status.output_truncated or len(content) > room,
        )

    # --- the port --------------------------------------------------------------------------------

    def create(self, spec: WorkloadSpec) -> None:
        self._maybe_fail()
        check_spec(spec, gpu_count=len(self.slots))
        known = self._workloads.get(spec.name)
        if known is not None:
            if spec_content(known.spec) != spec_content(spec):
                raise WorkloadConflict(f"{spec.name} exists with another specification.")
            return
        if spec.command[0] in self.missing_programs:
            raise WorkloadInvalid(f"command of {spec.name}: no program {spec.command[0]!r}.")
        status = WorkloadStatus(
            name=spec.name,
            namespace=spec.namespace,
            attempt_uid=spec.attempt_uid,
            phase=WorkloadPhase.PENDING,
            created_at=self.now,
            gpu_allowance_ms=spec.gpu_allowance_ms,
        )
        meter = Meter(
            gpus=spec.gpus,
            allowance_ms=spec.gpu_allowance_ms,
            deadline_seconds=spec.deadline_seconds,
        )
        self._workloads[spec.name] = _Workload(spec=spec, meter=meter, status=status)
        self._schedule()

    def pause(self, name: str) -> None:
        self._set_paused(name, is_paused=True)

    def resume(self, name: str) -> None:
        self._set_paused(name, is_paused=False)

    def set_gpu_allowance(self, name: str, gpu_ms: int) -> None:
        self._maybe_fail()
        check_allowance(gpu_ms)
        workload = self._unfinished(name)
        if workload is not None and workload.meter.allowance_ms is not None:
            workload.meter.allowance_ms = max(workload.meter.allowance_ms, gpu_ms)
            self._schedule()

    def delete(self, name: str, *, grace_seconds: float = 5.0) -> None:
        self._maybe_fail()
        check_grace(grace_seconds)
        workload = self._unfinished(name)
        if workload is not None:
            self._end(workload, WorkloadPhase.FAILED, "Deleted")
            self._schedule()

    def forget(self, name: str) -> None:
        self._maybe_fail()
        if self._unfinished(name) is not None:
            raise ClusterError(f"{name} has not finished: delete it before forgetting it.")
        self._workloads.pop(name, None)

    def get(self, name: str) -> WorkloadStatus | None:
        self._maybe_fail()
        workload = self._workloads.get(check_name(name))
        return None if workload is None else self._status(workload)

    def list(self) -> Sequence[WorkloadStatus]:
        self._maybe_fail()
        return [self._status(self._workloads[name]) for name in sorted(self._workloads)]

    def output(self, name: str, *, offset: int = 0, limit: int = 65536) -> bytes:
        self._maybe_fail()
        check_slice(offset, limit)
        workload = self._workloads.get(check_name(name))
        return b"" if workload is None else bytes(workload.output[offset : offset + limit])

    def gpus(self) -> Sequence[Gpu]:
        self._maybe_fail()
        holders = {slot: name for name, each in self._workloads.items() for slot in each.held}
        return [
            Gpu(
                id=slot,
                node="memory",
                name="declared slot",
                is_measured=False,
                held_by=holders.get(slot, ""),
            )
            for slot in self.slots
        ]

    # --- rules -----------------------------------------------------------------------------------

    def _maybe_fail(self) -> None:
        if self._failures:
            raise self._failures.pop(0)

    def _unfinished(self, name: str) -> _Workload | None:
        workload = self._workloads.get(check_name(name))
        return None if workload is None or workload.status.is_finished else workload

    def _set_paused(self, name: str, *, is_paused: bool) -> None:
        self._maybe_fail()
        workload = self._unfinished(name)
        if workload is not None:
            workload.is_paused = is_paused
            self._schedule()

    def _status(self, workload: _Workload) -> WorkloadStatus:
        meter, now = workload.meter, self._elapsed_ns
        return replace(
            workload.status,
            running_ms=meter.running_ms(now),
            gpu_ms=meter.gpu_ms(now),
            gpu_idle_held_ms=meter.gpu_idle_held_ms(now),
            gpu_allowance_ms=meter.allowance_ms,
        )

    def _next_event(self, workload: _Workload) -> int | None:
        """When the workload's allowance or deadline is reached, if it runs on undisturbed."""
        if workload.status.phase != WorkloadPhase.RUNNING:
            return None
        now = self._elapsed_ns
        left = (workload.meter.until_allowance_ns(now), workload.meter.until_deadline_ns(now))
        return min((now + each for each in left if each is not None), default=None)

    def _move_to(self, moment: int) -> None:
        self.now += dt.timedelta(microseconds=(moment - self._elapsed_ns) / 1000)
        self._elapsed_ns = moment

    def _schedule(self) -> None:
        """Bring every workload to where the rules want it; stops come before starts."""
        unfinished = [each for each in self._workloads.values() if not each.status.is_finished]
        for workload in unfinished:
            self._stop_if_due(workload)
        for workload in unfinished:
            if not workload.status.is_finished:
                self._run_if_possible(workload)

    def _blocked(self, workload: _Workload) -> str:
        left = workload.meter.until_allowance_ns(self._elapsed_ns)
        if left is not None and left <= 0:
            return "AllowanceExhausted"
        return "Paused" if workload.is_paused else ""

    def _stop_if_due(self, workload: _Workload) -> None:
        deadline = workload.meter.until_deadline_ns(self._elapsed_ns)
        if deadline is not None and deadline <= 0:
            self._end(workload, WorkloadPhase.FAILED, "DeadlineExceeded")
            return
        reason = self._blocked(workload)
        if not reason:
            return
        if workload.status.phase == WorkloadPhase.RUNNING:
            is_holding = workload.spec.hold_gpus_on_pause or self.hold_gpus_on_pause
            workload.meter.stop(self._elapsed_ns, is_holding=is_holding)
            if not is_holding:
                workload.held = ()
        workload.status = replace(workload.status, phase=WorkloadPhase.PAUSED, reason=reason)

    def _run_if_possible(self, workload: _Workload) -> None:
        if workload.status.phase == WorkloadPhase.RUNNING or self._blocked(workload):
            return
        taken = {slot for each in self._workloads.values() for slot in each.held}
        is_started = workload.status.pid is not None
        # A started program cannot change its cards.
        wanted = workload.status.gpu_ids if is_started else self.slots
        free = tuple(slot for slot in wanted if slot not in taken or slot in workload.held)
        if len(free) < workload.spec.gpus:
            workload.status = replace(
                workload.status,
                phase=WorkloadPhase.PAUSED if is_started else WorkloadPhase.PENDING,
                reason="WaitingForGpu" if is_started else "Unschedulable",
                message=f"Waits for {workload.spec.gpus} GPUs; held: {', '.join(sorted(taken))}.",
            )
            return
        workload.held = free[: workload.spec.gpus]
        workload.meter.start(self._elapsed_ns)
        workload.status = replace(
            workload.status,
            phase=WorkloadPhase.RUNNING,
            reason="",
            message="",
            gpu_ids=workload.held,
            pid=workload.status.pid or self._new_pid(),
            started_at=workload.status.started_at or self.now,
        )

    def _new_pid(self) -> int:
        self._next_pid += 1
        return self._next_pid

    def _end(
        self,
        workload: _Workload,
        phase: WorkloadPhase,
        reason: str = "",
        *,
        exit_code: int | None = None,
    ) -> None:
        workload.meter.stop(self._elapsed_ns, is_holding=False)
        workload.meter.release(self._elapsed_ns)
        workload.held = ()
        workload.status = replace(
            workload.status,
            phase=phase,
            reason=reason,
            message="",
            exit_code=exit_code,
            finished_at=self.now,
        )
