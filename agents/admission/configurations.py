"""The webhook configurations: what the API server asks us about, and how it reaches us."""

from collections.abc import Mapping
from typing import Any, Final

from agents.admission.app import MUTATE_GOALS, MUTATE_WORKLOADS, VALIDATE_WORKLOADS

Object = dict[str, Any]

API_VERSION: Final = "admissionregistration.k8s.io/v1"
GROUP_PATH: Final = f"/apis/{API_VERSION}"
NAME: Final = "clearance-admission"
MUTATING: Final = f"{GROUP_PATH}/mutatingwebhookconfigurations/{NAME}"
VALIDATING: Final = f"{GROUP_PATH}/validatingwebhookconfigurations/{NAME}"
TIMEOUT_SECONDS: Final = 2
PORT: Final = 8443
GOVERNED: Final[Mapping[str, str]] = {"orchestration.ai/governed": "true"}
OPERATIONS: Final = ["CREATE", "UPDATE"]
# Where the pods come from. Controllers make ReplicaSets and Jobs of the others; a person may, too.
TEMPLATES: Final = (
    ("apps", ["deployments", "statefulsets", "daemonsets", "replicasets"]),
    ("batch", ["jobs", "cronjobs"]),
)


def configurations(
    *, url: str = "", service: tuple[str, str] | None = None, bundle: str = ""
) -> dict[str, Object]:
    """Both configurations by their paths in the API.

    The API server reaches us by `url`, or by the service of that namespace and name. `bundle` is
    the `caBundle` (base64 of PEM), "" to leave that to the process, which fills it in.
    """

    def client(path: str) -> Object:
        trust = {"caBundle": bundle} if bundle else {}
        if service is None:
            return {"url": f"{url}{path}", **trust}
        namespace, name = service
        where = {"namespace": namespace, "name": name, "path": path, "port": PORT}
        return {"service": where, **trust}

    mutating = [
        _webhook(
            "workloads.mutate.admission.orchestration.ai",
            client(MUTATE_WORKLOADS),
            [_rule("", ["pods"]), *_template_rules()],
            side_effects="None",
            reinvocation="IfNeeded",  # another webhook may change the service account
        ),
        _webhook(
            "goals.mutate.admission.orchestration.ai",
            client(MUTATE_GOALS),
            [_rule("orchestration.ai", ["goals"])],
            side_effects="None",
            reinvocation="IfNeeded",
        ),
    ]
    validating = [
        _webhook(
            "workloads.validate.admission.orchestration.ai",
            client(VALIDATE_WORKLOADS),
            [_rule("", ["pods", "pods/ephemeralcontainers"]), *_template_rules()],
            side_effects="NoneOnDryRun",
        )
    ]
    return {
        MUTATING: _configuration("MutatingWebhookConfiguration", mutating),
        VALIDATING: _configuration("ValidatingWebhookConfiguration", validating),
    }


def bundle_patch(found: Object, *, bundle: str) -> Object:
    """What server-side apply takes to change the `caBundle` of every webhook, and nothing else."""
    hooks = [
        {"name": one["name"], "clientConfig": {"caBundle": bundle}} for one in found["webhooks"]
    ]
    return {
        "apiVersion": API_VERSION, "kind": found["kind"],
        "metadata": {"name": found["metadata"]["name"]}, "webhooks": hooks,
    }  # fmt: skip


def trusts(found: Object, *, bundle: str) -> bool:
    """Has every webhook of a configuration this `caBundle`?"""
    hooks = found.get("webhooks") or []
    return all((one.get("clientConfig") or {}).get("caBundle") == bundle for one in hooks)


def _configuration(kind: str, hooks: list[Object]) -> Object:
    metadata = {"name": NAME, "labels": {"app.kubernetes.io/part-of": "clearance"}}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "webhooks": hooks}


def _webhook(
    name: str,
    client: Object,
    rules: list[Object],
    *,
    side_effects: str,
    reinvocation: str = "",
) -> Object:
    return {
        "name": name,
        "clientConfig": client,
        "rules": rules,
        "namespaceSelector": {"matchLabels": dict(GOVERNED)},
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "sideEffects": side_effects,
        "timeoutSeconds": TIMEOUT_SECONDS,
        "admissionReviewVersions": ["v1"],
        **({"reinvocationPolicy": reinvocation} if reinvocation else {}),
    }


def _rule(group: str, resources: list[str]) -> Object:
    return {
        "apiGroups": [group], "apiVersions": ["v1"], "operations": list(OPERATIONS),
        "resources": resources, "scope": "Namespaced",
    }  # fmt: skip


def _template_rules() -> list[Object]:
    return [_rule(group, resources) for group, resources in TEMPLATES]
