"""One sandbox process as its parent sees it: started, spoken to, timed, killed, explained."""

import contextlib
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from governance.policy.base import PolicyBundle, PolicyError
from governance.policy.confinement import EXIT_MEMORY
from governance.policy.wire import FrameBuffer, FrameTooLong, pack_frame

SANDBOX_MODULE = "governance.policy.sandbox"
SOURCE_ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 20.0  # start of an interpreter on a busy machine
REAP_SECONDS = 5.0
MAX_LOADED_BUNDLES = 16  # per child; each is a few parsed files
READ_BYTES = 1 << 20
STDERR_TAIL_BYTES = 4096
MAX_BACKOFF_SECONDS = 5.0
FIRST_BACKOFF_SECONDS = 0.1


class SandboxLost(Exception):
    """The child ended or was killed. `error` is the verdict's word for it."""

    def __init__(self, error: str, text: str, *, is_outside: bool = False) -> None:
        """Keep the word, and whether somebody else killed the child."""
        super().__init__(text)
        self.error = error
        self.text = text
        self.is_outside = is_outside


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """What a child may use."""

    timeout_seconds: float = 5.0  # wall, per item
    cpu_seconds: int = 4  # per item, rounded up by the kernel's whole seconds
    memory_bytes: int = 512 << 20  # above what the idle child has


@dataclass
class LoadedPlan:
    """What the child found in a bundle: its diagnostics, or its clauses per point."""

    key: str
    answer: dict[str, Any] = field(default_factory=dict)

    @property
    def diagnostics(self) -> list[dict[str, Any]]:
        """Parse and compile errors; empty when the bundle is loaded."""
        found: list[dict[str, Any]] = self.answer["diagnostics"]
        return found

    def clauses(self, point: str) -> list[dict[str, Any]]:
        """The clauses that speak at a point, in the order of their indexes."""
        found: list[dict[str, Any]] = self.answer["clauses"][point]
        return found


