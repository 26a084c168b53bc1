"""Processes as the kernel shows them: who descends from whom, stop, continue and kill them all."""

import contextlib
import ctypes
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .records import Record, boot_id

# prctl(2) options; Python's standard library has no binding.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

STOPPED_STATES = frozenset("TtZX")  # stopped, traced, zombie, dead: proc(5)
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# A process in uninterruptible sleep cannot stop before its I/O ends; do not wait for it longer.
STOP_WAIT_SECONDS = 0.25
KILL_WAIT_SECONDS = 10.0
# So long a killed group is waited for before /proc is searched for whoever had left it: the search
# costs as much as the machine has processes, for each of the workloads that are ended together.
GROUP_DEATH_SECONDS = 0.05
PASS_SECONDS = 0.001

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    """One prctl(2) with one argument. Raises OSError."""
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"prctl({option})")


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/PID/stat."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    started_ticks: int
    resident_bytes: int

    @property
    def is_stopped(self) -> bool:
        return self.state in STOPPED_STATES


def read_process(pid: int) -> Process | None:
    """The process with that id, or None when there is none."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        line = os.read(descriptor, 4096)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    # The command name is in brackets and may hold anything; fields are counted after the last one.
    words = line[line.rfind(b")") + 2 :].split()
    return Process(
        pid=pid,
        state=words[0].decode(),
        parent=int(words[1]),
        group=int(words[2]),
        session=int(words[3]),
        started_ticks=int(words[19]),
        resident_bytes=int(words[21]) * PAGE_BYTES,
    )


def all_processes() -> list[Process]:
    """Every process this one can see."""
    found = (read_process(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())
    return [process for process in found if process is not None]


def descendants(ancestor: int) -> list[Process]:
    """Children of `ancestor`, their children, and so on, as of one look at /proc."""
    children: defaultdict[int, list[Process]] = defaultdict(list)
    for process in all_processes():
        children[process.parent].append(process)
    found: list[Process] = []
    frontier = [ancestor]
    while frontier:
        for process in children.pop(frontier.pop(), []):
            found.append(process)
            frontier.append(process.pid)
    return found


def send(pid: int, number: int) -> None:
    """Signal a process; one that is gone is success."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def send_group(group: int, number: int) -> None:
    """Signal a process group; one that is gone is success."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def stop_descendants(ancestor: int, group: int) -> bool:
    """Stop the group at once, then whoever left it; False when somebody still could not be stopped.

    Repeats until one look finds nobody running, because a process may fork between two looks.
    """
    send_group(group, signal.SIGSTOP)
    give_up_at = time.monotonic() + STOP_WAIT_SECONDS
    while True:
        running = [each for each in descendants(ancestor) if not each.is_stopped]
        if not running:
            return True
        if time.monotonic() > give_up_at:
            return False
        for process in running:
            send(process.pid, signal.SIGSTOP)
        time.sleep(PASS_SECONDS)


def continue_descendants(ancestor: int, group: int) -> None:
    """Let everybody run on who was stopped."""
    for process in descendants(ancestor):
        send(process.pid, signal.SIGCONT)
    send_group(group, signal.SIGCONT)


def kill_descendants(ancestor: int, group: int | None) -> bool:
    """Kill and reap every descendant of `ancestor`, which must be this process and a subreaper.

    Orphans come to a subreaper, so no child left means nobody left. False when some could not die
    within KILL_WAIT_SECONDS (stuck in the kernel).
    """
    if group is not None:
        send_group(group, signal.SIGKILL)
    began = time.monotonic()
    search_at = began if group is None else began + GROUP_DEATH_SECONDS
    while (now := time.monotonic()) < began + KILL_WAIT_SECONDS:
        if now >= search_at:
            for process in descendants(ancestor):
                send(process.pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return True
        time.sleep(PASS_SECONDS)
    return False


def resident_bytes(processes: Iterable[Process], *, above: int) -> int:
    """Memory the processes use together; shared pages are told apart only beyond `above`.

    The sum of resident sizes counts a shared page once for each process. It is cheap and never too
    low, so the kernel's costly proportional figure is asked for only when that sum is too high.
    """
    members = list(processes)
    upper_bound = sum(process.resident_bytes for process in members)
    if upper_bound <= above:
        return upper_bound
    return sum(_proportional_bytes(process) for process in members)


def _proportional_bytes(process: Process) -> int:
    try:
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return process.resident_bytes
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return process.resident_bytes


def orphans(record: Record, working_directory: Path) -> list[Process]:
    """Processes of a workload whose shim is gone.

    Members of the program's session, unless its number was given to somebody else since (another
    start time, another boot), and whoever works inside the workload's own directory.
    """
    if record.pid is None or record.boot_id != boot_id():
        return []
    leader = read_process(record.pid)
    is_reused = leader is not None and leader.started_ticks != record.pid_started_ticks
    oldest = record.pid_started_ticks or 0
    return [
        process
        for process in all_processes()
        if process.state not in "ZX"
        and process.pid != os.getpid()
        and process.started_ticks >= oldest
        and (
            (not is_reused and record.pid in (process.session, process.group))
            or _works_in(process.pid, working_directory)
        )
    ]


def _works_in(pid: int, directory: Path) -> bool:
    try:
        current = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return False
    return current == str(directory) or current.startswith(f"{directory}/")


def kill_orphans(record: Record, working_directory: Path) -> None:
    """Kill what a killed shim left behind, and wait until it is gone."""
    give_up_at = time.monotonic() + KILL_WAIT_SECONDS
    while time.monotonic() < give_up_at:
        found = orphans(record, working_directory)
        if not found:
            return
        for process in found:
            send(process.pid, signal.SIGKILL)
        time.sleep(PASS_SECONDS)
