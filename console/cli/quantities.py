"""Amounts and times as people read them; unknown is said as unknown, never as zero."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

UNKNOWN = "unknown"
NONE = "-"

MS_PER_SECOND = 1_000
MS_PER_MINUTE = 60_000
MS_PER_HOUR = 3_600_000
MICRO_USD_PER_USD = 1_000_000
MINUTES_FROM_MS = 2 * MS_PER_MINUTE  # below, seconds say more
HOURS_FROM_MS = 2 * MS_PER_HOUR
BYTE_STEP = 1000  # IEC 80000-13: kB, MB, GB


def number(value: float, *, places: int = 1) -> str:
    """With thousands separated, at most that many decimals and no trailing zeros."""
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def gpu_time(milliseconds: float | None, *, like: float | None = None) -> str:
    """GPU-milliseconds as `12.5 GPU-s`, `GPU-min` or `GPU-h`; `like` lends its unit."""
    if milliseconds is None:
        return UNKNOWN
    measure = milliseconds if like is None else max(like, milliseconds)
    step, unit = MS_PER_HOUR, "GPU-h"
    if measure < MINUTES_FROM_MS:
        step, unit = MS_PER_SECOND, "GPU-s"
    elif measure < HOURS_FROM_MS:
        step, unit = MS_PER_MINUTE, "GPU-min"
    text = number(milliseconds / step)
    if text == "0" and milliseconds and like is not None:
        return gpu_time(milliseconds)  # little is not nothing
    return f"{text} {unit}"


def usd(micro_usd: float | None) -> str:
    """Micro-USD as `2.50 USD`, with more decimals below one cent."""
    if micro_usd is None:
        return UNKNOWN
    amount = micro_usd / MICRO_USD_PER_USD
    return f"{amount:,.2f} USD" if round(amount, 2) == amount else f"{number(amount, places=6)} USD"


def tokens(count: float | None) -> str:
    """Tokens with thousands separated."""
    return UNKNOWN if count is None else f"{number(count, places=0)} tokens"


def amount(unit: str, value: float | None, *, like: float | None = None) -> str:
    """An amount of the ledger: GPU-milliseconds, tokens or micro-USD."""
    match unit:
        case "gpu_ms":
            return gpu_time(value, like=like)
        case "micro_usd":
            return usd(value)
        case "tokens":
            return tokens(value)
    return UNKNOWN if value is None else f"{number(value)} {unit}"


def spent_and_limit(accounts: list[Mapping[str, Any]]) -> tuple[str, str]:
    """What was spent and what was granted, dimension by dimension."""
    spent = [amount(a["unit"], a["settled"], like=a["granted"]) for a in accounts]
    limit = [amount(a["unit"], a["granted"]) for a in accounts]
    return ", ".join(spent) or NONE, ", ".join(limit) or NONE


def size(count: int | None) -> str:
    """Bytes as `12.5 MB`."""
    if count is None:
        return UNKNOWN
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < BYTE_STEP:
            return f"{number(value)} {unit}"
        value /= BYTE_STEP
    return f"{number(value)} TB"


def seconds(value: float | None) -> str:
    """A duration in seconds."""
    return UNKNOWN if value is None else f"{number(value)} s"


def moment(text: str) -> dt.datetime:
    """An RFC 3339 time; UTC when it names no offset."""
    found = dt.datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def age(text: str | None, *, now: dt.datetime | None = None) -> str:
    """How long ago that was, as kubectl says it: `45s`, `3m20s`, `5h`, `2d4h`."""
    if not text:
        return NONE
    elapsed = (now or dt.datetime.now(dt.UTC)) - moment(text)
    return duration(max(int(elapsed.total_seconds()), 0))


def duration(total: int) -> str:
    """Whole seconds with two units while they matter (k8s.io/apimachinery HumanDuration)."""
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if total < 120:
        return f"{total}s"
    if minutes < 10:
        return _two(minutes, "m", total % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    years = days // 365
    return _two(years, "y", days % 365, "d") if years < 8 else f"{years}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def until(text: str | None, *, now: dt.datetime | None = None) -> str:
    """How long until then; `over` when it is past."""
    if not text:
        return NONE
    left = moment(text) - (now or dt.datetime.now(dt.UTC))
    return duration(int(left.total_seconds())) if left.total_seconds() > 0 else "over"


def short_digest(digest: str | None) -> str:
    """`sha256:` and 12 digits: enough to recognise, not to refer to."""
    if not digest:
        return NONE
    algorithm, _, digits = digest.partition(":")
    return f"{algorithm}:{digits[:12]}" if digits else digest
