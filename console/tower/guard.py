"""Become another program that cannot outlive the process that started it.

Run by path as `python -I -S guard.py PARENT_PID PROGRAM [ARGUMENT …]`; imports only the standard
library so that it costs milliseconds.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
COMMAND_NOT_FOUND = 127  # what a shell answers, too
COMMAND_NOT_STARTED = 126


def main(argv: list[str]) -> int:
    """Ask the kernel for SIGKILL at the parent's death, then replace this process by argv[1:]."""
    parent, command = int(argv[0]), argv[1:]
    # SIGKILL, because every process of ours must survive it anyway and none can ignore it.
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        print(f"prctl: {os.strerror(ctypes.get_errno())}", file=sys.stderr)  # noqa: T201 - a program
        return COMMAND_NOT_STARTED
    # The parent may have died before the line above: then nobody would ever send the signal.
    if os.getppid() != parent:
        return COMMAND_NOT_STARTED
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is what we want
    except OSError as error:
        print(f"cannot start {command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return COMMAND_NOT_FOUND


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
