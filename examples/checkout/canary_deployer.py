"""Canary deployer: old and new side by side on live traffic, then release or roll back."""

import threading
from typing import Any

import clearance_sdk as clearance
from checkout_risk.agent import (
    SELECTOR,
    SERVICE,
    AgentFailure,
    checkout_url,
    load_seconds,
    measure_production,
    record_latency,
    run_agent,
    say,
    wait_for_service,
)
from checkout_risk.comparison import Arm, Comparison, Pairs, Verdict, compare
from checkout_risk.load import Client, Load, Sample, drive
from checkout_risk.orders import Orders, load_split

# The comparison is judged after each round of live traffic, three quarters of a measurement long.
ROUND_SHARE = 0.75
ROUNDS_MAX = 4  # undecided by then means the old model stays
# Not "/checkout", or the objective would be judged by the canary's latency.
CANARY = "/checkout#canary"
# The bounds behind a verdict of "worse" are one-sided 95 %.
ROLL_BACK_CONFIDENCE = 0.95
# A canary that cannot be told from the old model is no reason to act, nor to be sure of anything.
UNDECIDED_CONFIDENCE = 0.5


class SideBySide:
    """Both models on the same labelled orders.

    Each order goes where the service's own split sends it, then to the other model as well, so
    that both arms see the same orders at the same time.
    """

    def __init__(self, url: str, orders: Orders, *, old: str, new: str) -> None:
        self._url = url
        self._orders = orders
        self.arms = {old: Arm(old), new: Arm(new)}
        self.old, self.new = self.arms[old], self.arms[new]
        self.pairs = Pairs()

    def run_round(self, number: int, *, stop: threading.Event) -> Comparison:
        """Drive one round and judge everything seen so far."""
        load = Load(load_seconds() * ROUND_SHARE)
        found = drive(
            self._url, self._orders, load=load, name=f"ab-{number}", visit=self._visit, stop=stop
        )
        for first, second in zip(found[::2], found[1::2], strict=True):
            self._count(first, second)
        return compare(self.old, self.new, self.pairs)

    def _visit(self, client: Client, index: int, request_id: str) -> list[Sample]:
        first = client.checkout(self._orders, index, request_id=request_id)
        pin = "never" if first.digest == self.new.digest else "always"
        return [first, client.checkout(self._orders, index, request_id=request_id, pin=pin)]

    def _count(self, first: Sample, second: Sample) -> None:
        for sample in (first, second):
            pinned = {"always": self.new, "never": self.old}.get(sample.pin)
            arm = self.arms.get(sample.digest, pinned)
            if arm is not None:  # a failed order of the split traffic belongs to neither
                arm.add(sample)
        right = {first.digest: first.is_right, second.digest: second.is_right}
        was, now = right.get(self.old.digest), right.get(self.new.digest)
        if was is not None and now is not None:
            self.pairs.add(old_is_right=was, new_is_right=now)


def work(run: Any, stop: threading.Event) -> None:
    """Try the candidate, decide, then measure production again."""
    url, live = checkout_url(), load_split().live
    candidate = run.inputs["candidate-model"]
    released = run.current_release(environment="production", service=SERVICE)
    if released is None or not candidate.digest:
        raise AgentFailure("there is no production release, or no candidate, to compare")
    old, new = released.digest, candidate.digest
    serving, verdict, seen = old, "unchanged", candidate.span_id or None
    if new == old:
        say("the candidate is in production already")
    else:
        comparison, seen = _try_candidate(run, url, live, old, candidate, stop)
        verdict = comparison.verdict.value
        serving = new if comparison.verdict is Verdict.BETTER else old
    wait_for_service(
        url, until=lambda s: s.get("production") == serving, what=f"serve {serving}", stop=stop
    )
    with run.action("measure_production", because=seen, confidence=1.0) as act:
        profile = measure_production(url, live, name="after", stop=stop)
        act.set_attribute("model.digest", profile.digest)
        measured = record_latency(run, profile, because=act)
    say(f"production now: p99 {profile.at(99):.0f} ms of {len(profile.latencies_ms)} orders")
    value = {"verdict": verdict, **profile.as_json()}
    run.produce("rollout", value=value, digest=serving, because=measured)


