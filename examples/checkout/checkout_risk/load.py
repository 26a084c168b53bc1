"""Real load on the checkout: concurrent clients, and the raw latencies they saw."""

import http.client
import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .orders import Orders

CLIENTS = 6
# Each client sends no faster than this and waits for its answer first: a shop's traffic, not a
# flood, and the queue is never longer than the number of clients.
PACE_PER_SECOND = 8.0
REQUEST_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One answered order: what the client waited (ms), who scored it, whether it was right."""

    latency_ms: float
    status: int
    digest: str
    order: int
    is_right: bool | None  # None when there was no decision to judge
    pin: str = ""  # the X-Canary header it was sent with


@dataclass(frozen=True, slots=True)
class Load:
    """How to drive: for how long, with how many clients, until at least how many samples."""

    seconds: float
    clients: int = CLIENTS
    pace_per_second: float = PACE_PER_SECOND
    samples_min: int = 0
    seconds_max: float = 0.0  # 0 means `seconds`; more lets a slow service reach `samples_min`


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile: always a value that was measured. `values` is not empty."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(percent / 100.0 * len(ranked)) - 1)]


class Client:
    """One connection to the service, kept open and opened again when it breaks."""

    def __init__(self, url: str) -> None:
        self._host = urlsplit(url).netloc
        self._connection = self._connect()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, timeout=REQUEST_TIMEOUT_SECONDS)

    def checkout(self, orders: Orders, index: int, *, request_id: str, pin: str = "") -> Sample:
        """Send one labelled order. A refused or broken connection is a sample with status 0."""
        headers = {"Content-Type": "application/json", "X-Request-Id": request_id}
        if pin:
            headers["X-Canary"] = pin
        body = json.dumps(orders.as_request(index))
        started = time.perf_counter()
        try:
            self._connection.request("POST", "/checkout", body, headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self._connection = self._connect()
            return Sample((time.perf_counter() - started) * 1e3, 0, "", index, None, pin)
        elapsed_ms = (time.perf_counter() - started) * 1e3
        digest = answer.getheader("X-Model-Digest") or ""
        is_right = None
        if answer.status == http.client.OK:
            held = json.loads(content)["decision"] == "review"
            is_right = held == bool(orders.defaulted[index])
        return Sample(elapsed_ms, answer.status, digest, index, is_right, pin)

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()


Visit = Callable[[Client, int, str], Sequence[Sample]]


def drive(
    url: str,
    orders: Orders,
    *,
    load: Load,
    name: str,
    visit: Visit | None = None,
    stop: threading.Event | None = None,
) -> list[Sample]:
    """Run the clients and give every sample. `visit` is what a client does with one order.

    `name` goes into the request ids; `stop` ends the load early.
    """
    samples: list[Sample] = []
    lock = threading.Lock()
    halt = stop or threading.Event()
    started = time.monotonic()
    longest = max(load.seconds, load.seconds_max)

    def is_over() -> bool:
        elapsed = time.monotonic() - started
        enough = elapsed >= load.seconds and len(samples) >= load.samples_min
        return halt.is_set() or elapsed >= longest or enough

    def one_client(number: int) -> None:
        client = Client(url)
        step = 1.0 / load.pace_per_second
        turn = started + step * number / load.clients
        index = number
        while not is_over():
            if halt.wait(max(0.0, turn - time.monotonic())):
                break
            turn = max(turn + step, time.monotonic())
            request_id = f"{name}-{index}"
            found = (
                visit(client, index % len(orders), request_id)
                if visit
                else [client.checkout(orders, index % len(orders), request_id=request_id)]
            )
            with lock:
                samples.extend(found)
            index += load.clients
        client.close()

    threads = [threading.Thread(target=one_client, args=(n,)) for n in range(load.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return samples


def service_state(url: str) -> dict[str, Any]:
    """GET /healthz of the service. Raises `OSError` when it cannot be reached."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5.0)
    try:
        connection.request("GET", "/healthz")
        body = json.loads(connection.getresponse().read())
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(f"{url}/healthz gave no usable answer: {error}") from error
    finally:
        connection.close()
    return dict(body)
