"""The Kubernetes API as JSON: one call, one timeout, our errors. Loaded only when it is used."""

import copy
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.incluster_config import InClusterConfigLoader

from agents.cluster.base import ClusterError, ClusterUnavailable

IN_POD: Final = frozenset({"", "in-cluster"})  # of CLUSTER_URL=kubernetes:…
# Where every pod finds its credentials (Kubernetes, "Accessing the Kubernetes API from a Pod").
ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# To connect, to be silent. Connecting ends before another operator may lead (see `Election`).
TIMEOUT_SECONDS: Final = (2.5, 10.0)
# Of a watch: API servers send a bookmark each minute, whatever happens.
SILENCE_SECONDS: Final = 90.0
TOTAL_SECONDS: Final = 30.0  # for a whole answer: one that drips would never be silent
RETRY_AFTER_MAX_SECONDS: Final = 600.0  # nobody means a day
# Of a client that names no limit: well below what an API server grants one user by default.
REQUESTS_PER_SECOND: Final = 100.0
BURST: Final = 200
CHUNK: Final = 1 << 16
PAGE: Final = 500  # objects of one list request, as kubectl asks
FIELD_MANAGER: Final = "clearance"
MERGE_PATCH: Final = "application/merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"
JSON: Final = "application/json"

Object = dict[str, Any]


class ObjectAbsent(ClusterError):
    """The API server knows no such object."""


class ObjectConflict(ClusterError):
    """The object exists already, or has changed since it was read."""


class ObjectRefused(ClusterError):
    """The API server will not have this object: invalid, forbidden, over a quota."""


class WatchExpired(ClusterError):
    """The version to watch from is gone: list again."""


