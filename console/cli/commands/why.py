"""`clearance why`: the chain of facts behind a span or a Goal, as a tree."""

from collections.abc import Mapping
from typing import Any

import click

from console.cli.exits import rule_line
from console.cli.invocation import (
    Invocation,
    connection_options,
    output_option,
    pass_invocation,
)
from console.cli.printing import Branch, is_document, print_document, print_tree
from console.cli.quantities import UNKNOWN, amount, gpu_time

SPAN_ID_LENGTH = 16
Fact = Mapping[str, Any]


@click.command()
@click.argument("words", metavar="SPAN | goal NAME", nargs=-1, required=True)
@output_option("table", "json", "yaml")
@connection_options
@pass_invocation
def why(invocation: Invocation, *, words: tuple[str, ...], form: str) -> None:
    """Show why: from what was measured down to who signed what, each fact under its consequence."""
    reference = _reference(invocation, words)
    found = invocation.client.get(f"/why/{reference}")
    if is_document(form):
        print_document(found, form=form)
    else:
        print_tree(span_tree(found) if found["kind"] == "span" else goal_tree(found))


def _reference(invocation: Invocation, words: tuple[str, ...]) -> str:
    if len(words) == 2 and words[0] in ("goal", "goals", "span"):
        return words[1] if words[0] == "span" else invocation.goal_reference(words[1])
    if len(words) != 1:
        raise click.UsageError("write: why SPAN_ID, or why goal NAME")
    name = words[0].removeprefix("span/")
    is_span = len(name) == SPAN_ID_LENGTH and set(name) <= set("0123456789abcdef")
    return name if is_span else invocation.goal_reference(name)


class _Facts:
    """The facts of one answer by their uid or digest, and which were told already."""

    def __init__(self, found: Fact) -> None:
        one = found.get("attempt")
        self.attempts = {a["uid"]: a for a in found.get("attempts", [one] if one else [])}
        self.decisions = {d["uid"]: d for d in found.get("decisions", [])}
        self.approvals = {a["uid"]: a for a in found.get("approvals", [])}
        self.artifacts = {a["digest"]: a for a in found.get("artifacts", [])}
        self.told: set[str] = set()

    def add_release(self, above: Branch, release: Fact) -> None:
        branch = above.add(
            f"release {release['target']} serves {release['digest']} ({release['state']})"
        )
        if release["reason"]:
            branch.add(f"reason: {release['reason']}")
        if release["previous_digest"]:
            branch.add(f"before: {release['previous_digest']}")
        self.add_decision(branch, release["decision"])
        self.add_approval(branch, release["approval"])
        self.add_attempt(branch, release["attempt"], word="released by")
        self.add_artifact(branch, release["digest"])
        for digest in release["evidence"]:
            self.add_artifact(branch, digest, word="evidence")

    def add_decision(self, above: Branch, uid: str) -> None:
        if not uid:
            return
        decision = self.decisions.get(uid)
        if decision is None:
            above.add(f"decision {uid}")
            return
        self.told.add(uid)
        branch = above.add(
            f"decision {decision['outcome']} at {decision['point']} on {decision['subject']}"
        )
        branch.add(f"bundle {decision['bundle_digest'] or UNKNOWN}")
        branch.add(f"input {decision['input_digest']}")
        for message in decision["messages"]:
            branch.add(rule_line(message))

    def add_approval(self, above: Branch, uid: str) -> None:
        if not uid:
            return
        approval = self.approvals.get(uid)
        if approval is None:
            above.add(f"approval {uid}")
            return
        self.told.add(uid)
        by = f" by {approval['decided_by']}" if approval["decided_by"] else ""
        branch = above.add(f"approval of {approval['kind']} {approval['state']}{by}")
        if approval["reason"]:
            branch.add(f"reason: {approval['reason']}")
        branch.add(f"request {approval['request_digest']}")
        if approval["answer"]:
            branch.add("answer: " + ", ".join(f"{k} {v}" for k, v in approval["answer"].items()))

    def add_attempt(self, above: Branch, uid: str, *, word: str = "attempt") -> None:
        if not uid:
            return
        attempt = self.attempts.get(uid)
        if attempt is None:
            above.add(f"{word} attempt {uid}" if word != "attempt" else f"attempt {uid}")
            return
        text = f"{attempt['agent']}, task {attempt['task']}, try {attempt['number']}"
        branch = above.add(f"{word} {text}: {attempt['state']}, {gpu_time(attempt['gpu_ms'])}")
        if uid in self.told:
            return
        self.told.add(uid)
        branch.add(f"attempt {uid}")
        identity = branch.add(f"SVID {attempt['spiffe_id']}")
        for svid in attempt["svids"]:
            identity.add(f"{svid['kind']} {svid['serial']} until {svid['expires_at']}")
        if attempt["revoked"]:
            identity.add(f"revoked: {attempt['revoked']}")

    def add_artifact(self, above: Branch, digest: str, *, word: str = "artifact") -> None:
        artifact = self.artifacts.get(digest)
        if artifact is None:
            above.add(f"{word} {digest} (not made by this Goal)")
            return
        is_new = digest not in self.told
        self.told.add(digest)
        recalled = ", RECALLED" if artifact["recalled"] else ""
        branch = above.add(f"{word} {artifact['kind']} {artifact['name']}: {digest}{recalled}")
        if not is_new:
            return
        branch.add(f"bytes {artifact['blob_digest']}")
        self.add_attempt(branch, artifact["attempt"], word="made by")
        branch.add(f"signed by {artifact['signer']}" if artifact["signed"] else "not signed")


