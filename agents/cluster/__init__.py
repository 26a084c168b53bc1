"""Where workloads run, behind one port; `CLUSTER_URL` chooses the adapter."""

from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from agents.cluster.base import Cluster
from agents.cluster.local import LocalCluster
from agents.cluster.memory import MemoryCluster
from agents.cluster.security import Context, security_contexts

ACCEPTED = "local:?gpus=N[&hold=0|1], kubernetes:CONTEXT, kubernetes:in-cluster or memory:[?gpus=N]"
KUBERNETES = "kubernetes:"
GPUS_MAX = 1024  # declared slots are files; nobody means more on one machine


def get_cluster() -> Cluster:
    """The cluster of `settings.CLUSTER_URL`; one per process, URL and data directory.

    Raises:
        ImproperlyConfigured: the URL is none of the accepted forms.
    """
    if settings.CLUSTER_URL.startswith(KUBERNETES):
        return kubernetes_cluster(
            settings.CLUSTER_URL.removeprefix(KUBERNETES),
            keep_seconds=settings.WORKLOAD_RETENTION_SECONDS,
            root_namespaces=frozenset(settings.WORKLOAD_ROOT_NAMESPACES),
        )
    return _cluster(
        settings.CLUSTER_URL, data=Path(settings.CLEARANCE_DATA), root=Path(settings.BASE_DIR)
    )


def security_in(namespace: str) -> tuple[Context, Context] | None:
    """`securityContext` of a pod and its container there; None where attempts are no pods."""
    if not settings.CLUSTER_URL.startswith(KUBERNETES):
        return None
    return security_contexts(is_root=namespace in settings.WORKLOAD_ROOT_NAMESPACES)


@cache
def _cluster(url: str, *, data: Path, root: Path) -> Cluster:
    parts = urlsplit(url)
    if parts.scheme not in ("local", "memory") or parts.netloc or parts.path or parts.fragment:
        raise _unusable(url, "it is none of the forms this version knows")
    options = _options(url, parts.query)
    gpus = _whole_number(url, "gpus", options.pop("gpus", "0"), high=GPUS_MAX)
    hold = _whole_number(url, "hold", options.pop("hold", "0"), high=1)
    if parts.scheme == "memory":
        options.pop("attests", None)  # the twin of agents.attestation reads it
    if options:
        raise _unusable(url, f"{sorted(options)[0]!r} is no option of it")
    if parts.scheme == "memory":
        return MemoryCluster(gpus=gpus, hold_gpus_on_pause=bool(hold))
    return LocalCluster(
        data / "cluster",
        declared_gpus=gpus,
        hold_gpus_on_pause=bool(hold),
        root=root,
        control_plane_lock=data / "run" / "tower.lock",
    )


@cache
def kubernetes_cluster(
    context: str, *, keep_seconds: int, root_namespaces: frozenset[str]
) -> Cluster:
    """Jobs of a context of the kubeconfig, or of the cluster this pod runs in."""
    # The client takes a second and 60 MB to load: only processes that need it pay.
    from agents.cluster.kubernetes.api import KubernetesApi  # noqa: PLC0415 - loads the client
    from agents.cluster.kubernetes.cluster import (  # noqa: PLC0415 - loads the client
        KubernetesCluster,
    )
    from agents.cluster.kubernetes.objects import Terms  # noqa: PLC0415 - loads the client

    terms = Terms(keep_seconds=keep_seconds, root_namespaces=root_namespaces)
    return KubernetesCluster(KubernetesApi(context), terms=terms)


def _options(url: str, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise _unusable(url, "what follows '?' is not name=value") from error
    if len(dict(pairs)) != len(pairs):
        raise _unusable(url, "an option is given twice")
    return dict(pairs)


def _whole_number(url: str, name: str, word: str, *, high: int) -> int:
    if not (word.isascii() and word.isdigit()) or int(word) > high:
        raise _unusable(url, f"{name}={word} is not a whole number from 0 to {high}")
    return int(word)


def _unusable(url: str, why: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"CLUSTER_URL={url!r} cannot be used: {why}. Use {ACCEPTED}.")
