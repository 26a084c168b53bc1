"""A reverse proxy of ours between the product's client and the real API server, with faults.

Each client has a route of its own: an address, a plan, a record of every call, and a switch that
ends it as a kill would. The client speaks plain HTTP to the proxy, the proxy HTTPS to the server.
"""

import contextlib
import http.client
import json
import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.cluster.control_plane import CONTEXT, ControlPlane
from tests.cluster.fault_plan import (
    CALM,
    EVENTS,
    LISTS,
    READS,
    WATCHES,
    WRITES,
    Fault,
    Plan,
)

PIECES = 8  # of a slow answer
PIECE_SECONDS = 0.04
HANG_SECONDS = 30.0  # at most; the client gives up before
RETRY_AFTER = 1  # seconds; HTTP has no shorter ones
KEPT_LISTS = 6  # of one place, to answer stale
SERVER_SECONDS = 60.0


class Ended(Exception):
    """This connection answers nothing more."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request: when, what, what went wrong, and how the server itself answered (0: never)."""

    at: float
    method: str
    path: str
    is_watch: bool
    fault: Fault | None
    status: int
    answered_at: float

    @property
    def is_write(self) -> bool:
        return self.method != "GET"


class Route:
    """One client's way to the server."""

    def __init__(self, plane: ControlPlane, address: str, plan: Plan) -> None:
        self.plane, self.plan, self.url = plane, plan, address
        self.calls: list[Call] = []  # those that have ended
        self.asked = 0  # those that have begun
        self.was_killed = threading.Event()
        self.on_kill: Callable[[], None] = lambda: None
        self.holds: Callable[[str, str], bool] = lambda _method, _path: False
        self.released = threading.Event()
        self.held = threading.Event()
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._lists: dict[str, list[bytes]] = {}
        self._expired: set[str] = set()
        self._sockets: set[socket.socket] = set()
        self._is_cut = False
        self._is_down = False
        self._writes = 0
        self._kills = list(plan.kills)
        self._began: float | None = None

    # --- Levers ----------------------------------------------------------------------------------

    def cut(self) -> None:
        """Nothing of this client passes any more, and its connections break."""
        self._is_cut = True
        self._break()

    def set_down(self, is_down: bool) -> None:
        """An outage that begins or ends now."""
        self._is_down = is_down
        if is_down:
            self._break()

    def expire_watches(self) -> None:
        """Every watch breaks now, and is too old when it is taken up again, once each."""
        with self._lock:
            self._expired = {place for place in self._counts if place.endswith(" watch")}
        self._break()

    def kubeconfig(self, directory: Path) -> Path:
        """A kubeconfig that leads through this route."""
        path = directory / f"{self.url.rpartition('/')[2]}.kubeconfig"
        cluster = {"server": self.url}
        content = {
            "apiVersion": "v1", "kind": "Config", "current-context": CONTEXT,
            "clusters": [{"name": CONTEXT, "cluster": cluster}],
            "users": [{"name": CONTEXT, "user": {"token": self.plane.token}}],
            "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT}}],
        }  # fmt: skip
        path.write_text(json.dumps(content))
        return path

    def writes(self) -> list[Call]:
        """Calls that the server did: answered by it with success, whatever the client heard."""
        return [call for call in self.calls if call.is_write and 200 <= call.status < 300]

    # --- For the handler -------------------------------------------------------------------------

    def draw(self, place: str, among: tuple[Fault, ...]) -> Fault | None:
        """What goes wrong now. Raises Ended in an outage, or when the client is dead."""
        with self._lock:
            now = time.monotonic()
            began = self._began = self._began if self._began is not None else now
            number = self._counts[place] = self._counts.get(place, 0) + 1
            if place in self._expired:
                self._expired.discard(place)
                return Fault.GONE
        since = now - began
        outage = self.plan.outage
        if self._is_cut or self._is_down or (outage and outage[0] <= since < outage[1]):
            raise Ended
        return self.plan.draw(place, number, among) if since < self.plan.seconds else None

    def dies_at_write(self) -> bool | None:
        """Count a write; whether the client dies at it, and if so, only after it was done."""
        with self._lock:
            self._writes += 1
            if not self._kills or self._writes < self._kills[0].write:
                return None
            kill = self._kills.pop(0)
            self._writes = 0
            return kill.is_after

    def remaining(self) -> Plan:
        """The plan of the client that is started in place of the dead one."""
        spent = time.monotonic() - (self._began or time.monotonic())
        outage = self.plan.outage
        return Plan(
            seed=self.plan.seed + 1_000_003,
            rates=self.plan.rates,
            seconds=max(0.0, self.plan.seconds - spent),
            outage=(outage[0] - spent, outage[1] - spent) if outage else None,
            kills=tuple(self._kills),
        )

    def kill(self) -> None:
        """The client dies here."""
        self._is_cut = True
        self.on_kill()
        self.was_killed.set()
        self._break()

    def remember(self, place: str, answer: bytes) -> None:
        """Keep a list, to be told again later."""
        with self._lock:
            if Fault.STALE not in self.plan.rates:
                return
            kept = self._lists.setdefault(place, [])
            kept.append(answer)
            del kept[:-KEPT_LISTS]

    def earlier(self, place: str) -> bytes | None:
        """What was listed at an earlier moment."""
        with self._lock:
            kept = self._lists.get(place)
            return random.choice(kept) if kept else None

    @contextlib.contextmanager
    def connected(self, connection: socket.socket) -> Iterator[None]:
        """A connection that breaks with the route."""
        with self._lock:
            self._sockets.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(connection)

    def _break(self) -> None:
        with self._lock:
            broken = list(self._sockets)
        for one in broken:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


