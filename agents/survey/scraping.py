"""Fetches the metrics of dcgm-exporters: by their pods' addresses, or through the API server."""

import http.client
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol
from urllib.parse import quote

from agents.cluster.base import ClusterError
from agents.survey.dcgm import Metrics, MetricsUnreadable, read_metrics
from agents.survey.domain import PodFact

TIMEOUT_SECONDS: Final = 3.0  # one dead exporter must not make the others old
BYTES_MAX: Final = 4 << 20  # 16 cards in 7 slices with every counter are a tenth of that
AT_ONCE: Final = 8
PATH: Final = "/metrics"


class Proxy(Protocol):
    """Reads paths of the API server (`agents.cluster.kubernetes.api.KubernetesApi`)."""

    def head(self, path: str, *, limit: int, seconds: float) -> bytes: ...


class ScrapeFailed(Exception):
    """The exporter did not answer, or not with metrics."""


Fetch = Callable[[PodFact], bytes]


def fetch_directly(pod: PodFact) -> bytes:
    """From the pod's own address: for a process that runs in the cluster. Raises ScrapeFailed."""
    host, _, port = pod.exporter.rpartition(":")
    if not host:
        raise ScrapeFailed("the pod has no address yet")
    connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", PATH, headers={"Accept": "text/plain"})
        with connection.getresponse() as answer:  # it holds the socket by itself
            content = answer.read(BYTES_MAX + 1)
    except (OSError, http.client.HTTPException) as error:
        raise ScrapeFailed(f"{pod.exporter} does not answer: {type(error).__name__}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise ScrapeFailed(f"{pod.exporter}{PATH} answered HTTP {answer.status}")
    return content


def fetch_through(api: Proxy) -> Fetch:
    """By the API server's proxy: from anywhere; needs `get` on `pods/proxy`."""

    def fetch(pod: PodFact) -> bytes:
        port = pod.exporter.rpartition(":")[2]
        name = quote(f"{pod.name}:{port}", safe="")
        path = f"/api/v1/namespaces/{quote(pod.namespace, safe='')}/pods/{name}/proxy{PATH}"
        try:
            return api.head(path, limit=BYTES_MAX + 1, seconds=TIMEOUT_SECONDS)
        except ClusterError as error:
            raise ScrapeFailed(str(error)) from error

    return fetch


def scrape(pods: Sequence[PodFact], fetch: Fetch) -> dict[str, Metrics | ScrapeFailed]:
    """What each exporter says, by the node it is on; several at once."""
    if not pods:
        return {}
    with ThreadPoolExecutor(min(AT_ONCE, len(pods)), thread_name_prefix="dcgm") as threads:
        answers = threads.map(lambda pod: _one(pod, fetch), pods)
        return {pod.node: answer for pod, answer in zip(pods, answers, strict=True)}


def _one(pod: PodFact, fetch: Fetch) -> Metrics | ScrapeFailed:
    try:
        content = fetch(pod)
        if len(content) > BYTES_MAX:
            raise ScrapeFailed(f"it answered more than {BYTES_MAX >> 20} MiB")
        return read_metrics(content.decode("utf-8", "replace"))
    except MetricsUnreadable as error:
        return ScrapeFailed(f"its answer cannot be read: {error}")
    except ScrapeFailed as error:
        return error
