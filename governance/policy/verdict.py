"""From what clauses said to a verdict; the same for every engine."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from governance.policy.base import Outcome, PolicyMessage, Verdict

SEVERITY = {outcome: rank for rank, outcome in enumerate(Outcome)}
MAX_TEXT_CHARACTERS = 2000
MAX_QUORUM = 9  # people that one approval may need
MAX_MESSAGES = 10_000  # one for each task of the largest graph


def denied(error: str, text: str, *, engine: str = "", seconds: float = 0.0) -> Verdict:
    """A denial for want of an answer: `error` is base.Verdict's word, `text` the sentence."""
    message = PolicyMessage(Outcome.DENY, text[:MAX_TEXT_CHARACTERS])
    return Verdict(Outcome.DENY, (message,), error, seconds, engine)


def texts_of(value: object, *, rule: str) -> list[str]:
    """The messages in a rule's value: set or list, object, string, or just true."""
    if isinstance(value, list):
        return [_text_of(element) for element in value]
    if isinstance(value, Mapping):
        if "msg" in value:
            return [_text_of(value)]
        return [str(key) for key, said in value.items() if said is not False]
    if value is True:
        return [f"{rule} is true"]
    return [] if value is None or value is False else [_text_of(value)]


def quorum_in(value: object) -> int:
    """The most people that a rule's messages ask for: `{"msg": "...", "quorum": 2}`, else 1."""
    said = value if isinstance(value, list) else [value]
    asked = [one.get("quorum") for one in said if isinstance(one, Mapping)]
    counts = [one for one in asked if isinstance(one, int) and not isinstance(one, bool)]
    return min(max([1, *counts]), MAX_QUORUM)


def compose_verdict(
    clauses: Sequence[Mapping[str, Any]],
    *,
    hits: Sequence[tuple[int, object]],
    faults: Sequence[tuple[int, str]] = (),
    engine: str = "",
    seconds: float = 0.0,
) -> Verdict:
    """The worst of all messages; a clause that could not be evaluated denies (`invalid`).

    `hits` are (clause index, value) pairs, `faults` (clause index, sentence) pairs. The same
    message of the same clause counts once.
    """
    messages: dict[PolicyMessage, None] = {}
    for index, sentence in faults:
        clause = clauses[index]
        text = f"{clause['rule']} could not be evaluated: {sentence}"
        messages[_message(clause, Outcome.DENY, text)] = None
    for index, value in hits:
        clause = clauses[index]
        for text in texts_of(value, rule=clause["rule"]):
            said = _message(clause, Outcome(clause["outcome"]), text)
            messages[replace(said, quorum=quorum_in(value))] = None
    ordered = sorted(
        messages,
        key=lambda said: (-SEVERITY[said.outcome], said.path, said.line, said.text),
    )
    outcome = ordered[0].outcome if ordered else Outcome.ALLOW
    if len(ordered) > MAX_MESSAGES:
        left_out = PolicyMessage(outcome, f"{len(ordered) - MAX_MESSAGES} more messages left out")
        ordered = [*ordered[:MAX_MESSAGES], left_out]
    return Verdict(outcome, tuple(ordered), "invalid" if faults else "", seconds, engine)


def _message(clause: Mapping[str, Any], outcome: Outcome, text: str) -> PolicyMessage:
    return PolicyMessage(
        outcome, text[:MAX_TEXT_CHARACTERS], clause["rule"], clause["path"], clause["line"]
    )


def _text_of(element: object) -> str:
    if isinstance(element, str):
        return element
    if isinstance(element, Mapping) and isinstance(element.get("msg"), str):
        return str(element["msg"])
    return json.dumps(element, sort_keys=True, ensure_ascii=False)
