"""Wraps OTLP exports with their owners, so that many of them make one insert."""

from collections.abc import Iterable, Iterator, Sequence

from lineage.telemetry.base import SpanBatch, SpanOwner

# Field numbers of `Envelope` in ddl/envelope.proto.
OWNER_FIELDS = ("namespace", "goal_uid", "agent", "task", "attempt_uid")
REQUEST_FIELD = 6
LENGTH_DELIMITED = 2  # https://protobuf.dev/programming-guides/encoding/#structure


def varint(number: int) -> bytes:
    """Protobuf's variable-length integer."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | LENGTH_DELIMITED) + varint(len(value)) + value


def _owner(owner: SpanOwner) -> bytes:
    return b"".join(
        _field(number, getattr(owner, name).encode())
        for number, name in enumerate(OWNER_FIELDS, start=1)
    )


def pieces(batch: SpanBatch) -> Sequence[bytes]:
    """One length-delimited Envelope, in pieces so that the export itself is not copied."""
    head = _owner(batch.owner)
    request = varint(REQUEST_FIELD << 3 | LENGTH_DELIMITED) + varint(len(batch.body))
    length = len(head) + len(request) + len(batch.body)
    return (varint(length) + head + request, batch.body)


def envelopes(batches: Iterable[SpanBatch], *, most_bytes: int) -> Iterator[bytes]:
    """Row data for one insert after another, each about `most_bytes` at most.

    A single export larger than that still travels alone.
    """
    parts: list[bytes] = []
    size = 0
    for batch in batches:
        if parts and size + len(batch.body) > most_bytes:
            yield b"".join(parts)
            parts, size = [], 0
        parts.extend(pieces(batch))
        size += len(batch.body)
    if parts:
        yield b"".join(parts)
