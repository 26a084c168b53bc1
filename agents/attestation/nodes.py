"""Which node a sampler's service account token speaks for, as the cluster itself knows it."""

import functools
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from django.conf import settings

from agents.attestation.base import (
    TOKEN_MAX_CHARACTERS,
    AttestationUnavailable,
    TokenRefused,
)
from agents.cluster.base import ClusterError

if TYPE_CHECKING:
    from agents.cluster.kubernetes.api import KubernetesApi

KUBERNETES: Final = "kubernetes:"
TWIN_OPTION: Final = "attests=1"  # `memory:?gpus=4&attests=1`, in tests
REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCOUNT_PREFIX: Final = "system:serviceaccount:"
POD_NAME: Final = "authentication.kubernetes.io/pod-name"
POD_UID: Final = "authentication.kubernetes.io/pod-uid"
# A sampler reports every two seconds: a verdict holds for thirty such reports.
VERDICT_SECONDS: Final = 60.0
VERDICTS_MAX: Final = 8192  # of nodes and of strangers; the oldest are forgotten first


class NodeReviewer(Protocol):
    """Says for which node a token speaks."""

    def node_of(self, token: str) -> str:
        """The node's name. Raises TokenRefused, AttestationUnavailable."""


class KubernetesNodeReviewer:
    """TokenReview, then the pod that the token is bound to: where it runs is its node.

    `account` is `namespace/name` of the samplers' service account; no other may speak for a node.
    """

    def __init__(
        self,
        api: "KubernetesApi",
        *,
        account: str,
        audience: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._account = account
        self._audience = audience
        self._clock = clock
        self._lock = threading.Lock()
        self._verdicts: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def node_of(self, token: str) -> str:
        """See `NodeReviewer`; good tokens are asked about once a minute."""
        if not token or len(token) > TOKEN_MAX_CHARACTERS or not token.isascii():
            raise TokenRefused("The service account token is no token.")
        key = hashlib.sha256(token.encode()).digest()
        with self._lock:
            until, node = self._verdicts.get(key, (0.0, ""))
        if self._clock() < until:
            return node
        try:
            node = self._node(token)
        except ClusterError as error:
            raise AttestationUnavailable(f"Kubernetes cannot be asked: {error}") from error
        with self._lock:
            self._verdicts[key] = self._clock() + VERDICT_SECONDS, node
            while len(self._verdicts) > VERDICTS_MAX:
                self._verdicts.popitem(last=False)
        return node

    def _node(self, token: str) -> str:
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self._audience]},
        }
        status: dict[str, Any] = self._api.create(REVIEWS, asked).get("status") or {}
        if not status.get("authenticated") or self._audience not in (status.get("audiences") or []):
            raise TokenRefused(
                f"Kubernetes does not accept the token for audience {self._audience}."
            )
        user = status.get("user") or {}
        namespace, _, account = self._account.partition("/")
        if user.get("username") != f"{ACCOUNT_PREFIX}{namespace}:{account}":
            raise TokenRefused(
                f"Only the service account {self._account} reports for nodes "
                "(NODE_SERVICE_ACCOUNT)."
            )
        extra = user.get("extra") or {}
        names, uids = extra.get(POD_NAME) or [""], extra.get(POD_UID) or [""]
        return self._where(namespace, str(names[0]), str(uids[0]))

    def _where(self, namespace: str, name: str, uid: str) -> str:
        if not name or not uid:
            raise TokenRefused("The token is not bound to a pod.")
        # The pod's name is the cluster's own word: nothing in it leads elsewhere.
        pods = self._api.items(
            f"/api/v1/namespaces/{namespace}/pods", fieldSelector=f"metadata.name={name}"
        )
        for pod in pods:
            node = (pod.get("spec") or {}).get("nodeName")
            if pod["metadata"]["uid"] == uid and node:
                return str(node)
        raise TokenRefused("The pod that the token is bound to runs on no node any more.")


class MemoryNodeReviewer:
    """Knows the tokens that a test put into `nodes`; `fail_next` makes one call fail."""

    def __init__(self) -> None:
        self.nodes: dict[str, str] = {}
        self._failure: Exception | None = None

    def fail_next(self, error: Exception) -> None:
        """Raise this at the next call."""
        self._failure = error

    def node_of(self, token: str) -> str:
        """See `NodeReviewer`."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if token not in self.nodes:
            raise TokenRefused("The service account token is no token.")
        return self.nodes[token]


def get_node_reviewer() -> NodeReviewer | None:
    """The reviewer of `settings.CLUSTER_URL`; None where no token of a platform names a node."""
    return _reviewer(
        settings.CLUSTER_URL, settings.NODE_SERVICE_ACCOUNT, settings.WORKLOAD_TOKEN_AUDIENCE
    )


@functools.cache
def _reviewer(url: str, account: str, audience: str) -> NodeReviewer | None:
    if url.startswith(KUBERNETES) and account:
        # Only processes that need the client pay for loading it.
        from agents.cluster.kubernetes.api import KubernetesApi  # noqa: PLC0415 - loads the client

        api = KubernetesApi(url.removeprefix(KUBERNETES))
        return KubernetesNodeReviewer(api, account=account, audience=audience)
    if url.startswith("memory:") and TWIN_OPTION in url:
        return MemoryNodeReviewer()
    return None
