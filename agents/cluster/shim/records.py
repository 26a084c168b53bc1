"""What a local workload is on disk: its specification, what is wanted of it, and what it is.

    <cluster>/workloads/<name>/spec.json      written once, before the directory gets its name
                               desired.json   written by adapters, read by the shim
                               status.json    written by whoever holds `lock`
                               lock           flock: the one shim that runs this workload
                               nudge          FIFO: a byte in it says "read desired.json now"
                               output.log, workdir/, shim.log
    <cluster>/gpus/<slot>.lock                flock: the shim whose workload holds the slot

Every file is replaced whole by a rename, so a reader sees the old one or the new one; every lock
is a flock, so the kernel gives it back whatever kills its holder.
"""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
PENDING, RUNNING, PAUSED, SUCCEEDED, FAILED = (
    "Pending",
    "Running",
    "Paused",
    "Succeeded",
    "Failed",
)
FINISHED = frozenset({SUCCEEDED, FAILED})


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything the shim needs to run a workload; `spec` is kept to recognise the same request."""

    spec: Mapping[str, Any]
    program: str  # absolute path
    arguments: tuple[str, ...]  # including argv[0]
    slots: tuple[str, ...]  # every GPU or slot of this machine
    is_measured: bool  # real cards, as opposed to declared slots
    hold_gpus_on_pause: bool
    created_at: float  # Unix seconds
    control_plane_lock: str | None = None
    control_plane_grace_seconds: float = 10.0
    is_control_plane_seen: bool = False

    @property
    def name(self) -> str:
        return str(self.spec["name"])


@dataclass(slots=True)
class Desired:
    """What adapters want of a workload; the allowance only ever grows."""

    is_paused: bool = False
    gpu_allowance_ms: int | None = None  # None: as in the specification
    delete_grace_seconds: float | None = None  # None: not to be deleted


@dataclass(slots=True)
class Record:
    """What is, as the shim last saw it. Times are Unix seconds."""

    phase: str = PENDING
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    pid: int | None = None
    pid_started_ticks: int | None = None  # /proc starttime: tells a reused pid from ours
    boot_id: str = ""
    shim_pid: int | None = None
    created_at: float = 0.0
    started_at: float | None = None
    started_monotonic_ns: int | None = None
    finished_at: float | None = None
    running_ms: int = 0
    gpu_ms: int = 0
    gpu_idle_held_ms: int = 0
    gpu_ids: list[str] = field(default_factory=list)
    gpu_allowance_ms: int | None = None
    output_bytes: int = 0
    output_truncated: bool = False

    @property
    def is_finished(self) -> bool:
        return self.phase in FINISHED

    def mark_killed(self, at: float) -> None:
        """The shim was killed: what it last recorded is all that is known of its time."""
        self.phase = FAILED
        self.reason = "Killed"
        self.message = "The process that ran it was killed; its program was ended with it."
        self.finished_at = at

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        known = {each.name for each in fields(cls)}
        return cls(**{key: value for key, value in content.items() if key in known})


def boot_id() -> str:
    """Identity of this boot: process ids of another boot mean nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def write_atomically(path: Path, content: Mapping[str, Any], *, is_durable: bool = False) -> None:
    """Replace `path` by `content` as JSON; a reader never sees half of it.

    `is_durable` also survives a power cut (fsync), for what is written once.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    with open(descriptor, "wb") as stream:
        stream.write(json.dumps(content, separators=(",", ":")).encode())
        if is_durable:
            stream.flush()
            os.fsync(stream.fileno())
    os.replace(draft, path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`, or None when there is no such file."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return content


def try_lock(path: Path) -> int | None:
    """Take the flock of `path` at once; the descriptor, or None while somebody else has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise
    return descriptor


def is_locked(path: Path) -> bool:
    """Whether somebody holds the flock of `path`. Opens it for reading only; absent is free."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return True
        raise
    finally:
        os.close(descriptor)
    return False


class WorkloadDirectory:
    """The files of one workload."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec_file = path / "spec.json"
        self.desired_file = path / "desired.json"
        self.desired_lock = path / "desired.lock"
        self.status_file = path / "status.json"
        self.lock_file = path / "lock"
        self.nudge_file = path / "nudge"
        self.output_file = path / "output.log"
        self.log_file = path / "shim.log"
        self.working_directory = path / "workdir"

    @property
    def gpu_directory(self) -> Path:
        return self.path.parent.parent / "gpus"

    def launch(self) -> Launch | None:
        content = read_json(self.spec_file)
        if content is None:
            return None
        content["arguments"] = tuple(content["arguments"])
        content["slots"] = tuple(content["slots"])
        return Launch(**content)

    def record(self) -> Record | None:
        content = read_json(self.status_file)
        return None if content is None else Record.from_json(content)

    def write_record(self, record: Record) -> None:
        """Only for the holder of the lock."""
        write_atomically(self.status_file, asdict(record), is_durable=record.is_finished)

    def desired(self) -> Desired:
        content = read_json(self.desired_file)
        return Desired() if content is None else Desired(**content)

    @contextlib.contextmanager
    def change_desired(self) -> Iterator[Desired]:
        """Read, change and write what is wanted, one adapter at a time, then nudge the shim."""
        descriptor = os.open(self.desired_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            desired = self.desired()
            before = asdict(desired)
            yield desired
            if asdict(desired) != before:
                write_atomically(self.desired_file, asdict(desired))
        finally:
            os.close(descriptor)
        self.nudge()

    def nudge(self) -> None:
        """Tell the shim to look now. It looks by itself five times a second anyway."""
        with contextlib.suppress(OSError):
            descriptor = os.open(self.nudge_file, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(descriptor, b"!")
            finally:
                os.close(descriptor)
