"""Who vouches for the workloads of `CLUSTER_URL`: the cluster itself, where it can."""

import functools

from django.conf import settings

from agents.attestation.base import Attestor
from agents.attestation.memory import MemoryAttestor
from agents.cluster import get_cluster

KUBERNETES = "kubernetes:"
TWIN_OPTION = "attests=1"  # `memory:?gpus=4&attests=1`, in tests


def get_attestor() -> Attestor | None:
    """The attestor of `settings.CLUSTER_URL`; None where join tokens prove who a workload is."""
    return _attestor(settings.CLUSTER_URL, settings.WORKLOAD_TOKEN_AUDIENCE)


@functools.cache
def _attestor(url: str, audience: str) -> Attestor | None:
    if url.startswith(KUBERNETES):
        # As the cluster's adapter: only processes that need the client pay for loading it.
        from agents.attestation.kubernetes import (  # noqa: PLC0415 - loads the client
            KubernetesAttestor,
        )
        from agents.cluster.kubernetes.api import KubernetesApi  # noqa: PLC0415 - loads the client

        api = KubernetesApi(url.removeprefix(KUBERNETES))
        return KubernetesAttestor(api, get_cluster(), audience=audience)
    if url.startswith("memory:") and TWIN_OPTION in url:
        return MemoryAttestor(audience=audience)
    return None
