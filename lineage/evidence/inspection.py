"""The child that verifies one untrusted pack: limits first, then the verifier, then JSON.

Run as `python -m lineage.evidence.inspection <verifier> <memory bytes> <cpu seconds> <parent pid>`
with the pack as file 0. The verifier is `own`, or `enclosed`: the `verify.py` that is in every
pack. It writes one JSON document to file 1.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from lineage.evidence import verify

PACK_MAX_BYTES = 64 << 20  # what a page takes; the command line takes all there can be
FILE_MAX_BYTES = 4 << 20  # `verify.py` hands openssl a signature and what it signs
OPEN_FILES_MAX = 64
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_NO_NEW_PRIVS = 38


def confine(*, memory_bytes: int, cpu_seconds: int, parent: int) -> None:
    """Take away what a hostile pack could use, and die with the parent."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)  # the parent died before it could be watched
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_NOFILE, OPEN_FILES_MAX),
        (resource.RLIMIT_FSIZE, FILE_MAX_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))


def main(arguments: list[str]) -> int:
    """Verify file 0 and print the report."""
    memory_bytes, cpu_seconds, parent = (int(text) for text in arguments[1:])
    confine(memory_bytes=memory_bytes, cpu_seconds=cpu_seconds, parent=parent)
    if arguments[0] == "enclosed":
        verify.PACK_MAX_BYTES = PACK_MAX_BYTES  # it asks for that much memory at once
        return verify.main(["/dev/stdin", "--json"])
    from lineage.evidence.inspect import inspect_pack  # noqa: PLC0415 - sigstore loads for a second

    report = inspect_pack(Path("/dev/stdin"))
    sys.stdout.write(json.dumps({"ok": report.ok, **asdict(report)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
