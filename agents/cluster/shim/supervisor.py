"""The shim: one small process that starts, meters, stops, continues and ends one workload."""

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from . import processes
from .meter import NS_PER_MS, NS_PER_SECOND, Meter
from .program import OutputLog, fork_program
from .records import (
    DIRECTORY_MODE,
    FAILED,
    FILE_MODE,
    PAUSED,
    PENDING,
    RUNNING,
    SUCCEEDED,
    Desired,
    Launch,
    Record,
    WorkloadDirectory,
    boot_id,
    is_locked,
)
from .slots import HeldSlots

# Nudges and timers wake the shim at once; this is the net under them.
LOOK_NS = 200 * NS_PER_MS
SLOT_RETRY_NS = 50 * NS_PER_MS
PERSIST_NS = NS_PER_SECOND
INSPECT_NS = NS_PER_SECOND  # memory, number of processes, control plane
# Stopping takes a few milliseconds; asking for it this much early keeps the account below the
# allowance on a machine that is busy.
ALLOWANCE_MARGIN_NS = 20 * NS_PER_MS
END_GRACE_SECONDS = 5.0
PROCESSES_MAX = 1024  # of one workload: a fork bomb ends before it has eaten the machine's ids
OUTPUT_PIECES_AT_ONCE = 4  # timers are looked at between them, however much the program prints


