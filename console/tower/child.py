"""One supervised process: started, watched, started again after a crash, stopped with its group."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from console.tower.logs import LineSplitter, RotatingLog, Terminal
from console.tower.readiness import is_ready
from console.tower.specs import FileReady, ProcessSpec

GUARD = Path(__file__).with_name("guard.py")
CHUNK_BYTES = 64 << 10
LAST_LINES = 20  # kept of each process, to say why it ended
DRAIN_SECONDS = 2.0  # for output still in the pipe after the whole group is dead


@dataclass(frozen=True, slots=True)
class Pace:
    """Times of the supervision, in seconds; tests make them short."""

    backoff_first: float = 0.5
    backoff_cap: float = 30.0
    healthy_after: float = 60.0  # running this long forgets earlier crashes
    probe: float = 0.1  # between two questions whether a process is ready
    memory_check: float = 10.0  # between two looks at how much memory each one holds

    def backoff(self, failures: int) -> float:
        """How long to wait after this many crashes in a row (1 or more)."""
        doublings = min(failures - 1, 30)  # the cap is reached long before; keeps the float finite
        return min(self.backoff_first * 2.0**doublings, self.backoff_cap)


class ChildState(StrEnum):
    """Where a supervised process stands."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    CRASHED = "crashed"  # waits out its back-off
    FINISHED = "finished"  # a one-shot that has exited 0
    STOPPED = "stopped"


class Child:
    """One process of the tower. `is_up` is set at its first readiness and stays set."""

    def __init__(
        self,
        spec: ProcessSpec,
        *,
        log: RotatingLog,
        terminal: Terminal,
        directory: Path,
        pace: Pace,
        on_change: Callable[["Child"], None],
        on_group: Callable[[int, bool], None],
    ) -> None:
        self.spec = spec
        self.state = ChildState.WAITING
        self.is_up = asyncio.Event()
        self.pid: int | None = None
        self.starts = 0
        self.failures = 0  # crashes in a row
        self.reason = ""  # the last thing it said before it last crashed
        self._log = log
        self._terminal = terminal
        self._directory = directory
        self._pace = pace
        self._on_change = on_change
        self._on_group = on_group
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._lost_log = ""

    async def run(self) -> None:
        """Keep the process running until `stop`; a one-shot until it has succeeded."""
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run_once()
            if self._stopping.is_set():
                break
            if self.spec.is_one_shot and code == 0:
                self._enter(ChildState.FINISHED)
                self.is_up.set()
                return
            if time.monotonic() - began >= self._pace.healthy_after:
                self.failures = 0
            self.failures += 1
            await self._wait_out_crash(code)
        self._enter(ChildState.STOPPED)

    async def stop(self, *, is_hurried: Callable[[], bool] = lambda: False) -> None:
        """Ask the process to end, and after its grace kill its whole group."""
        self._stopping.set()
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(self.spec.stop_signal)
        deadline = time.monotonic() + self.spec.grace_seconds
        while process.returncode is None and time.monotonic() < deadline and not is_hurried():
            await asyncio.sleep(0.02)
        if process.returncode is None and not is_hurried():
            self._terminal.say(
                f"did not end within {self.spec.grace_seconds:g} s; killed", name=self.spec.name
            )
        _kill_group(process.pid)

    def resident_bytes(self) -> int | None:
        """Resident memory of the process, None when it does not run."""
        try:
            fields = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()
        except OSError:
            return None
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def restart_when_too_big(self) -> None:
        """Ask the process to end when it holds more memory than it may; `run` starts it again."""
        limit, used = self.spec.memory_max_bytes, self.resident_bytes()
        if limit is None or used is None or used <= limit or self._process is None:
            return
        self._terminal.say(
            f"holds {used >> 20} MiB, more than the {limit >> 20} MiB it may: restarting",
            name=self.spec.name,
        )
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(self.spec.stop_signal)

    async def _run_once(self) -> int:
        """One life of the process; returns its exit status (negative: the signal)."""
        self._last_lines.clear()
        if isinstance(self.spec.ready, FileReady):
            self.spec.ready.path.unlink(missing_ok=True)
        self.starts += 1
        self.state = ChildState.STARTING
        process, pump = await self._start()
        self._process, self.pid = process, process.pid
        self._on_group(process.pid, True)
        self._enter(ChildState.STARTING)
        if self._stopping.is_set():  # stop() came while we were forking and saw no process
            _kill_group(process.pid)
        probe = asyncio.create_task(self._wait_until_ready())
        code = await process.wait()
        probe.cancel()
        _kill_group(process.pid)  # whatever it had started dies with it
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(pump, DRAIN_SECONDS)
        self._on_group(process.pid, False)
        self._process, self.pid = None, None
        return code

    async def _start(self) -> tuple[asyncio.subprocess.Process, asyncio.Task[None]]:
        """Fork and exec through the guard; the task copies what the process writes.

        Must run in the main thread, where the event loop lives: PR_SET_PDEATHSIG follows the
        thread that forks, and no other thread lives as long as the tower. The pipe is ours and
        not asyncio's, whose `wait()` would wait for grandchildren that hold the pipe open.
        """
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), *self.spec.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self._directory,
                env={**os.environ, **self.spec.environment},
                start_new_session=True,  # a Ctrl-C at the terminal reaches only the tower
            )  # fmt: skip
        finally:
            os.close(writing)
        return process, asyncio.create_task(self._pump(reading))

    async def _wait_until_ready(self) -> None:
        if self.spec.is_one_shot:
            return
        while not await is_ready(self.spec.ready):
            await asyncio.sleep(self._pace.probe)
        self._enter(ChildState.READY)
        self.is_up.set()
        if self.failures:
            self._terminal.say("is back", name=self.spec.name)

    async def _wait_out_crash(self, code: int) -> None:
        ending = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        self.reason = next((line for line in reversed(self._last_lines) if line.strip()), "")
        delay = self._pace.backoff(self.failures)
        said = f": {self.reason}" if self.reason and code >= 0 else ""
        line = f"ended ({ending}){said}; next start in {delay:g} s"
        self._terminal.say(line, name=self.spec.name)
        self._enter(ChildState.CRASHED)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), delay)

    async def _pump(self, descriptor: int) -> None:
        """Everything the process writes: into its log, and its warnings onto the terminal."""
        reader = asyncio.StreamReader(limit=CHUNK_BYTES)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
        )
        splitter = LineSplitter()
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                self._take(splitter.feed(chunk))
        finally:
            self._take(splitter.end())
            self._log.close()
            transport.close()

    def _take(self, lines: list[bytes]) -> None:
        for line in lines:
            self._log.write(line)
            text = line.decode("utf-8", "replace").rstrip()
            self._last_lines.append(text)
            if self.spec.loud_line.search(text):
                self._terminal.relay(text, name=self.spec.name)
        if self._log.error and not self._lost_log:
            self._terminal.say(
                f"its log cannot be written ({self._log.error}): free space or make it writable",
                name=self.spec.name,
            )
        self._lost_log = self._log.error

    def _enter(self, state: ChildState) -> None:
        self.state = state
        self._on_change(self)


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
