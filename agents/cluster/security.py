"""What Kubernetes keeps the programs of attempts from: Pod Security's level "restricted"."""

from typing import Any

Context = dict[str, Any]


def security_contexts(*, is_root: bool) -> tuple[Context, Context]:
    """`securityContext` of the pod and of its container.

    Where images may run as root, what the level "baseline" takes, and no way to more privileges.
    https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    pod: Context = {"seccompProfile": {"type": "RuntimeDefault"}}
    container: Context = {"allowPrivilegeEscalation": False}
    if not is_root:
        pod["runAsNonRoot"] = True
        container["capabilities"] = {"drop": ["ALL"]}
    return pod, container