def content_key(bundle: PolicyBundle) -> str:
    """A key of what is in the bundle, so that a wrong digest never picks another one's policy.

    Raises `TypeError` or `ValueError` when the data is not JSON.
    """
    modules = [[module.path, module.source] for module in bundle.modules]
    content = json.dumps([modules, bundle.data], sort_keys=True, allow_nan=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


class SandboxProcess:
    """At most one running child. Not thread-safe: one caller at a time holds it."""

    def __init__(self, *, limits: SandboxLimits, spawner: ThreadPoolExecutor) -> None:
        """Open nothing. `spawner` is a thread that outlives the children (see `_start`)."""
        self._limits = limits
        self._spawner = spawner
        self._process: subprocess.Popen[bytes] | None = None
        self._frames = FrameBuffer()
        self._stderr = -1
        self._plans: OrderedDict[str, LoadedPlan] = OrderedDict()
        self._failed_starts = 0
        self._retry_at = 0.0
        self.engine = "regorus"

    @property
    def pid(self) -> int | None:
        """The child's process id, None when there is none."""
        return self._process.pid if self._process else None

    def load(self, bundle: PolicyBundle, *, detail: bool = False, prefix: str = "") -> LoadedPlan:
        """Have the child parse the bundle, once. Raises `SandboxLost`, `TypeError`, `ValueError`.

        `detail` asks for tests, unknown functions and, with `prefix`, the text for OPA.
        """
        key = content_key(bundle)
        self._ensure_running()
        known = self._plans.get(key)
        if known and not detail:
            self._plans.move_to_end(key)
            return known
        evicted = []
        while len(self._plans) >= MAX_LOADED_BUNDLES:
            evicted.append(self._plans.popitem(last=False)[0])
        request = {
            "op": "load",
            "bundle": key,
            "modules": [[module.path, module.source] for module in bundle.modules],
            "data": bundle.data,
            "evict": evicted,
            "detail": detail,
            "prefix": prefix,
        }
        replies: list[dict[str, Any]] = []
        self.exchange(request, (), replies=replies, expected=1)
        plan = LoadedPlan(key, replies[0])
        self._plans[key] = plan
        return plan

    def exchange(
        self,
        request: dict[str, Any],
        items: Sequence[bytes],
        *,
        replies: list[dict[str, Any]],
        expected: int,
    ) -> None:
        """Send a request with its items; append each answer to `replies` as it comes.

        Raises `SandboxLost`; then `replies` holds what was answered before, and the next item is
        the one that did it.
        """
        self._ensure_running()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            head = pack_frame(json.dumps(request, allow_nan=False).encode())
            outgoing = memoryview(b"".join([head, *map(pack_frame, items)]))
        except FrameTooLong as error:
            raise SandboxLost("invalid", f"the policy bundle is too large: {error}") from error
        writer, reader = process.stdin.fileno(), process.stdout.fileno()
        poller = select.poll()
        poller.register(reader, select.POLLIN)
        if outgoing:
            poller.register(writer, select.POLLOUT)
        deadline = time.monotonic() + self._limits.timeout_seconds
        while len(replies) < expected:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                self.kill()
                seconds = self._limits.timeout_seconds
                raise SandboxLost("timeout", f"no answer within {seconds:g} s; it was stopped")
            for descriptor, _ in poller.poll(remaining * 1000):
                if descriptor == writer:
                    outgoing = outgoing[_write_some(writer, outgoing) :]
                    if not outgoing:
                        poller.unregister(writer)
                elif self._read_some(reader, replies):
                    # The limit is per item: the next one starts when this one is answered.
                    deadline = time.monotonic() + self._limits.timeout_seconds

    def kill(self) -> None:
        """End the child now, with its whole process group, and forget it."""
        process, self._process = self._process, None
        self._plans.clear()
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(REAP_SECONDS)
        self._close_pipes(process)

    def abandon(self) -> None:
        """Forget a child that belongs to the process this one was forked from."""
        process, self._process = self._process, None
        self._plans.clear()
        if process is not None:
            process.returncode = 0  # not ours to wait for, and nothing to warn about
            self._close_pipes(process)

    def _ensure_running(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self.kill()
        wait = self._retry_at - time.monotonic()
        if wait > 0:
            raise SandboxLost(
                "crash", f"the policy sandbox does not start; next try in {wait:.1f} s"
            )
        try:
            self._start_up()
        except (OSError, SandboxLost) as error:
            self.kill()
            self._failed_starts += 1
            delay = FIRST_BACKOFF_SECONDS * 2 ** min(self._failed_starts, 10)
            self._retry_at = time.monotonic() + min(delay, MAX_BACKOFF_SECONDS)
            raise SandboxLost("crash", f"the policy sandbox does not start: {error}") from error
        self._failed_starts = 0

    def _start_up(self) -> None:
        """A child that has greeted; one that somebody kills meanwhile is replaced once."""
        for is_last in (False, True):
            # The kernel kills the child when the *thread* that started it ends, so one thread that
            # lives as long as the engine starts all of them.
            self._process = self._spawner.submit(self._start).result()
            try:
                self._await_ready()
            except SandboxLost as lost:
                if is_last or not lost.is_outside:
                    raise
            else:
                return

    def _start(self) -> "subprocess.Popen[bytes]":
        self._frames = FrameBuffer()
        self._stderr = os.memfd_create("policy-sandbox-stderr")
        limits = self._limits
        command = [sys.executable, "-s", "-m", SANDBOX_MODULE]
        words = [str(limits.memory_bytes), str(limits.cpu_seconds), str(os.getpid())]
        process = subprocess.Popen(
            [*command, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            cwd="/",
            # Nothing of ours: no secret, no proxy, no setting reaches a policy.
            env={
                "PATH": "/usr/bin:/bin",
                "LANG": "C.UTF-8",
                "PYTHONPATH": str(SOURCE_ROOT),
                "PYTHONDONTWRITEBYTECODE": "1",
                "RUST_BACKTRACE": "0",
                # KiB. regorus brings mimalloc, whose default arena of 1 GiB would hide from the
                # limit on address space all that a policy may allocate.
                "MIMALLOC_ARENA_RESERVE": "32768",
            },
            bufsize=0,
            close_fds=True,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        os.set_blocking(process.stdin.fileno(), False)
        os.set_blocking(process.stdout.fileno(), False)
        return process

    def _await_ready(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        reader = self._process.stdout.fileno()
        poller = select.poll()
        poller.register(reader, select.POLLIN)
        greeting: list[dict[str, Any]] = []
        deadline = time.monotonic() + READY_SECONDS
        while not greeting:
            if not poller.poll(max(deadline - time.monotonic(), 0) * 1000):
                raise SandboxLost("timeout", f"not ready within {READY_SECONDS:g} s")
            self._read_some(reader, greeting)
        self.engine = greeting[0]["engine"]

    def _read_some(self, reader: int, replies: list[dict[str, Any]]) -> bool:
        chunk = os.read(reader, READ_BYTES)
        if not chunk:
            raise self._explain_end()
        before = len(replies)
        try:
            replies.extend(json.loads(frame) for frame in self._frames.feed(chunk))
        except ValueError as error:
            self.kill()
            raise SandboxLost("crash", f"the policy sandbox answered nonsense: {error}") from error
        return len(replies) > before

    def _explain_end(self) -> SandboxLost:
        """Why the child ended, in the words of a verdict; the child is forgotten."""
        process = self._process
        assert process is not None
        try:
            code = process.wait(REAP_SECONDS)
        except subprocess.TimeoutExpired:
            code = 0
        tail = self._stderr_tail()
        self.kill()
        limits = self._limits
        if code == EXIT_MEMORY or "memory allocation of" in tail or "MemoryError" in tail:
            size = limits.memory_bytes >> 20
            return SandboxLost("memory", f"it wanted more than {size} MiB of memory")
        if code == -signal.SIGXCPU:
            return SandboxLost("timeout", f"it used more than {limits.cpu_seconds} s of CPU time")
        if code == -signal.SIGSEGV:
            return SandboxLost("crash", "it overflowed the stack, as endless recursion does")
        if code == -signal.SIGKILL:
            return SandboxLost("crash", "the sandbox was killed from outside", is_outside=True)
        last = tail.strip().rsplit("\n", 1)[-1][:200]
        return SandboxLost("crash", f"the sandbox ended with status {code}: {last or 'no word'}")

    def _stderr_tail(self) -> str:
        if self._stderr < 0:
            return ""
        size = os.fstat(self._stderr).st_size
        begin = max(size - STDERR_TAIL_BYTES, 0)
        return os.pread(self._stderr, STDERR_TAIL_BYTES, begin).decode(errors="replace")

    def _close_pipes(self, process: "subprocess.Popen[bytes]") -> None:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        if self._stderr >= 0:
            os.close(self._stderr)
            self._stderr = -1


def _write_some(writer: int, outgoing: memoryview) -> int:
    try:
        return os.write(writer, outgoing[:READ_BYTES])
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return len(outgoing)  # the child is gone: its end of file says so with its status


def as_policy_error(lost: SandboxLost) -> PolicyError:
    """For the questions that have no verdict (`check`, `run_tests`)."""
    return PolicyError(f"The policy sandbox gave no answer ({lost.error}): {lost.text}.")
