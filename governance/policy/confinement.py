"""The confinement of the policy sandbox: what a policy must never have, and how long it runs."""

import ctypes
import os
import resource
import signal
import sys

EXIT_MEMORY = 71  # our own way to say that Python, not Rust, ran out of memory
MAX_STDERR_BYTES = 1 << 20
MAX_OPEN_FILES = 32
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_NO_NEW_PRIVS = 38


def confine(memory_bytes: int, parent: int) -> None:
    """Give up what a policy must never have: memory, files, cores, and life after the parent."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(0)
    with open("/proc/self/statm", encoding="ascii") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory_bytes, mapped + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_STDERR_BYTES, MAX_STDERR_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_OPEN_FILES, MAX_OPEN_FILES))


def limit_cpu(seconds: int) -> None:
    """Let this process use so many seconds of CPU from now on, and then end it."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # The kernel counts whole seconds over the life of the process: round up, for each item.
    allowed = int(usage.ru_utime + usage.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.RLIM_INFINITY))
