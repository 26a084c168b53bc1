"""Binary frames of the live fleet (`docs/live-feed.md`): little-endian columns, each on 8 bytes."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

MAGIC: Final = 0x4643  # "CF" as a little-endian 16-bit number
VERSION: Final = 1
# magic, version, kind, epoch, sequence, ages of database and bus, flags, server's clock,
# names, bytes of names, Goals, added, changed, removed, runs in all, nothing
HEADER: Final = struct.Struct("<HBBIIIIIdIIIIIIII")
ALIGNMENT: Final = 8  # typed arrays of a browser begin only at multiples of their element's size
UNKNOWN_AGE: Final = 0xFFFF_FFFF
IS_TRUNCATED: Final = 1  # flag: more agents run than the hub keeps

Columns = Mapping[str, npt.NDArray[Any]]


class FrameKind(IntEnum):
    """What a frame is."""

    SNAPSHOT = 1  # forget everything: this is all there is
    DELTA = 2  # apply to the frame before
    HEARTBEAT = 3  # nothing changed; ages only


# Columns in the order they are sent. "uid" is 16 bytes a row.
GOAL_COLUMNS: Final[tuple[tuple[str, str], ...]] = (
    ("goal", "<u4"), ("uid", "uid"), ("namespace", "<u4"), ("name", "<u4"), ("phase", "<u4"),
    ("unit", "<u4"), ("settled", "<u2"), ("reserved", "<u2"), ("waiting", "<u2"),
    ("tokens", "<u4"), ("exhausts", "<f8"), ("changed", "<f8"),
)  # fmt: skip
ADDED_COLUMNS: Final[tuple[tuple[str, str], ...]] = (
    ("slot", "<u4"), ("uid", "uid"), ("namespace", "<u4"), ("goal", "<u4"), ("agent", "<u4"),
    ("role", "<u4"), ("task", "<u4"), ("kind", "u1"), ("gpus", "<u2"), ("created", "<f8"),
)  # fmt: skip
CHANGED_COLUMNS: Final[tuple[tuple[str, str], ...]] = (
    ("slot", "<u4"), ("state", "u1"), ("confidence", "u1"), ("node", "<u4"), ("span", "<u4"),
    ("gpu_ms", "<f8"), ("changed", "<f8"),
)  # fmt: skip
REMOVED_COLUMNS: Final[tuple[tuple[str, str], ...]] = (("slot", "<u4"),)


class FrameError(ValueError):
    """These bytes are no frame of this version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Where a frame stands in its feed and how old its sources are. Ages in milliseconds."""

    epoch: int
    sequence: int
    at_ms: float
    database_age_ms: int = UNKNOWN_AGE
    bus_age_ms: int = UNKNOWN_AGE
    flags: int = 0
    total: int = 0  # runs in this view


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame, decoded. Columns are numpy arrays of equal length; "uid" has shape (n, 16)."""

    kind: FrameKind
    stamp: Stamp
    names: Sequence[str] = ()  # appended to the names of the frames before
    goals: Columns = field(default_factory=dict)
    added: Columns = field(default_factory=dict)
    changed: Columns = field(default_factory=dict)
    removed: Columns = field(default_factory=dict)


def encode(frame: Frame) -> bytes:
    """The frame's bytes."""
    texts = [name.encode("utf-8", "replace") for name in frame.names]
    joined = b"".join(texts)
    sections = (
        (frame.goals, GOAL_COLUMNS),
        (frame.added, ADDED_COLUMNS),
        (frame.changed, CHANGED_COLUMNS),
        (frame.removed, REMOVED_COLUMNS),
    )
    counts = [_length(columns, shape) for columns, shape in sections]
    stamp = frame.stamp
    parts = [
        HEADER.pack(
            MAGIC, VERSION, frame.kind, stamp.epoch, stamp.sequence, stamp.database_age_ms,
            stamp.bus_age_ms, stamp.flags, stamp.at_ms, len(texts), len(joined), *counts,
            stamp.total, 0,
        )
    ]  # fmt: skip
    parts.append(_padded(np.array([len(text) for text in texts], "<u4").tobytes()))
    parts.append(_padded(joined))
    for (columns, shape), count in zip(sections, counts, strict=True):
        if count:
            parts += [
                _padded(np.ascontiguousarray(columns[name], _element(kind)).tobytes())
                for name, kind in shape
            ]
    return b"".join(parts)


def decode(raw: bytes) -> Frame:
    """The frame in `raw`. Raises FrameError for anything that is not exactly one frame."""
    if len(raw) < HEADER.size:
        raise FrameError("The frame is shorter than its header.")
    (magic, version, kind, epoch, sequence, database_age, bus_age, flags, at_ms, names, name_bytes,
     goals, added, changed, removed, total, _) = HEADER.unpack_from(raw)  # fmt: skip
    if magic != MAGIC or version != VERSION:
        raise FrameError(f"Not a frame of version {VERSION}.")
    if kind not in tuple(FrameKind):
        raise FrameError(f"There is no frame of kind {kind}.")
    reader = _Reader(raw)
    lengths = reader.column("<u4", names)
    joined = reader.column("u1", name_bytes).tobytes()
    frame = Frame(
        kind=FrameKind(kind),
        stamp=Stamp(
            epoch=epoch, sequence=sequence, at_ms=at_ms, database_age_ms=database_age,
            bus_age_ms=bus_age, flags=flags, total=total,
        ),
        names=_split(joined, [int(length) for length in lengths]),
        goals=reader.section(GOAL_COLUMNS, goals),
        added=reader.section(ADDED_COLUMNS, added),
        changed=reader.section(CHANGED_COLUMNS, changed),
        removed=reader.section(REMOVED_COLUMNS, removed),
    )  # fmt: skip
    if reader.at != len(raw):
        raise FrameError("Bytes follow the frame.")
    return frame


class _Reader:
    """Takes columns off a frame, one after the other."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.at = HEADER.size

    def column(self, kind: str, count: int) -> npt.NDArray[Any]:
        element = _element(kind)
        width = 16 if kind == "uid" else element.itemsize
        size = width * count
        if self.at + size > len(self._raw):
            raise FrameError("The frame ends within a column.")
        values = np.frombuffer(self._raw, element, size // element.itemsize, self.at)
        self.at += size + -size % ALIGNMENT
        return values.reshape(count, 16) if kind == "uid" else values

    def section(self, shape: Sequence[tuple[str, str]], count: int) -> Columns:
        return {name: self.column(kind, count) for name, kind in shape} if count else {}


def _element(kind: str) -> np.dtype[Any]:
    return np.dtype("u1" if kind == "uid" else kind)


def _length(columns: Columns, shape: Sequence[tuple[str, str]]) -> int:
    return len(columns[shape[0][0]]) if columns else 0


def _padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % ALIGNMENT)


def _split(joined: bytes, lengths: Sequence[int]) -> tuple[str, ...]:
    if sum(lengths) != len(joined):
        raise FrameError("The names do not add up to their bytes.")
    names, at = [], 0
    for length in lengths:
        names.append(joined[at : at + length].decode("utf-8", "replace"))
        at += length
    return tuple(names)
