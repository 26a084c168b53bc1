"""HTTP to one server: JSON in and out, cursor pages, problems turned into errors."""

import contextlib
import http.client
import ipaddress
import json
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

from console.cli.exits import CliError, ExitCode, ServerRefused, Unreachable
from console.cli.printing import tell

API_ROOT = "/api/v1"
CALL_SECONDS = 60.0  # without a byte; a plan of ten thousand tasks is judged in seconds
PAGE_SIZE = 100
MAX_PROBLEM_BYTES = 1 << 20
# A gateway says these while the server behind it is away.
GATEWAY_STATUSES = frozenset({502, 504})


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the bearer token to somewhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def checked_server(text: str) -> str:
    """The server's origin without a trailing slash. Raises CliError for anything but http(s)."""
    trimmed = text.strip().rstrip("/").removesuffix(API_ROOT)
    try:
        parts = urllib.parse.urlsplit(trimmed)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_good = is_good and (parts.port is None or parts.port > 0)
    except ValueError:
        is_good = False
    if not is_good or parts.username or parts.password or parts.query or parts.fragment:
        raise CliError(
            f"--server: {text!r} is not a server; write http://HOST:PORT or https://HOST.",
            code=ExitCode.USAGE,
        )
    return trimmed


def is_loopback(server: str) -> bool:
    """Whether the server is this machine."""
    host = urllib.parse.urlsplit(server).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Client:
    """Speaks to `server` with a bearer token; opens nothing until it is asked something."""

    def __init__(self, server: str, token: str = "", *, timeout_seconds: float = CALL_SECONDS):
        self.server = server
        self._token = token
        self._timeout_seconds = timeout_seconds
        # A proxy of the environment is for far servers; it cannot reach this machine's loopback.
        proxies = urllib.request.ProxyHandler({} if is_loopback(server) else None)
        self._opener = urllib.request.build_opener(proxies, _NoRedirect())
        if token and server.startswith("http:") and not is_loopback(server):
            tell(f"the token goes to {server} unencrypted; use https.")

    def get(self, path: str, **parameters: Any) -> Any:
        """JSON of a resource under the API's root."""
        return self._json("GET", _with_query(path, parameters))

    def post(self, path: str, document: Any = None, **parameters: Any) -> Any:
        """Send JSON. A key makes sure that a repeat by the network acts once."""
        body = None if document is None else json.dumps(document).encode()
        return self._json("POST", _with_query(path, parameters), body, kind="application/json")

    def post_manifest(self, path: str, text: bytes, **parameters: Any) -> Any:
        """Send YAML or JSON manifests as they are."""
        return self._json("POST", _with_query(path, parameters), text, kind="application/yaml")

    def delete(self, path: str) -> Any:
        """Delete; the answer's JSON, None when it is empty."""
        return self._json("DELETE", path)

    def rows(self, path: str, *, limit: int = 0, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Rows of a list, page by page; all of them when `limit` is 0. A plain list is one page."""
        page_size = min(limit or PAGE_SIZE, PAGE_SIZE)
        given = {**parameters, "page_size": page_size}
        seen = 0
        while True:
            page = self.get(path, **given)
            found = page if isinstance(page, list) else page["results"]
            for row in found:
                yield row
                seen += 1
                if seen == limit:
                    return
            cursor = "" if isinstance(page, list) else _cursor(page.get("next"))
            if not cursor:
                return
            given["cursor"] = cursor

    @contextlib.contextmanager
    def stream(
        self, path: str, document: Any = None, **parameters: Any
    ) -> Iterator[http.client.HTTPResponse]:
        """The bytes of an answer, to be read while they come; a document is posted."""
        method = "GET" if document is None else "POST"
        body = None if document is None else json.dumps(document).encode()
        query = _with_query(path, parameters)
        with self._open(method, query, body, kind="application/json") as response:
            try:
                yield response
            except (TimeoutError, http.client.HTTPException, ConnectionError) as error:
                raise Unreachable(self.server, _reason(error)) from None

    def _json(self, method: str, path: str, body: bytes | None = None, *, kind: str = "") -> Any:
        with self._open(method, path, body, kind=kind) as response:
            try:
                text = response.read()
            except (OSError, http.client.HTTPException) as error:
                raise Unreachable(self.server, _reason(error)) from None
        try:
            return json.loads(text) if text else None
        except ValueError:
            raise CliError(
                f"{self.server} did not answer with JSON: is it a Clearance server?"
            ) from None

    def _open(
        self, method: str, path: str, body: bytes | None = None, *, kind: str = ""
    ) -> http.client.HTTPResponse:
        headers = {"Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if body is not None:
            headers["Content-Type"] = kind
        if method == "POST":
            headers["Idempotency-Key"] = str(uuid.uuid4())
        request = urllib.request.Request(  # noqa: S310 - checked_server allows http(s) only
            self.server + API_ROOT + path, data=body, headers=headers, method=method
        )
        try:
            response: http.client.HTTPResponse = self._opener.open(
                request, timeout=self._timeout_seconds
            )
            return response
        except urllib.error.HTTPError as answer:
            with answer:
                raise self._refusal(answer) from None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(self.server, _reason(error)) from None
        except (ValueError, UnicodeError) as error:
            raise CliError(f"that cannot be sent: {error}.", code=ExitCode.USAGE) from None

    def _refusal(self, answer: urllib.error.HTTPError) -> CliError:
        if answer.code in GATEWAY_STATUSES:
            return Unreachable(self.server, f"the gateway in front of it answered {answer.code}")
        if 300 <= answer.code < 400:
            where = answer.headers.get("Location", "elsewhere")
            return CliError(f"{self.server} redirects to {where}: name that server instead.")
        hint = ""
        if answer.code == 401:
            hint = f"Sign in with: clearance login --server {self.server} --username NAME"
        return ServerRefused(answer.code, _problem(answer), hint=hint)


def _problem(answer: urllib.error.HTTPError) -> dict[str, Any]:
    try:
        document = json.loads(answer.read(MAX_PROBLEM_BYTES))
    except (OSError, ValueError, http.client.HTTPException):
        return {}
    return document if isinstance(document, dict) else {}


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return f"no answer within {CALL_SECONDS:g} seconds"
    text = getattr(reason, "strerror", None) or str(reason)
    return text or type(reason).__name__


def _with_query(path: str, parameters: dict[str, Any]) -> str:
    given = {name: value for name, value in parameters.items() if value not in (None, "")}
    return f"{path}?{urllib.parse.urlencode(given)}" if given else path


def _cursor(url: str | None) -> str:
    """The cursor in a page's `next`; its host is not trusted, ours is asked again."""
    query = urllib.parse.urlsplit(url or "").query
    return urllib.parse.parse_qs(query).get("cursor", [""])[0]


def segment(text: str) -> str:
    """A name as one segment of a path."""
    return urllib.parse.quote(text, safe="")