def _try_candidate(
    run: Any, url: str, live: Orders, old: str, candidate: Any, stop: threading.Event
) -> tuple[Comparison, Any]:
    """Compare and act on it; gives the comparison and the last thing it led to, to follow from."""
    new = candidate.digest
    started = _start_canary(run, url, candidate, old, stop)
    say("canary is live; comparing both models on the same orders")
    agreement = float(candidate.value["agreement"])
    with run.action("compare_models", because=started, confidence=agreement) as act:
        comparison = _compare(SideBySide(url, live, old=old, new=new), stop)
        act.set_attribute("comparison.verdict", comparison.verdict.value)
        predicate = {"service": SERVICE, "selector": SELECTOR, **comparison.as_json()}
        seen = _record_comparison(run, comparison, act)
        proof = run.push_evidence("ab-test", about=[new, old], predicate=predicate, because=act)
    say(f"{comparison.verdict.value}: {comparison.reason}")
    if comparison.verdict is Verdict.BETTER:
        last = _promote(run, seen, comparison, old=old, new=new, proof=proof.digest)
    else:
        last = _roll_back(run, seen, comparison, old=old, new=new, why=comparison.reason)
    return comparison, last


def _start_canary(run: Any, url: str, candidate: Any, old: str, stop: threading.Event) -> Any:
    """Release to `canary` and wait until it is served; gives the observation that it is."""
    new = candidate.digest
    current = run.current_release(environment="canary", service=SERVICE)
    confidence = float(candidate.value["agreement"])
    with run.action(
        "start_canary", because=candidate.span_id or None, confidence=confidence
    ) as act:
        # An earlier attempt of this task may have come this far; then there is nothing to change.
        if current is None or current.digest != new:
            run.release(
                environment="canary",
                service=SERVICE,
                digest=new,
                evidence=[],
                reason="Try the candidate on a share of live traffic.",
                because=act,
            )
            before = current.digest if current else old
            act.changed(f"{SERVICE}/canary", before=before, after=new)
        wait_for_service(
            url, until=lambda s: s.get("canary") == new, what="serve the canary", stop=stop
        )
        return run.observe(
            "availability",
            aggregate="last",
            value=100.0,
            unit="%",
            selector=CANARY,
            samples=1,
            because=act,
        )


def _compare(trial: SideBySide, stop: threading.Event) -> Comparison:
    number = 1
    while True:
        comparison = trial.run_round(number, stop=stop)
        is_decided = comparison.verdict is not Verdict.TOO_FEW
        if is_decided or stop.is_set() or number == ROUNDS_MAX:
            return comparison
        say(f"round {number}: {comparison.reason}")
        number += 1


def _record_comparison(run: Any, comparison: Comparison, act: Any) -> Any:
    """Record what both arms did; gives the observation that the decision rests on."""
    if comparison.accuracy_loss_percent is not None:
        run.observe(
            "accuracy_loss",
            aggregate="mean",
            value=comparison.accuracy_loss_percent,
            unit="%",
            selector=CANARY,
            samples=comparison.pairs,
            because=act,
        )
    figures = comparison.new
    if not figures["samples"]:
        return run.observe(
            "scored", aggregate="count", value=0.0, unit="1", selector=CANARY, because=act
        )
    return run.observe(
        "latency",
        aggregate="p99",
        value=figures["p99_ms"],
        unit="ms",
        selector=CANARY,
        samples=figures["samples"],
        because=act,
    )


def _promote(run: Any, seen: Any, comparison: Comparison, *, old: str, new: str, proof: str) -> Any:
    """Release to production, or end the canary and raise `Denied` when policy refuses."""
    confidence = 1.0 - (comparison.p_value or 0.0)
    try:
        with run.action("release_model", because=seen, confidence=confidence) as act:
            run.release(
                environment="production",
                service=SERVICE,
                digest=new,
                evidence=[proof],
                reason=comparison.reason,
                because=act,
            )
            act.changed(f"{SERVICE}/production", before=old, after=new)
    except clearance.Denied as denied:
        _roll_back(run, seen, comparison, old=old, new=new, why=f"The release was denied: {denied}")
        raise
    say(f"released {new} to production; the canary is over")
    return act


def _roll_back(run: Any, seen: Any, comparison: Comparison, *, old: str, new: str, why: str) -> Any:
    is_sure = comparison.verdict is not Verdict.TOO_FEW
    confidence = ROLL_BACK_CONFIDENCE if is_sure else UNDECIDED_CONFIDENCE
    with run.action("roll_back_canary", because=seen, confidence=confidence) as act:
        run.release(
            environment="canary",
            service=SERVICE,
            digest=old,
            evidence=[],
            reason=why,
            because=act,
        )
        act.changed(f"{SERVICE}/canary", before=new, after=old)
    say(f"rolled the canary back to {old}")
    return act


if __name__ == "__main__":
    run_agent(work)
