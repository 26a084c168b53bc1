"""Sends samples to the API over HTTPS: for a node that must not reach the database."""

import contextlib
import http.client
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from agents.gpus.domain import Sample
from agents.gpus.reports import report_of

TIMEOUT_SECONDS: Final = 5.0  # to connect, and between two bytes
ANSWER_MAX: Final = 64 << 10
TOKEN_MAX: Final = 16 << 10
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class ReportFailed(Exception):
    """The sample was not taken; the text says why."""


class Reporter:
    """Puts each sample to `{url}/api/v1/nodes/{name}/gpus`; the connection is made anew each time.

    `token` is asked for with each report, since projected tokens are replaced while one runs. An
    answer is never followed elsewhere: the token would go along.

    Raises ValueError for a URL that is not https (or http of this very machine).
    """

    def __init__(
        self,
        url: str,
        *,
        token: Callable[[], str],
        authority: Path | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        parts = urlsplit(url.rstrip("/"))
        is_plain = parts.scheme == "http" and parts.hostname in LOOPBACK
        if (parts.scheme != "https" and not is_plain) or not parts.hostname or parts.query:
            raise ValueError(f"--report-to: {url!r} must be https://HOST[:PORT]: a token is sent.")
        self._is_plain = is_plain
        self._host, self._port, self._root = parts.hostname, parts.port, parts.path
        self._token = token
        self._authority = authority
        self._timeout_seconds = timeout_seconds

    def __call__(self, sample: Sample) -> None:
        """Report one sample. Raises ReportFailed."""
        body = json.dumps(report_of(sample), allow_nan=False).encode()
        path = f"{self._root}/api/v1/nodes/{quote(sample.node, safe='')}/gpus"
        connection, token = self._connection(), self._read_token()
        try:
            status, said = _put(connection, path, body, token=token)
        except ssl.SSLCertVerificationError as error:
            raise ReportFailed(self._distrust(error)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ReportFailed(f"{self._host} cannot be reached: {error}") from error
        if status != http.client.NO_CONTENT:
            raise ReportFailed(f"{self._host} answered HTTP {status}: {_detail(said)}")

    def _read_token(self) -> str:
        try:
            return self._token()
        except (OSError, ValueError) as error:
            raise ReportFailed(f"--token-file: the token cannot be read: {error}") from error

    def _connection(self) -> http.client.HTTPConnection:
        if self._is_plain:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_seconds)
        try:
            context = ssl.create_default_context(cafile=self._authority)
        except ssl.SSLError as error:
            raise ReportFailed(
                f"--ca-file {self._authority}: no PEM certificate is in it."
            ) from error
        except OSError as error:
            raise ReportFailed(f"--ca-file {self._authority}: {error.strerror}.") from error
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=self._timeout_seconds, context=context
        )

    def _distrust(self, error: ssl.SSLCertVerificationError) -> str:
        """Why the server's certificate is not taken, and what helps."""
        match error.verify_code:
            case 9 | 10:  # X509_V_ERR_CERT_NOT_YET_VALID, _HAS_EXPIRED
                remedy = "renew it, or set the clocks"
            case 62 | 64:  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH
                remedy = "report to a name that is in it"
            case _:
                remedy = "name the authority that signed it in --ca-file"
        said = error.verify_message.rstrip(".")
        return f"the certificate of {self._host} is not trusted ({said}): {remedy}."


def _put(
    connection: http.client.HTTPConnection, path: str, body: bytes, *, token: str
) -> tuple[int, bytes]:
    """Status and body of the answer."""
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Connection": "close",
    }
    with contextlib.closing(connection):
        connection.request("PUT", path, body=body, headers=headers)
        with connection.getresponse() as answer:
            return answer.status, answer.read(ANSWER_MAX)


def token_in(path: Path) -> Callable[[], str]:
    """Reads a token from a file, as often as it is asked for."""

    def read() -> str:
        with path.open("rb") as file:
            return file.read(TOKEN_MAX).decode("ascii").strip()

    return read


def _detail(body: bytes) -> str:
    try:
        found = json.loads(body)
    except ValueError:
        return "no explanation"
    return str(found.get("detail", ""))[:300] if isinstance(found, dict) else "no explanation"