class TooManyRequests(ClusterUnavailable):
    """The API server asks to wait so many seconds."""

    def __init__(self, text: str, *, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds


class NotOurs(ClusterError):
    """Another operator leads: nothing was written."""


class RateLimit:
    """A token bucket: so many calls a second, and a burst of so many. Safe for threads."""

    def __init__(
        self,
        *,
        per_second: float,
        burst: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._tokens = float(burst)
        self._at = clock()

    def wait(self) -> None:
        """Return when one more call is within the limit."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
            self._at = now
            self._tokens -= 1.0  # below zero is a place in the queue
            wait = -self._tokens / self._per_second
        if wait > 0:
            self._sleep(wait)


class KubernetesApi:
    """Calls of one context; connects with the first call."""

    def __init__(
        self,
        context: str,
        *,
        config_file: str | None = None,
        limit: RateLimit | None = None,
        timeouts: tuple[float, float] = TIMEOUT_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
        account: Path = ACCOUNT,
    ) -> None:
        """`timeouts` are seconds to connect, and to be silent; `account` is a pod's directory."""
        self._account = account
        self._context = context
        self._config_file = config_file
        self._limit = limit or RateLimit(per_second=REQUESTS_PER_SECOND, burst=BURST)
        self._timeouts = timeouts
        self._total_seconds = total_seconds
        self._may_write: Callable[[], bool] = lambda: True
        self._connecting = threading.Lock()
        self._client: Any = None

    def fenced(self, may_write: Callable[[], bool]) -> "KubernetesApi":
        """The same way under the same limit, but nothing is written once `may_write` says no."""
        fenced = copy.copy(self)
        fenced._may_write = may_write
        return fenced

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        if self._client is not None:
            self._client.rest_client.pool_manager.clear()
            self._client = None

    def get(self, path: str, **query: str | int) -> Object:
        """One object. Raises ObjectAbsent, ClusterUnavailable."""
        return self._json("GET", path, query=query)

    def items(self, path: str, **query: str | int) -> Iterator[Object]:
        """Every object of a list, a page at a time."""
        for page in self._pages(path, query):
            yield from page.get("items") or []

    def list_at(
        self, path: str, *, lean: Callable[[Object], Object] = lambda one: one
    ) -> tuple[list[Object], str]:
        """Every object of a list, as `lean` leaves it, and the version from which to watch it.

        Raises WatchExpired when the pages grew too old on the way.
        """
        found: list[Object] = []
        version = ""
        for page in self._pages(path, {}):
            found += map(lean, page.get("items") or [])
            version = str(page["metadata"]["resourceVersion"])
        return found, version

    def pages_at(self, path: str) -> Iterator[tuple[list[Object], str]]:
        """The pages of a list, each with the version of the whole; none is kept here.

        Raises WatchExpired when the pages grew too old on the way.
        """
        for page in self._pages(path, {}):
            yield page.get("items") or [], str(page["metadata"]["resourceVersion"])

    def _pages(self, path: str, query: Mapping[str, str | int]) -> Iterator[Object]:
        token = ""
        while True:
            more = {"continue": token} if token else {}
            page = self._json("GET", path, query={"limit": PAGE, **query, **more})
            yield page
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    def watch(
        self, path: str, *, version: str, seconds: int, silence_seconds: float = SILENCE_SECONDS
    ) -> Iterator[Object]:
        """Events after that version, until the server ends them. Raises WatchExpired.

        ClusterUnavailable after a silence: a connection that died without a word has no other sign.
        """
        query: dict[str, str | int] = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": seconds,
        }
        silence = min(silence_seconds, seconds + 5.0)
        answer = self._call("GET", path, query=query, timeout=(self._timeouts[0], silence))
        rest = b""
        try:
            for chunk in answer.response.stream(65536):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield _event(line)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ClusterUnavailable(
                f"the watch of {path} broke: {type(error).__name__}"
            ) from error
        finally:
            answer.response.close()

    def apply(
        self, path: str, body: Object, *, manager: str = FIELD_MANAGER, is_forced: bool = True
    ) -> Object:
        """Server-side apply: the fields of `body` are the manager's, and no others are touched.

        With a resourceVersion in it, only if that is the current one; unless forced, no field is
        taken from another manager. Raises ObjectConflict.
        """
        query = {"fieldManager": manager, "force": str(is_forced).lower()}
        return self._json("PATCH", path, body=body, query=query, content_type=APPLY_PATCH)

    def create(self, path: str, body: Object) -> Object:
        """Make an object. Raises ObjectConflict when one of that name exists."""
        return self._json("POST", path, body=body, query={"fieldManager": FIELD_MANAGER})

    def merge(self, path: str, change: Object) -> Object:
        """Merge-patch an object; with a resourceVersion in it, only if that is the current one."""
        query = {"fieldManager": FIELD_MANAGER}
        return self._json("PATCH", path, body=change, query=query, content_type=MERGE_PATCH)

    def delete(self, path: str, **options: object) -> None:
        """Delete an object; one that is absent is success."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", **options}
        try:
            self._json("DELETE", path, body=body)
        except ObjectAbsent:
            return

    def text(self, path: str, **query: str | int) -> bytes:
        """What a path answers, as it comes."""
        return self._send("GET", path, query=query)

    def head(self, path: str, *, limit: int, seconds: float) -> bytes:
        """The first `limit` bytes of what a path answers; waits `seconds` for each of them."""
        answer = self._call("GET", path, timeout=(min(seconds, TIMEOUT_SECONDS[0]), seconds))
        try:
            content: bytes = answer.response.read(limit)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error) from error
        finally:
            answer.response.close()
        return content

    def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Object | None = None,
        content_type: str = JSON,
    ) -> Object:
        answer = self._send(method, path, query=query, body=body, content_type=content_type)
        try:
            found = json.loads(answer)
        except ValueError as error:
            raise ClusterUnavailable(f"{self._name()} answered no JSON to {path}.") from error
        if not isinstance(found, dict):
            raise ClusterUnavailable(f"{self._name()} answered no object to {path}.")
        return found

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Object | None = None,
        content_type: str = JSON,
    ) -> bytes:
        answer = self._call(method, path, query=query, body=body, content_type=content_type)
        return self._read(answer.response)

    def _read(self, response: Any) -> bytes:
        """A whole answer, within its time."""
        deadline = time.monotonic() + self._total_seconds
        content = bytearray()
        try:
            while piece := response.read1(CHUNK):
                content += piece
                if time.monotonic() > deadline:
                    response.close()
                    raise ClusterUnavailable(f"{self._name()} answers too slowly.")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error) from error
        response.release_conn()
        return bytes(content)

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Object | None = None,
        content_type: str = JSON,
        timeout: tuple[float, float] | None = None,
    ) -> Any:
        """The answer, its body not read yet."""
        api = self._connected()
        self._limit.wait()
        if method != "GET" and not self._may_write():
            raise NotOurs(f"{method} {path} was not sent: another operator leads.")
        try:
            asked = api.param_serialize(  # reads the token, which a pod's kubelet renews
                method,
                path,
                query_params=[(name, str(value)) for name, value in (query or {}).items()],
                header_params={"Accept": JSON, "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = api.call_api(*asked, _request_timeout=timeout or self._timeouts)
        except ApiException as error:
            raise self._refusal(error.status, method, path, error.body, error.headers) from error
        except (urllib3.exceptions.HTTPError, OSError, ConfigException) as error:
            raise self._unreachable(error) from error
        if not 200 <= answer.status < 300:
            said = self._read(answer.response)
            raise self._refusal(answer.status, method, path, said, answer.response.headers)
        return answer

    def _unreachable(self, error: Exception) -> ClusterUnavailable:
        return ClusterUnavailable(f"{self._name()} cannot be reached: {type(error).__name__}.")

    def _refusal(
        self, status: int | None, method: str, path: str, body: Any, headers: Any
    ) -> ClusterError:
        text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
        said = _message(text) or f"{method} {path} got HTTP {status}."
        match status:
            case 404:
                return ObjectAbsent(said)
            case 409:
                return ObjectConflict(said)
            case 400 | 403 | 422:
                return ObjectRefused(said)
            case 410:
                return WatchExpired(said)
            case 401:
                self.close()  # the next call reads the credentials anew
                return ClusterUnavailable(f"{self._name()} does not know us: {said}")
        wait = (headers or {}).get("Retry-After")
        if status == 429 or wait:
            return TooManyRequests(f"{self._name()}: {said}", seconds=_seconds(wait))
        return ClusterUnavailable(f"{self._name()}: {said}")

    def _connected(self) -> Any:
        with self._connecting:
            if self._client is None:
                try:
                    self._client = self._connect()
                except (ConfigException, OSError) as error:
                    raise ClusterUnavailable(
                        f"CLUSTER_URL: {self._name()} cannot be used: {error}. {self._remedy()}"
                    ) from error
            return self._client

    def _connect(self) -> Any:
        settings = client.Configuration()
        # Our own callers try again, within the limit and after the wait the server asks for.
        settings.retries = urllib3.Retry(
            0, redirect=0, status=0, respect_retry_after_header=False, raise_on_status=False
        )
        if self._context in IN_POD:
            _load_pod(settings, self._account)
        else:
            config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=self._config_file,
                context=self._context,
                client_configuration=settings,
            )
        return client.ApiClient(settings)

    def _name(self) -> str:
        if self._context in IN_POD:
            return "this pod's cluster"
        return f"Kubernetes context {self._context!r}"

    def _remedy(self) -> str:
        if self._context in IN_POD:
            return (
                "Outside of a pod name a context: kubernetes:CONTEXT; in one set "
                "automountServiceAccountToken: true."
            )
        return "See `kubectl config get-contexts`."


def _load_pod(settings: Any, account: Path) -> None:
    """Settings for the cluster of this pod; the token is read anew each minute.

    Raises ConfigException, OSError where this is no pod.
    """
    InClusterConfigLoader(  # type: ignore[no-untyped-call]
        token_filename=str(account / "token"), cert_filename=str(account / "ca.crt")
    ).load_and_set(settings)


def object_path(collection: str, namespace: str, name: str = "") -> str:
    """The path of an object, or of its collection: `collection` is `api/v1/pods`, say."""
    group, _, plural = collection.rpartition("/")
    base = f"/{group}/namespaces/{quote(namespace, safe='')}/{plural}"
    return f"{base}/{quote(name, safe='')}" if name else base


def _event(line: bytes) -> Object:
    """One event of a watch. Raises WatchExpired, ClusterUnavailable."""
    try:
        event: Object = json.loads(line)
        kind, found = event["type"], event["object"]
    except (ValueError, KeyError, TypeError) as error:
        raise ClusterUnavailable("a watch said what is no event.") from error
    if kind == "ERROR":
        if found.get("code") == 410:
            raise WatchExpired(str(found.get("message", "")))
        raise ClusterUnavailable(str(found.get("message", "a watch ended with an error.")))
    return event


def _seconds(text: str | None) -> float:
    return min(float(text), RETRY_AFTER_MAX_SECONDS) if text and text.isdecimal() else 1.0


def _message(body: str) -> str:
    """The sentence in a Status object."""
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    return str(found.get("message", "")) if isinstance(found, dict) else ""
