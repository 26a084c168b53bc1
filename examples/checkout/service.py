"""The checkout: POST /checkout scores an order with the model that is released, by digest."""

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import uvicorn
from checkout_risk.console_api import ConsoleApi
from checkout_risk.model import REVIEW_FROM
from checkout_risk.orders import OrderInvalid, card_of
from checkout_risk.serving import Router, ServedModel

DEFAULT_PORT = 8089
CANARY_SHARE = 0.3
WORKERS = 2  # scores at once for each model, what a small pod has
WAITING_MAX = 64  # orders waiting for one model; more are told to come back
BODY_MAX_BYTES = 64 << 10

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Refusal(Exception):
    """An order that gets no score: HTTP status and a sentence."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class CheckoutApp:
    """The ASGI application over a router."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; lifespan and websockets are not offered."""
        if scope["type"] != "http":
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        extra: dict[str, str] = {}
        try:
            match (scope["method"], scope["path"]):
                case ("POST", "/checkout"):
                    body, extra = await self._checkout(headers, await _read(receive))
                    status = 200
                case ("GET", "/healthz"):
                    status, body = 200, self._router.state()
                case ("GET", "/metrics"):
                    status, body = 200, {"models": self._router.figures()}
                case _:
                    raise Refusal(404, "There are POST /checkout, GET /healthz and GET /metrics.")
        except Refusal as refusal:
            status, body = refusal.status, {"status": refusal.status, "detail": str(refusal)}
        await _answer(send, status, body, extra)

    async def _checkout(
        self, headers: dict[str, str], body: bytes
    ) -> tuple[dict[str, Any], dict[str, str]]:
        try:
            order = json.loads(body)
            card = card_of(order)
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise Refusal(400, f"The body is not JSON: {error}") from error
        except OrderInvalid as error:
            raise Refusal(422, str(error)) from error
        request_id = headers.get("x-request-id") or uuid4().hex
        served = self._router.pick(request_id, pin=headers.get("x-canary", ""))
        if served is None:
            raise Refusal(503, "No model is released to production yet; release one and ask again.")
        risk, elapsed_ms = await self._score(served, card)
        answer = {
            "order_id": order.get("order_id"),
            "risk": round(risk, 6),
            "decision": "review" if risk >= REVIEW_FROM else "accept",
            "model_digest": served.digest,
            "elapsed_ms": round(elapsed_ms, 3),
        }
        return answer, {"X-Model-Digest": served.digest, "X-Request-Id": request_id}

    async def _score(self, served: ServedModel, card: Any) -> tuple[float, float]:
        if served.waiting >= WAITING_MAX:
            served.errors += 1
            raise Refusal(503, f"{WAITING_MAX} orders are waiting already; ask again in a moment.")
        served.waiting += 1
        started = time.perf_counter()
        try:
            loop = asyncio.get_running_loop()
            risks = await loop.run_in_executor(served.workers, served.model.risks, card)
        finally:
            served.waiting -= 1
        elapsed_ms = (time.perf_counter() - started) * 1e3
        served.requests += 1
        served.latencies_ms.append(elapsed_ms)
        return float(risks[0]), elapsed_ms


async def _read(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if len(body) > BODY_MAX_BYTES:
            raise Refusal(413, f"An order is at most {BODY_MAX_BYTES} bytes.")
        if not message.get("more_body"):
            return body


async def _answer(send: Send, status: int, body: object, extra: dict[str, str]) -> None:
    content = json.dumps(body).encode()
    kind = "application/json" if status == 200 else "application/problem+json"
    headers = {"content-type": kind, "content-length": str(len(content)), **extra}
    pairs = [(k.lower().encode(), v.encode("latin-1", "replace")) for k, v in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": content})


def _token_reader() -> Callable[[], str]:
    """Reads the bearer token from the file each time; no file yet means no token yet."""
    name = os.environ.get("CLEARANCE_TOKEN_FILE", "")

    def read() -> str:
        try:
            return Path(name).read_text(encoding="ascii").strip() if name else ""
        except (OSError, UnicodeDecodeError):
            return ""

    return read


def say(line: str) -> None:
    """One line on stdout, at once."""
    print(line, flush=True)


def main() -> int:
    """Listen, follow the releases, serve until SIGTERM or SIGINT."""
    host = os.environ.get("CHECKOUT_HOST", "127.0.0.1")
    port = int(os.environ.get("CHECKOUT_PORT", DEFAULT_PORT))
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)  # from here on a client waits instead of being refused
    except OSError as error:
        say(f"checkout: cannot listen on {host}:{port} ({error}); set CHECKOUT_PORT to a free port")
        return 2
    cache = Path(os.environ.get("CHECKOUT_CACHE") or tempfile.mkdtemp(prefix="checkout-"))
    cache.mkdir(parents=True, exist_ok=True)
    api = ConsoleApi(
        os.environ.get("CLEARANCE_API_URL", "http://127.0.0.1:8000"), token=_token_reader()
    )
    router = Router(
        api,
        service=os.environ.get("CHECKOUT_NAME", "checkout"),
        canary_share=float(os.environ.get("CHECKOUT_CANARY_SHARE", CANARY_SHARE)),
        workers=int(os.environ.get("CHECKOUT_WORKERS", WORKERS)),
        cache=cache,
        say=say,
    )
    stop = threading.Event()
    follower = threading.Thread(target=router.follow, args=(stop,), name="follow", daemon=True)
    follower.start()
    config = uvicorn.Config(
        CheckoutApp(router), lifespan="off", access_log=False, log_level="error"
    )
    server = uvicorn.Server(config)
    say(f"checkout: listening on http://{host}:{listener.getsockname()[1]}")
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        pass  # uvicorn raises the signal again after it has closed the connections
    finally:
        stop.set()
    say("checkout: stopped")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
