"""GPU slots of one machine: a flock each, so one workload at a time holds one, whatever dies."""

import os
from collections.abc import Sequence
from pathlib import Path

from .processes import kill_orphans
from .records import DIRECTORY_MODE, WorkloadDirectory, is_locked, try_lock


def slot_file(directory: Path, slot: str) -> Path:
    return directory / f"{slot}.lock"


def holder(directory: Path, slot: str) -> str:
    """Name of the workload that holds the slot, or "" while it is free."""
    path = slot_file(directory, slot)
    return path.read_text(encoding="utf-8").partition(" ")[0] if is_locked(path) else ""


class HeldSlots:
    """The slots one workload holds; all it asked for or none."""

    def __init__(self, directory: Path, slots: Sequence[str], *, workload: str) -> None:
        self.directory = directory
        self.slots = tuple(slots)
        self.workload = workload
        self._descriptors: dict[str, int] = {}

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._descriptors)

    def acquire(self, count: int, *, only: Sequence[str] = ()) -> bool:
        """Take `count` slots (exactly `only`, when given), or none of them. Never waits.

        A started program cannot change its cards, hence `only` when it resumes. All or nothing,
        so two workloads that each hold half of what they need cannot exist.
        """
        if len(self._descriptors) == count:
            return True
        self.directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        for slot in only or self.slots:
            if len(self._descriptors) == count:
                break
            descriptor = try_lock(slot_file(self.directory, slot))
            if descriptor is None:
                continue
            if self._is_cleared(descriptor):
                self._descriptors[slot] = descriptor
            else:
                os.close(descriptor)
        if len(self._descriptors) < count:
            self.release()
            return False
        for descriptor in self._descriptors.values():
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, self._signature, 0)
        return True

    @property
    def _signature(self) -> bytes:
        """Who holds the slot: workload and shim, because a name may be used again."""
        return f"{self.workload} {os.getpid()}".encode()

    def _is_cleared(self, descriptor: int) -> bool:
        """Whether nothing of the slot's last holder runs any more.

        A slot given back is empty. A signature in a free slot is of a shim that was killed: while
        its guard lives, the guard is at it; after that its leftovers are ours to end.
        """
        name, _, shim = os.pread(descriptor, 256, 0).decode().partition(" ")
        if not name:
            return True
        previous = WorkloadDirectory(self.directory.parent / "workloads" / name)
        record = previous.record()
        if record is None or str(record.shim_pid) != shim:
            return True
        if is_locked(previous.lock_file):
            return False
        kill_orphans(record, previous.working_directory)
        return True

    def release(self) -> None:
        """Give every slot back."""
        for slot, descriptor in list(self._descriptors.items()):
            if os.pread(descriptor, 256, 0) == self._signature:
                os.ftruncate(descriptor, 0)
            os.close(descriptor)
            del self._descriptors[slot]

    def waiting_message(self, count: int, *, only: Sequence[str] = ()) -> str:
        """Who holds what this workload waits for."""
        held = [(slot, holder(self.directory, slot)) for slot in only or self.slots]
        names = ", ".join(f"{slot} by {name}" for slot, name in held if name)
        return f"Waits for {count} GPU{'s' if count != 1 else ''}; held: {names or 'none'}."
