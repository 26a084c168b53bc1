"""A control plane for SDK tests: real HTTP, real OTLP checks, and failures on demand."""

import datetime as dt
import hashlib
import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography import x509

from lineage.otlp import OtlpError, accept_traces, partial_success_body
from lineage.telemetry.base import Span, SpanBatch, SpanOwner
from lineage.telemetry.memory import MemoryTelemetry

OWNER = SpanOwner("default", "goal-1", "optimizer", "optimizer", "attempt-1")


class ControlPlane:
    """What it was asked and what it answers. `fail(path, status, ...)` answers the next ones so."""

    def __init__(self) -> None:
        self.telemetry = MemoryTelemetry()
        self.telemetry.ensure_schema()
        self.lifetime = dt.timedelta(minutes=5)
        self.tokens: list[str] = []
        self.csrs: set[str] = set()
        self.is_revoked = False
        self.join_tokens = {"join-me"}
        self.outputs: dict[str, Any] = {}
        self.calls: list[tuple[str, str, Any]] = []
        self.idempotency_keys: list[str] = []
        self.artifacts: dict[str, bytes] = {}
        self.served: dict[str, bytes] = {}
        self.current: dict[str, Any] | None = None
        self._failures: dict[str, deque[tuple[int, dict[str, Any]]]] = {}
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen; on the same port when it listened before."""
        handler = type("Handler", (_Handler,), {"plane": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def fail(self, path: str, *statuses: int, **problem: Any) -> None:
        waiting = self._failures.setdefault(path, deque())
        waiting.extend((status, problem) for status in statuses)

    def failure_for(self, path: str) -> tuple[int, dict[str, Any]] | None:
        waiting = self._failures.get(path)
        return waiting.popleft() if waiting else None

    def spans(self) -> list[Span]:
        return list(self.telemetry.goal_spans("default", "goal-1", limit=1000).spans)

    def span(self, name: str) -> Span:
        [found] = [span for span in self.spans() if span.name == name]
        return found

    def environment(self) -> dict[str, str]:
        return {
            "CLEARANCE_API_URL": self.url,
            "CLEARANCE_JOIN_TOKEN": "join-me",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "CLEARANCE_NAMESPACE": "default",
            "CLEARANCE_GOAL_UID": "goal-1",
            "CLEARANCE_GOAL": "reduce-p99-latency",
            "CLEARANCE_TASK": "optimizer",
            "CLEARANCE_ATTEMPT_UID": "attempt-1",
            "CLEARANCE_AGENT": "optimizer",
        }

    def issue(self, csr: str) -> dict[str, Any]:
        assert x509.load_pem_x509_csr(csr.encode()).is_signature_valid
        self.csrs.add(csr)
        self.tokens.append(f"jwt-{len(self.tokens) + 1}")
        expires = (dt.datetime.now(dt.UTC) + self.lifetime).isoformat()
        return {
            "spiffe_id": "spiffe://clearance.local/ns/default/sa/x/goal/goal-1/agent/optimizer",
            "x509_svid": "PEM", "x509_expires_at": expires, "jwt_svid": self.tokens[-1],
            "jwt_expires_at": expires, "bundle": {},
        }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    plane: ControlPlane
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Silence."""

    def _reply(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _problem(self, status: int, title: str = "No", **more: Any) -> None:
        body = {"type": "about:blank", "title": title, "status": status, **more}
        self._reply(status, json.dumps(body).encode(), "application/problem+json")

    def do_GET(self) -> None:
        self._handle(b"")

    def do_POST(self) -> None:
        self._handle(self.rfile.read(int(self.headers["Content-Length"])))

    def do_PUT(self) -> None:
        self.do_POST()

    def _handle(self, body: bytes) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if failure := self.plane.failure_for(path):
            self._problem(failure[0], **failure[1])
            return
        bearer = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        if path == "/api/v1/identity/exchange":
            self._exchange(json.loads(body))
        elif path == "/api/v1/identity/renew":
            if self.plane.is_revoked or bearer not in self.plane.tokens:
                self._problem(401, "Revoked")
            else:
                self._reply(200, json.dumps(self.plane.issue(json.loads(body)["csr"])).encode())
        elif self.plane.is_revoked or bearer != self.plane.tokens[-1]:
            self._problem(401, "Not accepted", detail="The token is not valid any more.")
        elif path == "/v1/traces":
            self._traces(body)
        else:
            self._api(path, query, body)

    def _exchange(self, asked: dict[str, Any]) -> None:
        assert asked["audience"] == ["clearance"]
        if asked.get("service_account_token") == "of-this-pod":
            self._reply(200, json.dumps(self.plane.issue(asked["csr"])).encode())
            return
        if asked["join_token"] not in self.plane.join_tokens:
            self._problem(401, "The join token was used already")
            return
        self.plane.join_tokens.remove(asked["join_token"])
        self._reply(200, json.dumps(self.plane.issue(asked["csr"])).encode())

    def _traces(self, body: bytes) -> None:
        kind = self.headers["Content-Type"]
        try:
            accepted = accept_traces(body, content_type=kind, content_encoding="")
        except OtlpError as error:
            self._problem(error.status)
            return
        if accepted.span_count:
            self.plane.telemetry.write_spans([SpanBatch(OWNER, accepted.body)])
        answer = partial_success_body(
            rejected=accepted.rejected, rejection=accepted.rejection, content_type=kind
        )
        self._reply(200, answer, kind)

    def _api(self, path: str, query: dict[str, str], body: bytes) -> None:
        plane, call = self.plane, f"{self.command} {path.removeprefix('/api/v1/')}"
        if key := self.headers["Idempotency-Key"]:
            plane.idempotency_keys.append(key)
        is_json = (self.headers["Content-Type"] or "") == "application/json"
        plane.calls.append((call, "", json.loads(body) if is_json and body else query))
        match call.split("/"):
            case ["GET self"]:
                goal = {"uid": "goal-1", "name": "g", "objective": "p99 < 1", "generation": 1}
                inputs = {"profile": {"value": {"p99": 3}, "digest": None, "span_id": "c" * 16}}
                found = {"goal": goal, "inputs": inputs, "models": ["middle", "small"]}
                self._reply(200, json.dumps(found).encode())
            case ["PUT self", "outputs", name]:
                plane.outputs[name] = json.loads(body)
                self._reply(204, b"")
            case ["POST self", "reservations"]:
                self._reply(201, b"{}")
            case ["POST artifacts"]:
                blob = f"sha256:{hashlib.sha256(body).hexdigest()}"
                if "directory=true" not in self.path:
                    assert self.headers["X-Content-SHA256"] == blob.removeprefix("sha256:")
                digest = "sha256:" + "d" * 64
                plane.artifacts[digest] = body
                answer = {"digest": digest, "blob_digest": blob, "size": len(body), "signed": True}
                self._reply(201, json.dumps(answer).encode())
            case ["GET artifacts", digest]:
                blob = hashlib.sha256(plane.artifacts[digest]).hexdigest()
                layers = [{"digest": f"sha256:{blob}", "size": 1}]
                self._reply(200, json.dumps({"digest": digest, "layers": layers}).encode())
            case ["GET artifacts", digest, "content"]:
                served = plane.served.get(digest, plane.artifacts[digest])
                self._reply(200, served, "application/octet-stream")
            case ["POST evidence"]:
                self._reply(201, json.dumps({"digest": "sha256:" + "e" * 64}).encode())
            case ["GET releases", "current"]:
                if plane.current is None:
                    self._problem(404, "Nothing is released")
                else:
                    self._reply(200, json.dumps(plane.current).encode())
            case ["POST releases"]:
                asked = json.loads(body)
                answer = {"id": "r-1", "digest": asked["digest"], "decision": "d-1"}
                self._reply(201, json.dumps(answer).encode())
            case _:
                self._problem(404, "No such thing")
