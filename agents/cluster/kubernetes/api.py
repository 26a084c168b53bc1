"""The Kubernetes API as JSON: one call, one timeout, our errors. Loaded only when it is used."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from agents.cluster.base import ClusterError, ClusterUnavailable

TIMEOUT_SECONDS: Final = (5.0, 10.0)  # to connect, to answer
PAGE: Final = 500  # objects of one list request, as kubectl asks
FIELD_MANAGER: Final = "clearance"
MERGE_PATCH: Final = "application/merge-patch+json"
JSON: Final = "application/json"

Object = dict[str, Any]


class ObjectAbsent(ClusterError):
    """The API server knows no such object."""


class ObjectConflict(ClusterError):
    """The object exists already, or has changed since it was read."""


class ObjectRefused(ClusterError):
    """The API server will not have this object: invalid, forbidden, over a quota."""


class KubernetesApi:
    """Calls of one context; connects with the first call."""

    def __init__(self, context: str, *, config_file: str | None = None) -> None:
        self._context = context
        self._config_file = config_file
        self._client: Any = None

    def get(self, path: str, **query: str | int) -> Object:
        """One object. Raises ObjectAbsent, ClusterUnavailable."""
        return self._json("GET", path, query=query)

    def items(self, path: str, **query: str | int) -> Iterator[Object]:
        """Every object of a list, a page at a time."""
        token = ""
        while True:
            more = {"continue": token} if token else {}
            page = self._json("GET", path, query={"limit": PAGE, **query, **more})
            yield from page.get("items") or []
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return

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
        api = self._connected()
        headers = {"Accept": JSON, "Content-Type": content_type}
        asked = api.param_serialize(
            method,
            path,
            query_params=[(name, str(value)) for name, value in (query or {}).items()],
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            answer = api.call_api(*asked, _request_timeout=TIMEOUT_SECONDS)
            content: bytes = answer.read()
        except ApiException as error:
            raise self._refusal(error.status, method, path, str(error.body or "")) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ClusterUnavailable(
                f"{self._name()} cannot be reached: {type(error).__name__}."
            ) from error
        if not 200 <= answer.status < 300:
            raise self._refusal(answer.status, method, path, content.decode("utf-8", "replace"))
        return content

    def _refusal(self, status: int | None, method: str, path: str, body: str) -> ClusterError:
        said = _message(body) or f"{method} {path} got HTTP {status}."
        match status:
            case 404:
                return ObjectAbsent(said)
            case 409:
                return ObjectConflict(said)
            case 400 | 403 | 422:
                return ObjectRefused(said)
            case 401:
                return ClusterUnavailable(f"{self._name()} does not know us: {said}")
        return ClusterUnavailable(f"{self._name()}: {said}")

    def _connected(self) -> Any:
        if self._client is None:
            try:
                if self._context:
                    self._client = config.new_client_from_config(  # type: ignore[no-untyped-call]
                        config_file=self._config_file, context=self._context
                    )
                else:
                    settings = client.Configuration()
                    config.load_incluster_config(  # type: ignore[no-untyped-call]
                        client_configuration=settings
                    )
                    self._client = client.ApiClient(settings)
            except (ConfigException, OSError) as error:
                raise ClusterUnavailable(
                    f"CLUSTER_URL: {self._name()} cannot be used: {error}. "
                    "See `kubectl config get-contexts`."
                ) from error
        return self._client

    def _name(self) -> str:
        return f"Kubernetes context {self._context!r}" if self._context else "this pod's cluster"


def object_path(collection: str, namespace: str, name: str = "") -> str:
    """The path of an object, or of its collection: `collection` is `api/v1/pods`, say."""
    group, _, plural = collection.rpartition("/")
    base = f"/{group}/namespaces/{quote(namespace, safe='')}/{plural}"
    return f"{base}/{quote(name, safe='')}" if name else base


def _message(body: str) -> str:
    """The sentence in a Status object."""
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    return str(found.get("message", "")) if isinstance(found, dict) else ""
