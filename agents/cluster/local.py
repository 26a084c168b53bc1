"""The local cluster: workloads as real processes of this machine, each run by a shim of its own.

The adapter keeps nothing in memory that matters. Any number of processes use it at once, and any
of them may be killed at any moment: what is accepted is on disk, and each look at a workload whose
shim has died settles it (or starts it, when its program never ran).
"""

import contextlib
import datetime as dt
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from agents.cluster import nvml
from agents.cluster.base import (
    ClusterError,
    ClusterUnavailable,
    Gpu,
    WorkloadConflict,
    WorkloadInvalid,
    WorkloadPhase,
    WorkloadSpec,
    WorkloadStatus,
)
from agents.cluster.shim.processes import kill_orphans
from agents.cluster.shim.records import (
    DIRECTORY_MODE,
    FAILED,
    PENDING,
    Launch,
    Record,
    WorkloadDirectory,
    is_locked,
    try_lock,
    write_atomically,
)
from agents.cluster.shim.slots import holder, slot_file
from agents.cluster.specs import (
    check_allowance,
    check_grace,
    check_name,
    check_slice,
    check_spec,
    spec_content,
)

OUTPUT_SLICE_MAX = 16 << 20
SHIM_START_SECONDS = 30.0  # an interpreter start takes 30 ms; a machine may be very busy
DRAFT_MAX_AGE_SECONDS = 300.0  # a directory half made or half removed by somebody killed
DRAFT_PREFIX = "."
# The package by its short name from its own directory: see agents/cluster/shim/__init__.py.
SHIM_PROGRAM = (
    "import sys; sys.path.append(sys.argv[2]); from shim.entry import main; main(sys.argv[1])"
)


