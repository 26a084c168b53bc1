"""The registration, service account and rights that are proposed for an entry; no Django.

What is proposed is text for people: nothing here, and nothing that calls this, changes a cluster.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from agents.catalogue.domain import DEFAULT_ACCOUNT, STARTERS, allows
from agents.domain.manifest import AgentManifest, parse_agent
from agents.domain.metadata import API_VERSION
from agents.domain.naming import GPU_RESOURCE, LABEL_MAX, check_image
from agents.domain.problems import ManifestError
from agents.survey.domain import Holder, Kind

FROM: Final = "catalogue.orchestration.ai/from"  # annotation: which workload a registration is of
AGENT_ID: Final = "agent_id"
UNKNOWN_IMAGE: Final = "unknown.invalid/image"  # a name that no registry has (RFC 6761)
API_VERSIONS: Final = {
    Kind.DEPLOYMENT: "apps/v1",
    Kind.STATEFUL_SET: "apps/v1",
    Kind.DAEMON_SET: "apps/v1",
    Kind.CRON_JOB: "batch/v1",
    Kind.JOB: "batch/v1",
}
# Rights by which an account could give itself more, or read what others keep secret.
ESCALATING: Final = (
    ("", "secrets", "get"), ("", "secrets", "list"), ("", "pods/exec", "create"),
    ("", "serviceaccounts/token", "create"), ("", "serviceaccounts", "impersonate"),
    ("rbac.authorization.k8s.io", "roles", "escalate"),
    ("rbac.authorization.k8s.io", "rolebindings", "create"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a proposal is made of: a row of the catalogue."""

    holder: Holder
    images: Sequence[str]
    service_account: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Three texts of YAML, and what to know before they are applied."""

    manifest: AgentManifest
    agent_yaml: str
    account_yaml: str
    patch_yaml: str  # "" for what has no template that can be changed
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of it as one file, in the order in which kubectl must apply it."""
        head = "".join(f"# {note}\n" for note in self.notes)
        parts = [self.account_yaml, self.patch_yaml, self.agent_yaml]
        return head + "---\n".join(part for part in parts if part)


def propose(entry: Entry) -> Proposal:
    """What is proposed for an entry; the manifest is valid here."""
    name = proposed_name(entry.holder)
    account = proposed_account(entry)
    document = _agent(entry, name=name, account=account)
    try:
        manifest = parse_agent(document)
    except ManifestError:
        # What the cluster allows and a manifest does not is left for a person to fill in.
        document["spec"] = {"image": UNKNOWN_IMAGE, "serviceAccountName": account}
        manifest = parse_agent(document)
    kept, dropped = split_rules(entry.facts.get("rules") or ())
    patch = _patch(entry.holder, account)
    return Proposal(
        manifest=manifest,
        agent_yaml=_yaml(manifest.to_document()),
        account_yaml=_accounts(entry, account, kept),
        patch_yaml="" if patch is None else _yaml(patch),
        notes=tuple(_notes(entry, manifest, dropped, has_patch=patch is not None)),
    )


def proposed_name(holder: Holder) -> str:
    """A name that is good for an agent, an object and a label."""
    name = re.sub(r"[^-a-z0-9]+", "-", holder.name.lower())[:LABEL_MAX].strip("-")
    return name or "agent"


def proposed_account(entry: Entry) -> str:
    """An account of its own: the one it has, unless that is `default`."""
    is_account = entry.holder.kind == Kind.SERVICE_ACCOUNT
    own = entry.holder.name if is_account else entry.service_account
    name = proposed_name(entry.holder)
    is_own = own and own != DEFAULT_ACCOUNT and len(own) <= LABEL_MAX and "." not in own
    if not is_own:
        return f"{name}-agent"[:LABEL_MAX].strip("-") if name == DEFAULT_ACCOUNT else name
    return own


def _agent(entry: Entry, *, name: str, account: str) -> dict[str, Any]:
    image = entry.images[0] if entry.images else ""
    limits: dict[str, Any] = {}
    if gpus := int(entry.facts.get("gpus") or 0):
        limits[GPU_RESOURCE] = gpus
    if memory := entry.facts.get("memory"):
        limits["memory"] = memory
    spec: dict[str, Any] = {
        "image": UNKNOWN_IMAGE if not image or check_image(image) else image,
        "serviceAccountName": account,
    }
    if limits:
        spec["resources"] = {"limits": limits}
    holder = entry.holder
    return {
        "apiVersion": API_VERSION,
        "kind": "Agent",
        "metadata": {
            "name": name,
            "namespace": holder.namespace,
            "annotations": {FROM: f"{holder.kind}/{holder.name}"},
        },
        "spec": spec,
    }


