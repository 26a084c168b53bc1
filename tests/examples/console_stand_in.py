"""A small console for tests: keeps real bytes, really listens, and can really go away."""

import base64
import datetime as dt
import gzip
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

SPIFFE_ID = "spiffe://clearance.local/ns/default/sa/test/goal/g-1/agent/test"
LIFETIME = dt.timedelta(minutes=5)
Json = dict[str, Any]


def sha256(data: bytes) -> str:
    """`sha256:<hex>` of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Problem(Exception):
    """An RFC 9457 answer."""

    def __init__(self, status: int, detail: str, **more: object) -> None:
        super().__init__(detail)
        self.status = status
        self.more = more


class ConsoleStandIn:
    """State of the console and the routes over it; `url` stays the same while it is away."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}  # artifact digest -> bytes served
        self.metadata: dict[str, Json] = {}
        self.releases: list[Json] = []
        self.evidence: list[Json] = []
        self.outputs: dict[str, Json] = {}
        self.inputs: dict[str, Json] = {}
        self.spans: dict[str, Any] = {}  # span id (hex) -> protobuf span
        self.denied: set[str] = set()  # environments whose releases policy refuses
        self.token = ""  # when set, the only bearer token reads are answered for
        self.objective = "p99 latency < 120 ms for /checkout"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        """Listen, on the same port as before if there was one."""
        handler = type("Handler", (_Handler,), {"console": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        """Stop listening; connections are refused from now on."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def push(self, data: bytes, *, kind: str = "model", name: str = "checkout-risk") -> str:
        """Keep an artifact; gives its digest, which is not that of its bytes."""
        blob = sha256(data)
        digest = sha256(f"{kind}/{name}/{blob}".encode())
        layer = {"digest": blob, "size": len(data), "title": "weights.npz", "media_type": "x/npz"}
        self.blobs[digest] = data
        self.metadata[digest] = {"digest": digest, "kind": kind, "name": name, "layers": [layer]}
        return digest

    def release(self, environment: str, digest: str, **more: object) -> Json:
        """Release a digest, as an operator or an agent would."""
        record = {"environment": environment, "service": "checkout", "digest": digest, **more}
        record |= {"id": str(len(self.releases) + 1), "released_at": _now()}
        self.releases.append(record)
        return record

    def current(self, environment: str) -> str | None:
        """Digest of the newest release of an environment."""
        found = [r["digest"] for r in self.releases if r["environment"] == environment]
        return found[-1] if found else None

    def environment(self, task: str) -> dict[str, str]:
        """What an attempt's process starts with."""
        return {
            "CLEARANCE_API_URL": self.url,
            "CLEARANCE_JOIN_TOKEN": "join-once",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "CLEARANCE_NAMESPACE": "default",
            "CLEARANCE_GOAL_UID": "g-1",
            "CLEARANCE_GOAL": "reduce-p99-latency",
            "CLEARANCE_TASK": task,
            "CLEARANCE_ATTEMPT_UID": f"a-{task}",
            "CLEARANCE_AGENT": task,
        }

    def hand_on(self) -> None:
        """What one task produced becomes the next one's input."""
        self.inputs = dict(self.outputs)

    def spans_named(self, name: str) -> list[Any]:
        """Spans of that name, in the order they began."""
        found = [s for s in self.spans.values() if s.name == name]
        return sorted(found, key=lambda s: s.start_time_unix_nano)

    # --- routes -------------------------------------------------------------------------------

    def get(self, path: str, query: dict[str, str]) -> Json | bytes:
        match path.strip("/").split("/")[2:]:
            case ["self"]:
                goal = {"uid": "g-1", "name": "reduce-p99-latency", "objective": self.objective}
                goal |= {"generation": 1, "iteration": 1}  # type: ignore[operator]
                named = {"attempt_uid": "a-1", "task": "t", "agent": "t", "namespace": "default"}
                return {**named, "goal": goal, "inputs": self.inputs}
            case ["releases", "current"]:
                found = [r for r in self.releases if r["environment"] == query["environment"]]
                if query["service"] != "checkout" or not found:
                    raise Problem(404, "Nothing was released there.")
                return dict(found[-1])
            case ["artifacts", digest] if digest in self.metadata:
                return self.metadata[digest]
            case ["artifacts", digest, "content"] if digest in self.blobs:
                return self.blobs[digest]
        raise Problem(404, f"There is no {path}.")

    def post(self, path: str, query: dict[str, str], body: bytes) -> tuple[int, Json | bytes]:
        if path == "/v1/traces":
            request = ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    self.spans |= {s.span_id.hex(): s for s in scope.spans}
            return 200, ExportTraceServiceResponse().SerializeToString()
        match path.strip("/").split("/")[2:]:
            case ["identity", "exchange" | "renew"]:
                return 200, self._svid(json.loads(body))
            case ["self", "reservations"]:
                return 201, {}
            case ["artifacts"]:
                digest = self.push(body, kind=query["kind"], name=query["name"])
                return 201, {
                    "digest": digest,
                    "blob_digest": sha256(body),
                    "size": len(body),
                    "signed": True,
                }
            case ["evidence"]:
                self.evidence.append(json.loads(body))
                return 201, {"digest": sha256(body)}
            case ["releases"]:
                wanted = json.loads(body)
                if wanted["environment"] in self.denied:
                    message = {"rule": "ab", "path": "p.rego", "line": 3, "text": "no evidence"}
                    raise Problem(403, "Policy denies the release.", messages=[message])
                extra = {k: wanted.get(k) for k in ("evidence", "reason", "span_id")}
                record = self.release(wanted["environment"], wanted["digest"], **extra)
                return 201, {"id": record["id"], "digest": record["digest"], "decision": "d-1"}
        raise Problem(404, f"There is no {path}.")

    def put(self, path: str, body: bytes) -> int:
        match path.strip("/").split("/")[2:]:
            case ["self", "outputs", name]:
                self.outputs[name] = json.loads(body)
                return 204
        raise Problem(404, f"There is no {path}.")

    def _svid(self, asked: Json) -> Json:
        csr = x509.load_pem_x509_csr(asked["csr"].encode())
        now = dt.datetime.now(dt.UTC)
        name = x509.Name([])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(csr.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - LIFETIME)
            .not_valid_after(now + LIFETIME)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(SPIFFE_ID)]), False
            )
            .sign(self._key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        expires = (now + LIFETIME).isoformat()
        claims = {"sub": SPIFFE_ID, "aud": asked["audience"], "exp": time.time() + 300}
        parts = [json.dumps({"alg": "ES256"}), json.dumps(claims), "signature"]
        token = ".".join(base64.urlsafe_b64encode(p.encode()).decode().rstrip("=") for p in parts)
        return {
            "spiffe_id": SPIFFE_ID,
            "x509_svid": pem,
            "x509_expires_at": expires,
            "jwt_svid": token,
            "jwt_expires_at": expires,
            "bundle": {"keys": [], "x509_authorities": [pem]},
        }


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat()


class _Handler(BaseHTTPRequestHandler):
    """HTTP over a `ConsoleStandIn`."""

    console: ConsoleStandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._run(lambda path, query, body: (200, self.console.get(path, query)))

    def do_POST(self) -> None:
        self._run(self.console.post)

    def do_PUT(self) -> None:
        self._run(lambda path, query, body: (self.console.put(path, body), b""))

    def _run(self, route: Any) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        try:
            body = self._body()
            bearer = self.headers.get("Authorization", "")
            if self.console.token and bearer != f"Bearer {self.console.token}":
                raise Problem(401, "The bearer token is not valid.")
            status, answer = route(parts.path, query, body)
        except Problem as problem:
            status = problem.status
            answer = {"type": "about:blank", "title": "Refused", "status": status}
            answer |= {"detail": str(problem), **problem.more}
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        if isinstance(answer, bytes):
            is_otlp = parts.path == "/v1/traces"
            kind = "application/x-protobuf" if is_otlp else "application/octet-stream"
        else:
            kind = "application/json" if status < 400 else "application/problem+json"
        if status != 204:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(raw)))
        # One request a connection: after close() nothing of ours may go on answering.
        self.send_header("Connection", "close")
        self.end_headers()
        if status != 204:
            self.wfile.write(raw)
        self.close_connection = True

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(parts)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        is_gzip = self.headers.get("Content-Encoding", "") == "gzip"
        return gzip.decompress(body) if is_gzip else body

    def log_message(self, *args: object) -> None:
        """Quiet: the test says what went wrong."""
