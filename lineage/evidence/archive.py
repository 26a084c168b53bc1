"""The one ZIP encoding a set of files has: stored, sorted, without times or attributes."""

import struct
import zlib
from collections.abc import Mapping
from typing import BinaryIO

from lineage.evidence.base import FILES_MAX, PACK_MAX_BYTES, EvidenceError, checked_name

# APPNOTE.TXT 6.3.10. Version 2.0, no flags, method 0 (stored: every deflate library gives other
# bytes), and the earliest time a ZIP can say, 1980-01-01 00:00.
_VERSION = 20
_DATE = 0x21
_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")


def write_archive(files: Mapping[str, bytes], target: BinaryIO) -> int:
    """Write the archive; returns its size in bytes. Raises EvidenceError when it is too large."""
    if len(files) > FILES_MAX:
        raise EvidenceError(f"a pack holds at most {FILES_MAX} files, not {len(files)}.")
    total = sum(len(content) + 2 * len(name) + 76 for name, content in files.items()) + 22
    if total > PACK_MAX_BYTES:
        raise EvidenceError(f"the pack would be {total} bytes, over the {PACK_MAX_BYTES} of a ZIP.")
    directory: list[bytes] = []
    offset = 0
    for name in sorted(files):
        content, raw = files[name], checked_name(name).encode("ascii")
        common = (_VERSION, 0, 0, 0, _DATE, zlib.crc32(content), len(content), len(content))
        target.write(_LOCAL.pack(0x04034B50, *common, len(raw), 0) + raw)
        target.write(content)
        directory.append(
            _CENTRAL.pack(0x02014B50, _VERSION, *common, len(raw), 0, 0, 0, 0, 0, offset) + raw
        )
        offset += _LOCAL.size + len(raw) + len(content)
    listing = b"".join(directory)
    count = len(directory)
    target.write(listing)
    target.write(_END.pack(0x06054B50, 0, 0, count, count, len(listing), offset, 0))
    return offset + len(listing) + _END.size
