"""Starts the processes in order, says when all are ready, and leaves nothing behind."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from console.tower.child import Child, ChildState, Pace
from console.tower.logs import RotatingLog, Terminal
from console.tower.specs import ProcessSpec, start_order

WATCHMAN = Path(__file__).with_name("watchman.py")
# An essential process that ends this often before it was ever ready will not come by waiting.
START_ATTEMPTS = 3


class StepFailed(Exception):
    """A step of the start failed; the message is one line that names the fix."""


class Supervisor:
    """Runs processes until a signal says stop.

    `steps` are things to do inside the tower itself, each in a thread of its own; processes may
    depend on their names. `state_file` is rewritten at each change: who runs, with which pid.
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        *,
        directory: Path,
        log_directory: Path,
        state_file: Path,
        terminal: Terminal,
        steps: Mapping[str, Callable[[], None]] | None = None,
        on_ready: Callable[[Sequence[Child]], None] = lambda _children: None,
        pace: Pace | None = None,
    ) -> None:
        self._steps = dict(steps or {})
        self._waves = start_order(specs, steps=self._steps)
        self._directory = directory
        self._log_directory = log_directory
        self._state_file = state_file
        self._terminal = terminal
        self._on_ready = on_ready
        self._pace = pace or Pace()
        self._children: dict[str, Child] = {}
        self._step_done: dict[str, asyncio.Event] = {}
        self._stop_asked = asyncio.Event()
        self._is_hurried = False
        self._failure = ""
        self._watchman: asyncio.subprocess.Process | None = None
        self._groups: set[int] = set()
        self._child_tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> int:
        """Supervise until SIGINT, SIGTERM or SIGHUP; returns the exit status of the tower."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(name, self._ask_to_stop)
        self._children = {spec.name: self._new_child(spec) for wave in self._waves for spec in wave}
        self._step_done = {name: asyncio.Event() for name in self._steps}
        await self._start_watchman()
        self._child_tasks = {
            name: asyncio.create_task(self._run_child(child))
            for name, child in self._children.items()
        }
        duties = [
            *(asyncio.create_task(self._run_step(name)) for name in self._steps),
            asyncio.create_task(self._announce()),
            asyncio.create_task(self._watch_memory()),
            asyncio.create_task(self._watch_watchman()),
        ]
        try:
            await self._wait_for_the_end([*duties, *self._child_tasks.values()])
        finally:
            await self._stop_all(duties)
        if self._failure:
            self._terminal.say(self._failure)
            return 1
        return 0

    async def _wait_for_the_end(self, tasks: list[asyncio.Task[None]]) -> None:
        """Until a stop is asked for. A task that raises is a defect and ends the tower, too."""
        stop = asyncio.create_task(self._stop_asked.wait())
        pending: set[asyncio.Task[object]] = {stop, *tasks}
        while not stop.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                if (error := task.exception()) is not None:
                    self._fail(f"{type(error).__name__}: {error}")

    def _new_child(self, spec: ProcessSpec) -> Child:
        return Child(
            spec,
            log=RotatingLog(self._log_directory / f"{spec.name}.log"),
            terminal=self._terminal,
            directory=self._directory,
            pace=self._pace,
            on_change=self._on_change,
            on_group=self._on_group,
        )

    async def _run_step(self, name: str) -> None:
        try:
            await asyncio.to_thread(self._steps[name])
        except StepFailed as error:
            self._fail(str(error))
        else:
            self._step_done[name].set()

    async def _run_child(self, child: Child) -> None:
        for name in child.spec.depends_on:
            done = self._step_done.get(name) or self._children[name].is_up
            await done.wait()
        await child.run()

    async def _announce(self) -> None:
        essential = [child for child in self._children.values() if child.spec.is_essential]
        for child in essential:
            await child.is_up.wait()
        for done in self._step_done.values():
            await done.wait()
        self._on_ready(list(self._children.values()))

    def _on_change(self, child: Child) -> None:
        self._write_state()
        is_hopeless = child.failures >= START_ATTEMPTS and not child.is_up.is_set()
        if child.state is ChildState.CRASHED and child.spec.is_essential and is_hopeless:
            self._fail(
                f"{child.spec.name} did not start in {START_ATTEMPTS} attempts"
                f"{': ' + child.reason if child.reason else ''}"
                f" (all it said: {self._log_directory / child.spec.name}.log)"
            )

    def _fail(self, line: str) -> None:
        self._failure = self._failure or line
        self._stop_asked.set()

    def _ask_to_stop(self) -> None:
        if self._stop_asked.is_set():
            self._is_hurried = True  # asked twice: no more grace for anybody
            return
        self._terminal.say("stopping (once more kills at once)")
        self._stop_asked.set()

    async def _stop_all(self, duties: Sequence[asyncio.Task[None]]) -> None:
        """Stop in reverse order of start; then nothing of ours runs any more."""
        for duty in duties:
            duty.cancel()
        # A step cannot be interrupted: its thread is waited for when the event loop closes.
        await asyncio.gather(*duties, return_exceptions=True)
        for wave in reversed(self._waves):
            await asyncio.gather(*(self._stop_child(self._children[spec.name]) for spec in wave))
        if self._watchman is not None and self._watchman.stdin is not None:
            self._watchman.stdin.close()
            await self._watchman.wait()
        with contextlib.suppress(OSError):
            self._state_file.unlink(missing_ok=True)

    async def _stop_child(self, child: Child) -> None:
        task = self._child_tasks[child.spec.name]
        if child.state is ChildState.WAITING:
            task.cancel()
        await child.stop(is_hurried=lambda: self._is_hurried)
        await asyncio.gather(task, return_exceptions=True)

    async def _watch_memory(self) -> None:
        while True:
            await asyncio.sleep(self._pace.memory_check)
            for child in self._children.values():
                child.restart_when_too_big()

    async def _start_watchman(self) -> None:
        self._watchman = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(WATCHMAN),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        for group in self._groups:
            self._tell_watchman(f"+{group}")
        self._write_state()

    async def _watch_watchman(self) -> None:
        while self._watchman is not None:
            await self._watchman.wait()
            await asyncio.sleep(self._pace.backoff_first)
            await self._start_watchman()

    def _on_group(self, group: int, is_alive: bool) -> None:
        (self._groups.add if is_alive else self._groups.discard)(group)
        self._tell_watchman(f"{'+' if is_alive else '-'}{group}")

    def _tell_watchman(self, line: str) -> None:
        if self._watchman is not None and self._watchman.stdin is not None:
            with contextlib.suppress(OSError, RuntimeError):  # it died: the next one is told all
                self._watchman.stdin.write(f"{line}\n".encode())

    def _write_state(self) -> None:
        """Who runs, for operators and tests: replaced whole, so a reader never sees half of it."""
        state = {
            "pid": os.getpid(),
            "watchman": self._watchman.pid if self._watchman else None,
            "written_at": time.time(),
            "processes": {
                name: {"pid": child.pid, "state": child.state, "starts": child.starts}
                for name, child in self._children.items()
            },
        }
        draft = self._state_file.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk must not end the tower
            draft.write_text(json.dumps(state), encoding="utf-8")
            draft.replace(self._state_file)