class Supervisor:
    """Runs the workload of one directory from waiting for its GPUs to its last status."""

    def __init__(
        self,
        directory: WorkloadDirectory,
        launch: Launch,
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = directory
        self.launch = launch
        self.monotonic_ns = monotonic_ns
        self.wall_clock = wall_clock
        spec = launch.spec
        self.gpus: int = spec["gpus"]
        self.memory_bytes: int | None = spec["memory_bytes"]
        self.meter = Meter(
            gpus=self.gpus,
            allowance_ms=spec["gpu_allowance_ms"],
            deadline_seconds=spec["deadline_seconds"],
        )
        self.slots = HeldSlots(directory.gpu_directory, launch.slots, workload=launch.name)
        self.output = OutputLog(directory.output_file, bytes_max=spec["output_bytes_max"])
        self.record = Record(
            boot_id=boot_id(), shim_pid=os.getpid(), created_at=launch.created_at, reason="Starting"
        )
        self.desired = Desired()
        self.wait_status: int | None = None
        self.peak_resident_bytes = 0
        self.is_terminated = False  # somebody asked the shim itself to end
        self.ending: tuple[str, str] | None = None
        self.kill_at: int | None = None
        self.is_control_plane_seen = launch.is_control_plane_seen
        self.control_plane_gone_since: int | None = None
        self.next_look = self.next_inspection = self.next_slot_try = self.next_persist = 0

    # --- the loop ------------------------------------------------------------------------------

    def run(self) -> None:
        """Until the workload is finished and its last status is on disk."""
        poll = select.poll()
        nudge = self._open_nudge()
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_terminate)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        poll.register(wake_read, select.POLLIN)
        poll.register(self.output.source, select.POLLIN)
        if nudge is not None:
            poll.register(nudge, select.POLLIN)
        while True:
            self.step()
            if self.record.is_finished:
                return
            for descriptor, events in poll.poll(self._timeout_ms()):
                if descriptor == self.output.source:
                    self._pump(OUTPUT_PIECES_AT_ONCE)
                    if events & select.POLLHUP and not events & select.POLLIN:
                        poll.unregister(descriptor)  # everybody closed it: nothing to come
                else:
                    self.next_look = 0
                    with suppress(BlockingIOError):
                        os.read(descriptor, 4096)

    def _open_nudge(self) -> int | None:
        try:
            with suppress(FileExistsError):
                os.mkfifo(self.directory.nudge_file, FILE_MODE)
            # Read and write, so that it never reports the end of the last writer.
            return os.open(self.directory.nudge_file, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # a file system without FIFOs: the look every LOOK_NS finds it
            return None

    def _on_terminate(self, *_: object) -> None:
        self.is_terminated = True

    def _timeout_ms(self) -> float:
        now = self.monotonic_ns()
        at = [now + LOOK_NS if self.next_look > now + LOOK_NS else self.next_look]
        if self._is_waiting():
            at.append(self.next_slot_try)
        if self.record.phase == RUNNING:
            allowance = self.meter.until_allowance_ns(now)
            deadline = self.meter.until_deadline_ns(now)
            if allowance is not None:
                at.append(now + allowance - ALLOWANCE_MARGIN_NS)
            if deadline is not None and self.ending is None:
                at.append(now + deadline)
        if self.kill_at is not None:
            at.append(self.kill_at)
        return max(0.0, (min(at) - now) / NS_PER_MS)

    def step(self) -> None:
        """Look at what is and at what is wanted, and take the next step towards it."""
        now = self.monotonic_ns()
        self._reap()
        if self.wait_status is not None:
            self._finish_exited()
            return
        if now >= self.next_look:
            self.next_look = now + LOOK_NS
            self._read_desired()
        if now >= self.next_inspection:
            self.next_inspection = now + INSPECT_NS
            self._inspect(now)
        self._decide_to_end(now)
        if self.ending is not None:
            self._continue_ending(now)
        else:
            self._run_or_stop(now)
        if not self.record.is_finished and now >= self.next_persist:
            self._persist()

    # --- what is wanted ------------------------------------------------------------------------

    def _read_desired(self) -> None:
        self.desired = self.directory.desired()
        granted = self.desired.gpu_allowance_ms
        if granted is not None and self.meter.allowance_ms is not None:
            self.meter.allowance_ms = max(self.meter.allowance_ms, granted)

    def _decide_to_end(self, now: int) -> None:
        if self.desired.delete_grace_seconds is not None:
            self._end("Deleted", "Deleted on request.", grace=self.desired.delete_grace_seconds)
        elif self.is_terminated:
            self._end("Killed", "The process that runs the workload was told to end.")
        else:
            left = self.meter.until_deadline_ns(now)
            if left is not None and left <= 0:
                seconds = self.meter.deadline_seconds
                self._end("DeadlineExceeded", f"Ran for its {seconds:g} seconds without an end.")

    def _inspect(self, now: int) -> None:
        """Once a second: memory, number of processes, the control plane, strays while paused."""
        if self.record.pid is not None and self.ending is None:
            family = processes.descendants(os.getpid())
            if len(family) > PROCESSES_MAX:
                self._end("Killed", f"Had more than {PROCESSES_MAX} processes.", grace=0.0)
            elif self.memory_bytes is not None:
                self._inspect_memory(family, self.memory_bytes)
            if self.record.phase == PAUSED and any(not each.is_stopped for each in family):
                processes.stop_descendants(os.getpid(), self.record.pid)
        if not self.directory.path.is_dir():
            self._end("Killed", "Its directory was removed: nobody can steer it.", grace=0.0)
        if self._is_control_plane_gone(now):
            self._end("ControlPlaneGone", "The control plane that started it has ended.")

    def _inspect_memory(self, family: list[processes.Process], limit: int) -> None:
        used = processes.resident_bytes(family, above=limit)
        self.peak_resident_bytes = max(self.peak_resident_bytes, used)
        if used > limit:
            self._end("OutOfMemory", _out_of_memory(used, limit), grace=0.0)

    def _is_control_plane_gone(self, now: int) -> bool:
        path = self.launch.control_plane_lock
        if path is None:
            return False
        try:
            is_held = is_locked(Path(path))
        except OSError:  # unreadable is not the same as free
            is_held = True
        if is_held:
            self.is_control_plane_seen = True
            self.control_plane_gone_since = None
            return False
        if not self.is_control_plane_seen:
            return False
        if self.control_plane_gone_since is None:
            self.control_plane_gone_since = now
        gone_ns = now - self.control_plane_gone_since
        return gone_ns >= self.launch.control_plane_grace_seconds * NS_PER_SECOND

    # --- running and stopping --------------------------------------------------------------------

    def _is_exhausted(self, now: int) -> bool:
        left = self.meter.until_allowance_ns(now)
        return left is not None and left <= ALLOWANCE_MARGIN_NS

    def _blocked(self, now: int) -> tuple[str, str] | None:
        """Why the workload may not run, whatever GPUs are free."""
        if self._is_exhausted(now):
            limit = self.meter.allowance_ms
            return "AllowanceExhausted", f"Used its {limit} GPU-milliseconds; grant more to go on."
        if self.desired.is_paused:
            return "Paused", "Paused on request; its state is kept."
        return None

    def _is_waiting(self) -> bool:
        return self.record.reason in ("Unschedulable", "WaitingForGpu")

    def _run_or_stop(self, now: int) -> None:
        blocked = self._blocked(now)
        if self.record.phase == RUNNING:
            if blocked is not None:
                self._stop()
                self._become(PAUSED, *blocked)
        elif blocked is not None:
            self._become(PAUSED, *blocked)
        elif now >= self.next_slot_try:
            self._try_to_run(now)

    def _try_to_run(self, now: int) -> None:
        same = tuple(self.record.gpu_ids) if self.record.pid is not None else ()
        if self.slots.acquire(self.gpus, only=same):
            if self.record.pid is None:
                self._start()
            else:
                self._continue()
            return
        self.next_slot_try = now + SLOT_RETRY_NS
        message = self.slots.waiting_message(self.gpus, only=same)
        if self.record.pid is None:
            self._become(PENDING, "Unschedulable", message)
        else:
            self._become(PAUSED, "WaitingForGpu", message)

    def _start(self) -> None:
        environment = dict(self.launch.spec["environment"])
        ids = self.slots.ids
        if self.launch.is_measured:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(ids)
        elif ids:
            environment["CLEARANCE_GPU_SLOTS"] = ",".join(ids)
        self.directory.working_directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        started = fork_program(
            self.launch.program,
            arguments=self.launch.arguments,
            environment=environment,
            working_directory=self.directory.working_directory,
            output=self.output.sink,
            memory_bytes=self.memory_bytes,
        )
        self.output.close_sink()
        child = processes.read_process(started.pid)
        self.record.pid = started.pid
        self.record.pid_started_ticks = child.started_ticks if child is not None else None
        self.record.gpu_ids = list(ids)
        self.record.started_at = self.wall_clock()
        self.record.started_monotonic_ns = self.monotonic_ns()
        self.meter.start(self.record.started_monotonic_ns)
        self._become(RUNNING, "", "")
        failure = started.let_go()
        if failure:
            self.ending = ("StartFailed", f"{self.launch.program} could not start: {failure}.")

    def _stop(self) -> None:
        assert self.record.pid is not None
        processes.stop_descendants(os.getpid(), self.record.pid)
        is_holding = self.launch.hold_gpus_on_pause
        self.meter.stop(self.monotonic_ns(), is_holding=is_holding)
        if not is_holding:
            self.slots.release()

    def _continue(self) -> None:
        assert self.record.pid is not None
        self.meter.start(self.monotonic_ns())
        self._become(RUNNING, "", "")
        processes.continue_descendants(os.getpid(), self.record.pid)

    # --- ending ----------------------------------------------------------------------------------

    def _end(self, reason: str, message: str, *, grace: float = END_GRACE_SECONDS) -> None:
        """Begin to end the workload; the first reason stays, the shortest grace counts."""
        now = self.monotonic_ns()
        kill_at = now + int(grace * NS_PER_SECOND)
        if self.ending is not None:
            self.kill_at = kill_at if self.kill_at is None else min(self.kill_at, kill_at)
            return
        self.ending = (reason, message)
        if self.record.pid is None:
            return
        if self.record.phase == PAUSED:
            if self._is_exhausted(now) or len(self.slots.ids) < self.gpus:
                self.kill_at = now  # no GPU time, or no GPU, left to say goodbye with
                return
            self._continue()
        self.kill_at = kill_at
        processes.send_group(self.record.pid, signal.SIGTERM)

    def _continue_ending(self, now: int) -> None:
        if self.record.pid is None:
            self._finish_ended()
        elif self.kill_at is not None and (now >= self.kill_at or self._is_exhausted(now)):
            processes.kill_descendants(os.getpid(), self.record.pid)
            self._finish_ended()

    def _reap(self) -> None:
        """Collect dead children: the program, and orphans of it that came to us."""
        try:
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.record.pid:
                    self.wait_status = status
                    # Kibibytes on Linux: getrusage(2).
                    peak = usage.ru_maxrss * 1024
                    self.peak_resident_bytes = max(self.peak_resident_bytes, peak)
        except ChildProcessError:
            return

    def _finish_exited(self) -> None:
        """The program ended by itself or by our signal; whoever it started ends with it."""
        assert self.wait_status is not None
        self.meter.stop(self.monotonic_ns(), is_holding=False)
        processes.kill_descendants(os.getpid(), self.record.pid)
        code = os.waitstatus_to_exitcode(self.wait_status)
        # A signal's number above 128, as shells and Kubernetes report it.
        self.record.exit_code = code if code >= 0 else 128 - code
        limit = self.memory_bytes
        if self.ending is not None:
            self._finish(FAILED, *self.ending)
        elif code == 0:
            self._finish(SUCCEEDED, "", "")
        elif limit is not None and self.peak_resident_bytes >= limit:
            self._finish(FAILED, "OutOfMemory", _out_of_memory(self.peak_resident_bytes, limit))
        elif code < 0:
            self._finish(FAILED, "Killed", f"Ended by {signal.Signals(-code).name}.")
        else:
            self._finish(FAILED, "NonZeroExit", f"Ended with exit code {code}.")

    def _finish_ended(self) -> None:
        assert self.ending is not None
        if self.record.pid is not None:
            self.record.exit_code = 128 + signal.SIGKILL
        self.meter.stop(self.monotonic_ns(), is_holding=False)
        self._finish(FAILED, *self.ending)

    def _finish(self, phase: str, reason: str, message: str) -> None:
        self.meter.release(self.monotonic_ns())
        self.output.close_sink()
        while self.output.pump():
            pass
        used = self.meter.used_gpu_ms(self.monotonic_ns())
        if self.meter.allowance_ms is not None and used > self.meter.allowance_ms:
            over = used - self.meter.allowance_ms
            message = f"{message} Stopped {over} GPU-milliseconds late, which are not charged."
        self.record.finished_at = self.wall_clock()
        self._set(phase, reason, message)
        # The last status must get to disk: wait for space rather than lose what was used. Where
        # the whole directory is gone there is nobody left to tell.
        while not self._persist() and self.directory.path.is_dir():
            time.sleep(1.0)
        self.slots.release()

    # --- what is told ----------------------------------------------------------------------------

    def _become(self, phase: str, reason: str, message: str) -> None:
        """Take on a phase; written only when something changed."""
        if (phase, reason, message) != (
            self.record.phase,
            self.record.reason,
            self.record.message,
        ) or self.next_persist == 0:
            self._set(phase, reason, message)
            self._persist()

    def _set(self, phase: str, reason: str, message: str) -> None:
        self.record.phase, self.record.reason, self.record.message = phase, reason, message

    def _persist(self) -> bool:
        """Write the status; False when the disk would not take it, which is tried again soon."""
        now = self.monotonic_ns()
        self.next_persist = now + PERSIST_NS
        self.record.running_ms = self.meter.running_ms(now)
        self.record.gpu_ms = self.meter.gpu_ms(now)
        self.record.gpu_idle_held_ms = self.meter.gpu_idle_held_ms(now)
        self.record.gpu_allowance_ms = self.meter.allowance_ms
        self.record.output_bytes = self.output.bytes_kept
        self.record.output_truncated = self.output.is_truncated
        try:
            self.directory.write_record(self.record)
        except OSError:
            return False
        return True

    def _pump(self, pieces: int) -> None:
        for _ in range(pieces):
            if not self.output.pump():
                return


def _out_of_memory(used: int, limit: int) -> str:
    return f"Used {used >> 20} MiB of memory; its limit is {limit >> 20} MiB."
