"""The webhooks as an ASGI application: reviews in, answers out, never an exception."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from agents.admission.judging import Answer, judge_workload
from agents.admission.metrics import Metrics
from agents.admission.persons import TooManyPersons, asked_digest, stamp
from agents.admission.review import NoReview, Object, Review, patched, read_review, refused, unheard
from agents.admission.snapshot import Policies
from agents.admission.spool import Spool, line_of
from agents.admission.workloads import agent_patch
from governance.policy.base import Outcome, PolicyEngine

logger = logging.getLogger(__name__)

MUTATE_WORKLOADS: Final = "/mutate/workloads"
MUTATE_GOALS: Final = "/mutate/goals"
VALIDATE_WORKLOADS: Final = "/validate/workloads"
# The API server waits 2 s and then refuses without a word of ours; this is said before that.
ANSWER_SECONDS: Final = 1.7
# Reviews that may wait at once: more would be answered after their time.
WAITING_MAX: Final = 256
# An object has at most 1.5 MiB in etcd; a review holds two, and JSON is longer than protobuf.
BODY_BYTES: Final = 8 << 20
TOO_SLOW: Final = f"Admission has not decided within {ANSWER_SECONDS:g} s: try again."
TOO_MANY: Final = f"{WAITING_MAX} reviews are waiting already: try again in a moment."
NOT_KEPT: Final = "The decision cannot be kept ({}), and none is made that is not: try again later."

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Turn:
    """Decides once whether a review was judged in time: only then is its decision kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_taken = False

    def take(self) -> bool:
        """Whether this is the first to take it."""
        with self._lock:
            first, self._is_taken = not self._is_taken, True
            return first


@dataclass
class AdmissionApp:
    """Answers reviews by the newest snapshot, and keeps what it decides in the spool.

    `own_users` are the names under which Clearance itself asks the API server. `why_not_ready`
    says what else is missing before reviews can be answered, "" when nothing is;
    `wrong_with_goal` what is wrong with the manifest of a Goal, field by field.
    """

    policies: Policies
    engine: PolicyEngine
    spool: Spool
    own_users: Callable[[], frozenset[str]]
    threads: int = 8
    metrics: Metrics = field(default_factory=Metrics)
    why_not_ready: Callable[[], str] = lambda: ""
    wrong_with_goal: Callable[[Object], str] = lambda _: ""
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        """Threads that wait for the sandbox and the disk; they start when they are needed."""
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="review")
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        method, path = scope["method"], scope["path"]
        if method in ("GET", "HEAD"):
            status, text = self._page(path)
            await reply(send, status, text.encode(), "text/plain; charset=utf-8")
            return
        answerers = {
            MUTATE_WORKLOADS: self._mutate_workload,
            MUTATE_GOALS: self._mutate_goal,
            VALIDATE_WORKLOADS: self._validate_workload,
        }
        if method != "POST" or path not in answerers:
            await reply(send, 404, b"There is no such webhook.\n", "text/plain")
            return
        began = self.clock()
        try:
            review = read_review(await _body(receive))
        except NoReview as error:
            await reply(send, 400, f"{error}\n".encode(), "text/plain; charset=utf-8")
            return
        answer = await self._answered(answerers[path], review)
        body = json.dumps(answer.response).encode()
        self.metrics.answered(path, answer.outcome.value, self.clock() - began)
        await reply(send, 200, body, "application/json")

    async def _answered(
        self, answerer: Callable[[Review], Awaitable[Answer]], review: Review
    ) -> Answer:
        try:
            return await answerer(review)
        except Exception:  # whatever it is: undecidable denies (I8)
            logger.exception("review %s cannot be answered", review.uid)
            return self._unheard(review, "Admission failed on this review; its log says how.")

    def _unheard(self, review: Review, why: str) -> Answer:
        self.metrics.undecided += 1
        return Answer(unheard(review, why), outcome=Outcome.DENY)

    # --- Webhooks --------------------------------------------------------------------------------

    async def _mutate_workload(self, review: Review) -> Answer:
        return Answer(patched(review, agent_patch(review)))

    async def _mutate_goal(self, review: Review) -> Answer:
        is_asked = not review.is_update or asked_digest(review.found) != asked_digest(review.before)
        if is_asked and (wrong := self.wrong_with_goal(review.found)):
            return Answer(refused(review, wrong), outcome=Outcome.DENY)
        try:
            return Answer(patched(review, stamp(review, own_users=self.own_users())))
        except TooManyPersons as error:
            return Answer(refused(review, str(error)), outcome=Outcome.DENY)

    async def _validate_workload(self, review: Review) -> Answer:
        if self._waiting >= WAITING_MAX:
            return self._unheard(review, TOO_MANY)
        self._waiting += 1
        turn = Turn()
        work = asyncio.get_running_loop().run_in_executor(self._pool, self._judge, review, turn)
        try:
            return await asyncio.wait_for(asyncio.shield(work), ANSWER_SECONDS)
        except TimeoutError:
            if not turn.take():  # its decision is being kept: that takes no more than the disk
                return await work
            return self._unheard(review, TOO_SLOW)
        finally:
            self._waiting -= 1

    def _judge(self, review: Review, turn: Turn) -> Answer:
        """In a thread: judge, keep what was decided, and only then answer."""
        answer = judge_workload(
            review,
            snapshot=self.policies.snapshot,
            engine=self.engine,
            own_users=self.own_users(),
        )
        if not turn.take() or review.is_dry_run or not answer.decisions:
            return answer
        try:
            self.spool.keep(line_of(answer.decisions))
        except OSError as error:
            logger.error("a decision cannot be kept: %s", error)
            return self._unheard(review, NOT_KEPT.format(error))
        return answer

    # --- Health ----------------------------------------------------------------------------------

    def _page(self, path: str) -> tuple[int, str]:
        match path:
            case "/healthz":
                return 200, f"ok\n{self._age()}\n"
            case "/readyz":
                why = self.not_ready()
                return (503, f"{why}\n") if why else (200, f"ok\n{self._age()}\n")
            case "/metrics":
                return 200, self.metrics.text(self._gauges())
        return 404, "There are /healthz, /readyz and /metrics.\n"

    def not_ready(self) -> str:
        """What is missing before reviews can be answered, "" when nothing is."""
        if self.policies.snapshot is None:
            return "No policy has been read yet."
        return self.why_not_ready()

    def _age(self) -> str:
        age = self.policies.age_seconds
        return "no policy has been read" if age is None else f"policies were read {age:.1f} s ago"

    def _gauges(self) -> list[tuple[str, str, float]]:
        age = self.policies.age_seconds
        return [
            (
                "clearance_admission_snapshot_age_seconds",
                "Since policies, recalls and GPUs were last read from the database.",
                float("nan") if age is None else age,
            ),
            (
                "clearance_admission_spool_bytes",
                "Decisions that wait for the database.",
                self.spool.backlog_bytes,
            ),
            ("clearance_admission_waiting", "Reviews being judged.", self._waiting),
        ]

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


async def _body(receive: Receive) -> bytes:
    """The body of a request. Raises NoReview when it is too long, or ended half-way."""
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise NoReview("The request ended half-way.")
        body += message.get("body", b"")
        if len(body) > BODY_BYTES:
            raise NoReview(f"The review has more than {BODY_BYTES} bytes.")
        if not message.get("more_body"):
            return body


async def reply(send: Send, status: int, body: bytes, content_type: str) -> None:
    """A whole answer."""
    headers = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
