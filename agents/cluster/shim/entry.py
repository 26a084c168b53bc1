"""How a shim begins: it takes the workload's lock, leaves its starter and forks its guard."""

import os
import signal
import sys
import time
from pathlib import Path

from . import processes
from .records import FILE_MODE, WorkloadDirectory, try_lock
from .supervisor import Supervisor

EXIT_ANOTHER_SHIM = 3
EXIT_NO_SPEC = 4
LOCK_ATTEMPTS = 40  # a reader that looks whether a shim lives holds the lock for microseconds
LOCK_RETRY_SECONDS = 0.005


def _take_lock(directory: WorkloadDirectory) -> int | None:
    """The descriptor of this workload's lock, or None when another shim runs it."""
    for _ in range(LOCK_ATTEMPTS):
        descriptor = try_lock(directory.lock_file)
        if descriptor is not None:
            return descriptor
        time.sleep(LOCK_RETRY_SECONDS)
    return None


def _detach(log: Path) -> None:
    """Leave the starter: the parent ends at once, so that it has nothing to wait for or to kill.

    Called with the lock held: it belongs to the open file, which both share, so there is no moment
    in which the starter has returned and the lock is free.
    """
    if os.fork():
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    errors = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE)
    for source, target in ((nothing, 0), (nothing, 1), (errors, 2)):
        os.dup2(source, target)


def _guard(supervisor: int, directory: WorkloadDirectory) -> None:
    """Outlive the supervisor by a moment: end and settle what it leaves behind when it is killed.

    The program itself dies with its parent, but whoever it started does not, and may have left its
    session. Such orphans come to the nearest living subreaper, which is this process. It shares
    the lock, so nobody takes the workload for settled before the last of them is dead.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.waitpid(supervisor, 0)
    processes.kill_descendants(os.getpid(), None)
    record = directory.record()
    if record is not None and not record.is_finished and record.pid is not None:
        record.mark_killed(time.time())
        directory.write_record(record)


def main(path: str) -> None:
    """Run the workload in the directory `path`, detached; returns at once in a parent process.

    Exit codes: 0 running or already finished, 3 another shim runs it, 4 no specification there.
    """
    directory = WorkloadDirectory(Path(path))
    launch = directory.launch()
    if launch is None:
        sys.exit(EXIT_NO_SPEC)
    lock = _take_lock(directory)
    if lock is None:
        sys.exit(EXIT_ANOTHER_SHIM)
    record = directory.record()
    if record is not None and (record.is_finished or record.pid is not None):
        return  # a program ran here once: never a second time
    _detach(directory.log_file)
    os.umask(0o077)
    processes.prctl(processes.PR_SET_CHILD_SUBREAPER, 1)
    guarded = os.fork()
    if guarded:
        _guard(guarded, directory)
        return
    processes.prctl(processes.PR_SET_CHILD_SUBREAPER, 1)
    supervisor = Supervisor(directory, launch)
    try:
        supervisor.run()
    except BaseException:  # the interpreter writes it to shim.log; the guard settles the rest
        processes.kill_descendants(os.getpid(), supervisor.record.pid)
        raise
