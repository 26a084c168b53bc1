"""Verification of an uploaded pack in a child process that is bounded and keeps nothing."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from lineage.evidence.inspect import BadRecord, PackReport, Step
from lineage.evidence.inspection import PACK_MAX_BYTES

AT_ONCE: Final = 2  # verifications in this process; each may take a core
ANSWER_MAX_BYTES: Final = 4 << 20
ROOT: Final = Path(__file__).resolve().parents[2]
_turns = threading.BoundedSemaphore(AT_ONCE)


class SandboxError(Exception):
    """The pack could not be verified; the text says why."""


class TooBusy(SandboxError):
    """As many packs as this process takes are being verified."""


class PackTooLarge(SandboxError):
    """More bytes than a page takes."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one verification may take."""

    pack_bytes: int = PACK_MAX_BYTES
    # Of addresses: the verifier maps libraries and reads the pack whole.
    memory_bytes: int = 2 << 30
    cpu_seconds: int = 30
    wall_seconds: float = 45.0


BOUNDS: Final = Bounds()


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """What `verify.py`, which is in every pack and shares no code with us, says of it."""

    ok: bool
    said: str


def verify_upload(
    chunks: Iterable[bytes], *, bounds: Bounds = BOUNDS
) -> tuple[PackReport, SecondOpinion]:
    """Both verifiers' reports on a pack given as its bytes; nothing of it is kept.

    Raises TooBusy, PackTooLarge, SandboxError (time or memory ran out, or the child died).
    """
    if not _turns.acquire(blocking=False):
        raise TooBusy(f"{AT_ONCE} packs are being verified: try again in a moment.")
    try:
        # Unlinked as soon as it is made: not even a kill leaves a file behind.
        with tempfile.TemporaryFile() as pack:
            size = 0
            for chunk in chunks:
                size += len(chunk)
                if size > bounds.pack_bytes:
                    raise PackTooLarge(
                        f"The page takes packs of up to {bounds.pack_bytes >> 20} MiB: verify this "
                        "one with `clearance verify`."
                    )
                pack.write(chunk)
            pack.flush()
            with tempfile.TemporaryDirectory() as folder:  # for what openssl is handed
                return _inspected(pack, folder, bounds), _second_opinion(pack, folder, bounds)
    finally:
        _turns.release()


def _inspected(pack: IO[bytes], folder: str, bounds: Bounds) -> PackReport:
    done = _run(pack, "own", folder, bounds)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise SandboxError(
            "The pack used more memory or processor time than its verification may take."
        ) from None
    bad = found["first_bad"]
    return PackReport(
        steps=tuple(Step(**step) for step in found["steps"]),
        first_bad=BadRecord(**bad) if bad else None,
        gaps=tuple(found["gaps"]),
        fingerprint=found["fingerprint"],
    )


def _second_opinion(pack: IO[bytes], folder: str, bounds: Bounds) -> SecondOpinion:
    done = _run(pack, "enclosed", folder, bounds)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return SecondOpinion(False, "verify.py gave up on it")
    failed = [str(step["name"]) for step in found["steps"] if not step["ok"]]
    said = f"refuses it at {', '.join(failed)}" if failed else "agrees in every step"
    return SecondOpinion(bool(found["ok"]), said)


def _run(
    pack: IO[bytes], verifier: str, folder: str, bounds: Bounds
) -> subprocess.CompletedProcess[bytes]:
    pack.seek(0)
    limits = [str(bounds.memory_bytes), str(bounds.cpu_seconds), str(os.getpid())]
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": folder,
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "lineage.evidence.inspection", verifier, *limits],
            stdin=pack,
            capture_output=True,
            timeout=bounds.wall_seconds,
            cwd=ROOT,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SandboxError(
            f"Its verification did not end within {bounds.wall_seconds:.0f} seconds."
        ) from None
    if len(done.stdout) > ANSWER_MAX_BYTES:
        raise SandboxError("Its report is longer than any pack's.")
    return done
