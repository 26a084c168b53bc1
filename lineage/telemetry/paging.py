"""Limits and cursors of the telemetry port's lists."""

import base64
import binascii
import datetime as dt
import json

from lineage.telemetry.base import TelemetryRejected

MAX_PAGE = 1000
Position = tuple[dt.datetime, str, str, str]


def check_limit(limit: int, *, most: int) -> None:
    """Raise TelemetryRejected unless 1 <= limit <= most."""
    if not 1 <= limit <= most:
        raise TelemetryRejected(f"limit must be between 1 and {most}, not {limit}.")


def encode_cursor(position: Position) -> str:
    """Where a page ended: start time, trace id, span id, attempt."""
    fields = [position[0].isoformat(), *position[1:]]
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()


def decode_cursor(cursor: str) -> Position:
    """Read `encode_cursor`'s text.

    Raises: TelemetryRejected for anything it did not write.
    """
    try:
        at, trace_id, span_id, attempt_uid = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        moment = dt.datetime.fromisoformat(at)
    except (ValueError, TypeError, binascii.Error) as error:
        raise TelemetryRejected("cursor is not one this list handed out.") from error
    texts = (trace_id, span_id, attempt_uid)
    if moment.tzinfo is None or not all(isinstance(text, str) for text in texts):
        raise TelemetryRejected("cursor is not one this list handed out.")
    return moment, trace_id, span_id, attempt_uid
