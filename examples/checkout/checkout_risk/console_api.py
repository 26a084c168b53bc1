"""The three reads the checkout service makes of the console: current release, metadata, bytes."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

TIMEOUT_SECONDS = 10.0
WEIGHTS_MAX_BYTES = 1 << 30  # a risk model is tens of megabytes; refuse to fill the disk


class ConsoleUnavailable(Exception):
    """The console cannot be reached or gave no usable answer; the same call may work later."""


class WeightsRefused(Exception):
    """What the console sent is not what the release names."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A model artifact: its digest (what releases name), the digest and size of its one layer."""

    digest: str
    blob: str
    size: int


class ConsoleApi:
    """Reads releases and artifacts; `token` is asked before each call, so that it may rotate."""

    def __init__(self, url: str, *, token: Callable[[], str]) -> None:
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS, trust_env=False)
        self._token = token

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def current_release(self, *, environment: str, service: str) -> str | None:
        """Digest that an environment should serve, or None when nothing was ever released.

        Raises `ConsoleUnavailable`.
        """
        found = self._get_json(
            "/api/v1/releases/current", {"environment": environment, "service": service}
        )
        if found is None:
            return None
        digest = found.get("digest")
        if not isinstance(digest, str) or not digest.startswith("sha256:"):
            raise ConsoleUnavailable(f"The release of {service} in {environment} has no digest.")
        return digest

    def weights(self, digest: str) -> Weights:
        """Metadata of a model. Raises `ConsoleUnavailable`, `WeightsRefused`."""
        found = self._get_json(f"/api/v1/artifacts/{digest}", {})
        if found is None:
            raise ConsoleUnavailable(f"The registry does not have {digest}.")
        layers = found.get("layers")
        if found.get("digest") != digest or not isinstance(layers, list) or len(layers) != 1:
            raise WeightsRefused(f"{digest} is not an artifact with exactly one weights file.")
        try:
            return Weights(digest, str(layers[0]["digest"]), int(layers[0]["size"]))
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsRefused(f"The metadata of {digest} is incomplete: {error}.") from error

    def download(self, weights: Weights, path: Path) -> None:
        """Store the weights at `path`; nothing is there unless every byte is right.

        Raises `ConsoleUnavailable`, `WeightsRefused`.
        """
        partial = path.with_name(f".{path.name}.partial")
        seen, size = hashlib.sha256(), 0
        try:
            with (
                self._client.stream(
                    "GET",
                    f"/api/v1/artifacts/{weights.digest}/content",
                    headers=self._headers(),
                ) as answer,
                partial.open("wb") as stream,
            ):
                if answer.status_code != httpx.codes.OK:
                    raise ConsoleUnavailable(
                        f"The console answered {answer.status_code} for {weights.digest}."
                    )
                for chunk in answer.iter_bytes():
                    size += len(chunk)
                    if size > WEIGHTS_MAX_BYTES:
                        raise WeightsRefused(f"{weights.digest} is over {WEIGHTS_MAX_BYTES} bytes.")
                    seen.update(chunk)
                    stream.write(chunk)
            if f"sha256:{seen.hexdigest()}" != weights.blob:
                raise WeightsRefused(
                    f"{weights.digest} names weights {weights.blob}, but the bytes received hash "
                    f"to sha256:{seen.hexdigest()}; they are not used."
                )
            partial.replace(path)
        except httpx.HTTPError as error:
            raise ConsoleUnavailable(f"The console did not send the weights: {error}") from error
        finally:
            partial.unlink(missing_ok=True)

    def _headers(self) -> dict[str, str]:
        token = self._token()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _get_json(self, path: str, query: dict[str, str]) -> dict[str, Any] | None:
        try:
            answer = self._client.get(path, params=query, headers=self._headers())
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            if answer.status_code != httpx.codes.OK:
                raise ConsoleUnavailable(f"The console answered {answer.status_code} for {path}.")
            body = answer.json()
        except (httpx.HTTPError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ConsoleUnavailable(f"The console cannot be read: {error}") from error
        if not isinstance(body, dict):
            raise ConsoleUnavailable(f"The console's answer for {path} is not a JSON object.")
        return body
