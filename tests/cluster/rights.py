"""Who asked the API server for what: accounts of the installation, their tokens, the audit log."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tests.cluster.control_plane import CONTEXT, ControlPlane
from tests.cluster.installing import SYSTEM

Object = dict[str, Any]

PREFIX: Final = f"system:serviceaccount:{SYSTEM}:clearance-"
POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "userGroups": [f"system:serviceaccounts:{SYSTEM}"]},
        {"level": "None"},
    ],
}


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """What may be done, or was: a verb on a resource of a group, as roles and audit name it."""

    group: str
    resource: str
    verb: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f".{self.group}" if self.group else "")


def audit_arguments(directory: Path) -> list[str]:
    """The API server's arguments for a log of what the installation's accounts ask."""
    policy = directory / "audit-policy.json"
    policy.write_text(json.dumps(POLICY))
    return [
        f"--audit-policy-file={policy}", f"--audit-log-path={directory / 'audit.log'}",
        "--audit-log-mode=blocking",
    ]  # fmt: skip


def acting_as(plane: ControlPlane, process: str, directory: Path) -> ControlPlane:
    """The same control plane with a kubeconfig that holds a token of this process's account."""
    path = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/clearance-{process}/token"
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = plane.request("POST", path, asked)["status"]["token"]
    content = json.loads(plane.kubeconfig.read_text())
    content["users"] = [{"name": CONTEXT, "user": {"token": token}}]
    kubeconfig = directory / f"{process}.kubeconfig"
    kubeconfig.write_text(json.dumps(content))
    return replace(plane, kubeconfig=kubeconfig)


def used(plane: ControlPlane) -> dict[str, set[Right]]:
    """What each process has asked for, by its name."""
    found: dict[str, set[Right]] = {}
    for process, right, _ in _asked(plane):
        found.setdefault(process, set()).add(right)
    return found


def refused(plane: ControlPlane) -> list[str]:
    """What was asked that no role of the process covers."""
    return sorted(
        {f"{who}: {right}" for who, right, decision in _asked(plane) if decision != "allow"}
    )


def _asked(plane: ControlPlane) -> Iterator[tuple[str, Right, str]]:
    with (plane.directory / "audit.log").open() as log:
        events = [json.loads(line) for line in log if line.endswith("\n")]
    for event in events:
        user, reference = event["user"]["username"], event.get("objectRef")
        if user.startswith(PREFIX) and reference:
            parts = reference["resource"], reference.get("subresource")
            resource = "/".join(part for part in parts if part)
            right = Right(reference.get("apiGroup", ""), resource, event["verb"])
            decision = (event.get("annotations") or {}).get("authorization.k8s.io/decision", "")
            yield user.removeprefix(PREFIX), right, decision


def granted(documents: Iterable[Object]) -> dict[str, set[Right]]:
    """What each process may do by its roles, wherever they are bound."""
    documents = list(documents)
    roles = {
        (one["kind"], one["metadata"]["name"]): set(_rights(one["rules"]))
        for one in documents
        if one["kind"] in ("Role", "ClusterRole")
    }
    found: dict[str, set[Right]] = {}
    for one in documents:
        if one["kind"] in ("RoleBinding", "ClusterRoleBinding"):
            role = one["roleRef"]["kind"], one["roleRef"]["name"]
            for subject in one["subjects"]:
                process = subject["name"].removeprefix("clearance-")
                found.setdefault(process, set()).update(roles[role])
    return found


def _rights(rules: Iterable[Object]) -> Iterator[Right]:
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    yield Right(group, resource, verb)