def split_rules(
    rules: Iterable[Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """RBAC rules that an account of its own keeps, and those it is not given."""
    kept: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = []
    for rule in rules:
        (dropped if _is_too_much(rule) else kept).append(dict(rule))
    return kept, dropped


def _is_too_much(rule: Mapping[str, Any]) -> bool:
    listed = [
        *(rule.get("verbs") or ()),
        *(rule.get("apiGroups") or ()),
        *(rule.get("resources") or ()),
    ]
    if "*" in listed or not rule.get("resources"):
        return True
    starts = any(
        allows(rule, verb, group, resource)
        for group, resource in STARTERS
        for verb in ("create", "update", "patch")
    )
    return starts or any(allows(rule, verb, group, what) for group, what, verb in ESCALATING)


def _accounts(entry: Entry, account: str, rules: Sequence[Mapping[str, Any]]) -> str:
    namespace = entry.holder.namespace
    named = {"name": account, "namespace": namespace}
    role = "rbac.authorization.k8s.io"
    is_new = account not in (entry.service_account, entry.holder.name)
    documents: list[dict[str, Any]] = [
        {
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": named,
            # One that exists is left as it is.
            **({"automountServiceAccountToken": bool(rules)} if is_new else {}),
        },
        {"apiVersion": f"{role}/v1", "kind": "Role", "metadata": named, "rules": list(rules)},
        {
            "apiVersion": f"{role}/v1", "kind": "RoleBinding", "metadata": named,
            "roleRef": {"apiGroup": role, "kind": "Role", "name": account},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
        },
    ]  # fmt: skip
    return "---\n".join(_yaml(one) for one in documents)


def _patch(holder: Holder, account: str) -> dict[str, Any] | None:
    """The fields to set by server-side apply; None where a template cannot be changed."""
    if holder.kind not in API_VERSIONS or holder.kind == Kind.JOB:
        return None
    template: dict[str, Any] = {
        "metadata": {"labels": {AGENT_ID: account}},
        "spec": {"serviceAccountName": account},
    }
    spec: dict[str, Any] = {"template": template}
    if holder.kind == Kind.CRON_JOB:
        spec = {"jobTemplate": {"spec": {"template": template}}}
    return {
        "apiVersion": API_VERSIONS[Kind(holder.kind)],
        "kind": holder.kind,
        "metadata": {"name": holder.name, "namespace": holder.namespace},
        "spec": spec,
    }


def _notes(
    entry: Entry,
    manifest: AgentManifest,
    dropped: Sequence[Mapping[str, Any]],
    *,
    has_patch: bool,
) -> Iterable[str]:
    yield f"Proposed for {entry.holder}. Read it, then apply it yourself:"
    yield "  kubectl apply --server-side --field-manager=catalogue -f FILE"
    if manifest.image == UNKNOWN_IMAGE:
        yield "Its image is not known in a form that a manifest may hold: fill it in."
    elif "@sha256:" not in manifest.image:
        yield "Its image can be changed under its name: write its digest in place of the tag."
    if not has_patch and entry.holder.kind in (Kind.JOB, Kind.POD):
        kind = entry.holder.kind
        yield f"The template of a {kind} cannot be changed: set the account on its next one."
    if has_patch:
        yield "The patch restarts its pods: they run under the account from then on."
    if entry.facts.get("are_rights_known") is False:
        yield "What its account may do today could not be read: the Role may be too small."
    if dropped:
        yield "Left out, because it could start pods, read secrets or give itself more:"
    for rule in dropped:
        yield f"  {rule_words(rule)}"
    yield "Its command and variables are not copied: they may hold secrets, and a manifest is read"
    yield "by more people. Fill in what it needs."


def rule_words(rule: Mapping[str, Any]) -> str:
    """An RBAC rule in one line."""
    verbs = ", ".join(map(str, rule.get("verbs") or ()))
    what = rule.get("resources") or rule.get("nonResourceURLs") or ()
    groups = [group for group in rule.get("apiGroups") or () if group]
    of = f" of {', '.join(map(str, groups))}" if groups else ""
    return f"{verbs} on {', '.join(map(str, what))}{of}"


def _yaml(document: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(document, sort_keys=False, default_flow_style=False, width=100)
    return text
