"""The checkout service as a real process against a console that is there, lies, or goes away."""

import hashlib
import http.client
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from examples.checkout.checkout_risk.model import RiskModel
from examples.checkout.checkout_risk.orders import load_split
from tests.examples.conftest import Program, Start
from tests.examples.console_stand_in import ConsoleStandIn

LIVE = load_split().live
Answer = tuple[int, dict[str, str], dict[str, Any]]


class Shop:
    """A running service and the requests one makes of it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.host = program.wait_for("listening on").rpartition("//")[2]

    def ask(self, method: str, path: str, body: bytes | str = b"", **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.host, timeout=20)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        content = json.loads(answer.read())
        connection.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, content

    def order(self, index: int = 0, **headers: str) -> Answer:
        return self.ask("POST", "/checkout", json.dumps(LIVE.as_request(index)), **headers)

    def until(self, wanted: Callable[[dict[str, Any]], bool], *, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not wanted(state := self.ask("GET", "/healthz")[2]):
            assert time.monotonic() < deadline, state
            time.sleep(0.1)


@pytest.fixture
def open_shop(start: Start, console: ConsoleStandIn, tmp_path: Path) -> Callable[[], Shop]:
    """Start the service against the console, with a cache that outlives it."""

    def begin() -> Shop:
        token_file = tmp_path / "token"
        token_file.write_text("s3cret\n")
        environment = {
            "CLEARANCE_API_URL": console.url,
            "CLEARANCE_TOKEN_FILE": str(token_file),
            "CHECKOUT_PORT": "0",
            "CHECKOUT_CACHE": str(tmp_path / "cache"),
        }
        return Shop(start("service.py", **environment))

    return begin


OpenShop = Callable[[], Shop]


def test_it_waits_for_a_release_then_scores_with_exactly_that_model(
    open_shop: OpenShop, console: ConsoleStandIn, small: RiskModel, small_file: Path
) -> None:
    console.token = "s3cret"  # the service reads it from its file
    shop = open_shop()
    status, _, problem = shop.order()
    assert (status, problem["detail"][:22]) == (503, "No model is released t")
    assert shop.ask("GET", "/healthz")[2]["status"] == "waiting"

    digest = console.push(small_file.read_bytes())
    console.release("production", digest)
    shop.until(lambda s: s["production"] == digest)
    status, headers, scored = shop.order(5)
    assert status == 200
    assert headers["x-model-digest"] == scored["model_digest"] == digest
    assert scored["risk"] == pytest.approx(float(small.risks(LIVE.cards[5:6])[0]), abs=1e-5)
    assert scored["order_id"] == "order-5"
    assert shop.ask("GET", "/metrics")[2]["models"][digest]["requests"] == 1
    assert "s3cret" not in "\n".join(shop.program.lines)


def test_a_share_goes_to_the_canary_and_a_pin_overrides_it(
    open_shop: OpenShop, console: ConsoleStandIn, small_file: Path, small: RiskModel, tmp_path: Path
) -> None:
    old = console.push(small_file.read_bytes())
    other = RiskModel(small.networks, small.centre, small.spread * 1.01, small.jitter)
    new = console.push(other.save(tmp_path / "other.npz").read_bytes())
    console.release("production", old)
    console.release("canary", new)
    shop = open_shop()
    shop.until(lambda s: s["canary"] == new and s["production"] == old)
    seen = [shop.order(1, X_Request_Id=f"r-{n}")[2]["model_digest"] for n in range(200)]
    assert 30 <= seen.count(new) <= 90  # 30 %, four standard deviations each way
    again = [shop.order(1, X_Request_Id=f"r-{n}")[2]["model_digest"] for n in range(20)]
    assert again == seen[:20]
    assert {shop.order(1, X_Canary="always")[2]["model_digest"] for _ in range(5)} == {new}
    assert {shop.order(1, X_Canary="never")[2]["model_digest"] for _ in range(5)} == {old}

    console.release("canary", old)  # the same digest as production: the canary is over
    shop.until(lambda s: s["canary"] == old)
    assert shop.order(1, X_Canary="always")[2]["model_digest"] == old


def test_weights_that_do_not_match_their_digest_are_never_served(
    open_shop: OpenShop, console: ConsoleStandIn, small_file: Path
) -> None:
    good = console.push(small_file.read_bytes())
    console.release("production", good)
    shop = open_shop()
    shop.until(lambda s: s["production"] == good)

    changed = bytearray(small_file.read_bytes())
    changed[-100] ^= 1
    bad = console.push(b"\0" + bytes(changed))
    console.blobs[bad] = bytes(changed)  # the registry sends other bytes than it names
    console.release("production", bad)
    shop.program.wait_for("they are not used")
    assert shop.order()[2]["model_digest"] == good
    assert hashlib.sha256(changed).hexdigest() in shop.ask("GET", "/healthz")[2]["problem"]

    not_a_model = console.push(b"the right bytes, but no weights")
    console.release("production", not_a_model)
    shop.program.wait_for("not a checkout-risk/1 file")
    assert shop.order()[2]["model_digest"] == good


def test_the_last_model_serves_while_the_console_is_away_even_after_a_kill(
    open_shop: OpenShop, console: ConsoleStandIn, small_file: Path
) -> None:
    digest = console.push(small_file.read_bytes())
    console.release("production", digest)
    shop = open_shop()
    shop.until(lambda s: s["production"] == digest)
    console.close()
    shop.program.wait_for("the console cannot be read|The console cannot be read")
    assert shop.order()[0] == 200
    shop.program.process.send_signal(signal.SIGKILL)
    shop.program.process.wait(10)

    again = open_shop()
    again.until(lambda s: s["production"] == digest)
    assert again.order()[2]["model_digest"] == digest
    console.open()
    again.until(lambda s: s["problem"] is None)


BAD_ORDERS = [
    (b"{", 400, "The body is not JSON"),
    (b"\xff\xfe", 400, "The body is not JSON"),
    (b"[" * 60_000, 400, "The body is not JSON"),
    (b"[]", 422, "The order must be a JSON object"),
    (b'{"card": {"limit": -1}}', 422, "card.limit: a number from 0"),
    (b'{"card": {"limit": 1e999}}', 422, "card.limit: a number from 0"),
    (b" " * 70_000, 413, "An order is at most 65536 bytes"),
]


def test_a_bad_order_gets_a_sentence(open_shop: OpenShop) -> None:
    shop = open_shop()
    for body, status, sentence in BAD_ORDERS:
        found, headers, problem = shop.ask("POST", "/checkout", body)
        assert (found, problem["detail"][: len(sentence)]) == (status, sentence)
        assert headers["content-type"] == "application/problem+json"


def test_it_ends_on_sigterm_and_says_which_port_is_taken(open_shop: OpenShop, start: Start) -> None:
    shop = open_shop()
    port = shop.host.rpartition(":")[2]
    second = start("service.py", CHECKOUT_PORT=port)
    assert second.finish() == 2
    assert "set CHECKOUT_PORT to a free port" in second.lines[-1]
    shop.program.process.terminate()
    assert shop.program.finish(seconds=10) == 0
    assert shop.program.lines[-1] == "checkout: stopped"
