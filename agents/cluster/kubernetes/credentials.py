"""What a pod is given to prove who it is: its agent's service account, and a token bound to it."""

from pathlib import PurePosixPath
from typing import Any, Final

from agents.cluster.base import TOKEN_FILE, WorkloadSpec
from agents.cluster.kubernetes.api import KubernetesApi, ObjectConflict, object_path

Object = dict[str, Any]

ACCOUNTS: Final = "api/v1/serviceaccounts"
VOLUME: Final = "identity"
TOKEN_SECONDS: Final = 600  # the least that the TokenRequest API gives


def ensure_account(api: KubernetesApi, spec: WorkloadSpec) -> None:
    """Make the agent's service account when there is none; one that is there is left as it is.

    Raises ObjectAbsent when there is no such namespace, ObjectRefused.
    """
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": spec.service_account,
            "labels": {
                "app.kubernetes.io/managed-by": "clearance",
                "orchestration.ai/agent": spec.agent,
            },
        },
        # An agent is no client of the API server: its one token is for Clearance alone.
        "automountServiceAccountToken": False,
    }
    try:
        api.create(object_path(ACCOUNTS, spec.namespace), account)
    except ObjectConflict:
        return


def token_volumes(spec: WorkloadSpec) -> list[Object]:
    """The pod's volumes: its own token, which the kubelet writes and renews."""
    if not spec.token_audience:
        return []
    token = {
        "audience": spec.token_audience,
        "expirationSeconds": TOKEN_SECONDS,
        "path": PurePosixPath(TOKEN_FILE).name,
    }
    return [{"name": VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}}]


def token_mounts(spec: WorkloadSpec) -> list[Object]:
    """Where the container sees them."""
    if not spec.token_audience:
        return []
    return [{"name": VOLUME, "mountPath": str(PurePosixPath(TOKEN_FILE).parent), "readOnly": True}]