class FaultProxy(ThreadingHTTPServer):
    """Serves the routes on a port of loopback."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, plane: ControlPlane) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plane = plane
        self.trusted = ssl.create_default_context(
            cafile=str(plane.directory / "certs" / "apiserver.crt")
        )
        self._routes: dict[str, Route] = {}

    def route(self, name: str, plan: Plan = CALM) -> Route:
        """A new way to the server under this name."""
        address = f"http://127.0.0.1:{self.server_address[1]}/{name}"
        made = self._routes[name] = Route(self.plane, address, plan)
        return made

    def found(self, name: str) -> Route | None:
        return self._routes.get(name)

    def connect(self) -> http.client.HTTPSConnection:
        """A new connection to the server."""
        parts = urlsplit(self.plane.url)
        return http.client.HTTPSConnection(
            str(parts.hostname), parts.port, timeout=SERVER_SECONDS, context=self.trusted
        )

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


@contextlib.contextmanager
def fault_proxy(plane: ControlPlane) -> Iterator[FaultProxy]:
    """A proxy that serves until the block ends."""
    with FaultProxy(plane) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            for route in list(proxy._routes.values()):
                route.cut()
            proxy.shutdown()


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client, kept alive over its requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FaultProxy
    _upstream: http.client.HTTPSConnection | None = None

    def log_message(self, *_: Any) -> None:
        """The calls are recorded on the route."""

    def finish(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def _any(self) -> None:
        name, _, rest = self.path.lstrip("/").partition("/")
        route = self.server.found(name)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if route is None:
            self._reset()
            return
        with route.connected(self.connection):
            try:
                self._pass(route, f"/{rest}", body)
            except Ended:
                self._reset()
            except (OSError, http.client.HTTPException):
                if self._upstream is not None:
                    self._upstream.close()
                self._reset()

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _any  # noqa: N815 - as http.server calls

    # --- One request -----------------------------------------------------------------------------

    def _pass(self, route: Route, target: str, body: bytes) -> None:
        path, _, query = target.partition("?")
        asked = dict(parse_qsl(query))
        is_watch, is_list = asked.get("watch") == "true", "limit" in asked
        is_write = self.command != "GET"
        place = f"{self.command} {path}{' watch' if is_watch else ''}"
        among = WRITES if is_write else WATCHES if is_watch else LISTS if is_list else READS
        began, status, fault = time.monotonic(), 0, None
        route.asked += 1
        try:
            fault = route.draw(place, among)
            dies = route.dies_at_write() if is_write else None
            if dies is False:
                route.kill()
                raise Ended
            if route.holds(self.command, path):
                route.held.set()
                route.released.wait()
            if fault is not None and self._answer_instead(route, fault, place):
                return
            answer = self._ask(target, body)
            status = answer.status
            if is_watch and status == 200:
                self._watch(route, answer, place)
                return
            content = answer.read()
            if is_list and status == 200 and "continue" not in asked:
                route.remember(place + query, content)
                if fault == Fault.STALE:
                    content = route.earlier(place + query) or content
            if dies:
                route.kill()
                raise Ended
            self._deliver(fault, status, dict(answer.getheaders()), content)
        finally:
            route.calls.append(
                Call(began, self.command, path, is_watch, fault, status, time.monotonic())
            )

    def _answer_instead(self, route: Route, fault: Fault, place: str) -> bool:
        """Answer without asking the server, where the fault is of that kind."""
        match fault:
            case Fault.RESET_BEFORE:
                raise Ended
            case Fault.CONFLICT:
                self._status(409, "Conflict", "the object has been modified; try again")
            case Fault.THROTTLE:
                self._status(429, "TooManyRequests", "too many requests, please try again later")
            case Fault.ERROR_BEFORE:
                self._status(500, "InternalError", "etcdserver: leader changed")
            case Fault.GONE:
                self._status(410, "Expired", "too old resource version")
            case _:
                return False
        return True

    def _ask(self, target: str, body: bytes) -> http.client.HTTPResponse:
        """The server's own answer, on a connection that is kept."""
        if self._upstream is None:
            self._upstream = self.server.connect()
        kept = ("Authorization", "Content-Type", "Accept")
        headers = {name: value for name in kept if (value := self.headers.get(name))}
        self._upstream.request(self.command, target, body=body or None, headers=headers)
        return self._upstream.getresponse()

    def _deliver(
        self, fault: Fault | None, status: int, headers: dict[str, str], content: bytes
    ) -> None:
        match fault:
            case Fault.RESET_AFTER:
                raise Ended
            case Fault.HANG:
                self.connection.settimeout(HANG_SECONDS)
                self.rfile.read(1)  # until the client has gone
                raise Ended
            case Fault.ERROR_AFTER:
                self._status(504, "Timeout", "request did not complete within the allotted timeout")
                return
        self.send_response(status)
        for name in ("Content-Type", "Retry-After"):
            if value := headers.get(name):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == Fault.TORN:
            self.wfile.write(content[: len(content) // 2])
            raise Ended
        if fault == Fault.SLOW:
            self._drip(content)
        else:
            self.wfile.write(content)

    def _drip(self, content: bytes) -> None:
        size = max(1, -(-len(content) // PIECES))
        for first in range(0, len(content), size):
            self.wfile.write(content[first : first + size])
            self.wfile.flush()
            time.sleep(PIECE_SECONDS)

    def _status(self, code: int, reason: str, message: str) -> None:
        content = json.dumps(
            {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
             "reason": reason, "message": message}
        ).encode()  # fmt: skip
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if code == 429:
            self.send_header("Retry-After", str(RETRY_AFTER))
        self.end_headers()
        self.wfile.write(content)

    # --- A watch ---------------------------------------------------------------------------------

    def _watch(self, route: Route, answer: http.client.HTTPResponse, place: str) -> None:
        assert self._upstream is not None
        assert self._upstream.sock is not None or answer.fp is not None
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        upstream, self._upstream = self._upstream, None
        told: list[bytes] = []
        server_socket = upstream.sock or answer.fp.raw._sock  # type: ignore[union-attr]
        server_socket.settimeout(None)
        with route.connected(server_socket), contextlib.closing(upstream):
            for line in answer:
                self._tell(route.draw(f"{place} event", EVENTS), line, told)
                told.append(line)
        self.wfile.write(b"0\r\n\r\n")

    def _tell(self, fault: Fault | None, line: bytes, told: list[bytes]) -> None:
        """Pass on one event, or what has become of it."""
        match fault:
            case Fault.DROP:
                return
            case Fault.CUT:
                raise Ended
            case Fault.TORN_LINE:
                self._chunk(line[: len(line) // 2])
                raise Ended
            case Fault.GONE_IN_WATCH:
                expired = {"kind": "Status", "apiVersion": "v1", "code": 410, "message": "too old"}
                self._chunk(json.dumps({"type": "ERROR", "object": expired}).encode() + b"\n")
                return
            case Fault.SLOW:
                time.sleep(PIECES * PIECE_SECONDS)
        self._chunk(line)
        if fault == Fault.DUPLICATE:
            self._chunk(line)
        if fault == Fault.LATE and told:
            self._chunk(random.choice(told))

    def _chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.flush()

    def _reset(self) -> None:
        """Break the connection as a dead peer would: no orderly end."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.connection.close()
