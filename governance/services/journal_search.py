"""Search of the journal: qualifiers and words, in pages that cost the same at any length."""

import datetime as dt
import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db.models import Q, QuerySet
from django.http import QueryDict

from governance.models import JournalHead, JournalRecord
from governance.time_range import EXAMPLE, PRESETS, time_range
from lineage.domain import ActorKind

TEXT_MAX = 400  # characters of a search
TERMS_MAX = 16
PAGE_SIZE = 50
ACTIONS_MAX = 400  # distinct actions there can be; the product has some sixty
GOALS_MAX = 50  # Goals that one name may mean
NEIGHBOURS = 1000  # records a clock that was set back may have put out of order
SUGGESTED_MAX = 12
RECENT = 2000  # newest records whose actors and objects are suggested
HASH = re.compile(r"[0-9a-f]{1,64}")
TOKEN = re.compile(
    r'(?P<minus>-?)(?:(?P<key>[A-Za-z]+):(?P<value>"[^"]*"?|\S*)|(?P<word>"[^"]*"?|\S+))'
)
KEYS: Final = {
    "actor": "who did it: a user name, an agent, or human, agent, system",
    "action": "what was done, e.g. goal.created, or goal.* for all about Goals",
    "goal": "of which Goal: its name, namespace/name or uid",
    "namespace": "in which namespace",
    "object": "to what: a kind, an id, or kind/id",
    "created": f"when: {', '.join(PRESETS)}, or from..to as {EXAMPLE}",
    "seq": "record number, or from..to",
    "hash": "the start of the record's hash",
}


