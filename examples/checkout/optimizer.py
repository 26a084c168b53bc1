"""Optimizer: distils the served model into a smaller one and says what accuracy that costs."""

import threading
import time
from typing import Any

from checkout_risk.agent import AgentFailure, limit_ms, run_agent, say, scratch_directory
from checkout_risk.model import REVIEW_FROM, RiskModel, accuracy_of, load_model
from checkout_risk.orders import Orders, load_split
from checkout_risk.training import TEACHER_COPIES, distil, student_width

TIMED_ORDERS = 20


def mean_score_ms(model: RiskModel, orders: Orders) -> float:
    """Milliseconds one order takes on this machine, mean of `TIMED_ORDERS`."""
    model.risks(orders.cards[:1])  # the first call also pays for loading
    started = time.perf_counter()
    for index in range(TIMED_ORDERS):
        model.risks(orders.cards[index : index + 1])
    return (time.perf_counter() - started) / TIMED_ORDERS * 1e3


def work(run: Any, stop: threading.Event) -> None:
    """Act on the profile and hand the smaller model on as `candidate-model`."""
    profile = run.inputs["latency-profile"]
    limit = limit_ms(run.objective)
    p99 = float(profile.value["p99_ms"])
    if not profile.digest:
        raise AgentFailure("the latency profile does not say which model was served")
    if p99 < limit:
        say(f"p99 is {p99:.0f} ms, under {limit:.0f} ms: the served model stays")
        run.produce(
            "candidate-model",
            value={"is_new": False, "agreement": 1.0},
            digest=profile.digest,
            because=profile.span_id or None,
        )
        return
    sure = float(profile.value["chance_too_slow"])
    orders = load_split().validation
    with run.action("fetch_model", because=profile.span_id or None, confidence=sure) as act:
        served_file = scratch_directory() / "served.npz"
        run.fetch_artifact(profile.digest, served_file)
        teacher = load_model(served_file)
        act.set_attribute("model.digest", profile.digest)
        act.set_attribute("model.parameters", teacher.parameters)
        teacher_ms = mean_score_ms(teacher, orders)
        slow = run.observe(
            "score_time",
            aggregate="mean",
            value=teacher_ms,
            unit="ms",
            selector="checkout-risk",
            samples=TIMED_ORDERS,
            because=act,
        )
    say(f"served model: {teacher.parameters:,} parameters, {teacher_ms:.1f} ms an order")
    _distil(run, profile.digest, teacher, teacher_ms, slow, sure)


def _distil(
    run: Any, served: str, teacher: RiskModel, teacher_ms: float, slow: Any, sure: float
) -> None:
    split = load_split()
    orders = split.validation
    with run.action("distil_model", because=slow, confidence=sure) as act:
        student = distil(teacher, split.train, width=student_width(teacher))
        act.set_attribute("model.parameters", student.parameters)
        was = accuracy_of(teacher, orders, copies=TEACHER_COPIES).percent
        now = accuracy_of(student, orders).percent
        said_was = teacher.risks(orders.cards, copies=TEACHER_COPIES) >= REVIEW_FROM
        said_now = student.risks(orders.cards) >= REVIEW_FROM
        agreement = float((said_was == said_now).mean())
        student_ms = mean_score_ms(student, orders)
        judged = run.observe(
            "accuracy",
            aggregate="last",
            value=now,
            unit="%",
            selector="checkout-risk",
            samples=len(orders),
            because=act,
        )
    say(f"smaller model: {student.parameters:,} parameters, {student_ms:.2f} ms an order")
    say(f"accuracy {now:.2f} % (served model {was:.2f} %), agrees on {agreement:.1%} of orders")
    with run.action("push_model", because=judged, confidence=agreement) as act:
        path = student.save(scratch_directory() / "checkout-risk-distilled.npz")
        model = run.push_artifact(path, kind="model", name="checkout-risk", because=act)
        act.set_attribute("model.digest", model.digest)
        say(f"pushed {model.digest} ({model.size:,} bytes)")
    run.produce(
        "candidate-model",
        value={
            "is_new": True,
            "distilled_from": served,
            "agreement": agreement,
            "accuracy_percent": now,
            "accuracy_cost_points": was - now,
            "score_ms": student_ms,
            "served_score_ms": teacher_ms,
        },
        digest=model.digest,
        because=act,
    )


if __name__ == "__main__":
    run_agent(work)
