"""Request and response compression of ClickHouse's HTTP protocol, with a limit while inflating."""

import gzip
import zlib
from collections.abc import Callable
from typing import Any

import lz4.frame  # type: ignore[import-untyped]
from backports import zstd

GZIP_WINDOW = 16 + zlib.MAX_WBITS
INFLATE_STEP = 1 << 20  # how much is inflated between two looks at the limit, in bytes


class TooLarge(Exception):
    """The inflated body would pass the limit."""


class BadCompression(Exception):
    """The body is not what its Content-Encoding says."""


def _decompressor(encoding: str) -> Any:
    match encoding:
        case "gzip":
            return zlib.decompressobj(GZIP_WINDOW)
        case "deflate":
            return zlib.decompressobj()
        case "zstd":
            return zstd.ZstdDecompressor()
        case "lz4":
            return lz4.frame.LZ4FrameDecompressor()
    raise BadCompression(
        f"Content-Encoding '{encoding}' is not supported; use gzip, deflate, zstd or lz4."
    )


def inflate(body: bytes, *, encoding: str, limit: int) -> bytes:
    """The decompressed body, at most `limit` bytes.

    Raises: TooLarge as soon as the limit is passed, BadCompression for damaged or cut-off bytes.
    """
    if encoding in ("", "identity"):
        return body
    stream = _decompressor(encoding)
    out = bytearray()
    pending = body
    try:
        while not stream.eof:
            piece = stream.decompress(pending, INFLATE_STEP)
            pending = getattr(stream, "unconsumed_tail", b"")
            out += piece
            if len(out) > limit:
                raise TooLarge
            if not piece and not pending:
                break
    except (zlib.error, zstd.ZstdError, RuntimeError, EOFError) as error:
        raise BadCompression(f"The body is not valid {encoding}.") from error
    if not stream.eof:
        raise BadCompression(f"The {encoding} body is cut off.")
    return bytes(out)


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "lz4": lambda body: bytes(lz4.frame.compress(body)),
    "zstd": lambda body: bytes(zstd.compress(body, 1)),
    "gzip": lambda body: gzip.compress(body, 1),
    "deflate": lambda body: zlib.compress(body, 1),
}


def accepted_encoding(header: str) -> str:
    """The first encoding of an Accept-Encoding header that we speak, or ""."""
    for word in header.split(","):
        name = word.partition(";")[0].strip().lower()
        if name in ENCODERS:
            return name
    return ""