class SearchInvalid(ValueError):
    """A search that cannot be read: where, why, and what may have been meant."""

    def __init__(
        self, message: str, *, start: int = 0, end: int = 0, meant: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.start, self.end, self.meant = start, end, tuple(meant)


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a search, and where in the text it stands (characters from 0)."""

    key: str  # "" for a free word
    value: str
    is_negated: bool
    start: int
    end: int

    def invalid(self, why: str, *, meant: Sequence[str] = ()) -> SearchInvalid:
        return SearchInvalid(
            f"{self.key or 'word'}: {why}", start=self.start, end=self.end, meant=meant
        )


@dataclass(frozen=True, slots=True)
class RecordPage:
    """Records newest first; `older` is the cursor of what comes next, None at the first record.

    `searched_from` to `searched_to` are the record numbers that were looked at.
    """

    records: list[JournalRecord]
    older: int | None
    searched_from: int
    searched_to: int
    is_partial: bool  # no index helped: only a part of the journal was looked at


@dataclass(frozen=True, slots=True)
class _Condition:
    query: Q
    is_indexed: bool = False  # alone it is read through an index, in the order of the journal


@dataclass(frozen=True, slots=True)
class JournalSearch:
    """A search that was understood: its conditions, and the record numbers it is bound to."""

    conditions: tuple[_Condition, ...] = ()
    low: int = 0
    high: int | None = None
    has_goal: bool = False

    @property
    def query(self) -> Q:
        whole = Q()
        for condition in self.conditions:
            whole &= condition.query
        return whole

    def is_indexed(self, *, sees_all: bool) -> bool:
        """Whether an index finds a page of it without reading much else."""
        if self.has_goal:
            return True
        scanned = [one for one in self.conditions if not one.is_indexed]
        return not scanned and len(self.conditions) + (not sees_all) <= 1


def parse_terms(text: str) -> list[Term]:
    """The terms of a search text. Raises SearchInvalid."""
    if len(text) > TEXT_MAX:
        raise SearchInvalid(f"A search has at most {TEXT_MAX} characters.", start=TEXT_MAX)
    terms = [_term(match) for match in TOKEN.finditer(text)]
    if len(terms) > TERMS_MAX:
        raise terms[TERMS_MAX].invalid(f"at most {TERMS_MAX} terms.")
    return terms


def _term(match: re.Match[str]) -> Term:
    key = (match["key"] or "").lower()
    value = match["value"] if key else match["word"]
    is_negated = bool(match["minus"])
    term = Term(key, value.strip('"'), is_negated, match.start(), match.end())
    if value.startswith('"') and (len(value) == 1 or not value.endswith('"')):
        raise SearchInvalid("The quotation mark is not closed.", start=term.start, end=term.end)
    if not key:
        return term
    if key not in KEYS:
        close = difflib.get_close_matches(key, KEYS, n=2, cutoff=0.6)
        raise SearchInvalid(
            f"{key}: is no qualifier; there are {', '.join(f'{one}:' for one in KEYS)}"
            f" — put quotes round it to search for the word.",
            start=term.start,
            end=term.end,
            meant=[f"{one}:{value}" for one in close],
        )
    if not term.value:
        raise term.invalid(f"say {KEYS[key]}.")
    return term


def understand(text: str) -> JournalSearch:
    """What a search text asks for. Raises SearchInvalid, which names the place."""
    conditions: list[_Condition] = []
    low, high, has_goal = 0, None, False
    for term in parse_terms(text):
        match term.key:
            case "seq" | "created" if not term.is_negated:
                first, end, extra = _bounds(term)
                low = max(low, first)
                high = end if high is None or (end is not None and end < high) else high
                if extra is not None:
                    conditions.append(_Condition(extra, is_indexed=True))
                continue
            case "seq" | "created":
                raise term.invalid("cannot be negated: name the times or numbers you want.")
            case "goal":
                condition = _goal(term)
                has_goal = has_goal or not term.is_negated
            case _:
                condition = _condition(term)
        if term.is_negated:
            condition = _Condition(~condition.query)
        conditions.append(condition)
    return JournalSearch(tuple(conditions), low, high, has_goal)


def search_records(
    visible: QuerySet[JournalRecord],
    search: JournalSearch,
    *,
    journal_size: int,
    sees_all: bool,
    before: int | None = None,
    size: int = PAGE_SIZE,
) -> RecordPage:
    """One page of what a person may see of `journal_size` records, newest first, `before` one.

    Where no index helps, at most JOURNAL_SEARCH_RECORDS (a setting) are looked at, and `older`
    goes on there.
    """
    high = _highest(search, journal_size, before)
    low = search.low
    is_bounded = not search.is_indexed(sees_all=sees_all) and bool(search.conditions)
    if is_bounded:
        low = max(low, high - settings.JOURNAL_SEARCH_RECORDS)
    found = list(
        _between(visible, search, low, high).order_by("-seq").defer("leaf_hash")[: size + 1]
    )
    records = found[:size]
    if len(found) > size:
        return RecordPage(records, records[-1].seq, records[-1].seq, high, is_bounded)
    older = low if low > search.low else None
    return RecordPage(records, older, low, high, is_bounded)


def matching_records(
    visible: QuerySet[JournalRecord],
    search: JournalSearch,
    *,
    journal_size: int,
    before: int | None = None,
) -> QuerySet[JournalRecord]:
    """Everything a search finds among the newest JOURNAL_SEARCH_RECORDS it is bound to."""
    high = _highest(search, journal_size, before)
    low = (
        max(search.low, high - settings.JOURNAL_SEARCH_RECORDS) if search.conditions else search.low
    )
    return _between(visible, search, low, high).order_by("-seq")


def _highest(search: JournalSearch, journal_size: int, before: int | None) -> int:
    """One past the newest record number to look at."""
    return min(one for one in (journal_size, search.high, before) if one is not None)


def _between(
    visible: QuerySet[JournalRecord], search: JournalSearch, low: int, high: int
) -> QuerySet[JournalRecord]:
    return visible.filter(search.query, seq__gte=low, seq__lt=high)


def _bounds(term: Term) -> tuple[int, int | None, Q | None]:
    return _numbers(term) if term.key == "seq" else _times(term)


def _numbers(term: Term) -> tuple[int, int | None, Q | None]:
    first, separator, last = term.value.partition("..")
    try:
        low = _number(first) if first else 0
        high = (_number(last) if last else None) if separator else low
    except ValueError:
        raise term.invalid("a record number from 0, or from..to.") from None
    return low, None if high is None else high + 1, None


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValueError(text)
    return int(text)


def _times(term: Term) -> tuple[int, int | None, Q | None]:
    asked = QueryDict(mutable=True)
    asked["time"] = term.value
    chosen = time_range(asked)
    if chosen.problem:
        raise term.invalid(chosen.problem.removeprefix("time: "))
    low = 0 if chosen.since is None else max(first_since(chosen.since) - NEIGHBOURS, 0)
    high = None if chosen.until is None else first_since(chosen.until) + NEIGHBOURS
    return low, high, chosen.q("at")


def first_since(moment: dt.datetime) -> int:
    """The first record number at or after a moment, found by halving: the journal is in order."""
    head = JournalHead.objects.first()
    low, high = 0, head.size if head else 0
    while low < high:
        middle = (low + high) // 2
        at = JournalRecord.objects.filter(seq=middle).values_list("at", flat=True).first()
        if at is not None and at < moment:
            low = middle + 1
        else:
            high = middle
    return low


def _condition(term: Term) -> _Condition:
    value = term.value
    match term.key:
        case "action":
            return _action(term)
        case "actor":
            return _actor(value)
        case "namespace":
            return _Condition(Q(namespace=value), is_indexed=True)
        case "object":
            kind, separator, object_id = value.partition("/")
            query = Q(object_kind=value) | Q(object_id=value)
            if separator:
                query |= Q(object_kind=kind, object_id=object_id)
            return _Condition(query)
        case "hash":
            if not HASH.fullmatch(value):
                raise term.invalid("up to 64 characters of 0-9 and a-f.")
            return _Condition(Q(hash__startswith=value))
        case _:
            return _Condition(Q(canonical__icontains=value))


def _action(term: Term) -> _Condition:
    known = known_actions()
    start = term.value.removesuffix("*")
    if start in known:
        return _Condition(Q(action=start), is_indexed=True)
    family = [one for one in known if one.startswith(start)]
    if not family:
        close = difflib.get_close_matches(term.value, known, n=3, cutoff=0.5)
        # An empty journal knows no action: then nothing matches, which is no mistake.
        if known and close:
            raise term.invalid(
                f"nothing called {term.value} was ever recorded.",
                meant=[f"action:{one}" for one in close],
            )
        return _Condition(Q(pk__in=[]), is_indexed=True)
    return _Condition(Q(action__in=family), is_indexed=len(family) == 1)


def _actor(value: str) -> _Condition:
    if value in frozenset(kind.value for kind in ActorKind):
        return _Condition(Q(actor_kind=value))
    kind, _, rest = value.partition(":")
    if rest and kind in frozenset(one.value for one in ActorKind):
        return _Condition(Q(actor_kind=kind, actor_id=rest), is_indexed=True)
    if JournalRecord.objects.filter(actor_id=value).exists():
        return _Condition(Q(actor_id=value), is_indexed=True)
    return _Condition(Q(actor_id__icontains=value))


def _goal(term: Term) -> _Condition:
    """By uid, or by the name that the record of a Goal's birth carries in its body."""
    try:
        return _Condition(Q(goal_uid=UUID(term.value)), is_indexed=True)
    except ValueError:
        pass
    namespace, _, name = term.value.rpartition("/")
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    named = JournalRecord.objects.filter(
        action="goal.created", canonical__contains=f'"name":"{quoted}"'
    )
    if namespace:
        named = named.filter(namespace=namespace)
    uids = list(named.order_by("-seq").values_list("goal_uid", flat=True)[:GOALS_MAX])
    return _Condition(Q(goal_uid__in=[uid for uid in uids if uid is not None]), is_indexed=True)


def known_actions() -> list[str]:
    """Every action ever recorded, in order, by skipping through the index from one to the next."""
    found: list[str] = []
    while len(found) < ACTIONS_MAX:
        after = found[-1] if found else ""
        rows = JournalRecord.objects.filter(action__gt=after).order_by("action")
        following = rows.values_list("action", flat=True).first()
        if following is None:
            break
        found.append(following)
    return found


def suggestions(visible: QuerySet[JournalRecord], text: str) -> list[str]:
    """Ways to go on with a search, each a whole text; "" for the last term gets the qualifiers."""
    head, _, last = text[:TEXT_MAX].rpartition(" ")
    key, separator, value = last.partition(":")
    start = f"{head} " if head else ""
    options = (
        [f"{one}:" for one in KEYS if one.startswith(last)]
        if not separator
        else [
            f'{key}:"{one}"' if " " in one else f"{key}:{one}"
            for one in _values(visible, key.lstrip("-"))
            if value.lower() in one.lower()
        ]
    )
    return [f"{start}{one}" for one in options[:SUGGESTED_MAX]]


def _values(visible: QuerySet[JournalRecord], key: str) -> Iterator[str]:
    """What a qualifier may be given, from what the person may see of the newest records."""
    if key == "action":
        yield from known_actions()
        return
    if key == "created":
        yield from PRESETS
        return
    column = {"actor": "actor_id", "namespace": "namespace", "object": "object_kind"}.get(key)
    if column is None:
        return
    if key == "actor":
        yield from (kind.value for kind in ActorKind)
    recent = visible.order_by("-seq").values_list(column, flat=True)[:RECENT]
    yield from sorted({one for one in recent if one})