def start_shim(directory: Path) -> None:
    """Start the shim of a workload, detached; returns when it holds the workload's lock.

    Raises:
        ClusterUnavailable: no process could be started, or it ended with an error.
    """
    command = [sys.executable, "-I", "-S", "-c", SHIM_PROGRAM, str(directory)]
    try:
        completed = subprocess.run(
            [*command, str(Path(__file__).parent)],
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            check=False,
            timeout=SHIM_START_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterUnavailable(f"The process for {directory.name} did not start: {error}.") from (
            error
        )
    # Another shim that runs this workload already is what was wanted.
    if completed.returncode not in (0, 3):
        lines = completed.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit code {completed.returncode}"
        raise ClusterUnavailable(f"The process for {directory.name} did not start: {reason}.")


class LocalCluster:
    """Workloads of one data directory. The constructor opens nothing.

    `directory` holds all state (mode 0700); `declared_gpus` slots exist where NVML finds no cards;
    relative program files are found in `root`; while somebody holds the flock of
    `control_plane_lock` workloads run, and `control_plane_grace_seconds` after it was given back
    they are ended; `hold_gpus_on_pause` holds GPUs for every paused workload, not only for those
    that ask for it.
    """

    keeps_paused = True

    def __init__(
        self,
        directory: Path,
        *,
        declared_gpus: int = 0,
        hold_gpus_on_pause: bool = False,
        root: Path | None = None,
        control_plane_lock: Path | None = None,
        control_plane_grace_seconds: float = 10.0,
        node: str = "local",
        clock: Callable[[], float] = time.time,
        read_cards: Callable[[], tuple[nvml.Card, ...]] = nvml.read_cards,
        launcher: Callable[[Path], None] = start_shim,
    ) -> None:
        self.directory = directory
        self.declared_gpus = declared_gpus
        self.hold_gpus_on_pause = hold_gpus_on_pause
        self.root = root
        self.control_plane_lock = control_plane_lock
        self.control_plane_grace_seconds = control_plane_grace_seconds
        self.node = node
        self.clock = clock
        self.read_cards = read_cards
        self.launcher = launcher
        self._is_control_plane_seen = False

    @property
    def _workloads(self) -> Path:
        return self.directory / "workloads"

    # --- what is asked ---------------------------------------------------------------------------

    def create(self, spec: WorkloadSpec) -> None:
        """Accept a workload and start its shim; the same spec again is success.

        Safe to repeat after a crash at any point: the specification gets its name on disk in one
        rename, and whoever comes next starts what was not started.

        Raises:
            WorkloadConflict: the name exists with another specification.
            WorkloadInvalid: it can never run here.
            ClusterUnavailable: the disk or the process table would not take it.
        """
        gpus = self.gpus()
        check_spec(spec, gpu_count=len(gpus))
        directory = self._at(spec.name)
        with _as_unavailable(f"keep {spec.name}"):
            launch = directory.launch()
            if launch is None:
                draft = self._launch(spec, gpus)
                launch = draft if self._publish(directory, draft) else directory.launch()
        if launch is not None and launch.spec != spec_content(spec):
            raise WorkloadConflict(f"{spec.name} exists with another specification.")
        with _as_unavailable(f"start {spec.name}"):
            self._observe(directory, is_start_required=True)

    def pause(self, name: str) -> None:
        """Stop the process group, keeping its state. Absent or finished is success."""
        self._set_paused(name, is_paused=True)

    def resume(self, name: str) -> None:
        """Let a paused workload run on once its GPUs are free. Absent or finished is success."""
        self._set_paused(name, is_paused=False)

    def set_gpu_allowance(self, name: str, gpu_ms: int) -> None:
        """Raise the GPU-milliseconds a workload may use in all; never lowers it.

        Absent, finished, unlimited or already higher is success.
        """
        check_allowance(gpu_ms)
        directory = self._unfinished(name)
        if directory is None:
            return
        with _as_unavailable(f"grant GPU time to {name}"), directory.change_desired() as desired:
            desired.gpu_allowance_ms = max(gpu_ms, desired.gpu_allowance_ms or 0)

    def delete(self, name: str, *, grace_seconds: float = 5.0) -> None:
        """SIGTERM, then SIGKILL after the grace; the status stays readable. Absent is success.

        Returns when the request is on disk. A stopped workload without GPU time or GPUs left gets
        SIGKILL at once: letting it run to say goodbye would spend what it has not got.
        """
        check_grace(grace_seconds)
        directory = self._unfinished(name)
        if directory is None:
            return
        with _as_unavailable(f"delete {name}"), directory.change_desired() as desired:
            earlier = desired.delete_grace_seconds
            desired.delete_grace_seconds = (
                grace_seconds if earlier is None else min(earlier, grace_seconds)
            )

    def forget(self, name: str) -> None:
        """Remove what is kept of a finished workload. Absent is success.

        Raises:
            ClusterError: it has not finished.
        """
        directory = self._at(name)
        status = self.get(name)
        if status is None:
            return
        if not status.is_finished:
            raise ClusterError(f"{name} has not finished: delete it before forgetting it.")
        with _as_unavailable(f"forget {name}"):
            gone = self._draft_path(name)
            with contextlib.suppress(FileNotFoundError):  # somebody else forgot it first
                os.rename(directory.path, gone)
                _remove_tree(gone)

    # --- what is ---------------------------------------------------------------------------------

    def get(self, name: str) -> WorkloadStatus | None:
        """The workload's status, at most a second old, or None when it was never heard of."""
        with _as_unavailable(f"read {name}"):
            return self._observe(self._at(name))

    def list(self) -> Sequence[WorkloadStatus]:
        """Every workload of this data directory, by name."""
        with _as_unavailable("list workloads"):
            self._look_at_control_plane()
            try:
                entries = sorted(os.listdir(self._workloads))
            except FileNotFoundError:
                return []
            names = [
                entry
                for entry in entries
                if not entry.startswith(DRAFT_PREFIX) and (self._workloads / entry).is_dir()
            ]
            self._sweep(entry for entry in entries if entry.startswith(DRAFT_PREFIX))
            found = (self._observe(WorkloadDirectory(self._workloads / name)) for name in names)
            return [status for status in found if status is not None]

    def output(self, name: str, *, offset: int = 0, limit: int = 65536) -> bytes:
        """Captured stdout and stderr from `offset`, at most `limit` bytes; b"" when absent."""
        check_slice(offset, limit)
        path = self._at(name).output_file
        with _as_unavailable(f"read the output of {name}"):
            try:
                with path.open("rb") as stream:
                    stream.seek(offset)
                    return stream.read(min(limit, OUTPUT_SLICE_MAX))
            except FileNotFoundError:
                return b""

    def gpus(self) -> Sequence[Gpu]:
        """Every GPU (measured) or declared slot, and who holds it."""
        directory = self.directory / "gpus"
        cards = self.read_cards()
        with _as_unavailable("read the GPU slots"):
            if cards:
                return [
                    Gpu(
                        id=card.uuid,
                        node=self.node,
                        name=card.name,
                        is_measured=True,
                        held_by=holder(directory, card.uuid),
                        memory_total_bytes=card.memory_total_bytes,
                        memory_used_bytes=card.memory_used_bytes,
                        utilisation=card.utilisation,
                    )
                    for card in cards
                ]
            names = [f"gpu-{index}" for index in range(self.declared_gpus)]
            return [
                Gpu(
                    id=name,
                    node=self.node,
                    name="declared slot",
                    is_measured=False,
                    held_by=holder(directory, name),
                )
                for name in names
            ]

    # --- files -----------------------------------------------------------------------------------

    def _at(self, name: str) -> WorkloadDirectory:
        return WorkloadDirectory(self._workloads / check_name(name))

    def _draft_path(self, name: str) -> Path:
        return self._workloads / f"{DRAFT_PREFIX}{name}.{secrets.token_hex(8)}"

    def _publish(self, directory: WorkloadDirectory, launch: Launch) -> bool:
        """Give the specification its name, whole or not at all; False when the name was taken."""
        for each in (self.directory, self._workloads, self.directory / "gpus"):
            each.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        for slot in launch.slots:
            slot_file(self.directory / "gpus", slot).touch(mode=0o600)
        draft = self._draft_path(launch.name)
        draft.mkdir(mode=DIRECTORY_MODE)
        try:
            write_atomically(draft / "spec.json", asdict(launch), is_durable=True)
            os.rename(draft, directory.path)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            if directory.spec_file.exists():
                return False
            raise
        return True

    def _launch(self, spec: WorkloadSpec, gpus: Sequence[Gpu]) -> Launch:
        program, arguments = self._resolve(spec)
        self._look_at_control_plane()
        lock = self.control_plane_lock
        return Launch(
            spec=spec_content(spec),
            program=program,
            arguments=arguments,
            slots=tuple(gpu.id for gpu in gpus),
            is_measured=any(gpu.is_measured for gpu in gpus),
            hold_gpus_on_pause=spec.hold_gpus_on_pause or self.hold_gpus_on_pause,
            created_at=self.clock(),
            control_plane_lock=None if lock is None else str(lock),
            control_plane_grace_seconds=self.control_plane_grace_seconds,
            is_control_plane_seen=self._is_control_plane_seen,
        )

    def _resolve(self, spec: WorkloadSpec) -> tuple[str, tuple[str, ...]]:
        """Absolute program and argument vector. Raises WorkloadInvalid when there is no such file.

        `python` is this interpreter; a program or Python script given by a relative path lies in
        `root`, because the working directory of a workload is its own.
        """
        first, *rest = spec.command
        if first == "python":
            if rest and rest[0].endswith(".py"):
                rest[0] = str(self._in_root(spec, rest[0]))
            return sys.executable, (sys.executable, *rest)
        path = str(self._in_root(spec, first)) if "/" in first else shutil.which(first)
        if path is None:
            raise WorkloadInvalid(f"command of {spec.name}: there is no program {first!r} on PATH.")
        if not os.access(path, os.X_OK):
            raise WorkloadInvalid(f"command of {spec.name}: {first!r} cannot be executed.")
        return path, (first, *rest)

    def _in_root(self, spec: WorkloadSpec, word: str) -> Path:
        path = (self.root or Path.cwd()) / word
        if not path.is_file():
            raise WorkloadInvalid(f"command of {spec.name}: there is no file {word!r}.")
        return path

    def _sweep(self, entries: Iterator[str]) -> None:
        """Remove directories that somebody killed left half made or half removed."""
        for entry in entries:
            path = self._workloads / entry
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > DRAFT_MAX_AGE_SECONDS:
                    _remove_tree(path)

    def _look_at_control_plane(self) -> None:
        """Remember that the control plane was there, for workloads that it outlives by seconds."""
        lock = self.control_plane_lock
        if lock is not None and not self._is_control_plane_seen:
            self._is_control_plane_seen = is_locked(lock)

    # --- what is wanted, and who sees to it ------------------------------------------------------

    def _unfinished(self, name: str) -> WorkloadDirectory | None:
        status = self.get(name)
        return None if status is None or status.is_finished else self._at(name)

    def _set_paused(self, name: str, *, is_paused: bool) -> None:
        directory = self._unfinished(name)
        if directory is None:
            return
        with _as_unavailable(f"pause or resume {name}"), directory.change_desired() as desired:
            desired.is_paused = is_paused

    def _observe(
        self, directory: WorkloadDirectory, *, is_start_required: bool = False
    ) -> WorkloadStatus | None:
        """The status, after settling or starting a workload that has no shim.

        A shim that cannot be started is an error only where the start was asked for; a reader is
        told "Pending", and the next look tries again.
        """
        launch = directory.launch()
        if launch is None:
            return None
        record = directory.record()
        if record is None or not record.is_finished:
            try:
                is_startable = self._is_startable(directory, launch)
            except FileNotFoundError:  # finished and forgotten by somebody meanwhile
                return None
            if is_startable:
                try:
                    self.launcher(directory.path)
                except ClusterUnavailable:
                    if is_start_required:
                        raise
            record = directory.record()
        return _status(launch, record or _first_record(launch))

    def _is_startable(self, directory: WorkloadDirectory, launch: Launch) -> bool:
        lock = try_lock(directory.lock_file)
        if lock is None:
            return False  # its shim lives
        try:
            return self._settle(directory, launch)
        finally:
            os.close(lock)

    def _settle(self, directory: WorkloadDirectory, launch: Launch) -> bool:
        """With the lock held, so no shim lives: True when the workload never ran and may start.

        A program that ran and lost its shim is never run again: what it did is done.
        """
        record = directory.record()
        if record is not None and record.is_finished:
            return False
        if record is None or record.pid is None:
            if directory.desired().delete_grace_seconds is None:
                return True
            record = record or _first_record(launch)
            record.phase, record.finished_at = FAILED, self.clock()
            record.reason, record.message = "Deleted", "Deleted before it started."
        else:
            kill_orphans(record, directory.working_directory)
            record.mark_killed(self.clock())
        directory.write_record(record)
        return False


def _remove_tree(path: Path) -> None:
    """Remove a directory; an agent's program may have left folders that nobody may look into.

    What cannot be removed is tried again by the next sweep.
    """
    shutil.rmtree(path, ignore_errors=True)
    if not path.exists():
        return
    for folder, names, _ in os.walk(path):  # each folder is opened before it is walked into
        for name in names:
            inner = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                if not os.path.islink(inner):
                    os.chmod(inner, DIRECTORY_MODE)
    shutil.rmtree(path, ignore_errors=True)


def _first_record(launch: Launch) -> Record:
    return Record(
        phase=PENDING,
        reason="Starting",
        message="Accepted; its process starts.",
        created_at=launch.created_at,
        gpu_allowance_ms=launch.spec["gpu_allowance_ms"],
    )


def _status(launch: Launch, record: Record) -> WorkloadStatus:
    return WorkloadStatus(
        name=launch.name,
        namespace=launch.spec["namespace"],
        attempt_uid=launch.spec["attempt_uid"],
        phase=WorkloadPhase(record.phase),
        reason=record.reason,
        message=record.message,
        exit_code=record.exit_code,
        pid=record.pid,
        created_at=_moment(record.created_at),
        started_at=_moment(record.started_at),
        finished_at=_moment(record.finished_at),
        running_ms=record.running_ms,
        gpu_ms=record.gpu_ms,
        gpu_idle_held_ms=record.gpu_idle_held_ms,
        gpu_ids=tuple(record.gpu_ids),
        gpu_allowance_ms=record.gpu_allowance_ms,
        output_bytes=record.output_bytes,
        output_truncated=record.output_truncated,
    )


def _moment(seconds: float | None) -> dt.datetime | None:
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, tz=dt.UTC)


@contextlib.contextmanager
def _as_unavailable(what: str) -> Iterator[None]:
    """Turn the operating system's errors into the port's: a full disk is not "no workloads"."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ClusterUnavailable(f"The local cluster cannot {what}: {error}.") from error
