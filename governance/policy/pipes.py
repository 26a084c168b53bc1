"""The pipes of the policy sandbox: frames from file 0, answers to file 1."""

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from governance.policy.wire import LENGTH, MAX_FRAME_BYTES, FrameTooLong, pack_frame

FLUSH_BYTES = 1 << 16  # what a pipe takes at once


def read_frame() -> bytes | None:
    """The next frame from file 0; None at its end."""
    head = read_exactly(LENGTH.size)
    if head is None:
        return None
    (size,) = LENGTH.unpack(head)
    if size > MAX_FRAME_BYTES:
        raise FrameTooLong(str(size))
    return read_exactly(size)


def read_exactly(size: int) -> bytes | None:
    """`size` bytes from file 0; None when it ends before."""
    return sys.stdin.buffer.read(size) if size == 0 else _whole(sys.stdin.buffer.read(size), size)


def _whole(chunk: bytes, size: int) -> bytes | None:
    return chunk if len(chunk) == size else None


def write_answer(answer: Mapping[str, Any]) -> None:
    """Write one frame to file 1."""
    write_whole(pack_frame(json.dumps(answer).encode()))


def write_whole(content: bytes | bytearray) -> None:
    """Write all of it to file 1."""
    position = 0
    while position < len(content):
        position += os.write(1, bytes(content[position : position + FLUSH_BYTES]))
