"""The badges of a GPU: what is wrong with it, worst first."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from agents.gpus.domain import PROGRAM_XIDS, XID_RECENT_SECONDS, XID_WORDS, Throttle
from agents.models import GpuDevice


@dataclass(frozen=True, slots=True)
class Mark:
    """One badge: tone, shape and word, and the whole of it as text."""

    tone: str
    shape: str
    word: str
    detail: str = ""


def marks_of(row: GpuDevice, *, now: dt.datetime) -> Iterable[Mark]:
    """The badges of a device, worst first."""
    if row.lost_at is not None:
        yield Mark("danger", "✕", "lost", row.trouble)
    yield from _xid_marks(row, now)
    if row.ecc_uncorrected:
        detail = "Memory errors that ECC could not correct, since the driver was loaded."
        yield Mark("danger", "▦", f"ECC {row.ecc_uncorrected} uncorrected", detail)
    if row.is_hot:
        limit = "" if row.temperature_limit_c is None else f" of {row.temperature_limit_c}"
        at = "unknown" if row.temperature_c is None else f"{row.temperature_c}{limit} °C"
        yield Mark("warning", "▲", "thermal", f"The card slows down because it is hot: {at}.")
    if row.has_foreign:
        yield Mark("warning", "◇", "foreign process", "A process that no attempt started.")
    if row.throttles and Throttle.POWER_BRAKE in row.throttles:
        yield Mark("warning", "▼", "power brake", "The power supply slows the card down.")
    if row.ecc_corrected:
        detail = "Memory errors that ECC corrected, since the driver was loaded."
        yield Mark("idle", "▦", f"ECC {row.ecc_corrected} corrected", detail)
    if row.is_ecc_on is False:
        yield Mark("idle", "▦", "ECC off", "Memory errors are neither seen nor corrected.")
    if row.throttles and Throttle.POWER_CAP in row.throttles:
        yield Mark("idle", "▼", "power cap", "The card runs at its power limit.")


def _xid_marks(row: GpuDevice, now: dt.datetime) -> Iterable[Mark]:
    """One badge for each kind of error of the last day, newest first."""
    since = now - dt.timedelta(seconds=XID_RECENT_SECONDS)
    recent = [one for one in row.xids if dt.datetime.fromisoformat(one["at"]) >= since]
    counts: dict[int, int] = {}
    for one in reversed(recent):
        counts[one["code"]] = counts.get(one["code"], 0) + 1
    for code, count in counts.items():
        times = f", {count} times" if count > 1 else ""
        word = XID_WORDS.get(code, "NVIDIA's list of XID errors says what it means")
        tone = "warning" if code in PROGRAM_XIDS else "danger"
        yield Mark(tone, "⚡", f"XID {code}{times}", f"{word[0].upper()}{word[1:]}.")
