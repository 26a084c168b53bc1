"""Kill the tower's process groups once the tower itself is gone, however it went.

The kernel kills each direct child of a dead tower (see `guard.py`); this tiny program also ends
what those children had started. It is told the groups on standard input (`+GROUP`, `-GROUP`);
end of file means that the tower no longer exists. Run by path as `python -I -S watchman.py`.
"""

import os
import signal
import sys
from collections.abc import Iterable


def groups_left(lines: Iterable[str]) -> set[int]:
    """The groups still registered when the lines end."""
    groups: set[int] = set()
    for line in lines:
        sign, number = line[:1], line[1:].strip()
        if sign == "+" and number.isdigit():
            groups.add(int(number))
        elif sign == "-" and number.isdigit():
            groups.discard(int(number))
    return groups


def main() -> int:
    """Wait for the end of standard input, then SIGKILL every group that is left."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)  # it must be the last to leave
    for group in groups_left(sys.stdin):
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    return 0


if __name__ == "__main__":
    sys.exit(main())
