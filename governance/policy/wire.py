"""Length-prefixed frames between the policy adapter and its sandboxed child."""

import struct
from collections.abc import Iterator

LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 64 << 20  # the largest request or answer; a longer one is a fault, not a load


class FrameTooLong(ValueError):
    """A frame passes `MAX_FRAME_BYTES`."""


def pack_frame(payload: bytes) -> bytes:
    """One frame: four bytes of length, big-endian, then the payload. Raises `FrameTooLong`."""
    if len(payload) > MAX_FRAME_BYTES:
        raise FrameTooLong(f"{len(payload)} bytes, at most {MAX_FRAME_BYTES} allowed")
    return LENGTH.pack(len(payload)) + payload


class FrameBuffer:
    """Bytes as they arrive, taken out as whole frames."""

    def __init__(self) -> None:
        """Begin empty."""
        self._pending = bytearray()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Add a chunk; yields every frame that is now whole. Raises `FrameTooLong`."""
        self._pending += chunk
        start = 0
        while len(self._pending) - start >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._pending, start)
            if size > MAX_FRAME_BYTES:
                raise FrameTooLong(f"{size} bytes, at most {MAX_FRAME_BYTES} allowed")
            end = start + LENGTH.size + size
            if len(self._pending) < end:
                break
            yield bytes(self._pending[start + LENGTH.size : end])
            start = end
        del self._pending[:start]
