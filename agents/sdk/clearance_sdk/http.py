"""HTTP to the control plane: retries what is transient, turns problems into errors."""

import contextlib
import http.client
import json
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from .errors import ClearanceError, Unavailable, error_for

TRANSIENT_STATUSES = frozenset({429, 502, 503, 504})
CALL_SECONDS = 30.0  # without a byte from the control plane
# How long one call keeps trying: the control plane restarts in seconds, and an agent that gives
# up loses its attempt.
RETRY_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
MAX_PROBLEM_BYTES = 1 << 20

Body = bytes | Callable[[], IO[bytes]]


@dataclass(frozen=True, slots=True)
class Call:
    """One request. A `body` that is called gives a fresh stream for each try."""

    method: str
    url: str
    body: Body | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_authenticated: bool = True


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the bearer token to somewhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


class HttpClient:
    """Sends calls with the bearer token of the moment.

    `token` gives the current token; `renew` is asked once for a new one after a 401 and raises
    what ends the attempt. Proxies of the environment are not used: the control plane is near.
    """

    def __init__(
        self,
        *,
        token: Callable[[], str] = lambda: "",
        renew: Callable[[str], None] | None = None,
        retry_seconds: float = RETRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._token = token
        self._renew = renew
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._sleep = sleep
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())

    @contextlib.contextmanager
    def open(self, call: Call) -> Iterator[http.client.HTTPResponse]:
        """The answer of a call that succeeded, to be read as a stream.

        Raises: Unavailable once trying takes too long; the ClearanceError of any other answer.
        """
        response = self._send(call)
        try:
            yield response
        finally:
            response.close()

    def _send(self, call: Call) -> http.client.HTTPResponse:
        deadline = self._clock() + self._retry_seconds
        pause = FIRST_PAUSE_SECONDS
        has_renewed = False
        while True:
            token = self._token() if call.is_authenticated else ""
            error, asked_pause = Unavailable("The control plane did not answer"), 0.0
            try:
                return self._try(call, token)
            except urllib.error.HTTPError as answer:
                with answer:
                    problem = _problem(answer)
                    asked_pause = _retry_after(answer.headers.get("Retry-After"))
                refusal = error_for(answer.code, problem)
                if answer.code == 401 and token and self._renew and not has_renewed:
                    has_renewed = True
                    self._renew(token)
                    continue
                if answer.code not in TRANSIENT_STATUSES or not isinstance(refusal, Unavailable):
                    raise refusal from None
                error = refusal
            except (OSError, http.client.HTTPException) as broken:
                error.detail = str(getattr(broken, "reason", broken)) or type(broken).__name__
                error.args = (f"{error.title}: {error.detail}",)
            # Jitter, so that agents of one control plane do not come back all at once.
            wait = max(asked_pause, pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            if self._clock() + wait > deadline:
                raise error
            self._sleep(wait)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _try(self, call: Call, token: str) -> http.client.HTTPResponse:
        headers = dict(call.headers)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        body = call.body() if callable(call.body) else call.body
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked on start
            call.url, data=body, headers=headers, method=call.method
        )
        try:
            response: http.client.HTTPResponse = self._opener.open(request, timeout=CALL_SECONDS)
            return response
        finally:
            if body is not None and not isinstance(body, bytes):
                body.close()

    def json(
        self,
        method: str,
        url: str,
        document: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        is_authenticated: bool = True,
    ) -> Any:
        """Send JSON, read JSON; None for an empty answer.

        Raises: as `open`; ClearanceError when the answer is no JSON.
        """
        found = {"Accept": "application/json", **(headers or {})}
        body = None
        if document is not None:
            found["Content-Type"] = "application/json"
            body = json.dumps(document, allow_nan=False).encode()
        return self.answer(Call(method, url, body, found, is_authenticated))

    def answer(self, call: Call) -> Any:
        """The JSON that a call is answered with, None for an empty answer.

        Raises: as `json`.
        """
        with self.open(call) as response:
            text = response.read()
        try:
            return json.loads(text) if text else None
        except ValueError:
            raise ClearanceError(
                "The control plane's answer is no JSON", status=response.status
            ) from None


def _problem(answer: urllib.error.HTTPError) -> dict[str, Any]:
    try:
        document = json.loads(answer.read(MAX_PROBLEM_BYTES))
    except (OSError, ValueError, http.client.HTTPException):
        return {}
    return document if isinstance(document, dict) else {}


def _retry_after(header: str | None) -> float:
    try:
        return min(max(float(header or 0), 0.0), LONGEST_PAUSE_SECONDS)
    except ValueError:
        return 0.0


def query(url: str, **parameters: str | None) -> str:
    """A URL with the parameters that are not None."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"{url}?{urllib.parse.urlencode(given)}" if given else url