def goal_tree(found: Fact) -> Branch:
    """The chain behind a Goal; what hangs on no release follows after."""
    goal, facts = found["goal"], _Facts(found)
    root = Branch(f"goal {goal['namespace']}/{goal['name']}: {goal['phase']}")
    root.add(f"objective: {goal['objective']}")
    if goal["message"]:
        root.add(f"because: {goal['message']}")
    measurement = found["measurement"]
    if measurement is None:
        measured = root.add(f"measured: {UNKNOWN}")
    else:
        measured = root.add(
            f"measured {measurement['value']:g} {measurement['unit']} at {measurement['at']}, "
            f"span {measurement['span_id']}"
        )
    _add_causes(measured, found["causes"])
    for release in found["releases"]:
        facts.add_release(root, release)
    for uid in facts.decisions:
        if uid not in facts.told:
            facts.add_decision(root, uid)
    for uid in facts.approvals:
        if uid not in facts.told:
            facts.add_approval(root, uid)
    for digest in facts.artifacts:
        if digest not in facts.told:
            facts.add_artifact(root, digest)
    for uid in facts.attempts:
        if uid not in facts.told:
            facts.add_attempt(root, uid)
    return root


def span_tree(found: Fact) -> Branch:
    """The chain behind a span: causes, whose it is, what it cost and what followed."""
    span, facts = found["span"], _Facts(found)
    root = Branch(_span_text(span))
    if found["goal"]:
        goal = found["goal"]
        root.add(f"goal {goal['namespace']}/{goal['name']}: {goal['phase']}, {goal['objective']}")
    _add_causes(root, [c for c in found["causes"] if c["span_id"] != span["span_id"]])
    if found["attempt"]:
        facts.add_attempt(root, found["attempt"]["uid"], word="done by")
    for release in found["releases"]:
        facts.add_release(root, release)
    for digest in facts.artifacts:
        if digest not in facts.told:
            facts.add_artifact(root, digest)
    for uid in facts.decisions:
        if uid not in facts.told:
            facts.add_decision(root, uid)
    for entry in found["ledger"]:
        root.add(f"ledger {entry['kind']} {amount(entry['unit'], entry['amount'])}")
    if found["effects"]:
        effects = root.add(f"effects: {len(found['effects'])}")
        for effect in found["effects"]:
            effects.add(_span_text(effect))
    return root


def _add_causes(above: Branch, causes: list[Fact] | None) -> None:
    if causes is None:
        above.add(f"causes: {UNKNOWN}, the telemetry store does not answer")
        return
    for cause in causes:
        above = above.add(f"because of {_span_text(cause)}")


def _span_text(span: Fact) -> str:
    confidence = span["confidence"]
    said = f", confidence {confidence:g}" if confidence is not None else ""
    value = span["attributes"].get("observation.value")
    metric = span["attributes"].get("observation.metric", "")
    unit = span["attributes"].get("observation.unit", "")
    observed = f" ({metric} {value} {unit})" if value is not None else ""
    return (
        f"{span['kind']} {span['name']}{observed} by {span['agent']} at {span['at']}{said}, "
        f"span {span['span_id']}"
    )
