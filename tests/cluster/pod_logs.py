"""What containers wrote, as the API server asks a kubelet for it: `kubectl logs`."""

import datetime as dt
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Find = Callable[[str, str, str], Path | None]  # namespace, pod, container -> its log


def serve_logs(directory: Path, find: Find) -> int:
    """Answer `/containerLogs/…` on a port of loopback, for as long as the process lives."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Silence."""

        def do_GET(self) -> None:
            """One container's log; options that are not known here are ignored."""
            parts = urlsplit(self.path)
            words = parts.path.strip("/").split("/")
            is_log = len(words) == 4 and words[0] == "containerLogs"
            path = find(words[1], words[2], words[3]) if is_log else None
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            content = path.read_bytes() if path is not None and path.exists() else b""
            if "tailLines" in query:
                lines = content.splitlines(keepends=True)
                content = b"".join(lines[max(0, len(lines) - int(query["tailLines"])) :])
            if "limitBytes" in query:
                content = content[: int(query["limitBytes"])]
            self.send_response(200 if path is not None else 404)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(directory))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, name="logs", daemon=True).start()
    return int(server.server_address[1])


def _certificate(directory: Path) -> Path:
    """A self-signed certificate with its key: the API server here checks none of a kubelet."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubelet")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    path = directory / "kubelet.pem"
    path.touch(mode=0o600)
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path
