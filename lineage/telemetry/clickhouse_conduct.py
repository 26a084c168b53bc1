"""The questions that tell a column store's clients what attempts did lately."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from lineage.telemetry.conduct import (
    MODELS_MAX,
    RECENT_ACTIONS,
    TARGETS_MAX,
    TEXT_MAX,
    Act,
    Conduct,
    Witness,
    conduct_of,
    named_observations,
)
from lineage.telemetry.spans import EPOCH

# `version` of a row is this less the nanosecond it was stored in: see ddl/0001_spans.sql.
VERSION_MAX: Final = 2**64 - 1
NANOSECONDS: Final = 1_000_000_000
ABSENT_MAX: Final = 1000  # observations looked for outside the Goal in one question

IS_ACTION: Final = (
    "(NOT is_observation AND"
    " (parent_observation != '' OR isNotNull(confidence) OR change_target != ''))"
)
# Of a span that was stored twice the first counts, as everywhere. Not FINAL: that reads every
# column of every row before it leaves one out, and a busy attempt has a million.
WITHIN: Final = (
    "namespace = {namespace:String} AND goal_uid = {goal_uid:String}"
    " AND attempt_uid IN {attempts:Array(String)}"
    " AND version < transform(attempt_uid, {attempts:Array(String)}, {bounds:Array(UInt64)},"
    " toUInt64(0))"
)
ONCE: Final = "ORDER BY version DESC LIMIT 1 BY attempt_uid, trace_id, span_id"
TEXT: Final = f"substringUTF8({{}}, 1, {TEXT_MAX})"

NEWS_SQL: Final = (
    "SELECT attempt_uid, count(), min(version), toUnixTimestamp64Nano(now64(9)) FROM spans"
    " WHERE namespace = {namespace:String} AND goal_uid = {goal_uid:String}"
    " AND attempt_uid IN {attempts:Array(String)} GROUP BY attempt_uid ORDER BY attempt_uid"
)
ACTS_SQL: Final = (
    "SELECT attempt_uid, span_id, name, target, parent_observation, confidence, start_us,"  # noqa: S608 - fixed texts
    f" version FROM (SELECT attempt_uid, trace_id, span_id, {TEXT.format('name')} AS name,"
    f" {TEXT.format('change_target')} AS target, parent_observation, confidence,"
    " toUnixTimestamp64Micro(start_at) AS start_us,"
    f" version FROM spans WHERE {WITHIN} AND {IS_ACTION} {ONCE})"
    f" ORDER BY attempt_uid, version LIMIT {RECENT_ACTIONS} BY attempt_uid"
)
# The newest first, each with the first span that shows it.
NAMED_SQL: Final = (
    "SELECT attempt_uid, what, named, argMax(span_id, version), max(version), min(version) AS last"  # noqa: S608 - fixed texts
    " FROM (SELECT attempt_uid, span_id, version, trace_id,"
    f" {TEXT.format('change_target')} AS target, {TEXT.format('model')} AS model"
    f" FROM spans WHERE {WITHIN} AND (change_target != '' OR model != '') {ONCE})"
    " ARRAY JOIN ['target', 'model'] AS what, [target, model] AS named"
    " WHERE named != '' GROUP BY attempt_uid, what, named"
    f" ORDER BY attempt_uid, what, last LIMIT {TARGETS_MAX + 1} BY attempt_uid, what"
)
HOMES_SQL: Final = (
    "SELECT DISTINCT span_id, goal_uid FROM spans WHERE namespace = {namespace:String}"
    " AND span_id IN {ids:Array(String)}"
)


class Rows(Protocol):
    """Asks the store: the SQL and its parameters in, rows out. Raises `TelemetryError`s."""

    def __call__(self, sql: str, **parameters: Any) -> Sequence[Sequence[Any]]: ...


@dataclass(frozen=True, slots=True)
class _News:
    """An attempt of which something was stored since its mark."""

    attempt_uid: str
    mark: str
    bound: int  # rows with a smaller version are read
    now: int  # nanoseconds, by the store's clock


def read_conduct(
    rows: Rows,
    namespace: str,
    goal_uid: str,
    *,
    seen: Mapping[str, str],
    grace_seconds: float,
    whole_max: int,
    lately_seconds: float,
) -> list[Conduct]:
    """See `Telemetry.conduct`: one question when nothing is new, five at most otherwise."""
    if not seen:
        return []
    place = {"namespace": namespace, "goal_uid": goal_uid}
    found = rows(NEWS_SQL, **place, attempts=list(seen))
    news = [
        _news(row, seen[row[0]], whole_max=whole_max, lately_seconds=lately_seconds)
        for row in found
        if str(row[2]) != seen[row[0]]
    ]
    if not news:
        return []
    what = {**place, "attempts": [one.attempt_uid for one in news],
            "bounds": [one.bound for one in news]}  # fmt: skip
    acts: defaultdict[str, list[Act]] = defaultdict(list)
    for attempt_uid, *row in rows(ACTS_SQL, **what):
        acts[attempt_uid].append(_act(row))
    named = _named(rows(NAMED_SQL, **what))
    homes = _homes(rows, place, (act for some in acts.values() for act in some))
    settled_before = _stored_at(VERSION_MAX - news[0].now) - dt.timedelta(seconds=grace_seconds)
    return [
        _with_names(
            conduct_of(
                one.attempt_uid, one.mark, acts[one.attempt_uid],
                goal_uid=goal_uid, homes=homes, settled_before=settled_before,
            ),
            targets=named[one.attempt_uid, "target"],
            models=named[one.attempt_uid, "model"],
        )
        for one in news
    ]  # fmt: skip


def _news(row: Sequence[Any], mark: str, *, whole_max: int, lately_seconds: float) -> _News:
    attempt_uid, count, version, now = row
    bound = VERSION_MAX
    if count > whole_max:
        lately = VERSION_MAX - (now - int(lately_seconds * NANOSECONDS))
        bound = max(lately, int(mark or 0))
    return _News(attempt_uid, str(version), bound, now)


def _act(row: Sequence[Any]) -> Act:
    span_id, name, target, parent, confidence, start_us, version = row
    return Act(
        span_id, name, target, parent, confidence,
        EPOCH + dt.timedelta(microseconds=start_us), _stored_at(version),
    )  # fmt: skip


def _stored_at(version: int) -> dt.datetime:
    return EPOCH + dt.timedelta(microseconds=(VERSION_MAX - version) // 1000)


def _named(
    found: Iterable[Sequence[Any]],
) -> defaultdict[tuple[str, str], dict[str, Witness]]:
    named: defaultdict[tuple[str, str], dict[str, Witness]] = defaultdict(dict)
    for attempt_uid, what, name, span_id, version, _ in found:
        named[attempt_uid, what][name] = Witness(span_id, _stored_at(version))
    return named


def _with_names(
    conduct: Conduct, *, targets: Mapping[str, Witness], models: Mapping[str, Witness]
) -> Conduct:
    return replace(
        conduct,
        targets=dict(list(targets.items())[:TARGETS_MAX]),
        targets_unlisted=max(len(targets) - TARGETS_MAX, 0),
        models=dict(list(models.items())[:MODELS_MAX]),
    )


def _homes(rows: Rows, place: Mapping[str, str], acts: Iterable[Act]) -> dict[str, str]:
    """The Goal of each observation that is named, the asking Goal before any other.

    Nearly all lie in the Goal itself, which the store finds at once; only the rest is looked for
    in the whole namespace.
    """
    ids = named_observations(acts)
    if not ids:
        return {}
    own = rows(f"{HOMES_SQL} AND goal_uid = {{goal_uid:String}}", **place, ids=ids)
    homes = dict.fromkeys((row[0] for row in own), place["goal_uid"])
    rest = [id_ for id_ in ids if id_ not in homes][:ABSENT_MAX]
    if rest:
        for span_id, goal_uid in rows(HOMES_SQL, namespace=place["namespace"], ids=rest):
            homes.setdefault(span_id, goal_uid)
    return homes
